"""gpumlp itself."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

import gpumlp
from benchmarks.agreement import TOLERANCE, difference
from benchmarks.contenders import Contender
from benchmarks.networks import ADAM
from gpumlp.training.placement import make_rows

OUTPUT = {"cross_entropy": "softmax", "squared_error": "identity"}


def make_network(network, device: str, **options) -> gpumlp.MLP:
    # float32 is what is used where nothing is said.
    if network.precision != "float32":
        options["precision"] = network.precision
    return gpumlp.MLP(
        network.sizes,
        network.hidden,
        OUTPUT[network.loss],
        models=network.models,
        device=device,
        **options,
    )


class Library(Contender):
    options: ClassVar[dict] = {}  # of the network

    def __init__(self, problem, device):
        super().__init__(problem, device)
        self.net = make_network(self.network, device, **self.options)
        self.ops = self.net.ops
        with self.ops.on_device():
            self.x, self.y = self.ops.to_device(problem.x), self.ops.to_device(problem.y)

    def load(self):
        problem, network = self.problem, self.network
        with self.ops.on_device():
            for k in range(1, self.net.K + 1):
                self.net.W[k][...] = self.ops.to_device(problem.W[k])
                self.net.b[k][...] = self.ops.to_device(problem.b[k])
            optimizer = gpumlp.Adam(**ADAM)
            self.trainer = gpumlp.Trainer(
                self.net, loss=network.loss, optimizer=optimizer, batch_size=network.batch
            )
            objective = self.trainer.objective
            self.rows = make_rows(self.net, objective, self.x, self.y, None, network.batch)

    def step(self):
        batch = slice(0, self.network.batch)
        return self.trainer.step(self.x[batch], self.y[batch])

    def epoch(self):
        # An epoch of `fit`, with its one reading of the device at the end.
        with self.ops.on_device():
            done = self.trainer.run_epoch(self.rows)
        # Of a stack, over its networks too.
        return float(np.average(done.losses, weights=done.weights))

    def fit(self, epochs):
        self.load()
        self.trainer.fit(self.x, self.y, epochs, progress=False)

    def predict(self, rows):
        return self.net.forward(self.x[:rows])

    def to_host(self, array):
        return self.ops.to_host(array)

    def answers(self):
        """Of a stack, also its last network must do as a network alone."""
        found = super().answers()
        models = self.net.models
        if models is not None:
            expected = Library(self.problem.alone(models - 1), self.device).answers()
            last = {
                "losses": found["losses"][models - 1 :: models],
                "arrays": [array[-1] for array in found["arrays"]],
            }
            by = difference(last, expected)
            if not by < TOLERANCE[self.network.precision]:
                raise ArithmeticError(f"the last network differs from one alone by {by:.1e}")
        return found

    def parameters(self):
        pairs = zip(self.net.W[1:], self.net.b[1:], strict=True)
        return [self.ops.to_host(array).copy() for pair in pairs for array in pair]

    def wait(self):
        if self.device != "cpu":
            with self.ops.on_device():
                self.ops.xp.cuda.get_current_stream().synchronize()


class Tuned(Library):
    """With the fastest of the algorithms that cuBLASLt has for each product."""

    options: ClassVar[dict] = {"tune": True}
