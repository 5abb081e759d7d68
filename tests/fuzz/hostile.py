"""Values that are probably wrong where they are put."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

import gpumlp

SCALARS = (
    *(None, True, False, np.True_, 0, -1, 1, 2, 3, 7, 1.5, -0.5, 0.5, 1e-40, 1e-320, 1e39, 1e300),
    *(np.nan, np.inf, -np.inf, 2**31, 2**63, 2**64, 10**400, 1j, Fraction(1, 3), np.float16(0.1)),
    *("", "1", "relu", "softmax", "cross_entropy", "cuda:99", b"1", "\0", "ü" * 300),
    *([], (), {}, set(), {"a": 1}, [None], [[1], [2, 3]], [np.nan], [1, 2], [0.1, 0.2], range(3)),
    *(object(), int, len, np.ma.masked, np.datetime64("2020-01-01"), np.array(0.5), np.array(3)),
    *(np.array([0.1, 0.2]), np.ones((2, 2)), np.array(["a"]), np.array([None]), gpumlp.SGD),
)


def value(random, right):
    """A value that is probably wrong in the place of the right one."""
    if isinstance(right, np.ndarray) and random.integers(4):
        return _damaged(random, right.copy())
    return SCALARS[random.integers(len(SCALARS))]


def _damaged(random, array):
    place = tuple(random.integers(n) for n in array.shape)
    wrong = (np.nan, np.inf, -1e300, 1e39, -1, 1000)[random.integers(6)]
    other = array.astype(np.float64)
    other[place] = wrong
    shapes = [
        *(array[:-1], array[:0], array[None], array[..., None], array.ravel(), array.T),
        *(
            np.repeat(array, 2, axis=-1),
            np.stack([array] * 3),
            array[0],
            array[:, None, None],
        ),
    ]
    kinds = (
        *("S3", "U3", object, bool, complex, np.float16, ">f8", "datetime64[s]", np.longdouble),
        *(np.uint64, np.int8),
    )
    choices = [
        lambda: other,
        lambda: shapes[random.integers(len(shapes))],
        lambda: array.astype(np.int64).astype(kinds[random.integers(len(kinds))]),
        lambda: np.ma.array(array, mask=random.random(array.shape) < 0.1),
        lambda: [*array.tolist()[:-1], ["a"]],
        lambda: np.zeros_like(array),
    ]
    return choices[random.integers(len(choices))]()
