"""The state of a training on the device, of which the host reads one buffer once an epoch."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gpumlp.backend.contract import Array, State
from gpumlp.backend.sources import SCALARS
from gpumlp.model.memory import STEPS_NOTED


class Epoch(NamedTuple):
    """The losses and learning rates of an epoch, on the host."""

    losses: np.ndarray  # (steps, M) float64: of the batches that were done
    weights: np.ndarray  # (steps, M) float64: 0 where a batch did not count
    stopped_at: np.ndarray  # (M,), as in State
    rates: np.ndarray  # (M,): the learning rates of the last updates

    @property
    def diverged(self) -> dict[int, int]:
        return diverged(self.stopped_at)


def diverged(stopped_at) -> dict[int, int]:
    """The networks that diverged: m -> the update that was not finite, or its loss or gradient."""
    return {m: update for m, update in enumerate(stopped_at.tolist()) if update > 0}


class DeviceState(State):
    """A State with stopped_at, scalars, losses and weights one behind the other in a buffer."""

    def __init__(self, t, cursor, norm, buffer, steps: int):
        self._buffer = buffer
        views = _views(buffer, len(t), norm.dtype, steps)
        super().__init__(t=t, cursor=cursor, norm=norm, **views._asdict())

    @staticmethod
    def zeros(xp, models: int, real: np.dtype) -> DeviceState:
        t, cursor = xp.zeros(models, np.int64), xp.zeros(models, np.int64)
        buffer = xp.zeros(_size(models, real, STEPS_NOTED), np.uint8)
        return DeviceState(t, cursor, xp.zeros(models, real), buffer, STEPS_NOTED)

    def __reduce__(self):  # the views of a copy are of its own buffer
        return DeviceState, (self.t, self.cursor, self.norm, self._buffer, len(self.losses))

    def make_room(self, xp, steps: int, done: int = 0) -> None:
        """Make losses and weights the tables of an epoch of so many batches, and keep the rows of
        those that are done."""
        if steps == len(self.losses):
            return
        models, real = len(self.t), self.norm.dtype
        size, head = _size(models, real, steps), _size(models, real, 0)
        kept = {name: getattr(self, name)[:done].copy() for name in ("losses", "weights") if done}
        if size > self._buffer.size:
            before, self._buffer = self._buffer, xp.zeros(size, np.uint8)
            self._buffer[:head] = before[:head]
        for name, view in _views(self._buffer, models, real, steps)._asdict().items():
            setattr(self, name, view)
        for name, rows in kept.items():
            getattr(self, name)[: len(rows)] = rows

    def read(self, to_host, done: int) -> Epoch:
        """Read the device once, after an epoch of which so many batches were done."""
        models, real, steps = len(self.t), self.norm.dtype, len(self.losses)
        views = _views(to_host(self._buffer[: _size(models, real, steps)]), models, real, steps)
        return Epoch(
            views.losses[:done].astype(np.float64),
            views.weights[:done].astype(np.float64),
            views.stopped_at.copy(),
            views.scalars[:, SCALARS.index("RATE")].copy(),
        )


class _Views(NamedTuple):
    stopped_at: Array
    scalars: Array
    losses: Array
    weights: Array


def _views(buffer, models: int, real: np.dtype, steps: int) -> _Views:
    table = (steps, models), real
    parts = ((models,), np.dtype(np.int64)), ((models, len(SCALARS)), real), table, table
    views = []
    offset = 0
    for shape, dtype in parts:
        length = math.prod(shape) * dtype.itemsize
        views.append(buffer[offset : offset + length].view(dtype).reshape(shape))
        offset += length
    return _Views(*views)


def _size(models: int, real: np.dtype, steps: int) -> int:
    return models * (8 + real.itemsize * (len(SCALARS) + 2 * steps))
