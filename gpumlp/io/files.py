"""Networks, trainings and estimators in files: safetensors for the arrays, JSON in its header for
the rest.

Nothing in a file is executed: activations, losses and schedules are stored by name, and those that
a user made are handed to `load` again as custom={name: object}.

The header's entry "gpumlp" is JSON: format, version, a digest of everything, the network's and the
trainer's arguments, what training had come to.  Arrays are named W.1, b.1, s.1, slope.1, ..., for a
trainer also optimizer.<slot>.W.1, ..., steps, halted and lr; in a file that was written in the
midst of a fit also callback.<i>.<name>, and losses and weights of the epoch's batches so far.
An estimator's file is described in gpumlp/io/estimator_codec.py, that of an estimator for tables in
gpumlp/io/tabular_codec.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.backend import device as devices
from gpumlp.io import file_arrays, network_codec, trainer_codec
from gpumlp.io.errors import FileError
from gpumlp.io.file_schema import FILE
from gpumlp.model.mlp import MLP
from gpumlp.training.callback import Callback
from gpumlp.training.trainer import Trainer
from gpumlp.utils import atomic, checks
from gpumlp.utils.schema import SchemaError, check

VERSION = 1

# What safetensors names the dtypes of NumPy; it has others, which NumPy lacks.
DTYPES = set("BOOL I8 I16 I32 I64 U8 U16 U32 U64 F16 F32 F64".split())

# What Python and NumPy raise for a value that is not what the code takes it for.
WRONG = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(OverflowError, RecursionError),
)


def save(what, path, metadata: dict | None = None, fit: bool = False) -> None:
    """Write a network, a trainer with its network, or a fitted MLPClassifier, MLPRegressor,
    TabularClassifier or TabularRegressor with all that it has learned, to a file; in one piece or
    not at all.

    metadata: anything that JSON can hold; `load` gives it back as net.metadata.
    fit: also what it takes to go on with the running fit, as `Checkpoint` does it.

    Of an estimator's attributes those are written that gpumlp knows, of a subclass of yours also
    its own that end with an underscore; others are left out, with a warning.

    Raises ValueError for what `load` would refuse, such as weights or an optimiser's state that are
    not finite; OSError where the file cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    path = checks.path(path, "path")
    if isinstance(what, MLP | Trainer):
        about, arrays = _network_or_trainer(what, metadata, fit)
    else:
        about, arrays = _estimator(what, metadata, fit)
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    if wrong := file_arrays.wrong_numbers(arrays):
        raise ValueError(f"save: {wrong}")
    about |= {"format": "gpumlp", "version": VERSION}
    about = json.loads(json.dumps(about))  # as it will be read: every key a string
    about["digest"] = _digest(arrays, about)
    check(about, FILE, "save: the description")  # else nothing could read it
    atomic.write(path, to_bytes(arrays, metadata={"gpumlp": json.dumps(about)}))


def _network_or_trainer(what, metadata, fit: bool) -> tuple[dict, dict]:
    """The description and the arrays."""
    trainer = what if isinstance(what, Trainer) else None
    net = trainer.net if trainer is not None else what
    described, arrays = network_codec.describe(net)
    if metadata is None:
        described["metadata"] = checks.storable(net.metadata, "net.metadata")
    else:
        described["metadata"] = checks.storable(metadata, "metadata")
    about: dict[str, Any] = {"network": described}
    if trainer is not None:
        more, its_arrays = trainer_codec.describe(trainer, fit)
        about, arrays = about | more, arrays | its_arrays
    return about, arrays


def _estimator(what, metadata, fit: bool) -> tuple[dict, dict]:
    """The same of an estimator."""
    from gpumlp.io import estimator_codec, tabular_codec

    tabular = isinstance(what, tabular_codec.BaseTabular)
    if not tabular and not hasattr(what, "_to_file"):
        raise TypeError(
            "save takes a network or a Trainer, or a fitted MLPClassifier, MLPRegressor, "
            f"TabularClassifier or TabularRegressor, not {type(what).__name__}"
        )
    if metadata is not None:
        raise ValueError("metadata goes with a network; an estimator has its own attributes")
    if tabular:
        return tabular_codec.describe(what)
    return estimator_codec.describe(*what._to_file(fit))


def check_storable(trainer: Trainer) -> None:
    """Raises ParameterError, before a fit, for what is the user's and no checkpoint can hold."""
    checks.storable(trainer.net.metadata, "net.metadata")
    trainer_codec.callback_states(trainer)


def load(path, device: str = "auto", custom: dict[str, Any] | None = None):
    """The network, trainer or fitted estimator of a file, on that device.

    With device="auto" an estimator keeps the parameter `device` that it had, and predicts where it
    was fitted, or on the CPU where there is no such GPU; any other device becomes its parameter.

    custom: what is your own in it, by name: activations, losses, schedules, and of an estimator
    also callbacks, metrics, and its class, if it is a subclass of yours.

    Raises FileNotFoundError, or FileError with what is wrong: cut short, altered, not ours, of a
    newer version, or holding what no `save` writes.
    """
    return read(checks.path(path, "path"), device, custom)


def read(
    path: Path,
    device: str,
    custom: dict[str, Any] | None,
    make_checkpoint: Callable[[dict[str, Any]], Callback] | None = None,
):
    """See `load`.

    make_checkpoint: makes a `Checkpoint` of the arguments of one among an estimator's callbacks;
    without it such a callback is left out, with a warning: a file does not decide where something
    is written.
    """
    # What is wrong with these is not the file's fault.
    devices.resolve(device)
    custom = {} if custom is None else custom
    if not isinstance(custom, dict):
        message = f"custom = {checks.shown(custom)} must be None or {{name: object}}"
        raise checks.ParameterError(message)
    with refusing(path):
        arrays, about = _read(path)
        if "estimator" in about:
            from gpumlp.io import estimator_codec

            return estimator_codec.restore(
                about["estimator"], arrays, device, custom, make_checkpoint
            )
        if "tabular" in about:
            from gpumlp.io import tabular_codec

            return tabular_codec.restore(about["tabular"], arrays, device, custom)
        net = network_codec.restore(about["network"], arrays, device, custom)
        net.metadata = about["network"]["metadata"]
        return trainer_codec.restore(about, arrays, net, custom) if "trainer" in about else net


@contextlib.contextmanager
def refusing(path: Path):
    """Whatever is wrong within becomes a FileError that names the file."""
    try:
        yield
    except (FileError, SchemaError) as error:
        raise FileError(f"{path}: {error}") from error.__cause__
    except WRONG as error:
        raise FileError(f"{path} does not hold what it should: {error!r}") from error


# ---------------------------------------------------------------- bytes
def _digest(arrays: dict[str, np.ndarray], about: dict) -> str:
    """Of everything in the file but the digest itself."""
    described = {key: value for key, value in about.items() if key != "digest"}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape};".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _read(path: Path):
    """The arrays and the description, both checked."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            for name in file.keys():
                if (dtype := file.get_slice(name).get_dtype()) not in DTYPES:
                    raise FileError(f"{name} has dtype {dtype}, which gpumlp does not write")
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise FileError(f"cut short, or not a safetensors file: {error}") from None
    if "gpumlp" not in header:
        raise FileError("was not written by gpumlp")
    try:
        about = json.loads(header["gpumlp"])
        version, digest = about["version"], about["digest"]
        newer = isinstance(version, int) and version > VERSION
        altered = not newer and digest != _digest(arrays, about)
    except (*WRONG, MemoryError):
        raise FileError("was altered: its description cannot be read") from None
    if newer:
        raise FileError(
            f"was written by a newer gpumlp: version {version}, this one reads {VERSION}"
        )
    if altered:
        raise FileError("was altered: its contents are not those that were written")
    check(about, FILE, "the description")
    if wrong := file_arrays.wrong_numbers(arrays):
        raise FileError(wrong)
    return arrays, about
