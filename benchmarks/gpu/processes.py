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

from benchmarks.gpu.records import FAILED, VARIABLE, Task
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
    # On its first use of the device each process would check it, which one of the stages does.
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
        code = process.wait(max(0.0, task.until - time.time()))
    except subprocess.TimeoutExpired:
        code = None
    kill(process)
    running.discard(process)
    reader.join(5)
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
    before = None
    while time.time() < task.until and not stopped.is_set():
        code, lines = run(command, task)
        left, begun = task.left()
        for name, report in reports(lines).items():
            task.end(f"{name}, compute-sanitizer", FAILED, error=report)
        if code is None:
            return
        if begun or code not in (0, POISONED, SANITIZER_FOUND):
            for name in begun or [f"process {task.process}"]:
                task.end(name, FAILED, error=f"its process ended with {code}: {place(lines)}")
        if not left or left == before:
            return
        before = left


def place(lines: list[str]) -> str:
    """What was said last, and where it was, if a traceback says so."""
    frames = re.findall(r'File "(.*?)", line (\d+)', "\n".join(lines))
    own = [f"{file[len(f'{ROOT}/') :]}:{n}" for file, n in frames if file.startswith(f"{ROOT}/")]
    fatal = [line for line in lines if line.startswith(("Timeout (", "Fatal Python error"))]
    said = fatal or [line for line in lines if line.strip()] or ["it said nothing"]
    # faulthandler begins with the innermost frame, Python ends with it.
    return f"{said[-1]} @ {own[0 if fatal else -1]}" if own else said[-1]


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
