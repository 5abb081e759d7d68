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
CPU, CUDA = ("cpu",), ("cuda",)


class Declined(Exception):
    """A contender cannot, or should not, do this task; the reason is printed."""


class Entry(NamedTuple):
    """The package that a contender needs, its class as module.Class, on which devices it runs, and
    what its class is told beside the problem and the device."""

    package: str
    path: str
    devices: tuple[str, ...] = (*CPU, *CUDA)
    options: dict[str, Any] = {}  # noqa: RUF012

    def make(self, problem, device: str) -> Contender:
        module, _, name = self.path.partition(".")
        cls = getattr(importlib.import_module(f"benchmarks.contenders.{module}"), name)
        return cls(problem, device, **self.options)

    def missing(self, device: str) -> str | None:
        """Why it cannot take part in a run on this device, or None."""
        if importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed"
        kind = device.partition(":")[0]
        return None if kind in self.devices else f"needs {' or '.join(self.devices)}"


ENTRIES = {
    LIBRARY: Entry("gpumlp", "library.Library"),
    GEMMS: Entry("gpumlp", "gemms.Gemms"),
    # On the CPU, also in a run on a GPU.
    "scikit-learn": Entry("sklearn", "scikit_learn.ScikitLearn"),
    "PyTorch eager": Entry("torch", "pytorch.Eager"),
    "PyTorch compiled": Entry("torch", "pytorch.Compiled"),
    "PyTorch CUDA graph": Entry("torch", "pytorch.Graphed", CUDA),
    "JAX": Entry("jax", "jax_jit.Jax"),
    # gpumlp's ways on a GPU, whatever it would choose itself.
    "timed algorithms": Entry("gpumlp", "library.Library", CUDA, {"tune": True}),
    "streamed": Entry("gpumlp", "library.Library", CUDA, {"streamed": True}),
    "operations": Entry("gpumlp", "library.Library", CUDA, {"persistent": False}),
    "persistent kernel": Entry("gpumlp", "library.Library", CUDA, {"persistent": True}),
    # Of stacks: networks one after another, and PyTorch's way to map a function over them.
    "gpumlp in a loop": Entry("gpumlp", "loop.Loop", CPU, {"of": LIBRARY}),
    "scikit-learn in a loop": Entry("sklearn", "loop.Loop", CPU, {"of": "scikit-learn"}),
    "PyTorch eager in a loop": Entry("torch", "loop.Loop", CPU, {"of": "PyTorch eager"}),
    "PyTorch vmap": Entry("torch", "pytorch.Vmap"),
    "PyTorch vmap in a CUDA graph": Entry("torch", "pytorch.GraphedVmap", CUDA),
    "gpumlp's GridSearchCV": Entry("gpumlp", "searches.Searching", options={"ours": True}),
    "scikit-learn's, 2 processes": Entry("sklearn", "searches.Searching"),
    "gpumlp's estimators": Entry("gpumlp", "everyday.Estimators", options={"ours": True}),
    "scikit-learn's estimators": Entry("sklearn", "everyday.Estimators"),
    "PyTorch, written out": Entry("torch", "everyday_torch.Written"),
}


class Contender:
    """Trains the network of a `Problem`, or all of a stack, with Adam; data and weights on the
    device.

    load(): the problem's weights, and an optimiser that has made no step
    step(): one update on the first batch; its loss before the update, 0-d or (M,), without waiting
    epoch(): one pass over the rows in a new order; the mean loss
    parameters(): W[1], b[1], W[2], ... as NumPy arrays; W[k] ([M,] N_k, N_{k-1})
    """

    def __init__(self, problem, device: str):
        self.problem, self.network, self.device = problem, problem.network, device

    def fit(self, epochs: int):
        """From the problem's weights on, so many epochs."""
        self.load()
        for _ in range(epochs):
            self.epoch()

    def to_host(self, array):
        """A result of `step` as a NumPy array."""
        return np.asarray(array)

    def wait(self):
        """Until the device has done all that was asked."""

    def work(self, name: str) -> Callable[[], Any]:
        """The call that is timed: "step", "epoch", or with a number "fit 30"."""
        method, *numbers = name.split()
        return lambda: getattr(self, method)(*map(int, numbers))

    def answers(self):
        """What must be equal for all: the losses of the first two steps, and the parameters between
        them.  None if there is nothing to compare; wrong answers of its own kind raise."""
        self.load()
        losses = np.ravel(self.to_host(self.step())).tolist()
        parameters = self.parameters()
        losses += np.ravel(self.to_host(self.step())).tolist()
        return {"losses": losses, "arrays": parameters}
