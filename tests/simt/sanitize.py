"""Run Python under a sanitizer, so that kernels built with it can be loaded.

A sanitizer must be in a process from its start; hence a child process. In it, GPUMLP_SIMT_SANITIZE
makes `simt.build` instrument the kernels. A finding ends the child with a report on its standard
error and a return code other than 0.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.waiting import HANGS

from .compiler import SANITIZERS, find_compiler, why_no_compiler

LIBRARIES = {"address": "libasan.so", "thread": "libtsan.so"}
REPOSITORY = Path(__file__).parents[2]

OPTIONS = {
    "address": {
        # Python itself leaks; a fake stack for each frame and our fibers do not go together.
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    },
    "thread": {
        "TSAN_OPTIONS": "halt_on_error=1:report_thread_leaks=0:report_signal_unsafe=0"
        ":history_size=4:atexit_sleep_ms=0"
    },
}


def run(
    sanitizer: str, argv: list[str], *, timeout: float = HANGS, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """Run `python *argv` under "address" or "thread"; skip the test where that is impossible.

    Standard output and standard error come back as text. The repository is on the child's path, so
    that `["-m", "tests.simt.samples"]` and `["-m", "pytest", "tests/..."]` work.
    """
    reason = why_not(sanitizer)
    if reason:
        pytest.skip(reason)
    return _run(sanitizer, argv, timeout, env or {})


@functools.cache
def why_not(sanitizer: str) -> str | None:
    """The reason why Python cannot run under the sanitizer here; None if it can."""
    if sanitizer not in SANITIZERS:
        raise ValueError(f"no sanitizer {sanitizer!r}; there are {', '.join(SANITIZERS)}")
    if why_no_compiler():
        return why_no_compiler()
    if _library(sanitizer) is None:
        return f"{find_compiler()} has no {LIBRARIES[sanitizer]} (package libgcc-dev or similar)"
    probe = _run(sanitizer, ["-c", "pass"], 60, {})
    if probe.returncode:
        last_line = (probe.stderr.strip() or f"return code {probe.returncode}").splitlines()[-1]
        return f"Python does not start under the {sanitizer} sanitizer: {last_line}"
    return None


def _run(sanitizer, argv, timeout, env) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*_fixed_addresses(sanitizer), sys.executable, *argv],
        env=_environment(sanitizer) | env,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def _environment(sanitizer: str) -> dict[str, str]:
    path = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return (
        os.environ
        | OPTIONS[sanitizer]
        | {
            "LD_PRELOAD": str(_library(sanitizer)),
            "GPUMLP_SIMT_SANITIZE": sanitizer,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "OPENBLAS_NUM_THREADS": "1",  # uninstrumented threads are only noise here
        }
    )


@functools.cache
def _library(sanitizer: str) -> Path | None:
    name = LIBRARIES[sanitizer]
    found = subprocess.run(
        [find_compiler(), f"-print-file-name={name}"], capture_output=True, text=True
    ).stdout.strip()
    return Path(found) if os.path.isabs(found) and os.path.exists(found) else None


@functools.cache
def _fixed_addresses(sanitizer: str) -> tuple[str, ...]:
    """Without address randomisation where the machine's is too wide for ThreadSanitizer."""
    setarch = shutil.which("setarch")
    if sanitizer != "thread" or setarch is None:
        return ()
    prefix = (setarch, platform.machine(), "-R")
    works = subprocess.run([*prefix, "true"], capture_output=True).returncode == 0
    return prefix if works else ()
