"""`python -m benchmarks.gpu`: everything that only a machine with a GPU can say, in one JSON.

Runs the tests on the GPU, the benchmarks, compute-sanitizer over the kernel tests, and the tests of
what needs no GPU, each for a limited time; a part that fails does not stop the others.  It needs no
network and installs nothing.  The exit code is 0 if all that ran passed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import goals, outcomes, parts
from benchmarks.suite import PARTS, merge

RESULTS = parts.ROOT / "benchmarks" / "results"
MINUTES = 9.0
MARGIN = 10.0  # seconds of them kept for the end
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
SANITIZER_FOUND = 86  # the exit code that compute-sanitizer is asked for
JOBS = 4  # test files at once

# Shares of the time, beside the tests' 10; parts of the suite have 1, if nothing else is said.
SUITE_WEIGHTS = {"training": 10, "stacks": 4}
SANITIZER_WEIGHT = 2

# Tests of what proves the kernels where there is no GPU; they say nothing new on one.
CPU_TESTS = ("cubin", "cupy_contract", "oracle", "plot", "sanitizers", "seeded", "simt", "standin")
KERNEL_TESTS = "test_operations*.py"


class Part(NamedTuple):
    """weight: its share of the time that is left; command: or why there is none; read: what it left
    behind, for the record."""

    name: str
    weight: float
    command: list[str] | str
    read: Callable[[], dict] = dict


def pytest_part(name, weight, files, folder, runner, *options) -> Part:
    """Tests, by `runner`, with the outcome of each in the record."""
    if not files:
        return Part(name, weight, "there are no such tests")
    written = folder / f"{name.replace(' ', '-')}.jsonl"
    command = [*runner, "--require-gpu", "-q", "--tb=short", "-p", "no:cacheprovider", *options]
    command += ["-p", "benchmarks.outcomes", "--outcomes", str(written), *files]
    return Part(name, weight, command, lambda: outcomes.read(written))


def test_files() -> tuple[list[str], list[str], list[str]]:
    """The tests that a GPU runs, those of the CPU, and those of single kernels."""
    tests = sorted((parts.ROOT / "tests").glob("test_*.py"))
    pattern = re.compile(rf"test_({'|'.join(CPU_TESTS)})(_|\.)")
    cpu = [test for test in tests if pattern.match(test.name)]
    kernels = sorted((parts.ROOT / "tests").glob(KERNEL_TESTS))
    on_gpu = [test for test in tests if test not in cpu]
    on_gpu, cpu, kernels = (
        [str(test.relative_to(parts.ROOT)) for test in group] for group in (on_gpu, cpu, kernels)
    )
    return on_gpu, cpu, kernels


def sanitizer() -> str | None:
    """Where compute-sanitizer is."""
    return shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path="/usr/local/cuda/bin"
    )


def all_parts(folder: Path) -> list[Part]:
    """In the order of what is most worth knowing."""
    on_gpu, on_cpu, kernels = test_files()
    by_file = [sys.executable, "-m", "benchmarks.by_file", "--jobs", str(JOBS)]
    found = [pytest_part("tests", 10, on_gpu, folder, by_file)]
    found += [benchmark_part(name, folder) for name in PARTS]
    program = sanitizer()
    for tool in SANITIZERS:
        if program is None:
            why = "compute-sanitizer is neither on PATH nor in /usr/local/cuda/bin"
            found.append(Part(tool, SANITIZER_WEIGHT, why))
            continue
        watched = [program, "--tool", tool, "--error-exitcode", str(SANITIZER_FOUND)]
        # Libraries try out functions that a driver may not have; only kernels are of interest.
        watched += ["--report-api-errors", "no", sys.executable, "-m", "pytest"]
        options = "--no-pool", "-k", "cuda"
        found.append(pytest_part(tool, SANITIZER_WEIGHT, kernels, folder, watched, *options))
    return [*found, pytest_part("tests on the CPU", 4, on_cpu, folder, by_file)]


def benchmark_part(name: str, folder: Path) -> Part:
    """One part of the suite; the figures that it wrote before a limit or a crash are kept."""
    written = folder / f"{name}.json"
    command = [sys.executable, "-m", "benchmarks", "--device", "cuda", "--only", name]
    return Part(
        f"benchmarks: {name}",
        SUITE_WEIGHTS.get(name, 1),
        [*command, "--json", str(written)],
        lambda: {"figures": _json(written)},
    )


def _json(path: Path):
    """What a file holds, or None if it is not there or cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def describe(limit: float) -> dict:
    """The machine, found out in another process: a driver that hangs or crashes takes only that."""
    record = parts.run([sys.executable, "-m", "benchmarks.machine"], limit)
    try:
        return json.loads(record["tail"][-1])
    except (IndexError, ValueError):
        return {"gpus": None, "gpu_problem": record}


def result_file(machine: dict, folder: Path) -> Path:
    """results/DATE-TIME-GPU.json"""
    gpu = machine["gpus"][0]["name"] if machine.get("gpus") else "no GPU"
    name = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    now = datetime.datetime.now(datetime.timezone.utc)
    return folder / f"{now:%Y-%m-%d-%H%M}-{name}.json"


def run_all(chosen: list[Part], results: dict, path: Path, deadline: float) -> bool:
    """Runs the parts, writes the results after each; true if none failed."""
    results["parts"] = {}
    for i, part in enumerate(chosen):
        print(f"\n== {part.name}", flush=True)
        if isinstance(part.command, str):
            record = {"outcome": "skipped", "reason": part.command}
        else:
            left = deadline - time.monotonic()
            limit = left * part.weight / sum(other.weight for other in chosen[i:])
            record = parts.run(part.command, max(limit, 1.0)) | part.read()
        merge(results, record.pop("figures", None))
        results["parts"][part.name] = record
        _write(path, results)
        reason = record.get("reason") or f"{record['seconds']} s of at most {record['limit']}"
        counts = record.get("counts", "")
        print(f"== {part.name}: {record['outcome']}, {reason} {counts}".rstrip(), flush=True)
    return all(r["outcome"] in ("passed", "skipped") for r in results["parts"].values())


def _write(path: Path, results: dict):
    """Whole or not at all."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def main(given=None, make_parts=all_parts) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for the whole run")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument("--only", help="only parts whose name contains this")
    options = parser.parse_args(given)
    deadline = time.monotonic() + 60 * options.minutes - MARGIN
    machine = describe(60)
    options.results.mkdir(parents=True, exist_ok=True)
    path = result_file(machine, options.results)
    results = {"machine": machine, "minutes": options.minutes}
    _write(path, results)
    with tempfile.TemporaryDirectory() as folder:
        chosen = [p for p in make_parts(Path(folder)) if (options.only or "") in p.name]
        good = run_all(chosen, results, path, deadline)
    good = good and bool(machine.get("gpus"))
    results["passed"] = good
    _write(path, results)
    print(f"\n{'All parts passed' if good else 'NOT all parts passed'}; written: {path}")
    for name, record in results["parts"].items():
        print(f"  {name:25}{record['outcome']}")
    if "figures" in results:
        for table in goals.tables(results["figures"]["goals"], results["figures"]["device"]):
            print(f"\n{table.text()}")
    if not machine.get("gpus"):
        print(f"  no GPU was found: {machine.get('gpu_problem')}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
