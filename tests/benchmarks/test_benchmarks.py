"""`python -m benchmarks`: what it prints and writes, and what it does when something fails."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import agreement, cases, goals, machine, operations
from benchmarks.contenders import GEMMS, LIBRARY, everyday
from gpumlp import backend
from gpumlp.backend.device import resolve
from tests.helpers.waiting import HANGS

SCIKIT_LEARN = "scikit-learn"
OURS, THEIRS = "gpumlp's GridSearchCV", "scikit-learn's, 2 processes"
FAST = [
    LIBRARY,
    GEMMS,
    SCIKIT_LEARN,
    "gpumlp in a loop",
    OURS,
    THEIRS,
    everyday.OURS,
    everyday.PEER,
]


@pytest.fixture
def one_thread(monkeypatch):
    # Other tests may run beside this one: threads would wait for one that does not get a core.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(variable, "1")


def quick(*parts, file=None):
    """The exit code of a quick run on the CPU."""
    words = ["--quick", "--device", "cpu"]
    words += [word for name in FAST for word in ("--contender", name)]
    words += [word for name in parts for word in ("--only", name)]
    return command.main([*words, *(["--json", str(file)] if file else [])])


def test_quick_run_prints_ratios_and_writes_every_figure(tmp_path, capsys, one_thread):
    file = tmp_path / "folder" / "figures.json"
    assert quick(file=file) == 0
    printed = capsys.readouterr().out
    assert "JAX is absent" in printed or importlib.util.find_spec("jax")
    rows = [line for line in printed.splitlines() if re.search(r"\d [mµ]?s \|", line)]
    assert rows and all(re.search(r"\d\.\d\dx", line) for line in rows)

    written = json.loads(file.read_text())
    assert written["quick"] and written["device"] == "cpu" and written["copy_bandwidth"] > 0
    assert written["machine"]["versions"]["numpy"] and not written["errors"]
    on_cpu = {case.part for case in cases.all_cases("cpu")}
    for part in on_cpu:
        assert written[part] and f"**{cases.PARTS[part]}, cpu; medians**" in printed
    records = [record for part in on_cpu for record in written[part]]
    assert {record["name"] for record in written["training"]} == {"20-8-10", "20-8-2"}
    for record in records:
        first, works = record["first"], record["works"]
        for name, result in record["contenders"].items():
            assert result["error"] is None and name in FAST
            if result["declined"] is None:
                assert set(result["seconds"]) == set(works)
                assert name == GEMMS or result["difference"] < agreement.TOLERANCE["float32"]
                for work, taken in result["seconds"].items():
                    assert result["median"][work] == np.median(taken) > 0
        if "step" in works:
            assert (
                record["over_limit"]
                == record["contenders"][first]["median"]["step"] / (record["step_limit"])
            )
    gelu = next(r for r in written["activations"] if r["task"]["hidden"] == "gelu")
    assert "no gelu" in gelu["contenders"][SCIKIT_LEARN]["declined"]
    assert {goal["goal"] for goal in written["goals"]} == {
        goal.text for goal in goals.GOALS if goal.device == "cpu"
    }
    assert "| accumulate_metrics |" in re.sub(" +", " ", printed)
    assert all(record["ratio"] > 0 for record in written["operations"] if "ratio" in record)


def test_operations_are_measured_on_every_device(device):
    ops = backend.get(resolve(device))
    for network in operations.networks(ops.device, quick=True)[:2]:
        measured = operations.operations(network, ops.device)
        names = {operation.name for operation in measured}
        assert {"shuffle", "gather", "gemm", "activate", "loss", "backprop", "update"} <= names
        for operation in measured:
            record = operations.measure(operation, ops, quick=True)
            assert record["amount"] > 0 and record["median"] > 0
            assert operation.name == "gemm" or record["ratio"] > 0
    softmax = {"softmax", "accumulate_metrics"}
    assert softmax <= {o.name for o in operations.operations(operations.WIDE["quick"], ops.device)}


def test_repeated_operations_do_not_run_out_of_their_arrays():
    for operation in operations.operations(operations.WIDE["quick"], "cpu"):
        for _ in range(50):
            operation()


def test_a_wrong_operation_fails_the_run(tmp_path, monkeypatch, capsys):
    ops = type(backend.get("cpu"))
    activate = ops.activate

    def wrong(self, f, z, b, n, *rest):
        activate(self, f, z, b, n, *rest)
        n *= 1.001

    monkeypatch.setattr(ops, "activate", wrong)
    file = tmp_path / "figures.json"
    assert quick("operations", file=file) == 1
    (record,) = json.loads(file.read_text())["operations"]
    assert "activate" in record["error"] and "largest error" in record["error"]
    assert not re.search(r"\d (GB|GFLOP)/s \|", capsys.readouterr().out)


def test_operations_that_raise_do_not_stop_the_others(monkeypatch, capsys):
    right, broken = operations.networks("cpu", quick=True)[:2]
    monkeypatch.setattr(operations, "networks", lambda *_: [broken._replace(loss="none"), right])
    assert quick("operations") == 1
    printed = re.sub(" +", " ", capsys.readouterr().out)
    assert f"{broken.name}: it failed: KeyError" in printed and f"| {right.name} |" in printed


def test_pytest_benchmark_runs_the_same_functions(tmp_path):
    pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")
    file = tmp_path / "figures.json"
    chosen = "(test_training and step and 64-100) or (20-1024 and gather)"
    options = ["--benchmark-only", f"--benchmark-json={file}", "-p", "no:cacheprovider", "-q"]
    # A worker's variables would tell the child that it is one, and turn its benchmarks off.
    alone = {key: value for key, value in os.environ.items() if "XDIST" not in key}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "benchmarks", *options, "-k", chosen],
        cwd=machine.ROOT,
        env=alone,
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(json.loads(file.read_text())["benchmarks"]) == 3


def test_machine_says_where_figures_come_from():
    described = machine.describe()
    assert {"date", "commit", "processor", "cores", "gpus"} <= set(described)
    json.dumps(described)
    versions = described["versions"]
    assert versions["python"] == sys.version.split()[0] and versions["numpy"] == np.__version__
    line = machine.one_line(described | {"cores": 2, "environment": {"OMP_NUM_THREADS": "1"}})
    assert "2 cores" in line and "OMP_NUM_THREADS=1" in line and f"numpy {np.__version__}" in line
