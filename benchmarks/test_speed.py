"""The same work under pytest-benchmark: `pytest benchmarks --benchmark-only`.

Only what can share a process: operations, and gpumlp beside the step's GEMMs.  The comparison with
peers is `python -m benchmarks`.  The environment variable GPUMLP_DEVICE chooses the device.
"""

import math

import pytest

from benchmarks import clock, operations, training
from benchmarks.contenders import ENTRIES, GEMMS, LIBRARY
from benchmarks.networks import NETWORKS, Problem
from gpumlp import backend
from gpumlp.device import resolve

pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")

ROUNDS = {"cpu": 5, "cuda": 30}


@pytest.fixture(scope="module")
def device():
    return resolve("auto")


def _rounds(device):
    return ROUNDS[device.partition(":")[0]]


@pytest.mark.parametrize("case", operations.CASES, ids=lambda case: case.name)
def test_operation(benchmark, device, case):
    ops = backend.get(device)
    assert operations.check(case, ops) < operations.TOLERANCE
    elements = operations.ELEMENTS[device.partition(":")[0]]
    with ops.on_device():
        rows = math.ceil(elements / case.columns)
        run, _ = case.make(operations.Inputs(ops), rows, case.columns)

        def run_and_wait():
            run()
            clock.wait(ops)

        benchmark.pedantic(run_and_wait, rounds=_rounds(device), warmup_rounds=1)
    benchmark.extra_info["bytes"] = operations.moved(case, rows)


@pytest.mark.parametrize("what", training.MEASURED)
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
@pytest.mark.parametrize("name", [LIBRARY, GEMMS])
def test_training(benchmark, device, name, network, what):
    entry = next(entry for entry in ENTRIES if entry.name == name)
    contender = entry.load()(Problem(network), device)
    contender.answers()
    work = getattr(contender, what)

    def run_and_wait():
        work()
        contender.wait()

    benchmark.group = f"{what} of {network.name}"
    benchmark.pedantic(run_and_wait, rounds=training.THOROUGH.turns, warmup_rounds=1)
