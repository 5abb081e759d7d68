"""Sparse rows for tests, on the host and on a GPU."""

import numpy as np
from scipy import sparse


def sparse_rows(rows, features, filled=0.1, seed=0, dtype="float64"):
    """A CSR matrix: some rows are empty, and some features occur in most rows."""
    rng = np.random.default_rng([rows, features, seed])
    popular = np.where(np.arange(features) % 7 == 3, 0.6, filled)
    there = (rng.random((rows, features)) < popular) & (np.arange(rows) % 5 != 2)[:, None]
    values = rng.normal(size=(rows, features)).round(3) + 2
    return sparse.csr_matrix(np.where(there, values, 0).astype(dtype))


class GpuSparse:
    """As a CSR matrix of cupyx: what the library asks of one.  Nothing makes it dense."""

    format = "csr"

    def __init__(self, matrix):
        import cupy

        self._matrix = sparse.csr_matrix(matrix)
        parts = self._matrix.data, self._matrix.indices, self._matrix.indptr
        self.data, self.indices, self.indptr = map(cupy.asarray, parts)
        self.shape, self.dtype, self.ndim = self._matrix.shape, self._matrix.dtype, 2
        self.nnz = self._matrix.nnz
        self.device = self.data.device

    def get(self):
        raise AssertionError("it goes to the host")

    def toarray(self):
        raise AssertionError("it is made dense")

    def tocsr(self):
        return self

    def astype(self, dtype):
        return GpuSparse(self._matrix.astype(dtype))

    def __getitem__(self, index):
        import cupy

        return GpuSparse(self._matrix[cupy.asnumpy(index)])


def on_gpu(matrix):
    """The matrix on the GPU: of cupyx where there is one, else what plays it."""
    import cupy

    if hasattr(cupy, "__file__"):
        from cupyx.scipy import sparse as of_cupy

        return of_cupy.csr_matrix(matrix)
    return GpuSparse(matrix)
