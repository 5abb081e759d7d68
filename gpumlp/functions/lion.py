"""Lion: steps by the sign of the interpolated momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gpumlp.functions.optimizer_base import Optimizer, betas


@dataclass(frozen=True)
class Lion(Optimizer):
    """Lion (Chen et al. 2023), with decoupled weight decay on the weights W only.

    W ← (1 − α λ_w) W;  u = sign(β₁ m + (1 − β₁) g);  θ ← θ − α u;  m ← β₂ m + (1 − β₂) g
    """

    lr: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    decay_per_weight: bool = False

    family: ClassVar = "Lion"
    examples: ClassVar = {"": {"weight_decay": 0.5, "l2": 0.5}}

    def columns(self):
        return {
            "LR": self.lr,
            "L1": self.l1,
            "L2": self.l2,
            "WEIGHT_DECAY": self.weight_decay,
            **betas(1, self.beta1),
            **betas(2, self.beta2),
        }

    def state_buffers(self):
        return {"average": True}

    @staticmethod
    def update_rule(theta, g, state, h, lr, t):
        (m,) = state
        u = h["BETA1"] * m
        u += h["REST1"] * g
        theta -= lr * np.sign(u)
        m *= h["BETA2"]
        m += h["REST2"] * g
