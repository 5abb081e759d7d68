"""The benchmarks: what they print and write, and what they do when something fails."""

import importlib.util
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
from benchmarks import (
    agreement,
    cases,
    compared,
    fresh,
    goals,
    gpu,
    machine,
    operations,
    optimizers,
    outcomes,
    parts,
    products,
    report,
    scaling,
    starts,
    suite,
    traffic,
    training,
    turns,
)
from benchmarks.contenders import ENTRIES, GEMMS, LIBRARY, SCIKIT_LEARN, Declined, laws
from benchmarks.contenders import gemms as gemms_alone
from benchmarks.networks import LARGE, MIDDLE, NETWORKS, SMALLEST, Network, Problem
from gpumlp import backend
from gpumlp.device import resolve

SMALL = [Network((5, 7, 3), 8, 20, loss) for loss in ("cross_entropy", "squared_error")]
TINY = "tiny"


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch):
    for size in ("quick", TINY):
        monkeypatch.setitem(operations.ELEMENTS, size, 1 << 12)
        monkeypatch.setitem(operations.REPEATS, size, 2)


@pytest.fixture
def one_thread(monkeypatch):
    # Other tests may run beside this one: threads would wait for one that does not get a core.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(variable, "1")


# ---------------------------------------------------------------- python -m benchmarks
FAST_CONTENDERS = [LIBRARY, GEMMS, SCIKIT_LEARN]
BY_CONTENDER = [word for name in FAST_CONTENDERS for word in ("--contender", name)]


def quick(*parts_of_it, file=None):
    """The exit code of a quick run on the CPU."""
    given = ["--quick", "--device", "cpu", *BY_CONTENDER]
    given += [word for name in parts_of_it for word in ("--only", name)]
    return command.main([*given, *(["--json", str(file)] if file else [])])


def test_quick_run_prints_ratios_and_writes_every_figure(tmp_path, capsys, one_thread):
    file = tmp_path / "folder" / "figures.json"
    chosen = ("training", "activations", "inference", "optimisers", "operations", "products")
    assert quick(*chosen, "growth", file=file) == 0
    printed = capsys.readouterr().out
    assert "JAX" in printed or importlib.util.find_spec("jax")
    assert all(re.search(r"\d\.\d\d(x|$)", line) for line in lines_with(printed, r"\d [mµ]?s"))
    assert all(re.search(r" \d\.\d\d$", line) for line in lines_with(printed, r"GB/s .* GB/s"))

    written = json.loads(file.read_text())
    assert written["quick"] and written["device"] == "cpu" and written["machine"]["numpy"]
    assert written["copy_bandwidth"] > 0
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
    assert file.with_suffix(".png").stat().st_size > 10_000
    assert {goal["goal"] for goal in written["goals"]} == {g.text for g in cpu_goals()}

    readme = (parts.ROOT / "benchmarks" / "README.md").read_text()
    tables = report.insert(readme, written)
    for name in (*chosen, "growth"):
        assert f"`python -m benchmarks --device cpu --only {name}`" in tables
    assert report.insert(tables, written) == tables and readme[:200] == tables[:200]


def cpu_goals():
    return [goal for goal in goals.GOALS if goal.device == "cpu"]


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


# ---------------------------------------------------------------- operations and contenders
@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_operations_are_right_and_measured(device, case):
    device = resolve(device)
    if case not in cases.chosen(device):
        pytest.skip("bfloat16 needs a GPU")
    record = operations.measure(case, backend.get(device), TINY)
    assert record["error"] is None
    assert record["difference"] < operations.TOLERANCE[case.narrow]
    assert record["ratio"] == record["bandwidth"] / record["copy_bandwidth"] > 0
    rows = -(-(1 << 12) // case.columns)
    assert record["bytes"] == case.bytes * rows * case.columns


# What each header says, and by which CASES and traffic.py count.
STATED = {
    "forward.cu": "reads z; writes n, and z + b where f' needs it: 2 or 3 Stored, of 4 bytes",
    "backward.cu": "reads delta and n (or z); writes delta: 2 Delta and 1 Stored, 12 bytes",
    "losses.cu": "1 or 2 Reals and 1 Delta, 8 or 12 bytes in float32 (6 or 10 with",
    "gather.cu": "reads one Source, writes one Stored",
    "rows.cu": "reads z (twice more from the cache); writes n: 2 Reals",
    "tally.cu": "reads n, and y unless the targets are labels: 1 or 2 Reals",
    "narrow.cu": "reads one Real, writes one Bf16: 6",
    "shuffle.cu": "Bytes per row: writes 8",
    "update.cu": "advance reads g: 1 Real; sgd 3 (5 with momentum), rmsprop 5 (7, centred",
}


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_kernels_state_the_bytes_that_are_counted(case):
    assert STATED[case.kernel] in operations.stated(case.kernel)


def test_every_kernel_is_measured():
    kernels = {path.name for path in (parts.ROOT / "kernels").glob("*.cu")}
    assert kernels == {case.kernel for case in cases.CASES} == set(STATED)


@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.loss)
def test_library_and_gemms_run_on_every_device(device, network):
    library, gemms = (entry.load()(Problem(network), resolve(device)) for entry in ENTRIES[:2])
    on_cpu = ENTRIES[0].load()(Problem(network), "cpu")
    tolerance = agreement.TOLERANCE["float32"]
    assert agreement.difference(library.answers(), on_cpu.answers()) < tolerance
    first = library.epoch()
    for _ in range(20):
        last = library.epoch()
    assert last < first
    assert agreement.difference(library.predictions(), on_cpu.predictions()) < tolerance
    assert gemms.answers() is None
    gemms.epoch()
    assert gemms.predictions() is None


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_other_precisions_agree_within_their_rounding(device, precision):
    network = SMALL[0]._replace(precision=precision)
    library, gemms = (entry.load()(Problem(network), resolve(device)) for entry in ENTRIES[:2])
    on_cpu = ENTRIES[0].load()(Problem(SMALL[0]), "cpu")
    by = agreement.difference(library.answers(), on_cpu.answers())
    assert by < agreement.TOLERANCE[precision]
    assert gemms.answers() is None


def test_a_stack_does_as_its_networks_alone():
    network = SMALL[0]._replace(models=3)
    contender = ENTRIES[0].load()(Problem(network), "cpu")
    assert len(contender.answers()["losses"]) == 2
    contender.epoch()
    gemms = ENTRIES[1].load()(Problem(network), "cpu")
    gemms.answers()
    assert {product.out.shape[0] for product in gemms.products("step", 8)} == {3}


def test_gemms_alone_are_the_products_of_the_step():
    network = Network((5, 7, 6, 3), 8, 20)
    gemms = ENTRIES[1].load()(Problem(network), "cpu")
    gemms.answers()
    shapes = [product.out.shape[1:] for product in gemms.products("step", 8)]
    forward = [(8, 7), (8, 6), (8, 3)]
    # delta^(3) is the loss's; dL/dW^(k) follows delta^(k)
    assert sorted(shapes) == sorted([*forward, (3, 6), (8, 6), (6, 7), (8, 7), (7, 5)])
    gemms.epoch()
    assert gemms.products("step", 4)[0].out.shape == (1, 4, 7)
    first, second, *_ = gemms.products("step", 8)
    assert second.a is first.out  # where the step finds it, in the cache
    before = [product.out.copy() for product in gemms.products("step", 8)]
    for _ in range(50):
        gemms.step()
    for product, expected in zip(gemms.products("step", 8), before, strict=True):
        np.testing.assert_array_equal(product.out, expected)


def test_wrong_gemms_are_noticed(monkeypatch):
    gemms = ENTRIES[1].load()(Problem(SMALL[0]), "cpu")
    gemms.answers()
    gemms.products("step", 8)[-1].out[:] += 1
    with pytest.raises(ArithmeticError, match="is wrong by"):
        gemms._check(gemms.products("step", 8))
    with pytest.raises(LookupError, match="no GEMM"):
        gemms._check([])
    bits = (np.array([1.5, -3.0], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    np.testing.assert_array_equal(agreement.as_float64(bits), [1.5, -3.0])
    assert gemms_alone.TOLERANCE.keys() == agreement.TOLERANCE.keys()


@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.loss)
@pytest.mark.parametrize("part", ["losses", "arrays"])
def test_other_answers_are_an_error(network, part):
    contender = ENTRIES[0].load()(Problem(network), "cpu")
    reference, other = contender.answers(), contender.answers()
    found = {LIBRARY: {"error": None}, "other": {"error": None}}
    compared.compare({LIBRARY: reference, "other": other}, found, 1e-4)
    assert found["other"] == {"error": None, "difference": 0.0}
    other[part][-1] = other[part][-1] * 1.001
    compared.compare({LIBRARY: reference, "other": other}, found, 1e-4)
    assert "answers differ" in found["other"]["error"]


def test_networks_of_each_run():
    assert training.chosen() == list(NETWORKS) and NETWORKS[0].steps == 9
    short = training.chosen(quick=True)
    assert {n.name for n in short} <= {n.name for n in NETWORKS}
    assert [n.steps for n in short] == [2, 2]
    on_gpu = training.chosen(device="cuda:0")
    assert set(on_gpu) == {*NETWORKS, *LARGE} and len(on_gpu) == 7
    assert [n.name for n in training.chosen("bf16", device="cuda:0")] == [LARGE[-1].name]


def test_contenders_that_fail_decline_die_or_hang_are_told_apart():
    runner = turns.Runner(ENTRIES[0], "cpu", limit=60)
    with pytest.raises(turns.Failed, match="no_such_verb"):
        runner.ask("no_such_verb")
    assert len(runner.ask("prepare", SMALL[0], "answers")["losses"]) == 2  # it has survived
    runner._process.kill()
    with pytest.raises(turns.Failed, match="process is gone"):
        runner.ask("time", "step")
    runner.close()
    hanging = turns.Runner(ENTRIES[0], "cpu", limit=0.01)
    with pytest.raises(turns.Failed, match=r"no answer in 0\.01 s"):
        hanging.ask("prepare", SMALL[0], "answers")
    assert not hanging._process.is_alive()
    declining = turns.Runner(ENTRIES[2], "cpu", limit=60)
    with pytest.raises(Declined, match="one network"):
        declining.ask("prepare", SMALL[0]._replace(models=2), "answers")
    declining.close()


def record_of(network, step, epoch):
    """A record of training as `measure` gives it, with these medians."""
    found = {
        name: {
            "error": None,
            "declined": None,
            "works": {"step": {"seconds": [step[name]]}, "epoch": {"seconds": [epoch[name]]}},
        }
        for name in step
    }
    compared.summarise(found)
    named = {"name": network.name, "task": network._asdict(), "works": ["step", "epoch"]}
    return named | {"contenders": found}


def test_a_failed_contender_leaves_the_others_ratios():
    record = record_of(SMALL[0], {LIBRARY: 2.0, GEMMS: 1.0}, {LIBRARY: 4.0, GEMMS: 1.0})
    works = {"step": {"seconds": [1.0]}}
    failed = {"error": "Traceback ...\nRuntimeError: no", "declined": None, "works": works}
    declined = {"error": None, "declined": "it has no sine", "works": {}}
    record["contenders"] |= {"other": failed, "third": declined}
    compared.summarise(record["contenders"])
    assert failed["works"] == {}
    assert record["contenders"][LIBRARY]["works"]["epoch"]["over_gemms"] == 4.0
    summary, table = training.tables([record], "cpu")
    assert re.search(r"5-7-3 +4 s +4\.00x", summary.text())
    for text in (table.text(), table.markdown()):
        assert "other failed: RuntimeError: no" in text
        assert "third takes no part: it has no sine" in text and "4.00x" in text
    assert command.failed(record)


# ---------------------------------------------------------------- goals
def test_goals_are_met_missed_or_not_measured():
    results = {"device": "cpu"}
    assert {goal["met"] for goal in goals.judge(results)} == {None}
    times = {LIBRARY: 1.0, GEMMS: 0.8, SCIKIT_LEARN: 4.0, "PyTorch eager": 3.0}
    times |= {"PyTorch compiled": 1.5}
    results["training"] = [record_of(SMALLEST, times, times), record_of(MIDDLE, times, times)]
    judged = {goal["goal"]: goal for goal in goals.judge(results)}
    assert len(judged) == len(cpu_goals())

    def of(peer, network):
        return judged[f"{peer} / gpumlp, an epoch of {network.name}"]

    assert of(SCIKIT_LEARN, SMALLEST)["met"] is False and of(SCIKIT_LEARN, MIDDLE)["met"] is True
    assert of("PyTorch", MIDDLE)["met"] is False and of("PyTorch", MIDDLE)["found"] == 1.5
    gemms = judged[f"gpumlp / its GEMMs alone, an epoch of {MIDDLE.name}"]
    assert gemms["met"] is True and gemms["found"] == 1.25
    del results["training"][0]["contenders"][SCIKIT_LEARN]
    assert goals.judge(results)[0]["met"] is None
    (table,) = goals.tables(list(judged.values()), "cpu")
    assert "MISSED" in table.text() and "not measured" in table.text()


def test_a_lead_is_compared_with_the_one_that_relu_has():
    found = []
    for name, peer in (("relu", 4.0), ("tanh", 3.0)):
        network = MIDDLE._replace(hidden=name)
        found.append(record_of(network, {LIBRARY: 1.0}, {LIBRARY: 1.0, "PyTorch eager": peer}))
        works = {"epoch": {"seconds": [peer], "median": peer}}
        found[-1]["contenders"]["PyTorch eager"] = {"works": works}
    results = {"device": "cpu", "activations": found}
    assert goals.beside_relu("tanh", "PyTorch eager")(results) == 0.75
    assert goals.beside_relu("gelu", "PyTorch eager")(results) is None


def test_goals_on_a_gpu():
    results = {"device": "cuda:0", "copy_bandwidth": 1e12}
    times = {LIBRARY: 1.0, GEMMS: 0.5, "JAX scan": 1.2, "PyTorch CUDA graph": 1.3}
    large = LARGE[0]
    results["training"] = [record_of(large, times, times)]
    results["operations"] = [
        {"streams": True, "ratio": 0.95, "error": None},
        {"streams": True, "ratio": 0.91, "error": None},
        {"streams": False, "ratio": 0.2, "error": None},
    ]
    judged = {goal["goal"]: goal for goal in goals.judge(results)}
    assert judged[f"best peer / gpumlp, an epoch of {large.name}"]["found"] == 1.2
    limit = 0.5 + sum(traffic.other_bytes(large).values()) / 1e12
    step = next(goal for text, goal in judged.items() if text.startswith(f"a step of {large.name}"))
    assert step["found"] == 1 / limit and step["met"] is False
    operation = judged["slowest streaming operation / a copy"]
    assert operation["found"] == 0.91 and operation["met"] is True


def test_other_bytes_are_those_of_the_kernels_headers():
    network = Network((5, 7, 6, 3), 8, 20)
    count = 5 * 7 + 7 + 7 * 6 + 6 + 6 * 3 + 3
    assert network.count == count
    floats = {
        "gather": 2 * 8 * 5,
        "narrow": 0,
        "activate": 2 * 8 * 13,
        "loss": 2 * 8 * 3,
        "backprop": 3 * 8 * 13 + 8 * 3,
        "advance": count,
        "update": 7 * count,
    }
    assert traffic.other_bytes(network) == {name: 4 * n for name, n in floats.items()}
    stack = traffic.other_bytes(network._replace(models=5))
    assert stack == {name: 20 * n for name, n in floats.items()}
    assert traffic.other_bytes(network._replace(hidden="gelu"))["activate"] == 12 * 8 * 13
    half = traffic.other_bytes(network._replace(precision="bf16"))
    assert half["narrow"] == 6 * count and half["activate"] == 4 * 8 * 13
    assert half["update"] == 28 * count


def test_slopes_of_power_laws():
    assert scaling.slope([(1, 3.0), (2, 12.0), (4, 48.0)]) == pytest.approx(2)
    assert scaling.slope([(1, 3.0)]) is None


def test_paths_of_a_product_are_right_and_measured(device, tmp_path, monkeypatch, request):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    device = resolve(device)
    paths = products.paths(device)
    if device != "cpu" and not request.config.getoption("--require-gpu"):
        # The stand-in for CuPy has what gpumlp uses.
        paths = [path for path in paths if path.name.startswith("cuBLASLt")]
    for shape in products.SHAPES["quick"]:
        record = products.measure(shape, backend.get(device), paths, "quick")
        assert record["error"] is None
        assert all(found["ratio"] > 0 for found in record["paths"].values())
        assert record["flops"] == 2 * shape.models * shape.I * shape.J * shape.L


def test_a_wrong_product_is_noticed():
    def make(a, b, out, shape):
        return lambda: np.multiply(np.matmul(a, b.swapaxes(1, 2)), 1.001, out=out)

    right = products.paths("cpu")[0]
    paths = [right, right._replace(name="wrong", make=make)]
    record = products.measure(products.SHAPES["quick"][0], backend.get("cpu"), paths, "quick")
    assert record["error"].startswith("wrong: wrong by")
    assert "median" in record["paths"][right.name] and "median" not in record["paths"]["wrong"]


@pytest.mark.parametrize("law", optimizers.PASSES)
def test_optimisers_do_as_by_hand(device, law):
    problem = laws.Law(law, optimizers.PASSES[law], 1 << 10).problem()
    answers, expected = laws.Library(problem, resolve(device)).answers(), laws.by_hand(problem)
    assert agreement.difference(answers, expected) < 1e-5
    slots = sum(problem.network.optimizer().slots().values())
    assert optimizers.PASSES[law] == 1 + 3 + 2 * slots


def test_parts_of_two_runs_are_judged_together():
    times = {LIBRARY: 1.0, SCIKIT_LEARN: 9.0}
    trained = {"device": "cpu", "copy_bandwidth": 1.0, "training": [
        record_of(SMALLEST, times, times)]}  # fmt: skip
    results: dict = {}
    suite.merge(results, {"device": "cpu", "copy_bandwidth": 2.0, "operations": []})
    suite.merge(results, trained)
    suite.merge(results, None)
    assert results["figures"]["copy_bandwidth"] == 2.0 and results["figures"]["operations"] == []
    assert results["figures"]["goals"][0]["met"] is True


def test_pytest_benchmark_runs_the_same_functions(tmp_path):
    pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")
    file = tmp_path / "figures.json"
    chosen = "(test_training and step and 64-100) or (short and rows) or (inference and 128)"
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
    assert len(json.loads(file.read_text())["benchmarks"]) == 5


def test_machine_says_where_figures_come_from():
    found = machine.describe()
    assert {"date", "commit", "processor", "python", "numpy", "torch", "jax", "cupy"} <= set(found)
    assert {"gpus", "driver", "cuda_driver", "cuda_runtime", "scikit-learn"} <= set(found)
    json.dumps(found)
    assert found["python"] == sys.version.split()[0] and found["numpy"] == np.__version__
    found["not_compiled_for_cpu"] = "no compiler"
    assert "2 cores" in machine.one_line(
        found | {"cores": 2}
    ) and "no compiler" in machine.one_line(found)


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
    figures = {"device": "cuda:0", "training": []}

    def fake_parts(folder):
        unfinished = folder / "figures.json"
        unfinished.write_text('{"cut sh')
        return [
            gpu.Part("breaks", 1, python("raise SystemExit('broken')")),
            gpu.Part("hangs", 1, python("import time; time.sleep(60)")),
            gpu.Part("absent", 1, "there is no such tool"),
            gpu.Part("works", 98, python("print(1)"), lambda: {"figures": gpu._json(unfinished)}),
            gpu.Part("measures", 98, python("print(1)"), lambda: {"figures": figures}),
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
