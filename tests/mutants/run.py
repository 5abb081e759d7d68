"""Mutants drawn at random, and the tests that run them, in copies of the tree."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from . import compiled, cpp, equivalents, python
from .edit import Edit
from .tests_of import Reached, environment, trace

REPOSITORY = Path(__file__).parents[2]
SCRATCH = REPOSITORY / ".mutants"
PATTERNS = ("gpumlp/**/*.py", "kernels/*/*.[ch]*")
PATIENCE = 60  # seconds for a test and for all of a mutant, besides SLOWER times what they took
SLOWER = 4
UNKNOWN = 60  # seconds of tests that were not timed
MEMORY = 6 << 30  # bytes that a mutant of Python may ask for
KILLED, SURVIVED, EQUIVALENT = "killed", "survived", "equivalent"


class Mutant(NamedTuple):
    file: str  # relative to the repository
    text: str
    edit: Edit

    @property
    def lines(self) -> range:
        return self.edit.lines(self.text)

    def __str__(self) -> str:
        before, after = self.edit.told(self.text)
        return f"{self.file}:{self.lines.start}\n    - {before}\n    + {after}"


class Verdict(NamedTuple):
    mutant: Mutant
    outcome: str
    why: str  # the test that failed, or the reason why none can
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.outcome:10} {self.seconds:5.0f} s  {self.mutant}\n    {self.why}"


# ------------------------------------------------------------------ drawing


def every_mutant(chosen: str = "") -> Iterator[Mutant]:
    """Of the files whose names contain `chosen`; some of C++ are no programs."""
    for pattern in PATTERNS:
        for path in sorted(REPOSITORY.glob(pattern)):
            file = str(path.relative_to(REPOSITORY))
            if chosen in file:
                text = path.read_text()
                find = python.edits if path.suffix == ".py" else cpp.edits
                yield from (Mutant(file, text, edit) for edit in find(text))


def draw(count: int, seed: int, chosen: str = "") -> Iterator[Mutant]:
    """So many of them, all different."""
    mutants = list(every_mutant(chosen))
    random.Random(seed).shuffle(mutants)
    for mutant in mutants:
        if count and compiled.is_program(mutant.file, mutant.text, mutant.edit.apply(mutant.text)):
            count -= 1
            yield mutant


# ------------------------------------------------------------------ copies of the tree


def tracked() -> list[str]:
    """The files that git has, or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).is_file()]


def copy(tree: Path) -> Path:
    shutil.rmtree(tree, ignore_errors=True)
    for name in tracked():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, tree / name)
    return tree


def state() -> str:
    """Of the sources and their tests."""
    digest = hashlib.sha256()
    for name in sorted(tracked()):
        if name.startswith(("gpumlp/", "kernels/", "tests/")) and "/mutants/" not in name:
            digest.update(name.encode() + (REPOSITORY / name).read_bytes())
    return digest.hexdigest()[:16]


def reached(stale: bool) -> Reached:
    """What each test runs: found out once for a state of the tree.

    stale: the newest that there is will do.
    """
    folder = SCRATCH / f"reached-{state()}"
    known = sorted(SCRATCH.glob("reached-*"), key=lambda each: each.stat().st_mtime)
    if stale and known:
        folder = known[-1]
    if not folder.exists():
        print("Which test runs what? All run once, traced.", flush=True)
        aside = SCRATCH / "tracing"
        shutil.rmtree(aside, ignore_errors=True)
        trace(copy(SCRATCH / "tree"), aside, os.cpu_count() or 1)
        aside.rename(folder)
    return Reached(folder)


# ------------------------------------------------------------------ judging


@contextlib.contextmanager
def planted(mutant: Mutant, tree: Path):
    """The mutant in the tree, at a time of its own: Python tells compiled files by it."""
    path = tree / mutant.file
    was = path.stat()
    path.write_text(mutant.edit.apply(mutant.text))
    os.utime(path, ns=(was.st_atime_ns, time.time_ns() - (1 << 60) // 10))
    try:
        yield
    finally:
        path.write_text(mutant.text)
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))


def judge(mutant: Mutant, tree: Path, known: Reached) -> Verdict:
    reason = equivalents.reason(mutant.file, *mutant.edit.told(mutant.text))
    if reason:
        return Verdict(mutant, EQUIVALENT, reason)
    tests = known.tests(mutant.file, mutant.lines, mutant.edit.once)
    if not tests:
        return Verdict(mutant, SURVIVED, "no test runs it")
    begin = time.monotonic()
    seconds = [known.seconds.get(test, UNKNOWN) for test in tests]
    with planted(mutant, tree):
        code, output = run(tests, tree, seconds, mutant.file.endswith(".py"))
    seconds = time.monotonic() - begin
    if code == 0:
        return Verdict(mutant, SURVIVED, f"{len(tests)} tests pass", seconds)
    return Verdict(mutant, KILLED, _first_failure(output) or f"exit {code}", seconds)


def _first_failure(output: str) -> str | None:
    """The test that failed, or how Python ended."""
    for pattern in r"^(?:FAILED|ERROR) (\S.*?)(?: - |$)", r"((?:Fatal|Timeout|the tests did).*)$":
        found = re.search(pattern, output, re.M)
        if found:
            return found[1]
    return None


def run(tests: list[str], tree: Path, seconds: list[float], limited: bool) -> tuple[int, str]:
    """The exit status of pytest, and what it says; a mutant that hangs is ended.

    seconds: what each test took before.
    """
    one, patience = (PATIENCE + SLOWER * each for each in (max(seconds), sum(seconds)))
    (tree / "tests.txt").write_text("\n".join(tests))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", "-p", "no:cacheprovider"]
    command += ["-o", f"faulthandler_timeout={one:.0f}", "-o", "faulthandler_exit_on_timeout=true"]
    command += [f"--basetemp={tree}/.basetemp", "@tests.txt"]

    def limit():
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, resource.RLIM_INFINITY))

    process = subprocess.Popen(
        command,
        cwd=tree,
        env=environment(tree),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=limit if limited else None,
    )
    _running.add(process.pid)
    with process:
        try:
            output, _ = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            output = f"the tests did not end in {patience:.0f} s"
        finally:
            _running.discard(process.pid)
            _end(process.pid)
    return process.returncode, output


_running: set[int] = set()


def _end(group: int) -> None:
    """The tests, and what they have started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def judge_all(mutants: Iterable[Mutant], known: Reached, told: Callable) -> list[Verdict]:
    """As many at once as there are processors, each in a copy of the tree."""
    trees: SimpleQueue[Path] = SimpleQueue()
    workers = os.cpu_count() or 1
    for worker in range(workers):
        trees.put(copy(SCRATCH / f"tree-{worker}"))

    def one(mutant: Mutant) -> Verdict:
        tree = trees.get()
        try:
            verdict = judge(mutant, tree, known)
        finally:
            trees.put(tree)
        told(verdict)
        return verdict

    with ThreadPoolExecutor(workers) as pool:
        try:
            return list(pool.map(one, mutants))
        except BaseException:  # such as Ctrl-C
            pool.shutdown(wait=False, cancel_futures=True)
            for group in list(_running):
                _end(group)
            raise
