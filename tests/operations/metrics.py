"""Checks of `accumulate_metrics`: what a batch adds to an evaluation."""

import numpy as np

from gpumlp.backend.contract import Targets

from . import assert_close, assert_same, random, rounded, send

CASES = {  # threshold, and how targets come
    "labels": (None, "labels"),
    "largest": (None, "dense"),
    "at 0.5": (0.5, "dense"),
    "at 0": (0.0, "dense"),
}


def check_tally(ops, dtype, models, case, shape, mean=True):
    """Two batches after one another, the second in the next row of the table."""
    threshold, kind = CASES[case]
    rows, columns = shape
    batches, expected = 3, np.full((3, models, 3), 7.0)
    sums, cursor = send(ops, expected, dtype), send(ops, np.ones(models), np.int64)
    for batch in (1, 2):
        n = rounded(np.round(random(models, rows, columns, seed=batch), 1), dtype)  # with ties
        w = rounded(np.abs(random(models, rows, seed=9)), dtype)
        w[:, :: rows // 2 + 1] = 0
        loss = rounded(random(models, seed=batch), dtype)
        labels = np.random.default_rng(batch).integers(0, columns, (models, rows))
        dense = np.random.default_rng(batch).integers(0, 2, (models, rows, columns)).astype(float)
        if kind == "labels":
            targets = Targets(send(ops, labels, np.int32), None, 1.0, 0.0)
            right = [[_first_largest(n[m, i]) == labels[m, i] for i in range(rows)]
                     for m in range(models)]  # fmt: skip
        else:
            targets = Targets(None, send(ops, dense, dtype), 1.0, 0.0)
            right = [[_is_right(n[m, i], dense[m, i], threshold) for i in range(rows)]
                     for m in range(models)]  # fmt: skip
        w_sum = rounded(w.sum(axis=1), dtype)
        arrays = (send(ops, a, dtype) for a in (w, w_sum, loss))
        ops.accumulate_metrics(send(ops, n, dtype), targets, *arrays, mean, threshold, cursor, sums)
        expected[batch] = np.stack(
            (loss * w_sum if mean else loss, w_sum, (w * np.array(right)).sum(axis=1)), axis=1
        )
    assert_close(ops, sums, expected, dtype, factor=4)
    assert_same(ops, cursor, np.full(models, batches))


def check_without_classes(ops, dtype, models):
    sums, cursor = send(ops, np.full((1, models, 3), 7.0), dtype), send(ops, np.zeros(models), "i8")
    w, loss = np.ones((models, 5)), random(models)
    w_sum = w.sum(axis=1)
    given = (send(ops, a, dtype) for a in (w, w_sum, loss))
    ops.accumulate_metrics(None, Targets(None, None, 1.0, 0.0), *given, False, None, cursor, sums)
    expected = np.stack((loss, w_sum, np.zeros(models)), axis=1)[None]
    assert_close(ops, sums, expected, dtype)


def _first_largest(values):
    values = list(values)
    return values.index(max(values))


def _is_right(n, y, threshold):
    if threshold is None:
        return _first_largest(n) == _first_largest(y)
    return all((a > threshold) == (b > 0.5) for a, b in zip(n, y, strict=True))
