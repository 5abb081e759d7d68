"""Networks on a device, with their parameters and the buffers of their passes."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from gpumlp.backend.contract import Array, Batch, Data, Noise
from gpumlp.backend.layout import Layout
from gpumlp.model import arrays
from gpumlp.model.blocks import Blocks, shared
from gpumlp.model.graph_cache import GraphCache
from gpumlp.model.parameters import Parameters
from gpumlp.model.shape import NetworkShape
from gpumlp.model.slices import Slices
from gpumlp.model.workspace import Workspaces


class Network:
    """M networks of one shape, which `propagate` computes with.

    parameters:    W[k], b[k], s[k], slope[k] in one buffer.
    bf16:          the buffer of all parameters in bf16, or None.
    thresholds[k]: (1 or M,) uint32; a unit is dropped where its bits are below.  Or None.
    p[k]:          (1 or M, 2): the constants of f^(k); a learned slope is a view of the parameters.

    constants: p[k] of the activations, without learned slopes.
    """

    def __init__(
        self,
        shape: NetworkShape,
        ops: Any,
        parameters: Parameters,
        thresholds: list[Array | None],
        constants: list[Array | None],
    ):
        self.shape, self.ops, self.parameters = shape, ops, parameters
        self.thresholds, self._constants = thresholds, constants
        self.bf16: Array | None = None
        if shape.stored != shape.dtype:
            self.bf16 = ops.xp.empty(parameters.buffer.shape, shape.stored)
        starts = {k: part.start for k, part in shape.layout.slope.items()}
        self.p = [
            parameters.buffer[:, starts[k] : starts[k] + 2] if k in starts else p  # and padding
            for k, p in enumerate(constants)
        ]
        self.workspaces = Workspaces(shape, ops)
        self.blocks, self.slices = Blocks(), Slices()
        self.graphs = GraphCache(ops)  # of predictions, behind the first product
        self._unit: Any = None  # weights of 1 of a batch, and their sum
        self._first: Any = None  # 0, 1, 2, ...: rows as they stand
        self._nothing_done = ops.xp.zeros(shape.M, np.int64)

    def __reduce__(self):
        # A copy has buffers of its own.
        parts = self.shape, self.ops, self.parameters, self.thresholds, self._constants
        return Network, parts

    def take(self, members: slice) -> Network:
        """Some of the networks, on views of the parameters; their passes have their own buffers."""
        layout = self.shape.layout
        return Network(
            self.shape.of(members.stop - members.start),
            self.ops,
            Parameters(layout, self.parameters.buffer[members]),
            [shared(threshold, members) for threshold in self.thresholds],
            [shared(p, members) for p in self._constants],
        )

    def by(self, ops: Any) -> Network:
        """The same parameters, computed with by other operations."""
        return Network(self.shape, ops, self.parameters, self.thresholds, self._constants)

    @cached_property
    def operands(self) -> list[Array | None]:
        """W^(k) as the products take it: W[k], or W[k] diag(s[k]), or either in bf16.

        What is not W[k] is made anew in every pass, as users may write to the parameters.  Its
        memory is taken by the first pass: of a stack in blocks, only the blocks have passes.
        """
        if self.bf16 is not None:
            return Parameters(self.layout, self.bf16).W
        empty, scaled = self.ops.xp.empty, self.layout.s
        return [
            empty(W.shape, W.dtype) if k in scaled else W for k, W in enumerate(self.parameters.W)
        ]

    # ------------------------------------------------------------ the shape
    @property
    def K(self) -> int:
        return self.shape.K

    @property
    def M(self) -> int:
        return self.shape.M

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.shape.sizes

    @property
    def f(self) -> tuple:
        return self.shape.f

    @property
    def dtype(self) -> np.dtype:
        return self.shape.dtype

    @property
    def layout(self) -> Layout:
        return self.shape.layout

    # ------------------------------------------------------------ batches and randomness
    @cached_property
    def dropout_table(self) -> Array:
        """The thresholds as the persistent kernel reads them, (K + 1, M) uint32."""
        table = self.ops.xp.zeros((self.K + 1, self.M), np.uint32)
        for k, threshold in enumerate(self.thresholds):
            if threshold is not None:
                table[k] = threshold
        return table

    def noise(self, seeds: Array, step: Array) -> list[Noise | None]:
        """The noise of each layer in a training step: Philox keys (M,), step numbers (M,)."""
        return [
            Noise(seeds, step, k, threshold)
            if threshold is not None or (f is not None and f.random)
            else None
            for k, (f, threshold) in enumerate(zip(self.f, self.thresholds, strict=True))
        ]

    def ones(self, rows: int) -> tuple[Array, Array]:
        """Weights of 1 (1, B) and their sum (M,), kept for the next batch of as many rows."""
        if self._unit is None or self._unit[0].shape[1] != rows:
            xp = self.ops.xp
            self._unit = xp.ones((1, rows), self.dtype), xp.full(self.M, rows, self.dtype)
        return self._unit

    def stage(self, batch: Batch, ws) -> Batch:
        """A copy of the batch in the workspace's buffers, whose addresses captured steps know."""
        if self.shape.sparse:  # whose non-zeros are not copied
            ws.starts[...] = batch.x.starts
            x = replace(batch.x, starts=ws.starts)
        else:
            x = arrays.aligned(batch.x)
        data = Data(x, batch.labels, batch.dense, batch.w)
        staged, rows = ws.batch(data), batch.x.shape[1]
        if self._first is None or self._first.shape[1] < rows:
            self._first = self.ops.xp.arange(rows, dtype=np.int32)[None]
        self.ops.gather(data, self._first, self._nothing_done, rows, staged)
        return staged
