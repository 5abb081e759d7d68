"""Philox, dropout and the drawn slopes of RReLU: equal to the bit on every backend."""

import numpy as np

from gpumlp.backend.contract import Noise
from gpumlp.backend.cuda import cuda_sources
from gpumlp.backend.reference import philox
from gpumlp.functions.activation import activations

from . import assert_close, assert_same, empty, random, rounded, send
from .layers import evaluate

DROPOUT, SLOPE, SHUFFLE = 0, 1, 2  # purposes: the last word of the counter

# Random123's published known-answer vectors of Philox4x32-10: counter, key, result.
KNOWN_ANSWERS = [
    (
        (0x00000000,) * 4,
        (0x00000000,) * 2,
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def philox4x32(counter, key):
    """Philox4x32-10 of Salmon et al. 2011, in Python's integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            (product1 >> 32) ^ c1 ^ k0,
            product1 & 0xFFFFFFFF,
            (product0 >> 32) ^ c3 ^ k1,
            product0 & 0xFFFFFFFF,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def reference_bits(seed, size, layer, step, purpose):
    """The bits of elements 0 .. size - 1: four to a counter."""
    key = seed & 0xFFFFFFFF, seed >> 32
    groups = [philox4x32((i, layer, step, purpose), key) for i in range((size + 3) // 4)]
    return np.array(groups, np.uint32).reshape(-1)[:size]


# The device function alone, behind a program of the library that contains it.
KERNEL = """
extern "C" __global__ void known_answers(
    const unsigned* counters, const unsigned long long* keys, unsigned* out, int count)
{
    const int i = int(threadIdx.x);
    if (i >= count) return;
    const unsigned* c = counters + 4 * i;
    const Philox four = philox(c[0], c[1], c[2], c[3], keys[i]);
    for (int v = 0; v < 4; ++v) out[4 * i + v] = four.v[v];
}
"""


def check_known_answers(ops):
    counters = np.array([counter for counter, _, _ in KNOWN_ANSWERS], np.uint32)
    keys = np.array([low | high << 32 for _, (low, high), _ in KNOWN_ANSWERS], np.uint64)
    answers = np.array([answer for _, _, answer in KNOWN_ANSWERS], np.uint32)
    if ops.device == "cpu":
        out = philox.philox(*counters.T, keys)
    else:
        code = cuda_sources.shuffle("float32") + KERNEL
        module = ops.xp.RawModule(code=code, options=("-std=c++17",))
        out = send(ops, np.zeros((len(keys), 4), np.uint32))
        arguments = send(ops, counters), send(ops, keys), out, np.int32(len(keys))
        module.get_function("known_answers")((1,), (32,), arguments)
    assert_same(ops, out, answers)


# ------------------------------------------------------------------ one layer

SEEDS = [7, 2**63 + 5, 2**32 + 7]  # the upper half of the key counts too
STEPS = [0, 41, 2**31 + 3]
PROBABILITY = [0.5, 0.1, 0.9]
LAYER = 3


def make_noise(ops, models, dropout):
    thresholds = [round(p * 2**32) for p in PROBABILITY[:models]]
    return Noise(
        seeds=send(ops, SEEDS[:models], np.uint64),
        step=send(ops, STEPS[:models], np.int64),
        layer=LAYER,
        dropout=send(ops, thresholds, np.uint32) if dropout else None,
    )


def kept_times_scale(models, shape, dtype):
    """keep / (1 - probability), (M, B, N) in dtype, from the definition."""
    real = np.dtype(dtype).type
    result = np.empty((models, *shape), dtype)
    for m in range(models):
        threshold = round(PROBABILITY[m] * 2**32)
        bits = reference_bits(SEEDS[m], shape[0] * shape[1], LAYER, STEPS[m], DROPOUT)
        scale = 1 / (1 - real(threshold) * real(2.0**-32))
        result[m] = np.where(bits >= threshold, scale, real(0)).reshape(shape)
    return result


def check_dropout_mask(ops, dtype, models, shape):
    """With identity on ones, forward and backward give keep / (1 - probability), to the bit."""
    identity, noise = activations["identity"], make_noise(ops, models, dropout=True)
    ones, p = np.ones((models, *shape)), send(ops, np.zeros((1, 2)), dtype)
    zero, n = send(ops, np.zeros((models, shape[1])), dtype), empty(ops, ones.shape, dtype)
    z, delta = send(ops, ones, dtype), send(ops, ones, dtype)
    expected = kept_times_scale(models, shape, dtype)
    ops.activate(identity, z, zero, n, p, noise)
    assert_same(ops, n, expected, "forward")
    db = empty(ops, (models, shape[1]), dtype)
    ops.backprop(identity, z, n, delta, db, p, noise=noise)
    assert_same(ops, delta, expected, "backward")
    sums = expected.astype(np.float64).sum(axis=1)
    assert_close(ops, db, sums, dtype, 10, "db")


def check_keep_rate(ops, dtype, shape=(70, 132)):
    """The share of kept elements is 1 - probability, and their mean 1."""
    noise, count = make_noise(ops, 3, dropout=True), shape[0] * shape[1]
    ones, p = np.ones((3, *shape)), send(ops, np.zeros((1, 2)), dtype)
    n, zero = empty(ops, ones.shape, dtype), send(ops, np.zeros((3, shape[1])), dtype)
    ops.activate(activations["identity"], send(ops, ones, dtype), zero, n, p, noise)
    n = ops.to_host(n).astype(np.float64)
    for m, probability in enumerate(PROBABILITY):
        deviation = np.sqrt(probability * (1 - probability) / count)
        assert abs((n[m] > 0).mean() - (1 - probability)) < 5 * deviation
        assert abs(n[m].mean() - 1) < 5 * deviation / (1 - probability)


def check_dropout_and_f(ops, dtype, models, shape, name):
    """n = f(z + b) keep / (1 - p), and delta through both: f' sees n as it was before dropout."""
    f, noise = activations[name], make_noise(ops, models, dropout=True)
    z, b = random(models, *shape, seed=10), random(models, shape[1], seed=11)
    z, b, delta = (rounded(a, dtype) for a in (z, b, random(models, *shape, seed=12)))
    total = rounded(z + b[:, None], dtype)
    constants = np.zeros((models, 2))
    value, slope = evaluate(name, total, constants)
    mask = kept_times_scale(models, shape, dtype).astype(np.float64)

    p = send(ops, np.zeros((1, 2)), dtype)
    given, n = send(ops, z, dtype), empty(ops, z.shape, dtype)
    ops.activate(f, given, send(ops, b, dtype), n, p, noise)
    assert_close(ops, n, value * mask, dtype, 3, "n")
    d, db = send(ops, delta, dtype), empty(ops, b.shape, dtype)
    ops.backprop(f, given, n, d, db, p, noise=noise)
    expected = delta * mask * slope
    assert_close(ops, d, expected, dtype, 10, "delta")
    assert ((ops.to_host(d) == 0) >= (mask == 0)).all(), "a dropped element has a gradient"
    assert_close(ops, db, expected.sum(axis=1), dtype, 50, "db")


def check_drawn_slopes(ops, dtype, models, shape):
    """With slopes from [0, 1), f(-1) = -slope: the upper 24 of the bits, forward and backward."""
    f = activations["rrelu"](lower=0.0, upper=1.0)
    noise, p = make_noise(ops, models, dropout=False), send(ops, [[0.0, 1.0]], dtype)
    slopes = np.empty((models, *shape))
    for m in range(models):
        bits = reference_bits(SEEDS[m], shape[0] * shape[1], LAYER, STEPS[m], SLOPE)
        slopes[m] = ((bits >> 8) / 2**24).reshape(shape)
    zero, n = send(ops, np.zeros((models, shape[1])), dtype), empty(ops, slopes.shape, dtype)
    z = send(ops, np.full(slopes.shape, -1.0), dtype)
    ops.activate(f, z, zero, n, p, noise)
    assert_same(ops, n, -slopes.astype(dtype), "forward")
    delta, db = send(ops, np.ones(slopes.shape), dtype), empty(ops, (models, shape[1]), dtype)
    ops.backprop(f, z, n, delta, db, p, noise=noise)
    assert_same(ops, delta, slopes.astype(dtype), "backward")
