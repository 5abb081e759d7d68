"""prepare_update and update: whether and how far each network moves, and the rules of (14)(15)."""

import math

import numpy as np

from gpumlp.backend.contract import Factors, State
from gpumlp.backend.layout import ALIGNMENT
from gpumlp.functions import optimizer as optimizers
from gpumlp.functions.optimizer import HYPERS
from tests.oracle import formulas

from . import assert_close, assert_same, empty, random, rounded, send

# ------------------------------------------------------------------ advance

LR = [0.1, 0.2, 0.3]


def make_hyper(models, dtype, **columns):
    table = np.zeros((models, len(HYPERS)))
    for name, values in ({"LR": LR[:models]} | columns).items():
        table[:, HYPERS.index(name)] = values
    return rounded(table, dtype)


def make_state(ops, models, dtype, t=0, stopped_at=0, cursor=0, steps=5):
    def integers(value):
        return send(ops, np.broadcast_to(value, models), np.int64)

    return State(
        t=integers(t),
        stopped_at=integers(stopped_at),
        cursor=integers(cursor),
        losses=empty(ops, (steps, models), dtype),
        weights=empty(ops, (steps, models), dtype),
        norm=empty(ops, (models,), dtype),
        scalars=empty(ops, (models, 4), dtype),
    )


def make_gradient(models, size, dtype):
    return rounded(random(models, size, seed=30) * np.array([[1], [10], [0.1]])[:models], dtype)


def check_advance(ops, dtype, models, size, penalty=False):
    """Three steps: norm, clipping, the schedule's table, the tables of losses, t and cursor."""
    g = make_gradient(models, size, dtype)
    decayed = size - 32
    theta = rounded(random(models, size, seed=31), dtype)
    clip_norm = [2, 1e4, 0][:models]  # shorter than the gradient, longer, and none
    numbers = {"CLIP_NORM": clip_norm, "L1": 0.01, "L2": 0.5}
    per_weight = np.array([1.0, 0.0, 1.0])[:models]
    hyper = make_hyper(models, dtype, **numbers, DECAY_PER_WEIGHT=per_weight)
    rates = rounded(1 / np.arange(2, 9), dtype)
    t, first_rate, cursor, steps = np.array([4, 6, 5])[:models], 4, 3, 4
    w_sum = rounded(np.array([2.0, 3, 4])[:models], dtype)

    state = make_state(ops, models, dtype, t=t, cursor=cursor, steps=steps)
    norm = np.sqrt((g * g).sum(axis=1))
    length = hyper[:, HYPERS.index("CLIP_NORM")]
    clip = np.where((length > 0) & (norm > length), length / norm, 1)
    decay = np.where(per_weight > 0, 1 / w_sum, 1)
    W = theta[:, :decayed]
    l1, l2 = (hyper[:, HYPERS.index(name)] for name in ("L1", "L2"))
    extra = decay * (0.5 * l2 * (W * W).sum(axis=1) + l1 * np.abs(W).sum(axis=1))
    whole = (send(ops, theta, dtype), decayed) if penalty else (None, 0)
    sent = [send(ops, a, dtype) for a in (g, w_sum, hyper, rates)]
    for step in range(3):
        loss = rounded(np.array([1.5, 2.5, 3.5])[:models] + step, dtype)
        ops.prepare_update(
            sent[0],
            send(ops, loss, dtype),
            *(sent[1], sent[2], sent[3], send(ops, [first_rate], np.int64)),
            state,
            *whole,
        )
        row = (cursor + step) % steps
        rate = hyper[:, HYPERS.index("LR")] * rates[t + step - first_rate]
        scalars = np.stack((np.ones(models), clip, rate, decay), axis=1)
        assert_close(ops, state.scalars, scalars, dtype, 10, "scalars")
        assert_close(ops, state.norm, norm, dtype, 10, "norm")
        noted = loss + extra if penalty else loss
        assert_close(ops, state.losses[row], noted, dtype, 10, "losses")
        assert_close(ops, state.weights[row], w_sum, dtype, what="weights")
        assert_same(ops, state.t, t + step + 1, "t")
        assert_same(ops, state.cursor, np.full(models, cursor + step + 1), "cursor")
        assert_same(ops, state.stopped_at, np.zeros(models, np.int64), "halted")
    unwritten = ops.to_host(state.losses)[(cursor + 3) % steps]
    assert np.isnan(unwritten).all(), "a row of the table that is not this batch's was written"


# What happens to one network: loss, Σ w, an element of its gradient, halted before; and then:
# whether it moves, halted after.
EVENTS = {
    "all is well": (1.0, 2.0, 0.5, 0, True, 0),
    "the loss is NaN": (np.nan, 2.0, 0.5, 0, False, 8),
    "the loss is infinite": (np.inf, 2.0, 0.5, 0, False, 8),
    "the gradient is NaN": (1.0, 2.0, np.nan, 0, False, 8),
    "the gradient is infinite": (1.0, 2.0, -np.inf, 0, False, 8),
    "the gradient's square overflows": (1.0, 2.0, "huge", 0, False, 8),
    "no weight": (0.0, 0.0, 0.0, 0, False, 0),
    "no weight, and NaN": (np.nan, 0.0, np.nan, 0, False, 0),
    "halted before": (1.0, 2.0, 0.5, 3, False, 3),
    "stopped before": (np.nan, 2.0, 0.5, -1, False, -1),
}


def check_events(ops, dtype):
    """Each event is one network of a stack: who moves, who is halted, whose batch counts."""
    huge = float(np.finfo(dtype).max) / 2
    events = [[huge if v == "huge" else v for v in event] for event in EVENTS.values()]
    loss, w_sum, element, stopped_at, moves, halted_after = (
        np.array(column) for column in zip(*events, strict=True)
    )
    models, size, t = len(events), 96, 7
    g = np.full((models, size), 0.25)
    g[:, 41] = element
    state = make_state(ops, models, dtype, t=t, stopped_at=stopped_at)
    hyper = make_hyper(models, dtype, LR=0.5)
    ops.prepare_update(
        *(send(ops, a, dtype) for a in (g, loss, w_sum, hyper)),
        None,
        send(ops, [0], np.int64),
        state,
    )
    names = ", ".join(EVENTS)
    assert_same(ops, state.scalars[:, 0], moves.astype(dtype), names)
    assert_same(ops, state.t, np.where(moves, t + 1, t), names)
    assert_same(ops, state.stopped_at, halted_after, names)
    assert_same(ops, state.cursor, np.ones(models, np.int64))
    counts = (stopped_at == 0) & (w_sum > 0)
    assert_same(ops, state.weights[0], np.where(counts, w_sum, 0).astype(dtype), names)
    scalars = ops.to_host(state.scalars)[moves]
    np.testing.assert_array_equal(scalars, np.array([[1, 1, 0.5, 1]] * moves.sum(), dtype))


# ------------------------------------------------------------------ update

# The library's optimiser and the formulas' have the same names and arguments.
CASES = [
    ("SGD", {"lr": (0.1, 0.2, 0.3)}),
    ("SGD", {"lr": 0.1, "l2": (0.5, 0.0, 1.5), "l1": (0.0, 0.2, 0.1)}),
    ("SGD", {"lr": 0.1, "momentum": (0.9, 0.0, 0.5), "l2": 0.5}),
    ("SGD", {"lr": (0.1, 0.2, 0.3), "momentum": (0.9, 0.5, 0.7), "nesterov": True, "l1": 0.1}),
    ("RMSprop", {"lr": (0.1, 0.2, 0.3), "rho": (0.9, 0.99, 0.5), "eps": 1e-3, "l2": 0.5}),
    ("RMSprop", {"lr": 0.1, "momentum": (0.9, 0.0, 0.5), "eps": (1e-2, 1e-3, 1e-4)}),
    ("RMSprop", {"lr": 0.1, "centered": True, "momentum": 0.5, "eps": 1e-2}),
    ("Adam", {"lr": (0.1, 0.2, 0.3), "beta1": (0.9, 0.8, 0.0), "eps": 1e-3}),
    ("Adam", {"lr": 0.1, "beta2": (0.999, 0.9, 0.5), "eps": (1e-3, 1e-2, 1e-1), "l2": 0.5}),
    ("AdamW", {"lr": 0.1, "weight_decay": (0.5, 0.0, 2.0), "eps": 1e-3, "l1": 0.1, "l2": 0.2}),
    ("Lion", {"lr": 0.1, "beta1": (0.9, 0.5, 0.0), "weight_decay": (0.5, 0.0, 2.0), "l1": 0.1}),
]


def of_network(value, m):
    return value[m] if isinstance(value, tuple) else value


def make_optimizer(name, numbers, models):
    arrays = {
        key: np.array(value[:models]) if isinstance(value, tuple) else value
        for key, value in numbers.items()
    }
    return getattr(optimizers, name)(**arrays)


def check_update(ops, dtype, models, name, numbers, size=16512, decayed=16416, oracle=None):
    """Three steps of one update rule; gradients are clipped, rates scheduled, penalties scaled."""
    optimizer = make_optimizer(name, numbers, models)
    theta = rounded(random(models, size, seed=32), dtype)
    theta[:, ::50] = 0  # sign 0 = 0
    gradients = [rounded(random(models, size, seed=33 + step), dtype) for step in range(3)]
    clip, decay = np.array([0.5, 1.0, 0.25])[:models], np.array([1.0, 0.5, 0.25])[:models]
    rate = [1.0, 0.5, 2.0]

    hyper = optimizer.hyper(models)
    lr = hyper[:, HYPERS.index("LR")]
    expected = theta.copy()
    for m in range(models):
        own = {key: of_network(value, m) for key, value in numbers.items()}
        own |= {key: own.get(key, 0.0) * decay[m] for key in ("l1", "l2")}
        reference = (oracle or getattr(formulas, name))(**own)
        parts = [expected[m, :decayed], expected[m, decayed:]]
        for step, g in enumerate(gradients):
            reference.lr = lr[m] * rate[step]
            clipped = clip[m] * g[m]
            reference.step(parts, [clipped[:decayed], clipped[decayed:]], [True, False])

    given = send(ops, theta, dtype)
    state_buffers = [
        send(ops, np.zeros_like(theta), dtype) if used else None
        for used in optimizer.state_buffers().values()
    ]
    stopped_at = send(ops, np.zeros(models), np.int64)
    for step, g in enumerate(gradients):
        scalars = np.stack((np.ones(models), clip, lr * rate[step], decay), axis=1)
        ops.update(
            optimizer.family,
            given,
            send(ops, g, dtype),
            state_buffers,
            send(ops, scalars, dtype),
            send(ops, hyper, dtype),
            send(ops, np.full(models, step + 1), np.int64),
            stopped_at,
            decayed,
        )
    assert_close(ops, given, expected, dtype, 100)
    assert_same(ops, stopped_at, np.zeros(models, np.int64))


# Slices of random and odd lengths, some of them shorter than a block's chunk and some much longer.
LENGTHS = (1, 37, 1000, 3, 5321, 130, 1, 9007)


def check_factors(ops, dtype, models, name, numbers):
    """Each slice moves as it would alone, with its own learning rate, penalties and decay."""
    optimizer = make_optimizer(name, numbers, models)
    aligned = ALIGNMENT // np.dtype(dtype).itemsize
    ends = np.cumsum([math.ceil(length / aligned) * aligned for length in LENGTHS])
    rng = np.random.default_rng(45)
    rate, decay = (rounded(rng.uniform(0.25, 2, len(ends)), dtype) for _ in range(2))
    rate[3], decay[5] = 0, 0
    theta = rounded(random(models, ends[-1], seed=46), dtype)
    gradients = [rounded(random(models, ends[-1], seed=47 + step), dtype) for step in range(3)]
    hyper = optimizer.hyper(models)
    lr = hyper[:, HYPERS.index("LR")]
    scale = np.array([1.0, 0.5, 0.25])[:models]

    expected = theta.copy()
    for m in range(models):
        for s, part in enumerate(np.split(np.arange(ends[-1]), ends[:-1])):
            arguments = {key: of_network(value, m) for key, value in numbers.items()}
            arguments |= {
                key: arguments.get(key, 0.0) * scale[m] * decay[s] for key in ("l1", "l2")
            }
            if "weight_decay" in arguments:
                arguments["weight_decay"] *= decay[s]
            reference, values = getattr(formulas, name)(**arguments), expected[m, part]
            reference.lr = lr[m] * rate[s]
            for g in gradients:
                reference.step([values], [g[m, part]], [True])
            expected[m, part] = values

    sent = send(ops, theta, dtype)
    used = optimizer.state_buffers().values()
    state_buffers = [
        send(ops, np.zeros_like(theta), dtype) if is_used else None for is_used in used
    ]
    factors = Factors(send(ops, ends, np.int64), send(ops, rate, dtype), send(ops, decay, dtype))
    scalars = np.stack((np.ones(models), np.ones(models), lr, scale), axis=1)
    stopped_at = send(ops, np.zeros(models), np.int64)
    for step, g in enumerate(gradients):
        ops.update(
            *(optimizer.family, sent, send(ops, g, dtype), state_buffers),
            *(send(ops, scalars, dtype), send(ops, hyper, dtype)),
            *(send(ops, np.full(models, step + 1), np.int64), stopped_at, 0, factors),
        )
    assert_close(ops, sent, expected, dtype, 100)
    assert_same(ops, stopped_at, np.zeros(models, np.int64))


def check_neutral_factors(ops, dtype, name, numbers, size=4224, decayed=4128):
    """Factors of 1, and of 0 on the decay beyond the weights, are no factors."""
    optimizer = make_optimizer(name, numbers, 3)
    theta, g = (random(3, size, seed=seed).astype(dtype) for seed in (48, 49))
    one = send(ops, np.ones(2), dtype)
    neutral = Factors(
        send(ops, [decayed, size], np.int64), one, send(ops, np.array([1.0, 0.0]), dtype)
    )
    scalars, after = np.tile([1, 0.5, 0.1, 0.25], (3, 1)), []
    for factors in (None, neutral):
        sent = [send(ops, theta)]
        sent += [
            send(ops, np.abs(theta)) if used else None
            for used in optimizer.state_buffers().values()
        ]
        ops.update(
            *(optimizer.family, sent[0], send(ops, g), sent[1:], send(ops, scalars, dtype)),
            *(send(ops, optimizer.hyper(3), dtype), send(ops, np.full(3, 2), np.int64)),
            *(send(ops, np.zeros(3), np.int64), decayed, factors),
        )
        after.append([ops.to_host(array) for array in sent if array is not None])
    for with_none, with_ones in zip(*after, strict=True):
        assert_close(ops, with_ones, with_none, dtype, 10)


class PlainEpsilonAdam(formulas.Adam):
    """Adam with ε beside √v before its correction, as in the paper's remark and scikit-learn."""

    def change(self, g, state):
        state["m"] = self.beta1 * state["m"] + (1 - self.beta1) * g
        state["v"] = self.beta2 * state["v"] + (1 - self.beta2) * g**2
        a = self.lr * np.sqrt(1 - self.beta2**self.t) / (1 - self.beta1**self.t)
        return -a * state["m"] / (np.sqrt(state["v"]) + self.eps)

    def __init__(self, *, eps_corrected, **numbers):
        assert not eps_corrected
        super().__init__(**numbers)


def check_plain_epsilon(ops, dtype, models):
    numbers = {"lr": 0.1, "eps": 0.05, "eps_corrected": False}
    check_update(ops, dtype, models, "Adam", numbers, 128, 64, oracle=PlainEpsilonAdam)


def check_frozen(ops, dtype, name):
    """A network that does not move keeps theta and all its state, to the bit."""
    optimizer = make_optimizer(name, {"momentum": 0.5} if name != "Adam" else {}, 3)
    theta, g = (random(3, 128, seed=seed).astype(dtype) for seed in (40, 41))
    scalars = np.array([[1, 1, 0.1, 1], [0, 1, 0.1, 1], [1, 1, 0.1, 1]])
    given = send(ops, theta)
    in_use = optimizer.state_buffers().values()
    states = [np.abs(theta) + i for i, used in enumerate(in_use) if used]
    sent = iter([send(ops, state) for state in states])
    state_buffers = [next(sent) if used else None for used in in_use]
    ops.update(
        optimizer.family,
        given,
        send(ops, g),
        state_buffers,
        send(ops, scalars, dtype),
        send(ops, optimizer.hyper(3), dtype),
        send(ops, [2, 1, 2], np.int64),
        send(ops, [0, 1, 0], np.int64),
        64,
    )
    held = [slot for slot in state_buffers if slot is not None]
    for after, before in zip([given, *held], [theta, *states], strict=True):
        after = ops.to_host(after)
        np.testing.assert_array_equal(after[1], before[1])
        assert np.isfinite(after).all()
        assert (after[0] != before[0]).any() and (after[2] != before[2]).any()


# Two neighbours that share a load, and the last parameter; with decay and without it.
OVERFLOWING = [0, 1, 38, 63, 64, 90, 127]


def check_overflow(ops, dtype, models, name, numbers, size=128, decayed=64):
    """A parameter that a rule would move out of range, or its state, stays with its state, to the
    bit; its neighbours move as if it were an ordinary one."""
    optimizer, largest = make_optimizer(name, numbers, models), np.finfo(dtype).max
    theta, g = (random(models, size, seed=seed).astype(dtype) for seed in (42, 43))
    states = np.abs(random(len(optimizer.state_buffers()), models, size, seed=44)).astype(dtype)
    scalars = np.tile([1, 1, 0.1, 0.25], (models, 1))

    stopped_at = send(ops, np.zeros(models), np.int64)

    def moved(theta, g):
        sent = [send(ops, theta)]
        sent += [
            send(ops, state) if used else None
            for state, used in zip(states, optimizer.state_buffers().values(), strict=True)
        ]
        ops.update(
            optimizer.family,
            sent[0],
            send(ops, g),
            sent[1:],
            send(ops, scalars, dtype),
            send(ops, optimizer.hyper(models), dtype),
            send(ops, np.full(models, 3), np.int64),
            stopped_at,
            decayed,
        )
        return [ops.to_host(each) for each in sent if each is not None]

    ordinary = moved(theta, g)
    assert_same(ops, stopped_at, np.zeros(models, np.int64))
    before, upwards = theta.copy(), g.copy()
    before[:, OVERFLOWING], upwards[:, OVERFLOWING] = largest, -largest
    in_use = optimizer.state_buffers().values()
    used = [state for state, is_used in zip(states, in_use, strict=True) if is_used]
    for after, start, other in zip(moved(before, upwards), [before, *used], ordinary, strict=True):
        np.testing.assert_array_equal(after[:, OVERFLOWING], start[:, OVERFLOWING])
        others = np.delete(np.arange(size), OVERFLOWING)
        np.testing.assert_array_equal(after[:, others], other[:, others])
    assert_same(ops, stopped_at, np.full(models, 3))
