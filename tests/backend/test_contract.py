"""The three implementations of `Ops` have its operations, with its parameters."""

import inspect

import numpy as np
import pytest

from gpumlp import backend
from gpumlp.backend.contract import Factors, Ops
from gpumlp.backend.cpu.host_ops import HostOps
from gpumlp.backend.cuda import persistent_kernel
from gpumlp.backend.reference.numpy_ops import NumpyOps
from tests.conftest import require_cuda
from tests.operations import assert_same, random, send


@pytest.fixture(params=["NumpyOps", "HostOps", "CupyOps"])
def ops(request):
    if request.param == "NumpyOps":
        return NumpyOps()
    if request.param == "HostOps":
        return HostOps()
    require_cuda(request.config)
    return backend.get("cuda:0")


def operations(cls):
    """name -> (name, kind, default) of each parameter."""
    return {
        name: [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]
        for name, method in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


def test_implementation_has_the_operations_of_the_protocol(ops):
    assert operations(type(ops)) == operations(Ops)
    assert ops.xp.float32 is np.float32
    assert ops.device in ("cpu", "cuda:0")


def test_operations_are_documented():
    without = [name for name in operations(Ops) if not inspect.getdoc(getattr(Ops, name))]
    assert not without


def test_parallel_and_add_up_are_there_without_threads(ops):
    parts = random(3, 2, 37, seed=1)
    total, done = send(ops, np.zeros((2, 37)), "float64"), []
    ops.add_up(send(ops, parts, "float64"), total)
    assert_same(ops, total, parts[0] + parts[1] + parts[2])
    ops.parallel([lambda: done.append(1), lambda: done.append(2)])
    assert done == [1, 2]


@pytest.mark.parametrize("ops", ["NumpyOps", "HostOps"], indirect=True)
def test_what_only_a_gpu_does_is_refused(ops):
    for operation in (lambda: ops.transfers(8), lambda: ops.persistent_kernel(None, None)):
        with pytest.raises(NotImplementedError, match="on a GPU only"):
            operation()


def test_persistent_kernel_refuses_factors(cuda):
    ops = backend.get("cuda:0")
    _, shape = next(persistent_kernel.samples("float32"))
    train = ops.persistent_kernel(shape, persistent_kernel.fit(shape, persistent_kernel.H100))
    arguments = [None] * (len(persistent_kernel.LaunchArgs._fields) - 1)
    with pytest.raises(ValueError, match="one learning rate for all parameters"):
        train(persistent_kernel.LaunchArgs(*arguments, Factors(None, None, None)), 1)
