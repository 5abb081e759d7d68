"""The same work under pytest-benchmark: `pytest benchmarks --benchmark-only`.

Only what can share a process: operations, optimisers, and gpumlp beside the step's GEMMs.  The
comparison with peers is `python -m benchmarks`.  The environment variable GPUMLP_DEVICE chooses the
device.
"""

import math

import pytest

from benchmarks import cases, clock, compared, inference, operations, optimizers, training
from benchmarks.agreement import TOLERANCE, difference
from benchmarks.contenders import ENTRIES, GEMMS, LIBRARY, laws
from benchmarks.networks import MIDDLE, NETWORKS, WIDE
from gpumlp import backend
from gpumlp.backend.device import resolve

pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")

ROUNDS = {"cpu": 5, "cuda": 30}


@pytest.fixture(scope="module")
def device():
    return resolve("auto")


def _rounds(device):
    return ROUNDS[device.partition(":")[0]]


def _time(benchmark, contender, what, group):
    work = contender.work(what)

    def run_and_wait():
        work()
        contender.wait()

    benchmark.group = group
    # The first time is as it comes, the second is captured.
    benchmark.pedantic(run_and_wait, rounds=compared.THOROUGH.turns, warmup_rounds=2)


def _contender(name, network, device):
    entry = next(entry for entry in ENTRIES if entry.name == name)
    return entry.load()(network.problem(), device)


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_operation(benchmark, device, case):
    if case.narrow and device == "cpu":
        pytest.skip("bfloat16 needs a GPU")
    ops = backend.get(device)
    assert operations.check(case, ops) < operations.TOLERANCE[case.narrow]
    elements = operations.ELEMENTS[device.partition(":")[0]]
    with ops.on_device():
        rows = math.ceil(elements / case.columns)
        run, _ = case.make(cases.Inputs(ops, narrow=case.narrow), rows, case.columns)

        def run_and_wait():
            run()
            clock.wait(ops)

        benchmark.pedantic(run_and_wait, rounds=_rounds(device), warmup_rounds=1)
    benchmark.extra_info["bytes"] = operations.moved(case, rows)


@pytest.mark.parametrize("what", training.WORKS)
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
@pytest.mark.parametrize("name", [LIBRARY, GEMMS])
def test_training(benchmark, device, name, network, what):
    contender = _contender(name, network, device)
    contender.answers()
    _time(benchmark, contender, what, f"{what} of {network.name}")


@pytest.mark.parametrize("rows", inference.ROWS)
@pytest.mark.parametrize("name", [LIBRARY, GEMMS])
def test_inference(benchmark, device, name, rows):
    contender = _contender(name, MIDDLE._replace(rows=max(inference.ROWS)), device)
    contender.predictions()
    _time(benchmark, contender, f"predict {rows}", f"{rows} rows through {MIDDLE.name}")


@pytest.mark.parametrize("law", optimizers.PASSES)
def test_optimizer(benchmark, device, law):
    problem = laws.Law(law, optimizers.PASSES[law], WIDE.count).problem()
    contender = laws.Library(problem, device)
    answers = contender.answers()
    assert difference(answers, laws.by_hand(problem)) < TOLERANCE["float32"]
    _time(benchmark, contender, "update", f"{law}, {WIDE.count:,} parameters")
