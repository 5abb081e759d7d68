"""Resolve device strings such as "auto", and report on this machine for `gpumlp info`.

A device is "auto", "cpu", "cuda" (the first GPU) or "cuda:1"; resolve() turns it into "cpu" or
"cuda:0", "cuda:1", …  CuPy is imported only inside these functions.
"""

import dataclasses
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
import warnings
from typing import NamedTuple

import numpy

from gpumlp.backend import selfcheck
from gpumlp.backend.cpu import compiler, host_sources, pool, processor
from gpumlp.backend.cuda import cublaslt, driver, faults
from gpumlp.backend.cuda.faults import Problem
from gpumlp.functions.activation import activations

VARIABLE = "GPUMLP_DEVICE"
VALID = '"auto", "cpu", "cuda" or "cuda:<number>", such as "cuda:1"'

# The CUDA runtime's numbers for "no device" and "no driver, or one too old".
NO_DEVICE, INSUFFICIENT_DRIVER = 100, 35
# And for "not initialized", of the driver too: what a process gets that was forked after CUDA was.
NOT_INITIALIZED = 3


class Resolution(NamedTuple):
    """What a device string stands for.

    device: the string;  by: the environment variable that it is from, or nothing.
    use: "cpu" or "cuda:<i>", or nothing where the problem is in the way.
    """

    device: str
    by: str
    use: str
    problem: Problem | None = None


_answered: dict[int, object] = {}  # GPU -> the cupy module with which it has worked
_warned = False  # "auto" complains once a process


def resolve(device: str = "auto", check: bool = True) -> str:
    """Resolve a device string to "cpu", or "cuda:<i>" for a GPU that works.

    "auto" is what the environment variable GPUMLP_DEVICE says; without it the first GPU, or the
    CPU where none can be used. A broken CuPy or a driver too old is then told once, as a
    RuntimeWarning; a missing NVIDIA GPU, driver or CuPy is not.
    check: see `gpu_problem`.

    Raises ValueError for an invalid string, RuntimeError for a GPU that cannot be used.
    """
    choice = look_up(device, check)
    if not choice.use:
        by = f" (from {choice.by})" if choice.by else ""
        raise RuntimeError(f'device {choice.device!r}{by}: {choice.problem} Or use device="cpu".')
    return choice.use


def look_up(device: str, check: bool = True) -> Resolution:
    """Look up what a device string stands for, without an error for a GPU that cannot be used."""
    by = ""
    kind, index = parse(device)
    if kind == "auto" and os.environ.get(VARIABLE):
        device, by = os.environ[VARIABLE], VARIABLE
        try:
            kind, index = parse(device)
        except ValueError as error:
            raise ValueError(f"{VARIABLE}: {error}") from None
    if kind == "cpu":
        return Resolution(device, by, "cpu")
    problem = gpu_problem(index, check)
    if problem is None:
        return Resolution(device, by, f"cuda:{index}")
    if kind == "cuda":
        return Resolution(device, by, "", problem)
    if problem.broken:
        _warn_once(f"{problem} Using the CPU.")
    return Resolution(device, by, "cpu")


def parse(device: str) -> tuple[str, int]:
    """Parse a device string: ("auto" | "cpu" | "cuda", GPU number); raises ValueError."""
    match = re.fullmatch(r"(auto|cpu)|cuda(?::([0-9]{1,4}))?", str(device))
    if not match:
        raise ValueError(f"{device!r} is no device; valid are {VALID}")
    return match[1] or "cuda", int(match[2] or 0)


def gpu_problem(index: int = 0, check: bool = True) -> Problem | None:
    """Why GPU number `index` cannot be used, or None if it works.

    check: also whether it computes what NumPy does, at its first use (gpumlp/backend/selfcheck).
    """
    if faults.is_forked():
        return faults.forked()
    if index in _answered and _answered[index] is sys.modules.get("cupy"):
        return None
    try:
        import cupy
    except Exception as error:
        return _import_problem(error)
    try:
        count = cupy.cuda.runtime.getDeviceCount()
        faults.note_use()  # that call alone has initialized CUDA
        if index < count:
            _try_out(cupy, index)
            problem = selfcheck.first_use(index) if check else None
            if check and problem is None:
                _answered[index] = cupy
            return problem
    except Exception as error:
        return _runtime_problem(cupy, error)
    if count == 0:
        return _no_device()
    names = "only cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
    cause = f"there is no GPU number {index}: found {count} GPU{'s' * (count > 1)}, {names}"
    return Problem(cause, "Name one of these.")


def _try_out(cupy, index: int) -> None:
    """Run a compiled kernel and load cuBLASLt; raises whatever fails."""
    with cupy.cuda.Device(index):
        one = cupy.arange(2, dtype="int32")[1].item()  # by a program that every fit needs
        if one != 1:
            raise RuntimeError(f"GPU {index} counted 0, {one}")
        cublaslt.handle(index)


def _import_problem(error: Exception) -> Problem:
    """The problem behind an error of `import cupy`."""
    version = driver.cuda_version()
    if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
        cause = "CuPy is not installed"
        if version is None:
            cause = f"{cause}, and no NVIDIA driver was found"
        return Problem(cause, _install(version))
    cause = f"CuPy is installed but cannot be imported ({_one_line(error)})"
    remove = f"Remove it (pip uninstall {_packages()})."
    return Problem(cause, f"{remove} {_install(version)}" if version else remove, True)


def _runtime_problem(cupy, error: Exception) -> Problem:
    """The problem behind an error of the CUDA runtime, or of a library that CuPy loads."""
    version = driver.cuda_version()
    status = getattr(error, "status", None)
    if version is None and status in (NO_DEVICE, INSUFFICIENT_DRIVER):
        return Problem("no NVIDIA driver was found", _install(None, cupy=False))
    if status == NO_DEVICE:
        return _no_device()
    if status == NOT_INITIALIZED:
        return faults.forked()
    if version is not None and status == INSUFFICIENT_DRIVER:
        built_for = cupy.cuda.runtime.runtimeGetVersion() // 1000
        cause = (
            f"the NVIDIA driver supports CUDA {_dotted(version)}, but the installed CuPy "
            f"{cupy.__version__} needs CUDA {built_for}"
        )
        remedy = _install(version)
        if driver.extra(version):
            remedy = f"Remove that CuPy (pip uninstall {_packages()}). {remedy}"
        return Problem(cause, remedy, True)
    cause = f"CuPy {cupy.__version__} is installed but the GPU does not work ({_one_line(error)})"
    if status is not None or isinstance(error, MemoryError):
        return Problem(cause, "See with nvidia-smi whether the GPU works and is free.", True)
    return Problem(cause, _install(version), True)


def _no_device() -> Problem:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return Problem("no NVIDIA GPU was found", "See whether nvidia-smi lists one.")
    cause = f"no NVIDIA GPU is visible (CUDA_VISIBLE_DEVICES={visible!r})"
    return Problem(cause, "Unset CUDA_VISIBLE_DEVICES or name a GPU in it.")


def _install(version: tuple[int, int] | None, cupy: bool = True) -> str:
    """Advice on what to install for a driver of this CUDA version (None: there is no driver)."""
    newest = max(driver.EXTRAS)
    extra = driver.extra(version)
    if extra:
        return f'Install CuPy: pip install "gpumlp[{extra}]".'
    update = f"NVIDIA driver {driver.OLDEST_DRIVER[newest]} or newer"
    if version is not None:
        update += f" (this one supports only CUDA {_dotted(version)})"
    then = f', then CuPy: pip install "gpumlp[{driver.EXTRAS[newest]}]"' if cupy else ""
    return f"Install {update}{then}."


def _packages() -> str:
    """The installed packages that offer a module named cupy, as pip names them."""
    names = importlib.metadata.packages_distributions().get("cupy", [])
    return " ".join(sorted(set(names))) or "cupy"


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _one_line(error: Exception) -> str:
    """The line that says what happened; CuPy's ImportError is a banner that ends with it."""
    text = str(error)
    banner, _, original = text.partition("Original error:")
    said = re.findall(r".*\w.*", original or banner)
    if original and said:
        return said[0].strip()
    return f"{type(error).__name__}: {said[0].strip()}" if said else type(error).__name__


def _warn_once(message: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(message, RuntimeWarning, stacklevel=4)  # whoever called resolve


@dataclasses.dataclass(frozen=True)
class SystemReport:
    """What `gpumlp info` shows; a value is None where it is missing."""

    python: str
    platform: str
    numpy: str
    blas: str
    host: str
    cupy: str | None
    cupy_problem: str | None
    driver: str | None
    cuda: str | None
    gpus: list[str]
    auto: str
    auto_reason: str
    advice: list[str]


def found() -> SystemReport:
    """Report on Python, NumPy, CuPy, the driver and the GPUs. Never raises, and never warns."""
    version = driver.cuda_version()
    problem = gpu_problem()
    auto, reason = _auto(problem)
    cupy, cupy_problem = _cupy_version()
    return SystemReport(
        python=f"{platform.python_version()} ({sys.executable})",
        platform=platform.platform(),
        numpy=numpy.__version__,
        blas=_blas(),
        host=_host(),
        cupy=cupy,
        cupy_problem=cupy_problem,
        driver=driver.driver_version(),
        cuda=_dotted(version) if version else None,
        gpus=_gpus(),
        auto=auto,
        auto_reason=reason,
        advice=_advice(problem),
    )


def _advice(problem: Problem | None) -> list[str]:
    """Advice on what to install or set, a sentence each."""
    advice = []
    if problem:
        advice.append(f"To use a GPU: {problem.remedy}")
    if compiler.remedy():
        advice.append(f"To train faster on the CPU: {compiler.remedy()}")
    if _misses_avx512():
        advice.append(f"To multiply faster on the CPU: {_use_avx512()}")
    if importlib.util.find_spec("matplotlib") is None:
        advice.append('To draw the curves of a training: pip install "gpumlp[plot]".')
    return advice


def _auto(problem: Problem | None) -> tuple[str, str]:
    """What "auto" means and why."""
    value = os.environ.get(VARIABLE)
    if value and value != "auto":
        try:
            kind, index = parse(value)
        except ValueError as error:
            return "an error", f"{VARIABLE}: {error}"
        chosen = gpu_problem(index) if kind == "cuda" else None
        if chosen:
            return "an error", f"{VARIABLE}={value}: {chosen.cause}"
        return resolve(value), f"{VARIABLE}={value}"
    if problem:
        return "cpu", problem.cause
    return "cuda:0", "the first GPU that works"


def _cupy_version() -> tuple[str | None, str | None]:
    """CuPy's version with the CUDA it was built for, or None and why it cannot be imported."""
    try:
        import cupy

        number = cupy.cuda.runtime.runtimeGetVersion()
    except Exception as error:
        return None, _import_problem(error).cause
    return f"{cupy.__version__}, CUDA {number // 1000}.{number % 1000 // 10}", None


def _gpus() -> list[str]:
    """One line a GPU: as CuPy numbers them, or as nvidia-smi lists them where CuPy cannot."""
    try:
        import cupy

        runtime = cupy.cuda.runtime
        lines = []
        for index in range(runtime.getDeviceCount()):
            facts = runtime.getDeviceProperties(index)
            lines.append(
                f"cuda:{index} {facts['name'].decode()}, {facts['totalGlobalMem'] / 2**30:.1f} GiB,"
                f" compute capability {facts['major']}.{facts['minor']}"
            )
        return lines
    except Exception:
        return [f"{name}, {memory / 2**30:.1f} GiB" for name, memory in driver.gpus()]


def _host() -> str:
    """The kernels, or NumPy, that compute on the CPU all but the matrix products."""
    problem = compiler.problem()
    try:
        # Does it work?  This is the program of the default hidden layers.
        relu = (
            None
            if problem
            else compiler.library(host_sources.layer("float32", activations["relu"]))
        )
    except OSError as error:
        return f"an error ({_one_line(error)})"
    if relu is None:
        return f"NumPy ({compiler.problem()})"
    if compiler.is_shipped(relu):
        kernels = f"kernels from the wheel, {processor.level()}"
    else:
        kernels = f"kernels by {compiler.toolchain()}"
    threads = pool.threads()
    return f"{kernels}; {threads} thread{'s' * (threads > 1)}"


def _blas() -> str:
    """NumPy's BLAS as it was built, and as it runs where threadpoolctl can tell."""
    built = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    text = f"{built.get('name', 'unknown')} {built.get('version', '')}".strip()
    running = _running_blas()
    if "num_threads" in running:
        text += f", {running['num_threads']} threads"
    if "architecture" in running:
        text += f", {running['architecture']} kernels"
    return text


def _running_blas() -> dict:
    """threadpoolctl's description of NumPy's BLAS; empty where it is not installed."""
    try:
        import threadpoolctl
    except ImportError:
        return {}
    libraries = (lib for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas")
    return next(libraries, {})


def _misses_avx512() -> bool:
    """Whether OpenBLAS runs its kernels for AVX2 on a CPU with AVX-512: on an AMD EPYC of family 26
    they take 1.7 times as long as those for AVX-512."""
    vectors = numpy.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    older = _running_blas().get("architecture") in ("Haswell", "Zen")
    return older and any("AVX512" in name or "X86_V4" in name for name in vectors)


def _use_avx512() -> str:
    """Advice for OpenBLAS without AVX-512.  It finds AVX-512 by itself, unless it is too old."""
    chosen = os.environ.get("OPENBLAS_CORETYPE")
    if chosen:
        advice = "unset OPENBLAS_CORETYPE in the environment"
        return f"{advice}; this CPU has AVX-512, which OPENBLAS_CORETYPE={chosen} does not use."
    advice = "set OPENBLAS_CORETYPE=SkylakeX in the environment"
    return f"{advice}; this CPU has AVX-512, which OpenBLAS has not found."
