"""BLAS threads during training on the CPU: one, where the matrices are small."""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import Any

# Below so many multiplications the largest product of a step gains nothing from BLAS's threads;
# and where other programs use the cores too, its threads' waiting makes a step many times slower.
SMALL_PRODUCT = 1 << 23

_lock = threading.Lock()
_users = 0  # fits that want one thread; the limit holds for the whole process
_limits: Any = None


@contextlib.contextmanager
def fitting(net, rows: int):
    """One BLAS thread while small networks train on the CPU in batches of so many rows.

    The limit is the process's: the first fit sets it, the last one that wanted it lifts it.
    """
    widest = max(a * b for a, b in zip(net.sizes, net.sizes[1:], strict=False))
    if net.device != "cpu" or rows * widest >= SMALL_PRODUCT:
        yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


@functools.cache
def _controller():
    """Made once: looking for the libraries takes longer than many a short fit."""
    from threadpoolctl import ThreadpoolController  # with scikit-learn

    return ThreadpoolController()


def _enter():
    global _users, _limits
    with _lock:
        if _users == 0:
            _limits = _controller().limit(limits=1, user_api="blas")
        _users += 1


def _leave():
    global _users, _limits
    with _lock:
        _users -= 1
        if _users == 0:
            _limits.restore_original_limits()
            _limits = None
