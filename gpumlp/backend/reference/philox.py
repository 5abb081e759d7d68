"""Philox4x32-10, the counter-based random numbers of both backends (NumPy side).

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".  kernels/shared/philox.cuh is the
same function; both give the same bits, so that a seed gives the same masks on a CPU and on a GPU.

The key is the network's own 64-bit seed; the counter is (element / 4, layer, step, purpose), whose
four 32-bit results serve the elements 4 i .. 4 i + 3.
"""

import numpy as np

DROPOUT, SLOPE, SHUFFLE = 0, 1, 2  # purposes; the same numbers in kernels/shared/philox.cuh

_MULTIPLIER = np.array([0xD2511F53, 0xCD9E8D57], dtype=np.uint64)
_WEYL = np.array([0x9E3779B9, 0xBB67AE85], dtype=np.uint64)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox(c0, c1, c2, c3, key):
    """The four uint32 of each counter (c0, c1, c2, c3) under the uint64 key, all broadcast.

    Returns shape (..., 4).
    """
    c0, c1, c2, c3, key = np.broadcast_arrays(
        *(np.asarray(c).astype(np.uint64) for c in (c0, c1, c2, c3, key))
    )
    k0, k1 = key & _LOW, key >> _HALF
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLIER[0], c2 * _MULTIPLIER[1]
        c0, c1, c2, c3 = (
            (product1 >> _HALF) ^ c1 ^ k0,
            product1 & _LOW,
            (product0 >> _HALF) ^ c3 ^ k1,
            product0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return np.stack((c0, c1, c2, c3), axis=-1).astype(np.uint32)


def bits(seeds, size, layer, step, purpose):
    """uint32 for elements 0..size-1 of each of M networks: (M, size).

    seeds (M,) uint64; step: a scalar or (M,).
    """
    c0 = np.arange((size + 3) // 4, dtype=np.uint64)
    steps = np.broadcast_to(step, len(seeds))
    # One network at a time, so that its intermediate results stay in the cache.
    rows = [philox(c0, layer, t, purpose, seed) for t, seed in zip(steps, seeds, strict=True)]
    return np.stack(rows).reshape(len(seeds), -1)[:, :size]


def uniform(random_bits, dtype):
    """uint32 -> [0, 1), exactly representable: the upper 24 bits."""
    return (random_bits >> np.uint32(8)).astype(dtype) * dtype.type(2.0**-24)
