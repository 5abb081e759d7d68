"""Convert trainers to the entries and arrays of a file, and back.

All that training changes is in `TrainingState.state_dict`.  Its arrays in a file are
optimizer.<buffer>.W.1, ..., steps, halted and lr; of a fit that was under way also
callback.<i>.<name>, and losses and weights of the epoch's batches so far.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.functions import loss, optimizer
from gpumlp.io import file_arrays, named
from gpumlp.io.errors import FileError
from gpumlp.model import memory
from gpumlp.training import callback, history
from gpumlp.training.trainer import Trainer
from gpumlp.utils import checks


def describe(trainer: Trainer, fit: bool) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The entry "trainer", with the arrays; if `fit`, also the entry "fit" of the running fit."""
    state, layout = trainer.state_dict(), trainer.net.layout
    arrays = {"steps": state["steps"], "halted": state["stopped_at"], "lr": state["lr"]}
    for name, buffer in state["buffers"].items():
        arrays |= file_arrays.named(layout, buffer, f"optimizer.{name}.")
    rates = dict(state["rates"])
    rates["memory"] = {key: plain(value) for key, value in rates["memory"].items()}
    entries: dict[str, Any] = {
        "trainer": {
            "loss": named.function_state(trainer.loss),
            "optimizer": {"name": type(trainer.optimizer).__name__, **trainer.optimizer.state()},
            "batch_size": trainer.batch_size,
            "schedule": named.schedule_state(trainer.rates.schedule),
            "shuffle": bool(trainer.shuffle),
            "reduction": trainer.reduction,
            "seed": plain(trainer.seed),
            "clip_norm": plain(trainer.clip_norm),
            "penalty_in_loss": trainer.penalty_in_loss,
            **({"factors": trainer.factors} if trainer.factors else {}),
            "epoch": state["epoch"],
            "history": state["history"],
            "rates": rates,
        }
    }
    if fit:
        callbacks, to_host = callback_states(trainer), trainer.net.ops.to_host
        entries["fit"] = {
            "epochs_left": state["epochs_left"],
            "batches_done": state["batches_done"],
            "callbacks": [[entry.kind, entry.numbers, list(entry.arrays)] for entry in callbacks],
        }
        for i, entry in enumerate(callbacks):
            arrays |= {f"callback.{i}.{n}": to_host(array) for n, array in entry.arrays.items()}
        arrays |= {name: state[name] for name in ("losses", "weights") if name in state}
    return entries, arrays


def callback_states(trainer: Trainer) -> list[callback.CallbackState]:
    """The states of the running fit's callbacks; raises ParameterError for what JSON cannot
    hold."""
    states = callback.keep(trainer.callbacks)
    for state in states:
        checks.storable(state.numbers, f"the state of {state.kind}")
    return states


def restore(entries: dict[str, Any], arrays, net, custom: dict[str, Any]) -> Trainer:
    """Make the trainer that was described, for its network.

    Raises FileError, SchemaError or ValueError for what `describe` has not written.
    """
    entry, fit = entries["trainer"], entries.get("fit")
    arguments = dict(entry["optimizer"])
    kind = optimizer.optimizers[arguments.pop("name")]
    trainer = Trainer(
        net,
        named.find(loss.losses, custom, entry["loss"], "loss"),
        kind(**{key: _number(value) for key, value in arguments.items()}),
        entry["batch_size"],
        named.make_schedule(entry["schedule"], custom),
        entry["shuffle"],
        entry["reduction"],
        entry["seed"],
        _number(entry["clip_norm"]),
        entry["penalty_in_loss"],
        entry.get("factors"),
    )
    with memory.explain_oom(net.shape, net.ops):
        trainer.load_state_dict(_state(entry, fit, arrays, trainer))
    if fit is not None:
        trainer.unfinished = [
            callback.CallbackState(
                kind, state, {name: arrays[f"callback.{i}.{name}"] for name in names}
            )
            for i, (kind, state, names) in enumerate(fit["callbacks"])
        ]
    return trainer


def _state(entry: dict[str, Any], fit: dict[str, Any] | None, arrays, trainer) -> dict[str, Any]:
    """The trainer's state dictionary, from the file."""
    net, rates, M = trainer.net, entry["rates"], trainer.net.M
    check_history(entry["history"], net)
    file_arrays.check_counts(arrays, rates["issued"], M)
    state = trainer.state_dict() | {
        "steps": file_arrays.array_of(arrays, "steps", np.int64, (M,)),
        "stopped_at": file_arrays.array_of(arrays, "halted", np.int64, (M,)),
        "lr": file_arrays.array_of(arrays, "lr", net.dtype, (M,)),
        "buffers": {
            name: file_arrays.gathered(net, arrays, f"optimizer.{name}.")
            for name in trainer.state.used_buffers
        },
        "rates": rates,
        "history": entry["history"],
        "epoch": entry["epoch"],
    }
    if fit is None:
        return state
    done, steps = fit["batches_done"], rates["steps_per_epoch"]
    if steps is None or done >= steps:
        raise FileError(f"fit.batches_done is {done} of {steps} batches an epoch")
    if done:
        for name in ("losses", "weights"):
            state[name] = file_arrays.array_of(arrays, name, net.dtype, (done, M))
    return state | {"batches_done": done, "epochs_left": fit["epochs_left"]}


def check_history(entry: dict[str, Any], net) -> None:
    """Check that each value is a number, of a stack one for each network."""
    known, shape = history.from_state(entry), () if net.models is None else (net.models,)
    for name in ("loss", "val_loss", "val_accuracy", "lr"):
        if any(np.shape(value) != shape for value in getattr(known, name)):
            raise FileError(f"history.{name} has entries that are not of shape {shape}")


def plain(value):
    """Convert a number or an array, or a sequence of such, to what JSON can hold."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [plain(v) for v in value] if isinstance(value, list | tuple | range) else value


def _number(value):
    """Convert a list, of a number for each network, to an array; a number stays."""
    return np.array(value) if isinstance(value, list) else value
