"""The training of candidates x folds: those of one shape in one stack."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from itertools import product
from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing

from gpumlp.search import pipelines
from gpumlp.search.fit_task import FitTask, StackJob, grouped, is_stackable

VALIDATION = ("X_val", "y_val", "sample_weight_val")


class Candidates:
    """params: of the estimator's fit;  X, y: all samples;  folds: rows to train on.

    epochs: the parameter that is max_iter, if candidates come again with more of it, to be trained
    further; longest: no more than so many.
    """

    def __init__(self, estimator, params: dict[str, Any], X, y, folds, epochs=None, longest=0):
        self._estimator = estimator
        self._params = {name: value for name, value in params.items() if value is not None}
        self._X, self._y, self._folds = X, y, folds
        self._epochs, self._longest = epochs, longest
        self._trainings: list[StackJob] = []  # with networks that pause
        self._paused: dict[Any, list[FitTask]] = {}

    def fitted(self, candidates: list[dict]) -> Iterator[FitTask]:
        """By candidates, and for each by folds."""
        epochs = None if self._epochs is None else candidates[0][self._epochs]
        fits, fresh = [], []
        for parameters, fold in product(candidates, range(len(self._folds))):
            paused = self._paused.get(self._key(parameters, fold))
            if not paused:
                fresh.append(FitTask(self._estimator, parameters, fold))
            fits.append(paused.pop() if paused else fresh[-1])
        if epochs is not None:
            self._go_on(fits, epochs)
        ordinary = {id(fit) for fit in fresh if fit.error is None and not self._is_stacked(fit)}
        self._begin([fit for fit in fresh if fit.error is None and id(fit) not in ordinary], epochs)
        queue = deque(fits)
        while queue:  # what has been handed out needs not be kept
            fit = queue.popleft()
            if id(fit) in ordinary:
                self._fit_ordinarily(fit)
            yield fit

    def _key(self, parameters: dict, fold: int):
        """What a candidate is recognised by when it comes again with more epochs."""
        same = [(name, id(value)) for name, value in parameters.items() if name != self._epochs]
        return frozenset(same), fold

    def _go_on(self, fits: list[FitTask], epochs: int):
        """Those that pause; networks that are not among them leave their stacks."""
        wanted = set(map(id, fits))
        for training in self._trainings:
            training.train_further(wanted, epochs)

    def _begin(self, fits: list[FitTask], epochs: int | None):
        if epochs is not None:
            for fit in fits:
                fit.network.max_iter = self._longest
        for group in grouped(fits, FitTask.cost):
            for training in self._trainings_of(group):
                training.run(epochs)
                if epochs is not None:
                    self._trainings.append(training)
        self._paused = {}
        for training in self._trainings:
            for fit in training.paused():
                self._paused.setdefault(self._key(fit.parameters, fit.fold), []).append(fit)

    def _is_stacked(self, fit: FitTask) -> bool:
        if self._y is None or not is_stackable(fit.estimator):
            return False
        if isinstance(fit.estimator, Pipeline):
            return not self._params
        # Validation data with as many rows as X would be split too.
        count = _count(self._X)
        shared = all(_count(self._params[n]) != count for n in VALIDATION if n in self._params)
        return shared and set(self._params) <= {"sample_weight", *VALIDATION}

    def _trainings_of(self, fits: list[FitTask]) -> Iterator[StackJob]:
        """fits: of networks that cost alike."""
        if isinstance(fits[0].estimator, Pipeline):
            for group in grouped(fits, pipelines.preprocessing):
                yield from pipelines.trainings(group, self._X, self._y, self._folds)
            return
        weight = self._params.get("sample_weight")
        validation = tuple(self._params.get(name) for name in VALIDATION)
        rows = [self._folds[fit.fold] for fit in fits]
        yield StackJob(fits, rows, self._X, self._y, weight, validation)

    def _fit_ordinarily(self, fit: FitTask):
        rows, begin = self._folds[fit.fold], time.perf_counter()
        samples = [each for each in (self._X, self._y) if each is not None]
        params = {name: self._of_rows(value, rows) for name, value in self._params.items()}
        try:
            fit.estimator.fit(*(_safe_indexing(each, rows) for each in samples), **params)
        except Exception as error:
            fit.fail(error)
        fit.seconds = time.perf_counter() - begin

    def _of_rows(self, value, rows):
        """A parameter of `fit`: of these rows, if it has one for each of X."""
        each = hasattr(value, "__len__") and _count(value) == _count(self._X)
        return _safe_indexing(value, rows) if each else value


def _count(array) -> int:
    return array.shape[0] if hasattr(array, "shape") else len(array)
