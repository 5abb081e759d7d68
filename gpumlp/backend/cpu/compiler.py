"""Libraries of compiled C++ for this CPU: from the wheel, or compiled at first use.

    gpumlp/kernels/compiled/<level>/<name>.so   in wheels for Linux, for each of processor.LEVELS
    <cache>/host/<key>.so     a library that was compiled here
    <cache>/host/<key>.json   a Toolchain: a compiler, its options and the CPU's vectors
    <cache>/host/.<random>    where a compiler works, locked by the process that has started it

A name stands for source and options; the options are the same here and there.  A key stands for all
that the file depends on: source, options, compiler, CPU, C library.  So homes that are shared by
different machines work, and nothing is ever overwritten by something else.  Nothing is raised where
nothing can be compiled: problem() says why, once one has asked, and complain() tells the user.
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
import sys
from pathlib import Path

from gpumlp.backend import sources
from gpumlp.backend.cpu import processor
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
    *("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread", "-Wno-psabi"),
    # Against the options of a CXX of the user's own: mathematics.hpp relies on rounding.
    *("-fno-fast-math", "-fno-math-errno", "-fno-trapping-math"),
    "-fno-exceptions",  # else they, and on Linux all that a compiler links, need C++'s library
    *(("-s", "-Wl,--as-needed") if platform.system() == "Linux" else ()),
)
NATIVE = ("-march=native",), ("-mcpu=native",), ()
TIMEOUT = 120  # seconds for one run of the compiler
SHIPPED = sources.PACKAGE / "kernels" / "compiled"

KEPT_TOOLCHAIN = {"command": [str], "version": str, "options": [str], "vectors": str}

# Does what a target compiles to run here?  Its output is what the vectors are.
PROBE = r"""
#include <cstdio>
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
template <typename Real> static bool wrong(Real one) {
    Real x[67], sum = 0;
    for (int i = 0; i < 67; ++i) x[i] = i * one + one;
    for (int i = 0; i < 67; ++i) x[i] = x[i] * x[i] / one;
    for (int i = 0; i < 67; ++i) sum += x[i];
    return sum != Real(102510);
}
int main(int count, char**) {
    std::puts(NAME);
    return wrong(float(count)) || wrong(double(count));
}
"""


class Failure(Exception):
    """Why there is no library, and what to do about it."""

    def __init__(self, reason: str, remedy: str):
        super().__init__(reason)
        self.remedy = remedy


@dataclasses.dataclass(frozen=True)
class Toolchain:
    """A compiler that works here."""

    command: list[str]
    version: str  # the first line of what --version prints
    options: list[str]  # with -march
    vectors: str  # "AVX-512", ...

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
        return f"{name}, {self.vectors}"


_lock = Lock()
_toolchain: Toolchain | Failure | None = None
_locks: dict[str, Lock] = {}  # source -> held by the thread that compiles it
_loaded: dict[str, ctypes.CDLL | None] = {}
_failure: Failure | None = None  # of the first source that could not be compiled


def library(source: str) -> ctypes.CDLL | None:
    """The library of a source: the wheel's, the cache's, or compiled now; None where that is
    impossible (see problem())."""
    global _failure
    if os.environ.get(VARIABLE) == "0":
        return None
    with _lock:
        lock = _locks.setdefault(source, Lock())
    with lock:
        if source not in _loaded:
            try:
                _loaded[source] = _shipped(source) or _library(source, toolchain())
            except Failure as failure:
                _loaded[source] = None
                _failure = _failure or failure
        return _loaded[source]


def problem() -> str | None:
    """Why nothing, or not everything, is compiled; None where all is well so far."""
    failure = _problem()
    return str(failure) if failure else None


def remedy() -> str | None:
    """What to do about the problem()."""
    failure = _problem()
    return failure.remedy if failure else None


def _problem() -> Failure | None:
    if os.environ.get(VARIABLE) == "0":
        return Failure(f"{VARIABLE}=0", f"Unset {VARIABLE}.")
    if shipped() is None:
        try:
            toolchain()
        except Failure as failure:
            return failure
    return _failure


def complain() -> None:
    """Say on stderr, once a process, that there is a problem() that is not the user's wish."""
    if os.environ.get(VARIABLE) != "0" and problem():
        _tell(f"NumPy computes on the CPU, at about half the speed ({problem()}). {remedy()}")


@functools.cache
def _tell(note: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # none, closed, or unread
        sys.stderr.write(f"gpumlp: note: {note}\n")
        sys.stderr.flush()


# ------------------------------------------------------------------ the wheel's
def shipped() -> Path | None:
    """The folder of the wheel's libraries for this CPU; None where there is none, or not wanted."""
    level = None if os.environ.get(VARIABLE) == "0" else processor.level()
    folder = SHIPPED / level if level else None
    return folder if folder and folder.is_dir() else None


def is_shipped(library: ctypes.CDLL) -> bool:
    """Whether it is one of the wheel's."""
    return Path(library._name).is_relative_to(SHIPPED)


def _shipped(source: str) -> ctypes.CDLL | None:
    """The wheel's library; None where it is missing or damaged."""
    folder = shipped()
    if folder is not None:
        with contextlib.suppress(OSError):
            path = folder / _shipped_name(source, folder.name)
            cache.contents(path)
            return ctypes.CDLL(str(path))
    return None


def _shipped_name(source: str, level: str) -> str:
    return f"{_hash(source, options(level))}.so"


def options(level: str) -> tuple[str, ...]:
    """The compiler's options for CPUs of that level."""
    return *OPTIONS, *processor.LEVELS[level].options


def ship(source: str, level: str, folder: Path) -> None:
    """Compile a library for the wheel into a folder; raises Failure."""
    command, _ = _command()
    with _temporary(folder) as temporary:
        _compile([*command, *options(level)], source, temporary / "library")
        name = _shipped_name(source, level)
        cache.keep(folder / name, (temporary / "library").read_bytes())


# ------------------------------------------------------------------ compiled here
def toolchain() -> Toolchain:
    """The compiler, looked for once a process; raises Failure without one."""
    global _toolchain
    with _lock:
        if _toolchain is None:
            try:
                _toolchain = _find()
            except Failure as failure:
                _toolchain = failure
        if isinstance(_toolchain, Failure):
            raise _toolchain
        return _toolchain


def _library(source: str, tools: Toolchain) -> ctypes.CDLL:
    """The library from the cache, or compiled and kept there; raises Failure."""
    folder = _folder()
    path = folder / f"{_key(source, tools.options, tools.command, tools.version)}.so"
    with contextlib.suppress(OSError):
        return _load(path)
    _tell(f"compiling programs for this CPU, once; they are kept in {folder}")
    with _temporary(folder) as temporary:
        _compile([*tools.command, *tools.options], source, temporary / "library")
        cache.keep(path, (temporary / "library").read_bytes())
    try:
        return _load(path)
    except OSError as error:
        raise Failure(f"a compiled library cannot be loaded ({error})", ANOTHER) from None


def _load(path: Path) -> ctypes.CDLL:
    """Load a library; raises OSError where the file is missing or damaged."""
    cache.read(path)
    return ctypes.CDLL(str(path))


def _find() -> Toolchain:
    """The toolchain from the cache, or probed and kept there; raises Failure."""
    folder = _folder()
    command, identity = _command()
    path = folder / f"{_key(PROBE, OPTIONS, _targets(), command, identity)}.json"
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
        raise Failure(f"CXX={named!r} is no command ({error})", ANOTHER) from None
    for command in candidates:
        executable = shutil.which(command[0])
        if executable:
            file = os.path.realpath(executable)
            with contextlib.suppress(OSError):  # removed just now
                status = os.stat(file)
                return [executable, *command[1:]], f"{file} {status.st_size} {status.st_mtime_ns}"
    if named:
        raise Failure(f"CXX names {named}, which was not found", ANOTHER)
    raise Failure("no C++ compiler was found", INSTALL)


def _targets() -> tuple[tuple[str, ...], ...]:
    """Options for this CPU: the first that are taken, and whose code runs, are used."""
    level = processor.level()
    return (*([processor.LEVELS[level].options] if level else []), *NATIVE)


def _probe(command: list[str], temporary: Path) -> Toolchain:
    """Find the options with which this compiler's programs run here; raises Failure."""
    version = _run([*command, "--version"], temporary).strip().partition("\n")[0]
    common = [option for option in OPTIONS if option not in ("-shared", "-fPIC")]
    problem = None
    for target in _targets():
        try:
            _compile([*command, *common, *target], PROBE, temporary / "probe")
            vectors = _run([str(temporary / "probe")], temporary).strip()
            return Toolchain(command, version, [*OPTIONS, *target], vectors)
        except Failure as failure:
            problem = problem or failure
    assert problem is not None
    raise problem


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
        raise Failure(f"{name} cannot be run ({error.strerror})", ANOTHER) from None
    with process:
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failure(f"{name} did not end in {TIMEOUT} s", ANOTHER) from None
            raise
    if process.returncode:
        said = [line.strip() for line in output.splitlines() if line.strip()]
        errors = [line for line in said if "error" in line] + said
        why = errors[0] if errors else f"exit status {process.returncode}"
        raise Failure(f"{name} failed ({why})", ANOTHER)
    return output


def _folder() -> Path:
    try:
        return cache.folder("host")
    except cache.Unsafe as error:
        raise Failure(str(error), error.remedy) from None
    except (OSError, RuntimeError) as error:
        why = f"there is no folder for compiled libraries ({error})"
        raise Failure(why, cache.ELSEWHERE) from None


@contextlib.contextmanager
def _temporary(folder: Path):
    """A temporary folder in which a compiler works."""
    try:
        with cache.workplace(folder) as place:
            yield place
    except OSError as error:
        why = error.strerror or error
        raise Failure(f"cannot write to {folder} ({why})", cache.ELSEWHERE) from None


def _key(*parts: object) -> str:
    return _hash(*parts, processor.description())


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
