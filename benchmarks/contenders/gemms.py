"""The matrix products of a step and nothing else: what no step can be faster than, as long as it
uses the same BLAS.  On a GPU they are replayed as one graph, as the step's are.

They are those that gpumlp asks for in a real step, noted as it is made, so that shapes, order,
transposes, types and locality are the same.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import weakref
from typing import Any, NamedTuple

import numpy as np

from benchmarks.agreement import as_float64
from benchmarks.contenders import Contender
from benchmarks.contenders.library import Library
from gpumlp.model import blas_threads, slices

TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "bf16": 2e-2}
CHECKED_ROWS = 64  # of each product
REPLAYS = 20  # after which operands must be the numbers that they were


class Product(NamedTuple):
    """A call of gemm on arrays of its own; part: of the works that are done at the same time, the
    one that makes it, or None."""

    a: Any
    b: Any
    out: Any
    options: dict
    part: int | None


class DeviceState:
    """Makes and notes GEMMs.  An operand that an earlier product gave is that product's array;
    others are copied, so that repeating the list neither grows nor shrinks its numbers."""

    def __init__(self, gemm, xp):
        self._gemm, self._xp = gemm, xp
        self._given: dict = {}
        self._part: int | None = None
        self.products: list[Product] = []

    def __call__(self, a, b, out, **options):
        own = self._read(a), self._read(b), self._xp.empty_like(out)
        self.products.append(Product(*own, options, self._part))
        self._given[self._key(out)] = self.products[-1].out
        return self._gemm(a, b, out=out, **options)

    def parallel(self, works):
        for self._part, work in enumerate(works):
            work()
        self._part = None

    def _key(self, array):
        interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
        return interface["data"][0], array.shape, array.dtype.char

    def _read(self, array):
        held = self._given.get(self._key(array))
        return self._xp.ascontiguousarray(array).copy() if held is None else held


class Gemms(Contender):
    def __init__(self, problem, device):
        super().__init__(problem, device)
        self._library = Library(problem, device)
        self.ops = self._library.ops
        # As many threads as BLAS has in the step; `weakref` lets go of them.
        self._limit = contextlib.ExitStack()
        self._limited_for: Any = None
        weakref.finalize(self, self._limit.close)

    def load(self):
        self._library.load()
        self._lists: dict = {}
        self._replays: dict = {}

    def products(self, kind: str, rows: int) -> list[Product]:
        """Those of a step, or of a prediction, of so many rows."""
        if (kind, rows) not in self._lists:
            library, gemm = self._library, self.ops.gemm
            noted = DeviceState(gemm, self.ops.xp)
            library.load()  # nothing of it has been captured yet
            self.ops.gemm, self.ops.capture = noted, lambda work: work
            self.ops.parallel = noted.parallel
            try:
                if kind == "step":
                    library.trainer.step(library.x[:rows], library.y[:rows])
                else:
                    library.predict(rows)
            finally:
                del self.ops.gemm, self.ops.capture, self.ops.parallel
            self._lists[kind, rows] = noted.products
        return self._lists[kind, rows]

    def _repeat(self, kind, rows):
        if (kind, rows) not in self._replays:
            parts = itertools.groupby(self.products(kind, rows), lambda product: product.part)
            works = [functools.partial(self._make, list(products)) for _, products in parts]

            def work():
                if len(works) > 1:
                    self.ops.parallel(works)
                else:
                    works[0]()

            work()  # whatever happens only once
            self._replays[kind, rows] = self.ops.capture(work) or work
        self._replays[kind, rows]()

    def _make(self, products):
        for product in products:
            self.ops.gemm(product.a, product.b, out=product.out, **product.options)

    def _limit_threads(self, rows, parts=1):
        if (rows, parts) != self._limited_for:
            self._limit.close()
            self._limit.enter_context(
                blas_threads.limit_blas_threads(self._library.net, rows, parts)
            )
            self._limited_for = rows, parts

    def _limit_training(self):
        library, rows = self._library, self.network.batch
        self._limit_threads(rows, slices.number(library.net, rows, library.trainer.objective))

    def step(self):
        self._limit_training()
        with self.ops.on_device():
            self._repeat("step", self.network.batch)

    def epoch(self):
        network = self.network
        self._limit_training()
        with self.ops.on_device():
            for start in range(0, network.rows, network.batch):
                self._repeat("step", min(network.batch, network.rows - start))
        self.wait()
        return float("nan")

    def predict(self, rows):
        self._limit_threads(min(rows, self._library.net.shape.chunk_rows))
        with self.ops.on_device():
            self._repeat("predict", rows)

    def parameters(self):
        return []

    def wait(self):
        self._library.wait()

    def answers(self):
        """Some rows of each product, against NumPy in float64."""
        self.load()
        for _ in range(REPLAYS):
            self.step()
        self._check(self.products("step", self.network.batch))

    def predictions(self):
        self.load()
        for _ in range(REPLAYS):
            self.predict(self.network.batch)
        self._check(self.products("predict", self.network.batch))

    def _check(self, products):
        if not products:
            raise LookupError("the step made no GEMM that could be noted")
        for product in products:
            a, b, out = (as_float64(self.ops.to_host(array)) for array in product[:3])
            for array in (a, b, out):
                check_normal(array)
            if product.options.get("ta"):
                a = a.swapaxes(1, 2)
            if product.options.get("tb"):
                b = b.swapaxes(1, 2)
            rows = slice(0, CHECKED_ROWS)
            expected = a[:, rows] @ b
            error = np.abs(out[:, rows] - expected).max() / np.abs(expected).max()
            if not error < TOLERANCE[self.network.precision]:
                raise ArithmeticError(f"{a.shape} @ {b.shape} is wrong by {error:.1e}")


def check_normal(array):
    """Products of denormal numbers would take longer, those of inf and NaN mean nothing."""
    size = np.abs(array)
    if not np.isfinite(size).all() or ((size > 0) & (size < np.finfo(np.float32).tiny)).any():
        raise ArithmeticError("operands are denormal, infinite or NaN after some replays")
