"""JAX: the whole step, gathering included, is one jitted function."""

from __future__ import annotations

import functools
import os

# Other contenders use the same GPU.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.contenders import Contender
from benchmarks.networks import ADAM

# Without this, float32 products are TF32 on a GPU.
jax.config.update("jax_default_matmul_precision", "highest")


def _forward(theta, x):
    *hidden, (W, b) = theta
    for hidden_W, hidden_b in hidden:
        x = jax.nn.relu(x @ hidden_W.T + hidden_b)
    return x @ W.T + b


def _cross_entropy(theta, x, y):
    log_p = jax.nn.log_softmax(_forward(theta, x))
    return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean()


def _squared_error(theta, x, y):
    return 0.5 * jnp.square(_forward(theta, x) - y).sum(axis=1).mean()


LOSSES = {"cross_entropy": _cross_entropy, "squared_error": _squared_error}


def _update(loss, theta, state, x, y):
    """One step of Adam: the loss before it, the new parameters and the new state."""
    first, second, t = state
    beta1, beta2 = ADAM["beta1"], ADAM["beta2"]
    value, grad = jax.value_and_grad(loss)(theta, x, y)
    t = t + 1
    root = jnp.sqrt(1 - beta2**t)
    a, e = ADAM["lr"] * root / (1 - beta1**t), ADAM["eps"] * root
    first = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, first, grad)
    second = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, second, grad)
    theta = jax.tree.map(lambda w, m, v: w - a * m / (jnp.sqrt(v) + e), theta, first, second)
    return value, theta, (first, second, t)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
def _step(loss, theta, state, x, y):
    return _update(loss, theta, state, x, y)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3, 4))
def _epoch_step(loss, rows, total, theta, state, order, start, x, y):
    """The step on the rows at order[start : start + rows]; its loss is added to the total."""
    index = lax.dynamic_slice_in_dim(order, start, rows)
    value, theta, state = _update(loss, theta, state, x[index], y[index])
    return total + value * rows, theta, state


class Jit(Contender):
    def __init__(self, problem, device):
        super().__init__(problem, device)
        kind, _, number = device.partition(":")
        self.place = jax.devices("cpu" if kind == "cpu" else "gpu")[int(number or 0)]
        self.x, self.y = self._put(problem.x), self._put(problem.y)
        batch = self.network.batch
        self.first_batch = self.x[:batch], self.y[:batch]
        self.loss = LOSSES[self.network.loss]
        with jax.default_device(self.place):
            self.key = jax.random.key(0)

    def _put(self, array):
        return jax.device_put(array, self.place)

    def load(self):
        pairs = zip(self.problem.W[1:], self.problem.b[1:], strict=True)
        self.theta = [(self._put(W), self._put(b)) for W, b in pairs]
        first, second = (jax.tree.map(jnp.zeros_like, self.theta) for _ in range(2))
        self.state = first, second, self._put(np.float32(0))

    def step(self):
        value, self.theta, self.state = _step(self.loss, self.theta, self.state, *self.first_batch)
        return value

    def epoch(self):
        network = self.network
        self.key, key = jax.random.split(self.key)
        order = jax.random.permutation(key, network.rows)
        total = self._put(np.float32(0))
        for start in range(0, network.rows, network.batch):
            total, self.theta, self.state = _epoch_step(
                self.loss,
                min(network.batch, network.rows - start),
                total,
                self.theta,
                self.state,
                order,
                start,
                self.x,
                self.y,
            )
        return float(total) / network.rows

    def parameters(self):
        return [np.array(array) for pair in self.theta for array in pair]

    def wait(self):
        jax.block_until_ready((self.theta, self.state))
