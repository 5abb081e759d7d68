"""The networks that are trained, their data, and the weights from which every contender starts."""

from __future__ import annotations

import copy
import itertools
from typing import NamedTuple

import numpy as np

# eps is larger than usual: with 1e-8, Adam turns rounding errors of gradients near 0 into whole
# steps, and answers could not be compared.  It costs the same time.
ADAM = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-5}


class Network(NamedTuple):
    """Softmax at the output for cross_entropy, identity for squared_error."""

    sizes: tuple[int, ...]
    batch: int
    rows: int
    loss: str = "cross_entropy"
    hidden: str = "relu"
    precision: str = "float32"
    models: int | None = None  # or so many networks at once, of different weights, on the same rows
    digits: bool = False  # rows are scikit-learn's, 1,797 of 8 x 8 pixels

    @property
    def name(self) -> str:
        """Sizes, and what is not as usual."""
        unusual = [self.hidden] * (self.hidden != "relu")
        unusual += [self.precision] * (self.precision != "float32")
        unusual += [f"{self.models or 0:,} networks"] * (self.models is not None)
        return " ".join(["-".join(map(str, self.sizes)), *unusual])

    @property
    def label(self) -> str:
        return f"{self.name}, {self.batch:,} of {self.rows:,} rows"

    @property
    def count(self) -> int:
        """Parameters of one network."""
        return sum(b * (a + 1) for a, b in itertools.pairwise(self.sizes))

    def problem(self) -> Problem:
        return Problem(self)


NETWORKS = (
    Network((64, 100, 10), 200, 1_797),
    Network((784, 256, 128, 10), 128, 12_800),
    Network((784, 2048, 2048, 10), 256, 2_560),
    # Two classes would be one output in scikit-learn; two numbers to predict are two everywhere.
    Network((20, 64, 64, 2), 1024, 102_400, "squared_error"),
)
SMALLEST, MIDDLE, WIDE, LONG = NETWORKS

# On a GPU also one whose time is its GEMMs', in each precision that the peers have too.
LARGE = tuple(
    Network((1024, 4096, 4096, 4096, 1000), 8192, 4 * 8192, precision=precision)
    for precision in ("float32", "tf32", "bf16")
)
FITS = Network((64, 64, 10), 200, 1_797, models=32, digits=True)


class Problem:
    """x (R, N_0) and y, labels (R,) or numbers (R, N_K), from a teacher that can be learned;
    W[k] ([M,] N_k, N_{k-1}) and b[k] ([M,] N_k), k = 1..K; slot 0 is None.  All the same in every
    process."""

    def __init__(self, network: Network):
        self.network = network
        sizes, rng = network.sizes, np.random.default_rng(0)
        models = () if network.models is None else (network.models,)

        def normal(*shape):
            return rng.standard_normal(shape, dtype=np.float32)

        if network.digits:
            self.x, self.y = (array[: network.rows] for array in digits())
        else:
            self.x = normal(network.rows, sizes[0])
            scores = self.x @ normal(sizes[0], sizes[-1]) / np.float32(np.sqrt(sizes[0]))
            labelled = network.loss == "cross_entropy"
            self.y = scores.argmax(axis=1).astype(np.int32) if labelled else np.tanh(scores)
        self.W: list = [None]
        self.b: list = [None]
        for fan_in, fan_out in itertools.pairwise(sizes):
            self.W.append(normal(*models, fan_out, fan_in) / np.float32(np.sqrt(fan_in)))
            self.b.append(normal(*models, fan_out) / np.float32(10))

    def alone(self, m: int) -> Problem:
        """Network m of a stack by itself, on the same arrays."""
        one = copy.copy(self)
        one.network = self.network._replace(models=None)
        one.W, one.b = ([None, *(array[m] for array in of[1:])] for of in (self.W, self.b))
        return one


def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits: pixels from 0 to 1 in float32, and labels."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y.astype(np.int32)
