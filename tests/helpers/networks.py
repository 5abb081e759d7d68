"""Networks with random parameters, and rows for them."""

import numpy as np

import gpumlp
from tests.helpers.comparison import fill


def network(sizes, hidden="tanh", output="identity", *, spread=1.0, **arguments):
    """A network with random parameters: biases and slopes too, inputs of layers on both sides of
    every kink."""
    net = gpumlp.MLP(sizes, hidden, output, **arguments)
    rng = np.random.default_rng(7)
    for k in range(1, net.K + 1):
        fill(net.W[k], rng.normal(size=net.W[k].shape) * spread / np.sqrt(net.sizes[k - 1]))
        fill(net.b[k], rng.normal(size=net.b[k].shape) * spread)
        if net.slope[k] is not None:
            fill(net.slope[k], rng.uniform(-0.2, 0.6, net.slope[k].shape))
    return net


def rows(B, N, dtype="float32"):
    return np.random.default_rng(3).normal(size=(B, N)).astype(dtype)
