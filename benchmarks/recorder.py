"""The operations that gpumlp asks for in a real step: recorded as it is made, to be repeated."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from gpumlp.backend.contract import State
from gpumlp.backend.reference.numpy_ops import NumpyOps
from gpumlp.backend.selfcheck.case import widened


class Call(NamedTuple):
    """slice: of the batch, for which it was asked, or None; error: against NumPy, if checked."""

    name: str
    operation: Any
    arguments: tuple
    options: dict
    slice: int | None
    error: float | None

    def __call__(self):
        self.operation(*self.arguments, **self.options)


@contextlib.contextmanager
def recorded(ops, *names: str, check: bool = False, **replaced):
    """The list of calls of these operations of a backend, as they are made: those of slices one
    after another, and none in a graph.  replaced: other methods of the backend meanwhile."""
    calls: list[Call] = []
    current: int | None = None

    def recording(name):
        operation = getattr(ops, name)

        def call(*arguments, **options):
            made = Call(name, operation, arguments, options, current, None)
            error = difference(ops, made) if check else made()
            calls.append(made._replace(error=error))

        return call

    def in_turn(works):
        nonlocal current
        for i, work in enumerate(works):
            current = i
            work()
        current = None

    replaced |= {name: recording(name) for name in names}
    replaced |= {"parallel": in_turn, "capture": lambda work: work}
    vars(ops).update(replaced)
    try:
        yield calls
    finally:
        for name in replaced:
            delattr(ops, name)


def difference(ops, call: Call) -> float:
    """Makes the call, and the same by NumPy in float64 on copies: the largest relative difference
    of the arrays of numbers that both leave."""
    exact: dict = {}
    arguments, options = on_host(ops, (call.arguments, call.options), exact)
    call()
    if call.name == "cast_bf16":  # which in float64 rounds nothing
        np.copyto(arguments[1], arguments[0])
    else:
        getattr(NumpyOps(), call.name)(*arguments, **options)
    results: dict = {}
    on_host(ops, (call.arguments, call.options), results)
    worst = 0.0
    for result, expected in zip(results.values(), exact.values(), strict=True):
        known = np.isfinite(expected)
        scale = max(np.abs(expected[known]).max(initial=0), np.finfo(np.float32).tiny)
        apart = np.abs(result[known] - expected[known]).max(initial=0) / scale
        worst = max(worst, apart if (known == np.isfinite(result)).all() else np.inf)
    return float(worst)


def address(array):
    """Equal for two arrays that are the same, such as z and n where f works in place."""
    interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return interface["data"][0], array.shape, array.dtype.char


def on_host(ops, value, arrays: dict):
    """The same with a copy of each array, which is added by its address; real numbers in
    float64."""
    if isinstance(value, dict):
        return {name: on_host(ops, item, arrays) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [on_host(ops, item, arrays) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, State):
        host = copy.copy(value)
        for field in dataclasses.fields(State):
            setattr(host, field.name, on_host(ops, getattr(value, field.name), arrays))
        return host
    if getattr(value, "ndim", 0) == 0:
        return value
    if address(value) not in arrays:
        array = np.array(ops.to_host(value))
        array = widened(array) if array.dtype == np.uint16 else array
        real = array.dtype.kind == "f"
        arrays[address(value)] = array.astype(np.float64) if real else array
    return arrays[address(value)]
