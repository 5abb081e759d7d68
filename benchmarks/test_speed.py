"""The same work under pytest-benchmark: `pytest benchmarks --benchmark-only`.

Only what can share a process: operations, and gpumlp beside the step's GEMMs.  The comparison with
peers is `python -m benchmarks`.  The environment variable GPUMLP_DEVICE chooses the device.
"""

import pytest

from benchmarks import cases, clock, operations
from benchmarks.contenders import ENTRIES, GEMMS, LIBRARY
from benchmarks.networks import MIDDLE, NETWORKS
from gpumlp import backend
from gpumlp.backend.device import resolve

pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")


@pytest.fixture(scope="module")
def device():
    return resolve("auto")


@pytest.mark.parametrize("operation", operations.OPERATIONS, ids=lambda operation: operation.name)
def test_operation(benchmark, device, operation):
    if operation not in operations.chosen(device):
        pytest.skip("bfloat16 needs a GPU")
    ops = backend.get(device)
    assert operations.check(operation, ops) < operations.TOLERANCE[operation.dtype]
    benchmark.extra_info["amount"], run, *_ = operations.prepared(operation, ops)
    with ops.on_device():
        time(benchmark, run, lambda: clock.wait(ops))


@pytest.mark.parametrize("work", ["step", "epoch"])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
@pytest.mark.parametrize("name", [LIBRARY, GEMMS])
def test_training(benchmark, device, name, network, work):
    contender = ENTRIES[name].make(network.problem(), device)
    contender.answers()
    benchmark.group = f"{work} of {network.name}"
    time(benchmark, contender.work(work), contender.wait)


@pytest.mark.parametrize("rows", cases.ROWS)
def test_inference(benchmark, device, rows):
    network = MIDDLE._replace(rows=max(cases.ROWS))
    contender = ENTRIES[LIBRARY].make(network.problem(), device)
    contender.predictions()
    time(benchmark, contender.work(f"predict {rows}"), contender.wait)


def time(benchmark, run, wait, rounds=7):
    def run_and_wait():
        run()
        wait()

    # The first time is as it comes, the second is captured.
    benchmark.pedantic(run_and_wait, rounds=rounds, warmup_rounds=2)
