"""`python -m tests.fuzz`: see tests/fuzz/__init__.py.  The exit code is 1 if there are findings."""

from __future__ import annotations

import argparse
import importlib
import secrets
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.fuzz import PARTS, running


def summary(part: str, seed: int, found: list[running.Outcome]) -> str:
    """How many cases there were of each verdict; of a finding, the first with its message."""
    lines = [f"{part}, seed {seed}: {len(found)} cases"]
    first: dict[str, running.Outcome] = {}
    for outcome in found:
        first.setdefault(outcome.verdict, outcome)
    for verdict, count in Counter(outcome.verdict for outcome in found).most_common():
        lines.append(f"{count:8d}  {verdict}")
        if first[verdict].is_finding:
            lines.append(f"{'':10}--part {part} --seed {seed} --case {first[verdict].number}")
            lines += [f"{'':12}{line}" for line in first[verdict].said.splitlines()]
    return "\n".join(lines)


def run_one(part: str, seed: int, number: int) -> None:
    """In this process, so that whatever it raises is seen, and a debugger may look."""
    module = importlib.import_module(f"tests.fuzz.{part}")
    with tempfile.TemporaryDirectory() as folder:
        print(module.one(running.random_of(seed, number), module.prepare(Path(folder))))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for all parts (10)")
    parser.add_argument("--seed", type=int, help="drawn, and printed, unless it is given")
    parser.add_argument("--part", choices=PARTS, help="only this one")
    parser.add_argument("--case", type=int, metavar="N", help="only this case of part and seed")
    given = parser.parse_args(arguments)
    if given.case is not None:
        if given.part is None or given.seed is None:
            parser.error("--case goes with --part and --seed")
        run_one(given.part, given.seed, given.case)
        return 0
    seed = secrets.randbelow(2**32) if given.seed is None else given.seed
    parts = [given.part] if given.part else PARTS
    findings = 0
    for part in parts:
        found = running.collect(f"tests.fuzz.{part}", seed, 60 * given.minutes / len(parts))
        print(summary(part, seed, found), flush=True)
        findings += sum(outcome.is_finding for outcome in found)
    print(f"{findings} findings" if findings else "nothing found")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
