"""The training rows on the device, and the order in which an epoch takes them."""

from __future__ import annotations

import numpy as np

from gpumlp import arrays
from gpumlp.backend import Data
from gpumlp.backend.sources import SOURCE
from gpumlp.repeated import Repeated


class Rows:
    """Data of a fit, for all networks or each its own, and its division into batches.

    An epoch has `steps` batches of `batch_size` rows; the last may have fewer.

    order (1 or M, R) int32: the row at each position of the epoch; one buffer, since captured steps
    know its address.  repeated: these steps, which live as long as the data that they read.
    """

    def __init__(self, net, objective, x, y, sample_weight, batch_size: int, kind: str = ""):
        """kind: "validation ", before the names in error messages."""
        given = arrays.features(x, f"{kind}x", net)
        self._net = net
        self.count = given.array.shape[1]
        y = arrays.targets(y, f"{kind}y", net, objective.loss, self.count)
        weight = arrays.weights(sample_weight, f"{kind}sample_weight", net, self.count)
        array = given.array
        kept = str(array.dtype) if str(array.dtype) in SOURCE else net.dtype
        self.data = Data(
            arrays.aligned(arrays.settle(array, net, kept)),
            arrays.settle(y.labels, net, np.int32),
            arrays.settle(y.dense, net),
            arrays.settle(weight, net),
        )
        self.batch_size = min(batch_size, self.count)
        self.steps = -(-self.count // self.batch_size)
        self.order = net.ops.xp.arange(self.count, dtype=np.int32)[None]
        self.repeated = Repeated(net.ops)

    def batch_rows(self, i: int) -> int:
        """Rows of batch i."""
        return min(self.batch_size, self.count - i * self.batch_size)

    def shuffle(self, seeds, epoch: int):
        """The order of that epoch, by each network's seed."""
        keys = self._net.ops.shuffle_keys(seeds, epoch, self.count)
        self.arrange(self._net.ops.xp.sort(keys, axis=1) & np.uint64(0xFFFFFFFF))

    def arrange(self, order):
        """Take the rows in this order, (1 or M, R) on the device."""
        if len(self.order) != len(order):
            self.order = self._net.ops.xp.empty(order.shape, np.int32)
        self.order[...] = order
