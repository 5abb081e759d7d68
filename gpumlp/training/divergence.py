"""Networks whose loss, gradient or update is not finite."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from gpumlp.functions.optimizer import HYPERS
from gpumlp.training.history import History

if TYPE_CHECKING:
    from gpumlp.training.trainer import Trainer


class DivergenceError(ArithmeticError):
    """The loss, the gradient or an update of a single network is not finite.

    The weights in place are finite: those from before the update at which that was seen, or where
    the update itself went out of range, what it could move and what it could not.  Earlier updates
    may have led them astray.

    Attributes
    ----------
    epoch : int
        The epoch, from 1.
    step : int
        The number of the update, from 1.
    lr : float
        Its learning rate.
    history : History
        What came before.
    """

    def __init__(self, epoch: int, step: int, lr: float, history: History) -> None:
        self.epoch, self.step, self.lr, self.history = epoch, step, lr, history
        super().__init__(
            f"the loss, its gradient or the update is NaN or infinite in epoch {epoch}, at update "
            f"{step}, with learning rate {lr:g}; the network keeps finite weights. "
            "Lower the learning rate, scale the data, or set clip_norm; Trainer.revive goes on"
        )


def report(trainer: Trainer, diverged: dict[int, int]) -> None:
    """Note the networks that diverged, each with its update; of a stack it warns.

    Raises
    ------
    DivergenceError
        Of a single network.
    """
    history = trainer.history
    new = {m: t for m, t in diverged.items() if history.diverged.get(m) != t}
    history.diverged.update(new)
    if not diverged:
        return
    lr = {
        m: float(trainer.state.numbers[m, HYPERS.index("LR")] * trainer.rates.at(m, t - 1))
        for m, t in diverged.items()
    }
    if trainer.net.models is None:
        raise DivergenceError(trainer.epoch, diverged[0], lr[0], history)
    trainer.notice_stopped()
    if not new:
        return
    places = ", ".join(f"{m} (update {t}, learning rate {lr[m]:g})" for m, t in new.items())
    warnings.warn(
        f"epoch {trainer.epoch}: the loss, its gradient or the update is NaN or infinite for "
        f"network {places}; it keeps finite weights, the others go on",
        RuntimeWarning,
        stacklevel=6,  # whoever called fit
    )
