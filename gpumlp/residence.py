"""Which of two ways the updates of a fit take on a GPU: operations, or one kernel for many updates.

Small networks of a stack stay in shared memory for as long as a launch lasts, one to a block; the
others, and a few alone, take the operations one after another.  The results are the same.
"""

from __future__ import annotations

import numpy as np

from gpumlp.backend import Targets
from gpumlp.backend.resident import Shape, Training
from gpumlp.streamed import Streamed

# As many networks as there are occupy so many multiprocessors; fewer leave the GPU to idle, and
# the products of all networks in one call, each over the whole GPU, are better.
LEAST_NETWORKS = 16

STEPS = 1024  # batches of a launch: Ctrl-C is seen between two


def launcher(updates, rows):
    """launch(steps): the next batches of every network, so many or fewer; returns how many.

    None, if they are to take the operations.
    """
    if isinstance(rows, Streamed):
        return None
    train = kernel(updates, rows.data.x.dtype)
    if train is None:
        return None
    what = _training(updates, rows)

    def launch(steps):
        steps = min(steps, STEPS)
        train(what, steps)
        return steps

    return launch


def kernel(updates, source):
    """What trains the networks in shared memory, on features of this dtype; None, if they are to
    take the operations.

    updates: or whatever has its net, objective, optimizer and resident, before there are updates.
    """
    net = updates.net
    wanted = updates.resident
    if wanted is None:
        wanted = net.models_count >= LEAST_NETWORKS
    if not wanted or net.device == "cpu" or net.precision != "float32":
        return None
    return net.ops.resident(_shape(updates, source))


def thresholds(net):
    """Below which bits a unit of layer k of network m is dropped, (K + 1, M)."""
    table = net.ops.xp.zeros((net.K + 1, net.models_count), np.uint32)
    for k, threshold in enumerate(net.thresholds):
        if threshold is not None:
            table[k] = threshold
    return table


def _shape(updates, source) -> Shape:
    net = updates.net
    return Shape(
        dtype=str(net.dtype),
        sizes=net.sizes,
        f=tuple(net.f),
        dropout=tuple(threshold is not None for threshold in net.thresholds),
        pair=updates.objective.pair,
        family=updates.optimizer.family,
        slots=tuple(updates.optimizer.slots().values()),
        source=str(source),
    )


def _training(updates, rows) -> Training:
    objective = updates.objective
    return Training(
        theta=updates.net.parameters.buffer,
        slots=list(updates.slots.values()),
        data=rows.data,
        order=rows.order,
        positions=rows.length,
        batch=rows.batch_size,
        targets=Targets(None, None, objective.scale, objective.shift),
        mean=objective.mean,
        p=objective.p,
        penalised=updates.penalty_in_loss,
        seeds=updates.seeds,
        dropout=updates.thresholds,
        hyper=updates.hyper,
        rates=updates.rates.table,
        first_rate=updates.rates.first,
        state=updates.state,
    )
