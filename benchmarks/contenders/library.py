"""gpumlp itself."""

from __future__ import annotations

import numpy as np

import gpumlp
from benchmarks.contenders import Contender
from benchmarks.networks import ADAM
from gpumlp.rows import Rows

OUTPUT = {"cross_entropy": "softmax", "squared_error": "identity"}


class Library(Contender):
    def __init__(self, problem, device):
        super().__init__(problem, device)
        output = OUTPUT[self.network.loss]
        self.net = gpumlp.MLP(self.network.sizes, output=output, device=device)
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
            self.rows = Rows(self.net, objective, self.x, self.y, None, network.batch)

    def step(self):
        batch = slice(0, self.network.batch)
        return self.trainer.step(self.x[batch], self.y[batch])

    def epoch(self):
        # An epoch of `fit`, with its one reading of the device at the end.
        with self.ops.on_device():
            losses, weights = self.trainer.run_epoch(self.rows)
        return float(np.average(losses, weights=weights))

    def parameters(self):
        pairs = zip(self.net.W[1:], self.net.b[1:], strict=True)
        return [self.ops.to_host(array).copy() for pair in pairs for array in pair]

    def wait(self):
        if self.device != "cpu":
            with self.ops.on_device():
                self.ops.xp.cuda.get_current_stream().synchronize()
