"""Stochastic gradient descent, with momentum or Nesterov's momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gpumlp.functions.optimizer_base import Optimizer
from gpumlp.utils import checks


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent, (14) and (15), with momentum or Nesterov's momentum.

    v ← μ v − α g;  θ ← θ + v     (Nesterov: θ ← θ + μ v − α g)
    """

    lr: float = 1e-2
    momentum: float = 0.0
    nesterov: bool = False
    l1: float = 0.0
    l2: float = 0.0
    decay_per_weight: bool = False

    family: ClassVar = "SGD"
    examples: ClassVar = {
        "": {"l1": 0.1, "l2": 0.5},
        "momentum": {"momentum": 0.9, "l2": 0.5},
        "Nesterov": {"momentum": 0.9, "nesterov": True},
    }

    def __post_init__(self):
        super().__post_init__()
        if self.nesterov and not np.all(np.asarray(self.momentum) > 0):
            raise checks.ParameterError(
                f"SGD: nesterov = True needs momentum above 0, not {checks.shown(self.momentum)}"
            )

    def columns(self):
        return {
            "LR": self.lr,
            "L1": self.l1,
            "L2": self.l2,
            "MOMENTUM": self.momentum,
            "NESTEROV": float(self.nesterov),
        }

    def state_buffers(self):
        return {"velocity": bool(np.any(np.asarray(self.momentum) > 0))}

    @staticmethod
    def update_rule(theta, g, state, h, lr, t):
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
