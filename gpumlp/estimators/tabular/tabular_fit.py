"""A fit of an estimator for tables that is under way: what a checkpoint holds of it."""

from __future__ import annotations

import copy
import dataclasses
import time
from typing import Any

import numpy as np

from gpumlp.estimators.tabular.stored_stack import StoredStack
from gpumlp.training.history import History
from gpumlp.training.trainer import Trainer
from gpumlp.utils.checks import shown

SHOWN = 5  # features in a message

# The parameters that may be others when a fit goes on; of the device its trainer knows.
FREE = ("callbacks", "device", "random_state", "time_limit", "verbose")


def parameters_of(est: Any) -> dict[str, Any]:
    """The parameters as they are now, whatever becomes of a dictionary or list among them."""
    parameters = est.get_params(deep=False)
    return {
        name: copy.deepcopy(value) if isinstance(value, dict | list | np.ndarray) else value
        for name, value in parameters.items()
    }


def _same(a: Any, b: Any) -> bool:
    """Whether two values of a parameter mean the same."""
    if a is b or repr(a) == repr(b):
        return True
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, bool | np.bool_) != isinstance(b, bool | np.bool_):
        return False
    for meaning in (np.dtype, np.asarray):  # "float32" and np.float32; 8 and np.int64(8), (8,)
        try:
            return bool(np.array_equal(meaning(a), meaning(b)))
        except (TypeError, ValueError):
            continue
    return False


@dataclasses.dataclass
class TabularFit:
    """What a fit has come to.

    est: the estimator, without what its fit will leave.
    parameters: those of est when the fit began.
    begin: when the fit began, by time.monotonic(); of what a checkpoint held, before 0.
    seed: (4,), of all draws.
    rng: the generator, after the draws for folds and the stacks so far.
    rows, features, classes, validated: how many rows it trains on, the names of the prepared
        features, the classes or None, and whether there is a validation set.
    stacks, histories, best_epochs: of the stacks that are trained.
    trainer: of the one that is being trained.
    """

    est: Any
    parameters: dict[str, Any]
    begin: float
    seed: np.ndarray
    rng: np.random.Generator | None = None
    rows: int = 0
    features: list[str] = dataclasses.field(default_factory=list)
    classes: Any = None
    validated: bool = False
    stacks: list[StoredStack] = dataclasses.field(default_factory=list)
    histories: list[History] = dataclasses.field(default_factory=list)
    best_epochs: list[np.ndarray] = dataclasses.field(default_factory=list)
    trainer: Trainer | None = None

    stores_trainer = True  # see `Checkpoint`

    def going_on(self, est: Any, begin: float) -> TabularFit:
        """What a checkpoint held as a fit of est, which goes on at begin."""
        return dataclasses.replace(self, est=est, begin=begin + self.begin)

    @property
    def seconds(self) -> float:
        """That it has taken."""
        return time.monotonic() - self.begin

    @property
    def resumable(self) -> bool:
        """Whether it is as it was in the checkpoint; its trainer changes when it goes on."""
        return self.trainer is not None and self.trainer.unfinished is not None

    def take(self, rows: int, features: list[str], validated: bool, device: str) -> None:
        """Note what it is trained on; raises ValueError where a fit that goes on had something
        else."""
        classes = getattr(self.est, "classes_", None)
        if self.trainer is not None:
            self._check_parameters(device, self.trainer.net.device)
            self._check_samples(rows, features, classes, validated)
        self.rows, self.features, self.classes = rows, features, classes
        self.validated = validated

    def _check_parameters(self, device: str, had_device: str) -> None:
        for name, value in parameters_of(self.est).items():
            had = self.parameters[name]
            if name not in FREE and not _same(value, had):
                raise ValueError(
                    f"{name} = {shown(value)}, and the fit to be resumed had {shown(had)}: give "
                    "the same parameters"
                )
        if device != had_device:
            raise ValueError(
                f"device = {shown(self.est.device)}, and the fit to be resumed is on {had_device}: "
                "gpumlp.resume takes another device"
            )

    def _check_samples(self, rows: int, features: list[str], classes: Any, validated: bool) -> None:
        if rows != self.rows:
            raise ValueError(
                f"the fit to be resumed trained on {self.rows} rows, and these are {rows}: give "
                "the same X and y"
            )
        if classes is not None and not np.array_equal(classes, self.classes):
            raise ValueError(
                f"the fit to be resumed had the classes {shown(self.classes)}, and y has "
                f"{shown(classes)}: give the same y"
            )
        if features != self.features:
            others = ", ".join(sorted(set(features) ^ set(self.features))[:SHOWN])
            raise ValueError(
                "X has other columns, or other categories in them, than that of the fit to be "
                f"resumed, by its features {others}: give the same X"
            )
        if validated != self.validated:
            had = "a validation set" if self.validated else "no validation set"
            raise ValueError(f"the fit to be resumed had {had}: give the same X_val and y_val")

    def _to_file(self, fit: bool) -> tuple[Any, TabularFit]:
        """For `gpumlp.save`."""
        return self.est, self
