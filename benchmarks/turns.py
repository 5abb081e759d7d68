"""Contenders in processes of their own, which do what they are asked in turn.

The thread pools and memory pools of two libraries in one process would spoil both; and turns spread
whatever else happens on the machine over all of them.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from concurrent.futures import ProcessPoolExecutor

from benchmarks import clock
from benchmarks.contenders import Declined, Entry

MOST = 1000  # times that a work is done in one round
SPIN = 0.12  # seconds: OpenBLAS's threads spin for 0.1 s when they have nothing to do
END = 5.0  # seconds that a process may take to end by itself


class Failed(Exception):
    """A contender raised, died, or did not answer in time."""


class Session:
    """What a contender can be asked, in its own process."""

    def __init__(self, entry: Entry, device: str):
        self._entry, self._device = entry, device
        self._contender = None
        self._counts: dict[str, int] = {}

    def prepare(self, task):
        """Another task, and its answers; None if there is nothing to compare."""
        self._contender = None  # its memory is released first
        self._counts = {}
        self._contender = self._entry.make(task.problem(), self._device)
        return self._contender.answers()

    def warm(self, name: str, least: float):
        """All that happens only once, and how often the work is done in so many seconds."""
        count = 1
        self._round(name, count)
        while (taken := self._round(name, count)) < least and count < MOST:
            count = min(MOST, max(2 * count, int(count * least / taken)))
        self._counts[name] = count

    def _round(self, name: str, count: int) -> float:
        contender, work = self._contender, self._contender.work(name)

        def repeat():
            for _ in range(count):
                work()
            contender.wait()

        contender.wait()
        return clock.seconds(repeat)

    def time(self, name: str) -> float:
        """Seconds of a work, such as "step": the mean over a round, after one
        that wakes the threads and fills the caches where it was warmed before."""
        if name in self._counts:
            self._contender.work(name)()
        count = self._counts.get(name, 1)
        return self._round(name, count) / count

    def end(self):
        """The workers of joblib, for which this process would wait, and they for more work."""
        if "joblib" in sys.modules:
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor().shutdown(kill_workers=True)


def begin(entry: Entry, device: str):
    """In the other process.  What it starts is of its group, and ends with it."""
    os.setsid()
    threading.Thread(target=end_with_parent, daemon=True).start()
    globals()["session"] = Session(entry, device)


def end_with_parent():
    """Whatever this process is doing when the parent has died."""
    multiprocessing.parent_process().join()
    os.killpg(0, signal.SIGKILL)


def answer(verb: str, *arguments):
    """In the other process; the next turn begins when its threads are at rest."""
    result = getattr(globals()["session"], verb)(*arguments)
    time.sleep(SPIN)
    return result


class Runner:
    """A contender's process, seen from outside."""

    def __init__(self, entry: Entry, device: str, limit: float):
        self._limit = limit
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, begin, (entry, device))
        self.pid = self._pool.submit(os.getpid).result()

    def ask(self, verb: str, *arguments):
        """The session's answer; raises Failed, or Declined."""
        try:
            return self._pool.submit(answer, verb, *arguments).result(self._limit)
        except Declined:
            raise
        except TimeoutError:
            self.kill()
            raise Failed(f"{verb}: no answer in {self._limit:g} s") from None
        except Exception as error:
            raise Failed(f"{verb}: {''.join(traceback.format_exception(error))}") from None

    def close(self):
        """It ends by itself, or is killed with all that it has started."""
        timer = threading.Timer(END, self.kill)
        timer.start()
        with contextlib.suppress(Exception):
            self._pool.submit(answer, "end")
        self._pool.shutdown()
        timer.cancel()
        self.kill()

    def kill(self):
        with contextlib.suppress(ProcessLookupError):  # nobody is left
            os.killpg(self.pid, signal.SIGKILL)
