"""What all optimisers share: their numbers as the kernels read them, checks, and what a rule is.

Every hyperparameter is a number, or one for each of M networks.  L2 enters the gradient g as (14)
prints it, with λ = l2; L1 as (14'); both act on the weights W only, never on biases or learned
slopes.  So does weight decay, W ← (1 − α λ_w) W, which comes before the update rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gpumlp.utils import checks

if TYPE_CHECKING:
    from gpumlp.utils.aliases import PerNetwork

# The columns of the array (M, len(HYPERS)) that the kernels read, by these names.
HYPERS = (
    "LR L1 L2 WEIGHT_DECAY MOMENTUM NESTEROV BETA1 REST1 LOG_BETA1 BETA2 REST2 LOG_BETA2 "
    "EPSILON EPSILON_CORRECTED CLIP_NORM DECAY_PER_WEIGHT"
).split()


class Optimizer:
    """An optimiser has an update rule, its numbers and its state buffers.

    A subclass is a frozen dataclass of numbers and flags with a file of its own here, an equation
    in its docstring, and a struct of the same rule in kernels/shared/.

    Attributes
    ----------
    family : str
        The update rule: the struct <family> of kernels/shared/<family in lower case>.cuh.
    examples : dict
        What it is called -> arguments of an optimiser, one for each set of state buffers and each
        branch of the rule; the self-check and the tests run them.
    intervals : dict
        The numbers that are allowed.
    decay_per_weight : bool
        Whether penalties are divided by the sum of the batch's sample weights, which is
        scikit-learn's meaning of alpha; else they stand as in (14).
    lazy : bool
        Whether, of a network with sparse=True, only the weights in W[1] of features that occur in
        the batch move, with their state; the others' gradient is 0.
    """

    family: ClassVar[str]
    examples: ClassVar[dict[str, dict[str, Any]]]
    decay_per_weight: bool = False
    lazy: bool = False
    intervals: ClassVar[dict[str, checks.Interval]] = {
        "lr": checks.NONNEGATIVE,
        "l1": checks.NONNEGATIVE,
        "l2": checks.NONNEGATIVE,
        "momentum": checks.FRACTION,
        "rho": checks.FRACTION,
        "beta1": checks.FRACTION,
        "beta2": checks.FRACTION,
        # e = ε √(1 − β₂ᵗ) stays a normal float32, which GPUs do not flush
        "eps": checks.Interval(1e-30, np.inf, "[)"),
        "weight_decay": checks.NONNEGATIVE,
    }

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]
            value, name = getattr(self, f.name), f"{type(self).__name__}: {f.name}"
            if f.name in self.intervals:
                numbers = checks.per_network(value, name, self.intervals[f.name])
                if not (numbers.ndim or isinstance(value, int | float)):
                    object.__setattr__(self, f.name, numbers.item())
            else:
                checks.flag(value, name)

    def columns(self) -> dict[str, Any]:
        """The hyperparameters under the names of HYPERS."""
        raise NotImplementedError

    def state_buffers(self) -> dict[str, bool]:
        """The state buffers of the rule, in its order, and which of them are in use."""
        raise NotImplementedError

    @staticmethod
    def update_rule(
        theta: np.ndarray,
        g: np.ndarray,
        state: Sequence[Any],
        h: dict[str, Any],
        lr: float | np.ndarray,
        t: int,
    ) -> None:
        """Move parameters of one network in NumPy, in place: the reference of the kernels.

        Parameters
        ----------
        theta, g : (P,) arrays
            The parameters, after weight decay, and their clipped gradient with its penalties, which
            may be overwritten.
        state : list of (P,) arrays
            The state buffers; None where one is not in use.
        h : dict
            The network's numbers by the names of HYPERS.
        lr : float or (P,) array
            The learning rate of this step, with the schedule's factor and that of each slice.
        t : int
            The number of this update, from 1.
        """
        raise NotImplementedError

    def hyper(self, models: int, clip_norm: PerNetwork | None = None) -> np.ndarray:
        """The numbers of M networks as the kernels read them.

        Parameters
        ----------
        models : int
            M.
        clip_norm : float or (M,) array, optional
            The longest gradient; 0 or None is no limit.

        Returns
        -------
        ndarray of float64, (M, len(HYPERS))

        Raises
        ------
        ValueError
            For numbers that are not one, nor M.
        """
        for name in self.intervals.keys() & {f.name for f in fields(self)}:  # type: ignore[arg-type]
            place = f"{type(self).__name__}: {name}"
            checks.per_network(getattr(self, name), place, self.intervals[name], models)
        columns: dict[str, Any] = self.columns() | {
            "CLIP_NORM": 0.0 if clip_norm is None else clip_norm,
            "DECAY_PER_WEIGHT": float(self.decay_per_weight),
        }
        table = np.zeros((models, len(HYPERS)))
        for name, values in columns.items():
            table[:, HYPERS.index(name)] = values
        return table

    def state(self) -> dict[str, Any]:
        """The constructor's arguments, for files."""
        return {
            f.name: np.asarray(getattr(self, f.name)).tolist()
            for f in fields(self)  # type: ignore
        }


def betas(number: int, beta: PerNetwork) -> dict[str, Any]:
    """The columns of β_number: itself, 1 − β and log β."""
    beta = np.asarray(beta, dtype=np.float64)
    with np.errstate(divide="ignore"):  # beta = 0: log 0 = -inf gives 1 - 0^t = 1
        log_beta = np.log(beta)
    return {f"BETA{number}": beta, f"REST{number}": 1 - beta, f"LOG_BETA{number}": log_beta}
