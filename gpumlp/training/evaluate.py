"""Loss and accuracy on a validation set, which stays on the device if that has room for it."""

from __future__ import annotations

import copy
import functools

import numpy as np

from gpumlp.backend.contract import Targets
from gpumlp.backend.cpu import pool
from gpumlp.model import blocks, propagate
from gpumlp.training.placement import make_rows


class Evaluation:
    """Calling it gives the loss (M,) and, for losses on classes, the accuracy (M,), else None.

    A class is right if its output is the largest, where classes compete; with one output, or
    several 0/1 targets (multilabel), if all are on the right side of 0.5, or of 0 where the loss
    takes targets as -1/+1.

    order (M, L) int32: the rows that each network is evaluated on, -1 for none.
    values: check those of x, y and sample_weight.
    """

    def __init__(self, net, objective, x, y, sample_weight=None, order=None, values=True):
        self._net, self._objective = net, objective
        rows = make_rows(
            *(net, objective, x, y, sample_weight, net.chunk_rows),
            orders=0,
            kind="validation ",
            values=values,
        )
        if order is not None:
            rows.arrange(order)
        self._rows = rows
        xp, models = net.ops.xp, net.models_count
        self._cursor = xp.zeros(models, np.int64)
        self._sums = xp.zeros(
            (rows.steps, models, 3), net.dtype
        )  # of each batch: see `accumulate_metrics`
        loss = objective.loss
        compete = net.f[net.K].rows or loss.name in ("cross_entropy", "kl_divergence")
        # targets -1/+1, or 0/1
        self._threshold = None if compete else 0.0 if loss.coding[1] < 0 else 0.5
        self._parts = [
            (members, self._of(members, part))
            for members, part in net.blocks.get(net, rows.batch_size)
            if part is not net
        ]

    def _of(self, members, net):
        """The evaluation of some networks of the stack."""
        part = copy.copy(self)
        part._net, part._objective = net, self._objective.of(net)
        part._rows = blocks.rows_of(self._rows, members)
        part._cursor, part._sums = self._cursor[members], self._sums[:, members]
        return part

    def __call__(self):
        self._cursor.fill(0)
        parts = self._parts or [(slice(None), self)]
        pool.run(lambda i: parts[i][1]._batches(), len(parts))
        sums = self._net.ops.to_host(self._sums).astype(np.float64).sum(axis=0)
        loss, weight, right = sums.T
        return loss / weight, right / weight if self._objective.loss.classes else None

    def outputs(self):
        """ŷ of these rows, (M, L, N_K), on the host."""
        net, parts = self._net, self._parts or [(slice(None), self)]
        out = np.empty((net.models_count, self._rows.length, net.sizes[-1]), net.dtype)
        pool.run(lambda i: parts[i][1]._outputs(out[parts[i][0]]), len(parts))
        return out

    def _outputs(self, out):
        net, rows = self._net, self._rows
        for i in range(rows.steps):
            data, start = rows.ready(i), i * rows.batch_size
            ws = net.workspaces.get(rows.batch_rows(i), "fit")
            batch = ws.batch(data)
            self._cursor.fill(i)
            net.ops.gather(data, rows.order, self._cursor, rows.batch_size, batch)
            propagate.forward(net, ws, batch.x, [None] * (net.K + 1), last=net.K)
            out[:, start : start + ws.rows] = net.ops.to_host(ws.n[net.K])

    def _batches(self):
        """The sums of all batches."""
        rows = self._rows
        for i in range(rows.steps):
            data = rows.ready(i)
            ws = self._net.workspaces.get(rows.batch_rows(i), "fit")
            work = functools.partial(self._batch, ws, data)
            rows.repeated.run(id(data), work, ws, data)
            rows.pace()

    def _batch(self, ws, data):
        """The sums of the next batch."""
        net, rows, objective, K = self._net, self._rows, self._objective, self._net.K
        batch = ws.batch(data)
        fused, classes = objective.pair.fused, objective.loss.classes
        net.ops.gather(data, rows.order, self._cursor, rows.batch_size, batch)
        propagate.forward(net, ws, batch.x, [None] * (K + 1), last=K - 1 if fused else K)
        objective.evaluate(ws, batch, None)
        if fused and classes:
            net.ops.activate(net.f[K], ws.z[K], net.parameters.b[K], ws.n[K], net.p[K])
        net.ops.accumulate_metrics(
            ws.n[K] if classes else None,
            Targets(batch.labels, batch.dense, 1.0, 0.0),
            batch.w,
            batch.w_sum,
            ws.loss,
            objective.mean,
            self._threshold,
            self._cursor,
            self._sums,
        )
