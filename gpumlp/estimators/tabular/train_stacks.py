"""Train the stacks of networks of an estimator for tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpumlp.estimators.tabular import preset
from gpumlp.estimators.tabular.preset import NetworkParams
from gpumlp.estimators.tabular.stored_stack import StoredStack
from gpumlp.estimators.tabular.tabular_fit import TabularFit
from gpumlp.estimators.tabular.time_limit import TimeLimit
from gpumlp.training.callback import Callback, EarlyStopping
from gpumlp.training.history import History
from gpumlp.training.trainer import Trainer


class TableSamples(NamedTuple):
    """Prepared rows x (R, D), coded targets y (R,), and weights (R,) or None."""

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None


class StackTask(NamedTuple):
    """What the stacks of a fit are trained on.

    weight: (R,) of the training loss, or None.
    validation_set: the user's, or None.
    folds: else what each network trains on and holds out, as `Trainer.fit` takes it.
    """

    params: NetworkParams
    train: TableSamples
    weight: np.ndarray | None
    validation_set: TableSamples | None
    folds: Any
    device: str


def train_stacks(est: Any, task: StackTask, fit: TabularFit) -> None:
    """Train a stack for each loss of an estimator, in equal shares of the time that is left; those
    that the fit has stay.

    Raises KeyboardInterrupt where Ctrl-C came before the last.
    """
    losses = est._losses(task.params)
    for i in range(len(fit.stacks), len(losses)):
        limits: list[Callback] = []
        if est.time_limit is not None:
            left = est.time_limit - fit.seconds
            limits = [TimeLimit(left / (len(losses) - i), time.monotonic())]
        history = _train(est, task, losses[i], fit, limits)
        if history.interrupted and i + 1 < len(losses):
            raise KeyboardInterrupt  # a model of some of the quantiles is none


def _train(
    est: Any, task: StackTask, loss: Any, fit: TabularFit, limits: list[Callback]
) -> History:
    """Train a stack, each network of which is then as it was after its best epoch."""
    params, (x, y, _), folds = task.params, task.train, task.folds
    validation_set = task.validation_set
    rows = len(x) if folds is None else folds[0].shape[1]
    epochs = _or_auto(est.max_epochs, preset.epochs_for, rows)
    resume = fit.trainer is not None
    trainer = fit.trainer or _make_trainer(est, task, loss, rows, fit.rng)
    decay = [preset.FallingDecay(params)] if params.schedule_decay else []
    stop = EarlyStopping(patience=epochs, monitor="val_loss")
    fit.trainer, trainer.owner = trainer, fit
    try:
        history = trainer.fit(
            *(x, y),
            epochs=(trainer.epochs_left or 0) if resume else epochs,
            validation=None
            if validation_set is None
            else tuple(validation_set[: 2 + (validation_set.weight is not None)]),
            callbacks=[*limits, *decay, *(est.callbacks or ()), stop],  # its weights are the last
            progress=bool(est.verbose),
            sample_weight=task.weight,
            folds=folds,
            resume=resume,
        )
    finally:
        fit.trainer = trainer.owner = None
    fit.stacks.append(StoredStack(trainer.net))
    fit.histories.append(history)
    fit.best_epochs.append(np.asarray(stop.best_epoch))
    return history


def _make_trainer(est: Any, task: StackTask, loss: Any, rows: int, rng: Any) -> Trainer:
    """The trainer of a new stack, for so many rows."""
    params, x = task.params, task.train.x
    hidden = _or_auto(est.hidden_layer_sizes, preset.hidden_sizes_for, rows)
    batch = _or_auto(est.batch_size, preset.batch_size_for, rows)
    units = [int(size) for size in np.atleast_1d(np.asarray(hidden))]
    outputs, activation = est._outputs
    net = preset.make_network(
        params,
        (x.shape[1], *units, outputs),
        activation,
        est.n_models,
        dtype=str(np.dtype(est.dtype)),
        device=task.device,
        seed=int(rng.integers(2**32)),
    )
    preset.draw_weights(net, x, rng)
    seed = int(rng.integers(2**32))
    return preset.make_trainer(params, net, loss, est.learning_rate, batch, seed)


def _or_auto(value: Any, by_rows: Callable[[int], Any], rows: int) -> Any:
    """The value; "auto" is what goes by the number of rows."""
    return by_rows(rows) if isinstance(value, str) else value
