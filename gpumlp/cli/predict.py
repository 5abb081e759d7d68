"""`gpumlp predict`: applies a saved network or estimator to new samples."""

import csv
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np

import gpumlp
from gpumlp.cli import output, table
from gpumlp.cli.choose_device import choose
from gpumlp.cli.data import features_of
from gpumlp.cli.error import InputError
from gpumlp.cli.estimator import Estimator, check_finite
from gpumlp.cli.preparation import Preparation
from gpumlp.utils import atomic

SUFFIXES = (".csv", ".npy", ".npz")


def run(arguments) -> int:
    out = _checked_out(arguments.out, arguments.proba)
    model = load_model(arguments.model, choose(arguments.device)[0])
    if arguments.proba and model.classes is None:
        raise InputError("--proba is for classification; this model predicts values")
    _write(model.predict(arguments.file, arguments.proba), out)
    return 0


class Trained:
    """The network that `gpumlp train` saved, and how its features were prepared."""

    def __init__(self, net, preparation: Preparation):
        self.net, self.preparation = net, preparation
        self.classes = preparation.classes

    def predict(self, path: str, proba: bool) -> dict[str, np.ndarray]:
        """value; or label, with probability and classes if asked."""
        outputs = self.net.forward(self._inputs(path))
        check_finite(outputs, path)
        if self.classes is None:
            return {"value": self.preparation.values(outputs)}
        found = {"label": self.preparation.labels(outputs)}
        return found | {"probability": outputs, "classes": self.classes} if proba else found

    def _inputs(self, path: str) -> np.ndarray:
        """The network's input for the samples in a file, of the kind that it was trained on."""
        columns, dtype = self.preparation.columns, self.net.dtype.name
        if columns is not None:
            if Path(path).suffix in table.ARRAYS:
                raise InputError(f"{path} is no table, but the model was trained on one")
            samples = table.read_columns(path, columns.names, columns.of_text)
            return self.preparation.inputs(samples, dtype, path)
        if table.is_table(path):
            raise InputError(f"{path} is a table, but the model was trained on arrays (.npz)")
        x = features_of(path, self.net.sizes[0])
        return self.preparation.inputs(x, dtype, f"X in {path}")


def load_model(path: str, device: str) -> Trained | Estimator:
    try:
        loaded = gpumlp.load(path, device=device)
        if not isinstance(loaded, gpumlp.MLP | gpumlp.Trainer):
            return Estimator(loaded)
    except (gpumlp.FileError, OSError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path} cannot be loaded as a model: {error}") from error
    net = loaded.net if isinstance(loaded, gpumlp.Trainer) else loaded
    stored = net.metadata.get("preparation") if isinstance(net.metadata, dict) else None
    if not isinstance(stored, dict) or net.models is not None:
        raise InputError(
            f"{path} holds a network but not how its features were prepared: "
            "it was not saved by `gpumlp train`"
        )
    try:
        return Trained(net, Preparation.from_metadata(stored, net.sizes[0], net.sizes[-1]))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _checked_out(out: str | None, proba: bool) -> Path | None:
    """Refuses an output that could not be written, before the work."""
    if out is None:
        return None
    path = Path(out)
    if path.suffix not in SUFFIXES:
        raise InputError(f"--out {out} must end in {', '.join(SUFFIXES)}")
    if path.suffix == ".npy" and proba:
        raise InputError("an .npy file holds one array; with --proba write .npz or .csv")
    return output.file(path)


def _write(found: dict[str, Any], out: Path | None) -> None:
    if out is None:
        _write_table(found, sys.stdout)
        return
    try:
        atomic.write(out.resolve(), _as_bytes(found, out.suffix))
    except OSError as error:
        raise InputError(f"{out} cannot be written ({output.reason(error)})") from error


def _as_bytes(found: dict[str, Any], suffix: str) -> bytes:
    if suffix == ".csv":
        text = io.StringIO()
        _write_table(found, text)
        return text.getvalue().encode(errors="backslashreplace")
    file = io.BytesIO()
    if suffix == ".npy":
        np.save(file, next(iter(found.values())))
    else:
        np.savez(file, **found)
    return file.getvalue()


def _write_table(found: dict[str, Any], file) -> None:
    """One line a sample, as CSV; a header only where there is more than one column."""
    names, columns = [], []
    for name, form in (("label", "{}"), ("value", "{:.7g}"), ("probability", "{:.6g}")):
        if name in found:
            names += _names(name, found)
            rows = found[name].reshape(len(found[name]), -1)
            columns += [map(form.format, column) for column in rows.T]
    table = csv.writer(file, lineterminator="\n")
    if len(columns) > 1:
        table.writerow(names)
    table.writerows(zip(*columns, strict=True))


def _names(name: str, found: dict[str, np.ndarray]) -> list[str]:
    """Of the columns of one array."""
    if name == "probability":
        return [str(each) for each in found["classes"]]
    if found[name].ndim == 1:
        return [name]
    return [f"y{column}" for column in range(found[name].shape[1])]
