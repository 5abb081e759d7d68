"""Runs the stages, one after another.  It needs no network, installs nothing, and writes into one
folder alone: records.jsonl and log.txt while it goes, summary.txt, and DATE-GPU.json to keep."""

from __future__ import annotations

import argparse
import datetime
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import machine
from benchmarks.gpu import processes, records, summary
from benchmarks.gpu.records import Skip, Task
from benchmarks.gpu.stages import SECONDS, STAGES, Stage

START, END = 3.0, 5.0  # seconds that a stage takes to begin at all, and kept for the summary


def arguments(given=None):
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.gpu", description=__doc__)
    add = parser.add_argument
    folder = machine.ROOT / ".benchmarks" / f"{datetime.datetime.now():gpu-%Y-%m-%d-%H%M%S}"
    add("--results", type=Path, metavar="DIR", default=folder)
    add("--seconds", type=float, default=float(SECONDS), help="for the whole run")
    add("--only", action="append", choices=[stage.name for stage in STAGES],
        help="this stage, which has all the time and takes the place of its records in DIR; may "
             "be repeated")  # fmt: skip
    add("--dry-run", action="store_true", help="all at tiny sizes on a stand-in for the GPU")
    add("--summary", type=Path, metavar="DIR", help="only a summary of the records there")
    return parser.parse_args(given)


def run(stage: Stage, task: Task):
    """All processes of a stage, so many at a time; what becomes of it is recorded."""
    begin = time.time()
    task.write(limit=round(task.until - begin, 1), dry=task.dry)
    print(f"== {stage.name}, at most {task.until - begin:.0f} s", flush=True)
    jobs, closed, why = min(stage.jobs, machine.cores() or 1), "done", ""
    try:
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda each: processes.follow(*each), stage.processes(task, jobs)))
    except Skip as reason:
        closed, why = "skipped", str(reason)
    if processes.stopped.is_set():
        closed = "cut off"
    task.write(closed=closed, why=why, seconds=round(time.time() - begin, 1))


def run_all(folder: Path, options):
    chosen = [stage for stage in STAGES if stage.name in (options.only or [stage.name])]
    end = time.time() + options.seconds - min(END, options.seconds / 10)
    for i, stage in enumerate(chosen):
        # What a stage does not need is for those after it.
        left = end - time.time()
        share = stage.seconds / sum(other.seconds for other in chosen[i:])
        if left < START or processes.stopped.is_set():
            return
        seconds = max(START, left * share)
        most = stage.most * min(1.0, seconds / stage.seconds)
        until = time.time() + seconds
        run(stage, Task(str(folder), stage.name, most, until, options.dry_run))
        device = records.read(folder)[stage.name].items.get("device", {})
        if device.get("outcome") == records.FAILED:
            print(f"no device, so that nothing else is tried: {device['error']}", flush=True)
            return


def main(given=None) -> int:
    """The exit code: 0 if something was done and nothing failed."""
    options = arguments(given)
    folder = (options.summary or options.results).resolve()
    if not options.summary:
        if (folder / records.FILE).exists() and not options.only:
            print(f"{folder} has the records of a run: give --only, or another --results")
            return 2
        folder.mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, processes.stop)
        run_all(folder, options)
    text, passed = summary.write(folder)
    print(f"\n{text}", flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
