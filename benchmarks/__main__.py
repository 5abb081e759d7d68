"""`python -m benchmarks`: this machine's tables and the goals; with --json FILE every figure."""

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks import cases, compared, goals, machine, operations
from benchmarks.contenders import ENTRIES
from gpumlp import backend
from gpumlp.backend.device import resolve

PARTS = [*cases.PARTS, "operations"]


def arguments(words=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="all parts at tiny sizes")
    add("--json", type=Path, metavar="FILE", help="write every figure here")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--only", choices=PARTS, action="append", help="one part; may be repeated")
    add("--task", default="", help="only tasks and operations whose name contains this")
    add("--contender", choices=ENTRIES, action="append", help="only this one; may be repeated")
    return parser.parse_args(words)


def tables(results: dict) -> dict[str, str]:
    """Of each part that was measured, and of the goals."""
    device, shown = results["device"], {}
    for part in [part for part in PARTS if results.get(part)]:
        make = operations.operations_table if part == "operations" else compared.part_table
        title = cases.PARTS.get(part, operations.TITLE)
        shown[part] = make(f"{title}, {device}; medians", results[part])
    shown["goals"] = "The times of a quick run are too short to be judged by the goals."
    if not results["quick"]:
        shown["goals"] = goals.goals_table(goals.judge(results), device)
    return shown


def measure(options, results: dict, contest: compared.Contest):
    """Adds record after record to the results; each time they are written, so that a run that is
    cut short leaves what it had."""
    device, quick, name = results["device"], options.quick, options.task
    for part in options.only or PARTS:
        results[part], begin = [], time.monotonic()
        if part == "operations":
            records = operations.run(device, quick, name)
        else:
            chosen = cases.chosen(part, device, quick, name)
            records = (contest.measure(case, results["copy_bandwidth"]) for case in chosen)
        for record in records:
            results[part].append(record)
            for error in compared.errors(record):
                results["errors"].append(error)
                print(error, flush=True)
            results["goals"] = goals.judge(results)
            if options.json:
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            taken = time.monotonic() - begin
            print(f"{part}: {record['name']}, {taken:.0f} s", file=sys.stderr, flush=True)
        if results[part]:
            print(f"\n{tables(results)[part]}", flush=True)


def main(words=None) -> int:
    """The exit code: 0 if all were measured and gave the right answers; goals do not change it."""
    options = arguments(words)
    device = resolve(options.device)
    copy_bandwidth = operations.copy_bandwidth(backend.get(device), options.quick)
    results = {"machine": machine.describe(), "device": device, "quick": options.quick}
    print(machine.one_line(results["machine"]))
    print(f"a copy on {device}: {copy_bandwidth / 1e9:.3g} GB/s", flush=True)
    with compared.Contest(device, options.contender) as contest:
        results |= {"copy_bandwidth": copy_bandwidth, "absent": contest.absent, "errors": []}
        for name, why in contest.absent.items():
            print(f"{name} is absent: {why}", flush=True)
        measure(options, results, contest)
    print(f"\n{tables(results)['goals']}", flush=True)
    return 1 if results["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
