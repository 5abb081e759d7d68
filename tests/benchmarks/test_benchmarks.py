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
from benchmarks import (
    agreement,
    cases,
    compared,
    fresh,
    goals,
    machine,
    operations,
    optimizers,
    report,
    scaling,
    starts,
)
from benchmarks.contenders import GEMMS, LIBRARY, SCIKIT_LEARN
from tests.helpers.waiting import HANGS


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch):
    monkeypatch.setitem(operations.ELEMENTS, "quick", 1 << 12)
    monkeypatch.setitem(operations.REPEATS, "quick", 2)


@pytest.fixture
def one_thread(monkeypatch):
    # Other tests may run beside this one: threads would wait for one that does not get a core.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(variable, "1")


FAST_CONTENDERS = [LIBRARY, GEMMS, SCIKIT_LEARN]
BY_CONTENDER = [word for name in FAST_CONTENDERS for word in ("--contender", name)]


def quick(*parts_of_it, file=None):
    """The exit code of a quick run on the CPU."""
    given = ["--quick", "--device", "cpu", *BY_CONTENDER]
    given += [word for name in parts_of_it for word in ("--only", name)]
    return command.main([*given, *(["--json", str(file)] if file else [])])


def test_quick_run_prints_ratios_and_writes_every_figure(tmp_path, capsys, one_thread):
    file = tmp_path / "folder" / "figures.json"
    chosen = ("training", "stacks", "activations", "inference", "optimisers", "operations")
    chosen += ("products",)
    assert quick(*chosen, "growth", file=file) == 0
    printed = capsys.readouterr().out
    assert "JAX" in printed or importlib.util.find_spec("jax")
    assert all(re.search(r"\d\.\d\d(x|$)", line) for line in lines_with(printed, r"\d [mµ]?s"))
    assert all(re.search(r" \d+\.\d\d$", line) for line in lines_with(printed, r"GB/s .* GB/s"))

    written = json.loads(file.read_text())
    assert written["quick"] and written["device"] == "cpu" and written["machine"]["numpy"]
    assert written["copy_bandwidth"] > 0
    assert len(written["thread_gain"]) == len(chosen) + 1 and min(written["thread_gain"]) > 0
    assert [r["name"] for r in written["operations"]] == [c.name for c in cases.chosen("cpu")]
    for record in written["operations"]:
        assert record["error"] is None and record["ratio"] > 0 and len(record["seconds"]) == 2
    assert [r["name"] for r in written["training"]] == ["64-100-10", "20-64-64-2"]
    for record in written["training"]:
        assert set(record["contenders"]) == set(FAST_CONTENDERS)
        gemms = record["contenders"][GEMMS]["works"]
        for name, found in record["contenders"].items():
            assert found["error"] is None and found["declined"] is None
            assert name == GEMMS or found["difference"] < agreement.TOLERANCE["float32"]
            for what in ("step", "epoch"):
                times = found["works"][what]
                assert len(times["seconds"]) == compared.QUICK.turns
                assert times["median"] == np.median(times["seconds"])
                assert times["over_gemms"] == times["median"] / gemms[what]["median"]
                assert times["over_gpumlp"] > 0
        assert record["over_limit"] > 0
    fits, search = written["stacks"]
    assert fits["contenders"][LIBRARY]["works"]["fit 2"]["median"] > 0
    for found in search["contenders"].values():
        assert found["error"] is None and found["declined"] is None and found["difference"] < 1e-9
        assert found["works"]["search"]["over_gpumlp"] > 0
    activated = {r["activation"]: r["contenders"] for r in written["activations"]}
    assert list(activated) == ["relu", "tanh", "gelu", "sigmoid"]
    assert "no gelu" in activated["gelu"][SCIKIT_LEARN]["declined"]
    assert all(c[LIBRARY]["works"]["epoch"]["median"] > 0 for c in activated.values())
    (record,) = written["inference"]
    assert set(record["contenders"][SCIKIT_LEARN]["works"]) == {"predict 1", "predict 64"}
    assert [r["name"] for r in written["optimisers"]] == list(optimizers.PASSES)
    for record in written["optimisers"]:
        assert all(found["error"] is None for found in record["contenders"].values())
    for record in written["products"]:
        assert record["error"] is None and record["paths"]["gpumlp"]["ratio"] > 0
    assert {(r["sweep"], r["value"]) for r in written["growth"]} == {
        (sweep.name, n * sweep.values[0]) for sweep in scaling.SWEEPS for n in (1, 2)
    }
    if importlib.util.find_spec("matplotlib"):
        assert file.with_suffix(".png").stat().st_size > 10_000
    on_cpu = {goal.text for goal in goals.GOALS if goal.device == "cpu"}
    assert {goal["goal"] for goal in written["goals"]} == on_cpu

    readme = (machine.ROOT / "benchmarks" / "README.md").read_text()
    tables = report.insert(readme, written)
    for name in (*chosen, "growth"):
        assert f"`python -m benchmarks --device cpu --only {name}`" in tables
    assert report.insert(tables, written) == tables and readme[:200] == tables[:200]


def test_quick_run_measures_fresh_processes(tmp_path, capsys, one_thread, monkeypatch):
    monkeypatch.setattr(starts, "IMPORTS", starts.IMPORTS[:1])
    monkeypatch.setattr(starts, "QUICK_FIRST", (LIBRARY,))
    file = tmp_path / "figures.json"
    assert quick("first-step", "imports", "memory", file=file) == 0
    written = json.loads(file.read_text())
    (imports,), (first,), (memory,) = (
        written[name] for name in ("imports", "first-step", "memory")
    )
    assert imports["error"] is None and 0 < imports["median"] < 60
    assert first["error"] is None and first["cold"] > 0 and first["warm"] > 0
    # The buffers are all touched; the rest is what Python and BLAS take besides.
    assert memory["error"] is None and 0.8 < memory["bytes"] / memory["predicted"] < 4
    assert "of a fit" in capsys.readouterr().out


def test_a_fresh_process_that_fails_is_reported(monkeypatch):
    with pytest.raises(RuntimeError, match="no_such_module"):
        fresh.ask(["import", "import no_such_module"])


def lines_with(text, pattern):
    """Rows of tables, not their titles and notes."""
    found = [line for line in text.splitlines() if re.match(r"  \S", line)]
    found = [line for line in found if re.search(pattern, line) and ":" not in line]
    assert found
    return found


def test_a_wrong_operation_is_reported_and_fails_the_run(tmp_path, monkeypatch, capsys):
    right = cases.CASES[0]

    def make(inputs, rows, columns):
        run, outputs = right.make(inputs, rows, columns)
        if inputs.real == np.float32:
            return lambda: (run(), outputs[0].fill(2)), outputs
        return run, outputs

    monkeypatch.setattr(cases, "CASES", (right, right._replace(name="wrong", make=make)))
    file = tmp_path / "figures.json"
    given = ["--quick", "--device", "cpu", "--only", "operations", "--json", str(file)]
    assert command.main(given) == 1
    good, bad = json.loads(file.read_text())["operations"]
    assert good["error"] is None and "wrong by" in bad["error"] and "ratio" not in bad
    assert "wrong failed: wrong by" in capsys.readouterr().out


def test_an_operation_that_raises_does_not_stop_the_others(monkeypatch, capsys):
    def make(inputs, rows, columns):
        raise RuntimeError("out of order")

    right = cases.CASES[0]
    monkeypatch.setattr(cases, "CASES", (right._replace(name="broken", make=make), right))
    assert command.main(["--quick", "--device", "cpu", "--only", "operations"]) == 1
    printed = capsys.readouterr().out
    assert "broken failed: RuntimeError: out of order" in printed and right.name in printed


def test_pytest_benchmark_runs_the_same_functions(tmp_path):
    pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")
    file = tmp_path / "figures.json"
    chosen = "(test_training and step and 64-100) or (short and rows) or (inference and 128)"
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
    assert len(json.loads(file.read_text())["benchmarks"]) == 5


def test_machine_says_where_figures_come_from():
    found = machine.describe()
    assert {"date", "commit", "processor", "python", "numpy", "torch", "jax", "cupy"} <= set(found)
    assert {"gpus", "driver", "cuda_driver", "cuda_runtime", "scikit-learn"} <= set(found)
    json.dumps(found)
    assert "blas" in found
    found["blas"] = "OpenBLAS Zen"
    assert "products by OpenBLAS Zen" in machine.one_line(found)
    assert found["python"] == sys.version.split()[0] and found["numpy"] == np.__version__
    found["not_compiled_for_cpu"] = "no compiler"
    assert "2 cores" in machine.one_line(
        found | {"cores": 2}
    ) and "no compiler" in machine.one_line(found)


def test_openblas_chooses_its_kernels_itself():
    """The run begins again without the variables, with the same arguments; it ends as it does."""
    environment = os.environ | {"OPENBLAS_CORETYPE": "Haswell"}
    asked = [sys.executable, "-m", "benchmarks", "--only", "nothing of that name"]
    done = subprocess.run(asked, env=environment, cwd=machine.ROOT, capture_output=True, text=True)
    assert re.match(r"without OPENBLAS_CORETYPE.*: every library chooses", done.stdout)
    assert done.returncode == 2 and "nothing of that name" in done.stderr
