"""Each script in examples/ runs in a process and a folder of its own, prints what it promises and
warns of nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.commandline import without_notes
from tests.helpers.waiting import HANGS

FOLDER = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))


def printed_by(name: str, folder: Path, *arguments: str) -> str:
    environment = os.environ | {"GPUMLP_DEVICE": "cpu", "PYTHONPATH": str(FOLDER.parent)}
    command = [sys.executable, "-W", "error", str(FOLDER / f"{name}.py"), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment, timeout=HANGS
    )
    assert done.returncode == 0, done.stderr
    assert without_notes(done.stderr) == ""
    return done.stdout


def number(pattern: str, printed: str) -> float:
    """The number that stands for N in the pattern."""
    found = re.search(pattern.replace("N", r"(-?[\d.]+(?:e-?\d+)?)"), printed)
    assert found, printed
    return float(found[1])


def test_classification(tmp_path):
    printed = printed_by("classification", tmp_path)
    assert number("test accuracy: N", printed) > 0.95
    assert re.search(r"1 +64 -> 128 +relu +0\.2", printed)
    assert "features of the last hidden layer: (450, 64)" in printed
    assert len(re.findall(r"^a \d: \d with \d+%, or \d with \d+%$", printed, re.MULTILINE)) == 3


def test_quantile_regression(tmp_path):
    printed = printed_by("quantile_regression", tmp_path)
    for quantile in (0.1, 0.5, 0.9):
        assert abs(number(f"quantile {quantile}: N%", printed) / 100 - quantile) < 0.06
    assert abs(number("in the band: N%", printed) - 80) < 8
    rows = re.findall(r"^ +[\d.]+ +(\S+) +(\S+) +(\S+)$", printed, re.MULTILINE)
    assert len(rows) == 3
    for low, median, high in rows:
        assert float(low) < float(median) < float(high)


def test_grid_search(tmp_path):
    printed = printed_by("grid_search", tmp_path)
    assert number("test AUC of the best: N", printed) > 0.97
    scores = re.findall(r"^ +\d+  (0\.\d+) +(?:relu|gelu)", printed, re.MULTILINE)
    assert len(scores) == 8 and scores == sorted(scores, reverse=True)


def test_grid_search_curves(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib, which draws the curves, is not installed")
    printed = printed_by("grid_search_curves", tmp_path, "3")
    assert "45 networks in " in printed
    assert number("accuracy of the best: N", printed) > 0.9
    assert 1e-4 <= number("best learning_rate_init: N", printed) <= 0.1
    assert (tmp_path / "grid_search.png").is_file()


def test_checkpoint_resume(tmp_path):
    printed = printed_by("checkpoint_resume", tmp_path)
    assert "resumed after epoch 6, 6 epochs are left" in printed
    assert "weights identical to an uninterrupted training: True" in printed
    assert (tmp_path / "digits.safetensors").is_file()
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3


def test_export_onnx(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime, which runs the file, is not installed")
    pytest.importorskip("onnx", reason="onnx, which writes the file, is not installed")
    printed = printed_by("export_onnx", tmp_path)
    assert number("accuracy by onnxruntime: N", printed) > 0.9
    assert number("largest difference to gpumlp: N", printed) < 1e-5
    assert (tmp_path / "digits.onnx").is_file()


def test_every_script_is_tested_and_told_of():
    assert {f"test_{name}" for name in SCRIPTS} <= set(globals())
    told = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"[{name}.py]({name}.py)" in told for name in SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_short(name):
    assert len((FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 60
