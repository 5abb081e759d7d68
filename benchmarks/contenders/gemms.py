"""The matrix products of a step and nothing else: what no step can be faster than, as long as it
uses the same BLAS.  On a GPU they are replayed as one graph, as the step's are.

They are those that gpumlp asks for in a real step, so that shapes, order, transposes, types and
locality are the same.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import weakref

import numpy as np

from benchmarks.contenders import Contender
from benchmarks.contenders.library import Library
from benchmarks.recorder import Call, address, on_host, recorded
from gpumlp.model import slices

TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "bf16": 2e-2}
CHECKED_ROWS = 64  # of each product
REPLAYS = 20  # after which operands must be the numbers that they were


class Gemms(Contender):
    def __init__(self, problem, device):
        super().__init__(problem, device)
        self._library = Library(problem, device)
        self.ops = self._library.ops
        # As many threads as BLAS has in the step; `weakref` lets go of them.
        self._limit = contextlib.ExitStack()
        weakref.finalize(self, self._limit.close)

    def load(self):
        library = self._library
        library.load()
        self._products: dict = {}
        self._replays: dict = {}
        self._limit.close()
        objective = library.trainer.objective
        limit = slices.limit_blas_threads(library.net, self.network.batch, objective)
        self._limit.enter_context(limit)

    def products(self, rows: int) -> list[Call]:
        """Those of a step on so many rows, each on arrays of its own."""
        if rows not in self._products:
            library = self._library
            library.load()  # nothing of it has been captured yet
            with recorded(self.ops, "gemm") as calls:
                library.trainer.step(library.x[:rows], library.y[:rows])
            self._products[rows] = list(self._separated(calls))
        return self._products[rows]

    def _separated(self, calls):
        """An operand that an earlier product gave is that product's result; others are copied, so
        that repeating the products neither grows nor shrinks their numbers."""
        xp, results = self.ops.xp, {}
        for call in calls:
            operands = [results.get(address(array)) for array in call.arguments]
            for i, array in enumerate(call.arguments):
                if operands[i] is None:
                    operands[i] = xp.ascontiguousarray(array).copy()
            out = results[address(call.options["out"])] = xp.empty_like(call.options["out"])
            yield call._replace(arguments=tuple(operands), options=call.options | {"out": out})

    def _repeat(self, rows):
        if rows not in self._replays:
            by_slice = itertools.groupby(self.products(rows), lambda product: product.slice)
            works = [functools.partial(make, list(products)) for _, products in by_slice]

            def work():
                if len(works) > 1:
                    self.ops.parallel(works)
                else:
                    works[0]()

            work()  # whatever happens only once
            self._replays[rows] = self.ops.capture(work) or work
        self._replays[rows]()

    def step(self):
        with self.ops.on_device():
            self._repeat(self.network.batch)

    def epoch(self):
        network = self.network
        with self.ops.on_device():
            for start in range(0, network.rows, network.batch):
                self._repeat(min(network.batch, network.rows - start))
        self.wait()
        return float("nan")

    def wait(self):
        self._library.wait()

    def answers(self):
        """Some rows of each product, against NumPy in float64."""
        self.load()
        for _ in range(REPLAYS):
            self.step()
        products = self.products(self.network.batch)
        if not products:
            raise LookupError("the step made no GEMM that could be recorded")
        for product in products:
            self.check(product)

    def check(self, product: Call):
        arrays: dict = {}
        (a, b), options = on_host(self.ops, (product.arguments, product.options), arrays)
        for array in arrays.values():
            check_normal(array)
        a = a.swapaxes(1, 2) if product.options.get("ta") else a
        b = b.swapaxes(1, 2) if product.options.get("tb") else b
        rows = slice(0, CHECKED_ROWS)
        expected = a[:, rows] @ b
        error = np.abs(options["out"][:, rows] - expected).max() / np.abs(expected).max()
        if not error < TOLERANCE[self.network.precision]:
            raise ArithmeticError(f"{a.shape} @ {b.shape} is wrong by {error:.1e}")


def make(products):
    for product in products:
        product()


def check_normal(array):
    """Products of denormal numbers would take longer, those of inf and NaN mean nothing."""
    size = np.abs(array)
    if not np.isfinite(size).all() or ((size > 0) & (size < np.finfo(np.float32).tiny)).any():
        raise ArithmeticError("operands are denormal, infinite or NaN after some replays")
