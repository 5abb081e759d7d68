"""What the figures were measured on: machine, versions, commit."""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
PACKAGES = "numpy scikit-learn torch jax cupy-cuda12x cupy-cuda13x cupy pytest".split()


def describe() -> dict:
    """Never raises: what cannot be found is None."""
    versions = {name: _tried(importlib.metadata.version, name) for name in PACKAGES}
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _tried(_commit),
        "processor": _tried(_processor) or platform.machine(),
        "cores": CORES,
        "platform": platform.platform(),
        "versions": {"python": platform.python_version()} | versions,
        "environment": {k: v for k, v in os.environ.items() if k.endswith("_NUM_THREADS")},
        "gpus": _tried(_gpus) or [],
    }


def _tried(work, *arguments):
    try:
        return work(*arguments)
    except Exception:
        return None


def _commit() -> str:
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"]
    return subprocess.check_output(git, stderr=subprocess.DEVNULL, text=True, timeout=30).strip()


def _processor() -> str:
    return re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[0]


def _gpus() -> list[dict]:
    import cupy

    from gpumlp.backend.cuda import driver

    runtime = cupy.cuda.runtime
    versions = {"driver": driver.driver_version(), "cuda": runtime.runtimeGetVersion()}
    gpus = [runtime.getDeviceProperties(i) for i in range(runtime.getDeviceCount())]
    facts = "totalGlobalMem", "multiProcessorCount", "major", "minor"
    return [{"name": gpu["name"].decode()} | versions | {f: gpu[f] for f in facts} for gpu in gpus]


def one_line(machine: dict) -> str:
    gpus = [f"{gpu['name']}, driver {gpu['driver']}" for gpu in machine["gpus"]] or ["no GPU"]
    known = [f"{name} {version}" for name, version in machine["versions"].items() if version]
    known += [f"{name}={value}" for name, value in machine["environment"].items()]
    facts = [machine["date"], machine["processor"], f"{machine['cores']} cores", *gpus]
    return ", ".join([*facts, " ".join(known), f"commit {machine['commit'] or 'unknown'}"])
