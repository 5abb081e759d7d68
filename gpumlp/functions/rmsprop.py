"""RMSprop: steps divided by a running root mean square of the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gpumlp.functions.optimizer_base import Optimizer, betas

if TYPE_CHECKING:
    from gpumlp.utils.aliases import PerNetwork


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """RMSprop divides the gradient by its running root mean square (Hinton 2012; PyTorch's form).

    s ← ρ s + (1 − ρ) g²;  u ← μ u − α g / (√(s − c²) + ε);  θ ← θ + u
    (centred: c ← ρ c + (1 − ρ) g, else c = 0)

    Each number may be one for all networks of a stack, or one for each of them, (M,).

    Parameters
    ----------
    lr : float or (M,) array, default 0.01
        The learning rate α; 0 or more.
    rho : float or (M,) array, default 0.99
        ρ, PyTorch's alpha, in [0, 1).
    eps : float or (M,) array, default 1e-8
        ε, at least 1e-30.
    momentum : float or (M,) array, default 0
        μ, in [0, 1); 0 is none.
    centered : bool, default False
        Whether the mean gradient is subtracted: the square is then the variance.
    l1 : float or (M,) array, default 0
        The L1 penalty λ₁ ‖W‖₁, (14').
    l2 : float or (M,) array, default 0
        The L2 penalty ½ λ ‖W‖², (14).
    decay_per_weight : bool, default False
        Whether penalties are divided by the sum of the batch's sample weights.

    Raises
    ------
    ValueError
        For a number that is out of range.
    """

    lr: PerNetwork = 1e-2
    rho: PerNetwork = 0.99
    eps: PerNetwork = 1e-8
    momentum: PerNetwork = 0.0
    centered: bool = False
    l1: PerNetwork = 0.0
    l2: PerNetwork = 0.0
    decay_per_weight: bool = False

    family: ClassVar = "RMSprop"
    examples: ClassVar = {
        "": {"eps": 1e-3, "l2": 0.5},
        "momentum": {"eps": 1e-2, "momentum": 0.9},
        "centred": {"eps": 1e-2, "momentum": 0.5, "centered": True},
    }

    def columns(self) -> dict[str, Any]:
        return {
            "LR": self.lr,
            "L1": self.l1,
            "L2": self.l2,
            "MOMENTUM": self.momentum,
            "EPSILON": self.eps,
            **betas(2, self.rho),
        }

    def state_buffers(self) -> dict[str, bool]:
        momentum = bool(np.any(np.asarray(self.momentum) > 0))
        return {"square": True, "velocity": momentum, "centre": self.centered}

    @staticmethod
    def update_rule(
        theta: np.ndarray,
        g: np.ndarray,
        state: Sequence[Any],
        h: dict[str, Any],
        lr: float | np.ndarray,
        t: int,
    ) -> None:
        square, velocity, centre = state
        square *= h["BETA2"]
        square += h["REST2"] * g * g
        variance = square
        if centre is not None:
            centre *= h["BETA2"]
            centre += h["REST2"] * g
            variance = np.maximum(square - centre * centre, 0)
        g *= lr
        g /= np.sqrt(variance) + h["EPSILON"]
        if velocity is None:
            theta -= g
        else:
            velocity *= h["MOMENTUM"]
            velocity -= g
            theta += velocity
