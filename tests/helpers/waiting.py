"""Waiting for what will happen, however long a busy machine takes for it."""

import os
import time
from pathlib import Path

HANGS = 240  # seconds: what has not happened by then never will; pytest ends a test at 300


def until(happened, what="that"):
    """Returns what `happened()` does, as soon as that is true."""
    end = time.monotonic() + HANGS
    while not (result := happened()):
        assert time.monotonic() < end, f"{what} has not happened in {HANGS} s"
        time.sleep(0.002)
    return result


def has_ended(pid: int) -> bool:
    """A process is gone, or a zombie that nobody has asked for."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True
