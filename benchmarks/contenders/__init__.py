"""Who takes part: gpumlp, its peers, and the step's GEMMs alone.

Each contender lives in a process of its own (benchmarks/turns.py), where its module is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

LIBRARY, GEMMS = "gpumlp", "GEMMs alone"
SCIKIT_LEARN = "scikit-learn"
EAGER, COMPILED, GRAPHED = "PyTorch eager", "PyTorch compiled", "PyTorch CUDA graph"
COPY, TORCH = "copy of its bytes", "PyTorch"
JAX_JIT, JAX_SCAN = "JAX jit", "JAX scan"
# Of stacks: gpumlp's two ways on a GPU, and networks one after another.
OPERATIONS, RESIDENT = "gpumlp, operations", "gpumlp, one kernel"
LIBRARY_LOOP, SCIKIT_LEARN_LOOP = "gpumlp in a loop", "scikit-learn in a loop"
EAGER_LOOP = "PyTorch eager in a loop"
SCIKIT_LEARN_SEARCH = "scikit-learn, 2 processes"
VMAP, GRAPHED_VMAP = "PyTorch vmap", "PyTorch vmap in a CUDA graph"


class Declined(Exception):
    """A contender cannot, or should not, do this task; the reason is printed."""


class Entry(NamedTuple):
    """A contender: the package it needs, where its class is, and on which devices it runs."""

    name: str
    package: str
    module: str
    cls: str
    devices: tuple[str, ...] = ("cpu", "cuda")

    def load(self) -> type[Any]:
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
    Entry(SCIKIT_LEARN, "sklearn", "scikit_learn", "ScikitLearn"),
    Entry(EAGER, "torch", "pytorch", "Eager"),
    Entry(COMPILED, "torch", "pytorch", "Compiled"),
    Entry(GRAPHED, "torch", "pytorch", "Graphed", ("cuda",)),
    Entry(JAX_JIT, "jax", "jax_jit", "Jit"),
    Entry(JAX_SCAN, "jax", "jax_jit", "Scan"),
)

# Those that only stacks of networks have.
OF_STACKS = (
    Entry(OPERATIONS, "gpumlp", "stacks", "Operations", ("cuda",)),
    Entry(RESIDENT, "gpumlp", "stacks", "Resident", ("cuda",)),
    Entry(LIBRARY_LOOP, "gpumlp", "stacks", "LibraryLoop", ("cpu",)),
    Entry(SCIKIT_LEARN_LOOP, "sklearn", "stacks", "ScikitLearnLoop", ("cpu",)),
    Entry(EAGER_LOOP, "torch", "stacks", "EagerLoop", ("cpu",)),
    Entry(VMAP, "torch", "torch_stacks", "Vmap"),
    Entry(GRAPHED_VMAP, "torch", "torch_stacks", "GraphedVmap", ("cuda",)),
)


class Contender:
    """Trains the network of a `Problem`, or all of a stack, with Adam; data and weights on the
    device."""

    def __init__(self, problem, device: str):
        self.problem, self.network, self.device = problem, problem.network, device

    def load(self):
        """The problem's weights, and an optimiser that has made no step."""
        raise NotImplementedError

    def step(self):
        """One update on the first batch; returns its loss before the update, 0-d or (M,), without
        waiting."""
        raise NotImplementedError

    def epoch(self) -> float:
        """One pass over the rows in a new order; returns the mean loss."""
        raise NotImplementedError

    def fit(self, epochs: int):
        """From the problem's weights on, so many epochs."""
        self.load()
        for _ in range(epochs):
            self.epoch()

    def predict(self, rows: int):
        """ŷ of the first rows, (rows, N_K), on the device and without waiting."""
        raise NotImplementedError

    def parameters(self) -> list:
        """W[1], b[1], W[2], ... as NumPy arrays; W[k] ([M,] N_k, N_{k-1})."""
        raise NotImplementedError

    def to_host(self, array):
        """What `step` or `predict` gave, as a NumPy array."""
        return np.asarray(array)

    def wait(self):
        """Until the device has done all that was asked."""

    def work(self, what: str) -> Callable[[], Any]:
        """What is timed: "step", "epoch", or with an argument "fit 30", "predict 128"."""
        name, *numbers = what.split()
        method, given = getattr(self, name), [int(number) for number in numbers]
        return lambda: method(*given)

    def answers(self):
        """What must be equal for all: the losses of the first two steps, and the parameters between
        them.  None if there is nothing to compare; wrong answers of its own kind raise."""
        self.load()
        losses = np.ravel(self.to_host(self.step())).tolist()
        parameters = self.parameters()
        losses += np.ravel(self.to_host(self.step())).tolist()
        return {"losses": losses, "arrays": parameters}

    def predictions(self):
        """The same for inference: ŷ of the first batch."""
        self.load()
        return {"losses": [], "arrays": [self.to_host(self.predict(self.network.batch))]}
