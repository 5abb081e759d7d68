"""Draw mutants, run the tests that reach them, and say which survive."""

import argparse
import sys
import time

from . import run

WANTED = 0.97  # of those that are not equivalent


def main(arguments: list[str] | None = None) -> int:
    """0 if enough are killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="mutants to draw (default: 100)")
    parser.add_argument("--seed", type=int, default=7, help="of the draw (default: 7)")
    parser.add_argument("--files", default="", metavar="PART", help="only files named like this")
    parser.add_argument("--list", action="store_true", help="print them, and run nothing")
    parser.add_argument(
        "--stale", action="store_true", help="trust the last trace, though the tree has changed"
    )
    options = parser.parse_args(arguments)
    mutants = list(run.draw(options.count, options.seed, options.files))
    if options.list:
        print(*mutants, sep="\n")
        return 0
    known = run.reached(options.stale)
    begin = time.monotonic()
    verdicts = run.judge_all(mutants, known, lambda verdict: print(verdict, flush=True))
    count = {each: 0 for each in (run.KILLED, run.SURVIVED, run.EQUIVALENT)}
    for verdict in verdicts:
        count[verdict.outcome] += 1
    share = count[run.KILLED] / max(1, count[run.KILLED] + count[run.SURVIVED])
    print(*(f"{number} {outcome}" for outcome, number in count.items()), sep=", ", end=": ")
    print(f"{share:.1%} in {(time.monotonic() - begin) / 60:.0f} minutes")
    print(*(each for each in verdicts if each.outcome == run.SURVIVED), sep="\n")
    return int(share < WANTED)


if __name__ == "__main__":
    sys.exit(main())
