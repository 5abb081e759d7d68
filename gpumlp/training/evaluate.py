"""Loss and accuracy of a validation set, which stays on the device if it fits there."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from gpumlp.backend.contract import Array, Targets
from gpumlp.backend.cpu import pool
from gpumlp.model import propagate
from gpumlp.model.network import Network
from gpumlp.training.placement import make_rows
from gpumlp.training.rows import Rows


class _Block(NamedTuple):
    """Some networks of the stack, and their parts of all arrays."""

    members: slice
    net: Network
    rows: Rows
    cursor: Array  # (M,) int64
    sums: Array  # (steps, M, 3), of each batch: see `accumulate_metrics`


class Evaluation:
    """Evaluates a validation set: calling it returns the loss (M,) and, for losses on classes, the
    accuracy (M,), else None.

    A class is right if its output is the largest, where classes compete; with one output, or
    several 0/1 targets (multilabel), if all are on the right side of 0.5, or of 0 where the loss
    takes targets as -1/+1.

    order (M, L) int32: the rows that each network is evaluated on, -1 for none.
    values: check those of x, y and sample_weight.
    """

    def __init__(self, net, objective, x, y, sample_weight=None, order=None, values=True):
        self._objective = objective
        rows = make_rows(
            *(net, objective, x, y, sample_weight, net.shape.chunk_rows),
            orders=0 if order is None else len(order),
            kind="validation ",
            values=values,
        )
        if order is not None:
            rows.arrange(order)
        network, xp = net.network, net.ops.xp
        cursor = xp.zeros(net.M, np.int64)
        sums = xp.zeros((rows.steps, net.M, 3), net.dtype)
        self._all = _Block(slice(None), network, rows, cursor, sums)
        self._blocks = [
            self._all
            if part is network
            else _Block(members, part, rows.take(members), cursor[members], sums[:, members])
            for members, part in network.blocks.get(network, rows.batch_size)
        ]
        loss = objective.loss
        compete = net.f[net.K].rows or loss.name in ("cross_entropy", "kl_divergence")
        # targets -1/+1, or 0/1
        self._threshold = None if compete else 0.0 if loss.coding[1] < 0 else 0.5

    def __call__(self):
        self._all.cursor.fill(0)
        pool.run(lambda i: self._batches(self._blocks[i]), len(self._blocks))
        sums = self._all.net.ops.to_host(self._all.sums).astype(np.float64).sum(axis=0)
        loss, weight, right = sums.T
        return loss / weight, right / weight if self._objective.loss.classes else None

    def outputs(self):
        """The outputs ŷ of the rows, (M, L, N_K), on the host."""
        net, rows = self._all.net, self._all.rows
        out = np.empty((net.M, rows.length, net.sizes[-1]), net.dtype)
        pool.run(lambda i: _outputs(self._blocks[i], out), len(self._blocks))
        return out

    def _batches(self, block: _Block):
        """Accumulate the sums of all batches."""
        rows = block.rows
        for i in range(rows.steps):
            data = rows.ready(i)
            ws = block.net.workspaces.get(rows.batch_rows(i), "fit")
            work = functools.partial(self._batch, block, ws, data)
            rows.graphs.run(id(data), work, ws, data)
            rows.pace()

    def _batch(self, block: _Block, ws, data):
        """Accumulate the sums of the next batch."""
        net, rows, objective = block.net, block.rows, self._objective
        ops, K, batch = net.ops, net.K, ws.batch(data)
        fused, classes = objective.pair.fused, objective.loss.classes
        ops.gather(data, rows.order, block.cursor, rows.batch_size, batch)
        propagate.forward(net, ws, batch.x, [None] * (K + 1), last=K - 1 if fused else K)
        objective.evaluate(net, ws, batch, None)
        if fused and classes:
            ops.activate(net.f[K], ws.z[K], net.parameters.b[K], ws.n[K], net.p[K])
        ops.accumulate_metrics(
            ws.n[K] if classes else None,
            Targets(batch.labels, batch.dense, 1.0, 0.0),
            batch.w,
            batch.w_sum,
            ws.loss,
            objective.mean,
            self._threshold,
            block.cursor,
            block.sums,
        )


def _outputs(block: _Block, out):
    """Write ŷ of the block's networks into their part of out."""
    net, rows = block.net, block.rows
    for i in range(rows.steps):
        data, start = rows.ready(i), i * rows.batch_size
        ws = net.workspaces.get(rows.batch_rows(i), "fit")
        batch = ws.batch(data)
        block.cursor.fill(i)
        net.ops.gather(data, rows.order, block.cursor, rows.batch_size, batch)
        propagate.forward(net, ws, batch.x, [None] * (net.K + 1), last=net.K)
        out[block.members, start : start + ws.rows] = net.ops.to_host(ws.n[net.K])
