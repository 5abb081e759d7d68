"""The validation set of a fit: held out as scikit-learn does it, or the user's own; its score."""

from __future__ import annotations

from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import check_scoring, r2_score
from sklearn.model_selection import train_test_split

from gpumlp.estimator import data, sides
from gpumlp.estimator.refusal import naming


class Samples(NamedTuple):
    """Checked samples: features, targets as they were given and as the engine takes them, weights
    (None for ones)."""

    X: Any
    y: Any
    encoded: np.ndarray
    weight: np.ndarray | None

    @property
    def rows(self) -> int:
        return self.X.shape[0]

    def take(self, index) -> Samples:
        weight = None if self.weight is None else self.weight[index]
        X = data.rows_of(self.X, index)
        return Samples(X, self.y[index], self.encoded[index], weight)


def split(estimator, samples: Samples, rng) -> tuple[Samples, Samples]:
    """The samples to train on and those held out; with two classes, in equal proportions."""
    stratify = None
    if is_classifier(estimator) and estimator.n_outputs_ == 1:
        stratify = samples.y
    with naming("validation_fraction"):
        train, held = train_test_split(
            np.arange(samples.rows),
            random_state=rng,
            test_size=estimator.validation_fraction,
            stratify=stratify,
        )
    if len(held) < 2:
        raise ValueError(
            f"The validation set is too small: it has {len(held)} of {samples.rows} samples and "
            "needs 2; raise validation_fraction, or give X_val and y_val"
        )
    return samples.take(train), samples.take(held)


class Validation:
    """Calling it gives the loss of the held-out samples, and their score.

    The score is what `scoring` says; None is the accuracy, or R².  It is NaN where the predictions
    are not finite.
    """

    def __init__(self, estimator, engine, objective, held: Samples):
        self._estimator, self._engine, self._held = estimator, engine, held
        self._evaluate = data.evaluation(engine.net, objective, held.X, held.encoded, held.weight)
        scoring = estimator.scoring
        self._scorer = (
            None if scoring in (None, "loss") else check_scoring(estimator, scoring=scoring)
        )

    def __call__(self) -> tuple[float, float]:
        loss, accuracy = self._evaluate()
        return loss, float(self._score(loss, accuracy))

    def _score(self, loss, accuracy):
        estimator, held = self._estimator, self._held
        if estimator.scoring == "loss":
            return -loss
        outputs = sides.host(self._engine.outputs(held.X))
        if not np.isfinite(outputs).all():
            return np.nan
        if self._scorer is not None:
            weight = {} if held.weight is None else {"sample_weight": held.weight}
            X = sides.host(held.X)
            with estimator._trusting(X), naming("scoring"):
                score = self._scorer(estimator, X, held.y, **weight)
            if not isinstance(score, Real):
                raise TypeError(f"scoring gave {score!r}; it must be a number")
            return score
        if accuracy is not None:
            return accuracy
        predicted = estimator._from_outputs(outputs)
        if is_classifier(estimator):
            return _accuracy(held.y, predicted, held.weight)
        return r2_score(held.y, predicted, sample_weight=held.weight)


def _accuracy(y, predicted, weight):
    right = np.asarray(y == predicted)
    return np.average(right if right.ndim == 1 else right.all(axis=1), weights=weight)
