"""The training rows of an estimator: dense, or sparse and made dense in pieces.

Both classes have count, batch_size, sizes (rows of each batch) and run(trainer, order, interrupt):
an epoch in that order, which returns an `Epoch`, or None where Ctrl-C came before its end.
"""

from __future__ import annotations

import numpy as np

from gpumlp.model import arrays
from gpumlp.training.evaluate import Evaluation
from gpumlp.training.placement import make_rows
from gpumlp.training.rows import Rows, read

# A sparse matrix that is smaller than this when dense is made dense once.
DENSE_BYTES = 1 << 30
# Of a larger one, so much is dense at a time.
PIECE_BYTES = 64 << 20


def is_sparse(X) -> bool:
    """Whether X is a sparse matrix, of SciPy or cupyx."""
    return hasattr(X, "toarray")


def dense_if_small(X, dtype):
    """X, made dense if it is sparse and takes at most DENSE_BYTES then."""
    if is_sparse(X) and X.shape[0] * X.shape[1] * np.dtype(dtype).itemsize <= DENSE_BYTES:
        return X.toarray()
    return X


def rows_of(X, index):
    """X[index], on the side that X is on."""
    if not arrays.is_on_gpu(X):
        return X[index]
    import cupy

    return cupy.take(X, cupy.asarray(index), axis=0)


def make(net, objective, X, y, weight, batch_size: int):
    """The rows, in the form that suits X."""
    X = dense_if_small(X, net.dtype)
    kind = Pieces if is_sparse(X) else Dense
    return kind(net, objective, X, y, weight, batch_size)


def evaluation(net, objective, X, y, weight):
    """A function that returns loss and accuracy (or None) of a validation set."""
    X = dense_if_small(X, net.dtype)
    if is_sparse(X):
        return PieceEvaluation(net, objective, X, y, weight)
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


class Dense:
    """Dense rows, on the device during the whole fit if it has room for them."""

    def __init__(self, net, objective, X, y, weight, batch_size):
        self._net = net
        self.count, self.batch_size = len(X), batch_size
        self.sizes = batch_sizes(self.count, batch_size)
        self._rows = make_rows(net, objective, X, y, weight, batch_size)

    def run(self, trainer, order, interrupt):
        if order is not None:
            order = order.astype(np.int32)[None]
        before = trainer.epoch
        epoch = trainer.run_epoch(self._rows, order, interrupt)
        return epoch if trainer.epoch > before else None


class Pieces:
    """Sparse rows: a few batches of the epoch's order at a time are made dense and sent."""

    def __init__(self, net, objective, X, y, weight, batch_size):
        self._net, self._objective = net, objective
        self._X, self._y, self._weight = X.tocsr(), y, weight
        self.count, self.batch_size = X.shape[0], batch_size
        self.sizes = batch_sizes(self.count, batch_size)
        row_bytes = X.shape[1] * net.dtype.itemsize
        self._rows = max(1, PIECE_BYTES // (row_bytes * batch_size)) * batch_size

    def run(self, trainer, order, interrupt):
        order = np.arange(self.count) if order is None else order
        losses, weights = [], []
        done = None
        for start in range(0, self.count, self._rows):
            piece = order[start : start + self._rows]
            weight = None if self._weight is None else self._weight[piece]
            if weight is not None and not weight.any():
                nothing = np.zeros((len(batch_sizes(len(piece), self.batch_size)), 1))
                losses.append(nothing)
                weights.append(nothing)
                continue
            X, y = self._X[piece].toarray(), self._y[piece]
            data = read(self._net, self._objective, X, y, weight)
            rows = Rows.send(self._net, data, self.batch_size)
            before = trainer.epoch
            done = trainer.run_epoch(rows, None, interrupt)
            if trainer.epoch == before:
                return None
            losses.append(done.losses)
            weights.append(done.weights)
        assert done is not None  # some weight is not 0
        return done._replace(losses=np.concatenate(losses), weights=np.concatenate(weights))


class PieceEvaluation:
    """Evaluates sparse rows: calling it returns their loss and accuracy (or None)."""

    def __init__(self, net, objective, X, y, weight):
        self._net, self._objective = net, objective
        self._X, self._y = X.tocsr(), y
        self._weight = np.ones(X.shape[0]) if weight is None else weight
        self._rows = max(1, PIECE_BYTES // (X.shape[1] * net.dtype.itemsize))

    def __call__(self):
        results = []
        for start in range(0, self._X.shape[0], self._rows):
            part = slice(start, start + self._rows)
            weight = self._weight[part]
            if weight.sum() > 0:
                X = self._X[part].toarray()
                done = evaluation(self._net, self._objective, X, self._y[part], weight)()
                results.append((weight.sum(), *done))
        total = sum(weight for weight, _, _ in results)
        loss = sum(weight * loss for weight, loss, _ in results) / total
        if results[0][2] is None:
            return loss, None
        return loss, sum(weight * accuracy for weight, _, accuracy in results) / total
