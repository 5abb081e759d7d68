"""The optimisers: laws by which (14) and (15) and their descendants move the parameters.

Every hyperparameter is a number, or one for each of M networks.  L2 enters as (14) prints it, with
λ = l2; L1 as (14'); both act on the weights W only, never on biases or learned slopes.

    SGD      v ← μ v − α g;  θ ← θ + v     (Nesterov: θ ← θ + μ v − α g)
    RMSprop  s ← ρ s + (1 − ρ) g²;  u ← μ u − α g / (√(s − c²) + ε);  θ ← θ + u
             (centred: c ← ρ c + (1 − ρ) g, else c = 0)
    Adam     m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;  θ ← θ − a m / (√v + e)
             a = α √(1 − β₂ᵗ) / (1 − β₁ᵗ),  e = ε √(1 − β₂ᵗ)
    AdamW    W ← (1 − α λ_w) W, then Adam

The operation `update` of each backend carries them out, over the flat buffer of all layers.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from gpumlp.utils import checks

# The columns of the array (M, len(HYPERS)) that the kernels read; kernels/shared/laws.cuh uses the
# names.
HYPERS = (
    "LR L1 L2 WEIGHT_DECAY MOMENTUM NESTEROV BETA1 REST1 LOG_BETA1 BETA2 REST2 LOG_BETA2 "
    "EPSILON EPSILON_CORRECTED CLIP_NORM DECAY_PER_WEIGHT"
).split()


class Optimizer:
    """A family of laws (`family` names the operation), its numbers and its state buffers.

    decay_per_weight: penalties are divided by the sum of the batch's sample weights, which is
    scikit-learn's meaning of alpha; else they stand as in (14).
    """

    family: ClassVar[str]
    decay_per_weight: bool = False
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

    def __post_init__(self):
        for f in fields(self):  # type: ignore[arg-type]
            value, name = getattr(self, f.name), f"{type(self).__name__}: {f.name}"
            if f.name in self.intervals:
                numbers = checks.per_network(value, name, self.intervals[f.name])
                if not (numbers.ndim or isinstance(value, int | float)):
                    object.__setattr__(self, f.name, numbers.item())
            else:
                checks.flag(value, name)

    def columns(self) -> dict[str, object]:
        """The hyperparameters under the names of HYPERS."""
        raise NotImplementedError

    def state_buffers(self) -> dict[str, bool]:
        """The state buffers of the law, in its order, and which of them are in use."""
        raise NotImplementedError

    def hyper(self, models: int, clip_norm=None) -> np.ndarray:
        """The numbers as the kernels read them: (M, len(HYPERS)) float64; clip_norm: 0 is none."""
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

    def state(self) -> dict:
        """The constructor's arguments, for files."""
        return {
            f.name: np.asarray(getattr(self, f.name)).tolist()
            for f in fields(self)  # type: ignore
        }


def _betas(number, beta) -> dict[str, object]:
    beta = np.asarray(beta, dtype=np.float64)
    with np.errstate(divide="ignore"):  # beta = 0: log 0 = -inf gives 1 - 0^t = 1
        log_beta = np.log(beta)
    return {f"BETA{number}": beta, f"REST{number}": 1 - beta, f"LOG_BETA{number}": log_beta}


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent, (14) and (15), with momentum or Nesterov's momentum."""

    lr: float = 1e-2
    momentum: float = 0.0
    nesterov: bool = False
    l1: float = 0.0
    l2: float = 0.0
    decay_per_weight: bool = False

    family: ClassVar[str] = "sgd"

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


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """RMSprop (Hinton 2012), in PyTorch's form; rho is its alpha."""

    lr: float = 1e-2
    rho: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False
    l1: float = 0.0
    l2: float = 0.0
    decay_per_weight: bool = False

    family: ClassVar[str] = "rmsprop"

    def columns(self):
        return {
            "LR": self.lr,
            "L1": self.l1,
            "L2": self.l2,
            "MOMENTUM": self.momentum,
            "EPSILON": self.eps,
            **_betas(2, self.rho),
        }

    def state_buffers(self):
        momentum = bool(np.any(np.asarray(self.momentum) > 0))
        return {"square": True, "velocity": momentum, "centre": self.centered}


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015).

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

    family: ClassVar[str] = "adam"

    def columns(self):
        return {
            "LR": self.lr,
            "L1": self.l1,
            "L2": self.l2,
            "EPSILON": self.eps,
            "EPSILON_CORRECTED": float(self.eps_corrected),
            **_betas(1, self.beta1),
            **_betas(2, self.beta2),
        }

    def state_buffers(self):
        return {"first": True, "second": True}


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), on the weights W only."""

    weight_decay: float = 1e-2

    def columns(self):
        return super().columns() | {"WEIGHT_DECAY": self.weight_decay}


optimizers = {cls.__name__: cls for cls in (SGD, RMSprop, Adam, AdamW)}
