"""The benchmarks: what they print and write, and what they do when something fails."""

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import gpu, machine, operations, outcomes, parts, training, turns
from benchmarks.contenders import ENTRIES, GEMMS, LIBRARY
from benchmarks.networks import NETWORKS, Network, Problem
from gpumlp import backend
from gpumlp.device import resolve

SMALL = [Network((5, 7, 3), 8, 20, loss) for loss in ("cross_entropy", "squared_error")]
TINY = "tiny"


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch):
    for size in ("quick", TINY):
        monkeypatch.setitem(operations.ELEMENTS, size, 1 << 12)
        monkeypatch.setitem(operations.REPEATS, size, 2)


# ---------------------------------------------------------------- python -m benchmarks
def test_quick_run_prints_ratios_and_writes_every_figure(tmp_path, capsys, monkeypatch):
    # Other tests may run beside this one: threads would wait for one that does not get a core.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(variable, "1")
    file = tmp_path / "figures.json"
    given = ["--quick", "--device", "cpu", "--network", "64-100", "--json", str(file)]
    assert command.main(given) == 0
    printed = capsys.readouterr().out
    assert all(len(re.findall(r"\d+\.\d\dx", line)) == 4 for line in lines_with(printed, " ms"))
    assert all(re.search(r" \d\.\d\d$", line) for line in lines_with(printed, " GB/s"))

    written = json.loads(file.read_text())
    assert written["quick"] and written["device"] == "cpu" and written["machine"]["numpy"]
    assert [r["name"] for r in written["operations"]] == [case.name for case in operations.CASES]
    for record in written["operations"]:
        assert record["error"] is None and record["ratio"] > 0 and len(record["seconds"]) == 2
    (record,) = written["training"]
    expected = {entry.name for entry in ENTRIES if entry.missing("cpu") is None}
    assert set(record["contenders"]) == expected >= {LIBRARY, GEMMS, "scikit-learn"}
    for name, times in record["contenders"].items():
        assert times["error"] is None
        assert name == GEMMS or times["difference"] < training.TOLERANCE
        for what in ("step", "epoch"):
            assert len(times[what]) == 3
            assert times[f"{what}_median"] == np.median(times[what])
            gemms = record["contenders"][GEMMS][f"{what}_median"]
            assert times[f"{what}_over_gemms"] == times[f"{what}_median"] / gemms
            assert times[f"{what}_over_gpumlp"] > 0


def lines_with(text, part):
    found = [line for line in text.splitlines() if part in line]
    assert found
    return found


def test_a_wrong_operation_is_reported_and_fails_the_run(tmp_path, monkeypatch, capsys):
    right = operations.CASES[0]

    def make(inputs, rows, columns):
        run, outputs = right.make(inputs, rows, columns)
        if inputs.real == np.float32:
            return lambda: (run(), outputs[0].fill(2)), outputs
        return run, outputs

    monkeypatch.setattr(operations, "CASES", (right, right._replace(name="wrong", make=make)))
    file = tmp_path / "figures.json"
    given = ["--quick", "--device", "cpu", "--only", "operations", "--json", str(file)]
    assert command.main(given) == 1
    good, bad = json.loads(file.read_text())["operations"]
    assert good["error"] is None and "wrong by" in bad["error"] and "ratio" not in bad
    assert "wrong failed: wrong by" in capsys.readouterr().out


def test_an_operation_that_raises_does_not_stop_the_others(monkeypatch, capsys):
    def make(inputs, rows, columns):
        raise RuntimeError("out of order")

    right = operations.CASES[0]
    monkeypatch.setattr(operations, "CASES", (right._replace(name="broken", make=make), right))
    assert command.main(["--quick", "--device", "cpu", "--only", "operations"]) == 1
    printed = capsys.readouterr().out
    assert "broken failed: RuntimeError: out of order" in printed and right.name in printed


# ---------------------------------------------------------------- operations and contenders
@pytest.mark.parametrize("case", operations.CASES, ids=lambda case: case.name)
def test_operations_are_right_and_measured(device, case):
    record = operations.measure(case, backend.get(resolve(device)), TINY)
    assert record["error"] is None
    assert record["difference"] < operations.TOLERANCE
    assert record["ratio"] == record["bandwidth"] / record["copy_bandwidth"] > 0
    rows = -(-(1 << 12) // case.columns)
    assert record["bytes"] == 4 * case.reals * rows * case.columns


@pytest.mark.parametrize("case", operations.CASES, ids=lambda case: case.name)
def test_kernels_state_the_bytes_that_are_counted(case):
    said = operations.stated(case.kernel)
    one_by_one = case.kernel == "gather.cu"  # "reads one Source, writes one Real"
    assert (
        len(re.findall(r"\bone\b", said)) == case.reals
        if one_by_one
        else (str(case.reals) in re.findall(r"\d+", said))
    )


@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.loss)
def test_library_and_gemms_run_on_every_device(device, network):
    library, gemms = (entry.load()(Problem(network), resolve(device)) for entry in ENTRIES[:2])
    on_cpu = ENTRIES[0].load()(Problem(network), "cpu")
    assert training.difference(library.answers(), on_cpu.answers()) < training.TOLERANCE
    first = library.epoch()
    for _ in range(20):
        last = library.epoch()
    assert last < first
    assert gemms.answers() is None
    gemms.epoch()


@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.loss)
@pytest.mark.parametrize("part", ["losses", "parameters"])
def test_other_answers_are_an_error(network, part):
    contender = ENTRIES[0].load()(Problem(network), "cpu")
    reference, other = contender.answers(), contender.answers()
    found = {LIBRARY: {"error": None}, "other": {"error": None}}
    training.Comparison._compare({LIBRARY: reference, "other": other}, found)
    assert found["other"] == {"error": None, "difference": 0.0}
    other[part][-1] = other[part][-1] * 1.001
    training.Comparison._compare({LIBRARY: reference, "other": other}, found)
    assert "answers differ" in found["other"]["error"]


def test_quick_networks_are_those_of_the_long_run():
    quick = training.chosen(quick=True)
    assert [n.name for n in quick] == [n.name for n in training.chosen()]
    assert [n.steps for n in quick] == [2, 2, 2, 2] and NETWORKS[0].steps == 9


def test_contenders_that_fail_die_or_hang_are_told_apart():
    runner = turns.Runner(LIBRARY, "cpu", limit=60)
    with pytest.raises(turns.Failed, match="no_such_verb"):
        runner.ask("no_such_verb")
    assert len(runner.ask("prepare", SMALL[0])["losses"]) == 2  # it has survived
    runner._process.kill()
    with pytest.raises(turns.Failed, match="process is gone"):
        runner.ask("time", "step")
    runner.close()
    hanging = turns.Runner(LIBRARY, "cpu", limit=0.01)
    with pytest.raises(turns.Failed, match=r"no answer in 0\.01 s"):
        hanging.ask("prepare", SMALL[0])
    assert not hanging._process.is_alive()


def test_a_failed_contender_leaves_the_others_ratios():
    found = {
        LIBRARY: {"error": None, "step": [2.0], "epoch": [4.0]},
        GEMMS: {"error": None, "step": [1.0], "epoch": [1.0]},
        "other": {"error": "Traceback ...\nRuntimeError: no"},
    }
    training._summarise(found)
    assert found[LIBRARY]["epoch_over_gemms"] == 4.0
    record = SMALL[0]._asdict() | {"network": "5-7-3", "contenders": found, "absent": {"x": "y"}}
    text = training.as_text(record, "cpu")
    assert "other failed: RuntimeError: no" in text and "x is absent: y" in text
    assert command.failed(record)


def test_pytest_benchmark_runs_the_same_functions(tmp_path):
    pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")
    file = tmp_path / "figures.json"
    chosen = "(test_training and step and 64-100) or (short and rows)"
    options = ["--benchmark-only", f"--benchmark-json={file}", "-p", "no:cacheprovider", "-q"]
    # A worker's variables would tell the child that it is one, and turn its benchmarks off.
    alone = {key: value for key, value in os.environ.items() if "XDIST" not in key}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "benchmarks", *options, "-k", chosen],
        cwd=parts.ROOT,
        env=alone,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(json.loads(file.read_text())["benchmarks"]) == 3


def test_machine_says_where_figures_come_from():
    found = machine.describe()
    assert {"date", "commit", "processor", "python", "numpy", "torch", "jax", "cupy"} <= set(found)
    assert {"gpus", "driver", "cuda_driver", "cuda_runtime", "scikit-learn"} <= set(found)
    json.dumps(found)
    assert found["python"] == sys.version.split()[0] and found["numpy"] == np.__version__


# ---------------------------------------------------------------- python -m benchmarks.gpu
def python(text):
    return [sys.executable, "-c", textwrap.dedent(text)]


def test_a_part_passes_fails_or_ends_at_its_limit(capsys):
    passed = parts.run(python("print('well done')"), 60)
    assert (passed["outcome"], passed["exit_code"]) == ("passed", 0)
    assert passed["tail"] == ["well done"] and "well done" in capsys.readouterr().out
    failed = parts.run(python("import sys; sys.exit(7)"), 60)
    assert (failed["outcome"], failed["exit_code"]) == ("failed", 7)
    missing = parts.run(["/no/such/program"], 60)
    assert missing["outcome"] == "failed" and "FileNotFoundError" in missing["tail"][0]


def test_a_part_at_its_limit_leaves_no_process_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "GRACE", 0.5)
    alive = tmp_path / "alive"
    child = f"""
        import time
        while True:
            open({str(alive)!r}, "a").write("x")
            time.sleep(0.05)
    """
    parent = f"""
        import signal, subprocess, sys, time
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("begun", flush=True)
        subprocess.run([sys.executable, "-c", {textwrap.dedent(child)!r}])
        time.sleep(60)
    """
    stopped = parts.run(python(parent), 1.5)
    assert stopped["outcome"] == "timed out" and stopped["tail"][0] == "begun"
    size = alive.stat().st_size
    time.sleep(0.3)
    assert alive.stat().st_size == size


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
    parts.run([sys.executable, "-m", "pytest", *options, str(tmp_path)], 60)
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
    found = parts.run([*by_file, *names.values()], 60)
    assert found["outcome"] == "failed"
    assert any("exit code 9" in line for line in found["tail"])
    assert outcomes.read(written)["outcomes"] == {
        "test_good.py::test_it": "passed",
        "test_bad.py::test_it": "failed",
    }
    assert parts.run([*by_file, names["good"], names["empty"]], 60)["outcome"] == "passed"


@pytest.fixture
def machine_with_gpu(monkeypatch):
    found = {"gpus": [{"name": "NVIDIA H100 80GB HBM3"}], "driver": "580.1"}
    monkeypatch.setattr(gpu, "describe", lambda limit: found)


def test_every_part_is_recorded_whatever_becomes_of_the_others(tmp_path, machine_with_gpu, capsys):
    def fake_parts(folder):
        unfinished = folder / "figures.json"
        unfinished.write_text('{"cut sh')
        return [
            gpu.Part("breaks", 1, python("raise SystemExit('broken')")),
            gpu.Part("hangs", 1, python("import time; time.sleep(60)")),
            gpu.Part("absent", 1, "there is no such tool"),
            gpu.Part("works", 98, python("print(1)"), lambda: {"figures": gpu._json(unfinished)}),
        ]

    begin = time.monotonic()
    minutes = str((gpu.MARGIN + 20) / 60)
    assert gpu.main(["--results", str(tmp_path), "--minutes", minutes], fake_parts) == 1
    assert time.monotonic() - begin < 20
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
    }
    assert written["parts"]["breaks"]["tail"] == ["broken"]
    assert written["parts"]["works"]["figures"] is None
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
    for tool in ("memcheck", "racecheck", "initcheck", "synccheck"):
        assert found[tool][:3] == [str(program), "--tool", tool]
        assert found[tool][-1] == "tests/test_operations.py" and "--no-pool" in found[tool]
    monkeypatch.setattr(gpu, "sanitizer", lambda: None)
    found = {part.name: part.command for part in gpu.all_parts(tmp_path)}
    assert "compute-sanitizer" in found["memcheck"] and isinstance(found["memcheck"], str)
