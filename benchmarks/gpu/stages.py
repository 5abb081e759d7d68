"""The stages of a run, and what each process of one does."""

from __future__ import annotations

import faulthandler
import importlib
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import cases, contenders, machine, operations, training
from benchmarks.compared import THOROUGH, Contest, Effort
from benchmarks.gpu import probes
from benchmarks.gpu.probes import DEVICE
from benchmarks.gpu.processes import MARK, POISONED, SANITIZER_FOUND, unusable
from benchmarks.gpu.records import FAILED, PASSED, SKIPPED, Skip, Task
from benchmarks.machine import ROOT
from benchmarks.networks import LARGE, MIDDLE, SMALLEST, Network
from benchmarks.stacks import THOUSAND
from benchmarks.tables import last_line
from gpumlp import backend
from gpumlp.backend.device import resolve

TOOLS = "make git g++ nvcc cuobjdump nvdisasm compute-sanitizer ncu"
ATTRIBUTES = """MaxSharedMemoryPerBlockOptin MaxSharedMemoryPerMultiprocessor
    ReservedSharedMemoryPerBlock MultiProcessorCount L2CacheSize PageableMemoryAccess
    PageableMemoryAccessUsesHostPageTables KernelExecTimeout"""


def tool(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/local/cuda/bin")


# Items: (name, what is done, which gives figures, or None), pair after pair.


def facts(task: Task):
    """The machine, and what is on it."""

    def device():
        import cupy

        attributes = cupy.cuda.Device(0).attributes
        return {"device": resolve("cuda")} | {n: attributes.get(n) for n in ATTRIBUTES.split()}

    def nvrtc():
        if task.dry:
            raise Skip("the stand-in has no NVRTC")
        return importlib.import_module("cupy_backends.cuda.libs.nvrtc").getVersion()

    def cublaslt():
        cublaslt = importlib.import_module("gpumlp.backend.cuda.cublaslt")
        return cublaslt.library().cublasLtGetVersion()

    yield "machine", machine.describe
    yield "device", device
    yield "cuBLASLt", lambda: {"version": cublaslt()}
    yield "NVRTC", lambda: {"version": nvrtc()}
    yield "tools", lambda: {name: tool(name) for name in TOOLS.split()}


def checks(task: Task):
    """Every kernel against formulas, in few blocks and in many; the persistent kernel first."""
    from tests.operations.selection import IN_MANY_BLOCKS, SELECTION

    if task.stage != "checks" and not task.dry:
        import cupy

        cupy.cuda.set_allocator(None)  # no pool: every array has an end that the tool sees
    names = sorted(SELECTION, key=lambda name: not name.startswith("persistent"))
    i, n = task.share
    for name in ("resident, rests", "tanh")[i::n] if task.dry else names[i::n]:
        for blocks, check in (("", SELECTION[name]), (", many blocks", IN_MANY_BLOCKS[name])):
            yield name + blocks, lambda check=check: check(backend.get(DEVICE))


def beside_a_copy(task: Task):
    """Each operation's bytes a second over a copy's."""
    size = "tiny" if task.dry else "cuda"
    for case in cases.chosen(DEVICE)[:: 6 if task.dry else 1]:
        yield case.name, lambda case=case: operations.measure(case, backend.get(DEVICE), size)


TRAINED = contenders.LIBRARY, contenders.GEMMS, contenders.GRAPHED, contenders.JAX_SCAN
STACKED = (
    *(contenders.LIBRARY, contenders.OPERATIONS, contenders.RESIDENT),
    *(contenders.GRAPHED_VMAP,),
)
ANSWER = 40.0  # seconds that a contender may take for one answer
EFFORT, DRY_EFFORT = THOROUGH._replace(turns=5), Effort(1, 0.0, twice=False)


class OnStandin(contenders.Entry):
    """A contender in a dry run, which has no peers."""

    def load(self):
        from tests import standin

        standin.install()
        return super().load()


def contest(task: Task, names, networks, works):
    """Times of each network, in turn, after the answers were found equal."""
    entries = [e for e in (*contenders.ENTRIES, *contenders.OF_STACKS) if e.name in names]
    if task.dry:
        entries = [OnStandin(*entry) for entry in entries if entry.package == "gpumlp"]
    found = Contest(DEVICE, limit=ANSWER, entries=entries)

    def work(network):
        record = found.measure(network, works, DRY_EFFORT if task.dry else EFFORT)
        errors = {name: one["error"] for name, one in record["contenders"].items()}
        told = [f"{name}: {last_line(error)}" for name, error in errors.items() if error]
        absent = {n: found.absent.get(n, "not in a dry run") for n in names if n not in errors}
        return record | {"absent": absent, "error": "; ".join(told)}

    for network in networks:
        yield network, lambda network=network: work(network)


def train(task: Task):
    """Against the GEMMs alone, PyTorch's CUDA graph and JAX's scan."""
    size = (1 << 12, 3) if task.dry else (1 << 25, 30)
    copy = operations.copy_bandwidth(backend.get(DEVICE), *size)
    networks = [Network((5, 8, 3), 8, 20)] if task.dry else [SMALLEST, MIDDLE, *LARGE]
    for network, work in contest(task, TRAINED, networks, ("step", "epoch")):

        def limited(network=network, work=work):
            record = work()
            return record | training.limit(record, network, copy) | {"copy": copy}

        yield network.name, limited


def train_stacks(task: Task):
    """A thousand networks, against PyTorch's vmap in a CUDA graph."""
    tiny = THOUSAND._replace(sizes=(64, 4, 10), batch=20, models=2).shortened()
    for network, work in contest(task, STACKED, [tiny if task.dry else THOUSAND], ("epoch",)):
        yield network.name, work


# Processes: (task, command), pair after pair.


def own(task: Task, jobs: int):
    """Each goes through its share of the items."""
    for i in range(jobs):
        mine = task._replace(process=f"{i + 1} of {jobs}", share=(i, jobs))
        yield mine, [sys.executable, "-m", "benchmarks.gpu.stages"]


def watched(task: Task, jobs: int):
    """The same under compute-sanitizer."""
    program = tool("compute-sanitizer")
    if program is None:
        raise Skip("compute-sanitizer is neither on PATH nor in /usr/local/cuda/bin")
    # Libraries try out functions that a driver may not have; only kernels are of interest.
    options = ["--tool", task.stage, "--report-api-errors", "no", "--print-limit", "20"]
    for mine, command in own(task, jobs):
        yield mine, [program, *options, "--error-exitcode", str(SANITIZER_FOUND), *command]


# What is most telling first; then, of the rest, what is long.
ORDER = """cublaslt cupy_ops training_on_gpu persistent operations graph_cache bf16 precision
    out_of_core    against_oracle network_input""".split()
SLICES = {"operations": 6, "persistent": 4, "against_oracle": 3, "cublaslt": 3, "bf16": 2}
ON_A_DEVICE = re.compile(r"def \w+\(([^)]*\W)?(device|cuda|ops)\b")


def test_files() -> dict[str, Path]:
    """Name and path of those with tests that touch a GPU, in their order."""
    paths = {path.stem.removeprefix("test_"): path for path in (ROOT / "tests").rglob("test_*.py")}
    touching = {name for name, path in paths.items() if ON_A_DEVICE.search(path.read_text())}
    names = [*(name for name in ORDER if name in touching), *sorted(touching - set(ORDER))]
    return {name: paths[name].relative_to(ROOT) for name in names}


def tests(task: Task, jobs: int):
    """A pytest for each file, or slice of one that is long."""
    options = ["-q", "--tb=short", "-p", "no:cacheprovider", "-p", "benchmarks.gpu.plugin"]
    options += [] if task.dry else ["--require-gpu"]
    paths = test_files()
    for name in ["cublaslt_errors", "initial_weights"] if task.dry else paths:
        for i in range(n := SLICES.get(name, 1)):
            mine = task._replace(process=f"{name}, {i + 1} of {n}", share=(i, n))
            yield mine, [sys.executable, "-m", "pytest", *options, str(paths[name])]


class Stage(NamedTuple):
    """most: seconds of one item; jobs: processes at a time, where there are as many cores."""

    name: str
    seconds: float
    most: float
    items: Callable | None
    processes: Callable = own
    jobs: int = 1


STAGES = (
    Stage("facts", 10, 10, facts),
    Stage("checks", 45, 20, checks, jobs=4),
    Stage("tests", 80, 40, None, tests, jobs=12),
    Stage("epochs", 45, 25, probes.epochs),
    Stage("shuffle", 8, 8, probes.shuffles),
    Stage("tf32", 5, 5, probes.rounding),
    Stage("queue", 7, 7, probes.interrupted),
    Stage("streaming", 10, 10, probes.streaming),
    Stage("memcheck", 35, 35, checks, watched, jobs=6),
    Stage("racecheck", 35, 35, checks, watched, jobs=6),
    Stage("operations", 40, 20, beside_a_copy),
    Stage("training", 100, 60, train),
    Stage("stacks", 50, 50, train_stacks),
)
SECONDS = sum(stage.seconds for stage in STAGES)


def work(task: Task) -> int:
    """Goes through this process's items, but for those that have ended; the exit code."""
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if task.dry:
        from tests import standin

        standin.install()
    stage = next(stage for stage in STAGES if stage.name == task.stage)
    items = dict(stage.items(task))
    for name in task.plan(items):
        if time.time() > task.until:
            break
        task.begin(name)
        print(f"{MARK}{name}", flush=True)
        if patience := task.patience():
            faulthandler.dump_traceback_later(patience, exit=True)
        good = tried(task, name, items[name])
        faulthandler.cancel_dump_traceback_later()
        if not good and unusable():
            return POISONED
    return 0


def tried(task: Task, name: str, item: Callable) -> bool:
    begin, figures = time.perf_counter(), None
    try:
        figures = item()
        # An error beside what could be measured nevertheless.
        error = (figures or {}).get("error") or ""
        outcome = FAILED if error else PASSED
    except Skip as why:
        outcome, error = SKIPPED, str(why)
    except Exception as problem:
        traceback.print_exc()
        frames = traceback.extract_tb(problem.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT)]
        place = f"{own[-1].filename.removeprefix(f'{ROOT}/')}:{own[-1].lineno}"
        outcome, error = FAILED, f"{type(problem).__name__}: {problem}"[:500] + f" @ {place}"
    task.end(name, outcome, time.perf_counter() - begin, error, figures)
    return outcome != FAILED


if __name__ == "__main__":
    sys.exit(work(Task.of_environment()))
