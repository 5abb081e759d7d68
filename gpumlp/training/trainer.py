"""Training: many epochs of updates, validation, callbacks, and how a fit ends."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

from gpumlp.functions.optimizer import HYPERS, Adam, Optimizer
from gpumlp.model import blas_threads, memory
from gpumlp.model.network import MLP
from gpumlp.model.objective import Objective
from gpumlp.training import callback
from gpumlp.training import progress as bars
from gpumlp.training.device_state import Epoch
from gpumlp.training.evaluate import Evaluation
from gpumlp.training.history import History
from gpumlp.training.placement import make_rows
from gpumlp.training.updates import Updates
from gpumlp.utils import checks
from gpumlp.utils.interrupt import Interrupt


class DivergenceError(ArithmeticError):
    """The loss, the gradient or an update of a single network is not finite.

    The weights in place are finite: those from before the update at which that was seen, or where
    the update itself went out of range, what it could move and what it could not.  Earlier updates
    may have led them astray.  epoch, step and lr say when; history is what came before.
    """

    def __init__(self, epoch: int, step: int, lr: float, history: History):
        self.epoch, self.step, self.lr, self.history = epoch, step, lr, history
        super().__init__(
            f"the loss, its gradient or the update is NaN or infinite in epoch {epoch}, at update "
            f"{step}, with learning rate {lr:g}; the network keeps finite weights. "
            "Lower the learning rate, scale the data, or set clip_norm; Trainer.revive goes on"
        )


class Trainer(Updates):
    """Trains a network, or all of a stack in the same passes.

    loss:       a name of `gpumlp.losses` or a `Loss`.
    optimizer:  SGD, RMSprop, Adam (the default, 1e-3) or AdamW; numbers may be one per network.
    batch_size: rows of a minibatch; fewer rows make one batch.
    schedule:   a name of `gpumlp.schedules`, one of its objects, or a function of the update's
                number that gives the factor on the learning rate.
    shuffle:    a new order in every epoch, by the network's own seed.
    reduction:  "mean" over the batch's samples (weighted), or "sum", as (12) and (13) print it.
    seed:       of order, dropout and drawn slopes; network m of a stack has seed + m, or give M.
    clip_norm:  a gradient longer than this is shortened to it, each network's by itself; infinity,
                or None for all, is no limit.
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
            wanted = "None, or an object such as gpumlp.Adam(1e-3)"
            raise checks.ParameterError(f"optimizer = {checks.shown(optimizer)} must be {wanted}")
        if not isinstance(net, MLP):
            raise checks.ParameterError(f"net = {checks.shown(net)} must be a gpumlp.MLP")
        self.net, self.optimizer = net, optimizer
        self.batch_size = checks.number(batch_size, "batch_size", checks.COUNT)
        self.shuffle = checks.flag(shuffle, "shuffle")
        self.reduction, self.seed, self.clip_norm = reduction, seed, clip_norm
        if clip_norm is not None:
            lengths = checks.Interval(0, np.inf, "(]")
            checks.per_network(clip_norm, "clip_norm", lengths, net.models_count)
        self.penalty_in_loss = checks.flag(penalty_in_loss, "penalty_in_loss")
        self.objective = Objective(net, loss, reduction)
        self.epochs_left: int | None = None
        self.history = History()
        self.callbacks: list[callback.Callback] = []  # of the running fit
        self.owner: Any = None  # an estimator's running fit, which checkpoints then hold
        self.unfinished: list[callback.CallbackState] | None = (
            None  # callbacks of a fit that a file was in
        )
        self.resuming = False  # whether the next fit is to go on with that one
        self._stopping = False
        self._prepare(seed, schedule, penalty_in_loss)

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
        history.interrupted set.  A loss, gradient or update that is not finite raises
        DivergenceError, with finite weights in place; in a stack that network stands still, a
        warning says so, and the others go on.
        """
        resume = None if resume is None else checks.flag(resume, "resume")
        resume = (self.resuming if resume is None else resume) and self.unfinished is not None
        epochs = checks.number(epochs, "epochs", checks.NATURAL if resume else checks.COUNT)
        progress = checks.flag(progress, "progress")
        net = self.net
        if validation is not None and not (
            isinstance(validation, list | tuple) and len(validation) in (2, 3)
        ):
            raise checks.ParameterError(
                f"validation = {checks.shown(validation)} must be None, (x, y), or "
                "(x, y, sample_weight)"
            )
        callbacks = _listed(callbacks)
        data_bytes = memory.size_of(x, y, *(validation or ()))
        with (
            net.ops.on_device(),
            memory.explain_oom(net, self.batch_size, self._slot_count, data_bytes),
            blas_threads.limit_blas_threads(net, self.batch_size),
        ):
            orders = net.models_count if self.shuffle else 1
            rows = make_rows(net, self.objective, x, y, sample_weight, self.batch_size, orders)
            evaluation = validation and Evaluation(net, self.objective, *validation)
            self.callbacks = sorted(callbacks, key=lambda each: each.goes_last)
            try:
                self._begin(rows, epochs, resume)
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
        self._check(history, self.diverged)
        self.rates.plan(rows.steps, epochs * rows.steps - self.batches_done, resume)
        for each in self.callbacks:
            each.on_fit_begin(self, history)
        if resume:
            callback.restore(self.unfinished or (), self.callbacks, self.net.ops.to_device)
        self.unfinished, self.resuming = None, False

    def _fit(self, rows, evaluation, progress) -> History:
        history = self.history
        with Interrupt() as interrupt, bars.bar(self.epochs_left, progress) as bar:
            while self.epochs_left and not (self._stopping or history.interrupted):
                begin, epoch = time.perf_counter(), self.epoch
                done = self.run_epoch(rows, None, interrupt, self.batches_done)
                if self.epoch > epoch:
                    self._close_epoch(history, done, evaluation, begin)
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

    def _close_epoch(self, history, done: Epoch, evaluation, begin):
        """Note the epoch, validate, and see whether all went well."""
        weights = done.weights
        losses = np.where(weights > 0, done.losses, 0)
        if self.objective.mean:
            losses *= weights
        with np.errstate(invalid="ignore", divide="ignore"):  # a network that stood still: NaN
            loss = losses.sum(axis=0) / weights.sum(axis=0)
        public = self._public
        history.loss.append(public(loss))
        history.lr.append(public(done.rates))
        if evaluation:
            value, accuracy = evaluation()
            history.val_loss.append(public(value))
            if accuracy is not None:
                history.val_accuracy.append(public(accuracy))
        history.seconds.append(time.perf_counter() - begin)
        self._check(history, done.diverged)
        if self.rates.observe(history):
            self.apply_plateau()

    def _public(self, values):
        return np.array(values) if self.net.models is not None else float(values[0])

    def _check(self, history, diverged: dict[int, int]):
        """A network that diverged: alone it raises, in a stack it is reported."""
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
            f"epoch {self.epoch}: the loss, its gradient or the update is NaN or infinite for "
            f"network {told}; it keeps finite weights, the others go on",
            RuntimeWarning,
            stacklevel=5,  # whoever called fit
        )

    @property
    def stopping(self) -> bool:
        """Whether a callback has asked for the end of the fit, or no network moves any more."""
        return self._stopping

    def release(self):
        """Undo `stop`; a network that diverged stands still nevertheless, see `revive`."""
        self._halt(np.maximum(self._halted(), 0))

    def revive(self):
        """Let networks that diverged move again, with the weights and the state that they kept;
        change something first, for example by `retune(lr=...)`."""
        self._halt(np.zeros_like(self._halted()))
        self.history.diverged.clear()

    def stop(self, members=None):
        """End the fit after this epoch; or only for the networks where members (M,) is true."""
        stopped_at = self._halted()
        chosen = np.ones(len(stopped_at), bool) if members is None else np.asarray(members)
        if chosen.dtype != bool or chosen.shape not in ((), stopped_at.shape):
            wanted = f"True or False for each of {len(stopped_at)} networks"
            raise checks.ParameterError(f"members = {checks.shown(members)} must be {wanted}")
        self._halt(np.where(chosen & (stopped_at == 0), -1, stopped_at))

    def _halt(self, stopped_at):
        """Which networks stand still from now on, (M,), see State."""
        if (stopped_at != self._halted()).any():
            with self.net.ops.on_device():
                self.state.stopped_at[...] = self.net.ops.to_device(stopped_at)
        self._stopping = bool((stopped_at != 0).all())


def _listed(callbacks) -> list:
    """The callbacks; a single one may be given without a list, and None is none."""
    if callbacks is None:
        return []
    if isinstance(callbacks, callback.Callback):
        return [callbacks]
    several = checks.items(callbacks)
    for each in [callbacks] if several is None else several:
        if not isinstance(each, callback.Callback):
            raise checks.ParameterError(
                f"callbacks holds {checks.shown(each)}; they must be objects of gpumlp.Callback"
            )
    return several or []
