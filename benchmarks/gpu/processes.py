"""The processes of a stage: each has a time limit, and one of pytest begins again after a crash."""

from __future__ import annotations

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

from benchmarks.gpu.records import BEGUN, FAILED, NOT_BEGUN, VARIABLE, Task
from benchmarks.machine import ROOT

LOG = "log.txt"
POISONED, SANITIZER_FOUND = 77, 86  # exit codes
MARK = "## "  # before the name of a test, in the output

running: set[subprocess.Popen] = set()
stopped = threading.Event()  # the run was asked to end


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
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | added | {VARIABLE: json.dumps(task)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its children end with it
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
    left: list[str] | None = None
    while time.time() < task.until and not stopped.is_set():
        before, (code, text) = left, run(command, task)
        for name, report in reports(text).items():
            task.end(f"{name}, compute-sanitizer", FAILED, report)
        outcomes = task.outcomes()
        if code is None:
            if not outcomes:
                task.write(plan=[f"all of {task.process}"])
            return
        left = [name for name, outcome in outcomes.items() if outcome == NOT_BEGUN]
        begun = [name for name, outcome in outcomes.items() if outcome == BEGUN]
        if begun or code not in (0, POISONED, SANITIZER_FOUND):
            for name in begun or [f"process {task.process}"]:
                task.end(name, FAILED, f"its process ended with {code}: {place(text)}")
        if not left or left == before:
            return


def place(text: str) -> str:
    """What was said last, and where it was, if a traceback says so."""
    frames = [f"{file}:{line}" for file, line in re.findall(r'File "(.*?)", line (\d+)', text)]
    frames = [f.removeprefix(f"{ROOT}/") for f in frames if "site-packages" not in f]
    # faulthandler begins with the innermost frame, Python ends with it.
    fatal = re.search(r"Timeout \(\S+\)!|Fatal Python error.*", text)
    said = fatal[0] if fatal else (text.strip() or "it said nothing").splitlines()[-1]
    return f"{said} @ {frames[0 if fatal else -1]}" if frames else said


def reports(text: str) -> dict[str, str]:
    """test -> what compute-sanitizer found in it first."""
    found: dict[str, list[str]] = {}
    name = "start"
    for line in text.splitlines():
        if MARK in line:
            name = line.partition(MARK)[2]
        elif re.match(r"========= (?!COMPUTE-SANITIZER)(?!.*SUMMARY)", line):
            found.setdefault(name, []).append(line.removeprefix("=========").strip())
    return {name: "; ".join(said[:4]) for name, said in found.items()}
