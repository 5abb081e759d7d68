"""Learning-rate schedules: the factor on the optimiser's rate before each update.

A schedule is called with the numbers of the updates (an array, the first update is 0) and returns
their factors; any such function can be given.  Those below count in epochs, or with unit="step" in
updates; `Trainer.fit` tells them how many updates an epoch has and how many there will be.
`Plateau` watches a loss instead, and acts at the end of epochs, on each network by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gpumlp.utils import checks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from gpumlp.utils.aliases import ScheduleLike


def _take_numbers(
    schedule: Any, intervals: dict[str, checks.Interval], others: tuple[str, ...]
) -> None:
    """Check every field but those of the names in `others`, and make it Python's int or float; a
    field without an interval of its own is not negative."""
    for f in fields(schedule):
        if f.name not in others:
            name = f"{type(schedule).__name__}: {f.name}"
            interval = intervals.get(f.name, checks.NONNEGATIVE)
            value = checks.number(getattr(schedule, f.name), name, interval, f.default is None)
            object.__setattr__(schedule, f.name, value)


@dataclass(frozen=True)
class Schedule:
    """A schedule gives the factor on the learning rate as a function of time.

    Time is 0 at the first update.

    Parameters
    ----------
    unit : {"epoch", "step"}, default "epoch"
        What time counts: epochs, or updates.

    Raises
    ------
    ValueError
        For another unit, and for a number that is out of range.
    """

    unit: str = "epoch"

    intervals: ClassVar[dict[str, checks.Interval]] = {}

    def __post_init__(self) -> None:
        checks.choice(self.unit, f"{type(self).__name__}: unit", ("epoch", "step"))
        _take_numbers(self, self.intervals, ("unit",))

    def factor(self, time: np.ndarray, total: float | None) -> np.ndarray:
        """Compute the factor at each time.

        Parameters
        ----------
        time : ndarray
            Epochs or updates since the first update, with fractions.
        total : float or None
            The length of the whole fit in the same unit, where it is known.

        Returns
        -------
        ndarray
            The factors, in the shape of `time`.
        """
        raise NotImplementedError

    def factors(
        self, steps: np.ndarray, steps_per_epoch: int | None, total: int | None
    ) -> np.ndarray:
        """Compute the factor of each update.

        Parameters
        ----------
        steps : ndarray of int
            The numbers of the updates, from 0.
        steps_per_epoch : int or None
            Updates of an epoch; None where they are not known, as in `Trainer.step`.
        total : int or None
            Updates that will have been made at the end of the fit.

        Raises
        ------
        ValueError
            Where an epoch's updates, or the length, are needed and not known.
        """
        if self.unit == "step":
            return self.factor(steps.astype(np.float64), total)
        if steps_per_epoch is None:
            raise ValueError(
                f"{type(self).__name__} counts epochs, which Trainer.step does not know; "
                'use Trainer.fit, or unit="step"'
            )
        return self.factor(steps / steps_per_epoch, total and total / steps_per_epoch)

    def _length(self, wanted: float | None, total: float | None) -> float:
        length = wanted if wanted is not None else total
        if not length:
            raise ValueError(f"{type(self).__name__} needs total=, where no Trainer.fit tells it")
        return length


@dataclass(frozen=True)
class Constant(Schedule):
    """The learning rate is constant: the factor is 1.

    Parameters
    ----------
    unit : {"epoch", "step"}, default "epoch"
        What time counts: epochs, or updates.
    """

    def factor(self, time: np.ndarray, total: float | None) -> np.ndarray:
        return np.ones_like(time)


@dataclass(frozen=True)
class Step(Schedule):
    """The rate falls in steps: the factor is decay^floor(time / every).

    Parameters
    ----------
    unit : {"epoch", "step"}, default "epoch"
        What time counts: epochs, or updates.
    every : float, default 10
        The time between two steps, above 0.
    decay : float, default 0.1
        The factor of a step, at least 0.
    """

    every: float = 10
    decay: float = 0.1

    intervals: ClassVar[dict[str, checks.Interval]] = {"every": checks.POSITIVE}

    def factor(self, time: np.ndarray, total: float | None) -> np.ndarray:
        return self.decay ** np.floor(time / self.every)


@dataclass(frozen=True)
class Exponential(Schedule):
    """The rate falls exponentially: the factor is decay^time.

    Parameters
    ----------
    unit : {"epoch", "step"}, default "epoch"
        What time counts: epochs, or updates.
    decay : float, default 0.95
        The factor of a unit of time, at least 0.
    """

    decay: float = 0.95

    def factor(self, time: np.ndarray, total: float | None) -> np.ndarray:
        return self.decay**time


@dataclass(frozen=True)
class InverseScaling(Schedule):
    """The rate falls as an inverse power: the factor is (1 + time)^(-power).

    Parameters
    ----------
    unit : {"epoch", "step"}, default "epoch"
        What time counts: epochs, or updates.
    power : float, default 0.5
        The exponent, at least 0.
    """

    power: float = 0.5

    def factor(self, time: np.ndarray, total: float | None) -> np.ndarray:
        return (1 + time) ** -self.power


@dataclass(frozen=True)
class Cosine(Schedule):
    """The factor rises linearly from 0, then falls by half a cosine (Loshchilov and Hutter 2017).

    time / warmup before `warmup`, and then, with s = (time - warmup) / (total - warmup) up to 1,
    floor + (1 - floor) (1 + cos π s) / 2.

    Parameters
    ----------
    unit : {"epoch", "step"}, default "epoch"
        What time counts: epochs, or updates.
    total : float, optional
        The time at which `floor` is reached; None is the length of the fit.
    warmup : float, default 0
        The time of the rise.
    floor : float, default 0
        The last factor.
    """

    total: float | None = None
    warmup: float = 0.0
    floor: float = 0.0

    intervals: ClassVar[dict[str, checks.Interval]] = {"total": checks.POSITIVE}

    def factor(self, time: np.ndarray, total: float | None) -> np.ndarray:
        length = self._length(self.total, total)
        if self.warmup >= length:
            raise ValueError(f"Cosine: warmup = {self.warmup:g} must be below total = {length:g}")
        progress = np.clip((time - self.warmup) / (length - self.warmup), 0, 1)
        cosine = self.floor + (1 - self.floor) * 0.5 * (1 + np.cos(np.pi * progress))
        return np.where(time < self.warmup, time / max(self.warmup, 1e-300), cosine)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """The factor rises to 1 and falls, each by half a cosine (Smith and Topin 2019).

    It goes from 1 / start to 1 over the fraction `rise` of `total`, then to 1 / (start end): the
    optimiser's learning rate is the highest.

    Parameters
    ----------
    unit : {"epoch", "step"}, default "epoch"
        What time counts: epochs, or updates.
    total : float, optional
        The time at which the cycle ends; None is the length of the fit.
    rise : float, default 0.3
        The fraction of `total` that the rise takes, in (0, 1).
    start : float, default 25
        1 / the first factor, above 0.
    end : float, default 1e4
        The first factor / the last one, above 0.
    """

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

    def factor(self, time: np.ndarray, total: float | None) -> np.ndarray:
        progress = np.clip(time / self._length(self.total, total), 0, 1)
        low, last = 1 / self.start, 1 / (self.start * self.end)
        up = _cosine(low, 1.0, np.minimum(progress / self.rise, 1))
        down = _cosine(1.0, last, np.maximum(progress - self.rise, 0) / (1 - self.rise))
        return np.where(progress < self.rise, up, down)


@dataclass(frozen=True)
class CosineLog(Schedule):
    """sin²(π log₂(1 + (2^cycles - 1) time / total)): so many rises from 0 to 1 and falls, each
    twice as long as the one before (Holzmüller et al. 2024, "Better by Default").

    Parameters
    ----------
    unit : {"epoch", "step"}, default "epoch"
    total : float, optional
        Where the last fall ends; None is the end of the fit.
    cycles : int, default 4
        Rises and falls, from 1 to 30.
    """

    total: float | None = None
    cycles: int = 4

    intervals: ClassVar[dict[str, checks.Interval]] = {
        "total": checks.POSITIVE,
        "cycles": checks.Interval(1, 30, whole=True),
    }

    def factor(self, time: np.ndarray, total: float | None) -> np.ndarray:
        progress = np.clip(time / self._length(self.total, total), 0, 1)
        return np.sin(np.pi * np.log2(1 + (2**self.cycles - 1) * progress)) ** 2


def _cosine(start: float, stop: float, progress: np.ndarray) -> np.ndarray:
    return start + (stop - start) * 0.5 * (1 - np.cos(np.pi * progress))


@dataclass(frozen=True)
class Plateau:
    """The rate falls by a factor when a loss no longer does, for each network by itself.

    It is multiplied by `decay` after `patience` epochs in which the loss has not fallen by more
    than `delta`, and is never below `floor` times the first.

    Parameters
    ----------
    decay : float, default 0.1
        The factor, in (0, 1).
    patience : int, default 10
        Epochs to wait, 1 or more.
    delta : float, default 0
        By how much a loss has to be below the best, at least 0.
    floor : float, default 0
        The least product of the factors, in [0, 1].
    monitor : {None, "loss", "val_loss"}, default None
        The loss; None takes the validation loss if there is a validation set.

    Raises
    ------
    ValueError
        For a number that is out of range, and for another monitor.
    """

    decay: float = 0.1
    patience: int = 10
    delta: float = 0.0
    floor: float = 0.0
    monitor: str | None = None

    def __post_init__(self) -> None:
        intervals = {
            "decay": checks.SHARE,
            "patience": checks.COUNT,
            "floor": checks.Interval(0, 1),
        }
        _take_numbers(self, intervals, ("monitor",))
        checks.choice(self.monitor, "Plateau: monitor", (None, "loss", "val_loss"))

    def begin(self, models: int) -> dict[str, np.ndarray]:
        """Return what is remembered of M networks from epoch to epoch: arrays (M,) by name."""
        return {
            "best": np.full(models, np.inf),
            "waited": np.zeros(models, np.int64),
            "factor": np.ones(models),
        }

    def observe(self, memory: dict[str, np.ndarray], loss: np.ndarray) -> None:
        """Take note of an epoch's loss (M,); memory["factor"] is the rate's factor from now on."""
        better = loss < memory["best"] - self.delta
        memory["best"] = np.where(better, loss, memory["best"])
        memory["waited"] = np.where(better, 0, memory["waited"] + 1)
        full = memory["waited"] >= self.patience
        lowered = np.maximum(memory["factor"] * self.decay, self.floor)
        memory["factor"] = np.where(full, lowered, memory["factor"])
        memory["waited"] = np.where(full, 0, memory["waited"])


_by_name: dict[str, type[Schedule] | type[Plateau]] = {
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


def find(
    schedule: ScheduleLike | None,
) -> Schedule | Plateau | Callable[[np.ndarray], ArrayLike] | None:
    """A schedule from its name, or the one given; None is a constant rate."""
    if schedule is None:
        return None
    if isinstance(schedule, str):
        return schedules[checks.choice(schedule, "schedule", schedules)]()
    if not (callable(schedule) or isinstance(schedule, Schedule | Plateau)):
        wanted = f"None, one of {', '.join(schedules)}, one of their objects, or a function"
        raise checks.ParameterError(f"schedule = {checks.shown(schedule)} must be {wanted}")
    return schedule
