"""Ask the NVIDIA driver for its versions and GPUs, without CuPy.

Standard library only, so that it also runs before anything is installed:
`python -I gpumlp/backend/cuda/driver.py` prints the extra to install ("cuda12", "cuda13") or
nothing.
"""

import ctypes
import functools
import re
import subprocess
from pathlib import Path

LIBRARIES = ("libcuda.so.1", "libcuda.so", "nvcuda.dll")
PROC_VERSION = Path("/proc/driver/nvidia/version")

# CUDA major version -> the extra whose CuPy is built for it, and the oldest driver that runs it.
EXTRAS = {12: "cuda12", 13: "cuda13"}
OLDEST_DRIVER = {12: "525", 13: "580"}


@functools.cache
def cuda_version() -> tuple[int, int] | None:
    """The newest CUDA version that the driver supports, as (major, minor); None without a driver.

    Asks the driver's own library, then nvidia-smi, then the kernel module; once a process, as every
    fit with device="auto" wants to know, and a program takes longer to start than a small fit.
    """
    return _version_from_library() or _version_from_smi() or _version_from_module()


def driver_version() -> str | None:
    """The version of the driver itself, such as "580.65.06"; None without a driver."""
    try:
        text = PROC_VERSION.read_text(encoding="utf-8", errors="replace")
    except OSError:
        answer = _smi("--query-gpu=driver_version", "--format=csv,noheader")
        return answer[0] if answer else None
    match = re.search(r"Module.*?\s(\d+(?:\.\d+)+)", text)
    return match[1] if match else None


def gpus() -> list[tuple[str, int]]:
    """The GPUs that nvidia-smi lists, as (name, memory in bytes)."""
    gpus = []
    for line in _smi("--query-gpu=name,memory.total", "--format=csv,noheader,nounits"):
        name, _, mebibytes = line.rpartition(",")
        if mebibytes.strip().isdigit():
            gpus.append((name.strip(), int(mebibytes) * 2**20))
    return gpus


def extra(version: tuple[int, int] | None) -> str | None:
    """The extra to install for a driver that supports this CUDA version.

    A driver runs programs built for older CUDA versions too: the newest extra not above it.
    None without a driver, or with one too old for every extra.
    """
    majors = [major for major in EXTRAS if version is not None and major <= version[0]]
    return EXTRAS[max(majors)] if majors else None


def _version_from_library() -> tuple[int, int] | None:
    for name in LIBRARIES:
        try:
            library = ctypes.CDLL(name)
            # Needs no cuInit, so it makes no context and is safe before a fork.
            number = ctypes.c_int(0)
            failed = library.cuDriverGetVersion(ctypes.byref(number))
        except (OSError, AttributeError):
            continue
        if not failed and number.value > 0:
            return number.value // 1000, number.value % 1000 // 10
    return None


def _version_from_smi() -> tuple[int, int] | None:
    match = re.search(r"CUDA(?: UMD)? Version\s*:\s*(\d+)\.(\d+)", "\n".join(_smi()))
    return (int(match[1]), int(match[2])) if match else None


def _version_from_module() -> tuple[int, int] | None:
    version = driver_version()
    if version is None:
        return None
    release = int(version.split(".")[0])
    majors = [major for major, oldest in OLDEST_DRIVER.items() if release >= int(oldest)]
    return (max(majors), 0) if majors else (11, 0)


def _smi(*arguments: str) -> list[str]:
    """The lines that nvidia-smi prints; none where it is missing or fails."""
    try:
        done = subprocess.run(
            ["nvidia-smi", *arguments], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


if __name__ == "__main__":
    print(extra(cuda_version()) or "")
