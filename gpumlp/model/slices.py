"""Divide the batches of one network on the CPU into slices of rows, each on one thread.

A slice of a batch's rows goes through (1)-(13) by itself, on a core of its own.  Only the sums over
the batch, of (12), (13) and the loss, are left in parts, which are added at the end.  So threads
meet once in a step; if they shared each product, as BLAS's do, they would meet in every one, which
takes longer than small products themselves.
"""

from __future__ import annotations

import functools
from typing import Any

from gpumlp.backend.contract import Batch
from gpumlp.model import blas_threads, propagate
from gpumlp.model.parameters import Parameters
from gpumlp.model.shape import NetworkShape

# Multiplications of a slice's forward pass.  Threads that meet sooner gain nothing.
LEAST = 1 << 21
# Rows of a slice that make its products large against its gradient, which is written and added up:
# then slices are as fast as BLAS's own threads in large products, and faster in all the rest.
MANY_ROWS = 256


class Slices:
    """Keeps arrays for the gradients and losses of a network's slices."""

    def __init__(self):
        self._made: Any = None

    def __reduce__(self):
        return Slices, ()  # a copy makes its own

    def get(self, net, count: int):
        """Gradients (count, P), and losses (count, 1)."""
        if self._made is None or len(self._made[0]) < count:
            xp = net.ops.xp
            dimensions = (count, net.layout.size), (count, 1)
            self._made = tuple(xp.zeros(shape, net.dtype) for shape in dimensions)
        return tuple(parts[:count] for parts in self._made)


def number(shape: NetworkShape, rows: int, cores: int) -> int:
    """The number of slices of a batch of so many rows; 1 where it is not divided.

    cores: what `ops.threads` says.
    """
    most = blas_threads.multiplications(shape, rows) // LEAST
    if shape.M > 1 or most < 2 or shape.sparse:
        # Whole networks are shared among threads: blocks.py.  Of sparse rows a slice's gradient
        # would take longer to add up than the batch does.
        return 1
    count = min(cores, most)
    if blas_threads.widest(shape, rows) >= blas_threads.SMALL_PRODUCT:
        if count < cores or rows < count * MANY_ROWS:
            return 1  # BLAS shares its products among threads
    return count


def size(shape: NetworkShape, count: int) -> int:
    """The bytes of so many slices besides the workspace of the batch."""
    return 0 if count == 1 else count * (shape.layout.size + 1) * shape.dtype.itemsize


def loss_and_backward(net, ws, batch, objective, grad, noise, count: int):
    """`propagate.loss_and_backward`, by so many slices."""
    count = min(count, ws.rows)
    if count == 1:
        propagate.loss_and_backward(net, ws, batch, objective, grad, noise)
        return
    grads, losses = net.slices.get(net, count)
    propagate.make_operands(net)  # once, for all slices

    def work(i):
        rows = slice(ws.rows * i // count, ws.rows * (i + 1) // count)
        x, labels, dense, w = (None if a is None else a[:, rows] for a in batch[:-1])
        propagate.backpropagate(
            net,
            ws.part(net.shape, rows, losses[i]),
            Batch(x, labels, dense, w, batch.w_sum),
            objective,
            Parameters(net.layout, grads[i : i + 1]),
            [layer if layer is None else layer._replace(first_row=rows.start) for layer in noise],
        )

    net.ops.parallel([functools.partial(work, i) for i in range(count)])
    net.ops.add_up(grads, grad.buffer[0])
    net.ops.add_up(losses, ws.loss)
