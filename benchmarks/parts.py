"""One part of a longer run: a command under a time limit, whose output is shown and partly kept."""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT_LINES = 200
GRACE = 5.0  # seconds between asking a command to stop and killing it


def run(command: list[str], limit: float) -> dict:
    """Runs the command from the checkout, with its packages importable.

    Returns command, limit, outcome ("passed", "failed", "timed out"), exit_code, seconds and tail,
    the end of its output; never raises for what the command does.
    """
    begin = time.monotonic()
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    record = {"command": command, "limit": round(limit, 1)}
    try:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # so that its children end with it
        )
    except OSError as error:
        return record | _ended("failed", None, begin, [f"{type(error).__name__}: {error}"])
    tail: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
    reader = threading.Thread(target=_show, args=(process.stdout, tail), daemon=True)
    reader.start()
    try:
        code = process.wait(limit)
        outcome = "passed" if code == 0 else "failed"
    except subprocess.TimeoutExpired:
        code, outcome = None, "timed out"
    finally:
        _end(process)
    reader.join(GRACE)
    if not reader.is_alive():  # else something that fled the group still holds the pipe
        process.stdout.close()
    return record | _ended(outcome, code, begin, list(tail))


def _ended(outcome, code, begin, tail) -> dict:
    seconds = round(time.monotonic() - begin, 1)
    return {"outcome": outcome, "exit_code": code, "seconds": seconds, "tail": tail}


def _show(stream, tail):
    for line in stream:
        tail.append(line.rstrip("\n"))
        sys.stdout.write(line)
        sys.stdout.flush()


def _end(process):
    """The process and all that it started: first asked, then killed."""
    for sign, wait in ((signal.SIGINT, GRACE), (signal.SIGKILL, GRACE)):
        if process.poll() is not None and sign == signal.SIGINT:
            continue  # it has ended; its children, if any are left, are killed
        try:
            os.killpg(process.pid, sign)
            process.wait(wait)
        except (ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
            pass
