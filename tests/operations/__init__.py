"""Checks of the operations that gpumlp.backend specifies, each against float64 formulas of its own.

A check takes `ops`, the operations of one backend, and raises an AssertionError where a number is
wrong. test_operations.py runs them all; test_sanitizers.py and test_seeded_bugs.py run some of
them again on kernels that are instrumented, or broken on purpose.
"""

import math

import numpy as np

TOLERANCE = {"float32": 3e-6, "float64": 1e-12}
OUTSIDE = 12345.0  # what stands around a view, and must still stand there afterwards


def random(*shape, seed=0, scale=1.0):
    """Normally distributed float64."""
    return scale * np.random.default_rng([seed, *shape]).standard_normal(shape)


def rounded(array, dtype):
    """The float64 numbers that an array of dtype holds after rounding: what a backend is given."""
    return np.asarray(array, np.float64).astype(dtype).astype(np.float64)


def send(ops, array, dtype=None):
    """A copy of a NumPy array in the memory of the backend."""
    return ops.to_device(np.array(array, dtype))


def empty(ops, shape, dtype):
    """An array full of NaN, so that what is not written shows."""
    return send(ops, np.full(shape, np.nan), dtype)


def assert_close(ops, actual, expected, dtype, factor=1.0, what=""):
    """Equal within the rounding of dtype; NaN equals NaN."""
    tolerance = factor * TOLERANCE[dtype]
    actual = ops.to_host(actual).astype(np.float64)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance, err_msg=what)


def assert_same(ops, actual, expected, what=""):
    """Equal to the bit."""
    np.testing.assert_array_equal(ops.to_host(actual), expected, err_msg=what)


class Wide:
    """An array (M, ...) that is a view into wider rows, as parameters are views of theta."""

    MARGIN = 32  # elements: 128 bytes of float32, so that the view is aligned as theta's are

    def __init__(self, ops, array, dtype):
        array = np.asarray(array)
        self._ops = ops
        self._stop = self.MARGIN + math.prod(array.shape[1:])
        width = math.ceil(self._stop / self.MARGIN + 1) * self.MARGIN
        rows = np.full((len(array), width), OUTSIDE, dtype)
        rows[:, self.MARGIN : self._stop] = array.reshape(len(array), -1)
        self._rows = send(ops, rows)
        self.view = self._rows[:, self.MARGIN : self._stop].reshape(array.shape)

    def assert_untouched_outside(self):
        rows = self._ops.to_host(self._rows)
        assert (rows[:, : self.MARGIN] == OUTSIDE).all(), "written before the view"
        assert (rows[:, self._stop :] == OUTSIDE).all(), "written behind the view"
