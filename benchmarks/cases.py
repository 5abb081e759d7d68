"""The operations that are measured, each with the bytes that it must move and its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gpumlp import losses
from gpumlp.backend import sources
from gpumlp.backend.contract import Batch, Data, State, Targets
from gpumlp.functions import optimizer
from gpumlp.functions.activation import activations
from gpumlp.functions.loss import pair

TALLIED = 1 << 10  # batches, more than a measurement makes


class Case(NamedTuple):
    """An operation on rows of so many columns.

    make(inputs, rows, columns) gives the call and the arrays that it writes; bytes: moved by each
    element, as kernels/<kernel> says; streams: contiguous, so that it should be as fast as a copy;
    narrow: arrays that may be in bfloat16 are, as on a GPU only.
    """

    name: str
    kernel: str
    bytes: int
    columns: int
    make: Callable
    streams: bool = True
    narrow: bool = False


class Inputs:
    """Reproducible arrays on the device of `ops`, as float32 or, with the same values, float64.

    narrow: some are in bfloat16, in float32 as its bits, the upper half of a float32; in float64 as
    the values that these stand for.
    """

    def __init__(self, ops, real=np.float32, narrow=False):
        self.ops, self.real = ops, np.dtype(real)
        self._drawn = np.random.default_rng(0).standard_normal(1 << 16, dtype=np.float32)
        self.narrow = narrow
        self.bits = narrow and self.real == np.float32

    def normal(self, *shape, scale=1.0, offset=0):
        """Normal numbers; they repeat, each array from another place."""
        return self.put(self._numbers(shape, scale, offset).astype(self.real))

    def stored(self, *shape, scale=1.0, offset=0):
        """The same, in bfloat16 if it is to be."""
        numbers = self._numbers(shape, scale, offset)
        if not self.narrow:
            return self.put(numbers.astype(self.real))
        bits = numbers.view(np.uint32) >> np.uint32(16)
        if self.bits:
            return self.put(bits.astype(np.uint16))
        return self.put((bits << np.uint32(16)).view(np.float32).astype(self.real))

    def _numbers(self, shape, scale, offset):
        return np.resize(np.roll(self._drawn, offset), shape) * np.float32(scale)

    def real_array(self, values):
        return self.put(np.asarray(values, dtype=self.real))

    def zeros(self, *shape, dtype=None):
        return self.ops.xp.zeros(shape, dtype or self.real)

    def stored_zeros(self, *shape):
        return self.zeros(*shape, dtype=np.uint16 if self.bits else None)

    def put(self, array):
        return self.ops.to_device(array)


def activate(name: str):
    def make(inputs, rows, columns):
        f = activations[name]
        z, b = inputs.stored(1, rows, columns), inputs.normal(1, columns, scale=0.01, offset=1)
        n, p = inputs.stored_zeros(1, rows, columns), inputs.real_array([[*f.p, 0.0, 0.0][:2]])
        return lambda: inputs.ops.activate(f, z, b, n, p), [n]

    return make


def backprop(name: str):
    def make(inputs, rows, columns):
        f = activations[name]
        z, n = inputs.stored(1, rows, columns), inputs.stored(1, rows, columns, offset=1)
        delta, db = inputs.stored(1, rows, columns, offset=2), inputs.zeros(1, columns)
        p = inputs.real_array([[*f.p, 0.0, 0.0][:2]])
        return lambda: inputs.ops.backprop(f, z, n, delta, db, p), [delta, db]

    return make


def scale(inputs, rows, columns):
    V, s = inputs.normal(1, rows, columns), inputs.normal(1, columns, offset=1)
    out = inputs.stored_zeros(1, rows, columns)
    return lambda: inputs.ops.scale(V, s, out), [out]


def scale_gradient(inputs, rows, columns):
    G, V = inputs.normal(1, rows, columns), inputs.normal(1, rows, columns, offset=1)
    s, ds = inputs.normal(1, columns, offset=2), inputs.zeros(1, columns)
    return lambda: inputs.ops.scale_gradient(G, V, s, ds), [G, ds]


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
        p, delta = inputs.real_array([[*chosen.p, 0.0]]), inputs.stored_zeros(1, rows, columns)
        value, its_pair = inputs.zeros(1), pair(chosen, f)

        def run():
            inputs.ops.loss(its_pair, u, b, targets, w, w_sum, True, p, delta, value)

        return run, [delta, value]

    return make


def advancing(inputs, law, g):
    """The call of `prepare_update` for this gradient, and the state that it writes."""
    hyper = inputs.real_array(law.hyper(1))
    state = State(
        *(inputs.zeros(1, dtype=np.int64) for _ in ("t", "stopped_at", "cursor")),
        losses=inputs.zeros(1, 1),
        weights=inputs.zeros(1, 1),
        norm=inputs.zeros(1),
        scalars=inputs.zeros(1, len(sources.SCALARS)),
    )
    value, w_sum = inputs.real_array([1]), inputs.real_array([1])
    first_rate = inputs.zeros(1, dtype=np.int64)

    def run():
        inputs.ops.prepare_update(g, value, w_sum, hyper, None, first_rate, state)

    return run, state


def prepare_update(inputs, rows, columns):
    run, state = advancing(inputs, optimizer.SGD(), inputs.normal(1, rows * columns))
    return run, [state.norm, state.scalars]


def update(law):
    def make(inputs, rows, columns):
        size = rows * columns
        theta, g = inputs.normal(1, size), inputs.normal(1, size, scale=0.1, offset=1)
        state_buffers = [
            inputs.zeros(1, size) if used else None for used in law.state_buffers().values()
        ]
        hyper, t = inputs.real_array(law.hyper(1)), inputs.put(np.ones(1, np.int64))
        scalars = inputs.real_array([[1, 1, law.lr, 1]])
        stopped_at = inputs.zeros(1, dtype=np.int64)

        def run():
            inputs.ops.update(
                law.family, theta, g, state_buffers, scalars, hyper, t, stopped_at, size
            )

        return run, [theta, *(slot for slot in state_buffers if slot is not None)]

    return make


def motion(inputs, law, theta, g):
    """The whole step of an optimiser, `prepare_update` and `update`, of theta (1, P)."""
    advance_it, state = advancing(inputs, law, g)
    state_buffers = [
        inputs.zeros(*theta.shape) if used else None for used in law.state_buffers().values()
    ]
    hyper = inputs.real_array(law.hyper(1))

    def run():
        advance_it()
        now = state.scalars, hyper, state.t, state.stopped_at
        inputs.ops.update(law.family, theta, g, state_buffers, *now, theta.shape[1])

    return run


def gather(inputs, rows, columns):
    x = inputs.normal(1, rows, columns)
    order = inputs.put(np.random.default_rng(1).permutation(rows).astype(np.int32)[None])
    cursor, out = inputs.zeros(1, dtype=np.int64), inputs.stored_zeros(1, rows, columns)
    w, w_sum = inputs.zeros(1, rows), inputs.zeros(1)
    data, batch = Data(x, None, None, None), Batch(out, None, None, w, w_sum)
    return lambda: inputs.ops.gather(data, order, cursor, rows, batch), [out, w, w_sum]


def shuffle(inputs, rows, columns):
    seeds = inputs.put(np.arange(1, dtype=np.uint64))
    order = inputs.zeros(1, rows * columns, dtype=np.int32)
    return lambda: inputs.ops.shuffle(seeds, 1, order), [order]


def accumulate_metrics(inputs, rows, columns):
    n = inputs.normal(1, rows, columns)
    labels = inputs.put((np.arange(rows, dtype=np.int32) % columns)[None])
    w, w_sum = inputs.real_array(np.ones((1, rows))), inputs.real_array([rows])
    cursor, sums = inputs.zeros(1, dtype=np.int64), inputs.zeros(TALLIED, 1, 3)
    targets, value = Targets(labels, None, 1.0, 0.0), inputs.real_array([1])

    def run():
        inputs.ops.accumulate_metrics(n, targets, w, w_sum, value, True, None, cursor, sums)

    return run, [sums]


def narrow(inputs, rows, columns):
    a, out = inputs.normal(1, rows * columns), inputs.stored_zeros(1, rows * columns)
    if not inputs.bits:  # a reference
        return lambda: np.copyto(out, a), [out]
    return lambda: inputs.ops.cast_bf16(a, out), [out]


CASES = (
    Case("activate relu", "forward.cu", 8, 1024, activate("relu")),
    Case("activate tanh", "forward.cu", 8, 1024, activate("tanh")),
    Case("activate gelu", "forward.cu", 12, 1024, activate("gelu")),
    Case("activate sigmoid", "forward.cu", 8, 1024, activate("sigmoid")),
    Case("activate relu, bf16", "forward.cu", 4, 1024, activate("relu"), narrow=True),
    Case("activate gelu, bf16", "forward.cu", 6, 1024, activate("gelu"), narrow=True),
    Case("activate softmax", "rows.cu", 8, 1024, activate("softmax")),
    Case("backprop relu", "backward.cu", 12, 1024, backprop("relu")),
    Case("backprop tanh", "backward.cu", 12, 1024, backprop("tanh")),
    Case("backprop gelu", "backward.cu", 12, 1024, backprop("gelu")),
    Case("backprop sigmoid", "backward.cu", 12, 1024, backprop("sigmoid")),
    Case("backprop identity", "backward.cu", 4, 1024, backprop("identity")),
    Case("backprop relu, bf16", "backward.cu", 6, 1024, backprop("relu"), narrow=True),
    Case("scale", "scale.cu", 8, 1024, scale),
    Case("scale, bf16", "scale.cu", 6, 1024, scale, narrow=True),
    Case("scale_gradient", "scale.cu", 12, 1024, scale_gradient),
    Case("loss cross_entropy", "losses.cu", 8, 1024, loss("cross_entropy", "softmax", True)),
    Case("loss, 10 classes", "losses.cu", 8, 10, loss("cross_entropy", "softmax", True), False),
    Case("loss squared_error", "losses.cu", 12, 1024, loss("squared_error", "identity", False)),
    Case(
        "loss cross_entropy, bf16",
        "losses.cu",
        6,
        1024,
        loss("cross_entropy", "softmax", True),
        narrow=True,
    ),
    Case("accumulate_metrics", "accumulate_metrics.cu", 4, 1024, accumulate_metrics),
    Case("cast_bf16", "cast_bf16.cu", 6, 1024, narrow, narrow=True),
    Case("prepare_update", "prepare_update.cu", 4, 1024, prepare_update),
    Case("update SGD", "update.cu", 12, 1024, update(optimizer.SGD())),
    Case("update momentum", "update.cu", 20, 1024, update(optimizer.SGD(momentum=0.9))),
    Case("update RMSprop", "update.cu", 20, 1024, update(optimizer.RMSprop())),
    Case("update Adam", "update.cu", 28, 1024, update(optimizer.Adam())),
    Case("gather", "gather.cu", 8, 1024, gather),
    Case("gather, bf16", "gather.cu", 6, 1024, gather, narrow=True),
    Case("gather, short rows", "gather.cu", 8, 20, gather, False),
    Case("shuffle", "shuffle.cu", 20, 1, shuffle, False),
)

# Kernels that are no operation on arrays but whole steps of training: the part of the suite that
# measures them.
WHOLE_STEPS = {"persistent.cu": "stacks"}


def chosen(device: str, name: str = "") -> list[Case]:
    """Those whose name contains this, on this device."""
    found = [case for case in CASES if name in case.name]
    return [case for case in found if device != "cpu" or not case.narrow]
