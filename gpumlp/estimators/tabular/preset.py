"""The network that the estimators for tables train, and by which numbers.

The preset follows RealMLP (Holzmüller et al. 2024, "Better by Default"): a learned scale of the
inputs, initial weights by a forward pass, a first layer that learns as in the neural tangent
parametrisation, AdamW with β₂ = 0.95 and four cosines over logarithms.  What differs was measured;
benchmarks/README.md has the figures.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from gpumlp.functions import activation
from gpumlp.functions.optimizer import AdamW
from gpumlp.model.mlp import MLP
from gpumlp.model.parameters import Parameters
from gpumlp.training.callback import Callback
from gpumlp.training.trainer import Trainer
from gpumlp.utils.schema import check, count

WIDTH = 16.0  # √256: the hidden layers of RealMLP, whose rates all are relative to
MANY_ROWS = 10_000  # from which networks are wider
SAMPLES = 1_000_000  # that a network sees in all its epochs, about
FORWARD_ROWS = 2000  # of the forward pass that initial weights are drawn by
POINTS = 5  # of which an initial bias is a random mean


class NetworkParams(NamedTuple):
    """The numbers of a network for tables; `network_params` may change each.

    activation : of the hidden layers.
    dropout : of hidden units, at the beginning; see `schedule_decay`.
    weight_decay : decoupled, of the weights alone; likewise.
    beta2 : of AdamW.
    label_smoothing : of classes.
    schedule : of the learning rate.
    scale_rate : factor on the learning rate of the learned scale of the inputs; 0: no scale.
    bias_rate : the same of biases.
    schedule_decay : whether dropout and weight decay fall in the second half, by a cosine, to 0.
    """

    activation: Any
    dropout: float = 0.15
    weight_decay: float = 0.3
    beta2: float = 0.95
    label_smoothing: float = 0.1
    schedule: Any = "cosine_log"
    scale_rate: float = 20.0
    bias_rate: float = 1.0
    schedule_decay: bool = True


CLASSES = NetworkParams("selu")
VALUES = NetworkParams("mish", label_smoothing=0.0)


def batch_size_for(rows: int) -> int:
    """Rows of a minibatch, for so many that are trained on."""
    return 64 if rows <= 1024 else 128 if rows <= 8192 else 256


def hidden_sizes_for(rows: int) -> tuple[int, ...]:
    """Units of the hidden layers, for so many rows."""
    return (128,) * 3 if rows < MANY_ROWS else (256,) * 3


def epochs_for(rows: int) -> int:
    """Epochs, for so many rows."""
    return min(128, max(16, SAMPLES // rows))


def make_network(
    params: NetworkParams, sizes: tuple[int, ...], output: str, models: int, **options: Any
) -> MLP:
    """A stack of networks, whose weights are still to be drawn."""
    K = len(sizes) - 1
    hidden = activation.find(params.activation)
    return MLP(
        sizes,
        hidden,
        output,
        models=models,
        dropout=params.dropout,
        init="zeros",
        scale=[params.scale_rate > 0] + [False] * (K - 1),
        **options,
    )


def draw_weights(net: MLP, x: np.ndarray, rng: np.random.Generator) -> None:
    """Initial weights and biases, by a forward pass of some rows x (B, N_0) for each network.

    W^(k) is normal, divided by the deviation of each unit's z over the rows.  The bias is -z at a
    random mean of 5 rows, so that a unit's kink lies amid the data ("he+5").
    """
    f = activation.find(net.f[1])
    theta = np.array(net.ops.to_host(net.parameters.buffer))
    views = Parameters(net.layout, theta)
    rows = x[rng.permutation(len(x))[:FORWARD_ROWS]].astype(np.float64)
    for m in range(net.M):
        n = rows
        for k in range(1, net.K + 1):
            W = rng.normal(size=(net.sizes[k], net.sizes[k - 1]))
            z = n @ W.T
            deviation = z.std(axis=0) + 1e-8
            W, z = W / deviation[:, None], z / deviation
            shares = rng.exponential(size=(POINTS, net.sizes[k]))
            shares /= shares.sum(axis=0)
            points = rng.integers(0, len(rows), shares.shape)
            b = -(np.take_along_axis(z, points, axis=0) * shares).sum(axis=0)
            views.W[k][m], views.b[k][m] = W, b
            with np.errstate(over="ignore"):
                n = f.f(z + b, f.p)
    with net.ops.on_device():
        net.parameters.buffer[...] = net.ops.to_device(theta)


def make_trainer(
    params: NetworkParams, net: MLP, loss: Any, lr: float, batch_size: int, seed: int
) -> Trainer:
    """The trainer of a stack of networks."""
    others = [1.0] * (net.K - 1)
    # The first layer learns as if its inputs were multiplied by this, and its weights divided.
    first = WIDTH / math.sqrt(net.sizes[0])
    factors: dict[str, tuple] = {
        "W": ([first, *others], [1 / first, *others]),
        "b": (params.bias_rate, 0.0),
    }
    if params.scale_rate:
        factors["s"] = (params.scale_rate, 0.0)
    optimizer = AdamW(lr, beta2=params.beta2, weight_decay=params.weight_decay)
    return Trainer(net, loss, optimizer, batch_size, params.schedule, seed=seed, factors=factors)


class FallingDecay(Callback):
    """Dropout and weight decay stay for the first half of a fit, and fall to 0 in the second, by
    half a cosine (Holzmüller et al. 2024)."""

    def __init__(self, params: NetworkParams):
        self._params = params
        self._epochs = 0

    def on_fit_begin(self, trainer, history):
        self._epochs = 0

    def on_epoch_end(self, trainer, history):
        self._epochs += 1
        total = self._epochs + (trainer.epochs_left or 0)
        part = max(2 * self._epochs / total - 1, 0.0)
        factor = 0.5 * (1 + math.cos(math.pi * part))
        trainer.retune(weight_decay=self._params.weight_decay * factor)
        if self._params.dropout:
            trainer.net.dropout = self._params.dropout * factor

    def state(self):
        return {"epochs": self._epochs}, {}  # the numbers themselves are the trainer's

    def restore(self, numbers, arrays):
        check(numbers, {"epochs": count}, "the state of FallingDecay")
        self._epochs = numbers["epochs"]
