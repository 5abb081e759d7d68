"""Networks, trainings and estimators in files: safetensors for the arrays, JSON in its header for
the rest.

Nothing in a file is executed: activations, losses and schedules are stored by name, and those that
a user made are handed to `load` again as custom={name: object}.

The header's entry "gpumlp" is JSON: format, version, a digest of everything, the network's and the
trainer's arguments, what training had come to.  Arrays are named W.1, b.1, slope.1, ..., for a
trainer also optimizer.<slot>.W.1, ..., steps, halted and lr; in a file that was written in the
midst of a fit also callback.<i>.<name>, and losses and weights of the epoch's batches so far.
An estimator's file is described in gpumlp/estimator/saved.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp import (
    activation,
    atomic,
    callback,
    checks,
    file_arrays,
    history,
    loss,
    memory,
    optimizer,
    schedule,
)
from gpumlp import device as devices
from gpumlp.backend.sources import SCALARS
from gpumlp.descriptions import FILE
from gpumlp.network import MLP
from gpumlp.schema import SchemaError, check
from gpumlp.trainer import Trainer

VERSION = 1

# What safetensors names the dtypes of NumPy; it has others, which NumPy lacks.
DTYPES = set("BOOL I8 I16 I32 I64 U8 U16 U32 U64 F16 F32 F64".split())

# What Python and NumPy raise for a value that is not what the code takes it for.
WRONG = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(OverflowError, RecursionError),
)


class FileError(ValueError):
    """The file is not what it should be; the message says in what."""


def save(what, path, metadata: dict | None = None, fit: bool = False) -> None:
    """Write a network, a trainer with its network, or a fitted MLPClassifier or MLPRegressor with
    all that it has learned, to a file; in one piece or not at all.

    metadata: anything that JSON can hold; `load` gives it back as net.metadata.
    fit: also what it takes to go on with the running fit, as `Checkpoint` does it.

    Of an estimator's attributes those are written that gpumlp knows, of a subclass of yours also
    its own that end with an underscore; others are left out, with a warning.

    Raises ValueError for what `load` would refuse, such as weights or an optimiser's state that are
    not finite; OSError where the file cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    path = checks.path(path, "path")
    if hasattr(what, "_to_file"):
        if metadata is not None:
            raise ValueError("metadata goes with a network; an estimator has its own attributes")
        about, arrays = what._to_file(fit)
    else:
        about, arrays = _network_or_trainer(what, metadata, fit)
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
    if not isinstance(net, MLP):
        raise TypeError(
            "save takes a network or a Trainer, or a fitted MLPClassifier or MLPRegressor, not "
            f"{type(what).__name__}"
        )
    arrays = file_arrays.named(net.layout, net.ops.to_host(net.parameters.buffer))
    about: dict[str, Any] = {"network": _network_state(net)}
    if metadata is None:
        about["network"]["metadata"] = checks.storable(net.metadata, "net.metadata")
    else:
        about["network"]["metadata"] = checks.storable(metadata, "metadata")
    if trainer is not None:
        about["trainer"] = _trainer_state(trainer)
        arrays |= _trainer_arrays(trainer)
        if fit:
            about["fit"], more = _fit_state(trainer)
            arrays |= more
    return about, arrays


def check_storable(trainer) -> None:
    """Raises ParameterError, before a fit, for what is the user's and no checkpoint can hold."""
    checks.storable(trainer.net.metadata, "net.metadata")
    _kept(trainer)


def _kept(trainer) -> list[callback.Kept]:
    """The states of the callbacks."""
    states = callback.keep(trainer.callbacks)
    for state in states:
        checks.storable(state.numbers, f"the state of {state.kind}")
    return states


def load(path, device: str = "auto", custom: dict[str, Any] | None = None):
    """The network, trainer or fitted estimator of a file, on that device.

    An estimator with device="auto" keeps the parameter `device` that it had, and predicts where it
    was fitted, or on the CPU where there is no such GPU; any other device becomes its parameter.

    custom: what is your own in it, by name: activations, losses, schedules, and of an estimator
    also callbacks, metrics, and its class, if it is a subclass of yours.

    Raises FileNotFoundError, or FileError with what is wrong: cut short, altered, not ours, of a
    newer version, or holding what no `save` writes.
    """
    return read(checks.path(path, "path"), device, custom)


def read(path: Path, device: str, custom: dict[str, Any] | None, checkpoints: Path | None = None):
    """See `load`.

    checkpoints: where a `Checkpoint` among an estimator's callbacks goes on writing, as the user
    named it; without it such a callback is left out, with a warning: a file does not decide where
    something is written.
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
            from gpumlp.estimator import saved

            return saved.restore(about["estimator"], arrays, device, custom, checkpoints)
        net = _make_network(about["network"], arrays, device, custom)
        if "trainer" not in about:
            return net
        trainer = _make_trainer(about["trainer"], arrays, net, custom)
        if "fit" in about:
            _take_up_fit(trainer, about["fit"], arrays)
        return trainer


@contextlib.contextmanager
def refusing(path: Path):
    """Whatever is wrong within becomes a FileError that names the file."""
    try:
        yield
    except (FileError, SchemaError) as error:
        raise FileError(f"{path}: {error}") from error.__cause__
    except WRONG as error:
        raise FileError(f"{path} does not hold what it should: {error!r}") from error


# ---------------------------------------------------------------- the network
def _network_state(net) -> dict:
    return {
        "sizes": list(net.sizes),
        "activations": [function_state(f) for f in net.f[1:]],
        "models": net.models,
        "dtype": str(net.dtype),
        "seed": _plain(net.seed),
        "init": net.init if isinstance(net.init, str) else None,
        "dropout": _plain(net.dropout),
        "precision": net.precision,
        "tune": net.tune,
        "products": net.ops.choices(),
    }


def _make_network(state, arrays, device, custom) -> MLP:
    functions = [
        find(activation.activations, custom, each, "activation") for each in state["activations"]
    ]
    file_arrays.check_shapes(state, functions, arrays)
    net = MLP(
        state["sizes"],
        functions[:-1],
        functions[-1],
        models=state["models"],
        dtype=state["dtype"],
        device=device,
        init="zeros",
        seed=state["seed"],
        dropout=state["dropout"],
        precision=state.get("precision", "float32"),
        tune=state.get("tune", False),
    )
    net.ops.adopt(state.get("products", {}))
    net.init = state["init"]
    net.metadata = state["metadata"]
    with net.ops.on_device():
        file_arrays.fill(net, net.parameters.buffer, arrays)
    return net


def find(table, custom, state, kind):
    """The built-in of that name with the stored constants, or the user's own."""
    name = state["name"]
    if state["own"] and name not in custom:
        hint = f"load(..., custom={{{name!r}: ...}})"
        raise FileError(f"the file uses your own {kind} {name!r}: {hint}")
    if not state["own"] and name not in table:
        raise FileError(f"there is no {kind} {name!r}; there are: {', '.join(table)}")
    found = custom[name] if state["own"] else table[name]
    made_by_class = isinstance(found, type) and not state["own"]
    return found(**state["parameters"]) if state["parameters"] or made_by_class else found


def function_state(function) -> dict:
    """Of an Activation or a Loss; own: it is the user's, whatever its name."""
    own = not function.built_in
    return {"name": function.name, "parameters": function.parameters, "own": own}


# ---------------------------------------------------------------- the trainer
def _trainer_state(trainer) -> dict:
    rates = trainer.rates
    return {
        "loss": function_state(trainer.loss),
        "optimizer": {"name": type(trainer.optimizer).__name__, **trainer.optimizer.state()},
        "batch_size": trainer.batch_size,
        "schedule": schedule_state(rates.schedule),
        "shuffle": bool(trainer.shuffle),
        "reduction": trainer.reduction,
        "seed": _plain(trainer.seed),
        "clip_norm": _plain(trainer.clip_norm),
        "penalty_in_loss": trainer.penalty_in_loss,
        "epoch": trainer.epoch,
        "history": trainer.history.state(),
        "rates": {
            "issued": rates.issued,
            "steps_per_epoch": rates.steps_per_epoch,
            "total": rates.total,
            "memory": {key: _plain(value) for key, value in rates.memory.items()},
        },
    }


def _trainer_arrays(trainer) -> dict[str, np.ndarray]:
    to_host = trainer.net.ops.to_host
    arrays = {
        "steps": to_host(trainer.state.t),
        "halted": to_host(trainer.state.halted),
        "lr": to_host(trainer.state.scalars)[:, SCALARS.index("RATE")],
    }
    for slot, buffer in trainer.slots.items():
        if buffer is not None:
            arrays |= file_arrays.named(trainer.net.layout, to_host(buffer), f"optimizer.{slot}.")
    return arrays


def _make_trainer(state, arrays, net, custom) -> Trainer:
    arguments = dict(state["optimizer"])
    kind = optimizer.optimizers[arguments.pop("name")]
    trainer = Trainer(
        net,
        find(loss.losses, custom, state["loss"], "loss"),
        kind(**{key: _number(value) for key, value in arguments.items()}),
        state["batch_size"],
        make_schedule(state["schedule"], custom),
        state["shuffle"],
        state["reduction"],
        state["seed"],
        _number(state["clip_norm"]),
        state["penalty_in_loss"],
    )
    trainer.epoch = state["epoch"]
    trainer.history = _history(state["history"], net)
    rates, models, real = state["rates"], net.models_count, net.dtype
    trainer.rates.issued, trainer.rates.total = rates["issued"], rates["total"]
    trainer.rates.steps_per_epoch = rates["steps_per_epoch"]
    # What a plateau remembers of each network; nothing, of another schedule.
    known = trainer.rates.memory
    if rates["memory"].keys() != known.keys():
        raise FileError(f"rates.memory has {list(rates['memory'])}, not {list(known)}")
    for key, value in rates["memory"].items():
        if len(value) != models:
            raise FileError(f"rates.memory.{key} is of {len(value)} networks, not {models}")
        known[key] = np.asarray(value, known[key].dtype)
    file_arrays.check_counts(arrays, rates["issued"], models)
    with net.ops.on_device():
        for name, dtype, target in (
            ("steps", np.int64, trainer.state.t),
            ("halted", np.int64, trainer.state.halted),
            ("lr", real, trainer.state.scalars[:, SCALARS.index("RATE")]),
        ):
            target[...] = net.ops.to_device(file_arrays.array_of(arrays, name, dtype, (models,)))
        for slot, buffer in trainer.slots.items():
            if buffer is not None:
                file_arrays.fill(net, buffer, arrays, f"optimizer.{slot}.")
        trainer.apply_plateau()
    return trainer


def _history(state, net) -> history.History:
    """Each entry is a number, of a stack one for each network."""
    found, shape = history.from_state(state), () if net.models is None else (net.models,)
    for name in ("loss", "val_loss", "val_accuracy", "lr"):
        if any(np.shape(entry) != shape for entry in getattr(found, name)):
            raise FileError(f"history.{name} has entries that are not of shape {shape}")
    return found


# ---------------------------------------------------------------- a fit under way
def _fit_state(trainer) -> tuple[dict, dict]:
    """Numbers and arrays: where the fit stands, and what its callbacks remember."""
    kept = _kept(trainer)
    done, to_host = trainer.batches_done, trainer.net.ops.to_host
    numbers = {
        "epochs_left": trainer.epochs_left,
        "batches_done": done,
        "callbacks": [[each.kind, each.numbers, list(each.arrays)] for each in kept],
    }
    arrays = {
        f"callback.{i}.{name}": to_host(array)
        for i, each in enumerate(kept)
        for name, array in each.arrays.items()
    }
    if done:
        tables = {"losses": trainer.state.losses, "weights": trainer.state.weights}
        arrays |= {name: to_host(table)[:done] for name, table in tables.items()}
    return numbers, arrays


def _take_up_fit(trainer, numbers, arrays) -> None:
    net, steps = trainer.net, trainer.rates.steps_per_epoch
    trainer.epochs_left = numbers["epochs_left"]
    trainer.batches_done = done = numbers["batches_done"]
    if steps is None or done >= steps:
        raise FileError(f"fit.batches_done is {done} of {steps} batches an epoch")
    trainer.unfinished = [
        callback.Kept(kind, state, {name: arrays[f"callback.{i}.{name}"] for name in names})
        for i, (kind, state, names) in enumerate(numbers["callbacks"])
    ]
    if done:
        state, shape = trainer.state, (done, net.models_count)
        with net.ops.on_device(), memory.explained(net):
            trainer.make_room(done)  # not of all steps, which may be any number
            for name, table in (("losses", state.losses), ("weights", state.weights)):
                table[:done] = net.ops.to_device(
                    file_arrays.array_of(arrays, name, net.dtype, shape)
                )


# ---------------------------------------------------------------- schedules and plain values
def schedule_state(value) -> dict | None:
    if value is None:
        return None
    for name, kind in schedule.schedules.items():
        if type(value) is kind:
            return {"name": name, "parameters": vars(value), "own": False}
    return {"name": getattr(value, "__name__", "schedule"), "parameters": {}, "own": True}


def make_schedule(state, custom):
    return None if state is None else find(schedule.schedules, custom, state, "schedule")


def _plain(value):
    return value.tolist() if hasattr(value, "tolist") else _each(value)


def _each(value):
    return [_plain(v) for v in value] if isinstance(value, list | tuple | range) else value


def _number(value):
    """A number for all networks, or one for each."""
    return np.array(value) if isinstance(value, list) else value


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
