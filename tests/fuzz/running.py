"""Cases of a part in a process that may crash or hang: each is noted before it runs."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.fuzz import ACCEPTED, Fault

ROOT = Path(__file__).resolve().parent.parent.parent
SAID = 1000  # characters of a message, so that a line goes through a pipe in one piece
START = 300  # seconds that `prepare` may take, which compiles on a machine's first use


class Outcome(NamedTuple):
    """number: of the case;  verdict: what the cases of its kind have in common;  said: the rest."""

    number: int
    verdict: str
    said: str

    @property
    def is_finding(self) -> bool:
        return self.verdict != ACCEPTED and not self.verdict.startswith("refused: ")


def random_of(seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, number])


# ---------------------------------------------------------------- in the process of the cases
def _judge(part, shared, seed: int, number: int) -> Outcome:
    try:
        return Outcome(number, part.one(random_of(seed, number), shared), "")
    except Fault as fault:
        return Outcome(number, fault.kind, str(fault)[:SAID])
    except BaseException as error:  # the panics of Rust are no Exception
        kind = f"foreign: {type(error).__name__} {_place(error)}"
        return Outcome(number, kind, str(error)[:SAID])


def _place(error: BaseException) -> str:
    """The last line of the library's own that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}gpumlp{os.sep}" in frame.filename] or frames
    return f"at {os.path.relpath(ours[-1].filename, ROOT)}:{ours[-1].lineno}"


def _limit_memory(more: int) -> None:
    """So many bytes of addresses beyond those that there are."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def serve(module: str, seed: int, first: int, folder: str, pipe: int) -> None:
    """Run cases from the first on; each begins with a line [number] in the pipe, and ends with
    [number, verdict, said]."""
    part = importlib.import_module(module)
    os.set_inheritable(pipe, False)
    shared = part.prepare(Path(folder))
    if part.MEMORY is not None:
        _limit_memory(part.MEMORY)
    with open(pipe, "w") as lines:
        for number in itertools.count(first):
            print(json.dumps([number]), file=lines, flush=True)
            print(json.dumps(_judge(part, shared, seed, number)), file=lines, flush=True)


# ---------------------------------------------------------------- in the process that watches
def outcomes(module: str, seed: int, first: int = 0) -> Iterator[Outcome]:
    """Of the cases from the first on, without end: close the iterator."""
    while True:
        last = None
        for last in _of_one_process(module, seed, first):
            yield last
        first = last.number + 1


def _of_one_process(module: str, seed: int, first: int) -> Iterator[Outcome]:
    """Until a case ends it, or has to be ended; that one is the last."""
    limit = importlib.import_module(module).LIMIT
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
        (Path(folder) / "cases").mkdir()
        with _process(module, seed, first, f"{folder}/cases", errors) as (process, lines):
            number = None
            while True:
                ready, _, _ = select.select([lines], [], [], START if number is None else limit)
                line = lines.readline() if ready else None
                if not line:
                    break
                number, *outcome = json.loads(line)
                if outcome:
                    yield Outcome(number, *outcome)
            if line is not None:
                process.wait(limit)
        errors.seek(0)
        said = errors.read()[-2000:]
    if number is None:
        raise RuntimeError(f"{module} does not begin: {said}")
    if line is None:
        yield Outcome(number, "hang", f"more than {limit:g} s")
    else:
        yield Outcome(number, f"crash: {_how(process.returncode)}", said)


@contextlib.contextmanager
def _process(module: str, seed: int, first: int, folder: str, errors):
    """The process, and the lines that it writes."""
    into, out = os.pipe()
    arguments = json.dumps([module, seed, first, folder, out])
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz.running", arguments],
        pass_fds=[out],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,
        cwd=ROOT,
    )
    os.close(out)
    # Without a buffer: what is in one, `select` does not see.
    with os.fdopen(into, "rb", buffering=0) as lines:
        try:
            yield process, lines
        finally:
            _end(process)


def _end(process: subprocess.Popen) -> None:
    """It, and whatever it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def collect(
    module: str, seed: int, seconds: float = np.inf, count: float = np.inf
) -> list[Outcome]:
    """Of the cases from 0 on, for so many seconds or until there are so many."""
    found: list[Outcome] = []
    end = time.monotonic() + seconds
    with contextlib.closing(outcomes(module, seed)) as each:
        for outcome in each:
            found.append(outcome)
            if len(found) >= count or time.monotonic() >= end:
                return found
    return found


if __name__ == "__main__":
    serve(*json.loads(sys.argv[1]))
