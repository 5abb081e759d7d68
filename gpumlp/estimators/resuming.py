"""The state of a running fit in a checkpoint, from which it is resumed at the end of an epoch.

The estimator itself has its weights, counters and curves in the file, and the optimiser's state.
The rest is added here: the generator of random numbers, now and when the fit began, so that the
same samples are held out; the order of the samples, which the next epoch permutes; the trainer's
own counters; and what its callbacks remember.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.estimators.hyperparameters import random_of
from gpumlp.training import callback, history


def state(running) -> dict[str, Any]:
    """The state of a `stochastic.Fit` at the end of an epoch."""
    trainer, to_host = running.trainer, running.trainer.net.ops.to_host
    callbacks = callback.keep(trainer.callbacks)
    return {
        "random_at_begin": running.random_at_begin,
        "random": running.rule.random,
        "order": running.rule.order,
        "batch_size": trainer.batch_size,
        "validated": running.validation is not None,
        "diverged": running.rule.diverged,
        "seed": trainer.seed,
        "epoch": trainer.epoch,
        "epochs_left": trainer.epochs_left,
        "stopping": trainer.stopping,
        "total": trainer.rates.total,
        "history": trainer.history.state(),
        "callbacks": [
            (entry.kind, entry.numbers, {name: to_host(a) for name, a in entry.arrays.items()})
            for entry in callbacks
        ],
    }


def check(unfinished: dict[str, Any], rows: int, batch_size: int, validated: bool) -> None:
    """Raise ValueError for data that cannot be those of the unfinished fit."""
    known = len(unfinished["order"]), unfinished["batch_size"]
    if known != (rows, batch_size):
        raise ValueError(
            f"the fit to be resumed trained on {known[0]} samples in batches of {known[1]}, and "
            f"these are {rows} in batches of {batch_size}; give the same data and parameters"
        )
    if validated != unfinished["validated"]:
        had = "a validation set" if unfinished["validated"] else "no validation set"
        raise ValueError(f"the fit to be resumed had {had}; give the same X_val and y_val")


def resume(running, unfinished: dict[str, Any]) -> None:
    """Load the state into a fit that has not begun; the estimator forgets it."""
    for name in ("_unfinished", "_resuming"):
        running.est.__dict__.pop(name, None)
    rule, trainer, rates = running.rule, running.trainer, running.trainer.rates
    random_state = rule.est.random_state
    rule.random = unfinished["random"]
    if isinstance(random_state, np.random.RandomState | np.random.Generator):
        # The user's goes on too.
        random = random_of(random_state)
        random.set_state(rule.random.get_state(legacy=False))
        rule.random = random
    rule.order, rule.diverged = unfinished["order"], unfinished["diverged"]
    trainer.epoch, rule.epochs_left = unfinished["epoch"], unfinished["epochs_left"]
    trainer.history = history.from_state(unfinished["history"])
    steps = len(running.rows.sizes)
    rates.total = unfinished["total"]
    ended = rule.est.converged_ or unfinished["stopping"] or rule.incremental
    if not ended:  # max_iter may have been raised, or lowered, since
        left = max(0, rule.est.max_iter - rule.est.n_iter_)
        if rates.total is not None:
            rates.total += (left - rule.epochs_left) * steps
        rule.epochs_left = left
    trainer.epochs_left = rule.epochs_left
    rates.plan(steps, trainer.epochs_left * steps, resume=True)
    running.engine.recall_best()


def restore(running, unfinished: dict[str, Any]) -> None:
    """Load the state of the callbacks, whose on_fit_begin has been called."""
    trainer = running.trainer
    kept = [callback.CallbackState(*entry) for entry in unfinished["callbacks"]]
    callback.restore(kept, trainer.callbacks, trainer.net.ops.to_device)
    if unfinished["stopping"]:
        trainer.stop()
