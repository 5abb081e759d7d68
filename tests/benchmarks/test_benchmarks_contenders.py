"""What is measured is right: operations, products, optimisers, contenders."""

import os
import signal
import types

import numpy as np
import pytest

from benchmarks import (
    agreement,
    cases,
    compared,
    machine,
    operations,
    optimizers,
    products,
    suite,
    turns,
)
from benchmarks.contenders import ENTRIES, LIBRARY, Declined, laws
from benchmarks.contenders import gemms as gemms_alone
from benchmarks.networks import Network, Problem
from gpumlp import backend
from gpumlp.backend.device import resolve
from tests.helpers.waiting import HANGS

SMALL = [Network((5, 7, 3), 8, 20, loss) for loss in ("cross_entropy", "squared_error")]
TINY = "tiny"


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch):
    monkeypatch.setitem(operations.ELEMENTS, TINY, 1 << 12)
    monkeypatch.setitem(operations.REPEATS, TINY, 2)


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


# What each header says, by which CASES and traffic.py count, and the bytes that follow: in float32,
# and where some arrays are in bfloat16.
STATED = {
    "forward.cu": (
        "writes n, and z + b where f' needs it: 2 or 3 Stored, of 4 bytes",
        {8, 12},
        {4, 6},
    ),
    "backward.cu": ("2 Delta and 1 Stored, 12 bytes in float32 and 6 in bf", {4, 12}, {6}),
    "scale.cu": (
        "and 6 where W is in bfloat16; scale_gradient reads G and V and writes G: 3 Reals",
        {8, 12},
        {6},
    ),
    "losses.cu": ("8 or 12 bytes in float32 (6 or 10 with", {8, 12}, {6}),
    "gather.cu": ("reads one Source, writes one Stored", {8}, {6}),
    "rows.cu": ("reads z (twice more from the cache); writes n: 2 Reals", {8}, set()),
    "accumulate_metrics.cu": (
        "reads n, and y unless the targets are labels: 1 or 2 Reals",
        {4},
        set(),
    ),
    "cast_bf16.cu": ("reads one Real, writes one Bf16: 6", set(), {6}),
    "shuffle.cu": ("shuffle_keys writes 8, shuffle_order reads 8 and writes 4", {20}, set()),
    "prepare_update.cu": (
        "g, and where penalties are noted the weights too: 1 Real, or 2",
        {4},
        set(),
    ),
    "update.cu": ("3 Reals, and 2 for each state buffer in use", {12, 20, 28}, set()),
}


def test_kernels_state_the_bytes_that_are_counted():
    for kernel, (said, *expected) in STATED.items():
        assert said in operations.stated(kernel)
        for narrow, counted in zip((False, True), expected, strict=True):
            its = [case for case in cases.CASES if (case.kernel, case.narrow) == (kernel, narrow)]
            assert {case.bytes for case in its} == counted
    counted = {case.name: case.bytes // 4 for case in cases.CASES if case.kernel == "update.cu"}
    names = ("update SGD", "update momentum", "update RMSprop", "update Adam")
    assert counted == dict(zip(names, (3, 5, 5, 7), strict=True))


def test_every_kernel_is_measured():
    kernels = {path.name for path in (machine.ROOT / "kernels").rglob("*.cu")}
    streaming = {case.kernel for case in cases.CASES}
    assert streaming == set(STATED) and not streaming & set(cases.WHOLE_STEPS)
    assert kernels == streaming | set(cases.WHOLE_STEPS)
    assert set(cases.WHOLE_STEPS.values()) <= set(suite.PARTS)


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
    assert len(contender.answers()["losses"]) == 6
    contender.epoch()
    contender.problem.W[1][2, 0, 0] += 1  # the networks alone get it, this one had it not
    contender.load = lambda: None
    with pytest.raises(ArithmeticError, match="differs from one alone"):
        contender.answers()
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
    gemms.products("step", 8)[0].a[:] = 1e-40
    with pytest.raises(ArithmeticError, match="denormal"):
        gemms._check(gemms.products("step", 8))
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


def test_contenders_that_fail_decline_die_or_hang_are_told_apart():
    runner = turns.Runner(ENTRIES[0], "cpu", limit=HANGS)
    with pytest.raises(turns.Failed, match="no_such_verb"):
        runner.ask("no_such_verb")
    assert len(runner.ask("prepare", SMALL[0], "answers")["losses"]) == 2  # it has survived
    runner._process.kill()
    with pytest.raises(turns.Failed, match="process is gone"):
        runner.ask("time", "step")
    runner.close()
    hanging = turns.Runner(ENTRIES[0], "cpu", limit=0.01)
    os.kill(hanging._process.pid, signal.SIGSTOP)
    with pytest.raises(turns.Failed, match=r"no answer in 0\.01 s"):
        hanging.ask("prepare", SMALL[0], "answers")
    assert not hanging._process.is_alive()
    declining = turns.Runner(ENTRIES[2], "cpu", limit=HANGS)
    with pytest.raises(Declined, match="one network"):
        declining.ask("prepare", SMALL[0]._replace(models=2), "answers")
    declining.close()


@pytest.mark.parametrize(("busy", "rested"), [(0, 0.03), (0.14, 0.18), (100, 0.51)])
def test_a_turn_ends_when_no_thread_is_busy(monkeypatch, busy, rested):
    """On a clock of its own: beside a load a busy thread may get no core for longer than a rest."""
    now = 0.0

    def sleep(seconds):
        nonlocal now
        now += seconds

    clock = types.SimpleNamespace(
        monotonic=lambda: now, process_time=lambda: min(now, busy), sleep=sleep
    )
    monkeypatch.setattr(turns, "time", clock)
    turns.rest()
    assert now == pytest.approx(rested)


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
    state_buffers = sum(problem.network.optimizer().state_buffers().values())
    assert optimizers.PASSES[law] == 1 + 3 + 2 * state_buffers
