"""A case of the self-check: an operation on small random arrays, and the side that computes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gpumlp.backend.contract import Noise
from gpumlp.backend.reference.numpy_ops import NumpyOps
from gpumlp.backend.sparse_rows import SparseRows

SEED = 7
MODELS = 3
DTYPES = ("float32", "float64")

# Errors that are allowed, of an element in proportion to it plus the array's mean.  Wrong kernels
# are wrong by far more; TF32 and bf16 round the factors of products, or what is stored.
TOLERANCE = {"float32": 2e-5, "float64": 1e-11, "tf32": 3e-2, "bf16": 1e-2}
LOOSE = 5.0  # the factor for what takes several operations, or a difference of nearly equal numbers


class Case(NamedTuple):
    """One row of the table that `gpumlp info --check` prints."""

    operation: str
    what: str
    dtype: str  # a dtype, or a `precision` of gpumlp.MLP
    work: Callable[[Side], list | None]  # the arrays that come out; None where it cannot be done
    tolerance: float
    first: bool = False  # when a GPU is first used: of the programs that most fits need
    gpu: bool = False  # there is nothing of the kind on the CPU

    def __str__(self) -> str:
        return f"{self.operation} ({self.what}, {self.dtype})"


class Side:
    """One side of a case: operations, and arrays of the same random numbers as on the other side.

    exact: by NumPy, where numbers that were rounded to the case's dtype are float64.
    """

    def __init__(self, ops, dtype: str, exact: bool):
        self.ops, self.exact = ops, exact
        self.rng = np.random.default_rng(SEED)
        self.dtype = np.dtype("float64" if dtype == "float64" else "float32")
        self.real = np.dtype("float64") if exact else self.dtype
        self._bf16 = dtype == "bf16"

    def send(self, values, dtype=None):
        """Send numbers to the side's device, rounded to its dtype, or in a dtype of their own."""
        if dtype is None:
            values, dtype = np.asarray(values).astype(self.dtype), self.real
        return self.ops.to_device(np.array(values, dtype))

    def store(self, values):
        """Send numbers that are stored in bf16, as their bits, in a case of that dtype."""
        if not self._bf16:
            return self.send(values)
        bits = np.empty(np.shape(values), np.uint16)
        NumpyOps().cast_bf16(np.asarray(values, np.float32), bits)
        return self.send(widened(bits)) if self.exact else self.ops.to_device(bits)

    def normal(self, *shape, scale=1.0):
        return self.send(scale * self.rng.standard_normal(shape))

    def empty(self, *shape):
        """An array of NaN, which shows what is not written."""
        return self.send(np.full(shape, np.nan))

    def blank(self, *shape):
        """An array of NaN that may be stored in bf16."""
        return self.store(np.full(shape, np.nan))

    def noise(self, dropout: bool) -> Noise:
        """Randomness of a layer; the three networks drop units with different probabilities."""
        return Noise(
            seeds=self.send([7, 2**63 + 5, 2**32 + 7], np.uint64),
            step=self.send([0, 41, 2**31 + 3], np.int64),
            layer=3,
            dropout=self.send([2**31, 2**29, 2**32 - 2**29], np.uint32) if dropout else None,
        )

    def sparse(self, rows: int, width: int, numbers=None) -> SparseRows:
        """Rows of 0 to 9 non-zeros; `numbers` of them that make up a batch."""
        lengths = self.rng.integers(0, 10, rows)
        starts = np.concatenate(([0], np.cumsum(lengths)))
        columns = [self.rng.choice(width, length, replace=False) for length in lengths]
        return SparseRows(
            values=self.normal(starts[-1]),
            columns=self.send(np.concatenate(columns), np.int32),
            starts=self.send(starts, np.int64),
            width=width,
            numbers=None if numbers is None else self.send(numbers, np.int32),
        )

    def read(self, array):
        """Copy an array to the host: real numbers as float64, integers as they are."""
        array = np.asarray(self.ops.to_host(array))
        array = widened(array) if self._bf16 and array.dtype == np.uint16 else array
        return array.astype(np.float64) if array.dtype.kind == "f" else array


def widened(bits):
    """Convert bits of bf16 to float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def constants(side: Side, f):
    """p of an activation; a learned slope is each network's own."""
    p = np.array([[*f.p, 0.0, 0.0][:2]])
    return side.send(p * [[1], [-2], [6]] if f.learned else p)


def case(operation, what, dtype, work, *args, factor=1.0, first=False, gpu=False, **options):
    """The case of work(side, *args, **options); `first` holds in float32 alone."""

    def done(side):
        return work(side, *args, **options)

    tolerance = factor * TOLERANCE[dtype]
    return Case(operation, what, dtype, done, tolerance, first and dtype == "float32", gpu)
