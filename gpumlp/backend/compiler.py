"""C++ made into libraries for this very CPU at first use, and kept in a per-user cache.

    <cache>/<key>.so     a library, with the SHA-256 of its bytes at its end
    <cache>/<key>.json   what was found out about a compiler: a Toolchain

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
import tempfile
import time
from pathlib import Path

from gpumlp import cache
from gpumlp.threads import Lock

VARIABLE = "GPUMLP_HOST"  # 0: compile nothing, load nothing
COMPILERS = ("c++", "g++", "clang++")
INSTALL = "Install a C++ compiler, g++ or clang++ (Debian, Ubuntu: apt install g++)."
ANOTHER = "Let CXX name a C++ compiler whose programs run here, g++ or clang++."
ELSEWHERE = "Let XDG_CACHE_HOME name a folder of your own."
# Not -ffast-math: loading such a library would flush denormal numbers to zero in the whole process.
# No OpenMP: its threads spin, and BLAS's threads then wait for their cores.
OPTIONS = (
    *("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread"),
    *("-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"),
)
TARGETS = ("-march=native", "-mcpu=native", None)  # the first that is taken, and whose code runs
TIMEOUT = 120  # seconds for one run of the compiler
DAY = 86400
KEPT = 90 * DAY  # what no process has used for so long is removed
# The lines of /proc/cpuinfo that tell kinds of CPU apart, of x86, ARM, POWER and RISC-V.
CPU = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "features", "cpu"),
    *("cpu implementer", "cpu architecture", "cpu variant", "cpu part", "isa", "uarch"),
)

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

    def __init__(self, what: str, remedy: str):
        super().__init__(what)
        self.remedy = remedy


@dataclasses.dataclass(frozen=True)
class Toolchain:
    """A compiler that works here."""

    command: list[str]
    version: str  # the first line of what --version prints
    options: list[str]  # with -march=native or what stands for it, and -DSIMD_MATH=0 or 1
    vectors: str  # "AVX-512", ...
    simd_math: bool  # expf, tanhf and erff come as vectors

    def __str__(self) -> str:
        name = re.sub(r" \([^()]*\)", "", self.version)
        return f"{name}, {self.vectors}{', vector math' if self.simd_math else ''}"


_lock = Lock()
_toolchain: Toolchain | _Failure | None = None
_locks: dict[str, Lock] = {}  # source -> held by the thread that compiles it
_loaded: dict[str, ctypes.CDLL | None] = {}
_failure: _Failure | None = None  # of the first source that could not be compiled


def library(source: str) -> ctypes.CDLL | None:
    """The library that this C++ compiles to; None where it cannot be had (see problem()).

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
    """Looked for once a process."""
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
    folder = _folder()
    path = folder / f"{_key(source, tools.options, tools.command, tools.version)}.so"
    with contextlib.suppress(OSError):
        return _load(path)
    with _temporary(folder) as temporary:
        _compile([*tools.command, *tools.options], source, temporary / "library")
        _keep(temporary / "library", path)
        _remove_old(folder)
    try:
        return _load(path)
    except OSError as error:
        raise _Failure(f"a compiled library cannot be loaded ({error})", ANOTHER) from None


def _load(path: Path) -> ctypes.CDLL:
    """Raises OSError where there is no such file, or not all of it."""
    data = path.read_bytes()
    if hashlib.sha256(data[:-32]).digest() != data[-32:]:
        raise OSError(f"{path} is damaged")
    _touch(path)
    return ctypes.CDLL(str(path))


def _find() -> Toolchain:
    folder = _folder()
    command, identity = _command()
    path = folder / f"{_key(PROBE, OPTIONS, TARGETS, command, identity)}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        known = Toolchain(**json.loads(path.read_text()))
        _touch(path)
        return known
    with _temporary(folder) as temporary:
        tools = _probe(command, temporary)
        (temporary / "tools").write_text(json.dumps(dataclasses.asdict(tools)))
        with (temporary / "tools").open("ab") as file:
            os.fsync(file.fileno())
        os.replace(temporary / "tools", path)
    return tools


def _command() -> tuple[list[str], str]:
    """The compiler's command, and which file it is; it is not run."""
    named = os.environ.get("CXX", "").strip()
    try:
        candidates = [shlex.split(named)] if named else [[name] for name in COMPILERS]
    except ValueError as error:
        raise _Failure(f"CXX={named!r} is no command ({error})", ANOTHER) from None
    for command in candidates:
        found = shutil.which(command[0])
        if found:
            file = os.path.realpath(found)
            with contextlib.suppress(OSError):  # removed just now
                about = os.stat(file)
                return [found, *command[1:]], f"{file} {about.st_size} {about.st_mtime_ns}"
    if named:
        raise _Failure(f"CXX names {named}, which was not found", ANOTHER)
    raise _Failure("no C++ compiler was found", INSTALL)


def _probe(command: list[str], temporary: Path) -> Toolchain:
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
    """What a command prints; in a process group of its own, as a compiler starts others."""
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
    """The cache, made at need.  As code is loaded from it, only the user may write there."""
    try:
        folder = cache.folder() / "host"
        folder.parent.parent.mkdir(parents=True, exist_ok=True)
        for each in (folder.parent, folder):
            each.mkdir(mode=0o700, exist_ok=True)
        about = folder.stat()
    except (OSError, RuntimeError) as error:
        raise _Failure(f"there is no folder for compiled libraries ({error})", ELSEWHERE) from None
    if about.st_uid != os.geteuid():
        raise _Failure(f"{folder} belongs to another user", ELSEWHERE)
    if about.st_mode & 0o022:
        raise _Failure(f"{folder} can be written by others", f"Run chmod go-w {folder}.")
    return folder


@contextlib.contextmanager
def _temporary(folder: Path):
    """A folder inside, on the same disk: a finished file moves into place in one step."""
    try:
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as name:
            yield Path(name)
    except OSError as error:
        raise _Failure(f"cannot write to {folder} ({error.strerror})", ELSEWHERE) from None


def _keep(temporary: Path, path: Path) -> None:
    digest = hashlib.sha256(temporary.read_bytes()).digest()
    with temporary.open("ab") as file:
        file.write(digest)
        file.flush()
        os.fsync(file.fileno())
    temporary.chmod(0o600)
    os.replace(temporary, path)


def _touch(path: Path) -> None:
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > DAY:
            os.utime(path)


def _remove_old(folder: Path) -> None:
    """What no process has used for long, and what a killed one has left."""
    for name in os.listdir(folder):
        path = folder / name
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _key(*parts: object) -> str:
    return hashlib.sha256(repr((*parts, _machine())).encode()).hexdigest()[:32]


@functools.cache
def _machine() -> str:
    """The CPU and the C library."""
    facts = [platform.system(), platform.machine()]
    with contextlib.suppress(AttributeError, ValueError, OSError):
        facts.append(os.confstr("CS_GNU_LIBC_VERSION") or "")
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                name = line.partition(":")[0].strip().lower()
                if not name:
                    break  # the first core's lines end
                if name in CPU:
                    facts.append(line)
    except OSError:
        facts.append(platform.processor())
    return "\n".join(facts)
