"""Limit BLAS to one thread on the CPU where matrices are small."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from gpumlp.backend.cpu import blas
from gpumlp.model.shape import NetworkShape
from gpumlp.utils.locks import Lock

# Below so many multiplications the largest product of a step gains nothing from BLAS's threads;
# and where other programs use the cores too, its threads' waiting makes a step many times slower.
SMALL_PRODUCT = 1 << 23
# Below so many BLAS takes one thread by itself (OpenBLAS: 2^18), and to say so only takes time.
TINY_PRODUCT = 1 << 18


_lock = Lock()
_users = 0  # fits that want one thread; the limit holds for the whole process
_lift: Callable[[], Any] = int  # gives BLAS its threads back, while there are such


def widest(shape: NetworkShape, rows: int) -> int:
    """The multiplications of the largest product of one network's step."""
    return rows * max(shape.dense_products)


def multiplications(shape: NetworkShape, rows: int) -> int:
    """The multiplications of one network's forward pass."""
    return rows * sum(shape.dense_products)


@contextlib.contextmanager
def limit_blas_threads(shape: NetworkShape, rows: int, shared: bool = False):
    """A context with one BLAS thread, for small networks on the CPU in batches of `rows` rows.

    shared: for others too, as threads of our own share the work.

    The limit is the process's: the first context sets it, the last one lifts it.
    """
    product = widest(shape, rows)
    one = shared or product < SMALL_PRODUCT
    if shape.device != "cpu" or product < TINY_PRODUCT or not one:
        yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter():
    global _users, _lift
    with _lock:
        if _users == 0:
            _lift = _limit_to_one()
        _users += 1


def _leave():
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            _lift()


def _limit_to_one():
    """Set the limit; returns a function that lifts it."""
    known = blas.find()
    if known is None or known.threads is None:
        return blas.controller().limit(limits=1, user_api="blas").restore_original_limits
    before = known.threads.get()
    known.threads.set(1)
    return functools.partial(known.threads.set, before)
