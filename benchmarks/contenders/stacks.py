"""Many networks of one shape: gpumlp's two ways to train them at once on a GPU, and those that have
no such way, one after another."""

from __future__ import annotations

import numpy as np

from benchmarks.contenders import (
    EAGER,
    ENTRIES,
    LIBRARY,
    SCIKIT_LEARN,
    Contender,
    Declined,
)
from benchmarks.contenders.library import Library
from gpumlp.training import persistent
from gpumlp.training.placement import make_rows


class OneWay(Library):
    """gpumlp by one of its two ways, whatever it would choose itself."""

    resident: bool

    def load(self):
        super().load()
        trainer, batch = self.trainer, self.network.batch
        trainer.resident = self.resident
        with self.ops.on_device():
            first = self.x[:batch], self.y[:batch]
            self.first_rows = make_rows(self.net, trainer.objective, *first, None, batch)
            self.as_they_are = self.ops.xp.arange(self.first_rows.count, dtype=np.int32)[None]

    def step(self):
        """An epoch of one batch: `Trainer.step` is always by operations."""
        with self.ops.on_device():
            done = self.trainer.run_epoch(self.first_rows, self.as_they_are)
        return done.losses[0]

    def to_host(self, array):
        return array if isinstance(array, np.ndarray) else super().to_host(array)


class Operations(OneWay):
    resident = False


class Resident(OneWay):
    resident = True

    def load(self):
        super().load()
        if persistent.launcher(self.trainer, self.rows) is None:
            raise Declined("a network does not fit into shared memory")


class Loop(Contender):
    """The networks one after another, each by a contender for one network."""

    of: str

    def __init__(self, problem, device):
        super().__init__(problem, device)
        if problem.network.models is None:
            raise Declined("it is for many networks")
        cls = next(entry for entry in ENTRIES if entry.name == self.of).load()
        self.each = [cls(problem.alone(m), device) for m in range(problem.network.models)]
        for other in self.each[1:]:  # the rows are there once
            if hasattr(other, "x"):
                other.x, other.y = self.each[0].x, self.each[0].y

    def load(self):
        for one in self.each:
            one.load()

    def step(self):
        return [one.to_host(one.step()) for one in self.each]

    def epoch(self):
        return float(np.mean([one.epoch() for one in self.each]))

    def fit(self, epochs):
        for one in self.each:
            one.fit(epochs)

    def parameters(self):
        return [
            np.stack(arrays)
            for arrays in zip(*(one.parameters() for one in self.each), strict=True)
        ]

    def wait(self):
        self.each[0].wait()


class LibraryLoop(Loop):
    of = LIBRARY


class ScikitLearnLoop(Loop):
    of = SCIKIT_LEARN


class EagerLoop(Loop):
    of = EAGER
