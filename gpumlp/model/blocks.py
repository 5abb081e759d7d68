"""Divide a stack on the CPU into blocks of networks, each trained on one thread.

The networks of a stack have nothing to do with one another.  So a thread takes a block of them,
whose activations and parameters stay in its core's cache, through many batches before it takes the
next; all of them at once would stream through memory at every operation.  A block is the stack, cut
along the leading axis: views, and buffers of its own for the passes.
"""

from __future__ import annotations

import math

from gpumlp.backend.cpu import pool
from gpumlp.model import blas_threads, workspace
from gpumlp.model.shape import NetworkShape

# Bytes that the networks of a block work on: about what a core's caches hold, and no fewer than
# make the operations long against Python's time for each.
MOST_BYTES = 1 << 21
LEAST_BYTES = 1 << 18

MOST_KEPT = 3  # divisions: of a fit, of its validation, of predictions


class Blocks:
    """Keeps the blocks into which a stack was divided."""

    def __init__(self):
        self._made: dict = {}

    def __reduce__(self):
        return Blocks, ()  # a copy's networks lie elsewhere

    def get(self, net, rows: int) -> list:
        """(members, their network) of each block for batches of so many rows; all of them in one
        where the stack is not divided."""
        count = number(net.shape, rows)
        if count == 1:
            return [(slice(None), net)]
        if count not in self._made:
            M = net.M
            slices = [slice(M * i // count, M * (i + 1) // count) for i in range(count)]
            self._made[count] = [(members, net.take(members)) for members in slices]
            if len(self._made) > MOST_KEPT:
                del self._made[next(iter(self._made))]
        return self._made[count]


def number(shape: NetworkShape, rows: int) -> int:
    """The number of blocks for batches of so many rows."""
    M = shape.M
    by_blas = blas_threads.widest(shape, rows) >= blas_threads.SMALL_PRODUCT
    if M == 1 or shape.device != "cpu" or by_blas:
        return 1  # BLAS shares its products among threads
    parameters = 4 * shape.layout.size * shape.dtype.itemsize  # with gradient and state buffers
    of_one = workspace.size(shape, rows, "fit") // M + parameters
    cores = pool.threads()
    least, most = max(1, LEAST_BYTES // of_one), max(1, MOST_BYTES // of_one)
    count = math.ceil(M / min(most, max(least, math.ceil(M / cores))))
    if count > 1:  # as many for each thread
        count = math.ceil(count / cores) * cores
    return min(count, M)


def shared(array, members: slice):
    """The members' part of an array (1 or M, ...), or None for None."""
    return array if array is None or len(array) == 1 else array[members]
