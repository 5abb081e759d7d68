"""Locks that outlive a fork."""

from __future__ import annotations

import os
import threading
import weakref


class Lock:
    """A reentrant lock that is free in a forked process.

    There the thread that held it does not exist, and would never release it.
    """

    def __init__(self):
        self.renew()
        _made.add(self)

    def renew(self):
        """Replace the lock by a new one, which is free."""
        self._lock = threading.RLock()

    def __enter__(self):
        self._lock.acquire()

    def __exit__(self, *error):
        self._lock.release()


def _renew_all():
    for lock in list(_made):
        lock.renew()


_made: weakref.WeakSet[Lock] = weakref.WeakSet()
os.register_at_fork(after_in_child=_renew_all)
