"""One step of an optimiser on a flat buffer: gpumlp's, PyTorch's, and a copy of as many bytes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from benchmarks import cases
from benchmarks.contenders import COPY, LIBRARY, TORCH, Contender, Entry
from gpumlp import backend
from gpumlp.functions import optimizer

ENTRIES = (
    Entry(LIBRARY, "gpumlp", "laws", "Library"),
    Entry(COPY, "numpy", "laws", "Copy"),
    Entry(TORCH, "torch", "torch_laws", "Torch"),
)

LR, MOMENTUM, DECAY = 1e-3, 0.9, 0.01


class Law(NamedTuple):
    """name; passes: Reals that a parameter's step must move."""

    name: str
    passes: int
    size: int

    def problem(self) -> Problem:
        return Problem(self)

    def optimizer(self):
        return {
            "SGD": lambda: optimizer.SGD(LR),
            "momentum": lambda: optimizer.SGD(LR, momentum=MOMENTUM),
            "RMSprop": lambda: optimizer.RMSprop(LR),
            "Adam": lambda: optimizer.Adam(LR),
            "AdamW": lambda: optimizer.AdamW(LR, weight_decay=DECAY),
        }[self.name]()


class Problem:
    """theta and its gradient."""

    def __init__(self, law: Law):
        rng = np.random.default_rng(0)
        self.network = law
        self.theta, self.g = rng.standard_normal((2, law.size), dtype=np.float32)


def by_hand(problem: Problem) -> dict:
    """theta after two updates, in float64."""
    law, g = problem.network, problem.g.astype(np.float64)
    theta = problem.theta.astype(np.float64)
    chosen, v, s = law.optimizer(), np.zeros_like(theta), np.zeros_like(theta)
    for t in (1, 2):
        if law.name in ("SGD", "momentum"):
            v = chosen.momentum * v - LR * g
            theta += v
        elif law.name == "RMSprop":
            s = chosen.rho * s + (1 - chosen.rho) * g * g
            theta -= LR * g / (np.sqrt(s) + chosen.eps)
        else:
            theta *= 1 - LR * (DECAY if law.name == "AdamW" else 0)
            v = chosen.beta1 * v + (1 - chosen.beta1) * g
            s = chosen.beta2 * s + (1 - chosen.beta2) * g * g
            first, second = v / (1 - chosen.beta1**t), s / (1 - chosen.beta2**t)
            theta -= LR * first / (np.sqrt(second) + chosen.eps)
    return {"losses": [], "arrays": [theta]}


class OfLaw(Contender):
    """`update` moves theta; the others' answers are theta after two updates."""

    def update(self):
        raise NotImplementedError

    def answers(self):
        self.load()
        for _ in range(2):
            self.update()
        return {"losses": [], "arrays": self.parameters()}


class OnBackend(OfLaw):
    def __init__(self, problem, device):
        super().__init__(problem, device)
        self.ops = backend.get(device)

    def wait(self):
        if self.device != "cpu":
            with self.ops.on_device():
                self.ops.xp.cuda.get_current_stream().synchronize()


class Library(OnBackend):
    """`prepare_update`, which a step cannot do without, and `update`."""

    def load(self):
        law, problem = self.network, self.problem
        given = cases.Inputs(self.ops)
        with self.ops.on_device():
            self.theta = self.ops.to_device(problem.theta[None].copy())
            self.work_on = cases.motion(
                given, law.optimizer(), self.theta, self.ops.to_device(problem.g[None])
            )
        self._replay = None

    def update(self):
        with self.ops.on_device():
            if self._replay is None:
                self.work_on()  # with whatever happens only once
                self._replay = self.ops.capture(self.work_on) or self.work_on
            else:
                self._replay()

    def parameters(self):
        return [self.ops.to_host(self.theta)[0].copy()]


class Copy(OnBackend):
    """As many bytes read and written as the law must move."""

    def load(self):
        floats = self.network.size * self.network.passes // 2
        with self.ops.on_device():
            self.source = self.ops.xp.ones(floats, np.float32)
            self.target = self.ops.xp.empty_like(self.source)

    def update(self):
        with self.ops.on_device():
            self.ops.xp.copyto(self.target, self.source)

    def answers(self):
        self.load()
        self.update()
        if not bool((self.target == self.source).all()):
            raise ArithmeticError("the copy differs")
