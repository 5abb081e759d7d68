"""Copy the parameters of a network to the host and back."""

from __future__ import annotations

import numpy as np

from gpumlp.model.mlp import MLP
from gpumlp.model.parameters import Parameters, ParameterViews, products


def check_network(net, function: str) -> None:
    """Raise TypeError for anything but an MLP; function: the public one that takes it."""
    if not isinstance(net, MLP):
        raise TypeError(f"{function} takes a network (gpumlp.MLP), not {type(net).__name__}")


def read(net: MLP) -> ParameterViews:
    """Copy W[k], b[k], s[k] and slope[k] to NumPy arrays, without M for a single network."""
    with net.ops.on_device():
        buffer = np.array(net.ops.to_host(net.parameters.buffer))
    return Parameters(net.layout, buffer).public(stacked=net.models is not None)


def read_products(net: MLP) -> ParameterViews:
    """Copy them for files of other libraries: a scale is multiplied into W[k], and s[k] is 1."""
    values = read(net)
    for W, V, s in zip(products(values), values.W, values.s, strict=True):
        if s is not None:
            V[...] = W
            s[...] = 1
    return values


def write(net: MLP, values: ParameterViews) -> None:
    """Write what `read` returned, changed in place, into the network."""
    buffer = values.theta.reshape(net.parameters.buffer.shape)
    with net.ops.on_device():
        net.parameters.buffer[...] = net.ops.to_device(buffer)
