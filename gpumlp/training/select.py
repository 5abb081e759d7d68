"""Select some networks of a stack, with the whole state of their training."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from gpumlp.functions import initializer
from gpumlp.model.mlp import MLP
from gpumlp.training.state import take
from gpumlp.training.trainer import Trainer


def select(trainer: Trainer, members) -> Trainer:
    """Make a trainer of these networks, in a stack of their own; between two epochs.

    members: their numbers in the stack.  Parameters, optimiser's state and numbers, seeds, learning
    rates, counters and history are copies: each trains on as it would have in the larger stack.
    """
    net, members = trainer.net, np.asarray(members, dtype=np.intp)
    if net.models is None:
        raise ValueError("select takes networks out of a stack, and this is a single one")
    if trainer.batches_done:
        raise ValueError("an epoch has begun: select takes networks out between two")

    def of_members(value):
        """The members' values of an argument that may have one for each network."""
        per_network = np.ndim(value) == 1 and len(value) == net.models
        return np.asarray(value)[members] if per_network else value

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
        dropout=[of_members(p) for p in net.dropout] if per_layer else of_members(net.dropout),
        scale=list(net.shape.scaled[1:]) or False,
        precision=net.precision,
        tune=net.tune,
        sparse=net.shape.sparse,
    )
    stack.init = net.init
    optimizer: Any = trainer.optimizer
    numbers = {f.name: of_members(getattr(optimizer, f.name)) for f in fields(optimizer)}
    selected = Trainer(
        stack,
        trainer.loss,
        replace(optimizer, **numbers),
        trainer.batch_size,
        trainer.rates.schedule,
        trainer.shuffle,
        trainer.reduction,
        [int(s) for s in initializer.seeds(trainer.seed, net.models)[members]],
        of_members(trainer.clip_norm),
        trainer.penalty_in_loss,
        trainer.factors,
    )
    with stack.ops.on_device():
        index = stack.ops.to_device(members)

        def take_rows(array):
            return stack.ops.xp.take(array, index, axis=0)

        selected.load_state_dict(take(trainer.state.state_dict(on_host=False), members, take_rows))
    return selected
