"""The places of each W^(k), b^(k), s^(k) and learned slope in the buffer of all parameters."""

from __future__ import annotations

ALIGNMENT = 128  # bytes: a cache line, and a multiple of every vector load


class Layout:
    """Places parameters in a row of P numbers: all W (the decayed prefix), all b, all s, slopes.

    Each segment starts at a multiple of 128 bytes; the padding stays zero.  A gradient and an
    optimiser's state have the same layout.

    sizes: N_0 .. N_K;  learned: the layers k whose activation has a learned slope;  scaled: those
    with a scale s^(k) of their N_{k-1} inputs;  sparse: whether W^(1) is stored as its transpose
    (N_0, N_1), in which the weights of a feature are neighbours.
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        learned: tuple[int, ...],
        itemsize: int,
        scaled: tuple[int, ...] = (),
        sparse: bool = False,
    ):
        self.sizes, self.learned, self.sparse = sizes, learned, sparse
        self._align = ALIGNMENT // itemsize
        layers = range(1, len(sizes))
        self.size = 0
        self.W = {k: self._segment(sizes[k] * sizes[k - 1]) for k in layers}
        self.decayed = self.size
        self.b = {k: self._segment(sizes[k]) for k in layers}
        self.s = {k: self._segment(sizes[k - 1]) for k in scaled}
        self.slope = {k: self._segment(1) for k in learned}
        self.count = sum(
            part.stop - part.start
            for group in (self.W, self.b, self.s, self.slope)
            for part in group.values()
        )

    def _segment(self, length: int) -> slice:
        start = self.size
        self.size = start + -(-length // self._align) * self._align
        return slice(start, start + length)
