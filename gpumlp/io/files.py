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
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from gpumlp.estimators.base import BaseMLP
    from gpumlp.estimators.tabular.tabular_base import BaseTabular

VERSION = 1

# What safetensors names the dtypes of NumPy; it has others, which NumPy lacks.
DTYPES = set("BOOL I8 I16 I32 I64 U8 U16 U32 U64 F16 F32 F64".split())

# What Python and NumPy raise for a value that is not what the code takes it for.
WRONG = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(OverflowError, RecursionError),
)


def save(
    what: MLP | Trainer | BaseMLP | BaseTabular,
    path: str | os.PathLike[str],
    metadata: Any = None,
    fit: bool = False,
) -> None:
    """Write a network, a trainer with its network, or a fitted estimator to a file.

    The file is written in one piece or not at all.

    Parameters
    ----------
    what : MLP, Trainer, MLPClassifier, MLPRegressor, TabularClassifier or TabularRegressor
        An estimator is written with all that it has learned: of its attributes those that gpumlp
        knows, of a subclass of yours also its own that end with an underscore; others are left out,
        with a warning.
    path : str or os.PathLike
        The file, of the format safetensors.
    metadata : optional
        Anything that JSON can hold; `load` gives it back as net.metadata.  None writes that of the
        network.  Not for estimators.
    fit : bool, default False
        Whether to write also what it takes to go on with the running fit, as `Checkpoint` does it.

    Raises
    ------
    TypeError
        For any other object.
    ValueError
        For what `load` would refuse, such as weights or an optimiser's state that are not finite.
    OSError
        Where the file cannot be written.

    Examples
    --------
    >>> gpumlp.save(trainer, "model.safetensors")
    >>> trainer = gpumlp.load("model.safetensors")
    """
    from safetensors.numpy import save as to_bytes

    path = checks.path(path, "path")
    if isinstance(what, MLP | Trainer):
        description, arrays = _network_or_trainer(what, metadata, fit)
    else:
        description, arrays = _estimator(what, metadata, fit)
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    if wrong := file_arrays.wrong_numbers(arrays):
        raise ValueError(f"save: {wrong}")
    description |= {"format": "gpumlp", "version": VERSION}
    description = json.loads(json.dumps(description))  # as it will be read: every key a string
    description["digest"] = _digest(arrays, description)
    check(description, FILE, "save: the description")  # else nothing could read it
    atomic.write(path, to_bytes(arrays, metadata={"gpumlp": json.dumps(description)}))


def _network_or_trainer(
    what: Any, metadata: Any, fit: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The description and the arrays."""
    trainer = what if isinstance(what, Trainer) else None
    net = trainer.net if trainer is not None else what
    network, arrays = network_codec.describe(net)
    if metadata is None:
        network["metadata"] = checks.storable(net.metadata, "net.metadata")
    else:
        network["metadata"] = checks.storable(metadata, "metadata")
    description: dict[str, Any] = {"network": network}
    if trainer is not None:
        more, its_arrays = trainer_codec.describe(trainer, fit)
        description, arrays = description | more, arrays | its_arrays
    return description, arrays


def _estimator(what: Any, metadata: Any, fit: bool) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The same of an estimator."""
    from gpumlp.io import estimator_codec, tabular_codec

    if not hasattr(what, "_to_file"):
        raise TypeError(
            "save takes a network or a Trainer, or a fitted MLPClassifier, MLPRegressor, "
            f"TabularClassifier or TabularRegressor, not {type(what).__name__}"
        )
    if metadata is not None:
        raise ValueError("metadata goes with a network; an estimator has its own attributes")
    est, running = what._to_file(fit)
    tabular = isinstance(est, tabular_codec.BaseTabular)
    return (tabular_codec if tabular else estimator_codec).describe(est, running)


def check_storable(trainer: Trainer) -> None:
    """Raises ParameterError, before a fit, for what is the user's and no checkpoint can hold."""
    checks.storable(trainer.net.metadata, "net.metadata")
    trainer_codec.callback_states(trainer)


def load(
    path: str | os.PathLike[str], device: str = "auto", custom: dict[str, Any] | None = None
) -> Any:
    """Read the network, trainer or fitted estimator that `save` has written.

    Nothing in a file is executed.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    device : str, default "auto"
        Where the network is to be, as of `MLP`.  An estimator with device="auto" keeps the
        parameter `device` that it had, and predicts where it was fitted, or on the CPU where there
        is no such GPU; any other device becomes its parameter.
    custom : dict, optional
        What is your own in it, by name: activations, losses, schedules, and of an estimator also
        callbacks, metrics, and its class, if it is a subclass of yours.

    Returns
    -------
    MLP, Trainer, MLPClassifier, MLPRegressor, TabularClassifier or TabularRegressor

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    FileError
        With what is wrong: cut short, altered, not ours, of a newer version, or holding what no
        `save` writes.
    ValueError, RuntimeError
        For a device that is none, or that cannot be used.
    """
    return read(checks.path(path, "path"), device, custom)


def read(
    path: Path,
    device: str,
    custom: dict[str, Any] | None,
    make_checkpoint: Callable[[dict[str, Any]], Callback] | None = None,
) -> Any:
    """Read a file, see `load`.

    Parameters
    ----------
    make_checkpoint : callable, optional
        Makes a `Checkpoint` of the arguments of one among an estimator's callbacks; without it such
        a callback is left out, with a warning: a file does not decide where something is written.
    """
    # What is wrong with these is not the file's fault.
    devices.resolve(device)
    custom = {} if custom is None else custom
    if not isinstance(custom, dict):
        message = f"custom = {checks.shown(custom)} must be None or {{name: object}}"
        raise checks.ParameterError(message)
    with refusing(path):
        arrays, description = _read(path)
        if "estimator" in description:
            from gpumlp.io import estimator_codec

            return estimator_codec.restore(
                description["estimator"], arrays, device, custom, make_checkpoint
            )
        if "tabular" in description:
            from gpumlp.io import tabular_codec

            return tabular_codec.restore(
                description["tabular"], arrays, device, custom, make_checkpoint
            )
        net = network_codec.restore(description["network"], arrays, device, custom)
        net.metadata = description["network"]["metadata"]
        if "trainer" in description:
            return trainer_codec.restore(description, arrays, net, custom)
        return net


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Whatever is wrong within becomes a FileError that names the file."""
    try:
        yield
    except (FileError, SchemaError) as error:
        raise FileError(f"{path}: {error}") from error.__cause__
    except WRONG as error:
        raise FileError(f"{path} does not hold what it should: {error!r}") from error


# ---------------------------------------------------------------- bytes
def _digest(arrays: dict[str, np.ndarray], description: dict[str, Any]) -> str:
    """Of everything in the file but the digest itself."""
    described = {key: value for key, value in description.items() if key != "digest"}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape};".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
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
        description = json.loads(header["gpumlp"])
        version, digest = description["version"], description["digest"]
        newer = isinstance(version, int) and version > VERSION
        altered = not newer and digest != _digest(arrays, description)
    except (*WRONG, MemoryError):
        raise FileError("was altered: its description cannot be read") from None
    if newer:
        raise FileError(
            f"was written by a newer gpumlp: version {version}, this one reads {VERSION}"
        )
    if altered:
        raise FileError("was altered: its contents are not those that were written")
    check(description, FILE, "the description")
    if wrong := file_arrays.wrong_numbers(arrays):
        raise FileError(wrong)
    return arrays, description
