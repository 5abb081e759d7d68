"""Runs the stages, one after another.  It needs no network, installs nothing, and writes into one
folder alone: records.jsonl, log.txt and figures while it goes, summary.txt, and DATE-GPU.json."""

import argparse
import datetime
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import STAND_IN, machine
from benchmarks.gpu import processes, summary
from benchmarks.gpu.processes import FAILED, RECORDS, Task
from benchmarks.gpu.stages import DRY, SECONDS, STAGES, Skip, Stage

START, END = 3.0, 5.0  # seconds that a stage takes to begin at all, and kept for the summary


def arguments(words=None):
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.gpu", description=__doc__)
    add, names = parser.add_argument, [stage.name for stage in STAGES]
    folder = machine.ROOT / ".benchmarks" / f"{datetime.datetime.now():gpu-%Y-%m-%d-%H%M%S}"
    add("--results", type=Path, metavar="DIR", default=folder)
    add("--seconds", type=float, default=float(SECONDS), help="for the whole run")
    add("--only", action="append", choices=names, help="in the place of its records in DIR")
    add("--dry-run", action="store_true", help="all at tiny sizes on a stand-in for the GPU")
    add("--summary", type=Path, metavar="DIR", help="only a summary of the records there")
    return parser.parse_args(words)


def run(stage: Stage, task: Task):
    """All processes of a stage, so many at a time; what becomes of it is recorded."""
    begin, closed = time.time(), ""
    task.write(limit=round(task.until - begin, 1))
    print(f"== {stage.name}, at most {task.until - begin:.0f} s", flush=True)
    try:
        with ThreadPoolExecutor(min(stage.jobs, machine.CORES)) as pool:
            list(pool.map(lambda pair: processes.follow(*pair), stage.processes(task)))
    except Skip as reason:
        closed = f"skipped, {reason}"
    ended = "out of time" if time.time() > task.until else "done"
    ended = "cut off" if processes.stopped.is_set() else ended
    task.write(closed=closed or ended, seconds=round(time.time() - begin, 1))


def run_all(folder: Path, options):
    """A stage's share of the time grows by what those before it did not need."""
    chosen = [stage for stage in STAGES if stage.name in (options.only or [stage.name])]
    end = time.time() + options.seconds - min(END, options.seconds / 10)
    for i, stage in enumerate(chosen):
        left = end - time.time()
        if left < START or processes.stopped.is_set():
            return
        share = stage.seconds / sum(other.seconds for other in chosen[i:])
        seconds = max(START, left * share)
        most = stage.most * min(1.0, seconds / stage.seconds)
        run(stage, Task(str(folder), stage.name, most, time.time() + seconds))
        tests = processes.read(folder)[stage.name]["tests"].values()
        if stage.name == "device" and any(test["outcome"] == FAILED for test in tests):
            print("no device, so that nothing else is tried", flush=True)
            return


def main(words=None) -> int:
    """The exit code: 0 if something was done and nothing failed."""
    options = arguments(words)
    if options.dry_run and not DRY:  # which all modules see from the beginning
        os.environ[STAND_IN] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.gpu", *sys.argv[1:]])
    folder = (options.summary or options.results).resolve()
    if not options.summary:
        if (folder / RECORDS).exists() and not options.only:
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
