"""JAX: a step is one jitted function, and an epoch another, by lax.scan."""

import functools
import os

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


def product(network, x, W):
    """x W^T; in bf16 its operands are, and everything else is float32."""
    if network.precision != "bf16":
        return x @ W.T
    x, W = x.astype(jnp.bfloat16), W.astype(jnp.bfloat16)
    return jnp.matmul(x, W.T, preferred_element_type=jnp.float32)


def forward(network, theta, x):
    *hidden, (W, b) = theta
    for hidden_W, hidden_b in hidden:
        x = ACTIVATIONS[network.hidden](product(network, x, hidden_W) + hidden_b)
    return product(network, x, W) + b


def loss(theta, network, x, y):
    output = forward(network, theta, x)
    if network.loss == "squared_error":
        return 0.5 * jnp.square(output - y).sum(axis=1).mean()
    return -jnp.take_along_axis(jax.nn.log_softmax(output), y[:, None], axis=1).mean()


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
def update(network, theta, state, x, y):
    """One step of Adam: the loss before it, the new parameters and the new state."""
    first, second, t = state
    beta1, beta2 = ADAM["beta1"], ADAM["beta2"]
    value, grad = jax.value_and_grad(loss)(theta, network, x, y)
    t = t + 1
    root = jnp.sqrt(1 - beta2**t)
    a, e = ADAM["lr"] * root / (1 - beta1**t), ADAM["eps"] * root
    first = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, first, grad)
    second = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, second, grad)
    theta = jax.tree.map(lambda w, m, v: w - a * m / (jnp.sqrt(v) + e), theta, first, second)
    return value, theta, (first, second, t)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
def epoch(network, theta, state, key, x, y):
    """All steps in a new order: the sum of the losses of all rows."""
    order = jax.random.permutation(key, len(x))
    whole = len(x) // network.batch * network.batch

    def step(carried, index):
        value, *carried = update(network, *carried, x[index], y[index])
        return tuple(carried), value * len(index)

    batches = order[:whole].reshape(-1, network.batch)
    carried, losses = lax.scan(step, (theta, state), batches)
    total = losses.sum()
    if whole < len(x):
        carried, value = step(carried, order[whole:])
        total += value
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
        self.x, self.y, self.key = self.put((problem.x, problem.y, jax.random.key(0)))
        self.first_batch = self.x[: network.batch], self.y[: network.batch]

    def put(self, tree):
        return jax.device_put(tree, self.place)

    def load(self):
        self.theta = self.put(list(zip(self.problem.W[1:], self.problem.b[1:], strict=True)))
        first, second = (jax.tree.map(jnp.zeros_like, self.theta) for _ in range(2))
        self.state = first, second, self.put(np.float32(0))

    def step(self):
        arguments = self.network, self.theta, self.state, *self.first_batch
        value, self.theta, self.state = update(*arguments)
        return value

    def epoch(self):
        self.key, key = jax.random.split(self.key)
        arguments = self.network, self.theta, self.state, key, self.x, self.y
        total, self.theta, self.state = epoch(*arguments)
        return float(total) / self.network.rows

    def parameters(self):
        return [np.array(array) for array in jax.tree.leaves(self.theta)]

    def wait(self):
        jax.block_until_ready((self.theta, self.state))
