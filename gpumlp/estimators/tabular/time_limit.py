"""A fit that ends in time: fewer epochs, and at the latest the best networks so far."""

from __future__ import annotations

import time

from gpumlp.training.callback import Callback

SURE = 0.9  # of what is left is planned for; epochs differ


class TimeLimit(Callback):
    """After each epoch, as many more as there is time for; the schedule ends with the last one."""

    def __init__(self, seconds: float, begin: float):
        """begin: when the time began, by time.monotonic()."""
        self.end = begin + seconds
        self._start = 0.0
        self._epochs = 0

    def on_fit_begin(self, trainer, history):
        self._start, self._epochs = time.monotonic(), 0

    def on_epoch_end(self, trainer, history):
        self._epochs += 1
        now = time.monotonic()
        one = (now - self._start) / self._epochs
        left = self.end - now
        possible = int(SURE * left / one)
        if left <= one or possible < 1:
            trainer.stop()
        elif possible < (trainer.epochs_left or 0):
            trainer.shorten(possible)
