"""The same work under pytest-benchmark: `pytest benchmarks --benchmark-only`.

Only what can share a process: operations, and gpumlp beside the step's GEMMs.  The comparison with
peers is `python -m benchmarks`.  The environment variable GPUMLP_DEVICE chooses the device.
"""

import functools

import pytest

from benchmarks import clock, operations
from benchmarks.contenders import ENTRIES, GEMMS, LIBRARY
from benchmarks.networks import NETWORKS
from gpumlp import backend
from gpumlp.backend.device import resolve

pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")

DEVICE = resolve("auto")
OPERATIONS = *operations.STEP, "softmax", "accumulate_metrics"


@functools.cache
def operations_of(network):
    return {operation.name: operation for operation in operations.operations(network, DEVICE)}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("network", operations.networks(DEVICE), ids=lambda network: network.name)
def test_operation(benchmark, network, name):
    if name not in operations_of(network):
        pytest.skip("the network has no such operation")
    operation, ops = operations_of(network)[name], backend.get(DEVICE)
    benchmark.extra_info["amount"] = operation.amount
    with ops.on_device():
        time(benchmark, operation, lambda: clock.wait(ops))


@pytest.mark.parametrize("work", ["step", "epoch"])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
@pytest.mark.parametrize("name", [LIBRARY, GEMMS])
def test_training(benchmark, name, network, work):
    contender = ENTRIES[name].make(network.problem(), DEVICE)
    contender.answers()
    benchmark.group = f"{work} of {network.name}"
    time(benchmark, contender.work(work), contender.wait)


def time(benchmark, run, wait):
    def run_and_wait():
        run()
        wait()

    # The first time is as it comes, the second is captured.
    benchmark.pedantic(run_and_wait, rounds=7, warmup_rounds=2)
