"""What the figures were measured on: machine, versions, commit."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = "numpy scikit-learn torch jax cupy-cuda12x cupy-cuda13x cupy pytest".split()


def describe() -> dict:
    """Never raises: what cannot be found is None."""
    versions = {name: _tried(importlib.metadata.version, name) for name in PACKAGES}
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _tried(_commit),
        "platform": platform.platform(),
        "processor": _tried(_processor) or platform.machine(),
        "cores": cores(),
        "python": platform.python_version(),
        "versions": {name: version for name, version in versions.items() if version},
        "environment": {k: v for k, v in os.environ.items() if k.endswith("_NUM_THREADS")},
        "not_compiled_for_cpu": _tried(_not_compiled),
        "gpus": _tried(_gpus) or [],
    }


def _tried(work, *arguments):
    try:
        return work(*arguments)
    except Exception:
        return None


def _commit() -> str:
    git = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    options = {"cwd": ROOT, "stderr": subprocess.DEVNULL, "text": True, "timeout": 30}
    return subprocess.check_output(git, **options).strip()


def cores() -> int | None:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    return next(line for line in lines if line.startswith("model name")).partition(":")[2].strip()


def _not_compiled() -> str | None:
    """Why gpumlp computes by NumPy alone on the CPU, if it does."""
    from gpumlp.backend.cpu import compiler

    return compiler.problem()


def _gpus() -> list[dict]:
    import cupy

    from gpumlp.backend.cuda import driver

    runtime = cupy.cuda.runtime
    versions = {"driver": driver.driver_version(), "cuda": runtime.runtimeGetVersion()}
    gpus = [runtime.getDeviceProperties(i) for i in range(runtime.getDeviceCount())]
    facts = "totalGlobalMem multiProcessorCount major minor".split()
    return [
        {"name": gpu["name"].decode(), **versions, **{fact: gpu[fact] for fact in facts}}
        for gpu in gpus
    ]


def one_line(machine: dict) -> str:
    gpus = [f"{gpu['name']}, driver {gpu['driver']}" for gpu in machine["gpus"]] or ["no GPU"]
    versions = " ".join(f"{name} {version}" for name, version in machine["versions"].items())
    parts = [machine["date"], machine["processor"], f"{machine['cores']} cores", *gpus, versions]
    parts += [f"{name}={value}" for name, value in machine["environment"].items()]
    if machine["not_compiled_for_cpu"]:
        parts.append(f"gpumlp by NumPy alone ({machine['not_compiled_for_cpu']})")
    return ", ".join([*parts, f"commit {machine['commit'] or 'unknown'}"])
