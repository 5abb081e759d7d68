"""`gpumlp predict`: applies a saved network to new samples."""

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np

import gpumlp
from gpumlp.cli import table
from gpumlp.cli.data import features, read_arrays
from gpumlp.cli.device import choose
from gpumlp.cli.error import InputError
from gpumlp.cli.preparation import Preparation

SUFFIXES = (".csv", ".npy", ".npz")


def run(arguments) -> int:
    out = _checked_out(arguments.out, arguments.proba)
    net, preparation = load_model(arguments.model, choose(arguments.device)[0])
    if arguments.proba and preparation.classes is None:
        raise InputError("--proba is for classification; this model predicts values")
    output = net.forward(_inputs(arguments.file, net, preparation))
    bad = np.flatnonzero(~np.isfinite(output).all(axis=1))
    if len(bad):
        raise InputError(f"the network's output for row {bad[0]} of {arguments.file} is not finite")
    if preparation.classes is None:
        found: dict[str, Any] = {"value": preparation.values(output)}
    else:
        found = {"label": preparation.labels(output)}
        if arguments.proba:
            found |= {"probability": output, "classes": preparation.classes}
    _write(found, out)
    return 0


def _inputs(path: str, net, preparation: Preparation) -> np.ndarray:
    """The network's input for the samples in a file, of the kind that the model was trained on."""
    columns = preparation.columns
    if columns is not None:
        if Path(path).suffix in table.ARRAYS:
            raise InputError(f"{path} is no table, but the model was trained on one")
        samples = table.read_columns(path, columns.names, columns.of_text)
        return preparation.inputs(samples, net.dtype.name)
    if table.is_table(path):
        raise InputError(f"{path} is a table, but the model was trained on arrays (.npz)")
    x = features(read_arrays(path, ("X",))["X"], path)
    if x.shape[1] != net.sizes[0]:
        raise InputError(f"{path} has {x.shape[1]} features; the model takes {net.sizes[0]}")
    return preparation.inputs(x, net.dtype.name)


def load_model(path: str, device: str):
    """The network that `gpumlp train` saved, and its Preparation."""
    try:
        loaded = gpumlp.load(path, device=device)
    except (gpumlp.FileError, OSError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path} cannot be loaded as a model: {error}") from error
    net = loaded.net if isinstance(loaded, gpumlp.Trainer) else loaded
    stored = net.metadata.get("preparation") if isinstance(net.metadata, dict) else None
    if not isinstance(stored, dict):
        raise InputError(
            f"{path} holds a network but not how its features were prepared: "
            "it was not saved by `gpumlp train`"
        )
    return net, Preparation.from_metadata(stored, net.sizes[0], net.sizes[-1])


def _checked_out(out: str | None, proba: bool) -> Path | None:
    """Refuses an output that could not be written, before the work."""
    if out is None:
        return None
    path = Path(out)
    if path.suffix not in SUFFIXES:
        raise InputError(f"--out {out} must end in {', '.join(SUFFIXES)}")
    if path.suffix == ".npy" and proba:
        raise InputError("an .npy file holds one array; with --proba write .npz or .csv")
    return path


def _write(found: dict[str, Any], out: Path | None) -> None:
    if out is None:
        _write_table(found, sys.stdout)
        return
    try:
        if out.suffix == ".npy":
            np.save(out, next(iter(found.values())))
        elif out.suffix == ".npz":
            np.savez(out, **found)
        else:
            with out.open("w", newline="", encoding="utf-8") as file:
                _write_table(found, file)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror})") from error


def _write_table(found: dict[str, Any], file) -> None:
    """One line a sample, as CSV; a header only where there is more than one column."""
    table = csv.writer(file, lineterminator="\n")
    if "probability" in found:
        table.writerow(["label", *found["classes"]])
        for label, row in zip(found["label"], found["probability"], strict=True):
            table.writerow([label, *(f"{share:.6g}" for share in row)])
    elif "label" in found:
        table.writerows([label] for label in found["label"])
    else:
        values = found["value"]
        if values.shape[1] > 1:
            table.writerow([f"y{column}" for column in range(values.shape[1])])
        table.writerows([f"{value:.7g}" for value in row] for row in values)
