"""gpumlp itself."""

import numpy as np

import gpumlp
from benchmarks import clock
from benchmarks.agreement import TOLERANCE, difference
from benchmarks.contenders import Contender, Declined
from benchmarks.networks import ADAM
from gpumlp.training import executors
from gpumlp.training.executors import PersistentKernel
from gpumlp.training.out_of_core import Streamed
from gpumlp.training.placement import make_rows
from gpumlp.training.rows import read

ROOM = 1 << 30  # bytes on the device that streamed data may take
OUTPUT = {"cross_entropy": "softmax", "squared_error": "identity"}


class Library(Contender):
    """tune: with the fastest of the algorithms that cuBLASLt has for each product; persistent: by
    the persistent kernel or by operations, whatever gpumlp would choose itself; streamed: epochs
    of data that stay on the host, and are sent in chunks."""

    def __init__(self, problem, device, tune=False, persistent=None, streamed=False):
        super().__init__(problem, device)
        network, self.persistent, self.streamed = self.network, persistent, streamed
        options: dict = {"tune": True} if tune else {}
        if network.precision != "float32":  # which is used where nothing is said
            options["precision"] = network.precision
        self.net = gpumlp.MLP(
            network.sizes,
            network.hidden,
            OUTPUT[network.loss],
            models=network.models,
            device=device,
            **options,
        )
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
            self.rows = self._rows(network.rows)
            if self.streamed:
                data = read(self.net, self.trainer.objective, problem.x, problem.y, None)
                self.rows = Streamed(self.net, data, network.batch, 1, ROOM)
            if self.persistent is not None:
                self.trainer.resident = self.persistent
                self.first_rows = self._rows(network.batch)
                self.in_order = self.ops.xp.arange(self.first_rows.count, dtype=np.int32)[None]
        if self.persistent and not isinstance(self._executor(), PersistentKernel):
            raise Declined("a network does not fit into shared memory")

    def _executor(self):
        """What runs the steps of an epoch."""
        trainer, rows = self.trainer, self.rows
        networks = self.net.shape, self.ops, trainer.objective, trainer.optimizer
        return executors.choose(*networks, rows.batch_size, rows.source, trainer.resident)

    def _rows(self, count: int):
        data = self.x[:count], self.y[:count]
        return make_rows(self.net, self.trainer.objective, *data, None, self.network.batch)

    def step(self):
        if self.persistent is None:
            batch = slice(0, self.network.batch)
            return self.trainer.step(self.x[batch], self.y[batch])
        # `Trainer.step` is always by operations: an epoch of one batch instead.
        with self.ops.on_device():
            return self.trainer.run_epoch(self.first_rows, self.in_order).losses[0]

    def epoch(self):
        # An epoch of `fit`, with its one reading of the device at the end.
        with self.ops.on_device():
            done = self.trainer.run_epoch(self.rows)
        # Of a stack, over its networks too.
        return float(np.average(done.losses, weights=done.weights))

    def fit(self, epochs):
        self.load()
        self.trainer.fit(self.x, self.y, epochs, progress=False)

    def to_host(self, array):
        return array if isinstance(array, np.ndarray) else self.ops.to_host(array)

    def answers(self):
        """Of a stack, also its last network must do as a network alone."""
        answers, models = super().answers(), self.net.models
        if models is not None:
            expected = Library(self.problem.alone(models - 1), self.device).answers()
            last = {
                "losses": answers["losses"][models - 1 :: models],
                "arrays": [array[-1] for array in answers["arrays"]],
            }
            by = difference(last, expected)
            if not by < TOLERANCE[self.network.precision]:
                raise ArithmeticError(f"the last network differs from one alone by {by:.1e}")
        return answers

    def parameters(self):
        pairs = zip(self.net.W[1:], self.net.b[1:], strict=True)
        return [self.ops.to_host(array).copy() for pair in pairs for array in pair]

    def wait(self):
        clock.wait(self.ops)
