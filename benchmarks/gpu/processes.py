"""The processes of a stage, and what they write while they go: a line of JSON for each test that
was planned, began or ended.  Each has a time limit, and one of pytest begins again after a crash.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import ROOT

RECORDS, LOG, VARIABLE = "records.jsonl", "log.txt", "GPUMLP_BENCHMARKS_TASK"
PLANNED, BEGUN = "not begun", "cut short"  # unless another record follows
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
POISONED, SANITIZER_FOUND = 77, 86  # exit codes
MARK = "## "  # before the name of a test, in the output

running: set[subprocess.Popen] = set()
stopped = threading.Event()  # the run was asked to end


class Task(NamedTuple):
    """What a process has to do and where it writes, which it reads in its environment.

    process: its name within the stage; share: it does part i of n; most: seconds of one test;
    until: when the stage's time is over.
    """

    folder: str
    stage: str
    most: float
    until: float
    process: str = ""
    share: tuple[int, int] = (0, 1)

    def write(self, **record):
        """By one write, so that no lines of several processes are lost or mixed up."""
        record = {"stage": self.stage, "process": self.process} | record
        with Path(self.folder, RECORDS).open("ab", buffering=0) as file:
            # A line that was cut short with an earlier run does not swallow this one.
            file.write(f"\n{json.dumps(record, default=str)}\n".encode())

    def end(self, name: str, outcome: str, error: str = "", **figures):
        self.write(name=name, outcome=outcome, error=error[:600], figures=figures)

    def tests(self, outcome: str) -> list[str]:
        """Of this process, with this outcome so far."""
        tests, wanted = read(self.folder)[self.stage]["tests"], (self.process, outcome)
        return [n for n, test in tests.items() if (test["process"], test["outcome"]) == wanted]


def read(folder) -> dict[str, dict]:
    """Each stage since it last began: limit and, when it is over, closed and seconds; tests: name
    -> its last record."""
    stages: dict[str, dict] = {}
    path = Path(folder, RECORDS)
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):  # cut short, or empty
            record = json.loads(line)
            if "limit" in record:
                stages[record["stage"]] = {"tests": {}}
            tests = stages[record["stage"]]["tests"]
            if "name" not in record:
                stages[record["stage"]] |= record
            # A test whose teardown fails has passed before: the worse counts.
            elif record["outcome"] == PLANNED:
                tests.setdefault(record["name"], record)
            elif tests.get(record["name"], {}).get("outcome") != FAILED:
                tests[record["name"]] = record
    return stages


def stop(*signal_and_frame):
    stopped.set()
    for process in list(running):
        kill(process)


def kill(process):
    """The process and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run(command, task: Task) -> tuple[int | None, str]:
    """The exit code, None if the time was over, and the output, which the log has, too."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # No check of the device on first use in each of so many processes: a stage does more.
    added = {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "GPUMLP_CHECK": "0"}
    environment = os.environ | added | {VARIABLE: json.dumps(task)}
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        # In a session of its own, so that its children end with it.
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, start_new_session=True, **streams
        )
        running.add(process)
        try:
            code = process.wait(0 if stopped.is_set() else max(0.0, task.until - time.time()))
        except subprocess.TimeoutExpired:
            code = None
        kill(process)
        running.discard(process)
        output.seek(0)
        text = output.read()
    with Path(task.folder, LOG).open("a", encoding="utf-8") as log:
        log.write(f"==== {task.stage} {task.process}, exit code {code}\n{text}")
    return None if stopped.is_set() else code, text


def follow(task: Task, command):
    """Runs the command until all that it planned has ended: the test that it was at when it crashed
    has failed, and it begins again with what is left."""
    before: list[str] | None = None
    while time.time() < task.until and not stopped.is_set():
        code, text = run(command, task)
        for name, report in sanitizer_reports(text).items():
            task.end(f"{name}, compute-sanitizer", FAILED, report)
        begun, left = task.tests(BEGUN), task.tests(PLANNED)
        if code is None:
            return
        if begun or code not in (0, POISONED, SANITIZER_FOUND):
            for name in begun or [f"process {task.process}"]:
                task.end(name, FAILED, f"its process ended with {code}: {place(text)}")
        if not left or left == before:
            return
        before = left


def place(text: str) -> str:
    """What was said last, and where it was, if a traceback says so."""
    frames = [f"{file}:{line}" for file, line in re.findall(r'File "(.*?)", line (\d+)', text)]
    frames = [f.removeprefix(f"{ROOT}/") for f in frames if "site-packages" not in f]
    # faulthandler begins with the innermost frame, Python ends with it.
    fatal = re.search(r"Timeout \(\S+\)!|Fatal Python error.*", text)
    said = fatal[0] if fatal else (text.strip() or "it said nothing").splitlines()[-1]
    return f"{said} @ {frames[0 if fatal else -1]}" if frames else said


def sanitizer_reports(text: str) -> dict[str, str]:
    """test -> what compute-sanitizer found in it first."""
    reports: dict[str, list[str]] = {}
    name = "start"
    for line in text.splitlines():
        if MARK in line:
            name = line.partition(MARK)[2]
        elif re.match(r"========= (?!COMPUTE-SANITIZER)(?!.*SUMMARY)", line):
            reports.setdefault(name, []).append(line.removeprefix("=========").strip())
    return {name: "; ".join(lines[:4]) for name, lines in reports.items()}
