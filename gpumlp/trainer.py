"""Training: minibatches, updates, schedules, validation, and how a fit ends."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from gpumlp import arrays, callback, initializer, memory, propagate, threads
from gpumlp import progress as bars
from gpumlp import schedule as schedules
from gpumlp.backend import Batch, State
from gpumlp.backend.sources import SCALARS
from gpumlp.evaluate import Evaluation
from gpumlp.history import History
from gpumlp.interrupt import Interrupt
from gpumlp.objective import Objective
from gpumlp.optimizer import HYPERS, Adam, Optimizer
from gpumlp.parameters import Parameters
from gpumlp.rates import Rates
from gpumlp.repeated import Repeated
from gpumlp.rows import Rows, make_rows

STEPS_NOTED = 1024  # losses of at least so many batches are kept on the device


class DivergenceError(ArithmeticError):
    """The loss or the gradient of a single network is not finite.  The weights in place are those
    from before the update at which that was seen: finite, but an earlier update may have led them
    astray.  epoch, step and lr say when; history is what came before."""

    def __init__(self, epoch: int, step: int, lr: float, history: History):
        self.epoch, self.step, self.lr, self.history = epoch, step, lr, history
        super().__init__(
            f"the loss or its gradient is NaN or infinite in epoch {epoch}, at update {step}, with "
            f"learning rate {lr:g}; the network keeps the weights from before it. "
            "Lower the learning rate, scale the data, or set clip_norm; Trainer.revive goes on"
        )


class Trainer:
    """Trains a network, or all of a stack in the same passes.

    loss:       a name of `gpumlp.losses` or a `Loss`.
    optimizer:  SGD, RMSprop, Adam (the default, 1e-3) or AdamW; numbers may be one per network.
    batch_size: rows of a minibatch; fewer rows make one batch.
    schedule:   a name of `gpumlp.schedules`, one of its objects, or a function of the update's
                number that gives the factor on the learning rate.
    shuffle:    a new order in every epoch, by the network's own seed.
    reduction:  "mean" over the batch's samples (weighted), or "sum", as (12) and (13) print it.
    seed:       of order, dropout and drawn slopes; network m of a stack has seed + m, or give M.
    clip_norm:  a gradient longer than this is shortened to it, each network's by itself.
    penalty_in_loss: the losses of the history contain the optimiser's L1 and L2 penalties.

    A second `fit` goes on where the first stopped: optimiser, schedule and order included.

    epochs_left:  of the running or last fit, or of the fit in which its file was written; or None.
    batches_done: of the epoch in which Ctrl-C ended the fit.
    """

    def __init__(
        self,
        net,
        loss: Any = "cross_entropy",
        optimizer: Optimizer | None = None,
        batch_size: int = 128,
        schedule: Any = None,
        shuffle: bool = True,
        reduction: str = "mean",
        seed: Any = 0,
        clip_norm: Any = None,
        penalty_in_loss: bool = False,
    ):
        optimizer = Adam() if optimizer is None else optimizer
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer = {optimizer!r}; it is an object such as gpumlp.Adam(1e-3)")
        if int(batch_size) != batch_size or batch_size < 1:
            raise ValueError(f"batch_size = {batch_size!r}; it is at least 1")
        if clip_norm is not None and not np.all(np.asarray(clip_norm) > 0):
            raise ValueError(f"clip_norm = {clip_norm!r}; it is above 0, or None")
        self.net, self.optimizer, self.batch_size = net, optimizer, int(batch_size)
        self.shuffle, self.reduction, self.seed = shuffle, reduction, seed
        self.clip_norm, self.penalty_in_loss = clip_norm, penalty_in_loss
        self.objective = Objective(net, loss, reduction)
        self.epoch = self.batches_done = 0
        self.epochs_left: int | None = None
        self.history = History()
        self.callbacks: list[callback.Callback] = []  # of the running fit
        self.owner: Any = None  # an estimator's running fit, which checkpoints then hold
        self.unfinished: list[callback.Kept] | None = None  # callbacks of a fit that a file was in
        self.resuming = False  # whether the next fit is to go on with that one
        self._stopping = False
        self._hyper = optimizer.hyper(net.models_count, clip_norm)
        seeds = initializer.seeds(seed, net.models_count)
        with net.ops.on_device(), memory.explained(net, self.batch_size, self._slot_count):
            self._allocate(seeds)
            self.rates = Rates(net, self.state, schedules.find(schedule))

    def _allocate(self, seeds):
        """The gradient, the optimiser's state and the counters, on the device."""
        net, xp = self.net, self.net.ops.xp
        models, real = net.models_count, net.dtype
        self.grad = Parameters(net.layout, xp.zeros_like(net.parameters.buffer))
        self.slots = {
            name: xp.zeros_like(net.parameters.buffer) if used else None
            for name, used in self.optimizer.slots().items()
        }
        self.seeds = xp.asarray(seeds)
        self.hyper = xp.asarray(self._hyper.astype(real))
        self.state = State(
            t=xp.zeros(models, np.int64),
            halted=xp.zeros(models, np.int64),
            cursor=xp.zeros(models, np.int64),
            losses=xp.zeros((STEPS_NOTED, models), real),
            weights=xp.zeros((STEPS_NOTED, models), real),
            norm=xp.zeros(models, real),
            scalars=xp.zeros((models, len(SCALARS)), real),
        )
        self.noise = net.noise(self.seeds, self.state.t)
        self._steps = Repeated(net.ops)  # of `step`; a fit's belong to its rows
        whole = net.parameters.buffer, net.layout.decayed
        self._penalised = whole if self.penalty_in_loss else (None, 0)

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
        """network -> the update whose loss or gradient was not finite; reads the device."""
        halted = self.net.ops.to_host(self.state.halted)
        return {int(m): int(halted[m]) for m in np.flatnonzero(halted > 0)}

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
        given = arrays.features(x, "x", net, finite=not arrays.is_on_gpu(x))
        rows = given.array.shape[1]
        with (
            net.ops.on_device(),
            memory.explained(net, rows, self._slot_count),
            threads.fitting(net, rows),
        ):
            batch = net.batch(given.array, y, self.objective, sample_weight, values=False)
            self.rates.cover(1)
            ws = net.workspaces.get(rows, "fit")
            staged = net.stage(batch, ws)
            kind = rows, staged.labels is None, staged.dense is None
            self._steps.run(kind, lambda: self._update(ws, staged), ws, *self._replaced())
            loss = ws.loss.copy()
        return loss if net.models is not None else loss[0]

    def _gathered_update(self, rows: Rows, i: int):
        """One update on batch i of the epoch."""
        net, state, data = self.net, self.state, rows.ready(i)
        ws = net.workspaces.get(rows.batch_rows(i), "fit")

        def work():
            batch = ws.batch(data)
            net.ops.gather(data, rows.order, state.cursor, rows.batch_size, batch)
            self._update(ws, batch)

        rows.repeated.run((ws.rows, id(data)), work, ws, data, rows.order, *self._replaced())

    def _replaced(self):
        """What a captured update reads and writes, and may be replaced between two fits."""
        return self.state.losses, self.rates.table

    def _update(self, ws, batch: Batch):
        """Forward, backward, and (14)(15): everything here stays on the device."""
        net, state = self.net, self.state
        propagate.loss_and_backward(net, ws, batch, self.objective, self.grad, self.noise)
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
            net.layout.decayed,
        )

    # ------------------------------------------------------------ many
    def fit(
        self,
        x,
        y,
        epochs: int = 10,
        validation=None,
        callbacks=(),
        progress: bool = True,
        sample_weight=None,
        resume: bool | None = None,
    ) -> History:
        """Train for some epochs; returns the history, which a later fit continues.

        x ([M,] R, N_0), y, sample_weight ([M,] R): see `MLP.loss_and_grad`.
        validation: (x, y) or (x, y, sample_weight).
        Data larger than a GPU's free memory stay where they are, which may be a memory-mapped file,
        and pieces of each epoch are sent while the GPU computes on others; the results are the
        same.
        callbacks: of class `Callback`, such as `EarlyStopping`; progress: a bar on the terminal.
        resume: go on with the fit in which the trainer's file, a checkpoint, was written, as if it
            had not ended: its schedule keeps its length, an epoch that had begun is finished, early
            stopping knows what it had seen.  epochs, which may be 0, is then what is left of it,
            `epochs_left`.  None: if the trainer comes from `gpumlp.resume`.

        Ctrl-C ends the fit after the running update, with the network trained so far and
        history.interrupted set.  A loss or gradient that is not finite raises DivergenceError, with
        the last good weights in place; in a stack that network stands still, a warning says so, and
        the others go on.
        """
        resume = (self.resuming if resume is None else resume) and self.unfinished is not None
        least = 0 if resume else 1
        if int(epochs) != epochs or epochs < least:
            raise ValueError(f"epochs = {epochs!r}; it is at least {least}")
        net = self.net
        if validation is not None and not (
            isinstance(validation, list | tuple) and len(validation) in (2, 3)
        ):
            raise TypeError("validation is (x, y) or (x, y, sample_weight)")
        wrong = [each for each in _listed(callbacks) if not isinstance(each, callback.Callback)]
        if wrong:
            raise TypeError(f"callbacks are objects of gpumlp.Callback, not {wrong[0]!r}")
        data_bytes = memory.size_of(x, y, *(validation or ()))
        with (
            net.ops.on_device(),
            memory.explained(net, self.batch_size, self._slot_count, data_bytes),
            threads.fitting(net, self.batch_size),
        ):
            orders = net.models_count if self.shuffle else 1
            rows = make_rows(net, self.objective, x, y, sample_weight, self.batch_size, orders)
            evaluation = validation and Evaluation(net, self.objective, *validation)
            self.callbacks = sorted(_listed(callbacks), key=lambda each: each.goes_last)
            try:
                self._begin(rows, int(epochs), resume)
                return self._fit(rows, evaluation, progress)
            finally:
                self.callbacks = []

    def _begin(self, rows, epochs, resume):
        """Begin a new fit, or go on with the one that a checkpoint was written in."""
        history, known = self.history, self.rates.steps_per_epoch
        if resume and known != rows.steps:
            raise ValueError(
                f"the fit to be resumed had {known} batches an epoch, and these data make "
                f"{rows.steps}; give the same data, or resume=False for a new fit"
            )
        history.interrupted = False
        self.epochs_left = epochs
        if resume:
            self._stopping = self._all_halted()
        else:
            self.batches_done = 0
            self.release()
        self._check(history)
        self.rates.plan(rows.steps, epochs * rows.steps - self.batches_done, resume)
        for each in self.callbacks:
            each.on_fit_begin(self, history)
        if resume:
            callback.hand_back(self.unfinished or (), self.callbacks, self.net.ops.to_device)
        self.unfinished, self.resuming = None, False

    def _fit(self, rows, evaluation, progress) -> History:
        history = self.history
        with Interrupt() as interrupt, bars.bar(self.epochs_left, progress) as bar:
            while self.epochs_left and not (self._stopping or history.interrupted):
                begin, epoch = time.perf_counter(), self.epoch
                losses, weights = self.run_epoch(rows, None, interrupt, self.batches_done)
                if self.epoch > epoch:
                    self._close_epoch(history, losses, weights, evaluation, begin)
                    self.epochs_left -= 1
                    bar.set_postfix_str(bars.line(history), refresh=False)
                    bar.update()
                    for each in self.callbacks:
                        each.on_epoch_end(self, history)
                history.interrupted = interrupt.asked
            if history.interrupted:
                for each in self.callbacks:
                    each.on_interrupt(self, history)
        for each in self.callbacks:
            each.on_fit_end(self, history)
        self.release()
        return history

    def make_room(self, steps):
        """The tables hold the losses of a whole epoch."""
        if len(self.state.losses) < steps:
            xp, shape = self.net.ops.xp, (steps, self.net.models_count)
            with self.net.ops.on_device():
                self.state.losses = xp.zeros(shape, self.net.dtype)
                self.state.weights = xp.zeros(shape, self.net.dtype)

    def run_epoch(self, rows: Rows, order=None, interrupt=None, first: int = 0):
        """One pass over the rows; returns loss and weight of each batch, (steps, M) float64.

        order (1 or M, R): the rows in this order, instead of the trainer's own.
        first: the batch to begin with, where those before were made by a fit that is resumed.
        The only reading of the device is at the end; a batch that did not count has weight 0.
        """
        net, state = self.net, self.state
        if order is not None:
            rows.arrange(order)
        elif self.shuffle:
            rows.shuffle(self.seeds, self.epoch)
        self.make_room(rows.steps)
        state.cursor.fill(first)
        self.rates.cover(rows.steps - first)
        done = first
        with threads.fitting(net, rows.batch_size):
            for i in range(first, rows.steps):
                if interrupt is not None and interrupt.asked:
                    break
                self._gathered_update(rows, i)
                done += 1
        self.rates.issued -= rows.steps - done  # the interrupt came before these
        self.epoch += done == rows.steps
        self.batches_done = done % rows.steps
        losses, weights = (
            net.ops.to_host(table)[:done].astype(np.float64)
            for table in (state.losses, state.weights)
        )
        return losses, weights

    def _close_epoch(self, history, losses, weights, evaluation, begin):
        """Note the epoch, validate, and see whether all went well."""
        losses = np.where(weights > 0, losses, 0)
        if self.objective.mean:
            losses *= weights
        with np.errstate(invalid="ignore", divide="ignore"):  # a network that stood still: NaN
            loss = losses.sum(axis=0) / weights.sum(axis=0)
        public = self._public
        history.loss.append(public(loss))
        history.lr.append(self.lr)
        if evaluation:
            value, accuracy = evaluation()
            history.val_loss.append(public(value))
            if accuracy is not None:
                history.val_accuracy.append(public(accuracy))
        history.seconds.append(time.perf_counter() - begin)
        self._check(history)
        if self.rates.observe(history):
            self.apply_plateau()

    def apply_plateau(self):
        """The learning rates on the device: the optimiser's, times the plateau's factors."""
        hyper = self._hyper.copy()
        hyper[:, HYPERS.index("LR")] *= self.rates.memory.get("factor", 1.0)
        self.hyper[...] = self.net.ops.to_device(hyper.astype(self.net.dtype))

    def retune(self, **numbers):
        """Give the optimiser other numbers from the next update on, e.g. lr=0.01; its state stays.

        Only numbers of the same law: whether there is momentum, or which law it is, stays too.
        """
        changed = replace(self.optimizer, **numbers)  # type: ignore[type-var]
        if changed.slots() != self.optimizer.slots():
            raise ValueError(
                f"{', '.join(numbers)}: the state of {self.optimizer} has no place for it; make a "
                "Trainer with the other optimizer"
            )
        self.optimizer = changed
        self._hyper = self.optimizer.hyper(self.net.models_count, self.clip_norm)
        with self.net.ops.on_device():
            self.apply_plateau()

    def _public(self, values):
        return np.array(values) if self.net.models is not None else float(values[0])

    def _check(self, history):
        """A network that diverged: alone it raises, in a stack it is reported."""
        diverged = self.diverged
        new = {m: t for m, t in diverged.items() if history.diverged.get(m) != t}
        history.diverged.update(new)
        if not diverged:
            return
        lr = {
            m: float(self._hyper[m, HYPERS.index("LR")] * self.rates.at(m, t - 1))
            for m, t in diverged.items()
        }
        if self.net.models is None:
            raise DivergenceError(self.epoch, diverged[0], lr[0], history)
        self._stopping |= self._all_halted()
        if not new:
            return
        told = ", ".join(f"{m} (update {t}, learning rate {lr[m]:g})" for m, t in new.items())
        warnings.warn(
            f"epoch {self.epoch}: the loss or its gradient is NaN or infinite for network {told}; "
            "it keeps the weights from before, the others go on",
            RuntimeWarning,
            stacklevel=5,  # whoever called fit
        )

    @property
    def stopping(self) -> bool:
        """Whether a callback has asked for the end of the fit, or no network moves any more."""
        return self._stopping

    def release(self):
        """Undo `stop`; a network that diverged stands still nevertheless, see `revive`."""
        with self.net.ops.on_device():
            self.state.halted[self.state.halted < 0] = 0
        self._stopping = self._all_halted()

    def revive(self):
        """Let networks that diverged move again, with the weights and the state that they kept;
        change something first, for example by `retune(lr=...)`."""
        with self.net.ops.on_device():
            self.state.halted.fill(0)
        self._stopping = False
        self.history.diverged.clear()

    def _all_halted(self) -> bool:
        return bool((self.net.ops.to_host(self.state.halted) != 0).all())

    def stop(self, members=None):
        """End the fit after this epoch; or only for the networks where members (M,) is true."""
        halted = self.net.ops.to_host(self.state.halted).copy()
        chosen = np.ones(len(halted), bool) if members is None else np.asarray(members, bool)
        halted[chosen & (halted == 0)] = -1
        with self.net.ops.on_device():
            self.state.halted[...] = self.net.ops.to_device(halted)
        self._stopping = bool(np.all(halted != 0))


def _listed(callbacks) -> list:
    """The callbacks; a single one may be given without a list."""
    return [callbacks] if isinstance(callbacks, callback.Callback) else list(callbacks)
