"""The training rows on the device, and the order in which an epoch takes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpumlp import arrays, memory
from gpumlp.backend import Data
from gpumlp.backend.sources import SOURCE
from gpumlp.parameters import ALIGNMENT
from gpumlp.repeated import Repeated

MOST_ROWS = 2**31 - 1  # that an order can number
ORDER_BYTES = 4  # of each position of an order, in int32
SORTING_BYTES = 16  # of each, where the device shuffles: its key, and as much to sort it


def read(net, objective, x, y, sample_weight, kind: str = "", values: bool = True) -> Data:
    """What a user gave, checked, and still where it was.

    kind: "validation ", before the names in error messages; values: check these too, which on a
    device takes programs of CuPy's and has to wait for it.
    """
    name = f"{kind}x"
    features = arrays.features(x, name, net, finite=False)
    x = features.array
    count = check_count(x.shape[1], name)
    if net.device == "cpu" or not features.on_host:  # else they may come in pieces
        memory.check_total(net.ops, memory.copied(x, kept_dtype(net, x), net.ops))
    if values:
        arrays.check_features(features, name, net)
    y = arrays.targets(y, f"{kind}y", net, objective.loss, count, values)
    weight = arrays.weights(sample_weight, f"{kind}sample_weight", net, count, values)
    return Data(x, y.labels, y.dense, weight)


def check_count(rows: int, name: str) -> int:
    """The number of rows, which have to be numbers of int32."""
    if rows > MOST_ROWS:
        raise ValueError(f"{name} has {rows} rows; a fit takes at most {MOST_ROWS}")
    return rows


def kept(net, given: Data) -> Data:
    """The dtypes in which rows are kept."""
    return Data(kept_dtype(net, given.x), np.dtype(np.int32), net.dtype, net.dtype)


def kept_dtype(net, x) -> np.dtype:
    """That of features remains, where `gather` can read it."""
    return x.dtype if str(x.dtype) in SOURCE else net.dtype


def shapes(net, given: Data, rows: int, orders: int = 0) -> Data:
    """(shape, dtype) of each part of so many rows, or None.

    orders: networks that take the rows in different orders, for which they are kept apart.
    """
    parts = zip(given, kept(net, given), strict=True)
    return Data(
        *(
            None if a is None else ((max(len(a), orders), rows, *a.shape[2:]), dtype)
            for a, dtype in parts
        )
    )


def size(net, given: Data, rows: int, orders: int = 0) -> int:
    """Bytes of so many rows."""
    parts = [part for part in shapes(net, given, rows, orders) if part is not None]
    return sum(aligned(math.prod(shape) * dtype.itemsize) for shape, dtype in parts)


def aligned(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


def make_rows(
    net,
    objective,
    x,
    y,
    sample_weight,
    batch_size: int,
    orders: int = 1,
    kind: str = "",
    values: bool = True,
) -> Rows:
    """The rows on the device or, where it has no room for them, in host memory.

    orders: 1, or M where each network shuffles for itself; 0 if nothing is ever shuffled.
    kind, values: see `read`.
    """
    given = read(net, objective, x, y, sample_weight, kind, values)
    count = given.x.shape[1]
    batch_size = min(batch_size, count)
    positions = count * max(orders, 1)
    whole = size(net, given, count) + ORDER_BYTES * positions + SORTING_BYTES * count * orders
    room = memory.room(net, batch_size, whole)
    if room is None or arrays.is_on_gpu(given.x):
        return Rows(net, given, batch_size)
    from gpumlp import streamed  # whose rows are rows, too

    if whole <= max(room, streamed.least(net, given, batch_size, orders)):
        return Rows(net, given, batch_size)
    return streamed.Streamed(net, given, batch_size, orders, room)


class Rows:
    """Data of a fit, for all networks or each its own, and its division into batches.

    An epoch has `steps` batches of `batch_size` rows; the last may have fewer.

    order (1 or M, L) int32: where the row at each position of the epoch lies in the data, -1 for
    none; one buffer, since captured steps know its address.  L is the number of rows, R, but for
    orders that leave some out, or take some twice.  repeated: these steps, which live as long as
    the data that they read.
    """

    def __init__(self, net, given: Data, batch_size: int):
        self._divide(net, given, batch_size)
        self.order = net.ops.xp.arange(self.count, dtype=np.int32)[None]
        parts = zip(given, kept(net, given), strict=True)
        data = Data(*(arrays.settle(a, net, dtype) for a, dtype in parts))
        self.data = data._replace(x=arrays.aligned(data.x))

    def _divide(self, net, given: Data, batch_size: int):
        self._net = net
        self.count = self.length = given.x.shape[1]  # R, L
        self.batch_size = min(batch_size, self.count)
        self.repeated = Repeated(net.ops)
        self.blocks: Any = None  # of networks, in which a stack trains on them: see blocks.py

    @property
    def steps(self) -> int:
        return -(-self.length // self.batch_size)

    def batch_rows(self, i: int) -> int:
        """Rows of batch i."""
        return min(self.batch_size, self.length - i * self.batch_size)

    def alike(self, i: int) -> int:
        """Batches from i on that have as many rows, and are gathered from the same data."""
        return max(1, self.length // self.batch_size - i)

    def ready(self, i: int) -> Data:
        """The data that batch i is gathered from, by the work that is submitted next."""
        return self.data

    def pace(self):
        """A batch has been submitted: see the operation."""
        self._net.ops.pace()

    def shuffle(self, seeds, epoch: int):
        """The order of that epoch, by each network's seed."""
        self._make_order((len(seeds), self.count))
        self._net.ops.shuffle(seeds, epoch, self.order)

    def _make_order(self, shape):
        if self.order.shape != shape:
            self.order = self._net.ops.xp.empty(shape, np.int32)

    def arrange(self, order):
        """Take the rows in this order, (1 or M, L)."""
        self._make_order(order.shape)
        self.length = order.shape[1]
        self.order[...] = self._net.ops.to_device(order)
