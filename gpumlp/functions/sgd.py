"""Stochastic gradient descent, with momentum or Nesterov's momentum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gpumlp.functions.optimizer_base import Optimizer
from gpumlp.utils import checks

if TYPE_CHECKING:
    from gpumlp.utils.aliases import PerNetwork


@dataclass(frozen=True)
class SGD(Optimizer):
    """SGD descends along the gradient, (14) and (15), with momentum or Nesterov's momentum.

    v ← μ v − α g;  θ ← θ + v     (Nesterov: θ ← θ + μ v − α g)

    Each number may be one for all networks of a stack, or one for each of them, (M,).

    Parameters
    ----------
    lr : float or (M,) array, default 0.01
        The learning rate α; 0 or more.
    momentum : float or (M,) array, default 0
        μ, in [0, 1); 0 is none.
    nesterov : bool, default False
        Whether the momentum is Nesterov's.
    l1 : float or (M,) array, default 0
        The L1 penalty λ₁ ‖W‖₁, (14').
    l2 : float or (M,) array, default 0
        The L2 penalty ½ λ ‖W‖², (14).
    decay_per_weight : bool, default False
        Whether penalties are divided by the sum of the batch's sample weights.
    lazy : bool, default False
        Whether, of a network with sparse=True, only the weights W[1][:, j] of features j that occur
        in the batch move, with their v and their penalties.  Else the weights of absent features
        move by momentum and penalties, and each update takes the time of all.

    Raises
    ------
    ValueError
        For a number that is out of range, and for `nesterov` without momentum.
    """

    lr: PerNetwork = 1e-2
    momentum: PerNetwork = 0.0
    nesterov: bool = False
    l1: PerNetwork = 0.0
    l2: PerNetwork = 0.0
    decay_per_weight: bool = False
    lazy: bool = field(default=False, kw_only=True)

    family: ClassVar = "SGD"
    examples: ClassVar = {
        "": {"l1": 0.1, "l2": 0.5},
        "momentum": {"momentum": 0.9, "l2": 0.5},
        "Nesterov": {"momentum": 0.9, "nesterov": True},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and not np.all(np.asarray(self.momentum) > 0):
            raise checks.ParameterError(
                f"SGD: nesterov = True needs momentum above 0, not {checks.shown(self.momentum)}"
            )

    def columns(self) -> dict[str, Any]:
        return {
            "LR": self.lr,
            "L1": self.l1,
            "L2": self.l2,
            "MOMENTUM": self.momentum,
            "NESTEROV": float(self.nesterov),
        }

    def state_buffers(self) -> dict[str, bool]:
        return {"velocity": bool(np.any(np.asarray(self.momentum) > 0))}

    @staticmethod
    def update_rule(
        theta: np.ndarray,
        g: np.ndarray,
        state: Sequence[Any],
        h: dict[str, Any],
        lr: float | np.ndarray,
        t: int,
    ) -> None:
        (velocity,) = state
        g *= lr
        if velocity is None:
            theta -= g  # (14)(15)
            return
        velocity *= h["MOMENTUM"]
        velocity -= g
        if h["NESTEROV"]:
            theta += h["MOMENTUM"] * velocity
            theta -= g
        else:
            theta += velocity
