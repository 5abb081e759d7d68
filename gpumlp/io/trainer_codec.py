"""Trainers in files: their arguments, what training has come to, and a fit under way.

All that training changes is `TrainingState.state_dict`; here it has the names that it bears in a
file: arrays optimizer.<buffer>.W.1, ..., steps, halted and lr; in a fit that was under way also
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
    """The entries "trainer" and, of a fit under way, "fit"; and the arrays."""
    state, layout = trainer.state_dict(), trainer.net.layout
    arrays = {"steps": state["steps"], "halted": state["stopped_at"], "lr": state["lr"]}
    for name, buffer in state["buffers"].items():
        arrays |= file_arrays.named(layout, buffer, f"optimizer.{name}.")
    rates = dict(state["rates"])
    rates["memory"] = {key: plain(value) for key, value in rates["memory"].items()}
    about: dict[str, Any] = {
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
        states, to_host = callback_states(trainer), trainer.net.ops.to_host
        about["fit"] = {
            "epochs_left": state["epochs_left"],
            "batches_done": state["batches_done"],
            "callbacks": [[each.kind, each.numbers, list(each.arrays)] for each in states],
        }
        for i, each in enumerate(states):
            arrays |= {f"callback.{i}.{n}": to_host(array) for n, array in each.arrays.items()}
        arrays |= {name: state[name] for name in ("losses", "weights") if name in state}
    return about, arrays


def callback_states(trainer: Trainer) -> list[callback.CallbackState]:
    """What the callbacks of the running fit remember.  Raises ParameterError for what JSON cannot
    hold."""
    states = callback.keep(trainer.callbacks)
    for state in states:
        checks.storable(state.numbers, f"the state of {state.kind}")
    return states


def restore(about: dict[str, Any], arrays, net, custom: dict[str, Any]) -> Trainer:
    """The trainer of the network that was described.  Raises FileError, SchemaError or ValueError
    for what `describe` has not written."""
    entry, fit = about["trainer"], about.get("fit")
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
    """The trainer's state dictionary, as the file has it."""
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
    """Each entry is a number, of a stack one for each network."""
    known, shape = history.from_state(entry), () if net.models is None else (net.models,)
    for name in ("loss", "val_loss", "val_accuracy", "lr"):
        if any(np.shape(value) != shape for value in getattr(known, name)):
            raise FileError(f"history.{name} has entries that are not of shape {shape}")


def plain(value):
    """A number or an array, or a sequence of such, as JSON has it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [plain(v) for v in value] if isinstance(value, list | tuple | range) else value


def _number(value):
    """A number for all networks, or one for each."""
    return np.array(value) if isinstance(value, list) else value
