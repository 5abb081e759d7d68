"""The arrays of networks and trainers in files: their names, shapes and ranges."""

from __future__ import annotations

import re

import numpy as np

from gpumlp.model.parameters import Parameters
from gpumlp.utils.schema import SchemaError


def named(layout, buffer, prefix: str = "") -> dict[str, np.ndarray]:
    """Views of a buffer (M, P) by the names of a file, such as "W.1"."""
    views = Parameters(layout, buffer)
    return {
        f"{prefix}{group}.{k}": getattr(views, group)[k]
        for group in ("W", "b", "s", "slope")
        for k in range(1, len(layout.sizes))
        if getattr(views, group)[k] is not None
    }


def gathered(net, arrays, prefix: str = "") -> np.ndarray:
    """Copy the named arrays into one buffer (M, P) of the network's layout, on the host."""
    buffer = np.zeros((net.M, net.layout.size), net.dtype)
    for name, view in named(net.layout, buffer, prefix).items():
        view[...] = array_of(arrays, name, view.dtype, view.shape)
    return buffer


def array_of(arrays, name: str, dtype, shape: tuple[int, ...]) -> np.ndarray:
    """The array of that name; raises SchemaError unless it has that dtype and shape."""
    if name not in arrays:
        raise SchemaError(f"there is no array {name}")
    array = arrays[name]
    if (array.dtype, array.shape) != (np.dtype(dtype), shape):
        raise SchemaError(f"{name} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
    return array


# The arrays of which every number is finite: weights, also the best ones that a callback keeps, and
# the optimiser's state; and those of which none is below 0.  A learning rate that a schedule
# raised out of range is infinite: its network stands still, and others of the stack go on.
FINITE = re.compile(r"(stacks\.\d+\.)?(W|b|s|slope)\.|(.+\.)?(engine|optimizer)\.|.+\.theta$")
NOT_NEGATIVE = re.compile(r"(.+\.)?optimizer\.(slots\.)?(second|square)(\.|$)|lr$")


def wrong_numbers(arrays: dict[str, np.ndarray]) -> str | None:
    """A message on the first weights, or optimiser's state, with wrong numbers; None if all are
    right."""
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            continue
        if FINITE.match(name) and (wrong := np.count_nonzero(~np.isfinite(array))):
            return f"{name} has {wrong} of {array.size} numbers that are NaN or infinite"
        if NOT_NEGATIVE.match(name) and (wrong := np.count_nonzero(~(array >= 0))):
            return f"{name} has {wrong} of {array.size} numbers that are NaN or below 0"
    return None


def check_shapes(state, functions, arrays, prefix: str = "") -> None:
    """Check, before the network takes memory, that its weights are all in the file."""
    sizes, models, dtype = state["sizes"], state["models"] or 1, np.dtype(state["dtype"])
    if len(functions) != len(sizes) - 1 or not functions:
        raise SchemaError(f"{len(functions)} activations for sizes {sizes}")
    scaled = state.get("scale", [False] * len(functions))
    if len(scaled) != len(functions):
        raise SchemaError(f"{len(scaled)} values of scale for sizes {sizes}")
    for k, f in enumerate(functions, 1):
        array_of(arrays, f"{prefix}W.{k}", dtype, (models, sizes[k], sizes[k - 1]))
        array_of(arrays, f"{prefix}b.{k}", dtype, (models, sizes[k]))
        if scaled[k - 1]:
            array_of(arrays, f"{prefix}s.{k}", dtype, (models, sizes[k - 1]))
        if f.learned:
            array_of(arrays, f"{prefix}slope.{k}", dtype, (models,))


def check_counts(arrays, issued: int, models: int) -> None:
    """Check the counts of updates, and the updates at which networks stopped."""
    steps, stopped_at = (
        array_of(arrays, name, np.int64, (models,)) for name in ("steps", "halted")
    )
    if not ((0 <= steps) & (steps <= issued)).all():
        raise SchemaError(f"steps has {steps.min()} .. {steps.max()}, of {issued} updates")
    if not ((-1 <= stopped_at) & (stopped_at <= issued)).all():
        raise SchemaError(
            f"halted has {stopped_at.min()} .. {stopped_at.max()}, of {issued} updates"
        )
