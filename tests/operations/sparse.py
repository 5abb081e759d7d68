"""Sparse rows: their products, minibatches of them, and updates of the features that occur.

The numbers are those of dense rows, which are written out here one non-zero after the other.
"""

import dataclasses

import numpy as np

from gpumlp.backend.contract import Batch, Data, Factors, Occurring
from gpumlp.backend.layout import ALIGNMENT
from gpumlp.backend.sparse_rows import SparseRows
from gpumlp.functions.optimizer import HYPERS
from tests.oracle import formulas

from . import Wide, assert_close, assert_same, empty, random, rounded, send
from .updates import make_optimizer, of_network

# How the rows of a batch are named: by numbers that all networks share or that each has of its own,
# or as they stand, all of them or those behind the first.
NAMED = ("shared", "own", "all", "slice")
BEFORE = 3  # the rows before a slice


def make_rows(dtype, rows, width, seed=0):
    """Rows in CSR form, on the host: columns in any order, some rows empty, some long.

    Most have one column, and none another: the first or the last.
    """
    rng = np.random.default_rng([seed, rows, width])
    columns, popular = [], 0 if seed % 2 else width - 1
    for row in range(rows):
        count = min({4: 0, 6: 70}.get(row % 7, rng.integers(10)), width - 2)
        own = 1 + rng.choice(width - 2, count, replace=False)
        own = np.append(own, popular) if count and row % 5 else own
        columns.append(rng.permutation(own))
    starts = np.concatenate(([0], np.cumsum([len(each) for each in columns]))).astype(np.int64)
    values = rng.standard_normal(starts[-1]).astype(dtype)
    values[5::11] = 0  # which are stored, too
    return SparseRows(values, np.concatenate(columns).astype(np.int32), starts, width)


def dense(rows: SparseRows):
    """The rows (R, N_0) in float64, and which of their elements are stored."""
    x = np.zeros((len(rows.starts) - 1, rows.width))
    stored = np.zeros(x.shape, bool)
    for row in range(len(x)):
        for j in range(rows.starts[row], rows.starts[row + 1]):
            x[row, rows.columns[j]] += rows.values[j]
            stored[row, rows.columns[j]] = True
    return x, stored


def sent(ops, rows: SparseRows, numbers=None):
    """The rows on the device."""
    arrays = (send(ops, array) for array in (rows.values, rows.columns, rows.starts))
    return SparseRows(*arrays, rows.width, numbers)


def pick(rows, array):
    """Rows of a dense array by their numbers (1 or M, B); zeros for -1."""
    return np.where((rows >= 0)[..., None], array[rows], 0)


class Picked:
    """A batch of the rows of a data set, sparse on the device and dense on the host."""

    def __init__(self, ops, data: SparseRows, named, models, count, seed=0):
        x, stored = dense(data)
        rng, on_device = np.random.default_rng([count, seed]), sent(ops, data)
        if named in ("shared", "own"):
            numbers = rng.integers(0, len(x), (1 if named == "shared" else models, count))
            numbers[rng.random(numbers.shape) < 0.1] = -1
            numbers[:, count // 2] = -1
            # As a part of wider rows, as where a batch is shared out among threads.
            whole = np.full((len(numbers), count + 5), -7)
            whole[:, 2 : count + 2] = numbers
            part = send(ops, whole, np.int32)[:, 2 : count + 2]
            self.rows = dataclasses.replace(on_device, numbers=part)
        else:
            first = BEFORE if named == "slice" else 0
            numbers = first + np.arange(count)[None]
            self.rows = on_device.slice(first, first + count) if first else on_device
        shape = models, count, data.width
        self.x = np.broadcast_to(pick(numbers, x), shape)
        self.occurs = np.broadcast_to(pick(numbers, stored) != 0, shape).any(axis=1)


def make_data(dtype, named, rows, width, seed=0):
    return make_rows(dtype, rows + {"all": 0, "slice": BEFORE + 2}.get(named, 20), width, seed)


# ------------------------------------------------------------------ the products


def check_product(ops, dtype, models, named, shape, width=300):
    """out <- x WT for `shape` (rows, units)."""
    rows, units = shape
    batch = Picked(ops, make_data(dtype, named, rows, width), named, models, rows)
    WT = rounded(random(models, width, units, seed=51), dtype)
    wide, out = Wide(ops, WT, dtype), empty(ops, (models, rows, units), dtype)
    ops.sparse_product(batch.rows, wide.view, out)
    assert_close(ops, out, batch.x @ WT, dtype, 10, f"{named} {shape}")
    assert_same(ops, wide.view, WT)


def check_gradient(ops, dtype, models, named, shape, width=300):
    """out <- x^T delta three times, of batches that differ; first into what is not 0."""
    rows, units = shape
    occurs = (np.arange(models * width) % 3 == 0).reshape(models, width)
    dirty = np.where(occurs[..., None], np.full((models, width, units), np.nan), 0)
    out = Wide(ops, dirty, dtype)
    occurring = send(ops, 1 * occurs, np.uint8)
    for step in range(3):
        data = make_data(dtype, named, rows, width, seed=step)
        batch = Picked(ops, data, named, models, rows, seed=step)
        delta = rounded(random(models, rows, units, seed=52 + step), dtype)
        ops.sparse_gradient(batch.rows, send(ops, delta, dtype), occurring, out.view)
        what = f"step {step}, {named} {shape}"
        assert_same(ops, occurring, 1 * batch.occurs, what)
        expected = batch.x.swapaxes(1, 2) @ delta
        assert_close(ops, out.view, expected, dtype, 3 * np.sqrt(rows), what)
        absent = ops.to_host(out.view)[~batch.occurs]
        assert (absent == 0).all(), f"a feature that does not occur has a gradient: {what}"
    out.assert_untouched_outside()


def check_no_nonzeros(ops, dtype, models, rows=37, units=37, width=300):
    """Of rows without any, of padding alone: z is 0, the gradient becomes 0."""
    data = make_rows(dtype, 20, width)
    nothing = SparseRows(data.values[:0], data.columns[:0], np.zeros(rows + 1, np.int64), width)
    padding = send(ops, np.full((models, rows), -1), np.int32)
    for batch in sent(ops, nothing), sent(ops, data, padding):
        out = empty(ops, (models, rows, units), dtype)
        ops.sparse_product(batch, empty(ops, (models, width, units), dtype), out)
        assert_same(ops, out, np.zeros(out.shape))
        occurs = send(ops, np.ones((models, width)), np.uint8)
        gradient = empty(ops, (models, width, units), dtype)
        ops.sparse_gradient(batch, empty(ops, out.shape, dtype), occurs, gradient)
        assert_same(ops, gradient, np.zeros(gradient.shape))
        assert_same(ops, occurs, np.zeros(occurs.shape))


def check_order(ops, dtype, rows=70, units=37):
    """A feature's non-zeros are added in the order of the rows: 1 beside a large number is lost."""
    large = 2.0**30 if dtype == "float32" else 2.0**60
    values = np.zeros(rows)
    values[[3, 20, 30, 65]] = large, -large, 1, 2
    starts, columns = np.arange(rows + 1), np.zeros(rows, np.int32)
    batch = sent(ops, SparseRows(values.astype(dtype), columns, starts, 5))
    delta = send(ops, np.ones((1, rows, units)), dtype)
    out, occurs = send(ops, np.zeros((1, 5, units)), dtype), send(ops, np.zeros((1, 5)), np.uint8)
    ops.sparse_gradient(batch, delta, occurs, out)
    assert_same(ops, out[:, 0], np.full((1, units), 3))


# ------------------------------------------------------------------ minibatches


def check_gather(ops, dtype, models, targets="labels", weighted=True, shared=False, rows=70):
    """The numbers of the rows, with targets and weights, at different places of the epoch."""
    networks, count, outputs = 1 if shared else models, rows + 20, 3
    rng = np.random.default_rng(rows)
    data = make_rows(dtype, count, 300)
    labels = rng.integers(0, 10, (networks, count)) if targets == "labels" else None
    values = rng.random((networks, count, outputs)).astype(dtype) if targets == "dense" else None
    weight = rng.random((networks, count)).astype(dtype) if weighted else None
    order = np.stack([rng.permutation(3 * count) % count for _ in range(networks)])
    order[:, 5] = order[:, rows - 1] = order[:, rows + 3] = -1
    cursor = np.array([1, 0, 2])[:models]
    places = cursor[:, None] * rows + np.arange(rows)
    own = np.zeros((models, 1), int) if shared else np.arange(models)[:, None]
    index = order[own, places]

    x = sent(ops, data)
    numbers = send(ops, np.full((models, rows), -7), np.int32)
    out = Batch(
        x=dataclasses.replace(x, numbers=numbers),
        labels=None if labels is None else send(ops, np.full((models, rows), -7), np.int32),
        dense=None if values is None else empty(ops, (models, rows, outputs), dtype),
        w=empty(ops, (models, rows), dtype),
        w_sum=empty(ops, (models,), dtype),
    )
    given = Data(
        x,
        None if labels is None else send(ops, labels, np.int32),
        None if values is None else send(ops, values),
        None if weight is None else send(ops, weight),
    )
    ops.gather(given, send(ops, order, np.int32), send(ops, cursor, np.int64), rows, out)
    used = index >= 0
    w = np.where(used, 1 if weight is None else weight[own, index], 0).astype(dtype)
    assert_same(ops, numbers, index, "numbers")
    assert_same(ops, out.w, w, "w")
    assert_close(ops, out.w_sum, w.astype(np.float64).sum(axis=1), dtype, 10, "w_sum")
    if labels is not None:
        np.testing.assert_array_equal(ops.to_host(out.labels)[used], labels[own, index][used])
    if values is not None:
        np.testing.assert_array_equal(ops.to_host(out.dense)[used], values[own, index][used])


# ------------------------------------------------------------------ the update

CASES = [
    ("Adam", {"lr": 0.1, "beta1": (0.9, 0.8, 0.0), "eps": 1e-3, "l2": 0.5}),
    ("SGD", {"lr": (0.1, 0.2, 0.3), "momentum": (0.9, 0.5, 0.7), "l1": 0.1}),
    ("SGD", {"lr": (0.1, 0.2, 0.3)}),
    ("AdamW", {"lr": 0.1, "weight_decay": (0.5, 0.0, 2.0), "eps": 1e-3, "l2": 0.2}),
]


class Buffers:
    """theta (M, P), which begins with W^T of so many features and units; 1000 and more follow."""

    def __init__(self, ops, dtype, models, name, numbers, units, features):
        aligned = ALIGNMENT // np.dtype(dtype).itemsize
        self.weights = features * units
        self.decayed = -(-self.weights // aligned) * aligned + 10 * aligned
        self.size = self.decayed + 30 * aligned
        self.ops, self.dtype, self.models = ops, dtype, models
        self.optimizer = make_optimizer(name, numbers, models)
        self.units, self.features = units, features
        self.hyper = self.optimizer.hyper(models)
        self.stopped_at = send(ops, np.zeros(models), np.int64)

    def moving(self, occurs):
        """Which parameters may move (M, P)."""
        moving = np.ones((self.models, self.size), bool)
        moving[:, : self.weights] = np.repeat(occurs, self.units, axis=1)
        return moving

    def send(self, theta, states=None):
        in_use = self.optimizer.state_buffers().values()
        states = [np.zeros_like(theta)] * len(in_use) if states is None else states
        self.theta = send(self.ops, theta, self.dtype)
        self.states = [
            send(self.ops, state, self.dtype) if used else None
            for state, used in zip(states, in_use, strict=True)
        ]

    def update(self, g, t, occurs, decayed, factors=None):
        ops, models, dtype = self.ops, self.models, self.dtype
        lr = self.hyper[:, HYPERS.index("LR")]
        scalars = np.stack((np.ones(models), np.ones(models), lr, np.ones(models)), axis=1)
        ops.update(
            *(self.optimizer.family, self.theta, send(ops, g, dtype), self.states),
            *(send(ops, scalars, dtype), send(ops, self.hyper, dtype)),
            *(send(ops, np.full(models, t), np.int64), self.stopped_at, decayed, factors),
            Occurring(send(ops, 1 * occurs, np.uint8), self.units),
        )


def draw_features(models, features, seed=0):
    """Some that occur, alone and several together; not the last of all."""
    rng = np.random.default_rng([models, features, seed])
    occurs = np.repeat(rng.random((models, features)) < 0.4, 3, axis=1)[:, :features]
    occurs ^= rng.random(occurs.shape) < 0.1
    occurs[:, -1] = False
    return occurs


def check_update(ops, dtype, models, name, numbers, units=37, features=301, factors=False):
    """Three steps: what moves does so as t counts all steps, and what stays keeps its state."""
    own = Buffers(ops, dtype, models, name, numbers, units, features)
    theta = rounded(random(models, own.size, seed=61), dtype)
    ends = np.array([own.decayed - 32, own.size])
    rate, decay = np.array([0.5, 2.0]), np.array([1.0, 0.25])
    rule = Factors(*(send(ops, a) for a in (ends, rate.astype(dtype), decay.astype(dtype))))
    own.send(theta)

    steps = [
        (rounded(random(models, own.size, seed=62 + t), dtype), draw_features(models, features, t))
        for t in (1, 2, 3)
    ]
    for t, (g, occurs) in enumerate(steps, 1):
        own.update(g, t, occurs, own.decayed, rule if factors else None)

    expected = theta.copy()
    slices = np.split(np.arange(own.size), ends[:-1] if factors else [own.decayed])
    for m in range(models):
        for s, part in enumerate(slices):
            arguments = {key: of_network(value, m) for key, value in numbers.items()}
            arguments["lr"] *= rate[s] if factors else 1
            share = decay[s] if factors else 1 - s
            for key in {"l1", "l2", "weight_decay"} & arguments.keys():
                arguments[key] *= share
            values, state = expected[m, part], {}
            reference = getattr(formulas, name)(**arguments)
            for g, occurs in steps:
                before = values.copy()
                reference.step([values], [g[m, part]], [True])
                stays = ~own.moving(occurs)[m, part]
                values[stays] = before[stays]
                for key, new in reference.states[0].items():
                    new = np.array(new)
                    new[stays] = state.get(key, np.zeros(len(part)))[stays]
                    reference.states[0][key] = state[key] = new
            expected[m, part] = values
    assert_close(ops, own.theta, expected, dtype, 100, f"{name}, {units} units")
    assert_same(ops, own.stopped_at, np.zeros(models, np.int64))
    never = ~np.logical_or.reduce([own.moving(occurs) for _, occurs in steps])
    assert never.any()
    np.testing.assert_array_equal(ops.to_host(own.theta)[never], theta[never])
    for state in own.states:
        assert state is None or (ops.to_host(state)[never] == 0).all()


def check_overflow(ops, dtype, models, name, numbers, units=37, features=301):
    """What overflows stops a network only if it may move; what does not occur stays, to the bit."""
    largest = np.finfo(dtype).max
    own = Buffers(ops, dtype, models, name, numbers, units, features)
    occurs = draw_features(models, features)
    occurs[:, 4:6] = [False, True]
    theta, g = (random(models, own.size, seed=seed).astype(dtype) for seed in (66, 67))
    in_use = own.optimizer.state_buffers()
    states = np.abs(random(len(in_use), models, own.size, seed=68)).astype(dtype)
    absent = ~own.moving(occurs)
    theta[absent], g[absent] = largest, -largest
    g[:, 4 * units] = np.nan

    def check(*stay):
        """That all is as it was where nothing moves, and at these places."""
        own.send(theta, states)
        own.update(g, 3, occurs, own.decayed)
        stays = absent.copy()
        stays[:, stay] = True
        used = [state for state, is_used in zip(states, in_use.values(), strict=True) if is_used]
        held = [state for state in own.states if state is not None]
        for after, before in zip([own.theta, *held], [theta, *used], strict=True):
            after = ops.to_host(after)
            np.testing.assert_array_equal(after[stays], before[stays])
            assert (after[~stays] != before[~stays]).mean() > 0.99

    check()
    assert_same(ops, own.stopped_at, np.zeros(models, np.int64))
    theta[:, 5 * units], g[:, 5 * units] = largest, -largest
    check(5 * units)
    assert_same(ops, own.stopped_at, np.full(models, 3))
