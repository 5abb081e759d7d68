"""Loss and accuracy on a validation set, which stays on the device."""

from __future__ import annotations

import numpy as np

from gpumlp import propagate
from gpumlp.rows import Rows


class Evaluation:
    """Calling it gives the loss (M,) and, for losses on classes, the accuracy (M,), else None.

    A class is right if its output is the largest, where classes compete; with one output, or
    several 0/1 targets (multilabel), if all are on the right side of 0.5, or of 0 where the loss
    takes targets as -1/+1.
    """

    def __init__(self, net, objective, x, y, sample_weight=None):
        self._net, self._objective = net, objective
        self._rows = Rows(net, objective, x, y, sample_weight, net.chunk_rows, "validation ")
        self._cursor = net.ops.xp.zeros(net.models_count, np.int64)
        loss = objective.loss
        self._threshold = 0.0 if loss.coding[1] < 0 else 0.5  # targets -1/+1, or 0/1
        self._compete = net.f[net.K].rows or loss.name in ("cross_entropy", "kl_divergence")

    def __call__(self):
        net, rows, objective = self._net, self._rows, self._objective
        K, order, noise = net.K, rows.order(None, 0), [None] * (net.K + 1)
        classes, fused = objective.loss.classes, objective.pair.fused
        loss = total = correct = 0.0
        for i in range(rows.steps):
            ws = net.workspaces.get(rows.batch_rows(i), "fit")
            batch = rows.batch(ws)
            self._cursor.fill(i)
            net.ops.gather(rows.data, order, self._cursor, rows.batch_size, batch)
            propagate.forward(net, ws, batch.x, noise, last=K - 1 if fused else K)
            objective.evaluate(ws, batch, None)
            loss = loss + (ws.loss * batch.w_sum if objective.mean else ws.loss)
            total = total + batch.w_sum
            if classes:
                if fused:
                    net.ops.activate(net.f[K], ws.z[K], net.parameters.b[K], ws.n[K], net.p[K])
                correct = correct + (batch.w * self._right(ws.n[K], batch)).sum(axis=1)
        total, loss = (net.ops.to_host(a).astype(np.float64) for a in (total, loss))
        return loss / total, net.ops.to_host(correct) / total if classes else None

    def _right(self, n, batch):
        """Whether each sample's class is right, (M, B)."""
        if batch.labels is not None:
            return n.argmax(axis=2) == batch.labels
        if self._compete:
            return n.argmax(axis=2) == batch.dense.argmax(axis=2)
        return ((n > self._threshold) == (batch.dense > 0.5)).all(axis=2)
