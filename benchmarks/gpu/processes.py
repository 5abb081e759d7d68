"""The processes of a stage: each has a time limit, and after a crash begins again."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

from benchmarks.gpu.records import BEGUN, FAILED, NOT_BEGUN, VARIABLE, Task
from benchmarks.machine import ROOT

LOG, LOG_BYTES, KEPT_LINES = "log.txt", 8 << 20, 400
POISONED, SANITIZER_FOUND = 77, 86
MARK = "## "  # before the name of an item, in the output

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


def run(command, task: Task) -> tuple[int | None, list[str]]:
    """The exit code, None if the time was over, and the end of the output; the log has it all."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # No check of the device on first use in each of so many processes: a stage does more.
    added = {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "GPUMLP_CHECK": "0"}
    try:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | added | {VARIABLE: json.dumps(task)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
            start_new_session=True,  # so that its children end with it
        )
    except OSError as error:
        return 127, [f"{type(error).__name__}: {error}"]
    running.add(process)
    lines: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
    reader = threading.Thread(target=_note, args=(process.stdout, task, lines), daemon=True)
    reader.start()
    try:
        code = process.wait(0 if stopped.is_set() else max(0.0, task.until - time.time()))
    except subprocess.TimeoutExpired:
        code = None
    kill(process)
    running.discard(process)
    reader.join(5)
    if not reader.is_alive():  # else something that fled the group still holds the pipe
        process.stdout.close()
    return None if stopped.is_set() else code, list(lines)


def _note(stream, task: Task, lines):
    for line in stream:
        lines.append(line.rstrip("\n"))
        with Path(task.folder, LOG).open("a", encoding="utf-8") as file:
            if file.tell() < LOG_BYTES:
                file.write(f"[{task.stage} {task.process}] {line}")


def follow(task: Task, command):
    """Runs the command until all that it planned has ended: what it was at when it crashed has
    failed, and it begins again with what is left."""
    left: list[str] | None = None
    code: int | None = None
    while time.time() < task.until and not stopped.is_set():
        before, (code, lines) = left, run(command, task)
        for name, report in reports(lines).items():
            task.end(f"{name}, compute-sanitizer", FAILED, error=report)
        if code is None:
            break
        outcomes = task.outcomes()
        left = [name for name, outcome in outcomes.items() if outcome == NOT_BEGUN]
        begun = [name for name, outcome in outcomes.items() if outcome == BEGUN]
        if begun or code not in (0, POISONED, SANITIZER_FOUND):
            for name in begun or [f"process {task.process}"]:
                task.end(name, FAILED, error=f"its process ended with {code}: {place(lines)}")
        if not left or left == before:
            return
    if code is None and not task.outcomes():
        task.plan([f"all of {task.process}"])


def place(lines: list[str]) -> str:
    """What was said last, and where it was, if a traceback says so."""
    text = "\n".join(lines)
    frames = re.findall(r'File "(.*?)", line (\d+)', text)
    own = [f"{file[len(f'{ROOT}/') :]}:{n}" for file, n in frames if file.startswith(f"{ROOT}/")]
    # faulthandler begins with the innermost frame, Python ends with it.
    fatal = re.search(r"Timeout \(\S+\)!|Fatal Python error.*", text)
    said = fatal[0] if fatal else (text.strip() or "it said nothing").splitlines()[-1]
    return f"{said} @ {own[0 if fatal else -1]}" if own else said


def reports(lines: list[str]) -> dict[str, str]:
    """item -> what compute-sanitizer found in it first."""
    found: dict[str, list[str]] = {}
    name = "start"
    for line in lines:
        if line.startswith(MARK):
            name = line.removeprefix(MARK)
        elif re.match(r"========= (?!COMPUTE-SANITIZER)(?!.*SUMMARY)", line):
            found.setdefault(name, []).append(line.removeprefix("=========").strip())
    return {name: "; ".join(said[:4]) for name, said in found.items()}


def unusable() -> bool:
    """Whether an error sticks to this process: every later call would fail, too."""
    import cupy

    try:
        cupy.cuda.get_current_stream().synchronize()
    except Exception:
        return True
    return False
