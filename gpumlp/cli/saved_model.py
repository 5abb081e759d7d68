"""Models that were saved: by `gpumlp train`, now or in version 0.1.0, or in Python."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import gpumlp
from gpumlp.cli.array_network import ArrayNetwork
from gpumlp.cli.cells import NUMBER
from gpumlp.cli.error import InputError
from gpumlp.cli.preparation import Standardised
from gpumlp.cli.run_folder import CONFIG, MODEL, goes_on

Model = Any
"""An ArrayNetwork, a TableModel or an Estimator."""


class Estimator:
    """A fitted MLPClassifier or MLPRegressor, whose features are plain numbers.

    A table's columns are those of the names that it was fitted with; where it was fitted without
    any, all columns, in their order, if there are so many.
    """

    takes_arrays = takes_tables = True

    def __init__(self, fitted):
        fitted._ready()
        self.fitted = fitted
        self.features = fitted.n_features_in_
        self.classes = _plain(fitted.classes_) if hasattr(fitted, "classes_") else None

    def kinds(self, columns: list[str], path: str) -> dict[str, str]:
        names = getattr(self.fitted, "feature_names_in_", columns)
        if len(names) != self.features:
            raise InputError(
                f"{path} has {len(columns)} columns, and the model was fitted to {self.features} "
                "features without names: give it a table of those alone"
            )
        return dict.fromkeys(names, NUMBER)

    def outputs(self, x: Any, path: str) -> tuple[np.ndarray, np.ndarray | None]:
        """See ArrayNetwork."""
        if not isinstance(x, np.ndarray):
            x = _numbers(x, path)
        try:
            with warnings.catch_warnings():
                # Of the names that an array does not have.
                warnings.filterwarnings("ignore", message="X does not have valid feature names")
                predicted = self.fitted.predict(x)
                shares = self.fitted.predict_proba(x) if self.classes is not None else None
        except ValueError as error:
            raise InputError(f"the model cannot predict {path}: {error}") from error
        if self.classes is not None:
            return _plain(predicted), shares
        predicted = predicted.reshape(len(x), -1)
        bad = np.flatnonzero(~np.isfinite(predicted).all(axis=1))
        if len(bad):
            raise InputError(f"the network's output for row {bad[0]} of {path} is not finite")
        return predicted, None

    def say(self, path: str) -> None:
        """Nothing: it takes no other values than training had."""

    def export(self, path: Path) -> None:
        gpumlp.export_onnx(self.fitted, path)


def _numbers(frame, path: str) -> np.ndarray:
    columns = []
    for name in frame.columns:
        values = frame[name].to_numpy(np.float64, na_value=np.nan)
        for wrong, what in ((np.isnan(values), "has no value"), (np.isinf(values), "is infinite")):
            if wrong.any():
                where = f"row {wrong.argmax() + 1} of column {name} of {path}"
                raise InputError(f"{where} {what}; the model needs a number")
        columns.append(values)
    return np.stack(columns, axis=1)


def _plain(labels: np.ndarray) -> np.ndarray:
    """Labels in an array that needs no pickle."""
    return np.array(labels.tolist()) if labels.dtype == object else labels


def load(path: str, device: str) -> Model:
    """The model of a file, or of a run's folder."""
    if Path(path).is_dir():
        if (Path(path) / MODEL).is_file():
            path = str(Path(path) / MODEL)
        elif hint := goes_on(Path(path)):
            raise InputError(f"the run in {path} is not finished: {hint}")
        else:
            raise InputError(f"the folder {path} holds no model, which is named {MODEL}")
    try:
        loaded = gpumlp.load(path, device=device)
    except (gpumlp.FileError, OSError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path} cannot be loaded as a model: {error}") from error
    if hasattr(loaded, "preparation_"):
        from gpumlp.cli.table_model import TableModel

        return TableModel(loaded)
    if not isinstance(loaded, gpumlp.MLP | gpumlp.Trainer):
        return Estimator(loaded)
    net = loaded.net if isinstance(loaded, gpumlp.Trainer) else loaded
    stored = net.metadata.get("preparation") if isinstance(net.metadata, dict) else None
    if not isinstance(stored, dict) or net.models is not None:
        raise InputError(
            f"{path} holds a network but not how its features were prepared: "
            "it was not saved by `gpumlp train`"
        )
    try:
        return ArrayNetwork(net, Standardised.from_metadata(stored, net.sizes[0], net.sizes[-1]))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def config_of(path: str) -> dict[str, Any]:
    """What is known of the run that a model is of; nothing where there is no such file."""
    place = Path(path)
    file = (place if place.is_dir() else place.parent) / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
