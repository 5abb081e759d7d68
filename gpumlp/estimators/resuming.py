"""A fit in a checkpoint: what it takes to go on at the end of an epoch as if nothing had happened.

The estimator itself has its weights, counters and curves in the file, and the optimiser's state.
Here is the rest: the generator of random numbers, now and when the fit began, so that the same
samples are held out; the order of the samples, which the next epoch's permutes; the trainer's own
counters; and what its callbacks remember.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.estimators.hyperparameters import random_of
from gpumlp.training import callback, history


def state(running) -> dict[str, Any]:
    """Of a `stochastic.Fit`, at the end of an epoch."""
    trainer, to_host = running.trainer, running.trainer.net.ops.to_host
    kept = callback.keep(trainer.callbacks)
    return {
        "random_at_begin": running.random_at_begin,
        "random": running.course.random,
        "order": running.course.order,
        "batch_size": trainer.batch_size,
        "validated": running.validation is not None,
        "diverged": running.course.diverged,
        "seed": trainer.seed,
        "epoch": trainer.epoch,
        "epochs_left": trainer.epochs_left,
        "stopping": trainer.stopping,
        "total": trainer.rates.total,
        "history": trainer.history.state(),
        "callbacks": [
            (each.kind, each.numbers, {name: to_host(a) for name, a in each.arrays.items()})
            for each in kept
        ],
    }


def check(unfinished: dict[str, Any], rows: int, batch_size: int, validated: bool) -> None:
    """A ValueError for data that cannot be those of the unfinished fit."""
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
    """The state becomes that of a fit that has not begun yet; it can be taken up once."""
    for name in ("_unfinished", "_resuming"):
        running.est.__dict__.pop(name, None)
    course, trainer, rates = running.course, running.trainer, running.trainer.rates
    given = course.est.random_state
    course.random = unfinished["random"]
    if isinstance(given, np.random.RandomState | np.random.Generator):  # the user's goes on too
        own = random_of(given)
        own.set_state(course.random.get_state(legacy=False))
        course.random = own
    course.order, course.diverged = unfinished["order"], unfinished["diverged"]
    trainer.epoch, course.epochs_left = unfinished["epoch"], unfinished["epochs_left"]
    trainer.history = history.from_state(unfinished["history"])
    steps = len(running.rows.sizes)
    rates.total = unfinished["total"]
    ended = course.est.converged_ or unfinished["stopping"] or course.incremental
    if not ended:  # max_iter may have been raised, or lowered, since
        left = max(0, course.est.max_iter - course.est.n_iter_)
        if rates.total is not None:
            rates.total += (left - course.epochs_left) * steps
        course.epochs_left = left
    trainer.epochs_left = course.epochs_left
    rates.plan(steps, trainer.epochs_left * steps, resume=True)
    running.engine.recall_best()


def restore(running, unfinished: dict[str, Any]) -> None:
    """The callbacks, which have begun, get what they remembered."""
    trainer = running.trainer
    kept = [callback.CallbackState(*each) for each in unfinished["callbacks"]]
    callback.restore(kept, trainer.callbacks, trainer.net.ops.to_device)
    if unfinished["stopping"]:
        trainer.stop()
