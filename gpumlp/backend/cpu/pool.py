"""A pool of threads for work in Python, as on the networks of a stack; idle threads sleep.

A piece is mostly calls into C libraries, which run beside the others because ctypes releases the
interpreter's lock.  Pieces of a single such call are shared by kernels/cpu/sequence.cpp.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # a container's share: "200000 100000", or "max …"


def run(work: Callable[[int], object], pieces: int) -> None:
    """Run work(0), …, work(pieces - 1), each once, in parallel where cores allow; 0 runs here.

    Returns when all have ended.  Raises the caller's exception, or else the first of the others.
    """
    pool = _pool
    # Whoever finds the others at work, or calls this from a piece of work, works alone.
    if pieces < 2 or threads() < 2 or not pool.busy.acquire(blocking=False):
        with alone():
            for i in range(pieces):
                work(i)
        return
    try:
        pool.share(_Job(work, pieces))
    finally:
        pool.busy.release()


@contextlib.contextmanager
def alone():
    """A context in which threads() is 1."""
    outer, _here.works = getattr(_here, "works", False), True
    try:
        yield
    finally:
        _here.works = outer


def threads() -> int:
    """The most threads that work at a time, the caller's included; 1 within a piece of work."""
    return 1 if getattr(_here, "works", False) else _cores()


@functools.cache
def _cores() -> int:
    """The cores that this process may use, by its affinity, its quota and OMP_NUM_THREADS."""
    try:
        counts = [len(os.sched_getaffinity(0))]
    except AttributeError:  # not on Linux
        counts = [os.cpu_count() or 1]
    try:
        quota, period = map(int, CGROUP_QUOTA.read_text().split())
        counts.append(math.ceil(quota / period))
    except (OSError, ValueError):
        pass  # no quota
    try:
        counts.append(int(os.environ.get("OMP_NUM_THREADS", "").split(",")[0]))
    except ValueError:
        pass  # not set, or no number
    return max(1, min(counts))


class _Job:
    """Pieces of work, each done by the thread that claims it first: the caller's or a helper."""

    def __init__(self, work: Callable[[int], object], pieces: int):
        self.work = work
        self.pieces = pieces
        self.owner: dict[int, object] = {}  # None is the caller
        # An entry for each piece that a helper has ended: None, or its exception.
        self.ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def claim(self, i: int, who: object) -> bool:
        """Claim piece i for `who`; whether it is theirs."""
        # One step of the interpreter, so that no thread and no Ctrl-C comes between.
        return self.owner.setdefault(i, who) is who

    def lead(self) -> None:
        """Work on the caller's thread until no piece is left, then wait for the helpers' pieces.

        A helper that has not woken by then has claimed nothing, and is not waited for.
        """
        try:
            with alone():
                for i in range(self.pieces):
                    if self.claim(i, None):
                        self.work(i)
        finally:
            # After an exception too: the helpers' pieces write into the caller's buffers.
            theirs = [i for i in range(self.pieces) if not self.claim(i, None)]
            errors = [self.ended.get() for _ in theirs]
        for error in errors:
            if error is not None:
                raise error

    def help(self) -> None:
        """Work on a helper's thread; one that is quick may get the same job again."""
        who = object()
        for i in range(1, self.pieces):
            if self.claim(i, who):
                try:
                    self.work(i)
                except BaseException as error:
                    self.ended.put(error)
                else:
                    self.ended.put(None)


class _Pool:
    """Helper threads, started when first needed, which wait for jobs."""

    def __init__(self):
        self.busy = threading.Lock()
        self.jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self.helpers = 0

    def share(self, job: _Job) -> None:
        wanted = min(job.pieces, threads()) - 1
        while self.helpers < wanted and self._add():
            pass
        for _ in range(min(wanted, self.helpers)):
            self.jobs.put(job)
        job.lead()

    def _add(self) -> bool:
        """Start a helper; False where no thread can be had, as while the interpreter ends."""
        # Daemons: a process ends without waiting for threads that wait for work.
        try:
            threading.Thread(
                target=_serve, args=[self.jobs], name="gpumlp-helper", daemon=True
            ).start()
        except RuntimeError:
            return False
        self.helpers += 1
        return True


def _serve(jobs: queue.SimpleQueue[_Job]) -> None:
    _here.works = True
    while True:
        jobs.get().help()


def _renew() -> None:
    """Make a new pool in a forked process, where the helpers do not exist."""
    global _pool
    _pool = _Pool()
    _here.works = False
    _cores.cache_clear()


_here = threading.local()
_pool = _Pool()
os.register_at_fork(after_in_child=_renew)
