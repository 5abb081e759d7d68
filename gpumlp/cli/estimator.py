"""`gpumlp predict` by an estimator that was saved in Python, whose features are plain numbers."""

from __future__ import annotations

import warnings

import numpy as np

from gpumlp.cli import table
from gpumlp.cli.columns import measured
from gpumlp.cli.data import features_of
from gpumlp.cli.error import InputError
from gpumlp.cli.values import NUMBER


class Estimator:
    """A fitted MLPClassifier or MLPRegressor.

    A table's columns are those of the names that it was fitted with; where it was fitted without
    any, all columns, in their order, if there are so many.
    """

    def __init__(self, fitted):
        fitted._ready()
        self.fitted = fitted
        self.classes = _plain(fitted.classes_) if hasattr(fitted, "classes_") else None

    def predict(self, path: str, proba: bool) -> dict[str, np.ndarray]:
        """value; or label, with probability and classes if asked."""
        x = self._features(path)
        try:
            with warnings.catch_warnings():
                # Of the names that an array does not have.
                warnings.filterwarnings("ignore", message="X does not have valid feature names")
                predicted = self.fitted.predict(x)
                shares = self.fitted.predict_proba(x) if proba else None
        except ValueError as error:
            raise InputError(f"the model cannot predict {path}: {error}") from error
        if self.classes is None:
            check_finite(predicted, path)
            return {"value": predicted.reshape(len(x), -1)}
        found = {"label": _plain(predicted)}
        return found if shares is None else found | {"probability": shares, "classes": self.classes}

    def _features(self, path: str) -> np.ndarray:
        count = self.fitted.n_features_in_
        if not table.is_table(path):
            return features_of(path, count)
        names = getattr(self.fitted, "feature_names_in_", None)
        if names is None:
            samples = table.read_all(path)
            if len(samples.names) != count:
                raise InputError(
                    f"{path} has {len(samples.names)} columns, and the model was fitted to {count} "
                    "features without names: give it a table of those alone"
                )
        else:
            samples = table.read_columns(path, list(names), [])
        return np.stack([_numbers(samples, name) for name in samples.names], axis=1)


def check_finite(outputs: np.ndarray, path: str) -> None:
    """Refuses outputs (samples, ...) with infinity or NaN."""
    bad = np.flatnonzero(~np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1))
    if len(bad):
        raise InputError(f"the network's output for row {bad[0]} of {path} is not finite")


def _numbers(samples: table.Table, name: str) -> np.ndarray:
    values = measured(samples, name, NUMBER)
    missing = np.flatnonzero(np.isnan(values))
    if len(missing):
        raise InputError(f"{samples.where(name, missing[0])} has no value; the model needs one")
    return values


def _plain(labels: np.ndarray) -> np.ndarray:
    """Labels in an array that needs no pickle."""
    return np.array(labels.tolist()) if labels.dtype == object else labels
