"""The stages of a run, and the processes of each."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import STAND_IN
from benchmarks.gpu.processes import SANITIZER_FOUND
from benchmarks.gpu.records import Task
from benchmarks.machine import ROOT

DRY = bool(os.environ.get(STAND_IN))
PROBES = "benchmarks/gpu/probes.py"
# What is most telling first; then, of the rest, what is long.
ORDER = """cublaslt cupy_ops training_on_gpu persistent operations graph_cache bf16 precision
    out_of_core    against_oracle network_input""".split()
SLICES = {"operations": 6, "persistent": 4, "against_oracle": 3, "cublaslt": 3, "bf16": 2}
ON_A_DEVICE = re.compile(r"def \w+\(([^)]*\W)?(device|cuda|ops)\b")
TRAINED = "gpumlp", "GEMMs alone", "PyTorch CUDA graph", "JAX"
STACKED = "gpumlp", "PyTorch vmap in a CUDA graph"

Processes = Iterator[tuple[Task, list[str]]]


class Skip(Exception):
    """A stage cannot be done here; the reason is recorded."""


def pytest_of(paths: list[str]) -> list[str]:
    plugins = ["-p", "no:cacheprovider", "-p", "benchmarks.gpu.plugin"]
    return [sys.executable, "-m", "pytest", "-q", "--tb=short", *plugins, *paths]


def probes(name: str, jobs: int = 1) -> Callable[[Task], Processes]:
    """Tests of probes.py, shared among processes."""

    def processes(task: Task) -> Processes:
        for i in range(jobs):
            part = task._replace(process=f"{i + 1} of {jobs}", share=(i, jobs))
            yield part, [*pytest_of([f"{PROBES}::{name}"]), "-W", "default"]

    return processes


def sanitized(task: Task) -> Processes:
    """The checks under the tool of compute-sanitizer that the stage is called after."""
    paths = os.environ.get("PATH", ""), "/usr/local/cuda/bin"
    program = shutil.which("compute-sanitizer", path=os.pathsep.join(paths))
    if program is None:
        raise Skip("compute-sanitizer is neither on PATH nor in /usr/local/cuda/bin")
    # Libraries try out functions that a driver may not have; only kernels are of interest.
    options = ["--tool", task.stage, "--report-api-errors", "no", "--print-limit", "20"]
    for part, command in probes("test_check", 6)(task):
        yield part, [program, *options, "--error-exitcode", str(SANITIZER_FOUND), *command]


def test_files() -> dict[str, Path]:
    """Name and path of those with tests that touch a GPU, in their order."""
    paths = {path.stem.removeprefix("test_"): path for path in (ROOT / "tests").rglob("test_*.py")}
    touching = {name for name, path in paths.items() if ON_A_DEVICE.search(path.read_text())}
    names = [*(name for name in ORDER if name in touching), *sorted(touching - set(ORDER))]
    return {name: paths[name].relative_to(ROOT) for name in names}


def tests(task: Task) -> Processes:
    """A pytest for each file, or slice of one that is long."""
    paths = test_files()
    for name in ["cublaslt_errors", "initial_weights"] if DRY else paths:
        for i in range(n := SLICES.get(name, 1)):
            part = task._replace(process=f"{name}, {i + 1} of {n}", share=(i, n))
            command = pytest_of([str(paths[name])])
            yield part, command if DRY else [*command, "--require-gpu"]


def suite(*parts: str, contenders=()) -> Callable[[Task], Processes]:
    """Parts of `python -m benchmarks`, whose figures go into a file that is named as the stage."""

    def processes(task: Task) -> Processes:
        file = Path(task.folder, f"{task.stage}.json")
        command = [sys.executable, "-m", "benchmarks", "--device", "cuda", "--json", str(file)]
        command += [word for part in parts for word in ("--only", part)]
        command += [word for name in contenders for word in ("--contender", name)]
        yield task, [*command, *["--quick"] * DRY]

    return processes


class Stage(NamedTuple):
    """most: seconds of one test; jobs: processes at a time, where there are as many cores."""

    name: str
    seconds: float
    most: float
    processes: Callable[[Task], Processes]
    jobs: int = 1


STAGES = (
    Stage("device", 10, 10, probes("test_device")),
    Stage("checks", 45, 20, probes("test_check", 4), jobs=4),
    Stage("tests", 80, 40, tests, jobs=12),
    Stage("ways", 50, 50, suite("kernel", "algorithms")),
    Stage("shuffle", 8, 8, probes("test_shuffle")),
    Stage("tf32", 5, 5, probes("test_rounding")),
    Stage("queue", 7, 7, probes("test_interrupt")),
    Stage("streaming", 10, 10, probes("test_streaming")),
    Stage("memcheck", 35, 35, sanitized, jobs=6),
    Stage("racecheck", 35, 35, sanitized, jobs=6),
    Stage("operations", 40, 40, suite("operations")),
    Stage("training", 100, 100, suite("training", contenders=TRAINED)),
    Stage("stacks", 45, 45, suite("stacks", contenders=STACKED)),
)
SECONDS = sum(stage.seconds for stage in STAGES)
