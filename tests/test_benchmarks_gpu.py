"""`python -m benchmarks.gpu`: its parts, and what it does when one of them fails."""

import json
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    gpu,
    outcomes,
    parts,
    suite,
)
from tests.waiting import HANGS, has_ended, until


def python(text):
    return [sys.executable, "-c", textwrap.dedent(text)]


def test_a_part_passes_fails_or_ends_at_its_limit(capsys):
    passed = parts.run(python("print('well done')"), HANGS)
    assert (passed["outcome"], passed["exit_code"]) == ("passed", 0)
    assert passed["tail"] == ["well done"] and "well done" in capsys.readouterr().out
    failed = parts.run(python("import sys; sys.exit(7)"), HANGS)
    assert (failed["outcome"], failed["exit_code"]) == ("failed", 7)
    missing = parts.run(["/no/such/program"], HANGS)
    assert missing["outcome"] == "failed" and "FileNotFoundError" in missing["tail"][0]


def test_a_part_at_its_limit_leaves_no_process_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "GRACE", 0.5)
    begun = tmp_path / "begun"
    child = f"""
        import os, time
        open({str(begun)!r}, "w").write(str(os.getpid()))
        time.sleep(300)
    """
    parent = f"""
        import signal, subprocess, sys, time
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("begun", flush=True)
        subprocess.run([sys.executable, "-c", {textwrap.dedent(child)!r}])
        time.sleep(300)
    """
    for limit in (1.5, 15, 60):
        stopped = parts.run(python(parent), limit)
        assert stopped["outcome"] == "timed out"
        if begun.exists() and begun.read_text():  # else it was ended before it had begun
            break
    assert stopped["tail"][0] == "begun"
    child_id = int(begun.read_text())
    until(lambda: has_ended(child_id))


def test_outcomes_of_tests_are_noted_as_they_end(tmp_path):
    (tmp_path / "test_some.py").write_text(
        textwrap.dedent(
            """
            import os, pytest
            def test_good(): pass
            def test_bad(): assert 1 == 2
            @pytest.mark.skip(reason="no wheel")
            def test_skipped(): pass
            @pytest.fixture
            def broken():
                yield
                raise RuntimeError("at the end")
            def test_broken(broken): pass
            def test_killed(): os._exit(3)
            """
        )
    )
    (tmp_path / "test_unreadable.py").write_text("import no_such_module")
    written = tmp_path / "outcomes.jsonl"
    options = ["-p", "benchmarks.outcomes", "--outcomes", str(written), "-p", "no:cacheprovider"]
    options += ["--continue-on-collection-errors", "-c", "/dev/null", f"--rootdir={tmp_path}"]
    parts.run([sys.executable, "-m", "pytest", *options, str(tmp_path)], HANGS)
    found = outcomes.read(written)
    assert found["outcomes"] == {
        "test_unreadable.py": "failed",
        "test_some.py::test_good": "passed",
        "test_some.py::test_bad": "failed",
        "test_some.py::test_skipped": "skipped",
        "test_some.py::test_broken": "failed",
    }
    assert found["counts"] == {"failed": 3, "passed": 1, "skipped": 1}
    assert "no wheel" in found["messages"]["test_some.py::test_skipped"]
    assert "1 == 2" in found["messages"]["test_some.py::test_bad"]
    assert outcomes.read(tmp_path / "none")["counts"] == {}


def test_a_crash_spoils_one_file_only(tmp_path):
    for name, body in (("good", "pass"), ("bad", "assert 0"), ("crash", "import os; os._exit(9)")):
        (tmp_path / f"test_{name}.py").write_text(f"def test_it(): {body}")
    (tmp_path / "test_empty.py").write_text("")
    written = tmp_path / "outcomes.jsonl"
    options = ["-p", "benchmarks.outcomes", "--outcomes", str(written), "-p", "no:cacheprovider"]
    options += ["-c", "/dev/null", f"--rootdir={tmp_path}"]
    by_file = [sys.executable, "-m", "benchmarks.by_file", "--jobs", "2", *options]
    names = {name: str(tmp_path / f"test_{name}.py") for name in ("good", "bad", "crash", "empty")}
    found = parts.run([*by_file, *names.values()], HANGS)
    assert found["outcome"] == "failed"
    assert any("exit code 9" in line for line in found["tail"])
    assert outcomes.read(written)["outcomes"] == {
        "test_good.py::test_it": "passed",
        "test_bad.py::test_it": "failed",
    }
    assert parts.run([*by_file, names["good"], names["empty"]], HANGS)["outcome"] == "passed"


@pytest.fixture
def machine_with_gpu(monkeypatch):
    found = {"gpus": [{"name": "NVIDIA H100 80GB HBM3"}], "driver": "580.1"}
    monkeypatch.setattr(gpu, "describe", lambda limit: found)


def test_every_part_is_recorded_whatever_becomes_of_the_others(tmp_path, machine_with_gpu, capsys):
    figures = {"device": "cuda:0", "training": []}

    def fake_parts(folder):
        unfinished = folder / "figures.json"
        unfinished.write_text('{"cut sh')
        return [
            gpu.Part("breaks", 100, python("raise SystemExit('broken')")),
            gpu.Part("hangs", 1, python("import time; time.sleep(300)")),
            gpu.Part("absent", 1, "there is no such tool"),
            gpu.Part("works", 98, python("print(1)"), lambda: {"figures": gpu._json(unfinished)}),
            gpu.Part("measures", 98, python("print(1)"), lambda: {"figures": figures}),
        ]

    minutes = str((gpu.MARGIN + 200) / 60)  # of which one second for the one that hangs
    assert gpu.main(["--results", str(tmp_path), "--minutes", minutes], fake_parts) == 1
    (file,) = tmp_path.iterdir()
    assert re.fullmatch(r"20\d\d-\d\d-\d\d-\d{4}-nvidia-h100-80gb-hbm3\.json", file.name)
    written = json.loads(file.read_text())
    assert written["machine"]["driver"] == "580.1" and written["passed"] is False
    ended = {name: part["outcome"] for name, part in written["parts"].items()}
    assert ended == {
        "breaks": "failed",
        "hangs": "timed out",
        "absent": "skipped",
        "works": "passed",
        "measures": "passed",
    }
    assert written["parts"]["breaks"]["tail"] == ["broken"]
    assert written["figures"]["training"] == []
    assert {goal["met"] for goal in written["figures"]["goals"]} == {None}
    assert "== absent: skipped, there is no such tool" in capsys.readouterr().out


def test_all_passed_is_exit_code_0(tmp_path, machine_with_gpu):
    works = [gpu.Part("works", 1, python("print(1)"))]
    assert gpu.main(["--results", str(tmp_path)], lambda folder: works) == 0


def test_without_a_gpu_the_run_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "describe", lambda limit: {"gpus": None, "gpu_problem": "no driver"})
    works = [gpu.Part("works", 1, python("print(1)"))]
    assert gpu.main(["--results", str(tmp_path)], lambda folder: works) == 1
    assert "no GPU was found: no driver" in capsys.readouterr().out


def test_the_machine_is_described_from_another_process():
    assert gpu.describe(60)["numpy"] == np.__version__


def test_every_test_file_is_run_once(tmp_path):
    on_gpu, on_cpu, kernels = gpu.test_files()
    assert sorted(on_gpu + on_cpu) == sorted(
        str(path.relative_to(parts.ROOT)) for path in Path(__file__).parent.glob("test_*.py")
    )
    assert "tests/test_simt.py" in on_cpu and "tests/test_against_oracle.py" in on_gpu
    assert set(kernels) <= set(on_gpu)


def test_compute_sanitizer_runs_the_kernel_tests_with_each_tool(tmp_path, monkeypatch):
    program = tmp_path / "compute-sanitizer"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpu, "test_files", lambda: (["a"], ["b"], ["tests/test_operations.py"]))
    found = {part.name: part.command for part in gpu.all_parts(tmp_path)}
    for name in suite.PARTS:
        assert found[f"benchmarks: {name}"][-4:-2] == ["--only", name]
    for tool in ("memcheck", "racecheck", "initcheck", "synccheck"):
        assert found[tool][:3] == [str(program), "--tool", tool]
        assert found[tool][-1] == "tests/test_operations.py" and "--no-pool" in found[tool]
    monkeypatch.setattr(gpu, "sanitizer", lambda: None)
    found = {part.name: part.command for part in gpu.all_parts(tmp_path)}
    assert "compute-sanitizer" in found["memcheck"] and isinstance(found["memcheck"], str)
