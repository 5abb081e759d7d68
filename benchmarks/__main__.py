"""`python -m benchmarks`: the tables of this machine, and with --json FILE all their figures."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path

from benchmarks import machine, operations, training
from gpumlp import backend
from gpumlp.device import resolve


def arguments(given=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short epochs and small buffers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--only", choices=["training", "operations"], help="one part alone")
    parser.add_argument("--network", help="only networks whose name contains this, e.g. 64-100")
    parser.add_argument("--contender", action="append", help="only this one; may be repeated")
    parser.add_argument("--operation", help="only operations whose name contains this")
    return parser.parse_args(given)


def main(given=None) -> int:
    """The exit code: 0 if every contender and operation was measured and gave the right answers."""
    options = arguments(given)
    device = resolve(options.device)
    found = machine.describe()
    results = {"machine": found, "device": device, "quick": options.quick}
    print(machine.one_line(found), flush=True)

    def write():
        # After every part, so that a run that is cut short leaves what it had.
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    good = True
    for name, run in (("operations", _operations), ("training", _training)):
        if options.only in (None, name):
            results[name] = []
            for record, text in run(options, device):
                good = good and not failed(record)
                results[name].append(record)
                if text:
                    print(f"\n{text}", flush=True)
                write()
    write()
    return 0 if good else 1


def failed(record: dict) -> bool:
    parts = record["contenders"].values() if "contenders" in record else [record]
    return any(part["error"] for part in parts)


def _operations(options, device):
    """Each operation's record, and with the last one the table of all."""
    ops = backend.get(device)
    cases = [case for case in operations.CASES if (options.operation or "") in case.name]
    size = "quick" if options.quick else device.partition(":")[0]
    records = []
    for case in cases:
        try:
            record = operations.measure(case, ops, size)
        except Exception as error:
            traceback.print_exc()
            record = {"name": case.name, "error": f"{type(error).__name__}: {error}"}
        records.append(record)
        yield record, operations.as_text(records, device) if case is cases[-1] else None


def _training(options, device):
    """Each network's record and table."""
    effort = training.QUICK if options.quick else training.THOROUGH
    with training.Comparison(device, options.contender) as comparison:
        for network in training.chosen(options.network, options.quick):
            record = comparison.measure(network, effort)
            yield record, training.as_text(record, device)


if __name__ == "__main__":
    sys.exit(main())
