"""Activations, losses, optimisers and a training loop, written from their definitions.

The second opinion that the library is held against: every formula stands here once more, plainly,
on the tensors of autodiff.py, so that no derivative is written by hand. One network at a time; a
stack of M networks is M of these.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from tests.oracle.autodiff import (
    Tensor,
    absolute,
    clip,
    erf,
    exp,
    gradient,
    log,
    log1p,
    maximum,
    sin,
    tanh,
    where,
)

# --- activations: n = f(z), z (B, N) --------------------------------------------------------------


def sigmoid(z):
    return 1 / (1 + exp(-z))


def hard_sigmoid(z):
    return clip(z + 3, 0, 6) / 6


def softplus(z):
    return log1p(exp(z))


def leaky_relu(z, slope=0.01):
    return where(z.value > 0, z, slope * z)


def rrelu(z, lower=1 / 8, upper=1 / 3):
    """In inference: the slope is the mean of the range it would be drawn from."""
    return leaky_relu(z, (lower + upper) / 2)


def elu(z, alpha=1.0):
    return where(z.value > 0, z, alpha * (exp(z) - 1))


def selu(z):
    return 1.0507009873554804934193349852946 * elu(z, alpha=1.6732632423543772848170429916717)


def celu(z, alpha=1.0):
    return where(z.value > 0, z, alpha * (exp(z / alpha) - 1))


def gelu(z):
    return z * (1 + erf(z / math.sqrt(2))) / 2


def gelu_tanh(z):
    return z * (1 + tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2


def log_softmax(z):
    z = z - z.value.max(axis=-1, keepdims=True)  # a constant: it cancels
    return z - log(exp(z).sum(axis=-1, keepdims=True))


def softmax(z):
    e = exp(z - z.value.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


ACTIVATIONS = {
    "identity": lambda z: z,
    "sigmoid": sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "tanh": tanh,
    "hard_tanh": lambda z: clip(z, -1, 1),
    "softsign": lambda z: z / (1 + absolute(z)),
    "softplus": softplus,
    "relu": lambda z: maximum(z, 0),
    "relu6": lambda z: clip(z, 0, 6),
    "leaky_relu": leaky_relu,
    "prelu": leaky_relu,  # with a tensor for the slope: it is learned
    "rrelu": rrelu,
    "elu": elu,
    "selu": selu,
    "celu": celu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": lambda z: z * sigmoid(z),
    "hard_swish": lambda z: z * hard_sigmoid(z),
    "mish": lambda z: z * tanh(softplus(z)),
    "exp": exp,
    "sine": sin,
    "softmax": softmax,
    "log_softmax": log_softmax,
}

PRELU_SLOPE = 0.25  # before training


# --- losses: prediction and target (B, N) -> (B,) -------------------------------------------------
# `output` is the name of the activation that made the prediction.


def _log_probability(prediction, output):
    return prediction if output == "log_softmax" else log(prediction)


def squared_error(prediction, y, output):
    return ((prediction - y) ** 2).sum(axis=-1) / 2


def absolute_error(prediction, y, output):
    return absolute(prediction - y).sum(axis=-1)


def huber(prediction, y, output, delta=1.0):
    r = absolute(prediction - y)
    return where(r.value <= delta, r**2 / 2, delta * (r - delta / 2)).sum(axis=-1)


def log_cosh(prediction, y, output):
    r = prediction - y
    return log((exp(r) + exp(-r)) / 2).sum(axis=-1)


def quantile(prediction, y, output, q=0.5):
    r = y - prediction
    return maximum(q * r, (q - 1) * r).sum(axis=-1)


def poisson(prediction, y, output):
    """On the mean; with the output exp this is e^z - y z."""
    return (prediction - y * log(prediction)).sum(axis=-1)


def cross_entropy(prediction, y, output, label_smoothing=0.0):
    y = y * (1 - label_smoothing) + label_smoothing / y.shape[-1]
    return -(y * _log_probability(prediction, output)).sum(axis=-1)


def binary_cross_entropy(p, y, output):
    return -(y * log(p) + (1 - y) * log(1 - p)).sum(axis=-1)


def focal(p, y, output, gamma=2.0):
    """Lin et al. 2017, without their class weights; with sigmoid, each output is a yes or a no."""
    if output == "log_softmax":
        p = exp(p)
    if output == "sigmoid":
        positive = y * (1 - p) ** gamma * log(p)
        negative = (1 - y) * p**gamma * log(1 - p)
        return -(positive + negative).sum(axis=-1)
    return -(y * (1 - p) ** gamma * log(p)).sum(axis=-1)


def hinge(prediction, t, output):
    return maximum(1 - t * prediction, 0).sum(axis=-1)


def squared_hinge(prediction, t, output):
    return (maximum(1 - t * prediction, 0) ** 2).sum(axis=-1)


def exponential(prediction, t, output):
    return exp(-t * prediction).sum(axis=-1)


def kl_divergence(prediction, y, output):
    log_y = np.log(np.where(y > 0, y, 1.0))  # 0 log 0 = 0
    return (y * (log_y - _log_probability(prediction, output))).sum(axis=-1)


LOSSES = {
    loss.__name__: loss
    for loss in (
        squared_error, absolute_error, huber, log_cosh, quantile, poisson, cross_entropy,
        binary_cross_entropy, focal, hinge, squared_hinge, exponential, kl_divergence,
    )
}  # fmt: skip

MARGIN_LOSSES = {"hinge", "squared_hinge", "exponential"}


def target(loss, y, size):
    """y as an array (B, size): labels (B,) become one-hot rows, for margin losses with -1 for 0."""
    y = np.asarray(y)
    labels = y.ndim == 1 and size > 1
    y = np.eye(size)[y] if labels else y.reshape(len(y), size).astype(np.float64)
    return 2 * y - 1 if loss in MARGIN_LOSSES else y


# --- optimisers -----------------------------------------------------------------------------------


@dataclass
class Optimizer:
    """What all have in common: the penalties (14), (14'), on the weights only."""

    lr: float
    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self):
        self.t = 0
        self.states = defaultdict(lambda: defaultdict(float))  # moments and velocities, 0 at first

    def step(self, parameters, gradients, decayed):
        """Change the arrays `parameters` in place; decayed says which of them are weights."""
        self.t += 1
        for i, (theta, g) in enumerate(zip(parameters, gradients, strict=True)):
            if decayed[i]:
                g = g + self.l1 * np.sign(theta) + self.l2 * theta
                self.decay(theta)
            theta += self.change(g, self.states[i])

    def decay(self, theta):
        """Decoupled weight decay: none, but for AdamW."""


@dataclass
class SGD(Optimizer):
    """v <- mu v - lr g, theta <- theta + v; Nesterov: theta <- theta + mu v - lr g."""

    momentum: float = 0.0
    nesterov: bool = False

    def change(self, g, state):
        state["v"] = self.momentum * state["v"] - self.lr * g
        return self.momentum * state["v"] - self.lr * g if self.nesterov else state["v"]


@dataclass
class RMSprop(Optimizer):
    """Hinton 2012, as PyTorch has it (rho is its alpha); centered: Graves 2013."""

    rho: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False

    def change(self, g, state):
        state["v"] = self.rho * state["v"] + (1 - self.rho) * g**2
        variance = state["v"]
        if self.centered:
            state["mean"] = self.rho * state["mean"] + (1 - self.rho) * g
            variance = variance - state["mean"] ** 2
        g = g / (np.sqrt(variance) + self.eps)
        state["u"] = self.momentum * state["u"] - self.lr * g
        return state["u"]


@dataclass
class Adam(Optimizer):
    """Kingma and Ba 2015, algorithm 1."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def change(self, g, state):
        state["m"] = self.beta1 * state["m"] + (1 - self.beta1) * g
        state["v"] = self.beta2 * state["v"] + (1 - self.beta2) * g**2
        m = state["m"] / (1 - self.beta1**self.t)
        v = state["v"] / (1 - self.beta2**self.t)
        return -self.lr * m / (np.sqrt(v) + self.eps)


@dataclass
class AdamW(Adam):
    """Loshchilov and Hutter 2019: the weights shrink apart from the gradient's step."""

    weight_decay: float = 0.01

    def decay(self, theta):
        theta *= 1 - self.lr * self.weight_decay


@dataclass
class Lion(Optimizer):
    """Chen et al. 2023, algorithm 2: the sign of the momentum as the gradient pulls at it."""

    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0

    def decay(self, theta):
        theta *= 1 - self.lr * self.weight_decay

    def change(self, g, state):
        step = np.sign(self.beta1 * state["m"] + (1 - self.beta1) * g)
        state["m"] = self.beta2 * state["m"] + (1 - self.beta2) * g
        return -self.lr * step


# --- one network ----------------------------------------------------------------------------------


@dataclass
class Network:
    """K layers; W[k] (N_k, N_{k-1}), b[k] (N_k,) and slope[k] (), k = 1..K, slot 0 is None.

    activations[k] is a pair (name, parameters); slope[k] is None unless the name is "prelu".
    """

    W: list
    b: list
    activations: list
    slope: list = field(default_factory=list)

    def __post_init__(self):
        if not self.slope:
            self.slope = [
                np.array(PRELU_SLOPE) if layer and layer[0] == "prelu" else None
                for layer in self.activations
            ]

    @property
    def K(self):
        return len(self.W) - 1

    def parameters(self):
        """All arrays, and which of them are weights (and so decayed)."""
        slopes = [slope for slope in self.slope if slope is not None]
        arrays = [*self.W[1:], *self.b[1:], *slopes]
        return arrays, [i < self.K for i in range(len(arrays))]


def forward(network, x, parameters):
    """n^(K) for the rows of x, of the tensors `parameters`, in the order of network.parameters."""
    K = network.K
    W, b, slopes = parameters[:K], parameters[K : 2 * K], iter(parameters[2 * K :])
    n = Tensor(x)
    for k in range(1, K + 1):
        name, options = network.activations[k]
        if name == "prelu":
            options = {"slope": next(slopes)}
        n = ACTIVATIONS[name](n @ W[k - 1].T + b[k - 1], **options)
    return n


def loss_and_grad(network, x, y, loss, options=None, sample_weight=None, reduction="mean"):
    """The loss over the batch and its gradients, in the order of network.parameters.

    mean: sum_i w_i L_i / sum_i w_i; sum: without the division.
    """
    parameters = [Tensor(array) for array in network.parameters()[0]]
    prediction = forward(network, x, parameters)
    y = target(loss, y, prediction.shape[-1])
    weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight)
    output = network.activations[-1][0]
    value = (weight * LOSSES[loss](prediction, y, output, **(options or {}))).sum()
    if reduction == "mean":
        value = value / weight.sum()
    return float(value.value), gradient(value, parameters)


def train(network, optimizer, steps, x, y, loss, **options):
    """`steps` updates of the network on one batch; returns the loss before each."""
    arrays, decayed = network.parameters()
    history = []
    for _ in range(steps):
        value, grad = loss_and_grad(network, x, y, loss, **options)
        optimizer.step(arrays, grad, decayed)
        history.append(value)
    return history
