"""Train one estimator by minibatches, with the trainer of its network."""

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


def optimizer_class(estimator) -> type[Optimizer]:
    """The class of the solver's optimiser."""
    if estimator.solver == "sgd":
        return SGD
    return AdamW if estimator.weight_decay else Adam


def make_optimizer(estimator) -> Optimizer:
    """The solver's optimiser; penalties count per sample weight, as scikit-learn's alpha does."""
    est = estimator
    penalties = {"l1": est.l1, "l2": est.alpha, "decay_per_weight": True}
    kind: Any = optimizer_class(est)
    if kind is SGD:
        momentum = min(float(est.momentum), 1 - 1e-12)  # 1 is allowed, but no engine's number
        nesterov = bool(est.nesterovs_momentum) and momentum > 0
        return SGD(est.learning_rate_init, momentum, nesterov, **penalties)
    numbers = (est.learning_rate_init, est.beta_1, est.beta_2, est.epsilon)
    if kind is AdamW:
        penalties["weight_decay"] = est.weight_decay
    return kind(*numbers, eps_corrected=False, **penalties)


def draw_seed(estimator, functions, rng) -> int:
    """The trainer's seed, 0 where nothing is random; functions: the layers' activations."""
    # scikit-learn draws no such seed: it must not move the generator where nothing is random.
    random = np.any(estimator.dropout) or any(f.random for f in functions)
    return int(rng.randint(2**31 - 1)) if random else 0


def make_trainer(estimator, net, loss, batch_size: int, seed: int) -> Trainer:
    """A trainer by the estimator's parameters; its orders are drawn by the stopping rule."""
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
    """The batch size for so many rows, `count` at most; warns where the parameter is more."""
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
    kept, kind = engine.trainer, optimizer_class(estimator)
    if goes_on and kept is not None and type(kept.optimizer) is kind:
        penalties: Any = kept.optimizer
        if (penalties.l2, penalties.l1) != (estimator.alpha, estimator.l1):
            kept.retune(l2=estimator.alpha, l1=estimator.l1)
        kept.release()
        kept.batch_size = batch_size  # of this fit, whose checkpoints state it
        return kept
    if seed is None and goes_on:
        seed = engine.stored_seed(kind)
    if seed is None:
        seed = draw_seed(estimator, engine.net.f[1:], rng)
    trainer = make_trainer(estimator, engine.net, loss, batch_size, seed)
    engine.take_trainer(trainer, goes_on)
    return trainer


def fit(
    estimator,
    engine,
    samples: Samples,
    validation_set,
    loss,
    rng,
    incremental: bool,
    unfinished=None,
) -> None:
    """Train an estimator's network: all epochs, or if incremental, the one of a `partial_fit`.

    Parameters
    ----------
    samples : Samples
        All rows; with early_stopping and without validation_set, some of them are held out.
    validation_set : Samples or None
        The user's own.
    rng : RandomState
        Draws the rows held out, the trainer's seed and the orders.
    unfinished : dict or None
        The state of a fit, from a checkpoint, which this one resumes.
    """
    est, net = estimator, engine.net
    if unfinished is not None:
        rng = copy.deepcopy(unfinished["random_at_begin"])
    random_at_begin = copy.deepcopy(rng) if est.callbacks else None  # such as a Checkpoint
    if incremental and any(isinstance(callback, EarlyStopping) for callback in est.callbacks or ()):
        raise ValueError(
            "EarlyStopping cannot stop a loop of partial_fit, of which each call is a fit; use "
            "early_stopping=True with X_val and y_val"
        )
    if est.early_stopping and validation_set is None:
        samples, validation_set = _hold_out(est, samples, rng, incremental)
    batch_size = batch_size_for(est, samples.rows)
    goes_on = incremental or (est.warm_start and est.keep_optimizer)
    seed = None
    if unfinished is not None:
        resuming.check(unfinished, samples.rows, batch_size, validation_set is not None)
        goes_on, seed = True, unfinished["seed"]
    trainer = current_trainer(est, engine, loss, batch_size, rng, goes_on, seed)
    state_buffers = sum(trainer.optimizer.state_buffers().values())
    with (
        net.ops.on_device(),
        memory.explain_oom(
            net.shape, net.ops, batch_size, state_buffers, memory.size_of(samples.X)
        ),
        blas_threads.limit_blas_threads(net.shape, batch_size),
    ):
        rows = _make_rows(est, engine, trainer.objective, samples, batch_size, incremental)
        validation = None
        if validation_set is not None:
            validation = Validation(est, engine, trainer.objective, validation_set)
        optimizer: Any = trainer.optimizer
        rule = StoppingRule(est, rows.sizes, optimizer.lr, rng, incremental)
        running = Fit(rule, engine, trainer, rows, validation, random_at_begin)
        trainer.callbacks = sorted(est.callbacks or (), key=lambda callback: callback.goes_last)
        trainer.owner = running
        try:
            running.run(unfinished)
        finally:
            trainer.callbacks, trainer.owner = [], None


def _hold_out(est, samples: Samples, rng, incremental: bool) -> tuple[Samples, Samples]:
    """Split samples for early stopping; raises ValueError in a partial_fit."""
    if incremental:
        raise ValueError("partial_fit does not support early_stopping=True without X_val and y_val")
    return split(est, samples, rng)


def _make_rows(est, engine, objective, samples: Samples, batch_size: int, incremental: bool):
    """The training rows, with the weights of their classes; those of the last partial_fit, if
    these are as many."""
    X, net = samples.X, engine.net
    arguments = net, objective, X, samples.encoded, est._training_weight(samples), batch_size
    small = not net.shape.sparse and X.nbytes <= estimator_rows.KEPT_BYTES
    keep = incremental and small
    if keep and engine.rows is not None and engine.rows.replace(*arguments):
        return engine.rows
    rows = estimator_rows.EstimatorRows(*arguments, keep)
    engine.rows = rows if rows.kept else None
    return rows


class Fit:
    """Runs a fit: an epoch's rows go to the trainer, its losses to the stopping rule."""

    stores_trainer = False  # see `Checkpoint`

    def __init__(self, rule: StoppingRule, engine, trainer, rows, validation, random_at_begin):
        """random_at_begin: the rule's generator, before anything was drawn."""
        self.rule, self.est = rule, rule.est
        self.engine, self.trainer = engine, trainer
        self.rows, self.validation = rows, validation
        self._progress: Any = None  # while it runs
        self.random_at_begin = random_at_begin

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
        with Interrupt() as interrupt, Progress(est.verbose, trainer.epochs_left) as progress:
            self._progress = progress
            try:
                loop.run(self, interrupt, self._report)
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
        """The estimator and, if `fit`, the state of the running fit, for `gpumlp.save`."""
        return self.est, resuming.state(self) if fit else None

    def _begin(self):
        est, rule, trainer, engine = self.est, self.rule, self.trainer, self.engine
        steps = len(self.rows.sizes)
        total = est.max_iter * steps
        if rule.incremental:
            total = max(total - trainer.rates.issued, steps)
        trainer.rates.plan(steps, total)
        trainer.history.interrupted = False
        rule.begin(self.validation is not None)
        trainer.epochs_left = rule.epochs_left
        if est.early_stopping:
            # partial_fits share their best weights.
            engine.recall_best() if rule.incremental else engine.forget_best()
        if rule.improved:
            engine.remember_best()

    # ------------------------------------------------------------ see `loop.Fit`
    @property
    def epochs_left(self) -> int:
        return self.rule.epochs_left

    def train(self, interrupt) -> Epoch | None:
        return self.rows.run(self.trainer, self.rule.next_order(), interrupt)

    def note(self, epoch: Epoch) -> None:
        """Write the loss to the estimator, as scikit-learn defines it, and to the history."""
        history = self.trainer.history
        self.rule.trained(epoch.losses[:, 0], epoch.weights[:, 0], bool(epoch.diverged))
        history.loss.append(self.est.loss_)
        history.lr.append(float(epoch.rates[0]))

    def validate(self) -> None:
        if self.validation is None:
            return
        rule, history = self.rule, self.trainer.history
        # The engine keeps the last good weights; those after a divergence would score nothing.
        value, score = (np.nan, np.nan) if rule.diverged else self.validation()
        rule.validated(value, score)
        history.val_loss.append(value)
        history.val_accuracy.append(score)

    def judge(self, epoch: Epoch) -> None:
        rule, trainer = self.rule, self.trainer
        rule.judge()
        if rule.improved:
            self.engine.remember_best()
        if rule.lr != trainer.optimizer.lr:
            trainer.retune(lr=rule.lr)

    def _report(self) -> None:
        scores = self.est.validation_scores_
        self._progress.epoch(self.est.n_iter_, self.est.loss_, scores[-1] if scores else None)
        if self.rule.message:
            self._progress.say(self.rule.message)
        if self.rule.unfinished:
            message = f"the fit has not converged within max_iter={self.est.max_iter} epochs"
            warn(message, ConvergenceWarning)

    def _finish(self):
        rule = self.rule
        if rule.goes_back:
            self.engine.restore_best()
        if rule.failure and self.est.early_stopping:
            warn(f"{rule.failure}; the best weights before are kept", ConvergenceWarning)
        elif rule.failure:
            raise ValueError(f"{NON_FINITE}: {rule.failure}")
