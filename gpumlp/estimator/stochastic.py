"""Training by minibatches: scikit-learn's epochs, learning rates and rules for stopping, on the
engine's trainer."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from gpumlp import memory, threads
from gpumlp.callback import EarlyStopping
from gpumlp.estimator import data, resuming, saved
from gpumlp.estimator.progress import Progress, warn
from gpumlp.estimator.validation import Samples, Validation, split
from gpumlp.interrupt import Interrupt
from gpumlp.optimizer import SGD, Adam, AdamW, Optimizer
from gpumlp.trainer import Trainer

SMALLEST_RATE = 1e-6  # an adaptive learning rate at or below it ends the fit
ADAPTIVE_DIVISOR = 5


def make_optimizer(estimator) -> Optimizer:
    """The law of the solver; penalties count per sample weight, as scikit-learn's alpha does."""
    est = estimator
    penalties = {"l1": est.l1, "l2": est.alpha, "decay_per_weight": True}
    if est.solver == "sgd":
        momentum = min(float(est.momentum), 1 - 1e-12)  # 1 is allowed, but no engine's number
        nesterov = bool(est.nesterovs_momentum) and momentum > 0
        return SGD(est.learning_rate_init, momentum, nesterov, **penalties)
    numbers = (est.learning_rate_init, est.beta_1, est.beta_2, est.epsilon)
    if est.weight_decay:
        decay = est.weight_decay
        return AdamW(*numbers, eps_corrected=False, weight_decay=decay, **penalties)
    return Adam(*numbers, eps_corrected=False, **penalties)


def make_trainer(estimator, net, loss, batch_size: int, rng, seed: int | None) -> Trainer:
    """seed: None draws one, if anything is random but the order."""
    # scikit-learn draws no such seed: it must not move the generator where nothing is random.
    random = np.any(estimator.dropout) or any(f.random for f in net.f[1:])
    if seed is None:
        seed = int(rng.randint(2**31 - 1)) if random else 0
    return Trainer(
        net,
        loss,
        make_optimizer(estimator),
        batch_size,
        estimator.schedule,
        shuffle=False,
        seed=seed,
        clip_norm=estimator.clip_norm,
        penalty_in_loss=True,
    )


def batch_size_for(estimator, count: int) -> int:
    if estimator.batch_size == "auto":
        return min(200, count)
    if estimator.batch_size > count:
        warn(
            f"batch_size = {estimator.batch_size} is more than the {count} samples: one batch takes"
            " them all"
        )
    return int(min(estimator.batch_size, count))


def current_trainer(estimator, engine, loss, batch_size, rng, goes_on: bool, seed) -> Trainer:
    """The trainer of the last fit if that one goes on, else a new one."""
    kept = engine.trainer
    if goes_on and kept is not None and type(kept.optimizer) is type(make_optimizer(estimator)):
        penalties: Any = kept.optimizer
        if (penalties.l2, penalties.l1) != (estimator.alpha, estimator.l1):
            kept.retune(l2=estimator.alpha, l1=estimator.l1)
        kept.release()
        return kept
    trainer = make_trainer(estimator, engine.net, loss, batch_size, rng, seed)
    engine.take_trainer(trainer, goes_on)
    return trainer


def fit(
    estimator, engine, samples: Samples, given, loss, rng, incremental: bool, unfinished=None
) -> None:
    """All epochs of a `fit`, or the one of a `partial_fit`.

    given: the user's own validation samples, or None.
    unfinished: the state of the fit, from a checkpoint, that this one is to go on with.
    """
    est, net = estimator, engine.net
    if unfinished is not None:
        rng = resuming.copy_of(unfinished["random_at_begin"])
    random_at_begin = resuming.copy_of(rng)
    if incremental and any(isinstance(each, EarlyStopping) for each in est.callbacks or ()):
        raise ValueError(
            "EarlyStopping cannot stop a loop of partial_fit, of which each call is a fit; use "
            "early_stopping=True with X_val and y_val"
        )
    held = given
    if est.early_stopping and given is None:
        if incremental:
            raise ValueError(
                "partial_fit does not support early_stopping=True without X_val and y_val"
            )
        samples, held = split(est, samples, rng)
    batch_size = batch_size_for(est, samples.rows)
    goes_on = incremental or (est.warm_start and est.keep_optimizer)
    seed = None
    if unfinished is not None:
        resuming.check(unfinished, samples.rows, batch_size, held is not None)
        goes_on, seed = True, unfinished["seed"]
    trainer = current_trainer(est, engine, loss, batch_size, rng, goes_on, seed)
    slots = sum(trainer.optimizer.slots().values())
    with (
        net.ops.on_device(),
        memory.explained(net, batch_size, slots, _bytes(samples.X)),
        threads.limited(net, batch_size),
    ):
        rows = data.make(
            net,
            trainer.objective,
            samples.X,
            samples.encoded,
            est._training_weight(samples),
            batch_size,
        )
        validation = None
        if held is not None:
            validation = Validation(est, engine, trainer.objective, held)
        trainer.callbacks = sorted(est.callbacks or (), key=lambda each: each.goes_last)
        running = Fit(est, engine, trainer, rows, validation, incremental)
        running.random, running.random_at_begin = rng, random_at_begin
        trainer.owner = running
        try:
            running.run(unfinished)
        finally:
            trainer.callbacks, trainer.owner = [], None


def _bytes(X) -> int:
    return X.data.nbytes if data.is_sparse(X) else X.nbytes


class Fit:
    """The running fit: what each epoch leaves on the estimator, and when it ends."""

    def __init__(self, estimator, engine, trainer, rows, validation, incremental):
        self.est, self.engine, self.trainer = estimator, engine, trainer
        self.rows, self.validation, self.incremental = rows, validation, incremental
        self.diverged = False
        self.order = np.arange(rows.count)  # of the epoch's samples
        self.random: Any = None  # the generator, and a copy from before it was drawn from here
        self.random_at_begin: Any = None

    def run(self, unfinished=None):
        """unfinished: see `fit`."""
        est, trainer = self.est, self.trainer
        if unfinished is None:
            self._begin()
        else:
            resuming.take_up(self, unfinished)
        history = trainer.history
        for callback in trainer.callbacks:
            callback.on_fit_begin(trainer, history)
        if unfinished is not None:
            resuming.hand_back(self, unfinished)
        with Interrupt() as interrupt, Progress(est, trainer.epochs_left) as progress:
            try:
                self._epochs(interrupt, progress)
            except KeyboardInterrupt:
                warn("training was interrupted; the weights are those that it has come to")
                history.interrupted = True
        if history.interrupted:
            for callback in trainer.callbacks:
                callback.on_interrupt(trainer, history)
        for callback in trainer.callbacks:
            callback.on_fit_end(trainer, history)
        self._finish()

    def _to_file(self, fit: bool):
        """For `gpumlp.Checkpoint`: the estimator, and what it takes to go on."""
        return saved.describe(self.est, resuming.state(self) if fit else None)

    def _epochs(self, interrupt, progress):
        est, trainer = self.est, self.trainer
        while trainer.epochs_left and not trainer.stopping:
            begin, epoch = time.perf_counter(), trainer.epoch
            if est.shuffle:
                # as sklearn.utils.shuffle permutes the order of the epoch before
                self.order = self.order[self.random.permutation(len(self.order))]
            order = self.order if est.shuffle else None
            losses, weights = self.rows.run(trainer, order, interrupt)
            if interrupt.asked:
                raise KeyboardInterrupt
            trainer.epoch = epoch + 1  # sparse rows come in pieces, each of them an epoch to it
            self._close_epoch(losses, weights, begin)
            progress.epoch()
            ends = self._ends(progress) or self.diverged
            trainer.epochs_left = 0 if ends else trainer.epochs_left - 1
            for callback in trainer.callbacks:
                callback.on_epoch_end(trainer, trainer.history)
            if est.n_iter_ == est.max_iter and not (ends or self.incremental):
                told = f"the fit has not converged within max_iter={est.max_iter} epochs"
                warn(told, ConvergenceWarning)

    def _begin(self):
        est, trainer = self.est, self.trainer
        steps = len(self.rows.sizes)
        total = est.max_iter * steps
        if self.incremental:
            total = max(total - trainer.rates.issued, steps)
        trainer.rates.plan(steps, total)
        trainer.history.interrupted = False
        trainer.epochs_left = 1 if self.incremental else est.max_iter
        est.n_iter_ = 0
        est.converged_ = False
        if est.early_stopping:
            self._begin_best()
        elif est.best_loss_ is None:
            est.best_loss_ = np.inf
        if self.validation is not None and est.validation_scores_ is None:
            est.validation_scores_, est.validation_loss_curve_ = [], []

    def _begin_best(self):
        """partial_fits share their best weights.  A warm-started fit has none before it beats the
        score of those before: else it ends with its last weights, as in scikit-learn."""
        est, engine = self.est, self.engine
        if self.incremental:
            engine.recall_best()
        else:
            engine.forget_best()
        if est.best_validation_score_ is None:
            est.best_validation_score_ = -np.inf
            engine.remember_best()

    def _close_epoch(self, losses, weights, begin):
        """Note the epoch on the estimator, in scikit-learn's terms, and in the engine's history."""
        est, trainer, history = self.est, self.trainer, self.trainer.history
        est.n_iter_ += 1
        loss = _mean_loss(losses[:, 0], weights[:, 0], self.rows.sizes)
        if trainer.diverged:
            self.diverged = True
            loss = loss if not np.isfinite(loss) else np.nan
        est.loss_ = loss
        est.t_ += self.rows.count
        est.loss_curve_.append(loss)
        history.loss.append(loss)
        history.lr.append(trainer.lr)
        if self.validation is not None:
            # The engine keeps the last good weights; those after a divergence would score nothing.
            value, score = (np.nan, np.nan) if self.diverged else self.validation()
            est.validation_loss_curve_.append(value)
            est.validation_scores_.append(score)
            history.val_loss.append(value)
            history.val_accuracy.append(score)
        if trainer.rates.observe(history):
            trainer.apply_plateau()
        history.seconds.append(time.perf_counter() - begin)
        self._count_stalled()

    def _count_stalled(self):
        """Epochs since the score rose, or the loss fell, by tol."""
        est = self.est
        if est.early_stopping:
            score = est.validation_scores_[-1]
            stalled = score < est.best_validation_score_ + est.tol
        else:
            stalled = est.loss_ > est.best_loss_ - est.tol
            est.best_loss_ = est.loss_ if est.loss_ < est.best_loss_ else est.best_loss_
        est._stalled = est._stalled + 1 if stalled else 0
        if self.validation is not None:
            score, best = est.validation_scores_[-1], est.best_validation_score_
            if best is None or score > best:
                est.best_validation_score_ = score
                if est.early_stopping:
                    self.engine.remember_best()

    def _ends(self, progress) -> bool:
        """Whether the fit has converged; moves the learning rate."""
        est, trainer = self.est, self.trainer
        by_sgd = est.solver == "sgd"
        if by_sgd and est.learning_rate == "invscaling":
            with np.errstate(over="ignore"):  # a rate of 0, where a power of whole numbers would
                divisor = np.float64(est.t_ + 1) ** float(est.power_t)  # take all time and memory
            trainer.retune(lr=est.learning_rate_init / float(divisor))
        if est._stalled <= est.n_iter_no_change:
            return False
        what = "validation score has not risen" if est.early_stopping else "loss has not fallen"
        told = f"The {what} by more than tol={est.tol:g} for {est.n_iter_no_change:g} epochs."
        rate = trainer.optimizer.lr
        if by_sgd and est.learning_rate == "adaptive" and rate > SMALLEST_RATE:
            trainer.retune(lr=rate / ADAPTIVE_DIVISOR)
            progress.say(f"{told} The learning rate is now {trainer.optimizer.lr:g}.")
            est._stalled = 0
            return False
        progress.say(f"{told} Stopping.")
        est.converged_ = True
        return True

    def _finish(self):
        est = self.est
        if est.early_stopping and (not self.incremental or est.converged_):
            self.engine.restore_best()
        if not self.diverged:
            return
        told = (
            f"the loss or its gradient became NaN or infinite in epoch {est.n_iter_}: scale the "
            "data, lower learning_rate_init, or set clip_norm"
        )
        if est.early_stopping:
            warn(f"{told}; the best weights before are kept", ConvergenceWarning)
        else:
            raise ValueError(f"Solver produced non-finite parameter weights: {told}")


def _mean_loss(losses, weights, sizes) -> float:
    """The mean of the batches' losses by rows, as scikit-learn has it even where samples have
    weights; a batch without any weight does not count."""
    counts = np.where(weights > 0, sizes, 0)
    return float(np.where(weights > 0, losses, 0) @ counts / counts.sum())
