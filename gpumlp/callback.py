"""What users can hang into a fit, and early stopping."""

from __future__ import annotations

from typing import Any

import numpy as np


class Callback:
    """Methods that `Trainer.fit` calls; override what you need.

    `trainer.stop()` ends the fit after this epoch; `trainer.stop(members)` stops the networks of a
    stack where members (M,) is true, and the fit when none is left.
    """

    def on_fit_begin(self, trainer, history) -> None: ...

    def on_epoch_end(self, trainer, history) -> None: ...

    def on_fit_end(self, trainer, history) -> None: ...


class EarlyStopping(Callback):
    """Stops each network when `monitor` has not fallen by more than `delta` for `patience` epochs,
    and restores its weights of the best epoch.

    monitor: "val_loss", "loss", or "val_accuracy", which has to rise; None takes the validation
             loss if there is a validation set, else the training loss.
    best, best_epoch: of each network, (M,); a number for a single one.

    A second fit goes on with the best seen so far.
    """

    def __init__(self, patience: int = 10, delta: float = 0.0, monitor=None, restore_best=True):
        if patience < 1:
            raise ValueError(f"patience = {patience}; it is at least 1")
        if delta < 0:
            raise ValueError(f"delta = {delta}; it is at least 0")
        if monitor not in (None, "loss", "val_loss", "val_accuracy"):
            raise ValueError(f'monitor = {monitor!r}; it is "loss", "val_loss" or "val_accuracy"')
        self.patience, self.delta, self.monitor = patience, delta, monitor
        self.restore_best = restore_best
        self._best: Any = None
        self._theta: Any = None

    @property
    def best(self):
        sign = -1 if self.monitor == "val_accuracy" else 1
        return _public(sign * self._best, self._stacked)

    @property
    def best_epoch(self):
        return _public(self._best_epoch, self._stacked)

    def on_fit_begin(self, trainer, history):
        models = trainer.net.models_count
        self._stacked = trainer.net.models is not None
        if self._best is None or len(self._best) != models:
            self._best = np.full(models, np.inf)
            self._best_epoch = np.zeros(models, np.int64)
            self._theta = None
        self._waited = np.zeros(models, np.int64)
        self._running = np.ones(models, bool)

    def on_epoch_end(self, trainer, history):
        monitor = self.monitor or ("val_loss" if history.val_loss else "loss")
        value = np.atleast_1d(history.last(monitor))
        if monitor == "val_accuracy":
            value = -value
        buffer = trainer.net.parameters.buffer
        # "<" fails for NaN; a stopped network's weights no longer change
        better = self._running & (value < self._best - self.delta)
        if self.restore_best:
            if self._theta is None:
                self._theta = buffer.copy()
            for m in np.flatnonzero(better):
                self._theta[m] = buffer[m]
        self._best = np.where(better, value, self._best)
        self._best_epoch = np.where(better, history.epochs, self._best_epoch)
        self._waited = np.where(better, 0, self._waited + 1)
        full = self._running & (self._waited >= self.patience)
        if full.any():
            self._running &= ~full
            trainer.stop(full)

    def on_fit_end(self, trainer, history):
        if self.restore_best and self._theta is not None:
            for m in np.flatnonzero(self._best_epoch > 0):
                trainer.net.parameters.buffer[m] = self._theta[m]


def _public(values, stacked):
    return values if stacked else values[0]
