"""Lion: steps by the sign of the interpolated momentum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gpumlp.functions.optimizer_base import Optimizer, betas

if TYPE_CHECKING:
    from gpumlp.utils.aliases import PerNetwork


@dataclass(frozen=True)
class Lion(Optimizer):
    """Lion moves by the sign of an interpolated momentum (Chen et al. 2023).

    W ← (1 − α λ_w) W;  u = sign(β₁ m + (1 − β₁) g);  θ ← θ − α u;  m ← β₂ m + (1 − β₂) g

    Each number may be one for all networks of a stack, or one for each of them, (M,).

    Parameters
    ----------
    lr : float or (M,) array, default 1e-4
        The learning rate α; 0 or more.
    beta1, beta2 : float or (M,) array, default 0.9 and 0.99
        β₁ of the step and β₂ of the momentum, in [0, 1).
    weight_decay : float or (M,) array, default 0
        λ_w of the decoupled decay, on the weights W only; 0 or more.
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

    lr: PerNetwork = 1e-4
    beta1: PerNetwork = 0.9
    beta2: PerNetwork = 0.99
    weight_decay: PerNetwork = 0.0
    l1: PerNetwork = 0.0
    l2: PerNetwork = 0.0
    decay_per_weight: bool = False

    family: ClassVar = "Lion"
    examples: ClassVar = {"": {"weight_decay": 0.5, "l2": 0.5}}

    def columns(self) -> dict[str, Any]:
        return {
            "LR": self.lr,
            "L1": self.l1,
            "L2": self.l2,
            "WEIGHT_DECAY": self.weight_decay,
            **betas(1, self.beta1),
            **betas(2, self.beta2),
        }

    def state_buffers(self) -> dict[str, bool]:
        return {"average": True}

    @staticmethod
    def update_rule(
        theta: np.ndarray,
        g: np.ndarray,
        state: Sequence[Any],
        h: dict[str, Any],
        lr: float | np.ndarray,
        t: int,
    ) -> None:
        (m,) = state
        u = h["BETA1"] * m
        u += h["REST1"] * g
        theta -= lr * np.sign(u)
        m *= h["BETA2"]
        m += h["REST2"] * g
