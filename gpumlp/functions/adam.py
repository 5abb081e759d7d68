"""Adam, and AdamW, which is Adam with decoupled weight decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gpumlp.functions.optimizer_base import Optimizer, betas


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015).

    m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;  θ ← θ − a m / (√v + e)
    a = α √(1 − β₂ᵗ) / (1 − β₁ᵗ)

    eps_corrected: e = ε √(1 − β₂ᵗ), as in the paper's algorithm and PyTorch; else e = ε, as in the
    paper's remark and scikit-learn.
    """

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    l1: float = 0.0
    l2: float = 0.0
    eps_corrected: bool = True
    decay_per_weight: bool = False

    family: ClassVar = "Adam"
    examples: ClassVar = {
        "": {"eps": 1e-3, "l2": 0.5},
        "plain epsilon": {"eps": 1e-2, "eps_corrected": False},
    }

    def columns(self):
        return {
            "LR": self.lr,
            "L1": self.l1,
            "L2": self.l2,
            "EPSILON": self.eps,
            "EPSILON_CORRECTED": float(self.eps_corrected),
            **betas(1, self.beta1),
            **betas(2, self.beta2),
        }

    def state_buffers(self):
        return {"first": True, "second": True}

    @staticmethod
    def update_rule(theta, g, state, h, lr, t):
        m, v = state
        root = np.sqrt(-np.expm1(t * h["LOG_BETA2"])).item()
        a = lr * root / -np.expm1(t * h["LOG_BETA1"]).item()
        e = h["EPSILON"] * (root if h["EPSILON_CORRECTED"] else 1)
        m *= h["BETA1"]
        m += h["REST1"] * g
        v *= h["BETA2"]
        g *= g
        g *= h["REST2"]
        v += g
        np.sqrt(v, out=g)
        g += e
        np.divide(m, g, out=g)
        g *= a
        theta -= g


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), on the weights W only.

    W ← (1 − α λ_w) W, then Adam
    """

    weight_decay: float = 1e-2

    examples: ClassVar = {"": {"eps": 1e-3, "weight_decay": 0.5}}

    def columns(self):
        return super().columns() | {"WEIGHT_DECAY": self.weight_decay}
