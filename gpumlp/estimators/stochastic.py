"""Training one estimator by minibatches: the course of its fit, on the engine's trainer."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from gpumlp.estimators import estimator_rows, resuming
from gpumlp.estimators.messages import Progress, warn
from gpumlp.estimators.stopping_rule import StoppingRule
from gpumlp.estimators.validation import Samples, Validation, split
from gpumlp.functions.optimizer import SGD, Adam, AdamW, Optimizer
from gpumlp.model import blas_threads, memory
from gpumlp.training import loop
from gpumlp.training.callback import EarlyStopping
from gpumlp.training.device_state import Epoch
from gpumlp.training.trainer import Trainer
from gpumlp.utils.interrupt import Interrupt

NON_FINITE = "Solver produced non-finite parameter weights"  # in scikit-learn's words


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


def draw_seed(estimator, functions, rng) -> int:
    """Of the trainer; functions: the layers' activations."""
    # scikit-learn draws no such seed: it must not move the generator where nothing is random.
    random = np.any(estimator.dropout) or any(f.random for f in functions)
    return int(rng.randint(2**31 - 1)) if random else 0


def make_trainer(estimator, net, loss, batch_size: int, seed: int) -> Trainer:
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
    """The trainer of the last fit if that one goes on, else a new one; seed: None draws one."""
    kept, kind = engine.trainer, type(make_optimizer(estimator))
    if goes_on and kept is not None and type(kept.optimizer) is kind:
        penalties: Any = kept.optimizer
        if (penalties.l2, penalties.l1) != (estimator.alpha, estimator.l1):
            kept.retune(l2=estimator.alpha, l1=estimator.l1)
        kept.release()
        return kept
    if seed is None and goes_on:
        seed = engine.stored_seed(kind)
    if seed is None:
        seed = draw_seed(estimator, engine.net.f[1:], rng)
    trainer = make_trainer(estimator, engine.net, loss, batch_size, seed)
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
        rng = copy.deepcopy(unfinished["random_at_begin"])
    random_at_begin = copy.deepcopy(rng)
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
    state_buffers = sum(trainer.optimizer.state_buffers().values())
    with (
        net.ops.on_device(),
        memory.explain_oom(net.shape, net.ops, batch_size, state_buffers, _bytes(samples.X)),
        blas_threads.limit_blas_threads(net.shape, batch_size),
    ):
        rows = estimator_rows.make(
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
        optimizer: Any = trainer.optimizer
        course = StoppingRule(est, rows.sizes, optimizer.lr, rng, incremental)
        running = Fit(course, engine, trainer, rows, validation)
        running.random_at_begin = random_at_begin
        trainer.owner = running
        try:
            running.run(unfinished)
        finally:
            trainer.callbacks, trainer.owner = [], None


def _bytes(X) -> int:
    return X.data.nbytes if estimator_rows.is_sparse(X) else X.nbytes


class Fit:
    """The running fit: carries its course out on the trainer."""

    def __init__(self, course: StoppingRule, engine, trainer, rows, validation):
        self.course, self.est = course, course.est
        self.engine, self.trainer = engine, trainer
        self.rows, self.validation = rows, validation
        self._progress: Any = None  # while it runs
        self.random_at_begin: Any = None  # the course's generator, before anything was drawn

    def run(self, unfinished=None):
        """unfinished: see `fit`."""
        est, trainer = self.est, self.trainer
        if unfinished is None:
            self._begin()
        else:
            resuming.resume(self, unfinished)
        history = trainer.history
        for callback in trainer.callbacks:
            callback.on_fit_begin(trainer, history)
        if unfinished is not None:
            resuming.restore(self, unfinished)
        with Interrupt() as interrupt, Progress(est, trainer.epochs_left) as progress:
            self._progress = progress
            try:
                loop.run(self, interrupt, self._tell)
            except KeyboardInterrupt:  # a second Ctrl-C
                history.interrupted = True
        if history.interrupted:
            warn("training was interrupted; the weights are those that it has come to")
            for callback in trainer.callbacks:
                callback.on_interrupt(trainer, history)
        for callback in trainer.callbacks:
            callback.on_fit_end(trainer, history)
        self._finish()

    def _to_file(self, fit: bool):
        """For `gpumlp.save`: the estimator, and what it takes to go on."""
        return self.est, resuming.state(self) if fit else None

    def _begin(self):
        est, course, trainer, engine = self.est, self.course, self.trainer, self.engine
        steps = len(self.rows.sizes)
        total = est.max_iter * steps
        if course.incremental:
            total = max(total - trainer.rates.issued, steps)
        trainer.rates.plan(steps, total)
        trainer.history.interrupted = False
        course.begin(self.validation is not None)
        trainer.epochs_left = course.epochs_left
        if est.early_stopping:
            # partial_fits share their best weights.
            engine.recall_best() if course.incremental else engine.forget_best()
        if course.improved:
            engine.remember_best()

    # ------------------------------------------------------------ see `loop.Fit`
    @property
    def epochs_left(self) -> int:
        return self.course.epochs_left

    def train(self, interrupt) -> Epoch | None:
        trainer, epoch = self.trainer, self.trainer.epoch
        done = self.rows.run(trainer, self.course.next_order(), interrupt)
        # Sparse rows come in pieces, each of them an epoch to the trainer.
        trainer.epoch = epoch + (done is not None)
        return done

    def note(self, epoch: Epoch) -> None:
        """On the estimator, in scikit-learn's terms, and in the engine's history."""
        history = self.trainer.history
        self.course.trained(epoch.losses[:, 0], epoch.weights[:, 0], bool(epoch.diverged))
        history.loss.append(self.est.loss_)
        history.lr.append(float(epoch.rates[0]))

    def validate(self) -> None:
        if self.validation is None:
            return
        course, history = self.course, self.trainer.history
        # The engine keeps the last good weights; those after a divergence would score nothing.
        value, score = (np.nan, np.nan) if course.diverged else self.validation()
        course.validated(value, score)
        history.val_loss.append(value)
        history.val_accuracy.append(score)

    def judge(self, epoch: Epoch) -> None:
        course, trainer = self.course, self.trainer
        course.judge()
        if course.improved:
            self.engine.remember_best()
        if course.lr != trainer.optimizer.lr:
            trainer.retune(lr=course.lr)

    def _tell(self) -> None:
        self._progress.epoch()
        if self.course.told:
            self._progress.say(self.course.told)
        if self.course.unfinished:
            told = f"the fit has not converged within max_iter={self.est.max_iter} epochs"
            warn(told, ConvergenceWarning)

    def _finish(self):
        course = self.course
        if course.goes_back:
            self.engine.restore_best()
        if course.failure and self.est.early_stopping:
            warn(f"{course.failure}; the best weights before are kept", ConvergenceWarning)
        elif course.failure:
            raise ValueError(f"{NON_FINITE}: {course.failure}")
