"""Contenders in processes of their own, which do what they are asked in turn.

The thread pools and memory pools of two libraries in one process would spoil both; and turns spread
whatever else happens on the machine over all of them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback

from benchmarks.contenders import Declined, Entry

MOST = 1000  # times that a work is done in one round
# Threads that have nothing to do spin before they sleep: OpenBLAS's for 0.1 s.  A process is at
# rest when its CPU time stands still (to a tenth) for this long; the next turn waits for that.
REST, LONGEST_REST = 0.03, 0.5
END = 2.0  # seconds that a process may take to end by itself


class Failed(Exception):
    """A contender raised, died, or did not answer in time."""


class Session:
    """What a contender can be asked, in its own process."""

    def __init__(self, entry: Entry, device: str):
        self._cls, self._device = entry.load(), device
        self.contender = None
        self._counts: dict[str, int] = {}

    def prepare(self, task, question: str):
        """Another task, and its answers, by the contender's method `question`; None if it has
        none."""
        self.contender = None  # its memory is released first
        self._counts = {}
        self.contender = self._cls(task.problem(), self._device)
        return getattr(self.contender, question)()

    def warm(self, what: str, least: float):
        """All that happens only once, and how often the work is done in so many seconds."""
        count = 1
        self._round(what, count)
        while (taken := self._round(what, count)) < least and count < MOST:
            count = min(MOST, max(2 * count, int(count * least / taken)))
        self._counts[what] = count

    def _round(self, what: str, count: int) -> float:
        contender = self.contender
        work = contender.work(what)
        contender.wait()
        begin = time.perf_counter()
        for _ in range(count):
            work()
        contender.wait()
        return time.perf_counter() - begin

    def time(self, what: str, twice: bool = True) -> float:
        """Seconds of a work, such as "step" or "predict 128": the mean over a round; twice: after
        one that wakes the threads and fills the caches."""
        count = self._counts.get(what, 1)
        if twice:
            self.contender.work(what)()
        return self._round(what, count) / count


def rest():
    """Until no thread of this process is busy."""
    end = time.monotonic() + LONGEST_REST
    used = REST
    while used > REST / 10 and time.monotonic() < end:
        before = time.process_time()
        time.sleep(REST)
        used = time.process_time() - before


DONE, DECLINED, FAILED = "done", "declined", "failed"


def serve(connection, entry: Entry, device: str):
    """The other process: answers until nobody asks."""
    # It may have children of its own, as joblib's: its group, which whoever kills the parent's
    # does not reach.
    multiprocessing.current_process().daemon = False
    os.setsid()
    threading.Thread(target=end_with_parent, daemon=True).start()
    session = None
    while True:
        try:
            verb, arguments = connection.recv()
        except EOFError:
            end_workers()
            return
        try:
            session = session or Session(entry, device)
            answer = DONE, getattr(session, verb)(*arguments)
        except Declined as reason:
            answer = DECLINED, str(reason)
        except Exception:
            answer = FAILED, traceback.format_exc()
        rest()
        connection.send(answer)


def end_with_parent():
    """Whatever this process is doing when the parent has died."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGKILL)


def end_workers():
    """Of joblib: this process would wait for them, and they wait minutes for more work."""
    if "joblib" in sys.modules:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(kill_workers=True)


class Runner:
    """A contender's process, seen from outside."""

    def __init__(self, entry: Entry, device: str, limit: float):
        self.name, self._limit = entry.name, limit
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, entry, device), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, verb: str, *arguments):
        """What the session answers; raises Failed, or Declined."""
        try:
            self._connection.send((verb, arguments))
            if not self._connection.poll(self._limit):
                self.close()
                raise Failed(f"{verb}: no answer in {self._limit:g} s")
            outcome, value = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            raise Failed(f"{verb}: the process is gone, exit code {code}") from None
        if outcome == DECLINED:
            raise Declined(value)
        if outcome == FAILED:
            raise Failed(f"{verb}: {value}")
        return value

    def close(self):
        """It ends by itself, or is killed with all that it has started."""
        self._connection.close()
        self._process.join(END)
        self._process.kill()
        with contextlib.suppress(ProcessLookupError):  # nobody is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.join(5)
