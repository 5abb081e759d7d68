"""Train all fits of a search when scikit-learn calls the first."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpumlp.search.candidates import Candidates


class Splits(NamedTuple):
    """A splitter that tells a `FitQueue` its splits, before scikit-learn calls the first fit."""

    cv: Any
    fits: FitQueue

    def split(self, X, y=None, **params):
        return self.fits.note(X, y, list(self.cv.split(X, y, **params)))


class FitQueue:
    """Answers scikit-learn's calls of `fit`, by candidates and for each by folds, with trained
    estimators; later calls, as the refit, are ordinary fits."""

    def __init__(self, estimator, params: dict[str, Any], trained_rows: bool):
        """params: of the estimator's fit; trained_rows: whether training rows are scored too."""
        self._estimator, self._params, self._trained_rows = estimator, params, trained_rows
        self._candidates: list[dict] = []
        self._epochs: str | None = None
        self._longest = 0
        self._training: Any = None
        self._fitted: Any = None
        self._open = self._folds = 0  # fits that are still to be asked for
        self._seconds: list[float] = []
        self.failure: Exception | None = None  # which is no failed fit of a candidate

    def go_on_by(self, epochs: str, longest: int):
        """Train candidates further when they come again with more of the parameter `epochs`, and
        with the same folds; longest: the most epochs that they come to."""
        self._epochs, self._longest = epochs, longest

    def forget(self):
        """Drop all that was trained."""
        self._training = self._fitted = None

    def expect(self, candidates: list[dict], cv) -> Splits:
        """Expect fits of these candidates next; returns the splitter for them."""
        self._candidates = candidates
        return Splits(cv, self)

    def note(self, X, y, splits):
        """Take the splits; returns those that scikit-learn is to use."""
        folds = [_numbers(train) for train, _ in splits]
        self._open, self._folds = len(self._candidates) * len(folds), len(folds)
        if self._training is None or self._epochs is None:
            epochs = self._epochs, self._longest
            self._training = Candidates(self._estimator, self._params, X, y, folds, *epochs)
        self._fitted = None
        if self._trained_rows:
            return splits
        # scikit-learn need not copy rows that nobody looks at.
        return [(train[:0], test) for train, (_, test) in zip(folds, splits, strict=True)]

    def fit(self, estimator, X, y, **params):
        """Make the estimator what its fit has come to, or raise the error of its fit."""
        if not self._open:
            return estimator.fit(X, y, **params)
        try:
            if self._fitted is None:
                self._fitted = self._training.fitted(self._candidates)
            fit = next(self._fitted)
        except Exception as error:  # of the training itself, not of a network
            self.failure = self.failure or error
            raise
        self._open -= 1
        self._seconds.append(fit.seconds)
        if fit.error is not None:
            raise fit.error.with_traceback(fit.traceback)
        vars(estimator).update(vars(fit.estimator))
        return estimator

    def times(self) -> dict[str, np.ndarray]:
        """The columns of fit times; those that scikit-learn measures are of `fit` here."""
        seconds = np.reshape(self._seconds, (-1, self._folds))
        return {"mean_fit_time": seconds.mean(axis=1), "std_fit_time": seconds.std(axis=1)}


def _numbers(rows) -> np.ndarray:
    """The numbers of rows, which may come as a mask."""
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows
