"""A stack on the CPU: some of its networks at a time, on each thread.

The networks of a stack have nothing to do with one another.  So a thread takes a block of them,
whose activations and parameters stay in its core's cache, through many batches before it takes the
next; all of them at once would stream through memory at every operation.  A block is the stack, cut
along the leading axis: views, and buffers of its own for the passes.
"""

from __future__ import annotations

import copy
import math

from gpumlp.backend.contract import Data, State
from gpumlp.backend.cpu import pool
from gpumlp.model import blas_threads, workspace
from gpumlp.model.graph_cache import GraphCache
from gpumlp.model.parameters import Parameters
from gpumlp.model.slices import Slices
from gpumlp.model.workspace import Workspaces

# Bytes that the networks of a block work on: about what a core's caches hold, and no fewer than
# make the operations long against Python's time for each.
MOST_BYTES = 1 << 21
LEAST_BYTES = 1 << 18

MOST_KEPT = 3  # divisions: of a fit, of its validation, of predictions

BATCHES = 16  # that a block is trained on before the thread takes the next; then Ctrl-C is seen


class Blocks:
    """The blocks of a stack, as they were divided for batches of so many rows."""

    def __init__(self):
        self._made: dict = {}

    def __reduce__(self):
        return Blocks, ()  # a copy's networks lie elsewhere

    def get(self, net, rows: int) -> list:
        """(members, their network) of each block; the whole net if it is not to be divided."""
        count = number(net, rows)
        if count == 1:
            return [(slice(None), net)]
        if count not in self._made:
            M = net.models_count
            slices = [slice(M * i // count, M * (i + 1) // count) for i in range(count)]
            self._made[count] = [(members, _network(net, members)) for members in slices]
            if len(self._made) > MOST_KEPT:
                del self._made[next(iter(self._made))]
        return self._made[count]


def number(net, rows: int) -> int:
    """Blocks for batches of so many rows."""
    M = net.models_count
    if (
        M == 1
        or net.device != "cpu"
        or blas_threads.widest(net, rows) >= blas_threads.SMALL_PRODUCT
    ):
        return 1  # BLAS shares its products among threads
    parameters = 4 * net.layout.size * net.dtype.itemsize  # with gradient and optimiser's state
    each = workspace.size(net, rows, "fit") // M + parameters
    cores = pool.threads()
    least, most = max(1, LEAST_BYTES // each), max(1, MOST_BYTES // each)
    count = math.ceil(M / min(most, max(least, math.ceil(M / cores))))
    if count > 1:  # as many for each thread
        count = math.ceil(count / cores) * cores
    return min(count, M)


def shared(array, members: slice):
    """The members' part of an array (1 or M, ...), which may be absent."""
    return array if array is None or len(array) == 1 else array[members]


def _network(net, members: slice):
    """These networks of a stack."""
    part = copy.copy(net)
    part.models = members.stop - members.start
    part.parameters = part.operands = Parameters(net.layout, net.parameters.buffer[members])
    part.thresholds = [shared(each, members) for each in net.thresholds]
    part.p = [shared(each, members) for each in net.p]
    part.workspaces, part.blocks, part.slices = Workspaces(part), Blocks(), Slices()
    part._passes = GraphCache(net.ops)
    return part


# ---------------------------------------------------------------- training


def launcher(updates, rows):
    """launch(steps): the next batches of every network, so many or fewer; returns how many.

    None, if the networks are not to be divided.
    """
    if updates.net.models_count == 1 or updates.net.device != "cpu":
        return None
    parts = _trained(updates, rows)
    if not parts:
        return None

    def launch(steps):
        first = int(updates.state.cursor[0])
        steps = min(steps, BATCHES)

        def train(i):
            its_updates, its_rows = parts[i]
            done = 0
            while done < steps:
                done += its_updates._gathered_updates(its_rows, first + done, steps - done)

        pool.run(train, len(parts))
        return steps

    return launch


def _trained(updates, rows) -> list:
    """(updates, rows) of each block: those of the last epoch, if nothing was replaced since."""
    seen = updates, *updates._replaced(), rows.order
    if rows.blocks is None or any(a is not b for a, b in zip(rows.blocks[0], seen, strict=True)):
        made = [
            (_updates(updates, net, members), rows_of(rows, members))
            for members, net in updates.net.blocks.get(updates.net, rows.batch_size)
            if net is not updates.net
        ]
        rows.blocks = seen, made
    return rows.blocks[1]


def _updates(updates, net, members: slice):
    """The updates of these networks, on their part of the state."""
    part, state = copy.copy(updates), updates.state
    part.net = net
    part.objective = updates.objective.of(net)
    part.grad = Parameters(net.layout, updates.grad.buffer[members])
    part.state_buffers = {
        name: shared(slot, members) for name, slot in updates.state_buffers.items()
    }
    part.seeds, part.hyper = updates.seeds[members], updates.hyper[members]
    whole = "t", "stopped_at", "cursor", "norm", "scalars"
    part.state = State(
        losses=state.losses[:, members],
        weights=state.weights[:, members],
        **{name: getattr(state, name)[members] for name in whole},
    )
    part.noise = net.noise(part.seeds, part.state.t)
    theta, decayed = updates._penalised
    part._penalised = shared(theta, members), decayed
    return part


def rows_of(rows, members: slice):
    """The rows as these networks take them."""
    part = copy.copy(rows)
    part.order = shared(rows.order, members)
    part.data = Data(*(shared(each, members) for each in rows.data))
    part.repeated = GraphCache(rows.repeated._ops)
    return part
