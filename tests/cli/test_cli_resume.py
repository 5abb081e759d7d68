"""A run that was cut short goes on by --resume, to what it would have come to."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import gpumlp
from tests.helpers.commandline import blobs, refused, run
from tests.helpers.waiting import HANGS

pandas = pytest.importorskip("pandas", reason="tables need pandas: pip install gpumlp[table]")

RUNS = {
    "values": ["cars.csv", "--target", "price", "--hidden", 8, "--epochs", 5, "--seed", 0],
    "classes": [
        "cars.csv",
        "--target",
        "fuel",
        "--drop",
        "price",
        "--hidden",
        "8,4",
        "--epochs",
        5,
    ],
    "files": ["cars.csv", "--target", "price", "--valid", "more.csv", "--test", "more.csv"],
    "folds": ["cars.csv", "--target", "price", "--hidden", "none", "--epochs", 4, "--cv", 2],
    "arrays": ["blobs.npz", "--hidden", 8, "--epochs", 6, "--dropout", 0.3, "--optimizer", "lion"],
}
RUNS["files"] += ["--hidden", 8, "--epochs", 9, "--patience", 1, "--l2", 0, "--dtype", "float64"]

# What is run before the command: the signal NAME comes ...
AFTER_AN_EPOCH = """
    from gpumlp.cli import unfinished
    class Signalled(unfinished.RunCheckpoint):
        def on_epoch_end(self, trainer, history):
            super().on_epoch_end(trainer, history)
            if history.epochs == 2:
                os.kill(os.getpid(), NAME)
    Signalled.__name__ = "RunCheckpoint"
    unfinished.RunCheckpoint = Signalled
"""
AMID_AN_EPOCH = """
    from gpumlp.training import executors
    choose, epochs = executors.choose, []
    class Signalled:
        def __init__(self, executor):
            self.executor, self.slices = executor, executor.slices
        def run(self, step, rows, first, most, interrupted):
            epochs.extend([1] * (first == 0))
            if len(epochs) != 3:
                return self.executor.run(step, rows, first, most, interrupted)
            done = self.executor.run(step, rows, first, 1, interrupted)
            os.kill(os.getpid(), NAME)
            return done
    executors.choose = lambda *arguments: Signalled(choose(*arguments))
"""
BEFORE_THE_FIRST = """
    from gpumlp.training.trainer import Trainer
    run_epoch = Trainer.run_epoch
    def signalled(*arguments):
        os.kill(os.getpid(), NAME)
        return run_epoch(*arguments)
    Trainer.run_epoch = signalled
"""


def command(folder, line, code="", name="SIGKILL"):
    """What became of a command that the signal comes to; every epoch has a checkpoint."""
    program = f"import os, signal, sys\nNAME = signal.{name}\n{textwrap.dedent(code)}\n"
    program += "from gpumlp.cli import main, unfinished\nunfinished.SECONDS = 1e-9\n"
    program += "sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, line)],
        capture_output=True, text=True, timeout=HANGS, cwd=folder, env=environment,
    )  # fmt: skip


def cars(rows, seed):
    rng = np.random.default_rng(seed)
    fuel = rng.choice(["petrol", "diesel", "gas"], rows)
    age = rng.integers(0, 20, rows).astype(float)
    price = 20_000 - 800 * age + 2000 * (fuel == "gas") + rng.normal(0, 500, rows)
    age[rng.random(rows) < 0.1] = np.nan
    return pandas.DataFrame({"age": age, "fuel": fuel, "price": price.round()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files to train on, and whole runs on them, by their names in RUNS."""
    folder = tmp_path_factory.mktemp("resume")
    cars(150, 1).to_csv(folder / "cars.csv", index=False)
    cars(40, 2).to_csv(folder / "more.csv", index=False)
    x, y = blobs()
    np.savez(folder / "blobs.npz", X=x, y=y)
    before = os.getcwd()
    os.chdir(folder)
    try:
        for name, options in RUNS.items():
            assert run("train", *options, "--device", "cpu", "--out", f"whole/{name}") == 0
    finally:
        os.chdir(before)
    return folder


def cut(folder, case, code=AFTER_AN_EPOCH, name="SIGKILL"):
    """The folder of a run that was cut short, and the options it had."""
    out = f"runs/{case} {len(list(folder.glob('runs/*')))}"
    line = ["train", *RUNS[case], "--device", "cpu", "--out", out]
    done = command(folder, line, code, name)
    assert done.returncode == (-signal.SIGKILL if name == "SIGKILL" else 0), done.stderr
    assert {"checkpoint.safetensors", "checkpoint.json"} <= contents(folder / out).keys()
    return folder / out, line, done


def contents(run_folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run_folder.iterdir()}


def theta(path):
    found = gpumlp.load(path / "model.safetensors", device="cpu")
    return found._stacks[0].net.theta if hasattr(found, "_stacks") else found.theta


def assert_same_run(path, whole):
    """All that it leaves is the same, but for the time that it took and where it is."""
    assert {file.name for file in path.iterdir()} == {file.name for file in whole.iterdir()}
    np.testing.assert_array_equal(theta(path), theta(whole))
    for name in ("metrics.json", "predictions.csv"):
        assert (path / name).read_bytes() == (whole / name).read_bytes()
    found, expected = (json.loads((each / "config.json").read_text()) for each in (path, whole))
    for each in (found, expected):
        assert each.pop("seconds") > 0
        del each["options"]["out"]
    assert found == expected
    found, expected = (each.joinpath("history.jsonl").read_text() for each in (path, whole))
    for one, other in zip(found.splitlines(), expected.splitlines(), strict=True):
        assert json.loads(one) | {"seconds": 0} == json.loads(other) | {"seconds": 0}


@pytest.mark.parametrize("case", RUNS)
def test_killed_and_resumed(case, folder, monkeypatch, capsys):
    path, line, _ = cut(folder, case)
    assert not (path / "model.safetensors").exists()
    monkeypatch.chdir(folder)
    if case == "values":  # every option may be said again
        assert run(*line, "--resume", path) == 0
    else:
        assert run("train", "--resume", path) == 0
    assert "resumed   after epoch 2\n" in capsys.readouterr().out
    assert_same_run(path, folder / "whole" / case)
    said = refused(capsys, "train", "--resume", path)
    assert "there is nothing to go on with: its run is finished" in said


@pytest.mark.parametrize(
    ("case", "name"),
    [("classes", "SIGINT"), ("classes", "SIGKILL"), ("arrays", "SIGTERM"), ("arrays", "SIGKILL")],
)
def test_cut_short_amid_an_epoch_and_resumed(case, name, folder, monkeypatch):
    path, _, done = cut(folder, case, AMID_AN_EPOCH, name)
    if name != "SIGKILL":
        assert "interrupted after 2 epochs; the network trained so far is saved" in done.stdout
        relative = path.relative_to(folder)
        assert f"gpumlp train --resume '{relative}' goes on with it\n" in done.stdout
        assert theta(path).shape == theta(folder / "whole" / case).shape
    monkeypatch.chdir(folder)
    assert run("train", "--resume", path) == 0
    assert_same_run(path, folder / "whole" / case)


def test_cut_short_several_times(folder):
    path, _, _ = cut(folder, "values")
    again = AFTER_AN_EPOCH.replace("== 2", "== 3")
    for code, name in [
        (again, "SIGINT"),
        (again.replace("== 3", "== 4"), "SIGKILL"),
        (again.replace("== 3", "== 5"), "SIGKILL"),  # of 5: scores and curves were to come
    ]:
        command(folder, ["train", "--resume", path], code, name)
        assert (path / "checkpoint.safetensors").exists()
    assert command(folder, ["train", "--resume", path]).returncode == 0
    assert_same_run(path, folder / "whole" / "values")


def test_cut_short_in_the_cross_validation(folder):
    code = """
        from gpumlp.cli import scores, train
        def killed(*arguments):
            os.kill(os.getpid(), NAME)
        train._cross_validated = killed
    """
    path, _, _ = cut(folder, "folds", code)
    assert (path / "model.safetensors").exists() and not (path / "metrics.json").exists()
    assert command(folder, ["train", "--resume", path]).returncode == 0
    assert_same_run(path, folder / "whole" / "folds")


def test_another_run_in_the_same_folder(folder):
    """Before its first epoch has ended what was there stays, behind it the checkpoint is its."""
    path, line, _ = cut(folder, "values", name="SIGINT")
    before = contents(path)
    done = command(folder, line)
    assert done.returncode == 2 and "gpumlp train --resume 'runs/" in done.stderr
    assert contents(path) == before
    other = [*line, "--seed", 3, "--overwrite"]
    for name in ("SIGINT", "SIGKILL"):
        done = command(folder, other, BEFORE_THE_FIRST, name)
        assert done.returncode == (-signal.SIGKILL if name == "SIGKILL" else 130)
        assert contents(path) == before
    command(folder, other, AFTER_AN_EPOCH)
    assert command(folder, [*other, "--resume", path]).returncode == 0
    config = json.loads((path / "config.json").read_text())
    assert config["options"]["seed"] == 3 and config["options"]["overwrite"] is True
    assert not (path / "checkpoint.json").exists()


def test_what_cannot_be_written_is_no_error(folder):
    code = """
        from gpumlp.utils import atomic
        write = atomic.write
        def full(path, data):
            if path.name == "checkpoint.json":
                raise OSError(28, "No space left on device", str(path))
            write(path, data)
        atomic.write = full
    """
    line = ["train", *RUNS["values"], "--device", "cpu", "--out", "full"]
    done = command(folder, line, code)
    assert done.returncode == 0 and "no checkpoint was written" in done.stderr
    assert_same_run(folder / "full", folder / "whole" / "values")


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--epochs", 6], "--epochs 5, not --epochs 6"),
        (["--hidden", "8,4"], "--hidden 8, not --hidden 8,4"),
        (
            ["--dtype", "float64", "--seed", 7],
            "--dtype float32, not --dtype float64; --seed 0, not",
        ),
        (["--cv", 3], "no --cv, not --cv 3"),
        (["--drop", "age", "--drop", "fuel"], "no --drop, not --drop age --drop fuel"),
        (["--overwrite"], "no --overwrite, not --overwrite"),
        (["--target", "age"], "--target price, not --target age"),
        (["more.csv"], "DATA cars.csv, not DATA more.csv"),
    ],
)
def test_other_options_are_refused(options, says, unfinished, capsys):
    before = contents(unfinished)
    said = refused(capsys, "train", "--resume", unfinished, *options)
    assert f"goes on with the options that it began with: {says}" in said
    assert contents(unfinished) == before


@pytest.fixture(scope="module")
def unfinished(folder):
    return cut(folder, "values")[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame[:-1],
        lambda frame: frame.assign(more=1),
        lambda frame: frame.drop(columns="age"),
        lambda frame: frame.assign(price=frame["price"].to_numpy()[::-1]),
    ],
)
def test_another_table_is_refused(change, folder, unfinished, monkeypatch, capsys, tmp_path):
    """Also one of other values: what it would come to is not known."""
    monkeypatch.chdir(tmp_path)
    change(pandas.read_csv(folder / "cars.csv")).to_csv("cars.csv", index=False)
    before = contents(unfinished)
    said = refused(capsys, "train", "--resume", unfinished)
    assert "cars.csv is not what it was when the run in" in said
    (tmp_path / "cars.csv").unlink()
    said = refused(capsys, "train", "--resume", unfinished)
    assert "began with cars.csv, which is not there: call --resume from the folder" in said
    assert contents(unfinished) == before


def test_files_to_validate_with_are_held_to_it_too(folder, monkeypatch, capsys, tmp_path):
    path, _, _ = cut(folder, "files")
    (tmp_path / "cars.csv").write_bytes((folder / "cars.csv").read_bytes())
    cars(41, 2).to_csv(tmp_path / "more.csv", index=False)
    monkeypatch.chdir(tmp_path)
    assert "more.csv is not what it was" in refused(capsys, "train", "--resume", path)


def test_nothing_to_resume(folder, unfinished, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(folder)
    nothing = tmp_path / "nothing"
    assert f"--resume {nothing}: there is no such folder" in refused(
        capsys, "train", "--resume", nothing
    )
    nothing.mkdir()
    said = refused(capsys, "train", "--resume", nothing)
    assert "nothing to go on with: no checkpoint was written, which is done after an epoch" in said
    assert "this is a file; name the folder of its run" in refused(
        capsys, "train", "--resume", unfinished / "checkpoint.json"
    )
    assert "are required: DATA, or --resume" in refused(capsys, "train", "--target", "price")
    for name, content, says in [
        ("checkpoint.json", b'{"options": {}, "files": {}}', "does not hold the options of a run"),
        ("checkpoint.json", b'{"options": {"data": 1}, "files": {}}', "does not hold the options"),
        ("checkpoint.json", b"{}", "does not hold the options of a run"),
        ("checkpoint.json", b"\xff", "does not hold the options of a run"),
        ("checkpoint.json", None, "cannot be read (No such file or directory)"),
        ("checkpoint.safetensors", b"cut short", "cannot be resumed: "),
    ]:
        for each, its_content in contents(unfinished).items():
            (nothing / each).write_bytes(its_content)
        (nothing / name).unlink()
        if content is not None:
            (nothing / name).write_bytes(content)
        assert says in refused(capsys, "train", "--resume", nothing)


def test_a_checkpoint_is_no_model(folder, unfinished, capsys):
    path = unfinished / "checkpoint.safetensors"
    said = refused(capsys, "predict", path, folder / "more.csv", "--device", "cpu")
    assert "cannot be loaded as a model" in said and "not fitted yet" in said
    for command in ("predict", "evaluate"):
        said = refused(capsys, command, unfinished, folder / "more.csv", "--device", "cpu")
        assert f"is not finished: gpumlp train --resume '{unfinished}' goes on" in said
    said = refused(capsys, "predict", folder, folder / "more.csv", "--device", "cpu")
    assert "holds no model, which is named model.safetensors" in said


def test_no_hidden_layer_is_said_as_it_is_given(folder, capsys):
    path, _, _ = cut(folder, "folds")
    said = refused(capsys, "train", "--resume", path, "--hidden", 64)
    assert "--hidden none, not --hidden 64" in said
