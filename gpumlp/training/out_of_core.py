"""Training rows that do not fit on the device: pieces of the epoch are sent while it computes.

An epoch is cut into pieces of whole batches.  The host gathers the rows of a piece in the epoch's
order, on all its cores, into page-locked memory, from where they go to one of two buffers on the
device; while that happens the device computes on the other.  Nobody waits but for a buffer that is
still in use.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpumlp.backend.contract import Array, Data
from gpumlp.backend.cpu import pool
from gpumlp.backend.sparse_rows import SparseRows
from gpumlp.model import memory
from gpumlp.model.memory import ORDER_BYTES, SORTING_BYTES
from gpumlp.training.rows import Rows, aligned, shapes, size, sparse_shapes

# A piece takes so much, or this part of what is free: enough to hide the latency of a copy.
PIECE_BYTES = 64 << 20
MOST_BATCHES = 64  # of a piece: an interrupt waits for what has been submitted, of two pieces
PART_OF_FREE = 16
# That one thread gathers at a time: many times what it takes to hand the work to it.
SHARE_BYTES = 2 << 20


def least(net, data: Data, batch_size: int, orders: int) -> int:
    """The fewest bytes on the device: of an order, and two pieces of a single batch."""
    return ORDER_BYTES * data.x.shape[1] + 2 * size(net, data, batch_size, orders)


class Streamed(Rows):
    """Rows in host memory, of which the device holds two pieces.

    order (1, R) is the position within the piece, the same in all epochs.  Data that all networks
    share are sent to each apart where each has an order of its own.
    """

    def __init__(self, net, data: Data, batch_size: int, orders: int, room: int):
        """orders: see `make_rows`; room: bytes on the device that these rows may take."""
        ops = net.ops
        self._x: Any = data.x if isinstance(data.x, SparseRows) else None
        dense = data if self._x is None else data._replace(x=None)
        if self._x is not None:  # its rows and their targets have the same numbers
            orders = max(orders, *(len(part) for part in dense if part is not None))
        self._begin(ops, data.x.shape[1], batch_size)
        needed = least(net, data, self.batch_size, orders)
        if needed > room:
            message = f"two pieces of {self.batch_size} rows of the data take {memory.text(needed)}"
            raise memory.NoRoomForPieces(message, needed)
        self._data = Data(*(None if a is None else ops.to_host(a) for a in dense))
        batch_bytes = size(net, data, self.batch_size, orders)
        order_bytes = ORDER_BYTES * self.count
        wanted = min(PIECE_BYTES, room // PART_OF_FREE, (room - order_bytes) // 2)
        most = min(MOST_BATCHES, max(1, wanted // batch_bytes))
        pieces = math.ceil(self.steps / most)
        self._batches = math.ceil(self.steps / pieces)  # of a piece
        rows = self._batches * self.batch_size
        self._parts: list[Any] = list(shapes(net, dense, rows, orders))
        if self._x is not None:
            self._parts += sparse_shapes(net, self._x, rows, orders)
            self._lengths = np.diff(self._x.starts)
        piece_bytes = size(net, data, rows, orders)
        left = room - order_bytes - 2 * piece_bytes
        self._sorted_there = (SORTING_BYTES + ORDER_BYTES) * self.count <= left
        self._make_pieces()
        self._turn = 0  # the transfer that was used last
        self._piece: int | None = None  # that it holds
        self._order: np.ndarray | None = None  # (1 or M, R) of the running epoch; None: as given
        self._orders = max(1, orders)
        self._piece_rows = rows
        self.order = self._positions(self.count)

    def _make_pieces(self):
        """Make the two buffers of a piece, here and on the device."""
        parts = (part for part in self._parts if part is not None)
        piece_bytes = sum(aligned(math.prod(shape) * dtype.itemsize) for shape, dtype in parts)
        self._transfers = self._ops.transfers(piece_bytes)
        self._host = [_views(transfer.host, self._parts) for transfer in self._transfers]
        self._device = [
            self._piece_data(_views(transfer.array, self._parts)) for transfer in self._transfers
        ]

    def _make_room(self, order: np.ndarray):
        """Make larger pieces where an order takes full rows so often that one would not have room
        for their non-zeros."""
        if max(int(np.bincount(row).max()) for row in order) < 2:
            return
        fullest = (np.sort(self._lengths[row])[-self._piece_rows :].sum() for row in order)
        places = int(max(fullest)) * self._orders
        if places <= self._parts[4][0][0]:
            return
        self._parts[4:6] = (((places,), dtype) for _, dtype in self._parts[4:6])
        for transfer in self._transfers:
            transfer.wait()  # it reads what goes away
        self._make_pieces()

    def _positions(self, length: int) -> Array:
        """Where the row at each of so many positions of an epoch lies in its piece."""
        xp, rows = self._ops.xp, np.int32(self._piece_rows)
        order = xp.arange(length, dtype=np.int32)[None] % rows
        if self._x is None:
            return order
        # the networks' rows lie one behind the other
        return order + rows * xp.arange(self._orders, dtype=np.int32)[:, None]

    def _piece_data(self, views: list) -> Data:
        """The views of a piece as data.

        Sparse rows have no leading axis: those of all networks are numbered through, so that
        targets and weights are, too.
        """
        if self._x is None:
            return Data(*views)
        _, *others = (None if a is None else a.reshape(1, -1, *a.shape[2:]) for a in views[:4])
        values, columns, starts = views[4:]
        return Data(SparseRows(values, columns, starts, self._x.width), *others)

    @property
    def source(self) -> None:
        return None

    def equal_batches_from(self, i: int) -> int:
        return min(super().equal_batches_from(i), self._batches - i % self._batches)

    def ready(self, i: int) -> Data:
        piece = i // self._batches
        if piece != self._piece:
            self._leave()
            self._turn = 1 - self._turn
            transfer = self._transfers[self._turn]
            transfer.wait()
            self._fill(self._host[self._turn], piece)
            transfer.send()
            self._piece = piece
        return self._device[self._turn]

    def pace(self):
        """The two buffers hold the host back; were it to wait for the device within a piece, the
        next would be gathered only when nothing is left to compute."""

    def _leave(self):
        """Release the current piece, whose work has been submitted."""
        if self._piece is not None:
            self._transfers[self._turn].release()
            self._piece = None

    def _fill(self, parts: list, piece: int):
        """Gather the rows of a piece, in the epoch's order, on all threads."""
        start = piece * self._batches * self.batch_size
        rows = min(self._batches * self.batch_size, self.length - start)
        size = sum(part.nbytes for part in parts if part is not None)
        shares = min(rows, math.ceil(size / SHARE_BYTES))
        ends = [rows * i // shares for i in range(shares + 1)]
        if self._x is not None:
            self._place_non_zeros(parts[6], start, rows)
        pool.run(lambda i: self._gather(parts, start, ends[i], ends[i + 1]), shares)

    def _index(self, m: int, first: int, last: int) -> np.ndarray | slice:
        """The rows of network m at positions first .. last - 1."""
        if self._order is None:
            return slice(first, last)
        return self._order[m if len(self._order) > 1 else 0, first:last]

    def _place_non_zeros(self, starts: np.ndarray, start: int, rows: int):
        """Write where the sparse rows of a piece of so many begin, for each network."""
        most = (len(starts) - 1) // self._orders
        starts[0] = 0
        for m in range(self._orders):  # rows that the last piece lacks are empty
            of_network = starts[m * most : (m + 1) * most + 1]
            of_network[1:] = 0
            of_network[1 : rows + 1] = self._lengths[self._index(m, start, start + rows)]
            np.cumsum(of_network, out=of_network)

    def _gather(self, parts: list, start: int, first: int, last: int):
        """Gather rows first .. last - 1 of the piece that begins at position `start`."""
        for source, part in zip(self._data, parts[:4], strict=True):
            for m in range(0 if part is None else len(part)):
                index = self._index(m, start + first, start + last)
                _take(source[m if len(source) > 1 else 0], index, part[m, first:last])
        if self._x is not None:
            values, columns, starts = parts[4:]
            most = (len(starts) - 1) // self._orders
            for m in range(self._orders):
                index = self._index(m, start + first, start + last)
                taken = self._x.take(index)
                there = slice(*starts[[m * most + first, m * most + last]])
                values[there], columns[there] = taken.values, taken.columns

    def shuffle(self, seeds, epoch: int):
        if self.chosen is not None or not self._sorted_there:
            self._take_order(self._shuffled_on_host(seeds, epoch))
            return
        ops = self._ops
        order = np.empty((len(seeds), self.count), np.int32)
        row = ops.xp.empty((1, self.count), np.int32)
        for m in range(len(seeds)):  # one by one: keys take more room than their order
            ops.shuffle(seeds[m : m + 1], epoch, row)
            order[m] = ops.to_host(row)[0]
        self._take_order(order)

    def arrange(self, order):
        self._leave()
        order = self._ops.to_host(order)
        if self._x is not None:
            self._make_room(order)
        self._take_order(order)

    def _take_order(self, order: np.ndarray):
        self._leave()
        self.length = order.shape[1]
        if self.length > self.order.shape[1]:  # some rows are taken twice
            self.order = self._positions(self.length)
        self._order = np.broadcast_to(order, (max(len(order), self._orders), self.length))


def _views(buffer, parts: list) -> list:
    """Views of the parts (shape, dtype), one behind the other in a buffer of bytes."""
    views: list = []
    offset = 0
    for part in parts:
        if part is None:
            views.append(None)
            continue
        shape, dtype = part
        length = math.prod(shape) * dtype.itemsize
        views.append(buffer[offset : offset + length].view(dtype).reshape(shape))
        offset += aligned(length)
    return views


def _take(rows, index, out):
    """out <- the rows of that index, a slice or an array, in out's dtype."""
    # np.take is the fastest, but copies whatever else than this it is given as a whole first.
    simple = rows.dtype == out.dtype and rows.flags.c_contiguous and rows.flags.aligned
    if simple and not isinstance(index, slice):
        np.take(rows, index, axis=0, out=out, mode="clip")  # no index is beyond; "raise" buffers
    else:
        out[...] = rows[index]
