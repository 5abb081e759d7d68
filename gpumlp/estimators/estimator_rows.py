"""The training rows of an estimator, dense or sparse, and its validation set."""

from __future__ import annotations

import numpy as np

from gpumlp.backend.contract import Data
from gpumlp.model import arrays
from gpumlp.training.evaluate import Evaluation
from gpumlp.training.placement import make_rows
from gpumlp.training.rows import kept_dtype, read

# A sparse matrix with more non-zeros than this part of its places is made dense, unless it takes
# more bytes then: its products are faster so.
FULL = 0.1
DENSE_BYTES = 1 << 30
# Rows of a partial_fit of no more bytes are copied, and the next ones written over them.
KEPT_BYTES = 1 << 20


def dense_if_full(X):
    """Sparse X, made dense if it is rather full."""
    full = X.nnz > FULL * X.shape[0] * X.shape[1]
    return X.toarray() if full and _dense_bytes(X) <= DENSE_BYTES else X


def alike(samples, trained):
    """Validation samples, dense where those that are trained on are, unless they take too much."""
    X = samples.X
    if arrays.is_sparse(X) and not arrays.is_sparse(trained.X) and _dense_bytes(X) <= DENSE_BYTES:
        return samples._replace(X=X.toarray())
    return samples


def rather_full(X) -> bool:
    """Whether dense rows have so many non-zeros that they are to stay dense; of rows on a GPU that
    is not counted."""
    return arrays.is_on_gpu(X) or np.count_nonzero(X) > 2 * FULL * X.size


def _dense_bytes(X) -> int:
    return X.shape[0] * X.shape[1] * np.dtype(X.dtype).itemsize


def rows_of(X, index):
    """X[index], on the side that X is on."""
    if not arrays.is_on_gpu(X):
        return X[index]
    import cupy

    index = cupy.asarray(index)
    return X[index] if arrays.is_sparse(X) else cupy.take(X, index, axis=0)


def evaluation(net, objective, X, y, weight):
    """A function that returns loss and accuracy (or None) of a validation set."""
    made = Evaluation(net, objective, X, y, weight)

    def evaluate():
        with net.ops.on_device():
            loss, accuracy = made()
        return float(loss[0]), None if accuracy is None else float(accuracy[0])

    return evaluate


def batch_sizes(count: int, batch_size: int) -> np.ndarray:
    """The number of rows of each batch, of `count` rows in all."""
    starts = np.arange(0, count, batch_size)
    return np.minimum(batch_size, count - starts)


class EstimatorRows:
    """The rows of a fit, on the device during the whole fit if it has room for them.

    sizes: rows of each batch.
    kept:  whether the arrays are copies on the device, over which others may be written.
    """

    def __init__(self, net, objective, X, y, weight, batch_size: int, keep: bool = False):
        self.count, self.batch_size = X.shape[0], batch_size
        self.sizes = batch_sizes(self.count, batch_size)
        self._rows = make_rows(net, objective, X, y, weight, batch_size)
        self.kept = keep and self._rows.source is not None
        if self.kept:
            self._rows.data = Data(*(None if a is None else a.copy() for a in self._rows.data))

    def replace(self, net, objective, X, y, weight, batch_size: int) -> bool:
        """Write other rows over these, which are kept; False where their arrays are others.

        What was captured of the steps on these rows then serves the others.
        """
        data, old = read(net, objective, X, y, weight), self._rows.data
        pairs = [(a, b) for a, b in zip(old, data, strict=True) if a is not None or b is not None]
        same = all(a is not None and b is not None and a.shape == b.shape for a, b in pairs)
        if not same or batch_size != self.batch_size or kept_dtype(net, data.x) != old.x.dtype:
            return False
        for array, values in pairs:
            array[...] = net.ops.to_device(values)
        self._rows.arrange(np.arange(self.count, dtype=np.int32)[None])
        return True

    def run(self, trainer, order, interrupt):
        """An epoch in that order, as an `Epoch`; None where Ctrl-C came before its end."""
        if order is not None:
            order = order.astype(np.int32)[None]
        before = trainer.epoch
        epoch = trainer.run_epoch(self._rows, order, interrupt)
        return epoch if trainer.epoch > before else None
