"""Initial weights.  Biases start at 0.

    glorot  variance 2 / (N_{k-1} + N_k)      Glorot and Bengio 2010
    he      variance 2 / N_{k-1}              He et al. 2015
    lecun   variance 1 / N_{k-1}              LeCun et al. 1998

each uniform in ±√(3 variance) or normal; orthogonal (Saxe et al. 2014); zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp.utils import checks

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from gpumlp.utils.aliases import Draw, PerNetwork


def _scaled(variance: Callable[[int, int], float], normal: bool) -> Draw:
    def draw(rng: np.random.Generator, fan_out: int, fan_in: int) -> np.ndarray:
        deviation = np.sqrt(variance(fan_in, fan_out))
        if normal:
            return rng.normal(0, deviation, (fan_out, fan_in))
        bound = np.sqrt(3) * deviation
        return rng.uniform(-bound, bound, (fan_out, fan_in))

    return draw


def _orthogonal(rng: np.random.Generator, fan_out: int, fan_in: int) -> np.ndarray:
    """Orthonormal rows, or columns where there are fewer of them."""
    tall = rng.normal(size=(max(fan_out, fan_in), min(fan_out, fan_in)))
    q, r = np.linalg.qr(tall)
    q *= np.where(np.diagonal(r) < 0, -1, 1)  # the factorisation is unique with a positive diagonal
    return q if fan_out >= fan_in else q.T


_VARIANCE: dict[str, Callable[[int, int], float]] = {
    "glorot": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "he": lambda fan_in, fan_out: 2 / fan_in,
    "lecun": lambda fan_in, fan_out: 1 / fan_in,
}

_by_name: dict[str, Draw] = {
    f"{name}_{kind}": _scaled(variance, kind == "normal")
    for name, variance in _VARIANCE.items()
    for kind in ("uniform", "normal")
}
_by_name["orthogonal"] = _orthogonal
_by_name["zeros"] = lambda rng, fan_out, fan_in: np.zeros((fan_out, fan_in))

# name -> draw(rng, fan_out, fan_in), an array (fan_out, fan_in)
initializers = MappingProxyType(_by_name)


def find(init: str | Draw) -> Draw:
    """The function of that name, or the one given."""
    if callable(init):
        return init
    return initializers[checks.choice(init, "init", initializers)]


def drawn(
    init: Draw, rng: np.random.Generator, k: int, shape: tuple[int, int], dtype: DTypeLike
) -> np.ndarray:
    """W[k] of that shape (N_k, N_{k-1}), from init(rng, fan_out, fan_in).

    Raises
    ------
    ValueError
        For a function that fails, gives another shape, or what is not finite in that dtype.
    """
    function = f"init = {checks.shown(init)}"
    try:
        W = np.asarray(init(rng, *shape))
    except (TypeError, ValueError) as error:
        raise checks.ParameterError(
            f"{function} must be one of {', '.join(initializers)}, or a function "
            f"draw(rng, fan_out, fan_in), but: {error}"
        ) from error
    if W.shape != shape:
        raise checks.ParameterError(f"{function} gave shape {W.shape} for W[{k}], which is {shape}")
    with np.errstate(over="ignore"):
        finite = W.dtype.kind in "iuf" and np.isfinite(W.astype(dtype)).all()
    if not finite:
        raise checks.ParameterError(f"{function} gave what is no finite {dtype} for W[{k}]")
    return W


def seeds(seed: PerNetwork, models: int) -> np.ndarray:
    """The seed of each network, (M,) uint64: an int s gives network m the seed s + m.

    Raises
    ------
    ValueError
        For what is no whole number in [0, 2**64), nor M of them, or where s + m is beyond.
    """
    numbers = checks.reals(seed)
    if numbers is None or numbers.shape not in ((), (models,)) or not checks.SEED.holds(numbers):
        wanted = f"{checks.SEED}, or one for each of {models} networks"
        raise checks.ParameterError(f"seed = {checks.shown(seed)} must be {wanted}")
    if numbers.ndim:
        return numbers.astype(np.uint64)
    first = int(numbers)
    if first + models > 2**64:
        raise checks.ParameterError(
            f"seed = {seed} must be at most 2**64 - {models}: network m of {models} has seed + m"
        )
    return np.uint64(first) + np.arange(models, dtype=np.uint64)


def generator(seed: Any) -> np.random.Generator:
    """The random numbers of one network's initial weights."""
    return np.random.Generator(np.random.Philox(int(seed)))
