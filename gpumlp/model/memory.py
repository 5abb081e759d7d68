"""Predict the memory of training, and explain where there is too little."""

from __future__ import annotations

import contextlib
import decimal
import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from gpumlp import backend
from gpumlp.backend.cuda import faults
from gpumlp.backend.sources import SCALARS
from gpumlp.backend.sparse_rows import SparseRows
from gpumlp.functions.optimizer import HYPERS
from gpumlp.model import arrays, blocks, workspace
from gpumlp.model.shape import NetworkShape
from gpumlp.utils.checks import shown

STEPS_NOTED = 1024  # batches whose losses the device keeps, at least
ORDER_BYTES = 4  # of each position of an order, in int32
SORTING_BYTES = 16  # of each, where the device shuffles: its key, and as much for the sort
EVERYWHERE = 1 << 28  # bytes that every machine has: asking takes longer than a small pass
MOST_SPELT = 10**5 * 2**40  # bytes of which all digits are written
SHARE = 0.8  # of the free memory that data may take; the rest is not predicted


class MemoryPlan(NamedTuple):
    """The parts of a fit that take memory, besides its batches.

    positions: of an epoch's order;  orders: 1, or one for each network.
    sorts:     whether orders are made on the device; else they are sent there.
    validation_rows: 0 without validation;  validation_orders: of them, 1 or one for each network.
    passes:    bytes of what runs the steps, see `executors.Executor`; None: of a workspace.
    """

    positions: int
    orders: int = 1
    sorts: bool = False
    validation_rows: int = 0
    validation_orders: int = 1
    passes: tuple[int, int] | None = None


def predict(
    shape: NetworkShape,
    rows: int,
    state_buffers: int = 0,
    data_bytes: int = 0,
    purpose: str = "fit",
    fit: MemoryPlan | None = None,
) -> int:
    """Predict the bytes of a fit, a step or a prediction on the device.

    cuBLASLt's workspace, 32 MiB at most, and what else libraries keep are not counted.

    Parameters
    ----------
    rows : int
        Of a batch; 0 leaves out all that depends on batches.
    state_buffers : int
        Their number.
    data_bytes : int
        Of the training and validation rows on the device.
    purpose : str
        "fit", "step" or "predict", see `Workspace`.
    fit : MemoryPlan or None
        None: one batch an epoch, no validation.
    """
    copies = 1 if purpose == "predict" else 2 + state_buffers
    theta = shape.layout.size * shape.dtype.itemsize * copies
    if shape.stored != shape.dtype:
        theta += shape.layout.size * shape.stored.itemsize
    else:  # W = V diag(s)
        theta += sum(shape.products[k - 1] for k in shape.layout.s) * shape.dtype.itemsize
    if shape.sparse and purpose != "predict":
        theta += shape.sizes[0]  # which features occur
    total = shape.M * theta + data_bytes
    if not rows or purpose != "fit":
        return total + (workspace.size(shape, rows, purpose) if rows else 0)
    fit = MemoryPlan(rows) if fit is None else fit
    steps = math.ceil(fit.positions / rows)
    return total + _counters(shape, steps) + _orders(shape, fit) + _passes(shape, rows, fit)


def _counters(shape: NetworkShape, steps: int) -> int:
    """Bytes of `TrainingState` and `Network` besides parameters, gradient and state buffers."""
    int64s = "t", "stopped_at", "cursor", "seed", "nothing done"
    reals = len(HYPERS) + len(SCALARS) + len(("norm",)) + 2 * max(STEPS_NOTED, steps)
    thresholds = 2 * 4 * (shape.K + 1)
    return shape.M * (8 * len(int64s) + shape.dtype.itemsize * reals + thresholds)


def _orders(shape: NetworkShape, fit: MemoryPlan) -> int:
    """Bytes of an epoch's order, and of what is there while a new one is made or arrives."""
    positions = fit.positions * fit.orders
    if not fit.sorts:
        return ORDER_BYTES * positions * (1 if fit.orders == 1 else 2)
    sorting = SORTING_BYTES // (
        2 if shape.device == "cpu" else 1
    )  # NumPy sorts keys in their place
    return (ORDER_BYTES + sorting) * positions


def _passes(shape: NetworkShape, rows: int, fit: MemoryPlan) -> int:
    """Bytes of the workspaces: of a batch, and of a chunk of validation rows."""
    batch, private = fit.passes or (workspace.size(shape, rows, "fit"), 0)
    if not fit.validation_rows:
        return batch + private
    chunk = min(shape.chunk_rows, fit.validation_rows)
    validation = workspace.size(shape, chunk, "fit")
    # The same memory serves both, unless networks are cut into other blocks.
    same = blocks.number(shape, rows) == blocks.number(shape, chunk)
    sums = 8 + 3 * shape.dtype.itemsize * math.ceil(fit.validation_rows / chunk)
    order = ORDER_BYTES * fit.validation_rows * fit.validation_orders
    passes = max(batch, validation) if same else batch + validation
    return passes + private + shape.M * sums + order


def size_of(*user_arrays) -> int:
    """The sum of the arrays' nbytes; 0 of what has none."""
    return sum(
        size_of(user_array.data, user_array.indices, user_array.indptr)
        if arrays.is_sparse(user_array) and hasattr(user_array, "indptr")
        else getattr(user_array, "nbytes", 0)
        for user_array in user_arrays
    )


def text(size: float) -> str:
    """1536 -> '1.5 KiB', and 10**30 -> '9.1e+17 TiB'."""
    if size >= MOST_SPELT:
        return f"{decimal.Decimal(size) / 2**40:.1e} TiB"
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


class OutOfMemoryError(MemoryError):
    """The error that `explain_oom` raises.

    facts: what is needed and what there is;  lower: the engine's arguments that decide on it;
    narrows: whether dtype="float32" would help.
    """

    facts: str
    lower: list[str]
    narrows: bool


class NoRoomForPieces(MemoryError):
    """Not even two pieces of the data fit; takes: their bytes."""

    def __init__(self, text: str, takes: int):
        self.takes = takes
        super().__init__(text)


def free_bytes(net, rows: int, wanted: int) -> int | None:
    """Bytes that the data of a fit may take, in batches of so many rows, beside the workspace that
    is still to be made; None on the CPU, where data are in the same memory already.

    wanted: where there are fewer, cached memory is freed first.
    """
    missing = net.workspaces.missing(rows, "fit")
    free = net.ops.free_memory(enough=(wanted + missing) / SHARE)
    return None if free is None else int(SHARE * free) - missing


def in_chunks(rows: int, chunk: int, work) -> None:
    """Call work(start, stop) for all rows, `chunk` at a time or, out of memory, half as many."""
    start = 0
    while start < rows:
        chunk = min(chunk, rows - start)
        try:
            work(start, start + chunk)
        except Exception as error:
            if chunk == 1 or not faults.is_out_of_memory(error):
                raise
            chunk = chunk // 2
        else:
            start += chunk


def check(shape: NetworkShape, ops) -> None:
    """Raise MemoryError, before any is taken, where the parameters alone do not fit."""
    # They are drawn on the host, also for a GPU.
    largest = min(device_ops.total_memory() for device_ops in (ops, backend.get("cpu")))
    if predict(shape, 0, purpose="predict") > largest:
        raise MemoryError


def shortage(ops, needed: int) -> str:
    """A message with the total memory where it is less than needed, else ""; ops None: the host."""
    if needed > EVERYWHERE:
        ops = backend.get("cpu") if ops is None else ops
        if needed > (there := ops.total_memory()):
            return f"there are {text(there)} on {ops.device}"
    return ""


def check_total(ops, needed: int) -> None:
    """Raise MemoryError, before data are read, for more bytes than there are in total."""
    if short := shortage(ops, needed):
        raise MemoryError(short)


def copied(array, dtype, ops) -> int:
    """Bytes that `arrays.to_device` takes: 0 where it need not copy."""
    dtype = np.dtype(dtype)
    if isinstance(array, SparseRows):
        types = zip((array.values, array.columns, array.starts), (dtype, "i4", "i8"), strict=True)
        return sum(copied(part, of, ops) for part, of in types)
    there = arrays.is_on_gpu(array) == (ops.device != "cpu")
    same = there and array.dtype == dtype and array.flags.c_contiguous
    return 0 if same else math.prod(array.shape) * dtype.itemsize


def check_weights(sizes, models: int = 1) -> None:
    """Raise MemoryError for weights, of networks still to be made, that the host cannot hold in
    float64, in which they are drawn."""
    numbers = sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))
    needed, there = 8 * numbers * models, backend.get("cpu").total_memory()
    if needed > there:
        of = f"{models} networks" if models > 1 else "a network"
        raise MemoryError(
            f"out of memory: the weights of {of} of sizes {shown(tuple(sizes))} take {text(needed)}"
            f", and there are {text(there)}; lower hidden_layer_sizes"
            + (" or n_models" if models > 1 else "")
        )


@contextlib.contextmanager
def explain_oom(
    shape: NetworkShape,
    ops,
    rows: int = 0,
    state_buffers: int = 0,
    data_bytes: int = 0,
    purpose: str = "fit",
):
    """A context in which out of memory becomes an OutOfMemoryError, with the bytes predicted and
    what to lower.  For the arguments see `predict`.

    rows: of a batch or a chunk; 0 where only the parameters are made.
    """
    try:
        yield
    except Exception as error:
        if not faults.is_out_of_memory(error):
            raise
        data_bytes = getattr(error, "takes", data_bytes)
        needed = predict(shape, rows, state_buffers, data_bytes, purpose)
        free = ops.free_memory()
        lower = ["batch_size"] if rows and purpose == "fit" else []
        lower += ["sizes"] + (["models"] if shape.M > 1 else [])
        lower += ["the rows given at once"] if data_bytes or purpose != "fit" else []
        facts = f"out of memory on {shape.device}: about {text(needed)} are needed"
        facts += f", {text(free)} are free" if free is not None else ""
        narrows = shape.dtype.itemsize == 8
        exception = OutOfMemoryError(
            f"{facts}; lower {', '.join(lower)}"
            + (", or use dtype='float32'" if narrows else "")
            + (f" ({error})" if str(error) else "")
        )
        exception.facts, exception.lower, exception.narrows = facts, lower, narrows
        raise exception from error
