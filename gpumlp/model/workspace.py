"""The buffers of a pass over the network: made once for a batch size, reused at every step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpumlp.backend.contract import Batch, Data
from gpumlp.backend.layout import ALIGNMENT
from gpumlp.model.shape import NetworkShape

MOST_KEPT = 8  # a fit uses two batch sizes, its validation two more


class Workspace:
    """z[k], n[k], delta[k] and what belongs to a batch of B rows, as views of one piece of memory.

    purpose: "predict" keeps only what the next layer needs; "step" keeps what backward needs;
    "fit" holds the gathered minibatch too.
    """

    x: Any = None
    labels: Any = None
    dense: Any = None
    w: Any = None

    def __init__(self, shape, rows: int, views: dict):
        K, models = shape.K, shape.M

        def layer(name, k):
            """The layer's own buffer, or the beginning of one that layers take turns in."""
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
        for name in ("x", "labels", "dense", "w"):
            if name in views:
                setattr(self, name, views[name])

    def part(self, shape, rows: slice, loss) -> Workspace:
        """Some rows of it, for one network; their loss is left in `loss`."""
        views = {
            name: view if view.ndim == 1 else view[:, rows] for name, view in self._views.items()
        }
        return Workspace(shape, rows.stop - rows.start, views | {"loss": loss})

    def batch(self, data: Data) -> Batch:
        """The buffers for a minibatch of this data."""
        return Batch(
            self.x,
            None if data.labels is None else self.labels,
            None if data.dense is None else self.dense,
            self.w,
            self.w_sum,
        )


def parts(shape, rows: int, purpose: str) -> dict:
    """name -> (shape, dtype) of every buffer."""
    models, sizes, K = shape.M, shape.sizes, shape.K
    real = shape.dtype
    found: dict = {"loss": ((models,), real), "w_sum": ((models,), real)}
    if purpose == "fit" or shape.stored != real:
        found["x"] = (models, rows, sizes[0]), shape.stored
    if purpose == "fit":
        found["labels"] = (models, rows), np.dtype(np.int32)
        found["dense"] = (models, rows, sizes[K]), real
        found["w"] = (models, rows), real
    if purpose == "predict":
        _take_turns(found, "n", models, rows, sizes, [type_of(shape, k) for k in range(K + 1)])
        return found
    for k in range(1, K + 1):
        found["n", k] = (models, rows, sizes[k]), type_of(shape, k)
        if shape.f[k].df_from == "z" and not shape.f[k].rows:
            found["z", k] = (models, rows, sizes[k]), type_of(shape, k)
    _take_turns(found, "delta", models, rows, sizes, [shape.stored] * (K + 1))
    return found


def _views(shape, rows: int, purpose: str, memory) -> dict:
    """name -> its part of the memory."""
    views = {}
    offset = 0
    for name, (dimensions, dtype) in parts(shape, rows, purpose).items():
        length = math.prod(dimensions) * dtype.itemsize
        views[name] = memory[offset : offset + length].view(dtype).reshape(dimensions)
        offset += _aligned(length)
    return views


def type_of(shape, k: int):
    """Of z^(k) and n^(k): the last layer's is what the user and the loss see."""
    return shape.dtype if k == shape.K else shape.stored


def _take_turns(found, name, models, rows, sizes, types):
    """Two buffers in which even and odd layers take turns: a layer needs only its neighbour's."""
    for turn, first in (("odd", 1), ("even", 2)):
        taken = zip(sizes[first::2], types[first::2], strict=True)
        lengths = [size * dtype.itemsize for size, dtype in taken]
        if lengths:
            found[name, turn] = (models, rows, max(lengths)), np.dtype(np.uint8)


def _aligned(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


def size(shape, rows: int, purpose: str) -> int:
    """Bytes of the workspace."""
    return sum(
        _aligned(math.prod(dimensions) * dtype.itemsize)
        for dimensions, dtype in parts(shape, rows, purpose).values()
    )


def least(shape, rows: int) -> int:
    """Bytes of n, without which no backward pass is: quick to tell, and fewer than `size`."""
    return shape.M * rows * sum(shape.sizes[1:]) * shape.stored.itemsize


class Workspaces:
    """The workspaces of a network: one memory, as large as the largest needed so far."""

    def __init__(self, shape: NetworkShape, ops):
        self._shape, self._ops = shape, ops
        self._memory: Any = None
        self._made: dict = {}

    def __reduce__(self):
        return Workspaces, (self._shape, self._ops)  # a copy makes its own

    def missing(self, rows: int, purpose: str) -> int:
        """Bytes that `get` would add to the memory that is held."""
        held = 0 if self._memory is None else self._memory.size
        return max(0, size(self._shape, rows, purpose) - held)

    def get(self, rows: int, purpose: str) -> Workspace:
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
