"""Fit the steps before the network once for all candidates that agree in them."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.base import clone
from sklearn.utils import _safe_indexing

from gpumlp.search.fit_task import FitTask, StackJob, grouped


class Part(NamedTuple):
    """A fold's samples, transformed, and the fits that train on them."""

    X: Any
    y: Any
    fits: list[FitTask]

    def kind(self) -> Any:
        """A key: parts of one kind can be put together, which data frames cannot."""
        if isinstance(self.X, np.ndarray) or sparse.issparse(self.X):
            return type(self.X), self.X.dtype, self.X.shape[1:]
        return id(self)


def preprocessing(fit: FitTask) -> frozenset:
    """The parameters of the steps before the network, equal where they are the same objects."""
    last = fit.estimator.steps[-1][0]
    return frozenset(
        (name, id(value))
        for name, value in fit.parameters.items()
        if name != last and not name.startswith(f"{last}__")
    )


def jobs(fits: list[FitTask], X, y, folds) -> list[StackJob]:
    """The jobs of fits with one `preprocessing` and one `cost`;  folds: rows to train on."""
    parts = [_transformed(group, X, y, folds) for group in grouped(fits, lambda fit: fit.fold)]
    return [_job(group) for group in grouped([part for part in parts if part], Part.kind)]


def _transformed(fits: list[FitTask], X, y, folds) -> Part | None:
    """Fit the steps before the network on a fold, for all its fits; None where that fails."""
    begin, rows = time.perf_counter(), folds[fits[0].fold]
    y = _safe_indexing(y, rows)
    steps = clone(fits[0].estimator[:-1])
    try:
        X = steps.fit_transform(_safe_indexing(X, rows), y)
    except Exception as error:
        for fit in fits:
            fit.fail(error)
        return None
    for fit in fits:
        fit.estimator.steps = [*steps.steps, fit.estimator.steps[-1]]
        fit.seconds = (time.perf_counter() - begin) / len(fits)
    return Part(X, y if sparse.issparse(y) else np.asarray(y), fits)


def _job(parts: list[Part]) -> StackJob:
    """The job of all parts, on their samples one after another."""
    start = 0
    fits: list[FitTask] = []
    rows: list[np.ndarray] = []
    for part in parts:
        part_rows = np.arange(start, start + part.y.shape[0])
        fits += part.fits
        rows += [part_rows] * len(part.fits)
        start += len(part_rows)
    X, y = ([getattr(part, name) for part in parts] for name in "Xy")
    return StackJob(fits, rows, _joined(X), _joined(y))


def _joined(parts: list):
    """Concatenate rows."""
    if len(parts) == 1:
        return parts[0]
    if sparse.issparse(parts[0]):
        return sparse.vstack(parts, format="csr")
    return np.concatenate(parts)
