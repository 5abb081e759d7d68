"""The training rows of an estimator, dense or sparse, and its validation set."""

from __future__ import annotations

import numpy as np

from gpumlp.model import arrays
from gpumlp.training.evaluate import Evaluation
from gpumlp.training.placement import make_rows

# A sparse matrix with more non-zeros than this part of its places is made dense, unless it takes
# more bytes then: its products are faster so.
FULL = 0.1
DENSE_BYTES = 1 << 30


def dense_if_full(X):
    """Sparse X, made dense if it is rather full."""
    places = X.shape[0] * X.shape[1]
    if X.nnz > FULL * places and places * np.dtype(X.dtype).itemsize <= DENSE_BYTES:
        return X.toarray()
    return X


def alike(samples, trained):
    """Validation samples, dense where those that are trained on are."""
    if arrays.is_sparse(samples.X) and not arrays.is_sparse(trained.X):
        return samples._replace(X=samples.X.toarray())
    return samples


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
    """

    def __init__(self, net, objective, X, y, weight, batch_size: int):
        self.count, self.batch_size = X.shape[0], batch_size
        self.sizes = batch_sizes(self.count, batch_size)
        self._rows = make_rows(net, objective, X, y, weight, batch_size)

    def run(self, trainer, order, interrupt):
        """An epoch in that order, as an `Epoch`; None where Ctrl-C came before its end."""
        if order is not None:
            order = order.astype(np.int32)[None]
        before = trainer.epoch
        epoch = trainer.run_epoch(self._rows, order, interrupt)
        return epoch if trainer.epoch > before else None
