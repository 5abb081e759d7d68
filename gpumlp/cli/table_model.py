"""Models for tables: made and trained with the options that they have, and what they predict."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import gpumlp
from gpumlp.cli.cells import DATE, NUMBER, SHOWN, TEXT
from gpumlp.cli.data import Samples
from gpumlp.cli.error import InputError, complain, in_options
from gpumlp.cli.unfinished import RunCheckpoint
from gpumlp.estimators.tabular import preset
from gpumlp.estimators.tabular.column_values import as_text
from gpumlp.estimators.tabular.table_columns import REASONS
from gpumlp.estimators.tabular.table_preparation import Preparation

# Of `network_params`, by the options.
PARAMS = {
    "activation": "activation",
    "dropout": "dropout",
    "label_smoothing": "label_smoothing",
    "l2": "weight_decay",
}
PLURALS = {NUMBER: ("number", "numbers"), DATE: ("date", "dates"), TEXT: ("text", "texts")}


class TableModel:
    """A TabularClassifier or TabularRegressor."""

    def __init__(self, fitted: Any):
        self.fitted = fitted
        self.classes = getattr(fitted, "classes_", None)
        self.unseen: dict[str, Counter[str]] = {}
        self.missing: Counter[str] = Counter()
        self.takes_tables = True

    @classmethod
    def make(cls, arguments, device: str, training: Samples) -> TableModel:
        if arguments.optimizer not in (None, "adamw"):
            raise InputError(f"--optimizer {arguments.optimizer} is for arrays: tables have adamw")
        if arguments.precision != "float32":
            raise InputError(f"--precision {arguments.precision} is for arrays")
        params = {PARAMS[name]: getattr(arguments, name) for name in PARAMS}
        params = {key: value for key, value in params.items() if value is not None}
        options = {
            "hidden_layer_sizes": arguments.hidden,
            "max_epochs": arguments.epochs,
            "batch_size": arguments.batch_size,
            "learning_rate": arguments.lr,
            "network_params": params or None,
        }
        if training.classes is not None:
            options["class_weight"] = arguments.class_weight
        given = {name: value for name, value in options.items() if value is not None}
        classes = training.classes is not None
        kind = gpumlp.TabularClassifier if classes else gpumlp.TabularRegressor
        seed = arguments.seed % 2**32
        return cls(kind(device=device, dtype=arguments.dtype, random_state=seed, **given))

    @classmethod
    def resumed(cls, path: Path, device: str, training: Samples) -> TableModel:
        """That of a checkpoint."""
        own = (_Watch, RunCheckpoint)  # among its callbacks, of which `fit` gives it new ones
        custom = {kind.__name__: gpumlp.Callback() for kind in own}
        return cls(gpumlp.resume(path, device, custom))

    @property
    def takes_arrays(self) -> bool:
        return not hasattr(self.fitted, "feature_names_in_")

    @property
    def features(self) -> int:
        return self.fitted.n_features_in_

    @property
    def smoothing(self) -> float:
        """Of the labels, in the losses of the history."""
        params = preset.CLASSES._replace(**(self.fitted.network_params or {}))
        return params.label_smoothing if self.classes is not None else 0.0

    @property
    def best_epoch(self) -> np.ndarray:
        return self.fitted.best_epochs_

    def fit(
        self,
        arguments,
        training: Samples,
        validation: Samples | None,
        checkpoint: RunCheckpoint | None = None,
    ):
        """Train the networks; returns the history.  Without a checkpoint nothing is shown."""
        shown = checkpoint is not None
        model, watch = self.fitted, _Watch(shown)
        callbacks: list[gpumlp.Callback] = [watch, *([checkpoint] if checkpoint else [])]
        if arguments.patience is not None:
            callbacks.append(gpumlp.EarlyStopping(arguments.patience, monitor="val_loss"))
        model.set_params(callbacks=callbacks, verbose=shown)
        held = {} if validation is None else {"X_val": validation.x, "y_val": validation.y}
        with warnings.catch_warnings():
            # Said by _describe, and by the command.
            warnings.filterwarnings("ignore", message="X: nearly every row has a text of its own")
            warnings.filterwarnings("ignore", message="training was interrupted")
            try:
                model.fit(training.x, training.y, **held)
            except (ValueError, TypeError, gpumlp.DivergenceError) as error:
                history = watch.history
                if history is not None and history.interrupted and not history.loss:
                    return history
                raise InputError(_in_words(error, training.name)) from error
            except MemoryError as error:
                if arguments.hidden is None:
                    raise
                sizes = ",".join(map(str, arguments.hidden))
                raise InputError(f"--hidden {sizes}: {in_options(error, 'train')}") from error
        model.set_params(callbacks=None, verbose=False)  # they are the command's, not the model's
        self.classes = getattr(model, "classes_", None)
        return model.histories_[0]

    def save(self, path: Path) -> None:
        gpumlp.save(self.fitted, path)

    def export(self, path: Path) -> None:
        gpumlp.export_onnx(self.fitted, path)

    def kinds(self, columns: list[str], path: str) -> dict[str, str]:
        """Of the columns that it takes, by name; by their order if it knows no names."""
        fitted = self.fitted.preparation_.columns
        if self.takes_arrays and len(columns) != len(fitted):
            raise InputError(
                f"{path} has {len(columns)} columns, and the model was fitted to {len(fitted)} "
                "without names: give it a table of those alone"
            )
        if self.takes_arrays:
            return {name: column.kind for name, column in zip(columns, fitted, strict=True)}
        return {column.label: column.kind for column in fitted if not column.dropped}

    def outputs(self, x: Any, path: str) -> tuple[np.ndarray, np.ndarray | None]:
        """See ArrayNetwork."""
        model = self.fitted
        if not isinstance(x, np.ndarray):
            if self.takes_arrays:
                x = x.set_axis(range(x.shape[1]), axis="columns")
            else:  # those that were left out in training have no values
                x = x.reindex(columns=model.feature_names_in_)
            self._look(x)
        try:
            if self.classes is None:
                values = model.predict(x)
                return values.reshape(len(x), -1), None
            shares = model.predict_proba(x)
        except (ValueError, TypeError) as error:
            raise InputError(_in_words(error, path)) from error
        return self.classes[shares.argmax(axis=1)], shares

    def _look(self, x) -> None:
        """Count categories that training lacked, and missing values where it had none."""
        for column in self.fitted.preparation_.columns:
            if column.dropped:
                continue
            series = x[column.label]
            missing = 0 if column.missing else int(series.isna().sum())
            if missing:
                self.missing[column.name] += missing
            if column.kind == TEXT and not column.infrequent:
                counts = series.value_counts()
                texts = [(as_text(value), int(count)) for value, count in counts.items()]
                new = {text: n for text, n in texts if text and text not in column.levels}
                if new:
                    self.unseen.setdefault(column.name, Counter()).update(new)

    def say(self, path: str) -> None:
        """What was unlike training in the samples so far."""
        for name, counts in self.unseen.items():
            texts = ", ".join(map(repr, list(counts)[:SHOWN])) + ", ..." * (len(counts) > SHOWN)
            complain(
                f"note: column {name} of {path} has categories that training lacked, in "
                f"{counts.total()} rows ({texts}): they are taken as unknown"
            )
        for name, count in self.missing.items():
            complain(
                f"note: column {name} of {path} has {count} missing values, of which training had "
                "none"
            )
        self.unseen, self.missing = {}, Counter()


class _Watch(gpumlp.Callback):
    """Keeps the history of a fit, which may fail; and prints the columns and the network as it
    begins, if shown."""

    def __init__(self, shown: bool):
        self._shown = shown
        self.history: Any = None

    def on_fit_begin(self, trainer, history):
        self.history = history
        if self._shown:
            _describe(trainer.owner.est.preparation_)
            print(trainer.net.summary(), flush=True)


def _describe(preparation: Preparation) -> None:
    """Print what becomes of the columns."""
    for column in preparation.columns:
        if column.dropped:
            reason = REASONS[column.dropped].removeprefix("with ")
            verb = {"constant": "is ", "without values": "is "}.get(reason, "has ")
            complain(f"note: column {column.name} is left out: it {verb}{reason}")
        if column.infrequent:
            complain(
                f"note: column {column.name}: its {len(column.levels)} most frequent texts are "
                "told apart, the others are taken together"
            )
    kinds = Counter(column.kind for column in preparation.columns if not column.dropped)
    counts = [f"{kinds[kind]} {PLURALS[kind][kinds[kind] > 1]}" for kind in PLURALS if kinds[kind]]
    print(f"columns   {', '.join(counts)}: {len(preparation.names)} inputs", flush=True)


def _in_words(error: Exception, name: str) -> str:
    """What an estimator says, in those of the command line."""
    text = re.sub(r"^X(_val)?\b:? ?", f"{name}: ", str(error))
    options = {"learning_rate": "--lr", "hidden_layer_sizes": "--hidden", "max_epochs": "--epochs"}
    for parameter, option in options.items():
        text = re.sub(rf"\b(Tabular\w+: )?{parameter}\b", option, text)
    return f"{text}; see also --drop" if "no column to learn from" in text else text
