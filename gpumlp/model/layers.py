"""The layers of a network, and where the parameters of each lie."""

from __future__ import annotations

from dataclasses import dataclass

from gpumlp.functions.activation import Activation


@dataclass(frozen=True)
class Layer:
    """Layer k: z = W n + b of the layer before, n = f(z); in training units of n may be dropped.

    inputs, outputs: N_{k-1} and N_k.
    drops:           whether units are dropped in training.
    W, b, slope:     slices of a network's row in the buffer of all parameters; slope is None
                     unless f has a learned slope.
    """

    k: int
    inputs: int
    outputs: int
    f: Activation
    drops: bool
    W: slice
    b: slice
    slope: slice | None

    @property
    def count(self) -> int:
        """The number of parameters."""
        return self.outputs * self.inputs + self.outputs + (self.slope is not None)
