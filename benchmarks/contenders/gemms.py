"""The matrix products of a training step and nothing else: what no step can be faster than, as long
as it uses the same BLAS."""

from __future__ import annotations

import numpy as np

from benchmarks.contenders import Contender
from gpumlp import backend

TOLERANCE = 1e-4


class Buffers:
    """n[k], delta[k] of a batch, filled with anything."""

    def __init__(self, sizes, rows, device_array):
        self.n = [device_array(rows, size) for size in sizes]
        self.delta = [device_array(rows, size) for size in sizes]


class Gemms(Contender):
    def __init__(self, problem, device):
        super().__init__(problem, device)
        self.ops = backend.get(device)
        self.K = len(self.network.sizes) - 1
        self._rng = np.random.default_rng(1)

    def _array(self, *shape):
        return self.ops.to_device(self._rng.standard_normal((1, *shape), dtype=np.float32))

    def load(self):
        network = self.network
        with self.ops.on_device():
            self.W = [None, *(self.ops.to_device(W[None]) for W in self.problem.W[1:])]
            self.dW = [None, *(self.ops.xp.zeros_like(W) for W in self.W[1:])]
            self.buffers = {
                rows: Buffers(network.sizes, rows, self._array)
                for rows in {network.batch, network.rows % network.batch} - {0}
            }

    def _products(self, rows):
        """The 3K - 1 GEMMs of a batch: (1)(3)..., (11) and (12)."""
        gemm, n, delta = self.ops.gemm, self.buffers[rows].n, self.buffers[rows].delta
        for k in range(1, self.K + 1):
            gemm(n[k - 1], self.W[k], out=n[k], tb=True)
        for k in range(self.K, 0, -1):
            if k < self.K:
                gemm(delta[k + 1], self.W[k + 1], out=delta[k])
            gemm(delta[k], n[k - 1], out=self.dW[k], ta=True)

    def step(self):
        with self.ops.on_device():
            self._products(self.network.batch)

    def epoch(self):
        network = self.network
        with self.ops.on_device():
            for start in range(0, network.rows, network.batch):
                self._products(min(network.batch, network.rows - start))
        self.wait()
        return float("nan")

    def parameters(self):
        return []

    def wait(self):
        if self.device != "cpu":
            with self.ops.on_device():
                self.ops.xp.cuda.get_current_stream().synchronize()

    def answers(self):
        """One product of each kind, against NumPy in float64."""
        self.load()
        self.step()
        buffers = self.buffers[self.network.batch]

        def exact(array):
            return self.ops.to_host(array)[0].astype(np.float64)

        n, delta = buffers.n, buffers.delta
        products = {
            "n W^T": (n[1], exact(n[0]) @ exact(self.W[1]).T),
            "delta^T n": (self.dW[1], exact(delta[1]).T @ exact(n[0])),
        }
        if self.K > 1:
            products["delta W"] = delta[1], exact(delta[2]) @ exact(self.W[2])
        for name, (got, expected) in products.items():
            error = np.abs(exact(got) - expected).max() / np.abs(expected).max()
            if not error < TOLERANCE:
                raise ArithmeticError(f"{name} is wrong by {error:.1e}")
        return None
