"""The training of candidates x folds: those of one shape in one stack."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing

from gpumlp.search import pipelines
from gpumlp.search.fit import Fit, fit_networks, grouped, is_stackable

VALIDATION = ("X_val", "y_val", "sample_weight_val")


class Candidates:
    """params: of the estimator's fit;  X, y: all samples;  folds: rows to train on."""

    def __init__(self, estimator, params: dict[str, Any], X, y, folds):
        self._estimator = estimator
        self._params = {name: value for name, value in params.items() if value is not None}
        self._X, self._y, self._folds = X, y, folds

    def fitted(self, candidates: list[dict]) -> Iterator[Fit]:
        """By candidates, and for each by folds."""
        fits = [
            Fit(self._estimator, parameters, fold)
            for parameters in candidates
            for fold in range(len(self._folds))
        ]
        stacked = [fit for fit in fits if fit.error is None and self._can_be_stacked(fit)]
        for group in grouped(stacked, Fit.cost):
            self._train(group)
        done = set(map(id, stacked))
        queue = deque(fits)
        while queue:  # what has been handed out needs not be kept
            fit = queue.popleft()
            if id(fit) not in done and fit.error is None:
                self._fit_ordinarily(fit)
            yield fit

    def _can_be_stacked(self, fit: Fit) -> bool:
        if self._y is None or not is_stackable(fit.estimator):
            return False
        if isinstance(fit.estimator, Pipeline):
            return not self._params
        # Validation data with as many rows as X would be split too.
        count = _count(self._X)
        shared = all(_count(self._params[n]) != count for n in VALIDATION if n in self._params)
        return shared and set(self._params) <= {"sample_weight", *VALIDATION}

    def _train(self, fits: list[Fit]):
        if isinstance(fits[0].estimator, Pipeline):
            for group in grouped(fits, pipelines.preprocessing):
                pipelines.train(group, self._X, self._y, self._folds)
            return
        weight = self._params.get("sample_weight")
        validation = tuple(self._params.get(name) for name in VALIDATION)
        rows = [self._folds[fit.fold] for fit in fits]
        fit_networks(fits, rows, self._X, self._y, weight, validation)

    def _fit_ordinarily(self, fit: Fit):
        rows, begin = self._folds[fit.fold], time.perf_counter()
        samples = [each for each in (self._X, self._y) if each is not None]
        params = {name: self._of_rows(value, rows) for name, value in self._params.items()}
        try:
            fit.estimator.fit(*(_safe_indexing(each, rows) for each in samples), **params)
        except Exception as error:
            fit.error = error
        fit.seconds = time.perf_counter() - begin

    def _of_rows(self, value, rows):
        """A parameter of `fit`: of these rows, if it has one for each of X."""
        each = hasattr(value, "__len__") and _count(value) == _count(self._X)
        return _safe_indexing(value, rows) if each else value


def _count(array) -> int:
    return array.shape[0] if hasattr(array, "shape") else len(array)
