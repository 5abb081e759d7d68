"""The executors, which run the steps of an epoch, and the one function that chooses among them.

Nothing else depends on which it is; the results are the same, to the bit or to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from gpumlp.backend.contract import Targets
from gpumlp.backend.cpu import pool
from gpumlp.backend.cuda.persistent_kernel import LaunchArgs
from gpumlp.model import blocks, slices, workspace
from gpumlp.model.shape import NetworkShape
from gpumlp.training import persistent
from gpumlp.training.rows import Rows
from gpumlp.training.step import TrainingStep

BATCHES = 16  # that a block is trained on before the thread takes the next; then Ctrl-C is seen

Interrupted = Callable[[], bool]


class Executor(Protocol):
    """Runs the steps of an epoch, in one of several ways."""

    @property
    def slices(self) -> int:
        """Slices of each batch, which threads share; 1 where it is not divided."""
        ...

    def bytes(self, shape: NetworkShape, rows: int) -> tuple[int, int]:
        """Bytes besides the training's state, in batches of so many rows: of workspaces, which
        serve validation too, and of its own."""
        ...

    def run(
        self, step: TrainingStep, rows: Rows, first: int, most: int, interrupted: Interrupted
    ) -> int:
        """Update every network on batch `first` of the epoch and those after it, at most so many;
        returns how many.  Every buffer of the epoch is there."""
        ...


@dataclass(frozen=True)
class Operations:
    """Runs steps by operations, one after another; what recurs is captured and replayed.

    slices: of each batch of one network, which threads share.
    """

    slices: int = 1

    def bytes(self, shape: NetworkShape, rows: int) -> tuple[int, int]:
        return workspace.size(shape, rows, "fit"), slices.size(shape, self.slices)

    def run(self, step, rows, first, most, interrupted) -> int:
        net, data = step.net, rows.ready(first)
        ws = net.workspaces.get(rows.batch_rows(first), "fit")

        def work():
            batch = ws.batch(data)
            net.ops.gather(data, rows.order, step.device.cursor, rows.batch_size, batch)
            step.update(ws, batch, self.slices)

        replay = rows.graphs.run(id(data), work, ws, data, rows.order, *step.replaced)
        rows.pace()
        done, most = 1, min(most, rows.equal_batches_from(first)) if replay else 1
        while done < most and not interrupted():
            replay()
            rows.pace()
            done += 1
        return done


@dataclass(frozen=True)
class NetworkBlocks:
    """Runs the steps of a stack in blocks of networks, each on a thread, by `Operations`."""

    slices: ClassVar[int] = 1

    def bytes(self, shape: NetworkShape, rows: int) -> tuple[int, int]:
        return workspace.size(shape, rows, "fit"), 0

    def run(self, step, rows, first, most, interrupted) -> int:
        parts, most = _parts(step, rows), min(most, BATCHES)

        def train(i):
            its_step, its_rows = parts[i]
            done = 0
            while done < most:
                left = most - done
                done += Operations().run(its_step, its_rows, first + done, left, lambda: False)

        pool.run(train, len(parts))
        return most


def _parts(step: TrainingStep, rows: Rows) -> list[tuple[TrainingStep, Rows]]:
    """The step and the rows of each block; made anew where a buffer was replaced."""
    seen = step, *step.replaced, rows.order
    if rows.parts is None or any(a is not b for a, b in zip(rows.parts[0], seen, strict=True)):
        made = [
            (step.take(members, net), rows.take(members))
            for members, net in step.net.blocks.get(step.net, rows.batch_size)
        ]
        rows.parts = seen, made
    return rows.parts[1]


@dataclass(frozen=True)
class PersistentKernel:
    """Runs many updates in one launch of the persistent kernel, which keeps networks in shared
    memory."""

    slices: ClassVar[int] = 1

    plan: persistent.Plan

    def bytes(self, shape: NetworkShape, rows: int) -> tuple[int, int]:
        return 0, 0  # batches are gathered where they are used

    def run(self, step, rows, first, most, interrupted) -> int:
        ops, most = step.net.ops, min(most, self.plan.steps)
        train = ops.persistent_kernel(self.plan.shape, self.plan.at)
        train(launch_args(step, rows), most)
        ops.pace(long=True)  # or an interrupt would come after all of an epoch
        return most


def launch_args(step: TrainingStep, rows: Rows) -> LaunchArgs:
    """The arguments of launches on these rows."""
    objective, net = step.objective, step.net
    return LaunchArgs(
        theta=net.parameters.buffer,
        state_buffers=step.buffers,
        data=rows.data,
        order=rows.order,
        positions=rows.length,
        batch=rows.batch_size,
        targets=Targets(None, None, objective.scale, objective.shift),
        mean=objective.mean,
        p=objective.p,
        penalised=step.penalised is not None,
        seeds=step.seeds,
        dropout=net.dropout_table,
        hyper=step.hyper,
        rates=step.rates.table,
        first_rate=step.rates.first,
        state=step.device,
        factors=step.factors,
    )


def choose(
    shape: NetworkShape,
    ops: Any,
    objective,
    optimizer,
    batch: int,
    source=None,
    resident: bool | None = None,
) -> Executor:
    """Choose the executor for these networks, in batches of so many rows.

    source: the dtype of features that lie on the device; None: they are sent in chunks.
    resident: see `gpumlp.Trainer`.
    """
    if source is not None:
        plan = persistent.plan(shape, ops.chip(), objective, optimizer, source, batch, resident)
        if plan is not None:
            return PersistentKernel(plan)
    if shape.M > 1 and blocks.number(shape, batch) > 1:
        return NetworkBlocks()
    return Operations(slices.number(shape, batch, ops.threads(shape, objective)))
