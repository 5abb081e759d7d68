"""What users can hang into a fit, and early stopping."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpumlp.utils import checks
from gpumlp.utils.schema import check, count

if TYPE_CHECKING:
    from gpumlp.model.mlp import MLP
    from gpumlp.training.history import History
    from gpumlp.training.trainer import Trainer
    from gpumlp.utils.aliases import Array

# What `EarlyStopping` remembers, of each network.
STATE = {"best": [float], "best_epoch": [count], "waited": [count], "running": [bool]}


class Callback:
    """A callback has methods that a fit calls; override what you need.

    Each gets the `Trainer` and its `History`; of an estimator, those of its engine.
    `trainer.stop()` ends the fit after this epoch; `trainer.stop(members)` stops the networks of a
    stack where members (M,) is true, and the fit when none is left.

    A callback that remembers something from epoch to epoch gives it to checkpoints by `state`, and
    gets it back by `restore` when a fit is resumed, after `on_fit_begin`.

    Attributes
    ----------
    goes_last : bool
        Whether it is called after all the others, and sees what they did; False.
    """

    goes_last = False

    def on_fit_begin(self, trainer: Trainer, history: History) -> None:
        """A fit begins, or goes on."""

    def on_epoch_end(self, trainer: Trainer, history: History) -> None:
        """An epoch has ended: its losses are the last in `history`."""

    def on_interrupt(self, trainer: Trainer, history: History) -> None:
        """Ctrl-C ended the training, perhaps within an epoch; on_fit_end comes after it."""

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        """A fit has ended, but for one that raises."""

    def state(self) -> tuple[dict[str, Any], dict[str, Array]] | None:
        """Return what it remembers, for a checkpoint.

        Returns
        -------
        (dict, dict) or None
            What JSON can hold, and arrays by name, on the network's device or the host.  None is
            nothing.
        """
        return None

    def restore(self, numbers: dict[str, Any], arrays: dict[str, Array]) -> None:
        """Take back what `state` gave; the arrays are on the network's device."""


class CallbackState(NamedTuple):
    """The state of a callback of that class, in a checkpoint."""

    kind: str
    numbers: dict[str, Any]
    arrays: dict[str, Any]


def keep(callbacks: Iterable[Callback]) -> list[CallbackState]:
    """The states of those that have one."""
    states = ((type(callback).__name__, callback.state()) for callback in callbacks)
    return [CallbackState(kind, *state) for kind, state in states if state is not None]


def restore(
    states: Iterable[CallbackState], callbacks: Iterable[Callback], to_device: Callable
) -> None:
    """Each state to the callback of its class; of several, in their order."""
    waiting = list(callbacks)
    for kind, numbers, arrays in states:
        i = next((i for i, one in enumerate(waiting) if type(one).__name__ == kind), None)
        if i is None:
            warnings.warn(
                f"the checkpoint holds the state of a callback {kind}, and the resumed fit has "
                "none: it goes on without",
                RuntimeWarning,
                stacklevel=4,  # whoever called fit
            )
        else:
            owner = waiting.pop(i)
            owner.restore(numbers, {name: to_device(array) for name, array in arrays.items()})


class EarlyStopping(Callback):
    """Early stopping ends a network's training when a loss no longer falls.

    Each network stops when `monitor` has not fallen by more than `delta` for `patience` epochs, and
    gets the weights of its best epoch back at the end of the fit.

    Parameters
    ----------
    patience : int, default 10
        Epochs to wait, 1 or more.
    delta : float, default 0
        By how much an epoch has to be better than the best, at least 0.
    monitor : {None, "loss", "val_loss", "val_accuracy"}, default None
        What is watched; "val_accuracy" has to rise.  None takes the validation loss if there is a
        validation set, else the training loss.
    restore_best : bool, default True
        Whether the weights of the best epoch are restored.

    Attributes
    ----------
    best : float or (M,) array
        The best value of the monitor, of each network.
    best_epoch : int or (M,) array
        Its epoch, from 1; 0 before there was one.

    Raises
    ------
    ValueError
        For a number that is out of range, and for another monitor.

    Notes
    -----
    A second fit of the same trainer goes on with the best seen so far.
    """

    _file_arguments = ("patience", "delta", "monitor", "restore_best")

    def __init__(
        self,
        patience: int = 10,
        delta: float = 0.0,
        monitor: str | None = None,
        restore_best: bool = True,
    ) -> None:
        self.patience = checks.number(patience, "patience", checks.COUNT)
        self.delta = checks.number(delta, "delta", checks.NONNEGATIVE)
        self.monitor = checks.choice(monitor, "monitor", (None, "loss", "val_loss", "val_accuracy"))
        self.restore_best = checks.flag(restore_best, "restore_best")
        self._trainer: Any = None
        self._best: Any = None
        self._theta: Any = None

    @property
    def best(self) -> float | np.ndarray:
        """The best value of the monitor: a number, or (M,) for a stack."""
        sign = -1 if self.monitor == "val_accuracy" else 1
        return _public(sign * self._best, self._stacked)

    @property
    def best_epoch(self) -> int | np.ndarray:
        """The epoch of the best value, from 1: a number, or (M,) for a stack."""
        return _public(self._best_epoch, self._stacked)

    def __getstate__(self) -> dict[str, Any]:
        # Pickled as an estimator's parameter, for example: without the trainer, and without what it
        # may hold on a GPU.
        return vars(self) | {"_trainer": None, "_theta": None}

    def on_fit_begin(self, trainer: Trainer, history: History) -> None:
        models = trainer.net.M
        self._stacked = trainer.net.models is not None
        # What was best in another training says nothing about this one.
        if self._trainer is None or self._trainer() is not trainer:
            self._trainer = weakref.ref(trainer)
            self._best = np.full(models, np.inf)
            self._best_epoch = np.zeros(models, np.int64)
            self._theta = None
        self._waited = np.zeros(models, np.int64)
        self._running = np.ones(models, bool)

    def on_epoch_end(self, trainer: Trainer, history: History) -> None:
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
            _copy(trainer.net, buffer, self._theta, better)
        self._best = np.where(better, value, self._best)
        self._best_epoch = np.where(better, history.epochs, self._best_epoch)
        self._waited = np.where(better, 0, self._waited + 1)
        full = self._running & (self._waited >= self.patience)
        if full.any():
            self._running &= ~full
            trainer.stop(full)

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        if self.restore_best and self._theta is not None:
            net = trainer.net
            _copy(net, self._theta, net.parameters.buffer, self._best_epoch > 0)

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        numbers = {
            "best": self._best.tolist(),
            "best_epoch": self._best_epoch.tolist(),
            "waited": self._waited.tolist(),
            "running": self._running.tolist(),
        }
        return numbers, {} if self._theta is None else {"theta": self._theta}

    def restore(self, numbers: dict[str, Any], arrays: dict[str, Array]) -> None:
        place, models = "the state of EarlyStopping", len(self._running)
        check(numbers, STATE, place)
        for name, values in numbers.items():
            if len(values) != models:
                raise ValueError(f"{place}: {name} has {len(values)} values of {models} networks")
        theta, now = arrays.get("theta"), self._trainer().net.parameters.buffer
        if theta is not None and (theta.shape, theta.dtype) != (now.shape, now.dtype):
            raise ValueError(
                f"{place}: theta is {theta.dtype} {theta.shape}, not {now.dtype} {now.shape}"
            )
        self._best = np.array(numbers["best"], dtype=np.float64)
        self._best_epoch = np.array(numbers["best_epoch"], dtype=np.int64)
        self._waited = np.array(numbers["waited"], dtype=np.int64)
        self._running = np.array(numbers["running"], dtype=bool)
        self._theta = None if theta is None else theta.copy()  # it will be written to


def _copy(net: MLP, source: Array, target: Array, members: np.ndarray) -> None:
    """target[m] <- source[m] (M, P) of the networks where members (M,) is true, all at once."""
    if members.any():
        net.ops.xp.copyto(target, source, where=net.ops.to_device(members)[:, None])


def _public(values: np.ndarray, stacked: bool) -> Any:
    return values if stacked else values[0]


def listed(callbacks: Callback | Iterable[Callback] | None) -> list[Callback]:
    """The callbacks; a single one may be given without a list, and None is none."""
    if callbacks is None:
        return []
    if isinstance(callbacks, Callback):
        return [callbacks]
    several = checks.items(callbacks)
    for callback in [callbacks] if several is None else several:
        if not isinstance(callback, Callback):
            raise checks.ParameterError(
                f"callbacks holds {checks.shown(callback)}; they must be objects of gpumlp.Callback"
            )
    return several or []
