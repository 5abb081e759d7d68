"""The matrix products of a step and nothing else: what no step can be faster than, as long as it
uses the same BLAS.  On a GPU they are replayed as one graph, as the step's are.

They are those that gpumlp asks for in a real step, noted as it is made, so that shapes, order,
transposes, types and locality are the same.
"""

from __future__ import annotations

import contextlib
import weakref
from typing import Any, NamedTuple

import numpy as np

from benchmarks.agreement import as_float64
from benchmarks.contenders import Contender
from benchmarks.contenders.library import Library
from gpumlp import threads
from gpumlp.repeated import Repeated

TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "bf16": 2e-2}
CHECKED_ROWS = 64  # of each product


class Product(NamedTuple):
    """A call of gemm on arrays of its own."""

    a: Any
    b: Any
    out: Any
    options: dict


class Noted:
    """Makes and notes GEMMs.  An operand that an earlier product gave is that product's array;
    others are copied, so that repeating the list neither grows nor shrinks its numbers."""

    def __init__(self, gemm, xp):
        self._gemm, self._xp = gemm, xp
        self._given: dict = {}
        self.products: list[Product] = []

    def __call__(self, a, b, out, **options):
        self.products.append(
            Product(self._read(a), self._read(b), self._xp.empty_like(out), options)
        )
        self._given[self._key(out)] = self.products[-1].out
        return self._gemm(a, b, out=out, **options)

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

    def load(self):
        self._library.load()
        self._lists: dict = {}
        self._repeated = Repeated(self.ops)

    def products(self, kind: str, rows: int) -> list[Product]:
        """Those of a step, or of a prediction, of so many rows."""
        if (kind, rows) not in self._lists:
            library, gemm = self._library, self.ops.gemm
            noted = Noted(gemm, self.ops.xp)
            library.load()  # nothing of it has been captured yet
            self.ops.gemm = noted
            try:
                if kind == "step":
                    library.trainer.step(library.x[:rows], library.y[:rows])
                else:
                    library.predict(rows)
            finally:
                del self.ops.gemm
            self._lists[kind, rows] = noted.products
        return self._lists[kind, rows]

    def _repeat(self, kind, rows):
        products = self.products(kind, rows)

        def work():
            for product in products:
                self.ops.gemm(product.a, product.b, out=product.out, **product.options)

        self._repeated.run((kind, rows), work)

    def step(self):
        with self.ops.on_device():
            self._repeat("step", self.network.batch)

    def epoch(self):
        network = self.network
        with self.ops.on_device():
            for start in range(0, network.rows, network.batch):
                self._repeat("step", min(network.batch, network.rows - start))
        self.wait()
        return float("nan")

    def predict(self, rows):
        with self.ops.on_device():
            self._repeat("predict", rows)

    def parameters(self):
        return []

    def wait(self):
        self._library.wait()

    def answers(self):
        """Some rows of each product, against NumPy in float64."""
        self.load()
        # From now on with as many threads as BLAS has in a fit; `weakref` lets go of them.
        limited = contextlib.ExitStack()
        limited.enter_context(threads.limited(self._library.net, self.network.batch))
        weakref.finalize(self, limited.close)
        self.step()
        self._check(self.products("step", self.network.batch))

    def predictions(self):
        self.load()
        self.predict(self.network.batch)
        self._check(self.products("predict", self.network.batch))

    def _check(self, products):
        if not products:
            raise LookupError("the step made no GEMM that could be noted")
        for product in products:
            a, b, out = (as_float64(self.ops.to_host(array)) for array in product[:3])
            if product.options.get("ta"):
                a = a.swapaxes(1, 2)
            if product.options.get("tb"):
                b = b.swapaxes(1, 2)
            rows = slice(0, CHECKED_ROWS)
            expected = a[:, rows] @ b
            error = np.abs(out[:, rows] - expected).max() / np.abs(expected).max()
            if not error < TOLERANCE[self.network.precision]:
                raise ArithmeticError(f"{a.shape} @ {b.shape} is wrong by {error:.1e}")
