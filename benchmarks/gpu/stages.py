"""The stages of a run, and the processes of each."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import STAND_IN
from benchmarks.gpu.processes import SANITIZER_FOUND, Task
from benchmarks.machine import ROOT

DRY = bool(os.environ.get(STAND_IN))
# What is most telling first.
FIRST = "cublaslt", "cupy_ops", "training_on_gpu", "persistent", "operations", "graph_cache", "bf16"
ON_A_DEVICE = re.compile(r"def \w+\(([^)]*\W)?(device|cuda|ops)\b")
TRAINED = "gpumlp", "GEMMs alone", "PyTorch CUDA graph", "JAX"
STACKED = "gpumlp", "PyTorch vmap in a CUDA graph"

Processes = Iterator[tuple[Task, list[str]]]
ProcessesOf = Callable[[Task], Processes]


class Skip(Exception):
    """A stage cannot be done here; the reason is recorded."""


def shared(paths: Iterable[str], jobs: int = 1, options: Sequence[str] = ()) -> ProcessesOf:
    """The tests of these paths by pytest, shared among processes."""

    def processes(task: Task) -> Processes:
        plugins = ["-p", "no:cacheprovider", "-p", "benchmarks.gpu.plugin"]
        command = [sys.executable, "-m", "pytest", "-q", "--tb=short", *plugins, *options, *paths]
        for i in range(jobs):
            yield task._replace(process=f"{i + 1} of {jobs}", share=(i, jobs)), command

    return processes


def probe(name: str, jobs: int = 1) -> ProcessesOf:
    return shared([f"benchmarks/gpu/probes.py::test_{name}"], jobs, ["-W", "default"])


def sanitized(task: Task) -> Processes:
    """The checks under the tool of compute-sanitizer that the stage is called after."""
    paths = os.environ.get("PATH", ""), "/usr/local/cuda/bin"
    program = shutil.which("compute-sanitizer", path=os.pathsep.join(paths))
    if program is None:
        raise Skip("compute-sanitizer is neither on PATH nor in /usr/local/cuda/bin")
    # Libraries try out functions that a driver may not have; only kernels are of interest.
    options = ["--tool", task.stage, "--report-api-errors", "no", "--print-limit", "20"]
    options += ["--error-exitcode", str(SANITIZER_FOUND)]
    for part, command in probe("check", 6)(task):
        yield part, [program, *options, *command]


def test_files() -> list[str]:
    """Those with tests that touch a GPU, in their order."""
    paths = sorted((ROOT / "tests").rglob("test_*.py"))
    paths = [path.relative_to(ROOT) for path in paths if ON_A_DEVICE.search(path.read_text())]
    paths.sort(key=lambda path: path.stem.removeprefix("test_") not in FIRST)
    return list(map(str, paths))


def suite(*parts: str, contenders: Sequence[str] = ()) -> ProcessesOf:
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
    processes: ProcessesOf
    jobs: int = 1


DRY_TESTS = ["tests/backend/test_cublaslt_errors.py", "tests/functions/test_initial_weights.py"]
TESTS = shared(DRY_TESTS) if DRY else shared(test_files(), 12, ["--require-gpu"])
STAGES = (
    Stage("device", 10, 10, probe("device")),
    Stage("checks", 45, 20, probe("check", 4), jobs=4),
    Stage("tests", 80, 40, TESTS, jobs=12),
    Stage("ways", 50, 50, suite("kernel", "algorithms")),
    Stage("tf32", 5, 5, probe("rounding")),
    Stage("queue", 7, 7, probe("interrupt")),
    Stage("streaming", 18, 18, suite("streaming")),
    Stage("memcheck", 35, 35, sanitized, jobs=6),
    Stage("racecheck", 35, 35, sanitized, jobs=6),
    Stage("operations", 40, 40, suite("operations")),
    Stage("training", 100, 100, suite("training", contenders=TRAINED)),
    Stage("stacks", 45, 45, suite("stacks", contenders=STACKED)),
)
SECONDS = sum(stage.seconds for stage in STAGES)
