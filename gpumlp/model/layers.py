"""The layers of a network, with the places of their parameters."""

from __future__ import annotations

from dataclasses import dataclass

from gpumlp.functions.activation import Activation


@dataclass(frozen=True)
class Layer:
    """Layer k: z = W n + b of the layer before, n = f(z); in training units of n may be dropped.

    With a learned scale s of its inputs, W = V diag(s), and V is the parameter `W`.

    inputs, outputs: N_{k-1} and N_k.
    drops:           whether units are dropped in training.
    W, b, s, slope:  slices of a network's row in the buffer of all parameters; s is None unless
                     the inputs are scaled, slope unless f has a learned slope.
    """

    k: int
    inputs: int
    outputs: int
    f: Activation
    drops: bool
    W: slice
    b: slice
    s: slice | None
    slope: slice | None

    @property
    def count(self) -> int:
        """The number of parameters."""
        parts = (self.W, self.b, self.s, self.slope)
        return sum(part.stop - part.start for part in parts if part is not None)
