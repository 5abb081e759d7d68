"""The training rows on the device, and the order in which an epoch takes them."""

from __future__ import annotations

import numpy as np

from gpumlp import arrays
from gpumlp.backend import Batch, Data
from gpumlp.backend.sources import SOURCE


class Rows:
    """Data of a fit, for all networks or each its own, and its division into batches.

    An epoch has `steps` batches of `batch_size` rows; the last may have fewer.
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
            _aligned(arrays.settle(array, net, kept)),
            arrays.settle(y.labels, net, np.int32),
            arrays.settle(y.dense, net),
            arrays.settle(weight, net),
        )
        self.batch_size = min(batch_size, self.count)
        self.steps = -(-self.count // self.batch_size)
        self._natural = None

    def batch_rows(self, i: int) -> int:
        """Rows of batch i."""
        return min(self.batch_size, self.count - i * self.batch_size)

    def batch(self, ws) -> Batch:
        """The workspace's buffers for a minibatch of this data."""
        data = self.data
        return Batch(
            ws.x,
            ws.labels if data.labels is not None else None,
            ws.dense if data.dense is not None else None,
            ws.w,
            ws.w_sum,
        )

    def order(self, seeds, epoch: int):
        """The row at each position of an epoch, (1 or M, R) int32: shuffled by each network's seed,
        or as the rows stand if seeds is None."""
        xp = self._net.ops.xp
        if seeds is None:
            if self._natural is None:
                self._natural = xp.arange(self.count, dtype=np.int32)[None]
            return self._natural
        keys = self._net.ops.shuffle_keys(seeds, epoch, self.count)
        return (xp.sort(keys, axis=1) & np.uint64(0xFFFFFFFF)).astype(np.int32)


def _aligned(x):
    """`gather` reads packs of up to 32 bytes; a user's view on the device may begin anywhere."""
    on_device = hasattr(x, "__cuda_array_interface__")
    return x.copy() if on_device and x.data.ptr % 32 else x
