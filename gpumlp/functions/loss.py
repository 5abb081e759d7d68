"""Losses L(y, ŷ), equation (7), and their derivatives, from which δ^(K) follows.

A loss is a sum over the outputs j of l(ŷ_j, y_j).  It may be written in up to three variables u:

    "identity"  u = ŷ        any output
    "log"       u = log ŷ    where the network's output is e^z, softmax or log_softmax
    "logit"     u = logit ŷ  where it is a sigmoid

and the form that fits the output is used, with l and ∂l/∂u together and stable:

    output        form       δ^(K)
    exp           log        ∂l/∂u, as u = z
    sigmoid       logit      ∂l/∂u, as u = z
    softmax       log        q - p Σ q,  q = ∂l/∂u,  p = softmax(z), u = log p
    softmax       identity   q - p Σ q,  q = p ∂l/∂ŷ
    log_softmax   any        q - p Σ q,  q = ∂l/∂u,  u = ŷ = log p
    identity      identity   ∂l/∂ŷ
    any other     identity   f'(z) ∂l/∂ŷ, by the same pass as a hidden layer's (11)

The CUDA side of each form is a struct in kernels/shared/losses.cuh.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpumlp.functions.activation import Activation, sigmoid, softplus
from gpumlp.functions.function import Function
from gpumlp.utils import checks

if TYPE_CHECKING:
    from gpumlp.utils.aliases import Constants, LossLike


class Form(NamedTuple):
    """A form of a loss: l and ∂l/∂u, elementwise, in one variable u.

    Parameters
    ----------
    l : callable
        l(u, y, p) -> the loss of each output, an array of u's shape; p: the constants.
    dl : callable
        dl(u, y, p) -> ∂l/∂u, an array of u's shape.
    cuda : str or (str, str), optional
        The CUDA expressions for l and ∂l/∂u, in `u`, `y` and `p[0]`, ..., of type Real; or the
        name of a struct in kernels/shared/losses.cuh.  Without it, the form is for the CPU only.
    """

    l: Callable[[np.ndarray, np.ndarray, Constants], np.ndarray]  # noqa: E741
    dl: Callable[[np.ndarray, np.ndarray, Constants], np.ndarray]
    cuda: str | tuple[str, str] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Loss(Function):
    """A loss L(y, ŷ) = Σ_j l(ŷ_j, y_j), (7), in up to three forms, with its constants.

    `gpumlp.losses` holds the built-in ones by their names; calling one gives it other constants:
    `gpumlp.losses["huber"](delta=0.5)`.

    Parameters
    ----------
    name : str
        Its name, by which files store it.
    identity : Form
        l and its derivative in u = ŷ, for any output activation.
    log : Form, optional
        The same in u = log ŷ, for the outputs exp, softmax and log_softmax.
    logit : Form, optional
        The same in u = logit ŷ, for the output sigmoid.
    parameters : dict of str to float, optional
        The constants p by their names.
    classes : bool, default False
        Whether integer labels 0..N_K-1 are accepted and stand for one-hot targets.
    coding : (float, float), default (1, 0)
        A target y enters as coding[0] y + coding[1]: (2, -1) makes 0/1 into -1/+1.
    bounds : (float, float), default (-inf, inf)
        The least and the greatest value that a target may have.
    outputs : tuple of str, optional
        The built-in output activations whose range fits; None if all do.
    limits : dict of str to (float, float), optional
        The least and the greatest value of a constant; of those not named any finite number.

    Raises
    ------
    ValueError
        For a constant that is out of range.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> from gpumlp.functions.loss import Form
    >>> pinball = gpumlp.Loss(
    ...     "pinball",
    ...     Form(lambda u, y, p: np.maximum(.9 * (y - u), .1 * (u - y)),
    ...          lambda u, y, p: np.where(y > u, -.9, .1),
    ...          ("fmax(Real(.9) * (y - u), Real(.1) * (u - y))",
    ...           "y > u ? Real(-.9) : Real(.1)")))
    """

    name: str
    identity: Form
    log: Form | None = None
    logit: Form | None = None
    parameters: dict[str, float] = field(default_factory=dict)
    classes: bool = False
    coding: tuple[float, float] = (1.0, 0.0)
    bounds: tuple[float, float] = (-np.inf, np.inf)
    outputs: tuple[str, ...] | None = None
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, value in self.parameters.items():
            low, high = self.limits.get(key, (-np.inf, np.inf))
            checks.number(value, f"{self.name}: {key}", checks.finite(low, high))

    @property
    def mathematics(self) -> object:
        return self.identity

    def target_scale(self, size: int) -> tuple[float, float]:
        """Return (a, c): the target of one of `size` outputs enters the loss as a y + c."""
        smoothing = self.parameters.get("label_smoothing", 0.0)
        a, c = self.coding
        return a * (1 - smoothing), c + smoothing / size


class OutputLoss(NamedTuple):
    """A loss as it meets an output activation: the form, and what is done around it.

    fused:  the loss is computed from z + b, else from ŷ, and f' is applied by `backprop`.
    rows:   the softmax family: δ = q - p Σ q.
    log_u:  in rows, u is log p, else p.
    """

    form: Form
    fused: bool
    rows: bool
    log_u: bool


def pair(loss: Loss, output: Activation) -> OutputLoss:
    """The form of the loss that fits the output activation (the table above).

    Raises
    ------
    ValueError
        For an output activation whose range does not fit the loss.
    """
    if loss.outputs is not None and output.built_in and output.name not in loss.outputs:
        *others, last = loss.outputs
        needs = f"{', '.join(others)} or {last}"
        raise ValueError(f"{loss.name} needs output {needs}, not {output.name}")
    if output.rows:
        log_u = loss.log is not None or output.name == "log_softmax"
        return OutputLoss(loss.log or loss.identity, fused=True, rows=True, log_u=log_u)
    name = output.name if output.built_in else None  # not a user's own of that name
    if name == "exp" and loss.log is not None:
        return OutputLoss(loss.log, fused=True, rows=False, log_u=False)
    if name == "sigmoid" and loss.logit is not None:
        return OutputLoss(loss.logit, fused=True, rows=False, log_u=False)
    return OutputLoss(loss.identity, fused=name == "identity", rows=False, log_u=False)


def find(loss: LossLike) -> Loss:
    """The Loss of that name, or the one given."""
    return Loss.find(loss, "loss")


def _tiny(u: np.ndarray) -> np.floating:
    """Probabilities are kept this far from 0 in logarithms and quotients."""
    return np.finfo(u.dtype).tiny


def _open(u: np.ndarray) -> np.ndarray:
    """u moved into [tiny, 1 - eps], where log u and log(1 - u) are finite."""
    return np.clip(u, _tiny(u), 1 - np.finfo(u.dtype).eps)


def _positive(u: np.ndarray) -> np.ndarray:
    return np.maximum(u, _tiny(u))


def _xlogx(y: np.ndarray) -> np.ndarray:
    return y * np.log(np.where(y > 0, y, 1))


def _huber(u: np.ndarray, y: np.ndarray, p: Constants) -> np.ndarray:
    r = np.abs(u - y)
    return np.where(r <= p[0], 0.5 * r * r, p[0] * (r - 0.5 * p[0]))


def _log_cosh(u: np.ndarray, y: np.ndarray, p: Constants) -> np.ndarray:
    r = np.abs(u - y)
    return r + np.log1p(np.exp(-2 * r)) - np.log(2.0).item()


def _binary_cross_entropy(u: np.ndarray, y: np.ndarray, p: Constants) -> np.ndarray:
    v = _open(u)
    return -(y * np.log(v) + (1 - y) * np.log1p(-v))


def _d_binary_cross_entropy(u: np.ndarray, y: np.ndarray, p: Constants) -> np.ndarray:
    v = _open(u)
    return (v - y) / (v * (1 - v))


def _focal_log(u: np.ndarray, y: np.ndarray, p: Constants) -> np.ndarray:
    # u = log ŷ; -expm1(u) = 1 - ŷ without cancellation
    return -y * np.power(-np.expm1(u), p[0]) * u


def _d_focal_log(u: np.ndarray, y: np.ndarray, p: Constants) -> np.ndarray:
    rest, prob = -np.expm1(u), np.exp(u)
    slope = np.where(rest > 0, p[0] * prob * u * np.power(_positive(rest), p[0] - 1), 0)
    return y * (slope - np.power(rest, p[0]))


def _focal_logit(u: np.ndarray, y: np.ndarray, p: Constants) -> np.ndarray:
    prob, rest = sigmoid(u), sigmoid(-u)
    return y * rest ** p[0] * softplus(-u) + (1 - y) * prob ** p[0] * softplus(u)


def _d_focal_logit(u: np.ndarray, y: np.ndarray, p: Constants) -> np.ndarray:
    prob, rest = sigmoid(u), sigmoid(-u)
    one = -(rest ** p[0]) * (p[0] * prob * softplus(-u) + rest)
    zero = prob ** p[0] * (p[0] * rest * softplus(u) + prob)
    return y * one + (1 - y) * zero


def _margin(u: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(1 - y * u, 0)


_SIMPLEX = ("softmax", "log_softmax")
_PROBABILITY = ("softmax", "sigmoid", "hard_sigmoid")
_POSITIVE = ("exp", "softplus", *_PROBABILITY)
_PLUS_MINUS = (2.0, -1.0)
_UNIT = (0.0, 1.0)
_NONNEGATIVE = (0.0, np.inf)

_TABLE = [
    # l = ½ (ŷ - y)², so that δ^(K) = ŷ - y
    Loss(
        "squared_error",
        Form(lambda u, y, p: 0.5 * np.square(u - y), lambda u, y, p: u - y, "SquaredError"),
    ),
    # l = |ŷ - y|; the derivative at ŷ = y is 0
    Loss(
        "absolute_error",
        Form(lambda u, y, p: np.abs(u - y), lambda u, y, p: np.sign(u - y), "AbsoluteError"),
    ),
    # l = ½ r² where |r| <= delta, else delta (|r| - ½ delta); r = ŷ - y
    Loss(
        "huber",
        Form(_huber, lambda u, y, p: np.clip(u - y, -p[0], p[0]), "Huber"),
        parameters={"delta": 1.0},
        limits={"delta": (1e-6, np.inf)},
    ),
    # l = log cosh(ŷ - y)
    Loss("log_cosh", Form(_log_cosh, lambda u, y, p: np.tanh(u - y), "LogCosh")),
    # l = max(q r, (q - 1) r), r = y - ŷ; the derivative at r = 0 is 0
    Loss(
        "quantile",
        Form(
            lambda u, y, p: np.maximum(p[0] * (y - u), (p[0] - 1) * (y - u)),
            lambda u, y, p: np.where(y > u, -p[0], np.where(y < u, 1 - p[0], 0)),
            "Quantile",
        ),
        parameters={"q": 0.5},
        limits={"q": (0.0, 1.0)},
    ),
    # l = ŷ - y log ŷ: the negative log likelihood less log y!
    Loss(
        "poisson",
        Form(
            lambda u, y, p: u - y * np.log(_positive(u)),
            lambda u, y, p: 1 - y / _positive(u),
            "Poisson",
        ),
        log=Form(lambda u, y, p: np.exp(u) - y * u, lambda u, y, p: np.exp(u) - y, "PoissonLog"),
        bounds=_NONNEGATIVE,
        outputs=_POSITIVE,
    ),
    # l = -y log ŷ; labels or probabilities; with smoothing s, y (1 - s) + s / N_K
    Loss(
        "cross_entropy",
        Form(
            lambda u, y, p: -y * np.log(_positive(u)),
            lambda u, y, p: -y / _positive(u),
            "CrossEntropy",
        ),
        log=Form(lambda u, y, p: -y * u, lambda u, y, p: -y, "CrossEntropyLog"),
        parameters={"label_smoothing": 0.0},
        limits={"label_smoothing": (0.0, 1.0)},
        classes=True,
        bounds=_UNIT,
        outputs=("log_softmax", *_POSITIVE),
    ),
    # l = -(y log ŷ + (1 - y) log(1 - ŷ)); multilabel too
    Loss(
        "binary_cross_entropy",
        Form(_binary_cross_entropy, _d_binary_cross_entropy, "BinaryCrossEntropy"),
        logit=Form(
            lambda u, y, p: softplus(u) - y * u,
            lambda u, y, p: sigmoid(u) - y,
            "BinaryCrossEntropyLogit",
        ),
        classes=True,
        bounds=_UNIT,
        outputs=_PROBABILITY,
    ),
    # softmax: l = -y (1 - ŷ)^gamma log ŷ; sigmoid: the same of ŷ and y, and of 1 - ŷ and 1 - y
    Loss(
        "focal",
        Form(
            lambda u, y, p: _focal_log(np.log(_positive(u)), y, p),
            lambda u, y, p: _d_focal_log(np.log(_positive(u)), y, p) / _positive(u),
        ),
        log=Form(_focal_log, _d_focal_log, "FocalLog"),
        logit=Form(_focal_logit, _d_focal_logit, "FocalLogit"),
        parameters={"gamma": 2.0},
        limits={"gamma": (0.0, np.inf)},
        classes=True,
        bounds=_UNIT,
        outputs=(*_SIMPLEX, "sigmoid"),
    ),
    # l = max(0, 1 - y ŷ), y = ±1, one class against the rest
    Loss(
        "hinge",
        Form(
            lambda u, y, p: _margin(u, y),
            lambda u, y, p: np.where(y * u < 1, -y, 0),
            "Hinge",
        ),
        classes=True,
        coding=_PLUS_MINUS,
        bounds=_UNIT,
    ),
    # l = max(0, 1 - y ŷ)²
    Loss(
        "squared_hinge",
        Form(
            lambda u, y, p: np.square(_margin(u, y)),
            lambda u, y, p: -2 * y * _margin(u, y),
            "SquaredHinge",
        ),
        classes=True,
        coding=_PLUS_MINUS,
        bounds=_UNIT,
    ),
    # l = e^(-y ŷ)
    Loss(
        "exponential",
        Form(
            lambda u, y, p: np.exp(-y * u),
            lambda u, y, p: -y * np.exp(-y * u),
            "Exponential",
        ),
        classes=True,
        coding=_PLUS_MINUS,
        bounds=_UNIT,
    ),
    # l = y (log y - log ŷ), with 0 log 0 = 0
    Loss(
        "kl_divergence",
        Form(
            lambda u, y, p: _xlogx(y) - y * np.log(_positive(u)),
            lambda u, y, p: -y / _positive(u),
            "KlDivergence",
        ),
        log=Form(lambda u, y, p: _xlogx(y) - y * u, lambda u, y, p: -y, "KlDivergenceLog"),
        classes=True,
        bounds=_UNIT,
        outputs=("log_softmax", *_POSITIVE),
    ),
]

losses = Loss.table = MappingProxyType({loss.name: loss for loss in _TABLE})
