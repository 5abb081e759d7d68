"""The C++ compiler: finding it, its flags, and a cache on disk of what it made."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from .translate import TranslationError, translate

SHIM = Path(__file__).parent / "shim"
SANITIZERS = ("address", "thread")
# GPUs fault where an address is not aligned to its access, CPUs need not: the plain build asserts
# it, too.  The runtime has the function that a failed check calls, not the sanitizer's library.
INSTRUMENTATION = {
    None: ["-fsanitize=alignment", "-fno-sanitize-recover=all", "-Wl,--as-needed"],
    "address": ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
}
# Options of NVRTC without a meaning here.
IGNORED_OPTIONS = ("-lineinfo", "--generate-line-info", "-G", "--device-debug", "--fmad", "-fmad")


class CompilerMissing(RuntimeError):
    """There is no compiler that can build programs for the shim."""


class BuildError(RuntimeError):
    """The compiler, or the translation before it, refused a program."""


# ------------------------------------------------------------------ the compiler


@functools.cache
def find_compiler() -> str | None:
    """The path of $CXX, g++, clang++ or c++, whichever is found first."""
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        path = name and shutil.which(name)
        if path:
            return path
    return None


@functools.cache
def why_no_compiler() -> str | None:
    """The reason why programs cannot be built on this machine; None if they can."""
    if not sys.platform.startswith("linux"):
        return f"the SIMT shim runs on Linux only, not on {sys.platform}"
    if platform.machine() not in ("x86_64", "aarch64"):
        return f"the SIMT shim runs on x86-64 and aarch64 only, not on {platform.machine()}"
    if find_compiler() is None:
        return "no C++ compiler found (looked for $CXX, g++, clang++ and c++)"
    return None


def require_compiler() -> str:
    reason = why_no_compiler()
    if reason:
        raise CompilerMissing(reason)
    return find_compiler()


def program_flags(options: tuple[str, ...], sanitize: str | None) -> list[str]:
    # Optimisation costs compile time and gains run time: -O1 is the best sum for the tests' sizes.
    # Contraction is off so that every processor computes the same.
    flags = ["-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing"]
    flags += ["-ffp-contract=off", "-fno-math-errno", "-Wreturn-type", "-Werror=return-type"]
    flags += INSTRUMENTATION[sanitize]
    if sanitize:
        flags += ["-g1", "-fno-omit-frame-pointer"]
    for option in options:
        if option.startswith(("-D", "-U", "-std=", "--std=")):
            flags.append(option.replace("--std=", "-std="))
        elif not option.startswith(IGNORED_OPTIONS):
            raise ValueError(f"the SIMT shim does not know the compiler option {option!r}")
    return flags


def runtime_flags(sanitize: str | None) -> list[str]:
    # Not instrumented, and told about the sanitizer: see sanitizers.h.
    told = [f"-DSIMT_{sanitize.upper()}"] if sanitize else []
    return ["-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", *told]


# ------------------------------------------------------------------ building


def build_runtime(sanitize: str | None) -> Path:
    """The runtime library, made once for all programs."""
    flags = runtime_flags(sanitize)

    def make(folder: Path) -> Path:
        return _link([*flags, str(SHIM / "runtime.cpp")], folder)

    return _cached("runtime", _key("runtime", *flags), make)


def build_program(text: str, name: str, options: tuple[str, ...], sanitize: str | None) -> Path:
    """The shared library of one program; `name` is the file name in messages."""
    require_compiler()
    runtime = build_runtime(sanitize)
    flags = program_flags(options, sanitize)

    def make(folder: Path) -> Path:
        source = folder / "program.cpp"
        source.write_text(_translate(text, name, flags), encoding="utf-8")
        return _link([*flags, f"-I{SHIM}", str(source), str(runtime)], folder)

    label = re.sub(r"\W+", "_", name)
    return _cached(label, _key(text, name, str(runtime), *flags), make)


def _translate(text: str, name: str, flags: list[str]) -> str:
    named = f'#line 1 "{name}"\n{text}'
    preprocessed = _compile([*flags, "-E", "-x", "c++", "-"], named)
    try:
        return translate(preprocessed)
    except TranslationError as error:
        raise BuildError(f"{name}: {error}") from error


def _link(arguments: list[str], folder: Path) -> Path:
    library = folder / "library.so"
    _compile([*arguments, "-shared", "-o", str(library)])
    return library


def _compile(arguments: list[str], stdin: str = "") -> str:
    done = subprocess.run(
        [require_compiler(), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env=os.environ | {"LD_PRELOAD": "", "LC_ALL": "C"},  # no sanitizer in the compiler itself
    )
    if done.returncode:
        raise BuildError(f"the compiler refused the program:\n{done.stderr}")
    return done.stdout


# ------------------------------------------------------------------ cache


def _cached(label: str, key: str, make) -> Path:
    """The file under `key`; made in a folder aside and moved into place in one step."""
    folder = cache_folder()
    path = folder / f"{label}-{key}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            os.replace(make(Path(aside)), path)
    return path


def _key(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in (_surroundings(), *parts):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:24]


@functools.cache
def _surroundings() -> str:
    """All that a build depends on besides its own text and flags."""
    compiler = require_compiler()
    version = _compile(["--version"])
    sources = [path.read_text(encoding="utf-8") for path in sorted(SHIM.iterdir())]
    sources.append((SHIM.parent / "translate.py").read_text(encoding="utf-8"))
    return "\0".join([compiler, version, platform.machine(), *sources])


@functools.cache
def cache_folder() -> Path:
    """A folder that is this user's alone: programs from it are loaded and run."""
    if os.environ.get("XDG_CACHE_HOME"):
        folder = Path(os.environ["XDG_CACHE_HOME"]) / "gpumlp-simt"
    else:
        folder = Path(tempfile.gettempdir()) / f"gpumlp-simt-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise BuildError(f"{folder} belongs to or can be written by others; remove it")
    return folder
