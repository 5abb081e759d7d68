"""A part with every kind of finding, and two cases that are none: for tests/test_fuzz.py."""

from __future__ import annotations

import os
import signal
import time

from tests.fuzz import ACCEPTED, Fault, refused

LIMIT = 1.0
MEMORY = 1 << 28


def prepare(folder):
    return folder


def one(random, folder) -> str:
    return KINDS[list(KINDS)[random.integers(len(KINDS))]]()


def _refuse():
    return refused(ValueError("x is wrong"))


def _foreign():
    return {}["a key"]


def _silent():
    raise Fault("silent NaN", "in the third place")


def _crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def _end():
    os._exit(3)


def _hang():
    time.sleep(60)


def _grow():
    bytearray(MEMORY)


# By what is said of it.
KINDS = {
    ACCEPTED: lambda: ACCEPTED,
    "refused: ValueError": _refuse,
    "foreign: KeyError": _foreign,
    "silent NaN": _silent,
    "crash: SIGSEGV": _crash,
    "crash: exit code 3": _end,
    "hang": _hang,
    "foreign: MemoryError": _grow,
}
