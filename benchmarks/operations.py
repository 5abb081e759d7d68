"""Each operation of the backend as achieved bytes per second, over those of a copy in the same run.

The bytes are those that the header of its kernel states.  NumPy moves more in several passes: there
the fraction says how far the readable reference is from one pass.
"""

from __future__ import annotations

import math
import re
import statistics
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks import clock
from benchmarks.tables import Table
from gpumlp import backend, losses, optimizer
from gpumlp.activation import activations
from gpumlp.backend import Batch, Data, State, Targets, sources
from gpumlp.backend.numpy_ops import NumpyOps
from gpumlp.loss import pair

TOLERANCE = 1e-4
CHECKED_ROWS = 37
GOAL = 0.9  # of the copy's bandwidth, for streaming kernels on a GPU

# Elements of a buffer: on a GPU more than its caches hold, on a CPU too, but what NumPy does in
# reasonable time.
ELEMENTS = {"cuda": 1 << 25, "cpu": 1 << 24, "quick": 1 << 18}
REPEATS = {"cuda": 30, "cpu": 5, "quick": 3}


class Case(NamedTuple):
    """An operation on rows of so many columns.

    make(inputs, rows, columns) gives the call and the arrays that it writes; reals: moved by each
    element, as kernels/<kernel> says; streams: contiguous, so that it should be as fast as a copy.
    """

    name: str
    kernel: str
    reals: int
    columns: int
    make: Callable
    streams: bool = True


class Inputs:
    """Reproducible arrays on the device of `ops`, as float32 or, with the same values, float64."""

    def __init__(self, ops, real=np.float32):
        self.ops, self.real = ops, np.dtype(real)
        self._drawn = np.random.default_rng(0).standard_normal(1 << 16, dtype=np.float32)

    def normal(self, *shape, scale=1.0, offset=0):
        """Normal numbers; they repeat, each array from another place."""
        numbers = np.resize(np.roll(self._drawn, offset), shape) * np.float32(scale)
        return self.put(numbers.astype(self.real))

    def real_array(self, values):
        return self.put(np.asarray(values, dtype=self.real))

    def zeros(self, *shape, dtype=None):
        return self.ops.xp.zeros(shape, dtype or self.real)

    def put(self, array):
        return self.ops.to_device(array)


def activate(name: str):
    def make(inputs, rows, columns):
        f = activations[name]
        z, b = inputs.normal(1, rows, columns), inputs.normal(1, columns, scale=0.01, offset=1)
        n, p = inputs.zeros(1, rows, columns), inputs.real_array([[*f.p, 0.0, 0.0][:2]])
        return lambda: inputs.ops.activate(f, z, b, n, p), [n]

    return make


def backprop(name: str):
    def make(inputs, rows, columns):
        f = activations[name]
        z, n = inputs.normal(1, rows, columns), inputs.normal(1, rows, columns, offset=1)
        delta, db = inputs.normal(1, rows, columns, offset=2), inputs.zeros(1, columns)
        p = inputs.real_array([[*f.p, 0.0, 0.0][:2]])
        return lambda: inputs.ops.backprop(f, z, n, delta, db, p), [delta, db]

    return make


def loss(name: str, output: str, labelled: bool):
    def make(inputs, rows, columns):
        chosen, f = losses[name], activations[output]
        u, b = inputs.normal(1, rows, columns), inputs.normal(1, columns, scale=0.01, offset=1)
        labels = dense = None
        if labelled:
            labels = inputs.put((np.arange(rows, dtype=np.int32) % columns)[None])
        else:
            dense = inputs.normal(1, rows, columns, offset=2)
        targets = Targets(labels, dense, *chosen.target_scale(columns))
        w, w_sum = inputs.real_array(np.ones((1, rows))), inputs.real_array([rows])
        p, delta = inputs.real_array([[*chosen.p, 0.0]]), inputs.zeros(1, rows, columns)
        value, its_pair = inputs.zeros(1), pair(chosen, f)

        def run():
            inputs.ops.loss(its_pair, u, b, targets, w, w_sum, True, p, delta, value)

        return run, [delta, value]

    return make


def advancing(inputs, law, g):
    """The call of `advance` for this gradient, and the state that it writes."""
    hyper = inputs.real_array(law.hyper(1))
    state = State(
        *(inputs.zeros(1, dtype=np.int64) for _ in ("t", "halted", "cursor")),
        losses=inputs.zeros(1, 1),
        weights=inputs.zeros(1, 1),
        norm=inputs.zeros(1),
        scalars=inputs.zeros(1, len(sources.SCALARS)),
    )
    value, w_sum = inputs.real_array([1]), inputs.real_array([1])
    first_rate = inputs.zeros(1, dtype=np.int64)

    def run():
        inputs.ops.advance(g, value, w_sum, hyper, None, first_rate, state)

    return run, state


def advance(inputs, rows, columns):
    run, state = advancing(inputs, optimizer.SGD(), inputs.normal(1, rows * columns))
    return run, [state.norm, state.scalars]


def update(law):
    def make(inputs, rows, columns):
        size = rows * columns
        theta, g = inputs.normal(1, size), inputs.normal(1, size, scale=0.1, offset=1)
        slots = [inputs.zeros(1, size) if used else None for used in law.slots().values()]
        hyper, t = inputs.real_array(law.hyper(1)), inputs.put(np.ones(1, np.int64))
        scalars = inputs.real_array([[1, 1, law.lr, 1]])

        def run():
            inputs.ops.update(law.family, theta, g, slots, scalars, hyper, t, size)

        return run, [theta, *(slot for slot in slots if slot is not None)]

    return make


def motion(inputs, law, theta, g):
    """The whole step of an optimiser, `advance` and `update`, of theta (1, P)."""
    advance_it, state = advancing(inputs, law, g)
    slots = [inputs.zeros(*theta.shape) if used else None for used in law.slots().values()]
    hyper = inputs.real_array(law.hyper(1))

    def run():
        advance_it()
        inputs.ops.update(
            law.family, theta, g, slots, state.scalars, hyper, state.t, theta.shape[1]
        )

    return run


def gather(inputs, rows, columns):
    x = inputs.normal(1, rows, columns)
    order = inputs.put(np.random.default_rng(1).permutation(rows).astype(np.int32)[None])
    cursor, out = inputs.zeros(1, dtype=np.int64), inputs.zeros(1, rows, columns)
    w, w_sum = inputs.zeros(1, rows), inputs.zeros(1)
    data, batch = Data(x, None, None, None), Batch(out, None, None, w, w_sum)
    return lambda: inputs.ops.gather(data, order, cursor, rows, batch), [out, w, w_sum]


def shuffle_keys(inputs, rows, columns):
    seeds, given = inputs.put(np.arange(1, dtype=np.uint64)), []

    def run():
        given[:] = [inputs.ops.shuffle_keys(seeds, 1, rows * columns)]

    return run, given


CASES = (
    Case("activate relu", "forward.cu", 2, 1024, activate("relu")),
    Case("activate tanh", "forward.cu", 2, 1024, activate("tanh")),
    Case("activate gelu", "forward.cu", 3, 1024, activate("gelu")),
    Case("activate softmax", "rows.cu", 2, 1024, activate("softmax")),
    Case("backprop relu", "backward.cu", 3, 1024, backprop("relu")),
    Case("backprop tanh", "backward.cu", 3, 1024, backprop("tanh")),
    Case("backprop gelu", "backward.cu", 3, 1024, backprop("gelu")),
    Case("backprop identity", "backward.cu", 1, 1024, backprop("identity")),
    Case("loss cross_entropy", "losses.cu", 2, 1024, loss("cross_entropy", "softmax", True)),
    Case("loss, 10 classes", "losses.cu", 2, 10, loss("cross_entropy", "softmax", True), False),
    Case("loss squared_error", "losses.cu", 3, 1024, loss("squared_error", "identity", False)),
    Case("advance", "update.cu", 1, 1024, advance),
    Case("update SGD", "update.cu", 3, 1024, update(optimizer.SGD())),
    Case("update momentum", "update.cu", 5, 1024, update(optimizer.SGD(momentum=0.9))),
    Case("update RMSprop", "update.cu", 5, 1024, update(optimizer.RMSprop())),
    Case("update Adam", "update.cu", 7, 1024, update(optimizer.Adam())),
    Case("gather", "gather.cu", 2, 1024, gather),
    Case("gather, short rows", "gather.cu", 2, 20, gather, False),
    Case("shuffle_keys", "shuffle.cu", 2, 1, shuffle_keys, False),  # 8 bytes
)


def stated(kernel: str) -> str:
    """What the header of kernels/<kernel> says of bytes: the paragraph that begins with them."""
    comment = re.findall(r"^//(.*)$", sources.text(kernel), re.MULTILINE)
    for paragraph in "\n".join(line.strip() for line in comment).split("\n\n"):
        if paragraph.startswith("Bytes per "):
            return " ".join(paragraph.split())
    raise LookupError(f"kernels/{kernel} does not state the bytes that it moves")


def check(case: Case, ops) -> float:
    """The largest relative error of a small run in float32, against NumPy in float64."""
    with ops.on_device():
        run, outputs = case.make(Inputs(ops), CHECKED_ROWS, case.columns)
        run()
        found = [ops.to_host(array).astype(np.float64) for array in outputs]
    reference_run, reference = case.make(Inputs(NumpyOps(), np.float64), CHECKED_ROWS, case.columns)
    reference_run()
    return max(
        float(np.abs(a - b).max() / max(np.abs(b).max(), np.finfo(np.float32).tiny))
        for a, b in zip(found, reference, strict=True)
    )


def copy_bandwidth(ops, elements: int, repeats: int) -> float:
    """Bytes per second, read and written, of copying a buffer of float32."""
    with ops.on_device():
        source = Inputs(ops).normal(elements)
        target = ops.xp.empty(source.shape, source.dtype)
        seconds = clock.times(ops, lambda: ops.xp.copyto(target, source), repeats)
    return 2 * source.nbytes / statistics.median(seconds)


def moved(case: Case, rows: int) -> int:
    """The bytes that so many rows in float32 must move."""
    return case.reals * np.dtype(np.float32).itemsize * rows * case.columns


def measure(case: Case, ops, size: str) -> dict[str, Any]:
    """Checks the answer, then measures the copy and the operation: seconds, bytes, bandwidth,
    copy_bandwidth and their ratio, or an error."""
    record: dict[str, Any] = {"name": case.name, "columns": case.columns, "error": None}
    record["stated"], record["streams"] = stated(case.kernel), case.streams
    record["difference"] = by = check(case, ops)
    if not by < TOLERANCE:
        return record | {"error": f"wrong by {by:.1e}, at most {TOLERANCE:g} is allowed"}
    elements, repeats = ELEMENTS[size], REPEATS[size]
    copy = copy_bandwidth(ops, elements, repeats)
    with ops.on_device():
        rows = math.ceil(elements / case.columns)
        run, _ = case.make(Inputs(ops), rows, case.columns)
        seconds = clock.times(ops, run, repeats)
    achieved = moved(case, rows) / statistics.median(seconds)
    return record | {
        "seconds": seconds,
        "bytes": moved(case, rows),
        "bandwidth": achieved,
        "copy_bandwidth": copy,
        "ratio": achieved / copy,
    }


def run(bench):
    """Each operation's record."""
    ops = backend.get(bench.device)
    size = "quick" if bench.quick else bench.device.partition(":")[0]
    for case in CASES:
        if (bench.operation or "") not in case.name:
            continue
        try:
            yield measure(case, ops, size)
        except Exception as error:
            traceback.print_exc()
            yield {"name": case.name, "error": f"{type(error).__name__}: {error}"}


def tables(records: list[dict], device: str) -> list[Table]:
    rows, notes = [], []
    for record in records:
        if record["error"]:
            notes.append(f"{record['name']} failed: {record['error']}")
            continue
        goal = f"{GOAL:g}" if record["streams"] and device != "cpu" else ""
        per_second = (f"{record[key] / 1e9:.3g} GB/s" for key in ("bandwidth", "copy_bandwidth"))
        rows.append([record["name"], *per_second, f"{record['ratio']:.2f}", goal])
    heads = ["", "achieved", "copy", "ratio", "goal"]
    title = f"Operations, float32, {device}: bytes that must move / median time, against a copy"
    return [Table(title, heads, rows, notes)] if records else []
