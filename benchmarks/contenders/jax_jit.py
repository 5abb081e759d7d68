"""JAX: a step is one jitted function, and an epoch another, by lax.scan."""

from __future__ import annotations

import functools
import os
from typing import NamedTuple

# Other contenders use the same GPU.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.contenders import Contender, Declined
from benchmarks.networks import ADAM

# Where nothing is said, float32 products are TF32 on a GPU.
MATMUL_PRECISION = {"float32": "highest", "tf32": "tensorfloat32", "bf16": "highest"}
ACTIVATIONS = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "sigmoid": jax.nn.sigmoid,
}


class Model(NamedTuple):
    """What the functions below are compiled for."""

    hidden: str
    loss: str
    bf16: bool  # operands of products; everything else is float32

    def forward(self, theta, x):
        *hidden, (W, b) = theta
        for hidden_W, hidden_b in hidden:
            x = ACTIVATIONS[self.hidden](self._product(x, hidden_W) + hidden_b)
        return self._product(x, W) + b

    def _product(self, x, W):
        if not self.bf16:
            return x @ W.T
        x, W = x.astype(jnp.bfloat16), W.astype(jnp.bfloat16)
        return jnp.matmul(x, W.T, preferred_element_type=jnp.float32)

    def value(self, theta, x, y):
        output = self.forward(theta, x)
        if self.loss == "squared_error":
            return 0.5 * jnp.square(output - y).sum(axis=1).mean()
        log_p = jax.nn.log_softmax(output)
        return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean()

    def update(self, theta, state, x, y):
        """One step of Adam: the loss before it, the new parameters and the new state."""
        first, second, t = state
        beta1, beta2 = ADAM["beta1"], ADAM["beta2"]
        value, grad = jax.value_and_grad(self.value)(theta, x, y)
        t = t + 1
        root = jnp.sqrt(1 - beta2**t)
        a, e = ADAM["lr"] * root / (1 - beta1**t), ADAM["eps"] * root
        first = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, first, grad)
        second = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, second, grad)
        theta = jax.tree.map(lambda w, m, v: w - a * m / (jnp.sqrt(v) + e), theta, first, second)
        return value, theta, (first, second, t)


@functools.partial(jax.jit, static_argnums=0)
def _predict(model, theta, x):
    output = model.forward(theta, x)
    return jax.nn.softmax(output) if model.loss == "cross_entropy" else output


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
def _step(model, theta, state, x, y):
    return model.update(theta, state, x, y)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3))
def _epoch(model, batch, theta, state, key, x, y):
    """All steps in a new order: the sum of the losses of all rows."""
    order = jax.random.permutation(key, len(x))
    whole = len(x) // batch * batch

    def step(carried, index):
        value, *carried = model.update(*carried, x[index], y[index])
        return tuple(carried), value * len(index)

    carried, losses = lax.scan(step, (theta, state), order[:whole].reshape(-1, batch))
    total = losses.sum()
    if whole < len(x):
        carried, loss = step(carried, order[whole:])
        total += loss
    return total, *carried


class Jax(Contender):
    def __init__(self, problem, device):
        super().__init__(problem, device)
        network = self.network
        if network.models is not None:
            raise Declined("its functions are written for one network")
        jax.config.update("jax_default_matmul_precision", MATMUL_PRECISION[network.precision])
        kind, _, number = device.partition(":")
        self.place = jax.devices("cpu" if kind == "cpu" else "gpu")[int(number or 0)]
        self.x, self.y = self._put(problem.x), self._put(problem.y)
        self.first_batch = self.x[: network.batch], self.y[: network.batch]
        self.model = Model(network.hidden, network.loss, network.precision == "bf16")
        with jax.default_device(self.place):
            self.key = jax.random.key(0)
        self.inputs: dict = {}  # of predictions
        self.predicted = None

    def _put(self, array):
        return jax.device_put(array, self.place)

    def load(self):
        pairs = zip(self.problem.W[1:], self.problem.b[1:], strict=True)
        self.theta = [(self._put(W), self._put(b)) for W, b in pairs]
        first, second = (jax.tree.map(jnp.zeros_like, self.theta) for _ in range(2))
        self.state = first, second, self._put(np.float32(0))

    def step(self):
        value, self.theta, self.state = _step(self.model, self.theta, self.state, *self.first_batch)
        return value

    def epoch(self):
        self.key, key = jax.random.split(self.key)
        batch = min(self.network.batch, self.network.rows)
        arguments = self.model, batch, self.theta, self.state, key, self.x, self.y
        total, self.theta, self.state = _epoch(*arguments)
        return float(total) / self.network.rows

    def predict(self, rows):
        if rows not in self.inputs:
            self.inputs[rows] = self.x[:rows]  # a slice is a copy
        self.predicted = _predict(self.model, self.theta, self.inputs[rows])
        return self.predicted

    def to_host(self, array):
        return np.array(array)

    def parameters(self):
        return [np.array(array) for pair in self.theta for array in pair]

    def wait(self):
        jax.block_until_ready((self.theta, self.state, self.predicted))
