"""`python -m benchmarks`: this machine's tables and the goals; with --json FILE every figure."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from benchmarks import compared, goals, machine, scaling
from benchmarks.suite import PARTS, Bench
from gpumlp.backend.device import resolve


def arguments(given=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="all parts with tiny sizes")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write every figure here, and beside it plots"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument(
        "--only", choices=list(PARTS), action="append", help="one part; may be repeated"
    )
    parser.add_argument("--network", help="only networks whose name contains this, e.g. 64-100")
    parser.add_argument("--contender", action="append", help="only this one; may be repeated")
    parser.add_argument("--operation", help="only operations whose name contains this")
    return parser.parse_args(given)


def main(given=None) -> int:
    """The exit code: 0 if all were measured and gave the right answers; goals do not change it."""
    options = arguments(given)
    device = resolve(options.device)
    found = machine.describe()
    results = {"machine": found, "device": device, "quick": options.quick}
    print(machine.one_line(found), flush=True)

    def write():
        # After every record, so that a run that is cut short leaves what it had.
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    good = True
    with Bench(
        device, options.quick, options.network, options.operation, options.contender
    ) as bench:
        results["copy_bandwidth"] = bench.copy_bandwidth
        results["thread_gain"] = []
        results["absent"] = bench.absent
        print(f"a copy on {device}: {bench.copy_bandwidth / 1e9:.3g} GB/s", flush=True)
        for name, why in bench.absent.items():
            print(f"{name} is absent: {why}", flush=True)
        for name, part in PARTS.items():
            if name not in (options.only or PARTS):
                continue
            records = results[name] = []
            results["thread_gain"].append(machine.thread_gain())
            begin = time.monotonic()
            for record in part.run(bench):
                records.append(record)
                good = good and not failed(record)
                results["goals"] = goals.judge(results)
                write()
                said = f"{name}: {record['name']}, {time.monotonic() - begin:.0f} s"
                print(said, file=sys.stderr, flush=True)
            show(part.tables(records, device))
            if name == "growth" and options.json:
                scaling.draw(records, options.json.with_suffix(".png"), device)
    results["goals"] = goals.judge(results)
    write()
    if options.quick:
        print("\nThe times of a quick run are too short to be judged by the goals.")
    else:
        show(goals.tables(results["goals"], device))
    return 0 if good else 1


def failed(record: dict) -> bool:
    return compared.failed(record) if "contenders" in record else bool(record["error"])


def show(tables):
    for table in tables:
        print(f"\n{table.text()}", flush=True)


def begin_again_without(variables):
    """OpenBLAS reads its kernels' names from the environment once, when it is loaded."""
    found = [name for name in variables if name in os.environ]
    if not found:
        return
    kept = {name: value for name, value in os.environ.items() if name not in found}
    print(f"without {', '.join(found)}: every library chooses its kernels itself", flush=True)
    os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *sys.argv[1:]], kept)


if __name__ == "__main__":
    begin_again_without(("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"))
    sys.exit(main())
