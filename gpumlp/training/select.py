"""Leaving a stack: some of its networks, with all that their training has come to."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from gpumlp.functions import initializer
from gpumlp.model.network import MLP
from gpumlp.training.history import History
from gpumlp.training.trainer import Trainer


def select(trainer: Trainer, members) -> Trainer:
    """A trainer of these networks of a stack, in a stack of their own; between two epochs.

    members: their numbers in the stack.  Parameters, optimiser's state and numbers, seeds, learning
    rates, counters and history are copies: each trains on as it would have in the larger stack.
    """
    net, members = trainer.net, np.asarray(members, dtype=np.intp)
    if net.models is None:
        raise ValueError("select takes networks out of a stack, and this is a single one")
    if trainer.batches_done:
        raise ValueError("an epoch has begun: select takes networks out between two")

    def own(value):
        """Of an argument that may hold a number for each network."""
        each = np.ndim(value) == 1 and len(value) == net.models
        return np.asarray(value)[members] if each else value

    per_layer = isinstance(net.dropout, list | tuple) or np.ndim(net.dropout) > 0
    stack = MLP(
        net.sizes,
        net.f[1 : net.K],
        net.f[net.K],
        models=len(members),
        dtype=net.dtype,
        device=net.device,
        init="zeros",
        seed=[int(s) for s in initializer.seeds(net.seed, net.models)[members]],
        dropout=[own(p) for p in net.dropout] if per_layer else own(net.dropout),
        precision=net.precision,
        tune=net.tune,
    )
    stack.init = net.init
    optimizer: Any = trainer.optimizer
    numbers = {f.name: own(getattr(optimizer, f.name)) for f in fields(optimizer)}
    selected = Trainer(
        stack,
        trainer.loss,
        replace(optimizer, **numbers),
        trainer.batch_size,
        trainer.rates.schedule,
        trainer.shuffle,
        trainer.reduction,
        [int(s) for s in initializer.seeds(trainer.seed, net.models)[members]],
        own(trainer.clip_norm),
        trainer.penalty_in_loss,
    )
    _copy_state(trainer, selected, members)
    return selected


def _copy_state(old: Trainer, new: Trainer, members):
    """What lies on the device, and the counters."""
    new.epoch, new.epochs_left, new.history = old.epoch, old.epochs_left, _of(old.history, members)
    rates = new.rates
    rates.issued, rates.total = old.rates.issued, old.rates.total
    rates.steps_per_epoch = old.rates.steps_per_epoch
    rates.memory = {name: np.asarray(each)[members] for name, each in old.rates.memory.items()}
    pairs = [(old.net.parameters.buffer, new.net.parameters.buffer)]
    pairs += [
        (old.state_buffers[name], slot)
        for name, slot in new.state_buffers.items()
        if slot is not None
    ]
    pairs += [
        (getattr(old.state, n), getattr(new.state, n)) for n in ("t", "stopped_at", "scalars")
    ]
    with new.net.ops.on_device():
        index = new.net.ops.to_device(members)
        for source, target in pairs:
            target[...] = new.net.ops.xp.take(source, index, axis=0)
        new.apply_plateau()
    new._stopping = new._all_halted()


def _of(history: History, members) -> History:
    lists: dict[str, Any] = {
        name: [np.asarray(value)[members] for value in getattr(history, name)]
        for name in ("loss", "val_loss", "val_accuracy", "lr")
    }
    places = {m: i for i, m in enumerate(members.tolist())}
    diverged = {places[m]: t for m, t in history.diverged.items() if m in places}
    return History(**lists, seconds=list(history.seconds), diverged=diverged)
