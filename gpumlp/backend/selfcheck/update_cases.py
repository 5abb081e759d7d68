"""The cases of prepare_update, update, gather, accumulate_metrics and shuffle."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from gpumlp.backend.contract import Batch, Data, Factors, Occurring, State, Targets
from gpumlp.backend.selfcheck.case import DTYPES, LOOSE, MODELS, Case, Side, case
from gpumlp.backend.sources import SOURCE
from gpumlp.functions.optimizer import (
    HYPERS,
    SGD,
    Adam,
    AdamW,
    Optimizer,
    RMSprop,
    examples,
)


def cases() -> Iterator[Case]:
    yield from _updates()
    yield from _minibatches()


# ------------------------------------------------------------------ the update


SIZE, MANY = 1056, 100_000  # parameters; so many that a thread takes several packs of them


def prepare_update(side: Side, penalty: bool, size=SIZE):
    """Two steps; the gradient of one network is clipped, that of another becomes NaN."""
    decayed, steps = size - 32, 4
    hyper = np.zeros((MODELS, len(HYPERS)))
    numbers = {
        "LR": [0.1, 0.2, 0.3],
        "CLIP_NORM": [2.0, 0.0, 1e4],
        "L1": [0.01, 0.01, 0.0],
        "L2": [0.5, 0.0, 0.5],
        "DECAY_PER_WEIGHT": [1.0, 0.0, 1.0],
    }
    for name, values in numbers.items():
        hyper[:, HYPERS.index(name)] = values
    state = State(
        t=side.send([4, 6, 5], np.int64),
        stopped_at=side.send(np.zeros(MODELS), np.int64),
        cursor=side.send(np.full(MODELS, 2), np.int64),
        losses=side.empty(steps, MODELS),
        weights=side.empty(steps, MODELS),
        norm=side.empty(MODELS),
        scalars=side.empty(MODELS, 4),
    )
    g, theta = side.rng.standard_normal((2, MODELS, size))
    rates, first_rate = side.send(1 / np.arange(2, 9)), side.send([4], np.int64)
    last = (side.send(theta), decayed) if penalty else (None, 0)
    for step in range(2):
        g[1, 700] = np.nan if step else g[1, 700]
        value, w_sum = side.send([1.5, 2.5, 3.5]), side.send([2.0, 3.0, 4.0])
        sent = side.send(g), value, w_sum, side.send(hyper)
        side.ops.prepare_update(*sent, rates, first_rate, state, *last)
    # A network that stands still has no clipping factor worth comparing.
    scalars = side.read(state.scalars) * np.array([[1], [0], [1]])
    return [scalars] + [getattr(state, field.name) for field in dataclasses.fields(state)[:-1]]


def update(side: Side, optimizer: Optimizer, size=SIZE, factors=False, occurring=False):
    """Two steps from an empty state; one network stands still.

    occurring: of 23 features with 37 units, which those of the first parameters are.
    """
    decayed = size - 32
    theta, used = side.normal(MODELS, size), optimizer.state_buffers().values()
    state_buffers = [side.send(np.zeros((MODELS, size))) if in_use else None for in_use in used]
    scalars = [[1, 0.5, 0.1, 1], [0, 1, 0.1, 1], [1, 1, 0.2, 0.25]]
    of_slices = None
    if factors:
        ends = [32, 96, size // 2, size - 32, size]
        rate, decay = [1.0, 0.25, 0.0, 2.0, 0.5], [1.0, 0.0, 0.5, 2.0, 1.0]
        of_slices = Factors(side.send(ends, np.int64), side.send(rate), side.send(decay))
    hyper, stopped_at = side.send(optimizer.hyper(MODELS)), side.send(np.zeros(MODELS), np.int64)
    for t in (1, 2):
        step = side.send(np.full(MODELS, t), np.int64)
        g = side.normal(MODELS, size)
        now = side.send(scalars), hyper, step, stopped_at
        features = side.send(side.rng.integers(0, 2, (MODELS, 23)), np.uint8)
        which = Occurring(features, 37) if occurring else None
        side.ops.update(optimizer.family, theta, g, state_buffers, *now, decayed, of_slices, which)
    return [theta, *(buffer for buffer in state_buffers if buffer is not None)]


def overflow(side: Side, optimizer: Optimizer, size=SIZE):
    """A step that would carry some parameters of two networks, or their state, out of range; one of
    these stands still.

    What overflows is of the side's own dtype, so that only whether it stays is compared, and apart
    from it the others, which move.
    """
    decayed = size - 32
    places = [0, 1, 38, decayed - 1, decayed, size - 1]
    largest = np.finfo(side.real).max
    theta, g = side.rng.standard_normal((2, MODELS, size)).astype(side.dtype).astype(side.real)
    theta[:2, places], g[:2, places] = largest, -largest
    used = optimizer.state_buffers().values()
    state = np.full((MODELS, size), 0.5)  # far from where √(s − c²) of RMSprop ends
    state_buffers = [side.send(state) if in_use else None for in_use in used]
    moving = side.send(theta, side.real)
    scalars = side.send([[1, 1, 0.1, 0.25], [0, 1, 0.1, 1], [1, 1, 0.1, 0.25]])
    step, stopped_at = side.send([3, 4, 5], np.int64), side.send(np.zeros(MODELS), np.int64)
    now = scalars, side.send(optimizer.hyper(MODELS)), step, stopped_at
    sent = moving, side.send(g, side.real), state_buffers
    side.ops.update(optimizer.family, *sent, *now, decayed)
    arrays = []
    for array in (moving, *(buffer for buffer in state_buffers if buffer is not None)):
        before, after = theta if array is moving else state, side.read(array)
        arrays.append((after == before)[:2, places].astype(np.int64))
        after[:2, places] = 0
        arrays.append(after)
    return [stopped_at, *map(side.ops.to_device, arrays)]


# Of each optimiser whose steps grow with the gradient, with all of its state.
OVERFLOWING: dict[str, Optimizer] = {
    "SGD": SGD(momentum=0.9, nesterov=True, l2=0.5),
    "RMSprop": RMSprop(eps=1e-2, momentum=0.5, centered=True),
    "Adam": Adam(eps=1e-3, l2=0.5),
    "AdamW": AdamW(eps=1e-3, weight_decay=0.5),
}


def _updates() -> Iterator[Case]:
    with_factors = dict(examples())["AdamW"]
    for dtype in DTYPES:
        for what, penalty in (("norm and clipping", False), ("with the penalty", True)):
            yield case(
                "prepare_update", what, dtype, prepare_update, penalty, factor=LOOSE, first=True
            )
        # When a GPU is first used, only the rule that a Trainer takes by default: each other one is
        # a program of its own.
        for what, optimizer in examples():
            first = isinstance(optimizer, Adam)
            yield case("update", what, dtype, update, optimizer, factor=LOOSE, first=first)
        for name, optimizer in OVERFLOWING.items():
            what = f"{name}, what overflows stays, and its network is halted"
            first = isinstance(optimizer, Adam)
            yield case("update", what, dtype, overflow, optimizer, factor=LOOSE, first=first)
        options = {"factors": True, "factor": LOOSE}
        yield case("update", "AdamW, factors", dtype, update, with_factors, **options)
        options = {"occurring": True, "factor": LOOSE}
        yield case("update", "AdamW, features that occur", dtype, update, with_factors, **options)
    options = {"size": MANY, "factor": LOOSE}
    yield case("prepare_update", "many parameters", "float32", prepare_update, True, **options)
    optimizer = dict(examples())["Adam"]
    yield case("update", "Adam, many parameters", "float32", update, optimizer, **options)


# ------------------------------------------------------------------ minibatches


def gather(side: Side, source: str, columns: int, dense: bool = False, shared: bool = False):
    """A batch of each network, at different places of the epoch; some rows are padding."""
    rows, count, networks = 70, 90, 1 if shared else MODELS
    x = (50 * side.rng.standard_normal((networks, count, columns))).clip(0, 127).astype(source)
    y = side.normal(networks, count, 3) if dense else None
    labels = None if dense else side.send(side.rng.integers(0, 9, (networks, count)), np.int32)
    weight = side.send(side.rng.uniform(0.2, 2, (networks, count)))
    order = np.stack([side.rng.permutation(3 * count) % count for _ in range(networks)])
    order[:, [5, rows - 1, rows + 3]] = -1
    out = Batch(
        x=side.blank(MODELS, rows, columns),
        labels=None if dense else side.send(np.zeros((MODELS, rows)), np.int32),
        dense=side.empty(MODELS, rows, 3) if dense else None,
        w=side.empty(MODELS, rows),
        w_sum=side.empty(MODELS),
    )
    data = Data(side.ops.to_device(x), labels, y, weight)
    cursor = side.send([1, 0, 2], np.int64)
    side.ops.gather(data, side.send(order, np.int32), cursor, rows, out)
    counts = side.read(out.w) > 0  # the target of padding may be anything
    target = side.read(out.dense if dense else out.labels)
    return [out.x, np.where(counts[..., None] if dense else counts, target, 0), out.w, out.w_sum]


def gather_sparse(side: Side):
    """A batch of sparse rows: their numbers, with labels and weights."""
    rows, count = 70, 90
    x = side.sparse(count, 300)
    labels = side.send(side.rng.integers(0, 9, (1, count)), np.int32)
    weight = side.send(side.rng.uniform(0.2, 2, (1, count)))
    order = side.rng.integers(-1, count, (1, 3 * rows))
    out = Batch(
        x=dataclasses.replace(x, numbers=side.send(np.full((MODELS, rows), -7), np.int32)),
        labels=side.send(np.zeros((MODELS, rows)), np.int32),
        dense=None,
        w=side.empty(MODELS, rows),
        w_sum=side.empty(MODELS),
    )
    cursor = side.send([1, 0, 2], np.int64)
    given = Data(x, labels, None, weight), side.send(order, np.int32)
    side.ops.gather(*given, cursor, rows, out)
    target = np.where(side.read(out.w) > 0, side.read(out.labels), 0)
    return [out.x.numbers, target, out.w, out.w_sum]


def accumulate_metrics(side: Side, threshold: float | None, dense: bool):
    rows, columns = 37, 5
    sums, cursor = side.send(np.zeros((3, MODELS, 3))), side.send(np.ones(MODELS), np.int64)
    w = side.rng.uniform(0.2, 2, (MODELS, rows))
    weights = side.send(w), side.send(w.sum(axis=1))
    value = side.normal(MODELS)
    n = side.normal(MODELS, rows, columns)
    labels = side.send(side.rng.integers(0, columns, (MODELS, rows)), np.int32)
    y = side.send(side.rng.integers(0, 2, (MODELS, rows, columns)))
    targets = Targets(None, y, 1.0, 0.0) if dense else Targets(labels, None, 1.0, 0.0)
    side.ops.accumulate_metrics(n, targets, *weights, value, True, threshold, cursor, sums)
    side.ops.accumulate_metrics(None, targets, *weights, value, False, threshold, cursor, sums)
    return [sums, cursor]


def shuffle(side: Side, models: int):
    rows, seeds = 1100, side.send(np.arange(models) * 2**33 + 5, np.uint64)
    order = side.send(np.zeros((models, rows)), np.int32)
    side.ops.shuffle(seeds, 9, order)
    return [order]


def _minibatches() -> Iterator[Case]:
    for dtype in DTYPES:
        yield case("gather", "labels", dtype, gather, dtype, 37, first=True)
        yield case("gather", "sparse rows", dtype, gather_sparse)
        yield case("gather", "values, one data set", dtype, gather, dtype, 40, True, True)
        yield case(
            "accumulate_metrics",
            "largest output",
            dtype,
            accumulate_metrics,
            None,
            dense=False,
            first=True,
        )
        yield case(
            "accumulate_metrics", "outputs above 0.5", dtype, accumulate_metrics, 0.5, dense=True
        )
    for source in SOURCE:
        yield case("gather", f"of {source}", "float32", gather, source, 40)
    yield case("gather", "into bf16", "bf16", gather, "float32", 40, gpu=True)
    for models in (1, MODELS, 70):
        what, options = f"orders, M = {models}", {"models": models, "first": models < 70}
        yield case("shuffle", what, "float32", shuffle, **options)
