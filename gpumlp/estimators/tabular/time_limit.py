"""A fit that ends in time: as many epochs as there is time for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gpumlp.training.callback import Callback
from gpumlp.training.history import History
from gpumlp.training.trainer import Trainer
from gpumlp.utils.schema import check, count

if TYPE_CHECKING:
    from gpumlp.utils.aliases import Array

SURE = 0.9  # of what is left is planned for: epochs differ


class TimeLimit(Callback):
    """After each epoch, as many more as there is time for, but no more than were asked for; the
    schedule ends with the last one.

    The first epoch counts for the others only until there are others: it compiles what they find.
    """

    def __init__(self, seconds: float, begin: float) -> None:
        """begin: when the time began, by time.monotonic()."""
        self._end = begin + seconds
        self._start = self._second = 0.0  # when the first and the second epoch began
        self._epochs = self._most = 0

    def on_fit_begin(self, trainer: Trainer, history: History) -> None:
        self._start, self._epochs, self._most = time.monotonic(), 0, trainer.epochs_left or 0

    def on_epoch_end(self, trainer: Trainer, history: History) -> None:
        self._epochs += 1
        now = time.monotonic()
        if self._epochs == 1:
            self._second = now
            one = now - self._start
        else:
            one = (now - self._second) / (self._epochs - 1)
        possible = int(SURE * (self._end - now) / max(one, 1e-9))
        left = min(possible, self._most - self._epochs)
        if possible < 1:
            trainer.stop()
        elif left:
            trainer.reschedule(left)

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        return {"most": self._most - self._epochs}, {}

    def restore(self, numbers: dict[str, Any], arrays: dict[str, Array]) -> None:
        check(numbers, {"most": count}, "the state of TimeLimit")
        self._most = numbers["most"]
