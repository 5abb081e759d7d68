"""Rows of which only the non-zeros are stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class SparseRows:
    """Sparse rows in CSR form, shared by all networks: x of `Data` and of `Batch`.

    Row r of R is 0 but for values[starts[r] : starts[r + 1]] in columns[starts[r] : starts[r + 1]].

    values:  (nnz,).
    columns: (nnz,) int32, from 0 to width - 1.
    starts:  (R + 1,) int64.
    width:   N_0.
    numbers: (1 or M, B) int32, the rows of a minibatch by their numbers r, -1 for a row of zeros;
             None: all R rows as they stand.
    """

    values: Any
    columns: Any
    starts: Any
    width: int
    numbers: Any = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """As of a dense array (1 or M, B, N_0)."""
        rows = len(self.starts) - 1 if self.numbers is None else self.numbers.shape[1]
        return len(self), rows, self.width

    def __len__(self) -> int:
        return 1 if self.numbers is None else len(self.numbers)

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    @property
    def nbytes(self) -> int:
        """Of the non-zeros and their places."""
        return self.values.nbytes + self.columns.nbytes + self.starts.nbytes

    @property
    def arrays(self) -> tuple:
        return self.values, self.columns, self.starts, self.numbers

    def mean_non_zeros(self, rows: int) -> int:
        """The non-zeros that so many of the rows have in the mean, at least 1."""
        return 1 + len(self.values) * rows // (len(self.starts) - 1)

    def slice(self, start: int, stop: int) -> SparseRows:
        """Some of the rows as they stand; no non-zeros are copied, and on the host all others are
        left out."""
        starts = self.starts[start : stop + 1]
        if not isinstance(starts, np.ndarray):
            return replace(self, starts=starts)
        part = slice(starts[0], starts[-1])
        values, columns = self.values[part], self.columns[part]
        return replace(self, values=values, columns=columns, starts=starts - starts[0])

    def take(self, index: Any) -> SparseRows:
        """A copy of the rows of that index, an array or a slice, on the host."""
        first = self.starts[:-1][index]
        lengths = self.starts[1:][index] - first
        starts = np.concatenate(([0], np.cumsum(lengths)))
        places = np.arange(starts[-1]) + np.repeat(first - starts[:-1], lengths)
        return replace(
            self, values=self.values[places], columns=self.columns[places], starts=starts
        )
