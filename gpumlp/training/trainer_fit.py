"""A trainer's fit for the loop over epochs."""

from __future__ import annotations

import numpy as np

from gpumlp.training import divergence
from gpumlp.training.device_state import Epoch
from gpumlp.training.rows import Rows


class TrainerFit:
    """Runs the epochs of a trainer's fit, see `loop.Fit`, in orders of the trainer's own."""

    def __init__(self, trainer, rows: Rows, evaluation):
        self.trainer, self._rows, self._evaluation = trainer, rows, evaluation

    @property
    def epochs_left(self) -> int:
        return self.trainer.epochs_left or 0

    def train(self, interrupt) -> Epoch | None:
        trainer, before = self.trainer, self.trainer.epoch
        epoch = trainer.run_epoch(self._rows, None, interrupt, trainer.batches_done)
        return epoch if trainer.epoch > before else None

    def note(self, epoch: Epoch) -> None:
        trainer, weights = self.trainer, epoch.weights
        losses = np.where(weights > 0, epoch.losses, 0)
        if trainer.objective.mean:
            losses *= weights
        with np.errstate(invalid="ignore", divide="ignore"):  # a network that stood still: NaN
            loss = losses.sum(axis=0) / weights.sum(axis=0)
        trainer.history.loss.append(trainer.public(loss))
        trainer.history.lr.append(trainer.public(epoch.rates))

    def validate(self) -> None:
        if not self._evaluation:
            return
        value, accuracy = self._evaluation()
        history, public = self.trainer.history, self.trainer.public
        history.val_loss.append(public(value))
        if accuracy is not None:
            history.val_accuracy.append(public(accuracy))

    def judge(self, epoch: Epoch) -> None:
        trainer = self.trainer
        divergence.report(trainer, epoch.diverged)
        trainer.state.epochs_left = self.epochs_left - 1
