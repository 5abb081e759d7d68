"""The loop over epochs, the same for trainers, estimators, and stacks of these."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from gpumlp.training.device_state import Epoch
from gpumlp.utils.interrupt import Interrupt


class Fit(Protocol):
    """A fit as the loop uses it: an epoch, its validation, and the rule by which the fit ends.

    trainer:     of the epoch; a stack that shrinks goes on with another one.
    epochs_left: 0 if the fit ends.
    """

    trainer: Any

    @property
    def epochs_left(self) -> int: ...

    def train(self, interrupt: Interrupt) -> Epoch | None:
        """Run the steps of an epoch; None where Ctrl-C came before all were made."""
        ...

    def note(self, epoch: Epoch) -> None:
        """Append the epoch's losses to the history."""
        ...

    def validate(self) -> None:
        """Append loss and score of the validation set, if there is one, to the history."""
        ...

    def judge(self, epoch: Epoch) -> None:
        """Decide whether the fit goes on, and at which learning rate."""
        ...


def run(fit: Fit, interrupt: Interrupt, after_epoch: Callable[[], None]) -> None:
    """Run epochs until the fit's rule, a callback or Ctrl-C ends them; the last sets
    history.interrupted.

    after_epoch: called when an epoch has been judged, before the callbacks.
    """
    interrupted = False
    while fit.epochs_left and not (fit.trainer.stopping or interrupted):
        begin = time.perf_counter()
        epoch = fit.train(interrupt)
        trainer = fit.trainer
        history = trainer.history
        if epoch is not None:
            fit.note(epoch)
            fit.validate()
            if trainer.rates.observe(history):
                trainer.state.apply_plateau()
            history.seconds.append(time.perf_counter() - begin)
            fit.judge(epoch)
            trainer.epochs_left = fit.epochs_left
            after_epoch()
            for callback in trainer.callbacks:
                callback.on_epoch_end(trainer, history)
        interrupted = history.interrupted = interrupt.asked
