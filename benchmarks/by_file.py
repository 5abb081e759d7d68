"""Each test file in a pytest of its own, several at once.

`python -m benchmarks.by_file --jobs 4 [options of pytest] FILE...`: an error that leaves the GPU
unusable for its process, a crash, or a test that hangs then spoils one file and not the others.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

# Exit codes of pytest: a test failed; nothing was collected or chosen.
FAILED_TESTS, NO_TESTS = 1, 5
SHOWN_LINES = 40  # of a file that failed


def run(file: str, options: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, file],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def main(given=None) -> int:
    """The exit code: 0 if no test failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.by_file", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1)
    known, rest = parser.parse_known_args(given)
    files = [argument for argument in rest if argument.endswith(".py")]
    options = [argument for argument in rest if argument not in files]
    # The long ones first, as far as their size tells, so that none is left at the end.
    files.sort(key=lambda file: Path(file).stat().st_size, reverse=True)
    good = True
    with ThreadPoolExecutor(known.jobs) as pool:
        running = {pool.submit(run, file, options): file for file in files}
        for future in as_completed(running):
            done = future.result()
            passed = done.returncode in (0, NO_TESTS)
            good = good and passed
            lines = done.stdout.strip().splitlines() or [f"exit code {done.returncode}"]
            if not passed:
                print("\n".join(lines[-SHOWN_LINES:]))
                if done.returncode != FAILED_TESTS:
                    print(f"pytest ended with exit code {done.returncode}")
            print(f"{running[future]}: {lines[-1]}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
