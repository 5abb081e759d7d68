"""Arrays in bfloat16: what the kernels store is within half a unit of its last place, and `narrow`
equal to the bit, against a rounding of numbers instead of bits."""

import numpy as np

from gpumlp.backend.contract import Batch, Data
from gpumlp.functions.activation import activations
from gpumlp.functions.loss import pair

from . import (
    TOLERANCE,
    Wide,
    assert_close,
    assert_same,
    empty,
    losses,
    minibatches,
    noise,
    random,
    send,
    sparse,
)
from . import rounded as round_to
from .layers import constants, evaluate

REAL = "float32"
NAN = 0x7FFF  # as the GPU's own conversion gives it


def rounded(values):
    """The nearest bfloat16 numbers, of two equally near the one whose last bit is 0, as float64."""
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        values = np.asarray(values, np.float64)
    exponent = np.maximum(np.frexp(values)[1] - 8, -133)  # of the last place; 2^-133 is the least
    nearest = np.ldexp(np.rint(np.ldexp(values, -exponent)), exponent)
    return np.where(np.abs(nearest) >= 2.0**128, np.copysign(np.inf, values), nearest)


def bits(values):
    """The bits of numbers that bfloat16 holds: the upper half of a float32's."""
    upper = np.asarray(values, np.float32).view(np.uint32) >> 16
    return np.where(np.isnan(values), NAN, upper).astype(np.uint16)


def numbers(ops, array):
    """The numbers in an array of bits on the device, as float64; other arrays as they are."""
    host = ops.to_host(array)
    if host.dtype == np.uint16:
        host = (host.astype(np.uint32) << 16).view(np.float32)
    return host.astype(np.float64)


def put(ops, values, stored="uint16"):
    """An array of bfloat16 numbers on the device, in bits or as float32."""
    return send(ops, bits(values) if stored == "uint16" else values, stored)


def assert_nearest(ops, array, expected, factor=1.0, what=""):
    """Within half a unit of bfloat16's last place, but for what float32 had rounded before."""
    half = np.ldexp(1.0, np.frexp(expected)[1] - 9)
    slack = factor * TOLERANCE[REAL] * (1 + np.abs(expected))
    error = np.abs(numbers(ops, array) - expected)
    worst = np.unravel_index(np.argmax(error - half - slack), error.shape)
    assert (error <= half + slack).all(), f"{what}: {error[worst]} at {worst}, not {half[worst]}"


# ------------------------------------------------------------------ one layer


def check_activate(ops, models, name, shape):
    """n = f(z + b) into another array and in place; the sum is not rounded before f."""
    f = activations[name]
    z, b = rounded(random(models, *shape, seed=4, scale=3)), random(models, shape[1], seed=5)
    b, p = round_to(b, REAL), constants(name, models, REAL)
    total = z + b[:, None, :]
    expected, _ = evaluate(name, total, p)

    wide_b, given_p = Wide(ops, b, REAL), send(ops, p, REAL)
    given_z, n = put(ops, z), send(ops, np.full(z.shape, NAN), np.uint16)
    ops.activate(f, given_z, wide_b.view, n, given_p)
    assert_nearest(ops, n, expected, 1, f"{name} {shape}")
    if f.df_from == "z":
        assert_nearest(ops, given_z, total, 1, "z + b")
    given_z = put(ops, z)
    ops.activate(f, given_z, wide_b.view, given_z, given_p)
    assert_nearest(ops, given_z, expected, 1, f"{name} {shape} in place")


def check_backprop(ops, models, name, shape, stored="uint16"):
    """delta <- f' delta; db is the sum of what was not yet rounded. z and n as `stored`."""
    f = activations[name]
    z, delta = random(models, *shape, seed=6, scale=3), rounded(random(models, *shape, seed=7))
    z = rounded(z) if stored == "uint16" else round_to(z, stored)
    p = constants(name, models, REAL)
    n, df = evaluate(name, z, p)
    if f.df_from == "n":  # from the n that is stored: NumPy's f', which has checks of its own
        n = rounded(n) if stored == "uint16" else round_to(n, stored)
        df = f.df(z, n, (p[:, 0, None, None], p[:, 1, None, None]))
    expected = df * delta

    kept = {"z": z, "n": n} | {"n" if f.df_from == "z" else "z": np.full_like(z, np.nan)}
    given, db = put(ops, delta), Wide(ops, np.full((models, shape[1]), np.nan), REAL)
    dp = empty(ops, (models,), REAL) if f.learned else None
    z_and_n = (put(ops, kept[each], stored) for each in "zn")
    ops.backprop(f, *z_and_n, given, db.view, send(ops, p, REAL), dp)
    assert_nearest(ops, given, expected, 3, f"{name} {shape}")
    assert_close(ops, db.view, expected.sum(axis=1), REAL, 3 * np.sqrt(shape[0]), f"db of {name}")
    db.assert_untouched_outside()
    if f.learned:
        slope = (delta * np.minimum(z, 0)).sum(axis=(1, 2))
        assert_close(ops, dp, slope, REAL, 10 * np.sqrt(delta[0].size), "dp")


def check_dropout_mask(ops, models, shape):
    """The same elements as with float32 arrays, forward and backward."""
    identity, given_noise = activations["identity"], noise.make_noise(ops, models, dropout=True)
    ones, p = np.ones((models, *shape)), send(ops, np.zeros((1, 2)), REAL)
    zero, db = send(ops, np.zeros((models, shape[1])), REAL), empty(ops, (models, shape[1]), REAL)
    z, n, delta = put(ops, ones), put(ops, 0 * ones), put(ops, ones)
    expected = noise.kept_times_scale(models, shape, REAL)
    ops.activate(identity, z, zero, n, p, given_noise)
    assert_same(ops, n, bits(rounded(expected)), "forward")
    ops.backprop(identity, z, n, delta, db, p, noise=given_noise)
    assert_same(ops, delta, bits(rounded(expected)), "backward")
    assert_close(ops, db, expected.astype(np.float64).sum(axis=1), REAL, 10, "db")


def check_drawn_slopes(ops, models, shape):
    """And the same slopes of RReLU: f(-1) = -slope."""
    f = activations["rrelu"](lower=0.0, upper=1.0)
    given_noise = noise.make_noise(ops, models, dropout=False)
    p, zero = send(ops, [[0.0, 1.0]], REAL), send(ops, np.zeros((models, shape[1])), REAL)
    slopes = np.empty((models, *shape))
    for m, (seed, step) in enumerate(zip(noise.SEEDS[:models], noise.STEPS, strict=False)):
        drawn = noise.reference_bits(seed, shape[0] * shape[1], noise.LAYER, step, noise.SLOPE)
        slopes[m] = ((drawn >> 8) / 2**24).reshape(shape)
    z = put(ops, np.full(slopes.shape, -1.0))
    n, delta = put(ops, 0 * slopes), put(ops, np.ones_like(slopes))
    ops.activate(f, z, zero, n, p, given_noise)
    assert_same(ops, n, bits(-rounded(slopes)), "forward")
    ops.backprop(f, z, n, delta, empty(ops, (models, shape[1]), REAL), p, noise=given_noise)
    assert_same(ops, delta, bits(rounded(slopes)), "backward")


# ------------------------------------------------------------------ the loss and minibatches


def check_loss(ops, models, name, options, output, kind, shape):
    """delta in bfloat16; the value is what it is with delta in float32."""
    rows, columns = shape
    fused = pair(losses.losses[name], activations[output]).fused
    u = losses.make_u(output, models, rows, columns, REAL, fused)
    b = round_to(random(models, columns, seed=21), REAL)
    y = losses.make_targets(kind, models, rows, columns)
    y = y if kind == "label" else round_to(y, REAL)
    w = round_to(losses.make_weights(models, rows), REAL)
    total = round_to(u + b[:, None, :], REAL) if fused else u
    value, delta = losses.reference(name, options, output, total, y, w, True)
    given = losses.Given(ops, REAL, name, options, output, u, b, y, w, True)
    given.delta = send(ops, np.full(u.shape, NAN), np.uint16)
    given.run()
    assert_nearest(ops, given.delta, delta, 20 * (np.abs(delta).max() or 1.0), "delta")
    assert_close(ops, given.value, value, REAL, 20, "value")


def check_gather(ops, models, source, columns, rows=70):
    """x <- the rows of every type of data, rounded; padding is zeros."""
    data = minibatches.make_source(source, models, 90, columns)
    order = np.stack([np.random.default_rng(m).permutation(90)[:rows] for m in range(models)])
    order[:, rows // 2] = -1
    x = np.stack([data[m, order[m]] for m in range(models)]).astype(np.float64)
    expected = np.where((order >= 0)[..., None], rounded(x), 0)
    out = Batch(
        x=send(ops, np.full(x.shape, NAN), np.uint16),
        labels=None,
        dense=None,
        w=empty(ops, (models, rows), REAL),
        w_sum=empty(ops, (models,), REAL),
    )
    given = Data(send(ops, data), None, None, None), send(ops, order, np.int32)
    ops.gather(*given, send(ops, np.zeros(models), np.int64), rows, out)
    assert_same(ops, out.x, bits(expected), f"{source} {columns}")
    assert_same(ops, out.w_sum, (order >= 0).sum(axis=1).astype(REAL))


# ------------------------------------------------------------------ sparse rows


def check_sparse_product(ops, models, named, shape, stored="uint16", width=300):
    """z of W in bfloat16, as the last layer's too: in float32; x's values are float32."""
    rows, units = shape
    data = sparse.make_data(REAL, named, rows, width)
    batch = sparse.Picked(ops, data, named, models, rows)
    WT = rounded(random(models, width, units, seed=53))
    wide = Wide(ops, bits(WT), np.uint16)
    out = send(ops, np.full((models, rows, units), NAN if stored == "uint16" else np.nan), stored)
    ops.sparse_product(batch.rows, wide.view, out)
    expected = batch.x @ WT
    if stored == "uint16":
        assert_nearest(ops, out, expected, 10, f"{named} {shape}")
    else:
        assert_close(ops, out, expected, REAL, 10, f"{named} {shape}")


def check_sparse_gradient(ops, models, named, shape, width=300):
    """The gradient in float32 of delta in bfloat16."""
    rows, units = shape
    data = sparse.make_data(REAL, named, rows, width)
    batch = sparse.Picked(ops, data, named, models, rows)
    delta = rounded(random(models, rows, units, seed=54))
    occurs = send(ops, np.ones((models, width)), np.uint8)
    out = Wide(ops, np.full((models, width, units), np.nan), REAL)
    ops.sparse_gradient(batch.rows, put(ops, delta), occurs, out.view)
    assert_same(ops, occurs, 1 * batch.occurs)
    expected = batch.x.swapaxes(1, 2) @ delta
    assert_close(ops, out.view, expected, REAL, 3 * np.sqrt(rows), f"{named} {shape}")
    out.assert_untouched_outside()


# ------------------------------------------------------------------ narrow

# Bits of float32 numbers: zeros, ties with an even and an odd last place, what is beside them,
# the largest that stays finite and the least that does not, infinities, NaN, denormals.
SPECIAL = """
    00000000 80000000 3f800000 3f808000 3f818000 bf808000 bf818000 3f807fff 3f808001 3f817fff
    3f818001 3f7fffff 3fff7fff 3fff8000 7f7f7fff 7f7f8000 ff7f7fff ff7f8000 7f7fffff 7f800000
    ff800000 7fc00000 ffc00000 7f800001 7fffffff ff80ffff 00000001 00007fff 00008000 00008001
    00018000 807fffff 007f8000 00800000 00808000 00ffffff
"""


def check_scale(ops, models, shape):
    """W = V diag(s) in bfloat16: the product of the float32 numbers, rounded once."""
    V, s = (round_to(random(*of, seed=24), REAL) for of in ((models, *shape), (models, shape[1])))
    wide_V, wide_s = Wide(ops, V, REAL), Wide(ops, s, REAL)
    wide_out = Wide(ops, np.ones(V.shape), np.uint16)
    ops.scale(wide_V.view, wide_s.view, wide_out.view)
    exact = (V.astype(REAL) * s.astype(REAL)[:, None]).astype(np.float64)
    assert_same(ops, wide_out.view, bits(rounded(exact)), f"{shape}")
    wide_out.assert_untouched_outside()


def check_narrow(ops, size, models=1):
    """Special numbers first, then any bits; into rows of their own and rows of wider arrays."""
    special = np.array([int(word, 16) for word in SPECIAL.split()], np.uint32)
    any_bits = np.random.default_rng(size).integers(0, 2**32, (models, size), np.uint32)
    any_bits[:, : len(special)] = special[:size]
    a = any_bits.view(np.float32)
    expected = bits(rounded(a))

    out = send(ops, np.full(a.shape, 1), np.uint16)
    ops.cast_bf16(send(ops, a), out)
    assert_same(ops, out, expected, f"{size}")
    wide_a, wide_out = Wide(ops, a, REAL), Wide(ops, np.ones(a.shape), np.uint16)
    ops.cast_bf16(wide_a.view, wide_out.view)
    assert_same(ops, wide_out.view, expected, f"{size}, rows of wider arrays")
    wide_out.assert_untouched_outside()
    # From an odd place on: neither address is that of 128 bits.
    flat = send(ops, np.concatenate((np.zeros(1, REAL), a.reshape(-1))))
    flat_out = send(ops, np.full(a.size + 3, 1), np.uint16)
    ops.cast_bf16(flat[1:], flat_out[1:-2])
    assert_same(ops, flat_out, [1, *expected.reshape(-1), 1, 1], f"{size}, from an odd place on")


def check_narrow_places(ops, size=45):
    """From and to every place: by 128 bits only where both addresses are those of packs."""
    a = np.random.default_rng(size).standard_normal((1, size)).astype(np.float32)
    source = send(ops, np.zeros((1, size + 64)), REAL)
    out = send(ops, np.ones((1, size + 64)), np.uint16)
    # More places than addresses of packs are apart, so that none of them is mistaken for one.
    for start, to in [(start, 0) for start in range(64)] + [(0, to) for to in range(32)]:
        source[:, start : start + size], out[...] = send(ops, a), send(ops, np.uint16(1))
        ops.cast_bf16(source[:, start : start + size], out[:, to : to + size])
        expected = np.ones(out.shape)
        expected[:, to : to + size] = bits(rounded(a))
        assert_same(ops, out, expected, f"from place {start} to place {to}")
