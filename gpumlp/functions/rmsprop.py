"""RMSprop: steps divided by a running root mean square of the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gpumlp.functions.optimizer_base import Optimizer, betas


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """RMSprop (Hinton 2012), in PyTorch's form; rho is its alpha.

    s ← ρ s + (1 − ρ) g²;  u ← μ u − α g / (√(s − c²) + ε);  θ ← θ + u
    (centred: c ← ρ c + (1 − ρ) g, else c = 0)
    """

    lr: float = 1e-2
    rho: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False
    l1: float = 0.0
    l2: float = 0.0
    decay_per_weight: bool = False

    family: ClassVar = "RMSprop"
    examples: ClassVar = {
        "": {"eps": 1e-3, "l2": 0.5},
        "momentum": {"eps": 1e-2, "momentum": 0.9},
        "centred": {"eps": 1e-2, "momentum": 0.5, "centered": True},
    }

    def columns(self):
        return {
            "LR": self.lr,
            "L1": self.l1,
            "L2": self.l2,
            "MOMENTUM": self.momentum,
            "EPSILON": self.eps,
            **betas(2, self.rho),
        }

    def state_buffers(self):
        momentum = bool(np.any(np.asarray(self.momentum) > 0))
        return {"square": True, "velocity": momentum, "centre": self.centered}

    @staticmethod
    def update_rule(theta, g, state, h, lr, t):
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
