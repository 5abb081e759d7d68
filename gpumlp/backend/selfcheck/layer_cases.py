"""The cases of gemm, activate, backprop, sparse rows, scale, cast_bf16 and loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpumlp.backend.contract import Targets
from gpumlp.backend.selfcheck.case import (
    DTYPES,
    LOOSE,
    MODELS,
    Case,
    Side,
    case,
    constants,
    widened,
)
from gpumlp.functions.activation import Activation, activations
from gpumlp.functions.loss import Loss, losses, pair


def cases() -> Iterator[Case]:
    yield from _gemm()
    yield from _layers()
    yield from _losses()


# ------------------------------------------------------------------ gemm


def gemm(side: Side, shape, models=MODELS, ta=False, tb=False, alpha=1.0, beta=0.0, shared=""):
    rows, inner, columns = shape
    draw = side.rng.standard_normal
    a = draw((1 if shared == "a" else models, *((inner, rows) if ta else (rows, inner))))
    b = draw((1 if shared == "b" else models, *((columns, inner) if tb else (inner, columns))))
    out = side.normal(models, rows, columns) if beta else side.empty(models, rows, columns)
    side.ops.gemm(side.store(a), side.store(b), out, ta=ta, tb=tb, alpha=alpha, beta=beta)
    return [out]


def stored_gemm(side: Side, shape):
    """A product that is stored in bf16."""
    rows, inner, columns = shape
    draw, out = side.rng.standard_normal, side.blank(MODELS, rows, columns)
    a, b = draw((MODELS, rows, inner)), draw((MODELS, inner, columns))
    side.ops.gemm(side.store(a), side.store(b), out)
    return [out]


def _gemm() -> Iterator[Case]:
    small, large = (37, 5, 13), (128, 64, 256)
    for dtype in DTYPES:
        for models in (1, MODELS):
            for ta, tb in ((False, False), (False, True), (True, False), (True, True)):
                what = f"{'aT' if ta else 'a'} {'bT' if tb else 'b'}, M = {models}"
                options: dict[str, Any] = {"models": models, "ta": ta, "tb": tb}
                yield case("gemm", what, dtype, gemm, small, first=models > 1, **options)
        for shared in "ab":
            what, options = f"one {shared} for all", {"shared": shared, "tb": True}
            yield case("gemm", what, dtype, gemm, small, first=True, **options)
        options = {"alpha": 0.5, "beta": -2.0, "ta": True}
        yield case("gemm", "alpha and beta", dtype, gemm, small, first=True, **options)
        yield case("gemm", "128 x 64 x 256", dtype, gemm, large, tb=True)
    for name, shape in (("37 x 5 x 13", small), ("128 x 64 x 256", large)):
        yield case("gemm", name, "tf32", gemm, shape, gpu=True)
        yield case("gemm", f"{name}, into float32", "bf16", gemm, shape, gpu=True)
        yield case("gemm", name, "bf16", stored_gemm, shape, gpu=True)


# ------------------------------------------------------------------ a layer

# Rows and columns: the latter of 128 bits in packs; and so many rows that a thread takes several.
SHAPES = (37, 37), (70, 40)
MANY = 3000, 40


def activate(side: Side, f: Activation, dropout=False, shapes=SHAPES):
    results = []
    for rows, columns in shapes:
        z = side.store(3 * side.rng.standard_normal((MODELS, rows, columns)))
        b, n = side.normal(MODELS, columns), side.blank(MODELS, rows, columns)
        side.ops.activate(f, z, b, n, constants(side, f), _noise(side, f, dropout))
        results += [n, z] if f.df_from == "z" and not f.rows else [n]
    return results


def backprop(side: Side, f: Activation, dropout=False, shapes=SHAPES):
    results = []
    p, noise = constants(side, f), _noise(side, f, dropout)
    for rows, columns in shapes:
        z, delta = side.rng.standard_normal((2, MODELS, rows, columns))
        n = side.store(f.f(3 * z, [*f.p, 0.0, 0.0]))
        z, delta = side.store(3 * z), side.store(delta)
        if dropout:  # n is what dropout has left of it
            side.ops.activate(f, z, side.send(np.zeros((MODELS, columns))), n, p, noise)
        db, dp = side.empty(MODELS, columns), side.empty(MODELS) if f.learned else None
        side.ops.backprop(f, z, n, delta, db, p, dp, noise)
        results += [delta, db] + [dp] * f.learned
    return results


def _batches(side: Side, width: int):
    """Batches of sparse rows: as they stand, and by numbers of which some are padding."""
    yield side.sparse(37, width)
    yield side.sparse(90, width, side.rng.integers(-1, 90, (MODELS, 70)))


def sparse_product(side: Side, out_stored=True, width=300):
    results = []
    for x in _batches(side, width):
        for units in (37, 40):
            WT = side.store(side.rng.standard_normal((MODELS, width, units)))
            make = side.blank if out_stored else side.empty
            results.append(make(MODELS, x.shape[1], units))
            side.ops.sparse_product(x, WT, results[-1])
    return results


def sparse_gradient(side: Side, units=37, width=300):
    """The gradients of two batches, one after the other in the same place."""
    results = []
    out, occurs = side.empty(MODELS, width, units), side.send(np.ones((MODELS, width)), np.uint8)
    for x in _batches(side, width):
        delta = side.store(side.rng.standard_normal((MODELS, x.shape[1], units)))
        side.ops.sparse_gradient(x, delta, occurs, out)
        results += [out.copy(), occurs.copy()]
    return results


def scale(side: Side):
    results = []
    for rows, columns in (*SHAPES, MANY):
        V, s = side.normal(MODELS, rows, columns), side.normal(MODELS, columns)
        out = side.blank(MODELS, rows, columns)
        side.ops.scale(V, s, out)
        results.append(out)
    return results


def scale_gradient(side: Side):
    results = []
    for rows, columns in (*SHAPES, MANY):
        G, V = side.normal(MODELS, rows, columns), side.normal(MODELS, rows, columns)
        s, ds = side.normal(MODELS, columns), side.empty(MODELS, columns)
        side.ops.scale_gradient(G, V, s, ds)
        results += [G, ds]
    return results


def cast_bf16(side: Side):
    """Rounding of float32 to bf16, the same on both sides."""
    a = side.rng.standard_normal((MODELS, 1029)).astype(np.float32)
    a[:, :3] = [np.inf, -0.0, np.float32(1 + 2**-8)]  # the last is halfway
    a.view(np.uint32)[:, 3] = 0x7FFFFFFF  # a NaN, of which rounding would make -0
    out = side.ops.to_device(np.zeros(a.shape, np.uint16))
    side.ops.cast_bf16(side.ops.to_device(a), out)
    return [widened(side.ops.to_host(out))]


def _noise(side: Side, f: Activation, dropout: bool):
    return side.noise(dropout) if dropout or f.random else None


def _layers() -> Iterator[Case]:
    functions = {f.name: f for f in activations.values()}
    kinds = [(dtype, name) for dtype in DTYPES for name in functions]
    kinds += [("bf16", name) for name in ("identity", "relu", "tanh", "gelu", "prelu")]
    for dtype, name in kinds:
        f = functions[name]
        options: dict[str, Any] = {"gpu": dtype == "bf16", "first": name in ("identity", "relu")}
        if f.rows:
            yield case("activate", name, dtype, activate, f, first=name == "softmax")
            continue
        yield case("activate", name, dtype, activate, f, **options)
        yield case("backprop", name, dtype, backprop, f, factor=LOOSE, **options)
    for dtype, name in [(dtype, name) for dtype in (*DTYPES, "bf16") for name in ("relu", "gelu")]:
        f, what = functions[name], f"{name}, dropout"
        options = {"gpu": dtype == "bf16", "first": name == "relu", "dropout": True}
        yield case("activate", what, dtype, activate, f, **options)
        yield case("backprop", what, dtype, backprop, f, factor=LOOSE, **options)
    many: dict[str, Any] = {"shapes": [MANY]}
    yield case("activate", "relu, many rows", "float32", activate, functions["relu"], **many)
    many |= {"factor": LOOSE}
    yield case("backprop", "relu, many rows", "float32", backprop, functions["relu"], **many)
    for dtype in DTYPES:
        yield case("sparse_product", "x WT", dtype, sparse_product)
        yield case("sparse_gradient", "xT delta", dtype, sparse_gradient, factor=LOOSE)
        yield case("scale", "V diag(s)", dtype, scale)
        yield case("scale_gradient", "by V and s", dtype, scale_gradient, factor=LOOSE)
    yield case("sparse_product", "x WT", "bf16", sparse_product, gpu=True)
    what, options = "x WT, into float32", {"out_stored": False}
    yield case("sparse_product", what, "bf16", sparse_product, gpu=True, **options)
    yield case("sparse_gradient", "xT delta", "bf16", sparse_gradient, factor=LOOSE, gpu=True)
    yield case("scale", "V diag(s)", "bf16", scale, gpu=True)
    yield case("cast_bf16", "float32 to bf16", "bf16", cast_bf16, factor=0.0, gpu=True)


# ------------------------------------------------------------------ the loss


def loss(side: Side, of: Loss, output: Activation):
    """Value and delta, and the value alone, of dense targets and, where there are any, labels."""
    form, results = pair(of, output), []
    for rows, columns in [(71, 10), (33, 12), *([] if form.rows else [(9, 1)])]:
        u = side.rng.standard_normal((MODELS, rows, columns)).clip(-2, 2)
        u = side.send(u if form.fused else output.f(u, [*output.p, 0.0, 0.0]))
        b = side.normal(MODELS, columns) if form.fused else None
        w = side.rng.uniform(0.2, 2, (MODELS, rows))
        w[:, 2::3] = 0
        w_sum, p = side.send(w.sum(axis=1)), side.send([[*of.p, 0.0, 0.0]])
        w = side.send(w)
        for y in _targets(side, of, rows, columns):
            delta, value = side.blank(MODELS, rows, columns), side.empty(MODELS)
            alone, arguments = side.empty(MODELS), (form, u, b, y, w, w_sum)
            side.ops.loss(*arguments, True, p, delta, value)
            side.ops.loss(*arguments, False, p, None, alone)
            results += [delta, value, alone]
    return results


# The losses of the estimators, and the output of each.
REPORTED = {
    "log_loss": "softmax",
    "binary_log_loss": "sigmoid",
    "mean_squared_error": "identity",
    "poisson_deviance": "exp",
}


def reported_loss(side: Side, name: str):
    from gpumlp.functions import (
        sklearn_losses as reported,  # with scikit-learn, which takes a while
    )

    of = {
        "log_loss": lambda: reported.log_loss(side.dtype),
        "binary_log_loss": lambda: reported.binary_log_loss(side.dtype),
        "mean_squared_error": lambda: reported.squared_error(outputs=10),
        "poisson_deviance": reported.poisson,
    }[name]()
    return loss(side, of, activations[REPORTED[name]])


def _targets(side: Side, of: Loss, rows: int, columns: int) -> Iterator[Targets]:
    scale, shift = of.target_scale(columns)
    shape = MODELS, rows, columns
    if of.classes:
        labels = side.rng.integers(0, max(columns, 2), (MODELS, rows))
        yield Targets(side.send(labels, np.int32), None, scale, shift)
        y = side.rng.random(shape)
        y /= y.sum(axis=-1, keepdims=True) if columns > 1 else 1
    elif of.bounds[0] == 0:
        y = np.floor(side.rng.uniform(0, 5, shape))
    else:
        y = side.rng.standard_normal(shape)
    yield Targets(None, side.send(y), scale, shift)


def pairs(of: Loss) -> dict:
    """The `OutputLoss`es of a loss, each with the first output activation that it is for."""
    ways: dict = {}
    for name, f in activations.items():
        if of.outputs is None or name in of.outputs:
            ways.setdefault(pair(of, f), f)
    return ways


def _losses() -> Iterator[Case]:
    for dtype in DTYPES:
        for name, of in losses.items():
            for form, output in pairs(of).items():
                first = name == "cross_entropy" and form.rows
                what, options = f"{name}, {output.name}", {"factor": LOOSE, "first": first}
                yield case("loss", what, dtype, loss, of, output, **options)
        for name, output in REPORTED.items():
            options = {"factor": LOOSE}
            yield case("loss", f"{name}, {output}", dtype, reported_loss, name, **options)
    for name, output in (("cross_entropy", "softmax"), ("squared_error", "identity")):
        of, f = losses[name], activations[output]
        yield case("loss", f"{name}, {output}", "bf16", loss, of, f, factor=LOOSE, gpu=True)
