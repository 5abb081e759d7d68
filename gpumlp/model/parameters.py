"""Views of W^(k), b^(k), s^(k) and learned slopes in one buffer of all parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

from gpumlp.backend.layout import Layout


class Parameters:
    """Views of a buffer (M, P): W[k] (M, N_k, N_{k-1}), b[k] (M, N_k), k = 1..K; s[k] (M, N_{k-1})
    and slope[k] (M,), None in layers without a scale or a learned slope."""

    def __init__(self, layout: Layout, buffer):
        sizes, K = layout.sizes, len(layout.sizes) - 1
        self.layout, self.buffer = layout, buffer
        self.W: list[Any] = [None] * (K + 1)
        self.b: list[Any] = [None] * (K + 1)
        self.s: list[Any] = [None] * (K + 1)
        self.slope: list[Any] = [None] * (K + 1)
        for k in range(1, K + 1):
            self.W[k] = buffer[:, layout.W[k]].reshape(len(buffer), sizes[k], sizes[k - 1])
            self.b[k] = buffer[:, layout.b[k]]
            if k in layout.s:
                self.s[k] = buffer[:, layout.s[k]]
            if k in layout.slope:
                self.slope[k] = buffer[:, layout.slope[k].start]

    def __reduce__(self):
        return Parameters, (self.layout, self.buffer)  # a copy's views are of its own buffer

    def all(self) -> list:
        """Every W[k], b[k], s[k] and slope[k]."""
        groups = self.W, self.b, self.s, self.slope
        return [v for views in groups for v in views if v is not None]

    def public(self, stacked: bool) -> ParameterViews:
        """The views as users see them: without the leading axis for a single network."""

        def seen(views):
            return Views(v if v is None or stacked else v[0, ...] for v in views)  # 0-d too

        theta = self.buffer if stacked else self.buffer[0]
        W, b, s, slope = map(seen, (self.W, self.b, self.s, self.slope))
        return ParameterViews(W, b, s, slope, theta)


def products(views: Parameters | ParameterViews) -> list:
    """The weights W^(k) of the products: V diag(s) where the inputs have a scale, else W[k]."""
    pairs = zip(views.W, views.s, strict=True)
    return [W if s is None else W * s[..., None, :] for W, s in pairs]


class Views(list):
    """A list of W[k], b[k], s[k] or slope[k], in which `net.W[k] = values` writes into the view."""

    def __setitem__(self, k, values):
        view = self[k]
        if values is not view:  # else: net.W[k] += ..., which has been done
            view[...] = values


class ParameterViews(NamedTuple):
    """Parameters or their gradient by name: W[k] ([M,] N_k, N_{k-1}), b[k] ([M,] N_k), s[k]
    ([M,] N_{k-1}) the scale of layer k's inputs and slope[k] the learned slope of its activation,
    where it has one, and theta ([M,] P), the buffer of all."""

    W: list
    b: list
    s: list
    slope: list
    theta: Any
