"""What kind of CPU this is: which of the programs that wheels carry it can run."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
from typing import NamedTuple

# The lines of /proc/cpuinfo that tell kinds of CPU apart, of x86, ARM, POWER and RISC-V.
LINES = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "features", "cpu"),
    *("cpu implementer", "cpu architecture", "cpu variant", "cpu part", "isa", "uarch"),
)


class Level(NamedTuple):
    """CPUs that run the same programs."""

    machine: str  # of platform.machine()
    flags: frozenset[str]  # in /proc/cpuinfo
    options: tuple[str, ...]  # of the compiler


X86_64_V3 = frozenset(
    "sse4_2 ssse3 popcnt cx16 avx avx2 bmi1 bmi2 f16c fma abm movbe xsave".split()
)
AVX_512 = frozenset("avx512f avx512bw avx512cd avx512dq avx512vl".split())

# Of each machine the best first.  GCC's own choice for many CPUs with AVX-512 is half its vectors.
LEVELS = {
    "x86-64-v4": Level(
        "x86_64", X86_64_V3 | AVX_512, ("-march=x86-64-v4", "-mprefer-vector-width=512")
    ),
    "x86-64-v3": Level("x86_64", X86_64_V3, ("-march=x86-64-v3",)),
    "armv8-a": Level("aarch64", frozenset(["asimd"]), ("-march=armv8-a",)),
}


@functools.cache
def level() -> str | None:
    """The best of LEVELS that runs here; None where there is none, or none is known."""
    facts = _facts()
    flags = {*facts.get("flags", "").split(), *facts.get("features", "").split()}
    machine = platform.machine()
    fits = (name for name, target in LEVELS.items() if target.machine == machine)
    return next((name for name in fits if LEVELS[name].flags <= flags), None)


@functools.cache
def description() -> str:
    """The CPU and the C library, for the names of files that depend on them."""
    facts = [platform.system(), platform.machine()]
    with contextlib.suppress(AttributeError, ValueError, OSError):
        facts.append(os.confstr("CS_GNU_LIBC_VERSION") or "")
    lines = [f"{name}: {text}" for name, text in _facts().items() if name in LINES]
    return "\n".join([*facts, *(lines or [platform.processor()])])


def _facts() -> dict[str, str]:
    """The first core's lines of /proc/cpuinfo; empty where there is no such file."""
    facts = {}
    with (
        contextlib.suppress(OSError),
        open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file,
    ):
        for line in file:
            name, _, text = line.partition(":")
            if not name.strip():
                break
            facts[name.strip().lower()] = text.strip()
    return facts
