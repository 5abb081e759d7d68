"""The networks of a stack one after another, for those that have no way to train many at once."""

import numpy as np

from benchmarks.contenders import ENTRIES, Contender, Declined


class Loop(Contender):
    """of: the name of the contender that trains each network."""

    def __init__(self, problem, device, of: str):
        super().__init__(problem, device)
        if self.network.models is None:
            raise Declined("it is for many networks")
        networks = range(self.network.models)
        self.singles = [ENTRIES[of].make(problem.alone(m), device) for m in networks]
        for other in self.singles[1:]:  # the rows are there once
            if hasattr(other, "x"):
                other.x, other.y = self.singles[0].x, self.singles[0].y

    def load(self):
        for single in self.singles:
            single.load()

    def step(self):
        return [single.to_host(single.step()) for single in self.singles]

    def epoch(self):
        return float(np.mean([single.epoch() for single in self.singles]))

    def fit(self, epochs):
        for single in self.singles:
            single.fit(epochs)

    def parameters(self):
        by_array = zip(*(single.parameters() for single in self.singles), strict=True)
        return [np.stack(arrays) for arrays in by_array]

    def wait(self):
        self.singles[0].wait()
