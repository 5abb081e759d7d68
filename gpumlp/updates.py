"""The updates of a network: what they need on the device, and one after another."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from gpumlp import arrays, blocks, checks, initializer, memory, noted, residence, slices, workspace
from gpumlp import schedule as schedules
from gpumlp.backend import Batch
from gpumlp.backend.sources import SCALARS
from gpumlp.noted import Epoch, Noted
from gpumlp.optimizer import HYPERS, Optimizer
from gpumlp.parameters import Parameters
from gpumlp.rates import Rates
from gpumlp.repeated import Repeated
from gpumlp.rows import Rows, check_count


class Updates:
    """Gradient, optimiser's state and counters of a network's training; a Trainer's lower half.

    epoch, batches_done: where the next update stands.
    resident: whether epochs of a GPU's resident rows are to be one kernel's work, where that is
        possible; None: if it is estimated to be faster by far (gpumlp/residence.py).
    """

    resident: bool | None = None

    net: Any
    objective: Any
    optimizer: Optimizer
    batch_size: int
    shuffle: bool
    clip_norm: Any
    penalty_in_loss: bool

    def _prepare(self, seed, schedule, penalty_in_loss: bool):
        """What lies on the device; the attributes above are set."""
        net = self.net
        self.epoch = self.batches_done = 0
        self._hyper = self._numbers(self.optimizer)
        seeds = initializer.seeds(seed, net.models_count)
        with net.ops.on_device(), memory.explained(net, self.batch_size, self._slot_count):
            self._allocate(seeds)
            self.rates = Rates(net, self.state, schedules.find(schedule))
            whole = net.parameters.buffer, net.layout.decayed
            self._penalised = whole if penalty_in_loss else (None, 0)

    def _allocate(self, seeds):
        """The gradient, the optimiser's state and the counters, on the device."""
        net, xp = self.net, self.net.ops.xp
        real = net.dtype
        self.grad = Parameters(net.layout, xp.zeros_like(net.parameters.buffer))
        self.slots = {
            name: xp.zeros_like(net.parameters.buffer) if used else None
            for name, used in self.optimizer.slots().items()
        }
        self.seeds = xp.asarray(seeds)
        self.thresholds = residence.thresholds(net)
        self.hyper = xp.asarray(self._hyper.astype(real))
        self.state = Noted.zeros(xp, net.models_count, real)
        self.noise = net.noise(self.seeds, self.state.t)
        self._steps = Repeated(net.ops)  # of `step`; a fit's belong to its rows

    @property
    def _slot_count(self) -> int:
        return sum(self.optimizer.slots().values())

    @property
    def loss(self):
        """The `Loss` that is trained."""
        return self.objective.loss

    @property
    def steps(self):
        """Updates made: a number, or (M,) for a stack."""
        t = self.net.ops.to_host(self.state.t)
        return t.copy() if self.net.models is not None else int(t[0])

    @property
    def diverged(self) -> dict[int, int]:
        """network -> the update that was not finite, or its loss or gradient; reads the device."""
        return noted.diverged(self.net.ops.to_host(self.state.halted))

    @property
    def lr(self):
        """The learning rate of the last update: a number, or (M,) for a stack."""
        lr = self.net.ops.to_host(self.state.scalars)[:, SCALARS.index("RATE")]
        return lr.copy() if self.net.models is not None else float(lr[0])

    # ------------------------------------------------------------ one update
    def step(self, x, y, sample_weight=None):
        """One update on exactly this batch; returns its loss before the update, 0-d or (M,), on the
        network's device and without waiting for it.

        Host arrays are checked for NaN; for arrays on the device that would mean to wait, so that
        a loss that is not finite shows in `diverged`, and the network stops moving.
        """
        net = self.net
        given = arrays.features(x, "x", net, finite=False)
        rows = check_count(given.array.shape[1], "x")
        with (
            net.ops.on_device(),
            memory.explained(net, rows, self._slot_count),
            slices.limited(net, rows, self.objective),
        ):
            memory.check_total(net.ops, workspace.least(net, rows))
            if given.on_host:
                arrays.check_features(given, "x", net)
            batch = net.batch(given.array, y, self.objective, sample_weight, values=False)
            self.rates.cover(1)
            ws = net.workspaces.get(rows, "fit")
            staged = net.stage(batch, ws)
            kind = staged.labels is None, staged.dense is None
            count = slices.number(net, rows, self.objective)
            self._steps.run(kind, lambda: self._update(ws, staged, count), ws, *self._replaced())
            loss = ws.loss.copy()
        return loss if net.models is not None else loss[0]

    def _gathered_updates(self, rows: Rows, i: int, most: int, interrupt=None) -> int:
        """Updates on batch i of the epoch and those after it that are alike; returns how many."""
        net, state, data = self.net, self.state, rows.ready(i)
        ws = net.workspaces.get(rows.batch_rows(i), "fit")

        def work():
            batch = ws.batch(data)
            net.ops.gather(data, rows.order, state.cursor, rows.batch_size, batch)
            self._update(ws, batch, slices.number(net, rows.batch_size, self.objective))

        replay = rows.repeated.run(id(data), work, ws, data, rows.order, *self._replaced())
        rows.pace()
        done, most = 1, min(most, rows.alike(i)) if replay else 1
        while done < most and not (interrupt and interrupt.asked):
            replay()
            rows.pace()
            done += 1
        return done

    def _replaced(self):
        """What a captured update reads and writes, and may be replaced between two fits."""
        return self.state.losses, self.rates.table

    def _update(self, ws, batch: Batch, count: int):
        """Forward and backward by so many slices, and (14)(15): all of it stays on the device."""
        net, state = self.net, self.state
        slices.loss_and_backward(net, ws, batch, self.objective, self.grad, self.noise, count)
        net.ops.advance(
            self.grad.buffer,
            ws.loss,
            batch.w_sum,
            self.hyper,
            self.rates.table,
            self.rates.first,
            state,
            *self._penalised,
        )
        # (14)  W^(k) <- W^(k) - lr (dL/dW^(k) + l2 W^(k));  (15)  b^(k) <- b^(k) - lr dL/db^(k)
        net.ops.update(
            self.optimizer.family,
            net.parameters.buffer,
            self.grad.buffer,
            list(self.slots.values()),
            state.scalars,
            self.hyper,
            state.t,
            state.halted,
            net.layout.decayed,
        )

    # ------------------------------------------------------------ many
    def make_room(self, steps: int, done: int = 0):
        """The tables hold the losses of a whole epoch, and keep those of the batches done."""
        with self.net.ops.on_device():
            self.state.make_room(self.net.ops.xp, steps, done)

    def run_epoch(self, rows: Rows, order=None, interrupt=None, first: int = 0) -> Epoch:
        """One pass over the rows, and what it has left.

        order (1 or M, R): the rows in this order, instead of the trainer's own.
        first: the batch to begin with, where those before were made by a fit that is resumed.
        The only reading of the device is at the end.
        """
        net, state = self.net, self.state
        if order is not None:
            rows.arrange(order)
        elif self.shuffle:
            rows.shuffle(self.seeds, self.epoch)
        self.make_room(rows.steps, first)
        state.cursor.fill(first)
        self.rates.cover(rows.steps - first)
        done = first
        launch = residence.launcher(self, rows) or blocks.launcher(self, rows)
        with slices.limited(net, rows.batch_size, self.objective):
            while done < rows.steps and not (interrupt and interrupt.asked):
                left = rows.steps - done
                if launch:
                    done += launch(left)
                else:
                    done += self._gathered_updates(rows, done, left, interrupt)
        self.rates.issued -= rows.steps - done  # the interrupt came before these
        self.epoch += done == rows.steps
        self.batches_done = done % rows.steps
        return state.read(net.ops.to_host, done)

    # ------------------------------------------------------------ the optimiser's numbers
    def _numbers(self, optimizer: Optimizer):
        """The optimiser's numbers (M, len(HYPERS)) float64, which the network's dtype can hold."""
        hyper = optimizer.hyper(self.net.models_count, self.clip_norm)
        for name in optimizer.intervals:
            place = f"{type(optimizer).__name__}: {name}"
            checks.within(getattr(optimizer, name, None), place, self.net.dtype)
        checks.within(self.clip_norm, "clip_norm", self.net.dtype)
        return hyper

    def apply_plateau(self):
        """The learning rates on the device: the optimiser's, times the plateau's factors."""
        hyper = self._hyper.copy()
        hyper[:, HYPERS.index("LR")] *= self.rates.memory.get("factor", 1.0)
        self.hyper[...] = self.net.ops.to_device(hyper.astype(self.net.dtype))

    def retune(self, **numbers):
        """Give the optimiser other numbers from the next update on, e.g. lr=0.01; its state stays.

        Only numbers of the same law: whether there is momentum, or which law it is, stays too.
        """
        known = [f.name for f in fields(self.optimizer)]  # type: ignore[arg-type]
        for name in numbers.keys() - set(known):
            law = type(self.optimizer).__name__
            raise TypeError(f"retune: {law} has no number {name!r}; it has {', '.join(known)}")
        changed = replace(self.optimizer, **numbers)  # type: ignore[type-var]
        if changed.slots() != self.optimizer.slots():
            raise ValueError(
                f"{', '.join(numbers)}: the state of {self.optimizer} has no place for it; make a "
                "Trainer with the other optimizer"
            )
        self._hyper = self._numbers(changed)
        self.optimizer = changed
        with self.net.ops.on_device():
            self.apply_plateau()

    def _halted(self):
        """The networks that stand still, (M,), see State; reads the device."""
        return self.net.ops.to_host(self.state.halted).copy()

    def _all_halted(self) -> bool:
        return bool((self._halted() != 0).all())
