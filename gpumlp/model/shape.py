"""The shape of networks: all that is needed to count their bytes and operations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from gpumlp.backend.layout import Layout
from gpumlp.functions.activation import Activation
from gpumlp.model.layers import Layer

# Predictions run in chunks whose buffers stay about this large.
CHUNK_BYTES = 64 << 20


@dataclass(frozen=True)
class NetworkShape:
    """M networks of one shape on a device.

    sizes:     N_0, ..., N_K.
    f:         f^(1), ..., f^(K) at their indices; f[0] is None.
    M:         the number of networks.
    dtype:     of the parameters, float32 or float64.
    device:    "cpu", "cuda:0", ....
    precision: of the products, see `gpumlp.MLP`.
    drops:     for layers 0, ..., K whether units are dropped in training.
    scaled:    for layers 0, ..., K whether the inputs have a learned scale; empty where none has.
    sparse:    whether x is `SparseRows`, for which W^(1) is stored as its transpose.
    """

    sizes: tuple[int, ...]
    f: tuple[Activation | None, ...]
    M: int
    dtype: np.dtype
    device: str
    precision: str
    drops: tuple[bool, ...]
    scaled: tuple[bool, ...] = ()
    sparse: bool = False

    @property
    def K(self) -> int:
        return len(self.sizes) - 1

    @property
    def stored(self) -> np.dtype:
        """The dtype of x, z, n and δ between two products; uint16 for bits of bf16."""
        by_bits = self.precision == "bf16" and self.device != "cpu"
        return np.dtype(np.uint16) if by_bits else self.dtype

    @cached_property
    def layout(self) -> Layout:
        """The layout of a network's row in the buffer of all parameters."""
        learned = tuple(k for k, f in enumerate(self.f) if f is not None and f.learned)
        scaled = tuple(k for k, is_scaled in enumerate(self.scaled) if is_scaled)
        return Layout(self.sizes, learned, self.dtype.itemsize, scaled, self.sparse)

    @cached_property
    def layers(self) -> tuple[Layer | None, ...]:
        """Layers 1, ..., K at their indices; layers[0] is None."""
        at = self.layout
        return tuple(
            None
            if f is None
            else Layer(
                *(k, self.sizes[k - 1], self.sizes[k], f, self.drops[k]),
                *(at.W[k], at.b[k], at.s.get(k), at.slope.get(k)),
            )
            for k, f in enumerate(self.f)
        )

    def of(self, M: int) -> NetworkShape:
        """The shape of so many such networks."""
        return replace(self, M=M)

    @property
    def products(self) -> tuple[int, ...]:
        """N_k N_{k-1}: the multiplications of each layer for one sample of dense features."""
        return tuple(outputs * inputs for inputs, outputs in pairwise(self.sizes))

    @property
    def dense_products(self) -> tuple[int, ...]:
        """Those of the products of dense matrices; 0 in the first layer of sparse rows."""
        return (0, *self.products[1:]) if self.sparse else self.products

    @property
    def chunk_rows(self) -> int:
        """The rows of a chunk in prediction, where memory is not short."""
        widest = max(self.sizes[1:] if self.sparse else self.sizes)
        row_bytes = self.M * 2 * widest * self.dtype.itemsize
        return max(1, min(1 << 16, CHUNK_BYTES // row_bytes))
