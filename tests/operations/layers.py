"""gemm, activate and backprop, equations (1)-(6), (9), (11), (13), without randomness."""

import numpy as np

from gpumlp.functions.activation import Activation, activations
from tests.oracle import formulas
from tests.oracle.autodiff import Tensor, gradient

from . import TOLERANCE, Wide, assert_close, assert_same, empty, random, rounded, send

# What f and f' need besides z, where it is not the library's default; two values for each network.
CONSTANTS = {
    "leaky_relu": ((0.2, 0.0), (0.01, 0.0), (0.0, 0.0)),
    "prelu": ((0.25, 0.0), (-0.5, 0.0), (1.5, 0.0)),
    "rrelu": ((0.125, 0.25), (0.1, 0.5), (0.0, 0.1)),
    "elu": ((1.0, 0.0), (0.5, 0.0), (2.0, 0.0)),
    "celu": ((0.7, 0.0), (1.0, 0.0), (2.0, 0.0)),
}
NAMES = {  # of those constants in the formulas
    "leaky_relu": ("slope",),
    "prelu": ("slope",),
    "rrelu": ("lower", "upper"),
    "elu": ("alpha",),
    "celu": ("alpha",),
}
ELEMENTWISE = [name for name in formulas.ACTIVATIONS if "softmax" not in name]


def constants(name, models, dtype):
    """p (models, 2), rounded to dtype."""
    return rounded(np.array(CONSTANTS.get(name, [(0.0, 0.0)] * 3)[:models]), dtype)


def evaluate(name, z, p):
    """f(z) and f'(z), (M, B, N), by the oracle; p (M, 2)."""
    f, df = np.empty_like(z), np.empty_like(z)
    for m in range(len(z)):
        options = dict(zip(NAMES.get(name, ()), p[m], strict=False))
        tensor = Tensor(z[m])
        result = formulas.ACTIVATIONS[name](tensor, **options)
        f[m] = result.value
        (df[m],) = gradient(result.sum(), [tensor])
    return f, df


# ------------------------------------------------------------------ gemm


def check_gemm(ops, dtype, models, ta, tb, alpha, beta, shape=(37, 5, 13), shared=False, view=True):
    """out <- alpha op(a) op(b) + beta out; NaN in out does not matter where beta is 0."""
    rows, inner, columns = shape
    a = random(models, *((inner, rows) if ta else (rows, inner)), seed=1)
    b = random(models, *((columns, inner) if tb else (inner, columns)), seed=2)
    a = a[:1] if shared else a
    out = random(models, rows, columns, seed=3) * (1 if beta else np.nan)
    a, b, out = (rounded(each, dtype) for each in (a, b, out))
    left, right = (a.swapaxes(1, 2) if ta else a), (b.swapaxes(1, 2) if tb else b)
    left = np.broadcast_to(left, (models, rows, inner))
    expected = alpha * np.einsum("mij,mjl->mil", left, right) + (beta * out if beta else 0)

    wide_b, wide_out = Wide(ops, b, dtype), Wide(ops, out, dtype)
    given_b = wide_b.view if view else send(ops, b, dtype)
    result = wide_out.view if view else send(ops, out, dtype)
    ops.gemm(send(ops, a, dtype), given_b, result, ta=ta, tb=tb, alpha=alpha, beta=beta)
    assert_close(ops, result, expected, dtype, 3)
    wide_out.assert_untouched_outside()


# ------------------------------------------------------------------ f and f'


def check_activate(ops, dtype, models, name, shape, shared_p=False):
    """n = f(z + b), into another array and in place; z is left as z + b where f' needs it."""
    f = activations[name]
    z, b = random(models, *shape, seed=4, scale=3), random(models, shape[1], seed=5)
    z, b = rounded(z, dtype), rounded(b, dtype)
    p = constants(name, models, dtype)
    p = p[:1] if shared_p else p
    total = rounded(z + b[:, None, :], dtype)
    expected, _ = evaluate(name, total, np.broadcast_to(p, (models, 2)))

    wide_b, wide_p = Wide(ops, b, dtype), Wide(ops, p, dtype)
    given_z, n = send(ops, z, dtype), empty(ops, z.shape, dtype)
    ops.activate(f, given_z, wide_b.view, n, wide_p.view)
    assert_close(ops, n, expected, dtype, what=f"{name} {shape}")
    if f.df_from == "z":
        assert_close(ops, given_z, total, dtype, what="z + b")
    given_z = send(ops, z, dtype)
    ops.activate(f, given_z, wide_b.view, given_z, wide_p.view)
    assert_close(ops, given_z, expected, dtype, what=f"{name} {shape} in place")
    wide_b.assert_untouched_outside()


def check_backprop(ops, dtype, models, name, shape, shared_p=False):
    """delta <- f'(z) delta and db = sum of it; of z and n, the one that f' ignores is not read."""
    f = activations[name]
    z, delta = random(models, *shape, seed=6, scale=3), random(models, *shape, seed=7)
    z, delta = rounded(z, dtype), rounded(delta, dtype)
    p = constants(name, models, dtype)
    p = p[:1] if shared_p else p
    n, df = evaluate(name, z, np.broadcast_to(p, (models, 2)))
    expected = df * delta

    kept = {"z": z, "n": n} | {"n" if f.df_from == "z" else "z": np.full_like(z, np.nan)}
    given = send(ops, delta, dtype)
    db = Wide(ops, np.full((models, shape[1]), np.nan), dtype)
    dp = Wide(ops, np.full((models, 1), np.nan), dtype)
    ops.backprop(
        f,
        send(ops, kept["z"], dtype),
        send(ops, kept["n"], dtype),
        given,
        db.view,
        Wide(ops, p, dtype).view,
        dp.view[:, 0] if f.learned else None,
    )
    assert_close(ops, given, expected, dtype, 3, f"{name} {shape}")
    assert_close(ops, db.view, expected.sum(axis=1), dtype, 3 * np.sqrt(shape[0]), f"db of {name}")
    db.assert_untouched_outside()
    if f.learned:
        slope = (delta * np.minimum(z, 0)).sum(axis=(1, 2))
        assert_close(ops, dp.view[:, 0], slope, dtype, 10 * np.sqrt(delta[0].size), "dp")
        dp.assert_untouched_outside()


def check_scale(ops, dtype, models, shape):
    """W = V diag(s), and of G = dL/dW the gradients by V, in place of G, and by s."""
    V, G = (rounded(random(models, *shape, seed=seed), dtype) for seed in (21, 22))
    s = rounded(random(models, shape[1], seed=23), dtype)
    wide_V, wide_s, wide_G = Wide(ops, V, dtype), Wide(ops, s, dtype), Wide(ops, G, dtype)
    out = empty(ops, V.shape, dtype)
    ops.scale(wide_V.view, wide_s.view, out)
    diagonal = np.stack([np.diag(row) for row in s])
    assert_close(ops, out, V @ diagonal, dtype, what=f"V diag(s), {shape}")

    ds = Wide(ops, np.full(s.shape, np.nan), dtype)
    ops.scale_gradient(wide_G.view, wide_V.view, wide_s.view, ds.view)
    by_s = np.stack([np.diagonal(g.T @ v) for g, v in zip(G, V, strict=True)])
    assert_close(ops, wide_G.view, G @ diagonal, dtype, what=f"dL/dV, {shape}")
    assert_close(ops, ds.view, by_s, dtype, 3 * np.sqrt(shape[0]), f"dL/ds, {shape}")
    assert_same(ops, wide_V.view, V)
    for array in (wide_G, ds):
        array.assert_untouched_outside()


def check_custom(ops, dtype, models, df_from, shape):
    """An activation from Python, with two constants: f = p0 e^(p1 z)."""
    expressions = {
        "z": (lambda z, n, p: p[0] * p[1] * np.exp(p[1] * z), "p[0] * p[1] * exp(p[1] * z)"),
        "n": (lambda z, n, p: p[1] * n, "p[1] * n"),
    }
    df, cuda_df = expressions[df_from]
    f = Activation(
        "growth",
        f=lambda z, p: p[0] * np.exp(p[1] * z),
        df=df,
        cuda=("p[0] * exp(p[1] * z)", cuda_df),
        df_from=df_from,
        parameters={"size": 2.0, "rate": 0.5},
    )
    z, b = random(models, *shape, seed=13), random(models, shape[1], seed=14)
    z, b = rounded(z, dtype), rounded(b, dtype)
    expected = 2 * np.exp(0.5 * rounded(z + b[:, None], dtype))
    p, given, n = send(ops, [f.p], dtype), send(ops, z, dtype), empty(ops, z.shape, dtype)
    ops.activate(f, given, send(ops, b, dtype), n, p)
    assert_close(ops, n, expected, dtype, 3)
    delta, db = send(ops, np.ones_like(z), dtype), empty(ops, b.shape, dtype)
    ops.backprop(f, given, n, delta, db, p)
    assert_close(ops, delta, 0.5 * expected, dtype, 3)
    assert_close(ops, db, 0.5 * expected.sum(axis=1), dtype, 10)


def check_softmax(ops, dtype, models, name, shape):
    """The activations of whole rows, also where a row holds numbers whose e^z overflows."""
    z, b = random(models, *shape, seed=8, scale=3), random(models, shape[1], seed=9)
    z[:, 0] += np.linspace(-2000, 2000, shape[1])
    z, b = rounded(z, dtype), rounded(b, dtype)
    total = rounded(z + b[:, None, :], dtype)
    shifted = total - total.max(axis=-1, keepdims=True)
    expected = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    expected = np.exp(expected) if name == "softmax" else expected
    wide_b, p = Wide(ops, b, dtype), send(ops, np.zeros((1, 2)), dtype)
    given, n = send(ops, z, dtype), empty(ops, z.shape, dtype)
    ops.activate(activations[name], given, wide_b.view, n, p)
    assert_close(ops, n, expected, dtype, 3)
    given = send(ops, z, dtype)
    ops.activate(activations[name], given, wide_b.view, given, p)
    assert_close(ops, given, expected, dtype, 3, "in place")


# ------------------------------------------------------------------ large |z|, NaN, kinks

SELU, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def _left_right(left, right):
    """One function where z < 0, another where z > 0."""
    return lambda z: np.where(z < 0, left(z), right(z))


def _constants(left, right):
    return _left_right(lambda z: np.full_like(z, left), lambda z: np.full_like(z, right))


def _slopes(left, right):
    """f and f' of two straight lines through 0."""
    return _left_right(lambda z: left * z, lambda z: right * z), _constants(left, right)


def _flat(left, right):
    """f and f' of what has reached both its limits."""
    return _constants(left, right), np.zeros_like


def _rises(left, right=1.0):
    """f and f' of what has reached its limit on the left, and is a line on the right."""
    return _left_right(lambda z: np.full_like(z, left), lambda z: right * z), _constants(0, right)


# f and f' where |z| >= 50: the limits, with what is left of an exponential.
FAR = {
    "identity": _slopes(1, 1),
    "sigmoid": (_left_right(np.exp, np.ones_like), lambda z: np.exp(-np.abs(z))),
    "hard_sigmoid": _flat(0, 1),
    "tanh": _flat(-1, 1),
    "hard_tanh": _flat(-1, 1),
    "softsign": (lambda z: z / (1 + np.abs(z)), lambda z: (1 + np.abs(z)) ** -2.0),
    "softplus": (_left_right(np.exp, lambda z: z), _left_right(np.exp, np.ones_like)),
    "relu": _slopes(0, 1),
    "relu6": _flat(0, 6),
    "leaky_relu": _slopes(0.2, 1),
    "prelu": _slopes(0.25, 1),
    "rrelu": _slopes(0.1875, 1),
    "elu": _rises(-1),
    "selu": _rises(-SELU * SELU_ALPHA, SELU),
    "celu": _rises(-0.7),
    "gelu": _rises(0),
    "gelu_tanh": _rises(0),
    "silu": (
        _left_right(lambda z: z * np.exp(z), lambda z: z),
        _left_right(lambda z: (1 + z) * np.exp(z), np.ones_like),
    ),
    "hard_swish": _rises(0),
    "mish": (
        _left_right(lambda z: z * np.exp(z), lambda z: z),
        _left_right(lambda z: (1 + z) * np.exp(z), np.ones_like),
    ),
    "exp": (np.exp, np.exp),
    "sine": (np.sin, np.cos),
}


def check_far(ops, dtype, name):
    """At z = ±50 and ±1000 f and f' have their limits; NaN stays NaN, infinity never looks tame."""
    f = activations[name]
    z = np.array([-1000.0, -50.0, 50.0, 1000.0])
    with np.errstate(over="ignore", under="ignore"):
        expected, slope = (g(z) for g in FAR[name])
    p = send(ops, constants(name, 1, dtype), dtype)
    zero = send(ops, np.zeros((1, 4)), dtype)
    given, n = send(ops, z[None, None], dtype), empty(ops, (1, 1, 4), dtype)
    ops.activate(f, given, zero, n, p)
    factor = 100 if name == "sine" else 3  # the argument's own rounding, 1000 times as large
    assert_close(ops, n, expected[None, None], dtype, factor, f"f of {name}")
    delta, db = send(ops, np.ones((1, 1, 4)), dtype), empty(ops, (1, 4), dtype)
    ops.backprop(f, given, n, delta, db, p, empty(ops, (1,), dtype) if f.learned else None)
    assert_close(ops, delta, slope[None, None], dtype, factor, f"f' of {name}")


def check_not_finite(ops, dtype, name):
    """f(NaN) is NaN; f(±inf) is its limit or NaN; a NaN in delta stays, and reaches db."""
    f = activations[name]
    z = np.array([np.nan, -np.inf, np.inf, 0.5])
    p = send(ops, constants(name, 1, dtype), dtype)
    zero, given = send(ops, np.zeros((1, 4)), dtype), send(ops, z[None, None], dtype)
    n = empty(ops, (1, 1, 4), dtype)
    ops.activate(f, given, zero, n, p)
    nan, low, high, half = ops.to_host(n)[0, 0].astype(np.float64)
    assert np.isnan(nan), f"{name}(NaN) = {nan}"
    assert np.isfinite(half)
    if name != "sine":
        with np.errstate(all="ignore"):
            limits = FAR[name][0](np.array([-1e30, 1e30]))
        for value, limit in ((low, limits[0]), (high, limits[1])):
            infinite = abs(limit) >= 1e20
            ok = np.isnan(value) or (np.isinf(value) if infinite else abs(value - limit) < 1e-5)
            assert ok, f"{name}(±inf) = {value}, its limit {limit}"

    delta = send(ops, np.array([[[1.0, np.nan, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]]), dtype)
    tame = rounded(np.full((1, 2, 4), 0.5), dtype)
    kept_n, _ = evaluate(name, tame, constants(name, 1, dtype))
    db = empty(ops, (1, 4), dtype)
    dp = empty(ops, (1,), dtype) if f.learned else None
    ops.backprop(f, send(ops, tame, dtype), send(ops, kept_n, dtype), delta, db, p, dp)
    assert np.isnan(ops.to_host(delta)[0, 0, 1])
    assert np.isnan(ops.to_host(db)[0]).tolist() == [False, True, False, False]


# f' at kinks, as PyTorch has it.
KINKS = {
    "relu": {0: 0},
    "relu6": {0: 0, 6: 0},
    "hard_tanh": {-1: 0, 1: 0},
    "hard_sigmoid": {-3: 0, 3: 0},
    "leaky_relu": {0: 0.2},
    "prelu": {0: 0.25},
    "elu": {0: 1},
    "selu": {0: SELU * SELU_ALPHA},
    "celu": {0: 1},
    "hard_swish": {-3: 0, 3: 1},
    "softsign": {0: 1},
}


def check_kinks(ops, dtype, name):
    f = activations[name]
    z = np.array([[[*KINKS[name]]]], np.float64)
    size = z.shape[2]
    p = send(ops, constants(name, 1, dtype), dtype)
    given, n = send(ops, z, dtype), empty(ops, z.shape, dtype)
    ops.activate(f, given, send(ops, np.zeros((1, size)), dtype), n, p)
    delta, db = send(ops, np.ones_like(z), dtype), empty(ops, (1, size), dtype)
    dp = empty(ops, (1,), dtype) if f.learned else None
    ops.backprop(f, given, n, delta, db, p, dp)
    expected = np.array([*KINKS[name].values()], np.float64)
    np.testing.assert_allclose(ops.to_host(delta)[0, 0], expected, atol=TOLERANCE[dtype])
