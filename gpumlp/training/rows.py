"""The training rows on the device, and the order in which an epoch takes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpumlp.backend.contract import Array, Data
from gpumlp.backend.layout import ALIGNMENT
from gpumlp.backend.reference.numpy_ops import NumpyOps
from gpumlp.backend.sources import SOURCE
from gpumlp.backend.sparse_rows import SparseRows
from gpumlp.model import arrays, memory
from gpumlp.model.blocks import shared
from gpumlp.model.graph_cache import GraphCache

MOST_ROWS = 2**31 - 1  # that an order can number


def read(net, objective, x, y, sample_weight, kind: str = "", values: bool = True) -> Data:
    """Check a user's arrays, which stay where they are.

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
    """The number of rows; raises ValueError for more than an int32 can number."""
    if rows > MOST_ROWS:
        raise ValueError(f"{name} has {rows} rows; a fit takes at most {MOST_ROWS}")
    return rows


def kept(net, data: Data) -> Data:
    """The dtypes in which rows are kept."""
    x = None if data.x is None else kept_dtype(net, data.x)
    return Data(x, np.dtype(np.int32), net.dtype, net.dtype)


def kept_dtype(net, x) -> np.dtype:
    """The dtype in which features are kept: their own where `gather` can read it."""
    if isinstance(x, SparseRows):
        return net.dtype
    return x.dtype if str(x.dtype) in SOURCE else net.dtype


def shapes(net, data: Data, rows: int, orders: int = 0) -> Data:
    """The (shape, dtype) of each part of so many rows, or None.

    orders: networks that take the rows in different orders, for which they are kept apart.
    """
    parts = zip(data, kept(net, data), strict=True)
    return Data(
        *(
            None if a is None else ((max(len(a), orders), rows, *a.shape[2:]), dtype)
            for a, dtype in parts
        )
    )


def size(net, data: Data, rows: int, orders: int = 0) -> int:
    """The bytes of so many rows; orders: see `shapes`."""
    parts: list[Any] = []
    if isinstance(data.x, SparseRows):
        parts = sparse_shapes(net, data.x, rows, orders)
        data = data._replace(x=None)
    parts += [part for part in shapes(net, data, rows, orders) if part is not None]
    return sum(aligned(math.prod(shape) * dtype.itemsize) for shape, dtype in parts)


def sparse_shapes(net, x: SparseRows, rows: int, orders: int = 0) -> list[tuple[tuple, np.dtype]]:
    """The (shape, dtype) of values, columns and starts of so many sparse rows, be they the fullest;
    orders: see `shapes`."""
    lengths, copies = x.starts[1:] - x.starts[:-1], max(1, orders)
    most = len(x.values) if rows >= len(lengths) else int(np.sort(lengths)[-rows:].sum())
    places = (copies * most,), (copies * most,), (copies * rows + 1,)
    return list(zip(places, map(np.dtype, (net.dtype, np.int32, np.int64)), strict=True))


def aligned(length: int) -> int:
    """The next multiple of the alignment."""
    return -(-length // ALIGNMENT) * ALIGNMENT


class Rows:
    """The data of a fit, shared by all networks or each its own, divided into batches.

    An epoch has `steps` batches of `batch_size` rows; the last may have fewer.

    order (1 or M, L) int32: where the row at each position of the epoch lies in the data, -1 for
    none; one buffer, since captured steps know its address.  L is the number of rows, R, but for
    orders that leave some out, or take some twice.
    graphs: captured steps, which live as long as the data that they read.
    parts: of the blocks of a stack, see `executors.NetworkBlocks`.
    executor: what one was chosen for, and the executor.
    chosen (M, L) int32, on the host: the rows that each network takes; None: all.
    """

    def __init__(self, ops: Any, data: Data, batch_size: int, order: Array | None = None):
        """data: on the device."""
        self._begin(ops, data.x.shape[1], batch_size)
        self.data = data
        if order is None:
            order = ops.xp.arange(self.count, dtype=np.int32)[None]
        self.order, self.length = order, order.shape[1]

    @classmethod
    def send(cls, net, data: Data, batch_size: int) -> Rows:
        """Copy what `read` returned to the network's device."""
        parts = zip(data, kept(net, data), strict=True)
        sent = Data(*(arrays.to_device(a, net, dtype) for a, dtype in parts))
        if not isinstance(sent.x, SparseRows):
            sent = sent._replace(x=arrays.aligned(sent.x))
        return cls(net.ops, sent, batch_size)

    count: int

    def _begin(self, ops: Any, count: int, batch_size: int):
        self._ops = ops
        self.count = self.length = count  # R, L
        self.batch_size = min(batch_size, count)
        self.graphs = GraphCache(ops)
        self.parts: Any = None
        self.executor: Any = None
        self.chosen: np.ndarray | None = None

    def take(self, members: slice) -> Rows:
        """The rows of some networks of the stack."""
        data = Data(*(shared(array, members) for array in self.data))
        return Rows(self._ops, data, self.batch_size, shared(self.order, members))

    @property
    def steps(self) -> int:
        return -(-self.length // self.batch_size)

    @property
    def source(self) -> np.dtype | None:
        """The dtype of features that all lie on the device; else None."""
        return self.data.x.dtype

    def batch_rows(self, i: int) -> int:
        """Rows of batch i."""
        return min(self.batch_size, self.length - i * self.batch_size)

    def equal_batches_from(self, i: int) -> int:
        """The number of batches from i on with as many rows, gathered from the same data."""
        return max(1, self.length // self.batch_size - i)

    def ready(self, i: int) -> Data:
        """The data that batch i is gathered from, ready for the work that is submitted next."""
        return self.data

    def pace(self):
        """Call the operation `pace`, after each batch."""
        self._ops.pace()

    def shuffle(self, seeds, epoch: int):
        """Draw the order of an epoch, by each network's seed."""
        if self.chosen is not None:
            self.arrange(self._shuffled_on_host(seeds, epoch))
            return
        self._make_order((len(seeds), self.count))
        self._ops.shuffle(seeds, epoch, self.order)

    def choose(self, numbers: np.ndarray):
        """Let each network take only the rows of these numbers (M, L), each in an order of its own.

        The order is made on the host: it is that of L rows, which then are looked up."""
        self.chosen = np.asarray(numbers, np.int32)
        self.arrange(self.chosen)

    def _shuffled_on_host(self, seeds, epoch: int) -> np.ndarray:
        """The order of that epoch, as `shuffle` makes it, of the rows that were chosen, else of
        all; on the host and for one network after the other, since keys take more room."""
        seeds = self._ops.to_host(seeds)
        rows = self.count if self.chosen is None else self.chosen.shape[1]
        order = np.empty((len(seeds), rows), np.int32)
        for m in range(len(seeds)):
            NumpyOps().shuffle(seeds[m : m + 1], epoch, order[m : m + 1])
        return order if self.chosen is None else np.take_along_axis(self.chosen, order, axis=1)

    @property
    def arrays(self) -> tuple:
        """x, y and weights on the device, as `make_rows` takes them."""
        x, labels, dense, weight = self.data
        parts = x, dense if labels is None else labels, weight
        shared = (a is not None and len(a) == 1 and not isinstance(a, SparseRows) for a in parts)
        return tuple(a[0] if one else a for a, one in zip(parts, shared, strict=True))

    def _make_order(self, shape):
        if self.order.shape != shape:
            self.order = self._ops.xp.empty(shape, np.int32)

    def arrange(self, order):
        """Take the rows in this order, (1 or M, L)."""
        self._make_order(order.shape)
        self.length = order.shape[1]
        self.order[...] = self._ops.to_device(order)
