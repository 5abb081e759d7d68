"""Train candidates x folds: those of one shape in one stack."""

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
    """Trains the candidates of a search on all folds, once or, with more epochs, again and again.

    params: of the estimator's fit;  X, y: all samples;  folds: the rows that each trains on.
    epochs: the name of the parameter that is max_iter, where candidates that come again with more
    of it are trained further;  longest: the most epochs that they come to.
    """

    def __init__(self, estimator, params: dict[str, Any], X, y, folds, epochs=None, longest=0):
        self._estimator = estimator
        self._params = {name: value for name, value in params.items() if value is not None}
        self._X, self._y, self._folds = X, y, folds
        self._epochs, self._longest = epochs, longest
        self._jobs: list[StackJob] = []  # with networks that pause
        self._paused: dict[Any, list[FitTask]] = {}

    def fitted(self, candidates: list[dict]) -> Iterator[FitTask]:
        """Train the candidates; yields their fits by candidates, and for each by folds."""
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
        while queue:  # fits that have been yielded need not be kept
            fit = queue.popleft()
            if id(fit) in ordinary:
                self._fit_ordinarily(fit)
            yield fit

    def _key(self, parameters: dict, fold: int):
        """The key of a candidate on a fold, the same when it comes again with more epochs."""
        same = [(name, id(value)) for name, value in parameters.items() if name != self._epochs]
        return frozenset(same), fold

    def _go_on(self, fits: list[FitTask], epochs: int):
        """Train paused fits further; paused networks of other fits leave their stacks."""
        wanted = set(map(id, fits))
        for job in self._jobs:
            job.train_further(wanted, epochs)

    def _begin(self, fits: list[FitTask], epochs: int | None):
        """Train new fits in stacks."""
        if epochs is not None:
            for fit in fits:
                fit.network.max_iter = self._longest
        for group in grouped(fits, FitTask.cost):
            for job in self._jobs_of(group):
                job.run(epochs)
                if epochs is not None:
                    self._jobs.append(job)
        self._paused = {}
        for job in self._jobs:
            for fit in job.paused():
                self._paused.setdefault(self._key(fit.parameters, fit.fold), []).append(fit)

    def _is_stacked(self, fit: FitTask) -> bool:
        """Whether the fit can be trained in a stack, with these parameters of `fit`."""
        if self._y is None or not is_stackable(fit.estimator):
            return False
        if isinstance(fit.estimator, Pipeline):
            return not self._params
        # Validation data with as many rows as X would be split too.
        count = _count(self._X)
        shared = all(_count(self._params[n]) != count for n in VALIDATION if n in self._params)
        return shared and set(self._params) <= {"sample_weight", *VALIDATION}

    def _jobs_of(self, fits: list[FitTask]) -> Iterator[StackJob]:
        """Yield the jobs of fits whose networks have one `cost`."""
        if isinstance(fits[0].estimator, Pipeline):
            for group in grouped(fits, pipelines.preprocessing):
                yield from pipelines.jobs(group, self._X, self._y, self._folds)
            return
        weight = self._params.get("sample_weight")
        validation = tuple(self._params.get(name) for name in VALIDATION)
        rows = [self._folds[fit.fold] for fit in fits]
        yield StackJob(fits, rows, self._X, self._y, weight, validation)

    def _fit_ordinarily(self, fit: FitTask):
        """Fit an estimator by its own `fit`, as scikit-learn does."""
        rows, begin = self._folds[fit.fold], time.perf_counter()
        samples = [array for array in (self._X, self._y) if array is not None]
        params = {name: self._of_rows(value, rows) for name, value in self._params.items()}
        try:
            fit.estimator.fit(*(_safe_indexing(array, rows) for array in samples), **params)
        except Exception as error:
            fit.fail(error)
        fit.seconds = time.perf_counter() - begin

    def _of_rows(self, value, rows):
        """A parameter of `fit`; if it has an item for each row of X, those of these rows."""
        per_row = hasattr(value, "__len__") and _count(value) == _count(self._X)
        return _safe_indexing(value, rows) if per_row else value


def _count(array) -> int:
    return array.shape[0] if hasattr(array, "shape") else len(array)
