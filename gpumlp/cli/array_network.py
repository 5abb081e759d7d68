"""A network for arrays: made and trained with all options of the engine, and what it predicts."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

import gpumlp
from gpumlp.cli.data import Samples
from gpumlp.cli.error import InputError, in_options
from gpumlp.cli.preparation import Standardised

HIDDEN, EPOCHS, PATIENCE, BATCH_SIZE, DROPOUT, SMOOTHING = (256,), 100, 20, 64, 0.2, 0.1
LEARNING_RATE = {
    "sgd": 0.1,
    "momentum": 0.02,
    "rmsprop": 1e-3,
    "adam": 1e-3,
    "adamw": 1e-3,
    "lion": 3e-4,
}


def _or(value, default):
    return default if value is None else value


class ArrayNetwork:
    """A network and how samples are prepared for it; the file is a network's, with the preparation
    in its metadata."""

    _stop: Any  # the EarlyStopping of the fit

    def __init__(self, net, preparation: Standardised):
        self.net, self.preparation = net, preparation
        self.classes = preparation.classes
        self.features = net.sizes[0]
        self.takes_tables = preparation.columns is not None  # 0.1.0
        self.takes_arrays = not self.takes_tables
        self.smoothing = 0.0
        self._unfinished: Any = None  # the trainer of a checkpoint

    @classmethod
    def resumed(cls, path: Path, device: str, training: Samples) -> ArrayNetwork:
        """That of a checkpoint."""
        trainer = gpumlp.resume(path, device)
        network = cls(trainer.net, Standardised.fit(training))
        network._unfinished = trainer
        return network

    @classmethod
    def make(cls, arguments, device: str, training: Samples) -> ArrayNetwork:
        """The network for these features and classes or values."""
        preparation = Standardised.fit(training)
        hidden = _or(arguments.hidden, HIDDEN)
        try:
            net = gpumlp.MLP(
                (training.x.shape[1], *hidden, preparation.outputs),
                hidden=_or(arguments.activation, "relu"),
                output="identity" if preparation.classes is None else "softmax",
                dtype=arguments.dtype,
                device=device,
                seed=arguments.seed,
                dropout=_or(arguments.dropout, DROPOUT),
                precision=arguments.precision,
            )
        except MemoryError as error:
            sizes = ",".join(map(str, hidden))
            raise InputError(f"--hidden {sizes}: {in_options(error, 'train')}") from error
        return cls(net, preparation)

    def fit(self, arguments, training: Samples, validation: Samples, checkpoint):
        """Train the network in place until it stops getting better; returns the history."""
        loss: Any = "squared_error"
        if self.classes is not None:
            self.smoothing = _or(arguments.label_smoothing, SMOOTHING)
            loss = gpumlp.losses["cross_entropy"](label_smoothing=self.smoothing)
        held, (x, y) = (self.prepared(part, arguments.dtype) for part in (validation, training))
        weight = None
        if arguments.class_weight:
            utils = importlib.import_module("sklearn.utils.class_weight")
            weight = utils.compute_sample_weight("balanced", training.y).astype(arguments.dtype)
        rate = arguments.lr or LEARNING_RATE[arguments.optimizer or "adam"]
        trainer, epochs = self._unfinished, _or(arguments.epochs, EPOCHS)
        if trainer is None:
            trainer = gpumlp.Trainer(
                self.net,
                loss=loss,
                optimizer=_optimizer(arguments, rate),
                batch_size=min(_or(arguments.batch_size, BATCH_SIZE), len(x)),
                seed=arguments.seed,
            )
        else:
            epochs = trainer.epochs_left
        stop = gpumlp.EarlyStopping(_or(arguments.patience, PATIENCE), restore_best=True)
        try:
            history = trainer.fit(
                *(x, y, epochs),
                validation=held,
                callbacks=[stop, checkpoint],
                progress=True,
                sample_weight=weight,
            )
        except gpumlp.DivergenceError as error:
            raise InputError(
                "training failed: the loss, its gradient or an update was NaN or infinite in epoch "
                f"{error.epoch}, with --lr {rate:g}; a lower one may help"
            ) from error
        self._stop = stop
        return history

    @property
    def best_epoch(self) -> int:
        return self._stop.best_epoch

    def prepared(self, part: Samples, dtype: str):
        x = self.preparation.inputs(part.x, dtype, f"X of {part.name}")
        return x, self.preparation.targets(part.y, dtype, f"y of {part.name}")

    def save(self, path: Path) -> None:
        gpumlp.save(self.net, path, metadata={"preparation": self.preparation.metadata()})

    def kinds(self, columns: list[str], path: str) -> dict[str, str]:
        """Of the columns that it takes."""
        assert self.preparation.columns is not None
        return self.preparation.columns.kinds

    def outputs(self, x: Any, path: str) -> tuple[np.ndarray, np.ndarray | None]:
        """What is predicted for features (samples, features) or a frame: labels and probabilities
        (samples, classes), or values (samples, targets) and None."""
        what = path if self.takes_tables else f"X in {path}"
        outputs = self.net.forward(self.preparation.inputs(x, self.net.dtype.name, what))
        bad = np.flatnonzero(~np.isfinite(outputs).all(axis=1))
        if len(bad):
            raise InputError(f"the network's output for row {bad[0]} of {path} is not finite")
        if self.classes is None:
            return self.preparation.values(outputs), None
        return self.classes[outputs.argmax(axis=1)], outputs

    def say(self, path: str) -> None:
        """Nothing: it does not know what training had seen."""

    def export(self, path: Path) -> None:
        """The network as ONNX, in float64, with the preparation in its first and last weights."""
        prepared = self.preparation
        if prepared.columns is not None:
            raise InputError(
                "a model that version 0.1.0 trained on a table cannot be exported with its "
                "preparation: train it again"
            )
        old, K = self.net, self.net.K
        net = gpumlp.MLP(old.sizes, list(old.f[1:-1]), old.f[-1], dtype="float64", device="cpu")
        for k in range(1, K + 1):
            net.W[k][...], net.b[k][...] = old.W[k], old.b[k]
        for k in range(1, K):
            if old.slope[k] is not None:
                net.slope[k][...] = old.slope[k]
        net.W[1][...] /= prepared.deviation
        net.b[1][...] -= net.W[1] @ prepared.mean
        if self.classes is None:
            net.W[K][...] *= prepared.y_deviation[:, None]
            net.b[K][...] = net.b[K] * prepared.y_deviation + prepared.y_mean
        classes = {} if self.classes is None else {"classes": self.classes.tolist()}
        gpumlp.export_onnx(net, path, metadata=classes)


def _optimizer(arguments, rate: float):
    name = arguments.optimizer or "adam"
    # Not given, it is the law's own default: AdamW without decay would be Adam.
    penalty = {}
    if arguments.l2 is not None:
        penalty["weight_decay" if name == "adamw" else "l2"] = arguments.l2
    if name == "momentum":
        return gpumlp.SGD(rate, momentum=0.9, nesterov=True, **penalty)
    kinds = {
        "sgd": gpumlp.SGD,
        "rmsprop": gpumlp.RMSprop,
        "adam": gpumlp.Adam,
        "adamw": gpumlp.AdamW,
        "lion": gpumlp.Lion,
    }
    return kinds[name](rate, **penalty)
