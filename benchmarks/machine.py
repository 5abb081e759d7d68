"""What the figures were measured on: machine, versions, commit."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from benchmarks import clock

ROOT = Path(__file__).resolve().parent.parent
# What tells libraries how many threads to use, or gpumlp to compile nothing for the CPU.
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GPUMLP_HOST")
PACKAGES = ("numpy", "scikit-learn", "torch", "jax", "jaxlib", "safetensors", "pytest")


def describe() -> dict:
    """Never raises: what cannot be found is None, or the error's text."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": (_git("status", "--porcelain") or "").splitlines(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
        "python": platform.python_version(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "not_compiled_for_cpu": _not_compiled(),
        "blas": _blas(),
        **{name: _version(name) for name in PACKAGES},
        **_cuda(),
    }


def thread_gain(size: int = 256) -> float:
    """How many times faster all of BLAS's threads multiply matrices (size, size) than one does.

    They are small enough for the way of the numbers from core to core to count, which on a rented
    machine may be short or long for a while.
    """
    import numpy as np
    from threadpoolctl import threadpool_limits

    a = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)

    def fastest(threads):
        with threadpool_limits(threads, user_api="blas"):
            return min(clock.seconds(lambda: a @ a) for _ in range(20))

    return fastest(1) / fastest(None)


def cores() -> int | None:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _not_compiled() -> str | None:
    """Why gpumlp computes by NumPy alone on the CPU, if it does."""
    try:
        from gpumlp.backend.cpu import compiler

        return compiler.problem()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _blas() -> str | None:
    """NumPy's, by which scikit-learn and gpumlp multiply too: name, version, and the kernels that
    it has chosen for this CPU."""
    try:
        import numpy
        import threadpoolctl

        built = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
        loaded = [each for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas"]
        # A wheel of NumPy has its own, beside SciPy's.
        own = [each for each in loaded if "numpy" in each["filepath"]] or loaded
        facts = [built, *(str(own[0][key]) for key in ("version", "architecture") if key in own[0])]
        return " ".join(facts)
    except Exception:
        return None


def _git(*arguments) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or None
    names = [line for line in text.splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cuda() -> dict:
    """CuPy and what it finds."""
    found: dict = dict.fromkeys(("cupy", "gpus", "driver", "cuda_driver", "cuda_runtime"))
    found["gpu_problem"] = None
    try:
        import cupy

        from gpumlp.backend.cuda import driver

        found["cupy"] = cupy.__version__
        runtime = cupy.cuda.runtime
        found["cuda_runtime"] = runtime.runtimeGetVersion()
        found["driver"] = driver.driver_version()
        found["cuda_driver"] = runtime.driverGetVersion()
        count = runtime.getDeviceCount()
        facts = [runtime.getDeviceProperties(index) for index in range(count)]
        found["gpus"] = [
            {
                "name": fact["name"].decode(),
                "memory": fact["totalGlobalMem"],
                "compute_capability": f"{fact['major']}.{fact['minor']}",
                "multiprocessors": fact["multiProcessorCount"],
            }
            for fact in facts
        ]
    except Exception as error:
        found["gpu_problem"] = f"{type(error).__name__}: {error}".strip()
    return found


def one_line(found: dict) -> str:
    gpus = ", ".join(gpu["name"] for gpu in found["gpus"] or []) or "no GPU"
    versions = " ".join(f"{name} {found[name]}" for name in ("cupy", *PACKAGES) if found[name])
    parts = [found["date"], found["processor"], f"{found['cores']} cores", gpus, versions]
    if found["blas"]:
        parts.append(f"products by {found['blas']}")
    parts += [f"{name}={value}" for name, value in found["environment"].items()]
    if found["not_compiled_for_cpu"]:
        parts.append(f"gpumlp by NumPy alone ({found['not_compiled_for_cpu']})")
    return ", ".join(parts)
