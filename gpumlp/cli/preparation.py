"""How samples become the input of a network of arrays, and its output labels or values.

Fitted on the training part alone and stored with the network as plain JSON, so that prediction
prepares its samples as training did.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from gpumlp.cli.columns import Columns
from gpumlp.cli.data import Samples
from gpumlp.cli.error import InputError


def _empty() -> np.ndarray:
    return np.zeros(0)


@dataclasses.dataclass(frozen=True)
class Standardised:
    """x is standardised with mean and deviation, each (features,).

    Classification: `classes` holds the label of each output; y_mean and y_deviation are empty.
    Regression: `classes` is None, and the network works on values standardised with y_mean and
    y_deviation, each (targets,). columns: of a table that version 0.1.0 trained on.
    """

    mean: np.ndarray
    deviation: np.ndarray
    classes: np.ndarray | None = None
    y_mean: np.ndarray = dataclasses.field(default_factory=_empty)
    y_deviation: np.ndarray = dataclasses.field(default_factory=_empty)
    columns: Columns | None = None

    @classmethod
    def fit(cls, samples: Samples) -> Standardised:
        mean, deviation = moments(samples.x, f"X of {samples.name}", samples.one_scale)
        if samples.classes is not None:
            return cls(mean, deviation, classes=samples.classes)
        y_mean, y_deviation = moments(samples.y, f"y of {samples.name}")
        return cls(mean, deviation, y_mean=y_mean, y_deviation=y_deviation)

    @property
    def outputs(self) -> int:
        """How many units the network's last layer has."""
        return len(self.y_mean if self.classes is None else self.classes)

    def inputs(self, x: Any, dtype: str, what: str = "X") -> np.ndarray:
        """The network's input for features x (samples, features), or for a frame.

        what: to call x in a complaint.
        """
        if self.columns is not None:
            return self.columns.inputs(x, self.mean, self.deviation, dtype, what)
        return _standardised(x, self.mean, self.deviation, dtype, what)

    def targets(self, y: np.ndarray, dtype: str, what: str = "y") -> np.ndarray:
        """What the network is to give for y: class numbers, or standardised values.

        what: to call y in a complaint.
        """
        if self.classes is not None:
            return np.searchsorted(self.classes, y)
        return _standardised(y, self.y_mean, self.y_deviation, dtype, what)

    def values(self, output: np.ndarray) -> np.ndarray:
        """The predicted values (samples, targets) for a network's output."""
        return output.astype(np.float64) * self.y_deviation + self.y_mean

    def metadata(self) -> dict:
        """This as JSON values."""
        return {
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
            "classes": None if self.classes is None else self.classes.tolist(),
            "classes_dtype": None if self.classes is None else self.classes.dtype.str,
            "y_mean": self.y_mean.tolist(),
            "y_deviation": self.y_deviation.tolist(),
        }

    @classmethod
    def from_metadata(cls, stored: dict, features: int, outputs: int) -> Standardised:
        """What metadata() stored, for a network with so many inputs and outputs."""
        try:
            classes = stored["classes"]
            if classes is not None:
                classes = np.array(classes, dtype=stored["classes_dtype"])
                if classes.dtype.kind not in "biufU":
                    raise ValueError(f"classes of dtype {classes.dtype}")
            columns = stored.get("columns")
            if columns is not None:
                columns = Columns.from_metadata(columns)
            targets = outputs if classes is None else 0
            sizes = {
                "mean": features,
                "deviation": features,
                "y_mean": targets,
                "y_deviation": targets,
            }
            numbers = {name: np.array(stored[name], dtype=np.float64) for name in sizes}
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"the model's preparation cannot be read ({error!r})") from error
        fits = all(numbers[name].shape == (size,) for name, size in sizes.items())
        fits = fits and (columns is None or columns.width == features)
        if not fits or (classes is not None and classes.shape != (outputs,)):
            raise InputError("the model's preparation does not fit its network")
        finite = all(np.isfinite(values).all() for values in numbers.values())
        if not finite or (numbers["deviation"] <= 0).any() or (numbers["y_deviation"] <= 0).any():
            raise InputError("the model's preparation is not made of usable numbers")
        return cls(classes=classes, columns=columns, **numbers)


def moments(values: np.ndarray, what: str, one_scale: bool = False):
    """Mean and deviation of each column; a constant column has deviation 1.

    one_scale: every column gets the same deviation, the root of the mean variance, so that a pixel
    that is hardly ever inked is not blown up by a deviation of its own.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = values.mean(axis=0), values.std(axis=0)
        if one_scale:
            deviation = np.full_like(deviation, np.sqrt((deviation**2).mean()))
    if not (np.isfinite(mean).all() and np.isfinite(deviation).all()):
        raise InputError(f"the numbers in {what} are too large for their mean and deviation")
    # Rounding can leave a constant column a deviation that is tiny instead of 0.
    constant = deviation <= 1e-12 * np.abs(mean)
    return mean, np.where(constant, 1.0, deviation)


def _standardised(values, mean, deviation, dtype: str, what: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        standardised = ((values - mean) / deviation).astype(dtype)
    bad = np.argwhere(~np.isfinite(standardised))
    if len(bad):
        # The row is not said: that of a part of the samples is not that of the file.
        raise InputError(
            f"{what} has {values[tuple(bad[0])]:g} in column {bad[0][1]}, which is too far from "
            f"the training part's numbers for {dtype}"
        )
    return standardised
