"""The factors of groups of parameters on the learning rate and the decay."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.backend.contract import Factors
from gpumlp.model.network import Network
from gpumlp.model.shape import NetworkShape
from gpumlp.utils import checks

DEFAULT = {"W": (1.0, 1.0), "b": (1.0, 0.0), "s": (1.0, 0.0), "slope": (1.0, 0.0)}
NAMES = ("rate", "decay")


def checked(factors: Any, shape: NetworkShape) -> dict[str, tuple]:
    """Check factors, and return them as they are kept and stored.

    Parameters
    ----------
    factors : dict or None
        See `gpumlp.Trainer`.
    shape : NetworkShape
        Of the networks that are trained.

    Returns
    -------
    dict
        group -> (rate, decay); each a float, or a list of K floats.  Empty without factors.

    Raises
    ------
    ParameterError
        For a group that the network lacks; for numbers that are negative or not finite, or that are
        too many or too few.
    """
    if factors is None:
        return {}
    if not isinstance(factors, dict):
        wanted = "None or {group: (rate, decay)}"
        raise checks.ParameterError(f"factors = {checks.shown(factors)} must be {wanted}")
    groups = [group for group in DEFAULT if getattr(shape.layout, group)]
    for group in factors:
        if group not in groups:
            raise checks.ParameterError(
                f"factors has {checks.shown(group)}; the network has the groups {', '.join(groups)}"
            )
    return {group: _pair(group, pair, shape) for group, pair in factors.items()}


def _pair(group: str, pair: Any, shape: NetworkShape) -> tuple:
    """Check the (rate, decay) of a group."""
    both = checks.items(pair)
    name = f"factors[{group!r}]"
    if both is None or len(both) != len(NAMES):
        raise checks.ParameterError(f"{name} = {checks.shown(pair)} must be (rate, decay)")
    most = float(np.finfo(shape.dtype).max)
    return tuple(
        _factor(f"{name}: {of}", value, shape.K, most)
        for of, value in zip(NAMES, both, strict=True)
    )


def _factor(name: str, value: Any, K: int, most: float):
    """Check a factor: a float, or a list of one for each layer."""
    array = checks.reals(value)
    array = None if array is None else array.astype(np.float64)
    if array is None or array.shape not in ((), (K,)) or not ((array >= 0) & (array <= most)).all():
        wanted = f"a number from 0 to {most:g}, or one for each of {K} layers"
        raise checks.ParameterError(f"{name} = {checks.shown(value)} must be {wanted}")
    return array.tolist()


def changes(factors: dict[str, tuple], name: str | None = None) -> bool:
    """Whether any factor, or one of that name, differs from its default."""
    return any(
        np.any(np.asarray(value) != default)
        for group, pair in factors.items()
        for of, value, default in zip(NAMES, pair, DEFAULT[group], strict=True)
        if name in (None, of)
    )


def on_device(factors: dict[str, tuple], net: Network) -> Factors | None:
    """The factors of each slice of the parameters, on the network's device; None if they change
    nothing."""
    if not changes(factors):
        return None
    starts, pairs = [], []
    for group, default in DEFAULT.items():
        rate, decay = (np.broadcast_to(value, net.K) for value in factors.get(group, default))
        for k, part in getattr(net.layout, group).items():
            starts.append(part.start)
            pairs.append((rate[k - 1], decay[k - 1]))
    ends = np.array([*starts[1:], net.layout.size], np.int64)
    rates, decays = np.array(pairs, net.dtype).T.copy()
    return Factors(*map(net.ops.to_device, (ends, rates, decays)))
