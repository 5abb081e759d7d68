"""The validation set of a fit, held out as scikit-learn does it or given, and its score."""

from __future__ import annotations

from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import check_scoring, r2_score
from sklearn.model_selection import train_test_split

from gpumlp.estimators import array_io, estimator_rows
from gpumlp.estimators.fitted import labels
from gpumlp.estimators.input_checks import naming


class Samples(NamedTuple):
    """Checked samples.

    X: features;  y: targets as users know them;  encoded: as the network takes them, None where
    that is not known yet;  weight: (rows,), None for ones.
    """

    X: Any
    y: Any
    encoded: Any
    weight: np.ndarray | None

    @property
    def rows(self) -> int:
        return self.X.shape[0]

    def take(self, index) -> Samples:
        weight = None if self.weight is None else self.weight[index]
        X = estimator_rows.rows_of(self.X, index)
        return Samples(X, self.y[index], self.encoded[index], weight)


def split(estimator, samples: Samples, rng) -> tuple[Samples, Samples]:
    """Split samples into those to train on and those held out."""
    train, held_out = split_rows(estimator, samples.y, rng)
    return samples.take(train), samples.take(held_out)


def split_rows(estimator, y, rng) -> tuple[np.ndarray, np.ndarray]:
    """Split row numbers into those to train on and those held out; two classes are stratified."""
    stratify = None
    if is_classifier(estimator) and estimator.n_outputs_ == 1:
        stratify = y
        _refuse_rare(y)
    with naming("validation_fraction"):
        train, held_out = train_test_split(
            np.arange(y.shape[0]),
            random_state=rng,
            test_size=estimator.validation_fraction,
            stratify=stratify,
        )
    if len(held_out) < 2:
        raise ValueError(
            f"The validation set is too small: it has {len(held_out)} of {y.shape[0]} samples and "
            "needs 2; raise validation_fraction, or give X_val and y_val"
        )
    return train, held_out


def _refuse_rare(y):
    """Raise ValueError for a class that is too rare to be on both sides, by its label."""
    classes, counts = np.unique(y, return_counts=True)
    if counts.min() < 2:
        rare = ", ".join(map(repr, labels(classes[counts < 2])))
        raise ValueError(
            "early_stopping holds out samples of each class for validation, and y has one of "
            f"{rare}: give X_val and y_val, or more samples"
        )


class Score:
    """Scores a validation set by the estimator's `scoring`; None is the accuracy, or R²."""

    def __init__(self, estimator):
        self._estimator = estimator
        scoring = estimator.scoring
        self.by_scikit_learn = scoring not in (None, "loss")  # it asks for predictions of X
        self._scorer = check_scoring(estimator, scoring=scoring) if self.by_scikit_learn else None
        self._one_class = len(getattr(estimator, "classes_", ())) == 1  # predicted for all samples

    def __call__(self, loss, accuracy, outputs, X, y, weight) -> float:
        """The score, NaN where the outputs are not finite.

        loss, accuracy (None where there are no classes): as the network has them;  outputs(): n^(K)
        on the host;  X, y, weight: the samples.
        """
        estimator = self._estimator
        if estimator.scoring == "loss":
            return -loss
        if accuracy is not None and self._one_class:
            accuracy = 1.0
        if accuracy is not None and self._scorer is None and np.isfinite(loss):
            return accuracy
        outputs = outputs()
        if not np.isfinite(outputs).all():
            return np.nan
        if self._scorer is not None:
            weighted = {} if weight is None else {"sample_weight": weight}
            with estimator._trusting(X, outputs), naming("scoring"):
                score = self._scorer(estimator, X, y, **weighted)
            if not isinstance(score, Real):
                raise TypeError(f"scoring gave {score!r}; it must be a number")
            return float(score)
        if accuracy is not None:
            return accuracy
        predicted = estimator._from_outputs(outputs)
        if is_classifier(estimator):
            return _accuracy(y, predicted, weight)
        return r2_score(y, predicted, sample_weight=weight)


class Validation:
    """Evaluates a validation set: calling it returns its loss and its score."""

    def __init__(self, estimator, engine, objective, samples: Samples):
        self._engine, self._samples = engine, samples
        self._evaluate = estimator_rows.evaluation(
            engine.net, objective, samples.X, samples.encoded, samples.weight
        )
        self._score = Score(estimator)
        self._X = array_io.host(samples.X) if self._score.by_scikit_learn else None

    def __call__(self) -> tuple[float, float]:
        loss, accuracy = self._evaluate()
        y, weight = self._samples.y, self._samples.weight
        return loss, float(self._score(loss, accuracy, self._outputs, self._X, y, weight))

    def _outputs(self):
        return array_io.host(self._engine.outputs(self._samples.X))


def _accuracy(y, predicted, weight):
    right = np.asarray(y == predicted)
    return np.average(right if right.ndim == 1 else right.all(axis=1), weights=weight)
