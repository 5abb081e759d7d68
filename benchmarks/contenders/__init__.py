"""Who takes part: gpumlp, its peers, and the step's GEMMs alone.

Each contender lives in a process of its own (benchmarks/turns.py), where its module is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import NamedTuple

LIBRARY, GEMMS = "gpumlp", "GEMMs alone"


class Entry(NamedTuple):
    """A contender: the package it needs, where its class is, and on which devices it runs."""

    name: str
    package: str
    module: str
    cls: str
    devices: tuple[str, ...] = ("cpu", "cuda")

    def load(self) -> type[Contender]:
        return getattr(importlib.import_module(f"benchmarks.contenders.{self.module}"), self.cls)

    def missing(self, device: str) -> str | None:
        """Why it cannot take part in a run on this device, or None."""
        if importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed"
        kind = device.partition(":")[0]
        return None if kind in self.devices else f"needs {' or '.join(self.devices)}"


ENTRIES = (
    Entry(LIBRARY, "gpumlp", "library", "Library"),
    Entry(GEMMS, "gpumlp", "gemms", "Gemms"),
    # On the CPU, also in a run on a GPU.
    Entry("scikit-learn", "sklearn", "scikit_learn", "ScikitLearn"),
    Entry("PyTorch eager", "torch", "pytorch", "Eager"),
    Entry("PyTorch CUDA graph", "torch", "pytorch", "Graphed", ("cuda",)),
    Entry("JAX jit", "jax", "jax_jit", "Jit"),
)


class Contender:
    """Trains the network of a `Problem` in float32 with Adam; data and weights on the device."""

    def __init__(self, problem, device: str):
        self.problem, self.network, self.device = problem, problem.network, device

    def load(self):
        """The problem's weights, and an optimiser that has made no step."""
        raise NotImplementedError

    def step(self):
        """One update on the first batch; returns its loss before the update, without waiting."""
        raise NotImplementedError

    def epoch(self) -> float:
        """One pass over the rows in a new order; returns the mean loss."""
        raise NotImplementedError

    def parameters(self) -> list:
        """W[1], b[1], W[2], ... as NumPy arrays; W[k] (N_k, N_{k-1})."""
        raise NotImplementedError

    def wait(self):
        """Until the device has done all that was asked."""

    def answers(self):
        """What must be equal for all: the losses of the first two steps, and the parameters between
        them.  None if there is nothing to compare; wrong answers of its own kind raise."""
        self.load()
        first = float(self.step())
        parameters = self.parameters()
        return {"losses": [first, float(self.step())], "parameters": parameters}
