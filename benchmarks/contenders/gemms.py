"""The matrix products of a step and nothing else: what no step can be faster than, as long as it
uses the same BLAS.  On a GPU they are replayed as one graph, as the step's are.

They are those that gpumlp asks for in a real step, so that shapes, order, transposes, types and
locality are the same.
"""

import contextlib
import functools
import itertools
import weakref

import numpy as np

from benchmarks.contenders import Contender
from benchmarks.contenders.library import Library
from benchmarks.recorder import Call, recorded
from gpumlp.backend.selfcheck.case import widened
from gpumlp.model import blas_threads, slices

TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "bf16": 2e-2}
CHECKED_ROWS = 64  # of each product
REPLAYS = 20  # after which operands must be the numbers that they were


def address(array):
    """Equal for two arrays that are the same."""
    interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return interface["data"][0], array.shape, array.dtype.char


class Gemms(Contender):
    def __init__(self, problem, device):
        super().__init__(problem, device)
        self._library = Library(problem, device)
        self.ops, self.wait = self._library.ops, self._library.wait
        # As many threads as BLAS has in the step; `weakref` lets go of them.
        self._limit = contextlib.ExitStack()
        weakref.finalize(self, self._limit.close)

    def load(self):
        library = self._library
        library.load()
        self._works: dict = {}
        self._limit.close()
        shape, batch = library.net.shape, self.network.batch
        cores = library.ops.threads(shape, library.trainer.objective)
        parts = slices.number(shape, batch, cores)
        self._limit.enter_context(blas_threads.limit_blas_threads(shape, batch, parts > 1))

    def products(self, rows: int) -> list[Call]:
        """Those of a step on so many rows, on arrays of their own: an operand that an earlier
        product gave is that product's result; others are copied, so that repeating the products
        neither grows nor shrinks their numbers."""
        library, xp, results, products = self._library, self.ops.xp, {}, []
        library.load()  # nothing of it has been captured yet
        with recorded(self.ops, "gemm") as calls:
            library.trainer.step(library.x[:rows], library.y[:rows])
        for call in calls:
            operands = [results.get(address(array)) for array in call.arguments]
            for i, array in enumerate(call.arguments):
                if operands[i] is None:
                    operands[i] = xp.ascontiguousarray(array).copy()
            out = results[address(call.options["out"])] = xp.empty_like(call.options["out"])
            options = call.options | {"out": out}
            products.append(call._replace(arguments=tuple(operands), options=options))
        return products

    def _work(self, rows):
        """The products of so many rows, and the call that repeats them."""
        if rows not in self._works:
            products = self.products(rows)
            by_slice = itertools.groupby(products, lambda product: product.slice)
            parts = [functools.partial(repeat, list(calls)) for _, calls in by_slice]

            def work():
                if len(parts) > 1:
                    self.ops.parallel(parts)
                else:
                    parts[0]()

            work()  # whatever happens only once
            self._works[rows] = products, self.ops.capture(work) or work
        return self._works[rows]

    def step(self):
        with self.ops.on_device():
            self._work(self.network.batch)[1]()

    def epoch(self):
        network = self.network
        with self.ops.on_device():
            for start in range(0, network.rows, network.batch):
                self._work(min(network.batch, network.rows - start))[1]()
        self.wait()

    def answers(self):
        """Some rows of each product, against NumPy in float64."""
        self.load()
        for _ in range(REPLAYS):
            self.step()
        for product in self._work(self.network.batch)[0]:
            self.check(product)

    def check(self, product: Call):
        arrays = [self.ops.to_host(x) for x in (*product.arguments, product.options["out"])]
        arrays = [widened(x) if x.dtype == np.uint16 else x for x in arrays]
        for size in map(np.abs, arrays):
            # Products of denormal numbers take longer, those of inf and NaN mean nothing.
            if not ((size == 0) | ((size > np.finfo(np.float32).tiny) & (size < np.inf))).all():
                raise ArithmeticError("operands are denormal, infinite or NaN after some replays")
        a, b, out = (array.astype(np.float64) for array in arrays)
        a = a.swapaxes(1, 2) if product.options.get("ta") else a
        b = b.swapaxes(1, 2) if product.options.get("tb") else b
        expected = a[:, :CHECKED_ROWS] @ b
        error = np.abs(out[:, :CHECKED_ROWS] - expected).max() / np.abs(expected).max()
        if not error < TOLERANCE[self.network.precision]:
            raise ArithmeticError(f"{a.shape} @ {b.shape} is wrong by {error:.1e}")


def repeat(calls):
    for call in calls:
        call()
