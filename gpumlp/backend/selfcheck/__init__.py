"""Check that a GPU computes what NumPy does, by every operation on small random arrays.

A `Case` is worked out twice by the same lines, on the device and by NumpyOps in float64.  A few
dozen of them run when a GPU is first used, in a fraction of a second and what it takes to compile
nine programs, which CuPy keeps and most fits need anyway.  That they passed is remembered in the
user's cache until the GPU, its driver, a library or this package is another; where the cache cannot
be written, they run once a process.  `gpumlp info --check` runs all of them.

The environment variable GPUMLP_CHECK=0 switches the check at first use off.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpumlp import backend
from gpumlp.backend import sources
from gpumlp.backend.cuda import cublaslt, driver, faults
from gpumlp.backend.cuda.faults import Problem
from gpumlp.backend.reference.numpy_ops import NumpyOps
from gpumlp.backend.selfcheck import layer_cases, sequence_cases, update_cases
from gpumlp.backend.selfcheck.case import Case, Side
from gpumlp.utils import cache
from gpumlp.utils.version import __version__

VARIABLE = "GPUMLP_CHECK"
ROUNDED = 80  # the compute capability, times ten, from which on GPUs have TF32 and bf16

_failed: dict[str, Problem] = {}  # what a GPU was found to be -> what it computed wrong


class Outcome(NamedTuple):
    """The outcome of a case; error: the largest, or infinite where something was raised."""

    case: Case
    error: float
    raised: str = ""

    @property
    def passed(self) -> bool:
        return self.error <= self.case.tolerance

    def __str__(self) -> str:
        if self.raised:
            return f"{self.case}: {self.raised}"
        return f"{self.case}: largest error {self.error:.1e} of at most {self.case.tolerance:.1e}"


# ---------------------------------------------------------------------- running


def cases() -> list[Case]:
    return [
        case for module in (layer_cases, update_cases, sequence_cases) for case in module.cases()
    ]


def run(device: str, chosen: Iterable[Case]) -> Iterator[Outcome]:
    """Run cases on a device; yields the outcomes of those that it can run.

    An operation that raises has failed.  An error that means out of memory is raised.
    """
    made: dict[str, Any] = {}  # the case's dtype -> operations, which are of one dtype each
    reference = NumpyOps()
    for case in chosen:
        if not _possible(device, case):
            continue
        try:
            if case.dtype not in made:
                precision = "tf32" if case.dtype == "tf32" else "float32"
                made[case.dtype] = backend.get(device, precision)
            error = _error(case, made[case.dtype], reference)
        except Exception as error:
            if faults.is_out_of_memory(error):
                raise
            yield Outcome(case, np.inf, _one_line(error))
        else:
            if error is not None:
                yield Outcome(case, error)


def _possible(device: str, case: Case) -> bool:
    if device == "cpu":
        return not case.gpu
    if case.dtype not in ("tf32", "bf16"):
        return True
    import cupy

    index = int(device.removeprefix("cuda:"))
    return int(cupy.cuda.Device(index).compute_capability) >= ROUNDED


def _error(case: Case, ops, reference) -> float | None:
    """The largest error of a case's arrays; None where the device cannot run it."""
    exact = Side(reference, case.dtype, exact=True)
    expected = case.work(exact)
    with ops.on_device():
        side = Side(ops, case.dtype, exact=False)
        computed = case.work(side)
        if computed is None:
            return None
        computed = [side.read(array) for array in computed]
    assert expected is not None
    pairs = zip(computed, map(exact.read, expected), strict=True)
    return max(_difference(*pair) for pair in pairs)


def _difference(computed, expected) -> float:
    """The largest error of an element, in proportion to it plus the mean of the finite ones."""
    if expected.dtype.kind != "f":
        return float((computed != expected).any())
    finite = np.abs(expected[np.isfinite(expected)])
    scale = np.mean(finite) if finite.any() else 1.0
    with np.errstate(invalid="ignore"):
        error = np.abs(computed - expected) / (scale + np.abs(expected))
    same = (computed == expected) | (np.isnan(computed) & np.isnan(expected))
    error = np.where(same, 0, np.where(np.isnan(error), np.inf, error))
    return float(error.max())


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


# ---------------------------------------------------------------------- when a GPU is first used


def first_use(index: int) -> Problem | None:
    """Check GPU number `index` unless it has passed before; the problem if it computes wrong."""
    if os.environ.get(VARIABLE) == "0":
        return None
    facts = json.dumps(_facts(index), indent=0)
    if facts not in _failed and not _is_remembered(facts):
        outcomes = run(f"cuda:{index}", (case for case in cases() if case.first))
        wrong = next((outcome for outcome in outcomes if not outcome.passed), None)
        if wrong is None:
            _remember(facts)
            return None
        cause = f"GPU {index} computes something wrong: {wrong}"
        remedy = "Report what `gpumlp info --check` prints; another driver or CuPy may mend it."
        _failed[facts] = Problem(cause, remedy, True)
    return _failed.get(facts)


def state() -> str:
    """A line on the check for `gpumlp info`."""
    if os.environ.get(VARIABLE) == "0":
        return f"none when a GPU is first used ({VARIABLE}=0)"
    return f"of a few operations when a GPU is first used ({VARIABLE}=0 switches it off)"


def cublaslt_version() -> str:
    number = cublaslt.library().cublasLtGetVersion()
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def nvrtc_version() -> str:
    """The version of NVRTC, which compiles the kernels and is installed apart from CuPy."""
    import cupy

    return "{}.{}".format(*cupy.cuda.nvrtc.getVersion())


def _facts(index: int) -> dict[str, object]:
    """The GPU, driver, libraries and sources that results depend on."""
    import cupy

    runtime = cupy.cuda.runtime
    gpu = runtime.getDeviceProperties(index)
    return {
        "GPU": gpu["name"].decode(),
        "which": str(gpu.get("uuid", index)),
        "compute capability": f"{gpu['major']}.{gpu['minor']}",
        "driver": driver.driver_version(),
        "its CUDA": runtime.driverGetVersion(),
        "CUDA runtime": runtime.runtimeGetVersion(),
        "NVRTC": nvrtc_version(),
        "cuBLASLt": cublaslt_version(),
        "CuPy": cupy.__version__,
        "gpumlp": __version__,
        "sources": _sources(),
    }


def _sources() -> str:
    """A hash of kernels and backend: a checkout changes without a new version."""
    texts = [sources.text(name) for name in sources.names()]
    for path in sorted(Path(backend.__file__).parent.rglob("*.py")):
        texts.append(path.read_text(encoding="utf-8"))
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _path(facts: str) -> Path:
    """The file that remembers a pass; raises OSError or RuntimeError without a folder for it."""
    name = hashlib.sha256(facts.encode()).hexdigest()[:32]
    return cache.folder("checked") / f"{name}.json"


def _is_remembered(facts: str) -> bool:
    with contextlib.suppress(OSError, RuntimeError):
        return cache.read(_path(facts)) == facts.encode()
    return False


def _remember(facts: str) -> None:
    """Remember a pass; where it cannot be written, the next process checks again."""
    with contextlib.suppress(OSError, RuntimeError):
        cache.keep(_path(facts), facts.encode())
