"""Learning-rate schedules: the factor on the optimiser's rate before each update.

A schedule is called with the numbers of the updates (an array, the first update is 0) and returns
their factors; any such function can be given.  Those below count in epochs, or with unit="step" in
updates; `Trainer.fit` tells them how many updates an epoch has and how many there will be.
`Plateau` watches a loss instead, and acts at the end of epochs, on each network by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from gpumlp.utils import checks


def _take_numbers(schedule, intervals: dict[str, checks.Interval], others: tuple) -> None:
    """Checks every field but those of the names in `others`, and makes it Python's int or float; a
    field without an interval of its own is not negative."""
    for f in fields(schedule):
        if f.name not in others:
            name = f"{type(schedule).__name__}: {f.name}"
            interval = intervals.get(f.name, checks.NONNEGATIVE)
            value = checks.number(getattr(schedule, f.name), name, interval, f.default is None)
            object.__setattr__(schedule, f.name, value)


@dataclass(frozen=True)
class Schedule:
    """A factor as a function of time, in epochs or steps; total is the length of the whole fit."""

    unit: str = "epoch"

    intervals: ClassVar[dict[str, checks.Interval]] = {}

    def __post_init__(self):
        checks.choice(self.unit, f"{type(self).__name__}: unit", ("epoch", "step"))
        _take_numbers(self, self.intervals, ("unit",))

    def factor(self, time: np.ndarray, total: float | None) -> np.ndarray:
        """The factor at each time."""
        raise NotImplementedError

    def factors(self, steps: np.ndarray, steps_per_epoch: int | None, total: int | None):
        """The factor of each update; `total` updates will be made."""
        if self.unit == "step":
            return self.factor(steps.astype(np.float64), total)
        if steps_per_epoch is None:
            raise ValueError(
                f"{type(self).__name__} counts epochs, which Trainer.step does not know; "
                'use Trainer.fit, or unit="step"'
            )
        return self.factor(steps / steps_per_epoch, total and total / steps_per_epoch)

    def _length(self, own: float | None, total: float | None) -> float:
        length = own if own is not None else total
        if not length:
            raise ValueError(f"{type(self).__name__} needs total=, where no Trainer.fit tells it")
        return length


@dataclass(frozen=True)
class Constant(Schedule):
    """1."""

    def factor(self, time, total):
        return np.ones_like(time)


@dataclass(frozen=True)
class Step(Schedule):
    """decay ^ floor(time / every)."""

    every: float = 10
    decay: float = 0.1

    intervals: ClassVar[dict[str, checks.Interval]] = {"every": checks.POSITIVE}

    def factor(self, time, total):
        return self.decay ** np.floor(time / self.every)


@dataclass(frozen=True)
class Exponential(Schedule):
    """decay ^ time."""

    decay: float = 0.95

    def factor(self, time, total):
        return self.decay**time


@dataclass(frozen=True)
class InverseScaling(Schedule):
    """(1 + time)^(-power)."""

    power: float = 0.5

    def factor(self, time, total):
        return (1 + time) ** -self.power


@dataclass(frozen=True)
class Cosine(Schedule):
    """A linear rise from 0 over `warmup`, then half a cosine from 1 to `floor` at `total`
    (Loshchilov and Hutter 2017)."""

    total: float | None = None
    warmup: float = 0.0
    floor: float = 0.0

    intervals: ClassVar[dict[str, checks.Interval]] = {"total": checks.POSITIVE}

    def factor(self, time, total):
        length = self._length(self.total, total)
        if self.warmup >= length:
            raise ValueError(f"Cosine: warmup = {self.warmup:g} must be below total = {length:g}")
        progress = np.clip((time - self.warmup) / (length - self.warmup), 0, 1)
        cosine = self.floor + (1 - self.floor) * 0.5 * (1 + np.cos(np.pi * progress))
        return np.where(time < self.warmup, time / max(self.warmup, 1e-300), cosine)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Half a cosine from 1 / start up to 1 over the fraction `rise` of `total`, and one down to
    1 / (start end) (Smith and Topin 2019); the optimiser's rate is the highest."""

    total: float | None = None
    rise: float = 0.3
    start: float = 25.0
    end: float = 1e4

    intervals: ClassVar[dict[str, checks.Interval]] = {
        "total": checks.POSITIVE,
        "rise": checks.SHARE,
        "start": checks.POSITIVE,
        "end": checks.POSITIVE,
    }

    def factor(self, time, total):
        progress = np.clip(time / self._length(self.total, total), 0, 1)
        low, last = 1 / self.start, 1 / (self.start * self.end)
        up = _cosine(low, 1.0, np.minimum(progress / self.rise, 1))
        down = _cosine(1.0, last, np.maximum(progress - self.rise, 0) / (1 - self.rise))
        return np.where(progress < self.rise, up, down)


@dataclass(frozen=True)
class CosineLog(Schedule):
    """sin²(π log₂(1 + (2^cycles - 1) time / total)): so many rises from 0 to 1 and falls, each
    twice as long as the one before (Holzmüller et al. 2024)."""

    total: float | None = None
    cycles: int = 4

    intervals: ClassVar[dict[str, checks.Interval]] = {
        "total": checks.POSITIVE,
        "cycles": checks.Interval(1, 30, whole=True),
    }

    def factor(self, time, total):
        progress = np.clip(time / self._length(self.total, total), 0, 1)
        return np.sin(np.pi * np.log2(1 + (2**self.cycles - 1) * progress)) ** 2


def _cosine(start, stop, progress):
    return start + (stop - start) * 0.5 * (1 - np.cos(np.pi * progress))


@dataclass(frozen=True)
class Plateau:
    """The rate times `decay` after `patience` epochs without the loss falling by more than `delta`,
    never below `floor` times the first; for each network by itself.

    monitor: "val_loss" or "loss"; None takes the validation loss if there is a validation set.
    """

    decay: float = 0.1
    patience: int = 10
    delta: float = 0.0
    floor: float = 0.0
    monitor: str | None = None

    def __post_init__(self):
        intervals = {
            "decay": checks.SHARE,
            "patience": checks.COUNT,
            "floor": checks.Interval(0, 1),
        }
        _take_numbers(self, intervals, ("monitor",))
        checks.choice(self.monitor, "Plateau: monitor", (None, "loss", "val_loss"))

    def begin(self, models: int) -> dict[str, np.ndarray]:
        """What is remembered from epoch to epoch."""
        return {
            "best": np.full(models, np.inf),
            "waited": np.zeros(models, np.int64),
            "factor": np.ones(models),
        }

    def observe(self, memory: dict[str, np.ndarray], loss) -> None:
        """Take note of an epoch's loss (M,); memory["factor"] is the rate's factor from now on."""
        better = loss < memory["best"] - self.delta
        memory["best"] = np.where(better, loss, memory["best"])
        memory["waited"] = np.where(better, 0, memory["waited"] + 1)
        full = memory["waited"] >= self.patience
        lowered = np.maximum(memory["factor"] * self.decay, self.floor)
        memory["factor"] = np.where(full, lowered, memory["factor"])
        memory["waited"] = np.where(full, 0, memory["waited"])


_by_name = {
    "constant": Constant,
    "step": Step,
    "exponential": Exponential,
    "inverse_scaling": InverseScaling,
    "cosine": Cosine,
    "one_cycle": OneCycle,
    "cosine_log": CosineLog,
    "plateau": Plateau,
}

schedules = MappingProxyType(_by_name)


def find(schedule):
    """A schedule from its name, or the one given; None is a constant rate."""
    if schedule is None:
        return None
    if isinstance(schedule, str):
        return schedules[checks.choice(schedule, "schedule", schedules)]()
    if not (callable(schedule) or isinstance(schedule, Schedule | Plateau)):
        wanted = f"None, one of {', '.join(schedules)}, one of their objects, or a function"
        raise checks.ParameterError(f"schedule = {checks.shown(schedule)} must be {wanted}")
    return schedule
