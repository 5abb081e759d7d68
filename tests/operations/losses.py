"""The loss and delta^(K), equation (7): labels, dense targets, weights, rows of weight 0."""

import numpy as np

from gpumlp.backend.contract import Targets
from gpumlp.functions.activation import activations
from gpumlp.functions.loss import Form, Loss, losses, pair
from tests.oracle import formulas
from tests.oracle.autodiff import Tensor, gradient

from . import OUTSIDE, Wide, assert_close, empty, random, rounded, send

# loss, constants, output, kind of target.  First every loss with its natural outputs.
NATURAL = [
    ("squared_error", {}, "identity", "real"),
    ("absolute_error", {}, "identity", "real"),
    ("huber", {"delta": 0.5}, "identity", "real"),
    ("log_cosh", {}, "identity", "real"),
    ("quantile", {"q": 0.3}, "identity", "real"),
    ("poisson", {}, "exp", "count"),
    ("cross_entropy", {}, "softmax", "label"),
    ("cross_entropy", {"label_smoothing": 0.1}, "softmax", "distribution"),
    ("cross_entropy", {"label_smoothing": 0.1}, "log_softmax", "label"),
    ("binary_cross_entropy", {}, "sigmoid", "label"),
    ("binary_cross_entropy", {}, "sigmoid", "binary"),
    ("focal", {"gamma": 1.5}, "softmax", "label"),
    ("focal", {}, "softmax", "distribution"),
    ("focal", {}, "sigmoid", "binary"),
    ("focal", {"gamma": 0.5}, "sigmoid", "label"),
    ("hinge", {}, "identity", "label"),
    ("squared_hinge", {}, "identity", "binary"),
    ("exponential", {}, "identity", "label"),
    ("kl_divergence", {}, "softmax", "distribution"),
    ("kl_divergence", {}, "log_softmax", "label"),
]
# And outputs whose f' is applied by backprop, or that take another way through the softmax family.
OTHERS = [
    ("squared_error", {}, "tanh", "real"),
    ("squared_error", {}, "softmax", "distribution"),
    ("squared_error", {}, "log_softmax", "real"),
    ("poisson", {}, "softplus", "count"),
    ("cross_entropy", {}, "sigmoid", "label"),
    ("binary_cross_entropy", {}, "softmax", "binary"),
    ("kl_divergence", {}, "sigmoid", "distribution"),
]


def pair_of(case):
    """The `OutputLoss` of a case."""
    name, options, output, _ = case
    return pair(losses[name](**options), activations[output])


def make_targets(kind, networks, rows, columns):
    """Labels (networks, B), or dense targets (networks, B, N)."""
    generator = np.random.default_rng([networks, rows, columns])
    if kind == "label":
        return generator.integers(0, max(columns, 2), (networks, rows))
    dense = generator.random((networks, rows, columns))
    if kind == "distribution":
        dense[..., 0] *= dense[..., 0] > 0.2  # 0 log 0 = 0
        return dense / dense.sum(axis=-1, keepdims=True)
    return {
        "real": 4 * dense - 2,
        "count": np.floor(5 * dense),
        "binary": np.round(dense),
    }[kind]


def make_weights(networks, rows):
    """Weights (networks, B), every third of them 0."""
    w = np.random.default_rng(rows).uniform(0.2, 2, (networks, rows))
    w[:, 2::3] = 0
    return w


def one(items, m):
    """Network m's part of an array that may be shared."""
    return items[m if len(items) > 1 else 0]


def reference(name, options, output, total, y, w, mean):
    """The loss of each network and its derivative with respect to what the operation is given."""
    fused = pair(losses[name], activations[output]).fused
    value, delta = np.zeros(len(total)), np.zeros_like(total)
    for m in range(len(total)):
        weight, target = one(w, m), one(y, m)
        used = weight > 0
        if not used.any():
            continue
        u = Tensor(total[m][used])
        prediction = formulas.ACTIVATIONS[output](u) if fused else u
        target = formulas.target(name, target[used], total.shape[2])
        rows = formulas.LOSSES[name](prediction, target, output, **options)
        result = (weight[used] * rows).sum() / (weight.sum() if mean else 1.0)
        value[m] = float(result.value)
        (delta[m][used],) = gradient(result, [u])
    return value, delta


class Given:
    """The arguments of the operation, on its device."""

    def __init__(self, ops, dtype, name, options, output, u, b, y, w, mean):
        loss = name if isinstance(name, Loss) else losses[name](**options)
        self.pair = pair(loss, activations[output])
        self.u = send(ops, u, dtype)
        self.b = Wide(ops, b, dtype).view if self.pair.fused else None
        scale, shift = loss.target_scale(u.shape[2])
        labelled = y.ndim == 2
        labels = send(ops, y, np.int32) if labelled else None
        dense = None if labelled else send(ops, y, dtype)
        self.targets = Targets(labels, dense, scale, shift)
        self.w = send(ops, w, dtype)
        w_sum = np.broadcast_to(w.sum(axis=1), len(u))
        self.w_sum = send(ops, w_sum, dtype)
        self.p = send(ops, [[*loss.p, 0.0]], dtype)
        self.mean, self.ops = mean, ops
        self.value = empty(ops, (len(u),), dtype)
        self.delta = empty(ops, u.shape, dtype)

    def run(self, with_delta=True):
        self.ops.loss(
            self.pair,
            self.u,
            self.b,
            self.targets,
            self.w,
            self.w_sum,
            self.mean,
            self.p,
            self.delta if with_delta else None,
            self.value,
        )
        return self.value, self.delta


def make_u(output, models, rows, columns, dtype, fused):
    """What the operation is given: z without b, or ŷ."""
    z = random(models, rows, columns, seed=20)
    if not fused:
        z = formulas.ACTIVATIONS[output](Tensor(z)).value
    return rounded(z, dtype)


def check_loss(
    ops, dtype, models, name, options, output, kind, shape, *, shared=False, mean=True, broken=False
):
    """Value and delta; the value alone; with `broken`, NaN in rows of weight 0 does not matter."""
    rows, columns = shape
    networks = 1 if shared else models
    fused = pair(losses[name], activations[output]).fused
    u, b = make_u(output, models, rows, columns, dtype, fused), random(models, columns, seed=21)
    b = rounded(b, dtype)
    y = make_targets(kind, networks, rows, columns)
    y = y if kind == "label" else rounded(y, dtype)
    w = rounded(make_weights(networks, rows), dtype)
    total = rounded(u + b[:, None, :], dtype) if fused else u
    value, delta = reference(name, options, output, total, y, w, mean)
    if broken:
        u = np.where(w[..., None] == 0, np.nan, u)
        y = y if kind == "label" else np.where(w[..., None] == 0, np.nan, y)

    given = Given(ops, dtype, name, options, output, u, b, y, w, mean)
    actual_value, actual_delta = given.run()
    scale = np.abs(delta).max() if delta.any() else 1.0
    assert_close(ops, actual_delta / scale, delta / scale, dtype, 20, "delta")
    assert_close(ops, actual_value, value, dtype, 20, "value")
    given.value = empty(ops, (models,), dtype)
    alone, _ = given.run(with_delta=False)
    assert_close(ops, alone, value, dtype, 20, "value without delta")


def check_targets_anywhere(ops, dtype, output, columns=12):
    """Dense targets need not begin where an array does: they may be a part of the user's."""
    name, kind = ("cross_entropy", "distribution") if output == "softmax" else NATURAL[0][::3]
    u, y = make_u(output, 2, 5, columns, dtype, True), make_targets(kind, 2, 5, columns)
    y, w, b = rounded(y, dtype), np.ones((1, 5)), np.zeros((2, columns))
    value, delta = reference(name, {}, output, u, y, w, True)
    given = Given(ops, dtype, name, {}, output, u, b, y, w, True)
    part = send(ops, np.concatenate([[OUTSIDE], y.ravel()]), dtype)[1:].reshape(y.shape)
    given.targets = given.targets._replace(dense=part)
    given.run()
    assert_close(ops, given.value, value, dtype, 10)
    assert_close(ops, given.delta, delta, dtype, 10)


def check_no_weight(ops, dtype, name, output, kind):
    """A network whose weights are all 0 gets loss 0 and delta 0, whatever is in its rows."""
    models, rows, columns = 3, 5, 4
    u = make_u(output, models, rows, columns, dtype, True)
    y = make_targets(kind, models, rows, columns)
    w = np.ones((models, rows))
    w[1] = 0
    b = np.zeros((models, columns))
    value, delta = reference(name, {}, output, u, rounded(y, dtype).astype(y.dtype), w, True)
    u[1] = np.nan
    for mean in (True, False):
        given = Given(ops, dtype, name, {}, output, u, b, y, w, mean)
        given.run()
        factor = 1 if mean else rows
        assert_close(ops, given.value, factor * value, dtype, 10)
        assert_close(ops, given.delta, factor * delta, dtype, 10)


def check_nan_shows(ops, dtype, name, output, kind):
    """A NaN in a row that counts makes that network's loss NaN, and no other's."""
    models, rows, columns = 3, 5, 4
    u = make_u(output, models, rows, columns, dtype, True)
    u[1, 3, 2] = np.nan
    y = make_targets(kind, models, rows, columns)
    w, b = np.ones((1, rows)), np.zeros((models, columns))
    value, _ = Given(ops, dtype, name, {}, output, u, b, y, w, True).run()
    assert np.isnan(ops.to_host(value)).tolist() == [False, True, False]


def check_large_logits(ops, dtype):
    """Logits of ±1000 give a finite loss, with softmax and with sigmoid."""
    u = np.array([[[1000.0, 0, -1000], [-1000, 1000, 0], [500, 500, -500], [-900, -900, -900]]])
    b, w = np.zeros((1, 3)), np.ones((1, 4))
    labels = np.array([[1, 1, 2, 0]])
    expected = (1000 + 0 + 1000 + np.log(2) + np.log(3)) / 4
    given = Given(ops, dtype, "cross_entropy", {}, "softmax", u, b, labels, w, True)
    value, delta = given.run()
    assert_close(ops, value, [expected], dtype)
    third = 1 / 3
    rows = [[1, -1, 0], [0, 0, 0], [0.5, 0.5, -1], [third - 1, third, third]]
    assert_close(ops, delta, np.array([rows]) / 4, dtype)

    y = np.array([[[1.0, 0, 1], [1, 1, 0], [1, 0, 0], [0, 0, 1]]])
    given = Given(ops, dtype, "binary_cross_entropy", {}, "sigmoid", u, b, y, w, True)
    value, _ = given.run()
    elements = np.maximum(u, 0) - y * u + np.log1p(np.exp(-np.abs(u)))
    assert_close(ops, value, [elements.sum() / 4], dtype)


def check_custom(ops, dtype, models, shape):
    """A loss from Python with a constant: p0 (u - y)^4."""
    form = Form(
        lambda u, y, p: p[0] * (u - y) ** 4,
        lambda u, y, p: 4 * p[0] * (u - y) ** 3,
        ("p[0] * pow(u - y, Real(4))", "4 * p[0] * (u - y) * (u - y) * (u - y)"),
    )
    quartic = Loss("quartic", form, parameters={"size": 0.5})
    u = make_u("identity", models, *shape, dtype, True)
    y = rounded(make_targets("real", models, *shape), dtype)
    w, b = rounded(make_weights(models, shape[0]), dtype), np.zeros((models, shape[1]))
    given = Given(ops, dtype, quartic, {}, "identity", u, b, y, w, True)
    value, delta = given.run()
    share = (w / w.sum(axis=1, keepdims=True))[..., None]
    assert_close(ops, value, (share * 0.5 * (u - y) ** 4).sum(axis=(1, 2)), dtype, 20)
    assert_close(ops, delta, share * 2 * (u - y) ** 3, dtype, 20)
