"""The buffers of a pass over the network, made once for a batch size and reused at every step."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from gpumlp.backend.contract import Batch, Data
from gpumlp.backend.layout import ALIGNMENT
from gpumlp.backend.sparse_rows import SparseRows
from gpumlp.model.shape import NetworkShape

MOST_KEPT = 8  # a fit uses two batch sizes, its validation two more


class Workspace:
    """Holds z[k], n[k], delta[k] and a batch of B rows, as views of one piece of memory.

    Its purpose: "predict" keeps only what the next layer needs; "step" keeps what backward needs;
    "fit" holds the gathered minibatch too; of sparse rows, their numbers, and the starts of rows
    that `Network.stage` is given.
    """

    x: Any = None
    numbers: Any = None
    starts: Any = None
    labels: Any = None
    dense: Any = None
    w: Any = None

    def __init__(self, shape, rows: int, views: dict):
        K, models = shape.K, shape.M

        def layer(name, k):
            """The layer's own buffer, or the beginning of the one that it shares with others."""
            if (name, k) in views:
                return views[name, k]
            shared = views.get((name, "even" if k % 2 == 0 else "odd"))
            if shared is None:
                return None
            dtype = shape.stored if name == "delta" else type_of(shape, k)
            length = models * rows * shape.sizes[k] * dtype.itemsize
            return shared.reshape(-1)[:length].view(dtype).reshape(models, rows, shape.sizes[k])

        self.rows = rows
        self._views = views
        self.n = [None, *(layer("n", k) for k in range(1, K + 1))]
        self.z = [None, *(views.get(("z", k), self.n[k]) for k in range(1, K + 1))]
        self.delta = [None, *(layer("delta", k) for k in range(1, K + 1))]
        self.loss, self.w_sum = views["loss"], views["w_sum"]
        for name in ("x", "numbers", "starts", "labels", "dense", "w"):
            if name in views:
                setattr(self, name, views[name])

    def part(self, shape, rows: slice, loss) -> Workspace:
        """The workspace of some of the rows, for one network; `loss` is where their loss goes."""
        views = {
            name: view if view.ndim == 1 else view[:, rows] for name, view in self._views.items()
        }
        return Workspace(shape, rows.stop - rows.start, views | {"loss": loss})

    def batch(self, data: Data) -> Batch:
        """The buffers for a minibatch of this data."""
        sparse = isinstance(data.x, SparseRows)
        return Batch(
            replace(data.x, numbers=self.numbers) if sparse else self.x,
            None if data.labels is None else self.labels,
            None if data.dense is None else self.dense,
            self.w,
            self.w_sum,
        )


def parts(shape, rows: int, purpose: str) -> dict:
    """The buffers of a workspace: name -> (shape, dtype)."""
    models, sizes, K = shape.M, shape.sizes, shape.K
    real = shape.dtype
    buffers: dict = {"loss": ((models,), real), "w_sum": ((models,), real)}
    if shape.sparse:
        if purpose == "fit":
            buffers["numbers"] = (models, rows), np.dtype(np.int32)
            buffers["starts"] = (rows + 1,), np.dtype(np.int64)
    elif purpose == "fit" or shape.stored != real:
        buffers["x"] = (models, rows, sizes[0]), shape.stored
    if purpose == "fit":
        buffers["labels"] = (models, rows), np.dtype(np.int32)
        buffers["dense"] = (models, rows, sizes[K]), real
        buffers["w"] = (models, rows), real
    if purpose == "predict":
        _take_turns(buffers, "n", models, rows, sizes, [type_of(shape, k) for k in range(K + 1)])
        return buffers
    for k in range(1, K + 1):
        buffers["n", k] = (models, rows, sizes[k]), type_of(shape, k)
        if shape.f[k].df_from == "z" and not shape.f[k].rows:
            buffers["z", k] = (models, rows, sizes[k]), type_of(shape, k)
    _take_turns(buffers, "delta", models, rows, sizes, [shape.stored] * (K + 1))
    return buffers


def _views(shape, rows: int, purpose: str, memory) -> dict:
    """The views of the buffers in `memory`, one behind the other: name -> view."""
    views = {}
    offset = 0
    for name, (dimensions, dtype) in parts(shape, rows, purpose).items():
        length = math.prod(dimensions) * dtype.itemsize
        views[name] = memory[offset : offset + length].view(dtype).reshape(dimensions)
        offset += _aligned(length)
    return views


def type_of(shape, k: int):
    """The dtype of z^(k) and n^(k); the last layer's, which users and the loss see, is not bf16."""
    return shape.dtype if k == shape.K else shape.stored


def _take_turns(buffers, name, models, rows, sizes, types):
    """Add two buffers, which even and odd layers share: a layer needs only its neighbour's."""
    for turn, first in (("odd", 1), ("even", 2)):
        taken = zip(sizes[first::2], types[first::2], strict=True)
        lengths = [size * dtype.itemsize for size, dtype in taken]
        if lengths:
            buffers[name, turn] = (models, rows, max(lengths)), np.dtype(np.uint8)


def _aligned(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


def size(shape, rows: int, purpose: str) -> int:
    """The bytes of a workspace."""
    return sum(
        _aligned(math.prod(dimensions) * dtype.itemsize)
        for dimensions, dtype in parts(shape, rows, purpose).values()
    )


def least(shape, rows: int) -> int:
    """The bytes of n, which every backward pass needs: a quick lower bound of `size`."""
    return shape.M * rows * sum(shape.sizes[1:]) * shape.stored.itemsize


class Workspaces:
    """Keeps the workspaces of a network in one memory, as large as the largest needed so far."""

    def __init__(self, shape: NetworkShape, ops):
        self._shape, self._ops = shape, ops
        self._memory: Any = None
        self._made: dict = {}

    def __reduce__(self):
        return Workspaces, (self._shape, self._ops)  # a copy makes its own

    def missing(self, rows: int, purpose: str) -> int:
        """The bytes that `get` would add to the memory."""
        present = 0 if self._memory is None else self._memory.size
        return max(0, size(self._shape, rows, purpose) - present)

    def get(self, rows: int, purpose: str) -> Workspace:
        """The workspace for so many rows; a larger memory takes the place of the old one."""
        key = rows, purpose
        if key in self._made:
            self._made[key] = self._made.pop(key)  # the newest is the last
        else:
            needed = size(self._shape, rows, purpose)
            if self._memory is None or self._memory.size < needed:
                self._made.clear()
                self._memory = None  # released before the larger one is taken
                self._memory = self._ops.xp.empty(needed, np.uint8)
            views = _views(self._shape, rows, purpose, self._memory)
            self._made[key] = Workspace(self._shape, rows, views)
            if len(self._made) > MOST_KEPT:
                del self._made[next(iter(self._made))]
        return self._made[key]
