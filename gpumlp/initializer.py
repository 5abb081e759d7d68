"""Initial weights.  Biases start at 0.

    glorot  variance 2 / (N_{k-1} + N_k)      Glorot and Bengio 2010
    he      variance 2 / N_{k-1}              He et al. 2015
    lecun   variance 1 / N_{k-1}              LeCun et al. 1998

each uniform in ±√(3 variance) or normal; orthogonal (Saxe et al. 2014); zeros.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np


def _scaled(variance, normal: bool):
    def draw(rng, fan_out, fan_in):
        deviation = np.sqrt(variance(fan_in, fan_out))
        if normal:
            return rng.normal(0, deviation, (fan_out, fan_in))
        bound = np.sqrt(3) * deviation
        return rng.uniform(-bound, bound, (fan_out, fan_in))

    return draw


def _orthogonal(rng, fan_out, fan_in):
    """Orthonormal rows, or columns where there are fewer of them."""
    tall = rng.normal(size=(max(fan_out, fan_in), min(fan_out, fan_in)))
    q, r = np.linalg.qr(tall)
    q *= np.where(np.diagonal(r) < 0, -1, 1)  # the factorisation is unique with a positive diagonal
    return q if fan_out >= fan_in else q.T


_VARIANCE = {
    "glorot": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "he": lambda fan_in, fan_out: 2 / fan_in,
    "lecun": lambda fan_in, fan_out: 1 / fan_in,
}

_by_name = {
    f"{name}_{kind}": _scaled(variance, kind == "normal")
    for name, variance in _VARIANCE.items()
    for kind in ("uniform", "normal")
}
_by_name["orthogonal"] = _orthogonal
_by_name["zeros"] = lambda rng, fan_out, fan_in: np.zeros((fan_out, fan_in))

# name -> draw(rng, fan_out, fan_in), an array (fan_out, fan_in)
initializers = MappingProxyType(_by_name)


def find(init):
    """The function of that name, or the one given."""
    if callable(init):
        return init
    if init not in initializers:
        raise ValueError(f"unknown init {init!r}; there are: {', '.join(initializers)}")
    return initializers[init]


def seeds(seed, models: int) -> np.ndarray:
    """The seed of each network, (M,) uint64: an int s gives network m the seed s + m."""
    if seed is None:
        raise ValueError("seed = None; it is an int, or one for each network")
    if np.ndim(seed) == 0:
        numbers = [int(seed) + m for m in range(models)]
    else:
        numbers = [int(s) for s in seed]
    if len(numbers) != models:
        raise ValueError(f"{len(numbers)} seeds for {models} networks")
    if any(not 0 <= s < 2**64 for s in numbers):
        raise ValueError(f"seed {seed!r}: a seed is in 0 .. 2**64 - 1")
    return np.array(numbers, dtype=np.uint64)


def generator(seed) -> np.random.Generator:
    """The random numbers of one network's initial weights."""
    return np.random.Generator(np.random.Philox(int(seed)))
