"""One fit of a search: a candidate on a fold."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sklearn.base import clone
from sklearn.pipeline import Pipeline

from gpumlp.estimators import MLPClassifier, MLPRegressor
from gpumlp.estimators.member_task import Member
from gpumlp.estimators.stack_fitter import StackFitter

NONE = (None, None, None)


class FitTask:
    """One fit of a search: an estimator with a candidate's parameters, on one fold.

    parameters: the candidate;  fold: its number.
    estimator: with these parameters; in the end fitted, or there is an error.
    error, traceback: what its fit has raised, and where;  seconds: that it took.
    """

    def __init__(self, base, parameters: dict[str, Any], fold: int):
        self.parameters, self.fold = parameters, fold
        self.estimator = clone(base)
        self.error: Exception | None = None
        self.traceback: Any = None
        self.seconds = 0.0
        try:
            self.estimator.set_params(**clone(parameters, safe=False))
        except Exception as error:  # scikit-learn meets it too, before it asks for this fit
            self.fail(error)

    def fail(self, error: Exception):
        """Keep the error of this fit."""
        if error is not self.error:  # fits may share one, and whoever raises it lengthens it
            self.error, self.traceback = error, error.__traceback__

    @property
    def network(self):
        return last_step(self.estimator)

    def cost(self) -> str:
        """A key of what decides on the time; networks of different keys are never in one stack."""
        est = self.network
        return repr((est.hidden_layer_sizes, est.activation, est.batch_size, est.solver))


def last_step(estimator):
    """The last step of a pipeline; of anything else, the estimator itself."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator


def is_stackable(estimator) -> bool:
    """Whether it is an estimator of gpumlp, or a pipeline of scikit-learn that ends with one."""
    if isinstance(estimator, Pipeline) and (
        type(estimator) is not Pipeline or len(estimator.steps) < 2
    ):
        return False
    network = last_step(estimator)
    ours = getattr(type(network), "fit", None) in (MLPClassifier.fit, MLPRegressor.fit)
    return ours and network.n_models is None


def grouped(items, key: Callable) -> list[list]:
    """Group items by equal keys."""
    groups: dict[Any, list] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


class StackJob:
    """Trains networks at once, each on its rows of X, and keeps the time that they took."""

    def __init__(self, fits: list[FitTask], rows: list, X, y, sample_weight=None, validation=NONE):
        begin = time.perf_counter()
        members = [Member(fit.network, fit_rows) for fit, fit_rows in zip(fits, rows, strict=True)]
        self._fits = fits
        self._fitter = StackFitter(members, X, y, sample_weight, validation)
        self._share(begin, fits)

    def run(self, epochs: int | None = None):
        """Train all; epochs: no more than so many, and networks that can go on then pause."""
        begin = time.perf_counter()
        self._fitter.run(epochs)
        self._share(begin, self._fits)

    def paused(self) -> list[FitTask]:
        """The fits that can be trained further."""
        return [self._fits[place] for place in sorted(self._fitter.paused)]

    def train_further(self, wanted: set[int], epochs: int):
        """Train paused fits further; wanted: their ids.  The others leave their stacks."""
        begin = time.perf_counter()
        places = {p for p in self._fitter.paused if id(self._fits[p]) in wanted}
        self._fitter.train_further(places, epochs)
        self._share(begin, self.paused())

    def _share(self, begin, fits: list[FitTask]):
        """Divide the time since `begin` among these fits, and take over errors."""
        seconds = time.perf_counter() - begin
        for fit in fits:
            fit.seconds += seconds / len(fits)
        for fit, error in zip(self._fits, self._fitter.errors, strict=True):
            if error is not None:
                fit.fail(error)
