"""Compile C++ to libraries for this very CPU at first use, and keep them in a per-user cache.

    <cache>/host/<key>.so     a library
    <cache>/host/<key>.json   a Toolchain: a compiler, its options and the CPU's vectors
    <cache>/host/.<random>    where a compiler works, locked by the process that has started it

A key stands for all that the file depends on: source, options, compiler, CPU, C library.  So homes
that are shared by different machines work, and nothing is ever overwritten by something else.
Where nothing can be compiled nothing is raised or warned: problem() says why, once one has asked.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from gpumlp.utils import cache
from gpumlp.utils.locks import Lock
from gpumlp.utils.schema import check

VARIABLE = "GPUMLP_HOST"  # 0: compile nothing, load nothing
COMPILERS = ("c++", "g++", "clang++")
INSTALL = "Install a C++ compiler, g++ or clang++ (Debian, Ubuntu: apt install g++)."
ANOTHER = "Let CXX name a C++ compiler whose programs run here, g++ or clang++."
# Not -ffast-math: loading such a library would flush denormal numbers to zero in the whole process.
# No OpenMP: its threads spin, and BLAS's threads then wait for their cores.
OPTIONS = (
    *("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread"),
    *("-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"),
)
TARGETS = ("-march=native", "-mcpu=native", None)  # the first that is taken, and whose code runs
TIMEOUT = 120  # seconds for one run of the compiler
# The lines of /proc/cpuinfo that tell kinds of CPU apart, of x86, ARM, POWER and RISC-V.
CPU = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "features", "cpu"),
    *("cpu implementer", "cpu architecture", "cpu variant", "cpu part", "isa", "uarch"),
)

KEPT_TOOLCHAIN = {
    "command": [str],
    "version": str,
    "options": [str],
    "vectors": str,
    "simd_math": bool,
}

# Does what a target compiles to run here?  With SIMD_MATH: is there a vector of each function, as
# in glibc's libmvec?  Its output is what the vectors are.
PROBE = r"""
#include <cmath>
#include <cstdio>
#if SIMD_MATH
#define VECTOR __attribute__((simd("notinbranch")))
extern "C" {
VECTOR float expf(float) noexcept;
VECTOR float tanhf(float) noexcept;
VECTOR float erff(float) noexcept;
VECTOR double exp(double) noexcept;
VECTOR double tanh(double) noexcept;
VECTOR double erf(double) noexcept;
}
#endif
#if defined __AVX512F__
#define NAME "AVX-512"
#elif defined __AVX2__
#define NAME "AVX2"
#elif defined __AVX__
#define NAME "AVX"
#elif defined __SSE2__
#define NAME "SSE2"
#elif defined __ARM_FEATURE_SVE
#define NAME "SVE"
#elif defined __ARM_NEON
#define NAME "NEON"
#else
#define NAME "no vectors"
#endif
template <typename Real> static int wrong(Real one) {
    Real x[67], e[67], t[67], r[67];
    for (int i = 0; i < 67; ++i) x[i] = one;
    for (int i = 0; i < 67; ++i) e[i] = std::exp(x[i]);
    for (int i = 0; i < 67; ++i) t[i] = std::tanh(x[i]);
    for (int i = 0; i < 67; ++i) r[i] = std::erf(x[i]);
    int count = 0;
    for (int i = 0; i < 67; ++i)
        count += !(std::fabs(e[i] - Real(2.718281828459045)) < Real(1e-5)) +
                 !(std::fabs(t[i] - Real(0.761594155955765)) < Real(1e-5)) +
                 !(std::fabs(r[i] - Real(0.842700792949715)) < Real(1e-5));
    return count;
}
int main(int count, char**) {
    std::puts(NAME);
    return wrong(float(count)) + wrong(double(count)) != 0;
}
"""


class _Failure(Exception):
    """Why there is no library, and what to do about it."""

    def __init__(self, reason: str, remedy: str):
        super().__init__(reason)
        self.remedy = remedy


@dataclasses.dataclass(frozen=True)
class Toolchain:
    """A compiler that works here."""

    command: list[str]
    version: str  # the first line of what --version prints
    options: list[str]  # with -march=native or what stands for it, and -DSIMD_MATH=0 or 1
    vectors: str  # "AVX-512", ...
    simd_math: bool  # expf, tanhf and erff come as vectors

    @classmethod
    def from_json(cls, text: bytes) -> Toolchain:
        """Read a Toolchain; raises ValueError if it is none."""
        known = json.loads(text)
        check(known, KEPT_TOOLCHAIN, "the toolchain")
        return cls(**known)

    def to_json(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode()

    def __str__(self) -> str:
        name = re.sub(r" \([^()]*\)", "", self.version)
        return f"{name}, {self.vectors}{', vector math' if self.simd_math else ''}"


_lock = Lock()
_toolchain: Toolchain | _Failure | None = None
_locks: dict[str, Lock] = {}  # source -> held by the thread that compiles it
_loaded: dict[str, ctypes.CDLL | None] = {}
_failure: _Failure | None = None  # of the first source that could not be compiled


def library(source: str) -> ctypes.CDLL | None:
    """Compile C++ and load the library; None where that is impossible (see problem()).

    The source sees the macro SIMD_MATH, 1 where vectors of expf, tanhf and erff can be linked.
    """
    global _failure
    if os.environ.get(VARIABLE) == "0":
        return None
    with _lock:
        lock = _locks.setdefault(source, Lock())
    with lock:
        if source not in _loaded:
            try:
                _loaded[source] = _library(source, toolchain())
            except _Failure as failure:
                _loaded[source] = None
                _failure = _failure or failure
        return _loaded[source]


def problem() -> str | None:
    """Why nothing, or not everything, can be compiled; None where all is well so far."""
    failure = _problem()
    return str(failure) if failure else None


def remedy() -> str | None:
    """What to do about the problem()."""
    failure = _problem()
    return failure.remedy if failure else None


def _problem() -> _Failure | None:
    if os.environ.get(VARIABLE) == "0":
        return _Failure(f"{VARIABLE}=0", f"Unset {VARIABLE}.")
    try:
        toolchain()
    except _Failure as failure:
        return failure
    return _failure


def toolchain() -> Toolchain:
    """The compiler, looked for once a process; raises _Failure without one."""
    global _toolchain
    with _lock:
        if _toolchain is None:
            try:
                _toolchain = _find()
            except _Failure as failure:
                _toolchain = failure
        if isinstance(_toolchain, _Failure):
            raise _toolchain
        return _toolchain


def _library(source: str, tools: Toolchain) -> ctypes.CDLL:
    """The library from the cache, or compiled and kept there; raises _Failure."""
    folder = _folder()
    path = folder / f"{_key(source, tools.options, tools.command, tools.version)}.so"
    with contextlib.suppress(OSError):
        return _load(path)
    with _temporary(folder) as temporary:
        _compile([*tools.command, *tools.options], source, temporary / "library")
        cache.keep(path, (temporary / "library").read_bytes())
    try:
        return _load(path)
    except OSError as error:
        raise _Failure(f"a compiled library cannot be loaded ({error})", ANOTHER) from None


def _load(path: Path) -> ctypes.CDLL:
    """Load a library; raises OSError where the file is missing or damaged."""
    cache.read(path)
    return ctypes.CDLL(str(path))


def _find() -> Toolchain:
    """The toolchain from the cache, or probed and kept there; raises _Failure."""
    folder = _folder()
    command, identity = _command()
    path = folder / f"{_key(PROBE, OPTIONS, TARGETS, command, identity)}.json"
    with contextlib.suppress(OSError, ValueError):
        return Toolchain.from_json(cache.read(path))
    with _temporary(folder) as temporary:
        tools = _probe(command, temporary)
        cache.keep(path, tools.to_json())
    return tools


def _command() -> tuple[list[str], str]:
    """The compiler's command, and which file it is; it is not run."""
    named = os.environ.get("CXX", "").strip()
    try:
        candidates = [shlex.split(named)] if named else [[name] for name in COMPILERS]
    except ValueError as error:
        raise _Failure(f"CXX={named!r} is no command ({error})", ANOTHER) from None
    for command in candidates:
        executable = shutil.which(command[0])
        if executable:
            file = os.path.realpath(executable)
            with contextlib.suppress(OSError):  # removed just now
                status = os.stat(file)
                return [executable, *command[1:]], f"{file} {status.st_size} {status.st_mtime_ns}"
    if named:
        raise _Failure(f"CXX names {named}, which was not found", ANOTHER)
    raise _Failure("no C++ compiler was found", INSTALL)


def _probe(command: list[str], temporary: Path) -> Toolchain:
    """Find the options with which this compiler's programs run here; raises _Failure."""
    version = _run([*command, "--version"], temporary).strip().partition("\n")[0]
    common = [option for option in OPTIONS if option not in ("-shared", "-fPIC")]
    # Clang knows no attribute `simd`, and says so in a warning.
    common.append("-Werror=attributes")

    def vectors(target: str | None, simd_math: int) -> str:
        options = [*([target] if target else []), f"-DSIMD_MATH={simd_math}"]
        _compile([*command, *common, *options], PROBE, temporary / "probe")
        return _run([str(temporary / "probe")], temporary).strip()

    problem = None
    for target in TARGETS:
        try:
            name = vectors(target, 0)
            break
        except _Failure as failure:
            problem = problem or failure
    else:
        assert problem is not None
        raise problem
    try:
        vectors(target, 1)
        simd_math = True
    except _Failure:
        simd_math = False
    options = [*OPTIONS, *([target] if target else []), f"-DSIMD_MATH={int(simd_math)}"]
    return Toolchain(command, version, options, name, simd_math)


def _compile(command: list[str], source: str, out: Path) -> None:
    file = out.with_suffix(".cpp")
    file.write_text(source, encoding="utf-8")
    _run([*command, str(file), "-o", str(out)], out.parent)


def _run(command: list[str], temporary: Path) -> str:
    """Run a command, in a process group of its own, as a compiler starts others; its output."""
    name = os.path.basename(command[0])
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C", "TMPDIR": str(temporary)},
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise _Failure(f"{name} cannot be run ({error.strerror})", ANOTHER) from None
    with process:
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise _Failure(f"{name} did not end in {TIMEOUT} s", ANOTHER) from None
            raise
    if process.returncode:
        said = [line.strip() for line in output.splitlines() if line.strip()]
        errors = [line for line in said if "error" in line] + said
        why = errors[0] if errors else f"exit status {process.returncode}"
        raise _Failure(f"{name} failed ({why})", ANOTHER)
    return output


def _folder() -> Path:
    try:
        return cache.folder("host")
    except cache.Unsafe as error:
        raise _Failure(str(error), error.remedy) from None
    except (OSError, RuntimeError) as error:
        why = f"there is no folder for compiled libraries ({error})"
        raise _Failure(why, cache.ELSEWHERE) from None


@contextlib.contextmanager
def _temporary(folder: Path):
    """A temporary folder in which a compiler works."""
    try:
        with cache.workplace(folder) as place:
            yield place
    except OSError as error:
        why = error.strerror or error
        raise _Failure(f"cannot write to {folder} ({why})", cache.ELSEWHERE) from None


def _key(*parts: object) -> str:
    return hashlib.sha256(repr((*parts, _machine())).encode()).hexdigest()[:32]


@functools.cache
def _machine() -> str:
    """A description of the CPU and the C library, for keys."""
    facts = [platform.system(), platform.machine()]
    with contextlib.suppress(AttributeError, ValueError, OSError):
        facts.append(os.confstr("CS_GNU_LIBC_VERSION") or "")
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name = line.partition(":")[0].strip().lower()
                if not name:
                    break  # the first core's lines end
                if name in CPU:
                    facts.append(line)
    except OSError:
        facts.append(platform.processor())
    return "\n".join(facts)
