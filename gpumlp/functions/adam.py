"""Adam, and AdamW, which is Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gpumlp.functions.optimizer_base import Optimizer, betas

if TYPE_CHECKING:
    from gpumlp.utils.aliases import PerNetwork


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam divides the running mean of the gradient by its root mean square (Kingma and Ba 2015).

    m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;  θ ← θ − a m / (√v + e)
    a = α √(1 − β₂ᵗ) / (1 − β₁ᵗ)

    with e = ε √(1 − β₂ᵗ), or e = ε.  Each number may be one for all networks of a stack, or one for
    each of them, (M,).

    Parameters
    ----------
    lr : float or (M,) array, default 1e-3
        The learning rate α; 0 or more.
    beta1, beta2 : float or (M,) array, default 0.9 and 0.999
        The decay of the running means of g and g², in [0, 1).
    eps : float or (M,) array, default 1e-8
        ε, at least 1e-30.
    l1 : float or (M,) array, default 0
        The L1 penalty λ₁ ‖W‖₁, (14').
    l2 : float or (M,) array, default 0
        The L2 penalty ½ λ ‖W‖², (14).
    eps_corrected : bool, default True
        e = ε √(1 − β₂ᵗ), as in the paper's algorithm and PyTorch; else e = ε, as in the paper's
        remark and scikit-learn.
    decay_per_weight : bool, default False
        Whether penalties are divided by the sum of the batch's sample weights.
    lazy : bool, default False
        Whether, of a network with sparse=True, only the weights W[1][:, j] of features j that occur
        in the batch move, with their m and v and their penalties.  t counts all updates, as in
        PyTorch's SparseAdam.  Else the weights of absent features move by m and penalties, and each
        update takes the time of all.

    Raises
    ------
    ValueError
        For a number that is out of range.
    """

    lr: PerNetwork = 1e-3
    beta1: PerNetwork = 0.9
    beta2: PerNetwork = 0.999
    eps: PerNetwork = 1e-8
    l1: PerNetwork = 0.0
    l2: PerNetwork = 0.0
    eps_corrected: bool = True
    decay_per_weight: bool = False
    lazy: bool = field(default=False, kw_only=True)

    family: ClassVar = "Adam"
    examples: ClassVar = {
        "": {"eps": 1e-3, "l2": 0.5},
        "plain epsilon": {"eps": 1e-2, "eps_corrected": False},
    }

    def columns(self) -> dict[str, Any]:
        return {
            "LR": self.lr,
            "L1": self.l1,
            "L2": self.l2,
            "EPSILON": self.eps,
            "EPSILON_CORRECTED": float(self.eps_corrected),
            **betas(1, self.beta1),
            **betas(2, self.beta2),
        }

    def state_buffers(self) -> dict[str, bool]:
        return {"first": True, "second": True}

    @staticmethod
    def update_rule(
        theta: np.ndarray,
        g: np.ndarray,
        state: Sequence[Any],
        h: dict[str, Any],
        lr: float | np.ndarray,
        t: int,
    ) -> None:
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
    """AdamW is Adam with decoupled weight decay of the weights W (Loshchilov and Hutter 2019).

    W ← (1 − α λ_w) W, then Adam

    Parameters
    ----------
    lr, beta1, beta2, eps, l1, l2, eps_corrected, decay_per_weight, lazy
        As in `Adam`; with lazy, weight decay too is of the features that occur.
    weight_decay : float or (M,) array, default 0.01
        λ_w, 0 or more.

    Raises
    ------
    ValueError
        For a number that is out of range.
    """

    weight_decay: PerNetwork = 1e-2

    examples: ClassVar = {"": {"eps": 1e-3, "weight_decay": 0.5}}

    def columns(self) -> dict[str, Any]:
        return super().columns() | {"WEIGHT_DECAY": self.weight_decay}
