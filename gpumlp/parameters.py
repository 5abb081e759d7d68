"""All parameters of M networks in one buffer: where each W^(k), b^(k) and learned slope lies."""

from __future__ import annotations

from typing import Any, NamedTuple

ALIGNMENT = 128  # bytes: a cache line, and a multiple of every vector load


class Layout:
    """Places in a row of P numbers: all W first (the decayed prefix), then all b, then the slopes.

    Each segment starts at a multiple of 128 bytes; the padding stays zero.  A gradient and an
    optimiser's state have the same layout.

    sizes: N_0 .. N_K;  learned: the layers k whose activation has a learned slope.
    """

    def __init__(self, sizes: tuple[int, ...], learned: tuple[int, ...], itemsize: int):
        self.sizes, self.learned = sizes, learned
        self._align = ALIGNMENT // itemsize
        layers = range(1, len(sizes))
        self.size = 0
        self.W = {k: self._segment(sizes[k] * sizes[k - 1]) for k in layers}
        self.decayed = self.size
        self.b = {k: self._segment(sizes[k]) for k in layers}
        self.slope = {k: self._segment(1) for k in learned}
        self.count = sum(
            part.stop - part.start
            for group in (self.W, self.b, self.slope)
            for part in group.values()
        )

    def _segment(self, length: int) -> slice:
        start = self.size
        self.size = start + -(-length // self._align) * self._align
        return slice(start, start + length)


class Parameters:
    """Views of a buffer (M, P): W[k] (M, N_k, N_{k-1}), b[k] (M, N_k), slope[k] (M,), k = 1..K."""

    def __init__(self, layout: Layout, buffer):
        sizes, K = layout.sizes, len(layout.sizes) - 1
        self.layout, self.buffer = layout, buffer
        self.W: list[Any] = [None] * (K + 1)
        self.b: list[Any] = [None] * (K + 1)
        self.slope: list[Any] = [None] * (K + 1)
        for k in range(1, K + 1):
            self.W[k] = buffer[:, layout.W[k]].reshape(len(buffer), sizes[k], sizes[k - 1])
            self.b[k] = buffer[:, layout.b[k]]
            if k in layout.slope:
                self.slope[k] = buffer[:, layout.slope[k].start]

    def __reduce__(self):
        return Parameters, (self.layout, self.buffer)  # a copy's views are of its own buffer

    def all(self) -> list:
        """Every W[k], b[k] and slope[k]."""
        return [v for views in (self.W, self.b, self.slope) for v in views if v is not None]

    def public(self, stacked: bool) -> Named:
        """The views as users see them: without the leading axis for a single network."""

        def seen(views):
            return Views(v if v is None or stacked else v[0, ...] for v in views)  # 0-d too

        theta = self.buffer if stacked else self.buffer[0]
        return Named(seen(self.W), seen(self.b), seen(self.slope), theta)


class Views(list):
    """W[k], b[k] or slope[k]; `net.W[k] = values` writes them into the view."""

    def __setitem__(self, k, values):
        view = self[k]
        if values is not view:  # else: net.W[k] += ..., which has been done
            view[...] = values


class Named(NamedTuple):
    """Parameters or their gradient by name: W[k] ([M,] N_k, N_{k-1}), b[k] ([M,] N_k), slope[k] the
    learned slope of layer k's activation, if it has one, and theta ([M,] P), the buffer of all."""

    W: list
    b: list
    slope: list
    theta: Any
