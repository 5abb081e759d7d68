"""Activation functions f and their derivatives f', equations (2)(4)(6)(9) and (11).

`activations` maps a name to an `Activation`; the CUDA side of each built-in one is the struct of
the same name in kernels/shared/activations.cuh.  Where PyTorch has a function of that name, its
formula, default constants and derivative at kinks hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp.functions.function import Function
from gpumlp.utils import checks

if TYPE_CHECKING:
    from gpumlp.utils.aliases import ActivationLike, Constants


@dataclass(frozen=True, eq=False, repr=False)
class Activation(Function):
    """An activation function n = f(z), elementwise, with its derivative f'(z).

    Equations (2)(4)(6)(9) and (11).  `gpumlp.activations` holds the built-in ones by their names;
    calling one gives it other constants: `gpumlp.activations["elu"](alpha=0.5)`.

    Parameters
    ----------
    name : str
        Its name, by which files store it.
    f : callable
        f(z, p) -> n, an array of z's shape; p is the sequence of the constants, each a scalar or
        an array that broadcasts against z.
    df : callable, optional
        df(z, n, p) -> f'(z), an array of z's shape.  Without it, a network can only predict.
    cuda : str or (str, str), optional
        The CUDA expressions for f, in `z` and `p[0]`, `p[1]`, and for f', in `z`, `n` and those,
        of type Real; or the name of a struct in kernels/shared/activations.cuh.  Without it, the
        activation runs on the CPU only.
    df_from : {"z", "n"}, default "z"
        "n" if df needs only n = f(z); then z is not kept, which saves memory and a pass.
    parameters : dict of str to float, optional
        The constants p by their names, two at most.
    learned : bool, default False
        Whether p[0] is a parameter of the network, one for each layer (PReLU).
    dp : callable, optional
        dp(z) -> ∂f/∂p[0], an array of z's shape; needed where `learned`.
    random : bool, default False
        Whether in training the slope is drawn per element, uniform in [p[0], p[1]) (RReLU).
    rows : bool, default False
        Whether f acts on whole rows (softmax, log_softmax); such a function is for the output only.
    minimum : float, default -inf
        The least value that each of the constants may take.

    Raises
    ------
    ValueError
        For more than two constants, one that is out of range, another `df_from`, or a learned
        parameter without `parameters` and `dp`.

    Examples
    --------
    >>> import gpumlp
    >>> cube = gpumlp.Activation("cube", f=lambda z, p: z**3, df=lambda z, n, p: 3 * z**2,
    ...                          cuda=("z * z * z", "3 * z * z"))
    >>> net = gpumlp.MLP((4, 8, 3), hidden=cube)
    """

    name: str
    f: Callable[[np.ndarray, Constants], np.ndarray]
    df: Callable[[np.ndarray, np.ndarray, Constants], np.ndarray] | None = None
    cuda: str | tuple[str, str] | None = None
    df_from: str = "z"
    parameters: dict[str, float] = field(default_factory=dict)
    learned: bool = False
    dp: Callable[[np.ndarray], np.ndarray] | None = None
    random: bool = False
    rows: bool = False
    minimum: float = -np.inf

    def __post_init__(self) -> None:
        checks.choice(self.df_from, f"{self.name}: df_from", ("z", "n"))
        if len(self.parameters) > 2:
            raise ValueError(f"{self.name}: an activation takes at most two constants")
        if self.learned and not (self.parameters and self.dp):
            raise ValueError(f"{self.name}: a learned parameter needs parameters and dp")
        for key, value in self.parameters.items():
            checks.number(value, f"{self.name}: {key}", checks.finite(self.minimum))

    @property
    def mathematics(self) -> object:
        return self.f, self.cuda


def find(activation: ActivationLike, name: str = "activation") -> Activation:
    """The Activation of that name, or the one given; name: the argument's, for the message."""
    return Activation.find(activation, name)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def softplus(z: np.ndarray) -> np.ndarray:
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def normal_cdf(z: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr  # with scikit-learn; kept out of `import gpumlp`

    return ndtr(z)


def normal_pdf(z: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * z * z) * (1 / np.sqrt(2 * np.pi)).item()


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    e /= e.sum(axis=-1, keepdims=True)
    return e


def log_softmax(z: np.ndarray) -> np.ndarray:
    shifted = z - z.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def _gelu_tanh_inner(z: np.ndarray) -> np.ndarray:
    return GELU_SCALE * (z + GELU_CUBIC * z**3)


def _df_gelu_tanh(z: np.ndarray, n: np.ndarray, p: Constants) -> np.ndarray:
    t = np.tanh(_gelu_tanh_inner(z))
    return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * GELU_SCALE * (1 + 3 * GELU_CUBIC * z * z)


def _df_silu(z: np.ndarray, n: np.ndarray, p: Constants) -> np.ndarray:
    s = sigmoid(z)
    return s * (1 + z * (1 - s))


def _df_mish(z: np.ndarray, n: np.ndarray, p: Constants) -> np.ndarray:
    t = np.tanh(softplus(z))
    return t + z * (1 - t * t) * sigmoid(z)


def _where(condition: np.ndarray, a: Any, b: Any, like: np.ndarray) -> np.ndarray:
    """a where the condition holds, else b; numbers in like's dtype."""
    real = like.dtype.type
    a, b = (real(v) if np.ndim(v) == 0 else v for v in (a, b))
    return np.where(condition, a, b)


def _indicator(condition: np.ndarray, like: np.ndarray) -> np.ndarray:
    """1 where the condition holds, else 0, in like's dtype."""
    return condition.astype(like.dtype)


SELU_SCALE = 1.0507009873554805  # Klambauer et al. 2017: the fixed point with mean 0, variance 1
SELU_ALPHA = 1.6732632423543772
GELU_SCALE = float(np.sqrt(2 / np.pi))
GELU_CUBIC = 0.044715

_TABLE = [
    Activation(
        "identity",
        lambda z, p: z,
        lambda z, n, p: np.ones_like(n),
        "Identity",
        df_from="n",
    ),
    Activation(
        "sigmoid",
        lambda z, p: sigmoid(z),
        lambda z, n, p: n * (1 - n),
        "Sigmoid",
        df_from="n",
    ),
    Activation(
        "hard_sigmoid",
        lambda z, p: np.clip(z + 3, 0, 6) / 6,
        lambda z, n, p: _where((n > 0) & (n < 1), 1 / 6, 0, n),
        "HardSigmoid",
        df_from="n",
    ),
    Activation(
        "tanh",
        lambda z, p: np.tanh(z),
        lambda z, n, p: 1 - n * n,
        "Tanh",
        df_from="n",
    ),
    Activation(
        "hard_tanh",
        lambda z, p: np.clip(z, -1, 1),
        lambda z, n, p: _indicator(np.abs(n) < 1, n),
        "HardTanh",
        df_from="n",
    ),
    Activation(
        "softsign",
        lambda z, p: z / (1 + np.abs(z)),
        lambda z, n, p: np.square(1 - np.abs(n)),
        "Softsign",
        df_from="n",
    ),
    Activation(
        "softplus",
        lambda z, p: softplus(z),
        lambda z, n, p: -np.expm1(-n),
        "Softplus",
        df_from="n",
    ),
    Activation(
        "relu",
        lambda z, p: np.maximum(z, 0),
        lambda z, n, p: _indicator(n > 0, n),
        "Relu",
        df_from="n",
    ),
    Activation(
        "relu6",
        lambda z, p: np.clip(z, 0, 6),
        lambda z, n, p: _indicator((n > 0) & (n < 6), n),
        "Relu6",
        df_from="n",
    ),
    Activation(
        "leaky_relu",
        lambda z, p: _where(z > 0, z, p[0] * z, z),
        lambda z, n, p: _where(n > 0, 1, p[0], n),
        "LeakyRelu",
        df_from="n",
        parameters={"slope": 0.01},
        minimum=0.0,  # with a negative slope, n would not tell the sign of z
    ),
    Activation(
        "prelu",
        lambda z, p: _where(z > 0, z, p[0] * z, z),
        lambda z, n, p: _where(z > 0, 1, p[0], z),
        "Prelu",
        parameters={"slope": 0.25},
        learned=True,
        dp=lambda z: np.minimum(z, 0),
    ),
    Activation(
        "rrelu",
        lambda z, p: _where(z > 0, z, 0.5 * (p[0] + p[1]) * z, z),
        lambda z, n, p: _where(n > 0, 1, 0.5 * (p[0] + p[1]), n),
        "Rrelu",
        df_from="n",
        parameters={"lower": 1 / 8, "upper": 1 / 3},
        random=True,
        minimum=0.0,
    ),
    Activation(
        "elu",
        lambda z, p: _where(z > 0, z, p[0] * np.expm1(z), z),
        lambda z, n, p: _where(n > 0, 1, n + p[0], n),
        "Elu",
        df_from="n",
        parameters={"alpha": 1.0},
        minimum=1e-6,  # with alpha <= 0, n would not tell the sign of z
    ),
    Activation(
        "selu",
        lambda z, p: _where(z > 0, SELU_SCALE * z, SELU_SCALE * SELU_ALPHA * np.expm1(z), z),
        lambda z, n, p: _where(n > 0, SELU_SCALE, n + SELU_SCALE * SELU_ALPHA, n),
        "Selu",
        df_from="n",
    ),
    Activation(
        "celu",
        lambda z, p: _where(z > 0, z, p[0] * np.expm1(z / p[0]), z),
        lambda z, n, p: _where(n > 0, 1, 1 + n / p[0], n),
        "Celu",
        df_from="n",
        parameters={"alpha": 1.0},
        minimum=1e-6,
    ),
    Activation(
        "gelu",
        lambda z, p: z * normal_cdf(z),
        lambda z, n, p: normal_cdf(z) + z * normal_pdf(z),
        "Gelu",
    ),
    Activation(
        "gelu_tanh",
        lambda z, p: 0.5 * z * (1 + np.tanh(_gelu_tanh_inner(z))),
        _df_gelu_tanh,
        "GeluTanh",
    ),
    Activation("silu", lambda z, p: z * sigmoid(z), _df_silu, "Silu"),
    Activation(
        "hard_swish",
        lambda z, p: z * np.clip(z + 3, 0, 6) / 6,
        lambda z, n, p: _where(z <= -3, 0, _where(z < 3, z / 3 + 0.5, 1, z), z),
        "HardSwish",
    ),
    Activation("mish", lambda z, p: z * np.tanh(softplus(z)), _df_mish, "Mish"),
    Activation("exp", lambda z, p: np.exp(z), lambda z, n, p: n, "Exp", df_from="n"),
    Activation("sine", lambda z, p: np.sin(z), lambda z, n, p: np.cos(z), "Sine"),
    Activation("softmax", lambda z, p: softmax(z), cuda="softmax", rows=True),
    Activation("log_softmax", lambda z, p: log_softmax(z), cuda="log_softmax", rows=True),
]

_by_name = {activation.name: activation for activation in _TABLE}
_by_name["logistic"] = _by_name["sigmoid"]
_by_name["swish"] = _by_name["silu"]

activations = Activation.table = MappingProxyType(_by_name)
