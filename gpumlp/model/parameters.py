"""Views of W^(k), b^(k), s^(k) and learned slopes in one buffer of all parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

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
            W = buffer[:, layout.W[k]]
            if k == 1 and layout.sparse:
                self.W[k] = W.reshape(len(buffer), sizes[0], sizes[1]).transpose(0, 2, 1)
            else:
                self.W[k] = W.reshape(len(buffer), sizes[k], sizes[k - 1])
            self.b[k] = buffer[:, layout.b[k]]
            if k in layout.s:
                self.s[k] = buffer[:, layout.s[k]]
            if k in layout.slope:
                self.slope[k] = buffer[:, layout.slope[k].start]

    def __reduce__(self):
        return Parameters, (self.layout, self.buffer)  # a copy's views are of its own buffer

    @property
    def WT(self):
        """W[1]^T (M, N_0, N_1), as it is stored for sparse rows."""
        return self.W[1].transpose(0, 2, 1)

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


class Gradient(Parameters):
    """The gradient by each parameter.

    occurs (M, N_0) uint8: of sparse rows, the features whose gradient may not be 0; else None.
    """

    def __init__(self, layout: Layout, buffer, occurs=None):
        super().__init__(layout, buffer)
        self.occurs = occurs

    def __reduce__(self):
        return Gradient, (self.layout, self.buffer, self.occurs)

    @classmethod
    def zeros(cls, net) -> Gradient:
        """Zeros on the network's device, in the layout of its parameters."""
        xp, layout = net.ops.xp, net.layout
        occurs = xp.zeros((net.M, layout.sizes[0]), np.uint8) if layout.sparse else None
        return cls(layout, xp.zeros_like(net.parameters.buffer), occurs)

    def take(self, members: slice) -> Gradient:
        """That of some of the networks."""
        occurs = None if self.occurs is None else self.occurs[members]
        return Gradient(self.layout, self.buffer[members], occurs)


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
