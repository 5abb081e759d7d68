"""The module objects that take CuPy's place in sys.modules, and how they get there."""

from __future__ import annotations

import functools
import importlib.machinery
import sys
import types

import pytest

from gpumlp.backend.cuda import cublaslt

from . import array, blas, errors, functions, hardware, kernels, memory, ordering, pool, streams
from . import cublaslt as lt
from .counting import Counters, counters

VERSION = "14.2.0"
ROOTS = ("cupy", "cupy_backends")

_installations: list[pytest.MonkeyPatch] = []  # what uninstall() undoes, the last one first


def _contents() -> dict[str, dict[str, object]]:
    """Every module that the stand-in offers, and what is in it."""
    runtime = {
        "getDevice": hardware.getDevice,
        "getDeviceCount": hardware.getDeviceCount,
        "getDeviceProperties": hardware.getDeviceProperties,
        "memGetInfo": hardware.memGetInfo,
        "driverGetVersion": hardware.driverGetVersion,
        "runtimeGetVersion": hardware.runtimeGetVersion,
        "CUDARuntimeError": errors.CUDARuntimeError,
    }
    return {
        "cupy": {
            "__version__": VERSION,
            "ndarray": array.ndarray,
            "RawModule": kernels.RawModule,
            "get_default_memory_pool": pool.get_default_memory_pool,
            **functions.table(),
        },
        "cupy.cuda": {
            "Device": hardware.Device,
            "Stream": streams.Stream,
            "Event": streams.Event,
            "Graph": streams.Graph,
            "alloc_pinned_memory": memory.alloc_pinned_memory,
            "get_current_stream": streams.get_current_stream,
            "get_elapsed_time": streams.get_elapsed_time,
        },
        "cupy.cuda.runtime": runtime,
        "cupy.cuda.nvrtc": {"getVersion": hardware.nvrtcGetVersion},
        "cupy.cuda.device": {
            "Device": hardware.Device,
            "get_cublas_handle": blas.get_cublas_handle,
        },
        "cupy.cuda.pinned_memory": {"is_memory_pinned": memory.is_memory_pinned},
        "cupy.cuda.memory": {
            "MemoryPool": pool.MemoryPool,
            "OutOfMemoryError": errors.OutOfMemoryError,
        },
    }


def build() -> dict[str, types.ModuleType]:
    """Fresh module objects by their names, each an attribute of its parent."""
    modules = {}
    for name, contents in _contents().items():
        module = types.ModuleType(name, "Part of the stand-in for CuPy.")
        module.__spec__ = importlib.machinery.ModuleSpec(name, loader=None)
        vars(module).update(contents)
        module.__getattr__ = _refusal(name)
        modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    return modules


def _refusal(module: str):
    def refuse(name: str):
        raise AttributeError(
            f"the stand-in has no {module}.{name}; what the library may use of CuPy is listed "
            "in tests/standin/allowed.py, functions.py and modules.py"
        )

    return refuse


class _BrokenCuPy:
    """An import hook: importing CuPy raises `error`."""

    def __init__(self, error: ImportError):
        self._error = error

    def find_spec(self, name: str, path=None, target=None):
        if name in ROOTS:
            raise self._error


def install(
    monkeypatch: pytest.MonkeyPatch | None = None,
    *,
    error: int | ImportError | None = None,
    **fields: object,
) -> types.ModuleType | None:
    """Put the stand-in in CuPy's place, on a fresh machine, and return its module `cupy`.

    With `monkeypatch`, the end of the test puts back what was there; otherwise `uninstall`.
    What was there may be the stand-in, too: its machine comes back with it.
    `fields` are those of hardware.Machine: devices=2, memory=4096, driver_version=12040, ...
    `error` is a status that every call of the CUDA runtime fails with, or an ImportError that
    `import cupy` ends with; then there is no module to return.
    """
    if monkeypatch is None:
        monkeypatch = pytest.MonkeyPatch()
        _installations.append(monkeypatch)
    broken = isinstance(error, ImportError)
    fresh_machine = hardware.Machine(error=None if broken else error, **fields)
    for state, fresh in ((hardware.machine, fresh_machine), (counters, Counters())):
        for name, value in vars(fresh).items():
            monkeypatch.setattr(state, name, value)
    monkeypatch.setattr(streams, "_current", {})
    monkeypatch.setattr(ordering, "awaited", {})
    monkeypatch.setattr(ordering, "copies", [])
    library = cublaslt.declare(lt.library)
    monkeypatch.setattr(cublaslt, "library", lambda: library)
    monkeypatch.setattr(cublaslt, "handle", functools.cache(cublaslt.handle.__wrapped__))
    monkeypatch.setattr(cublaslt, "plan", functools.cache(cublaslt.plan.__wrapped__))

    modules = {} if broken else build()
    for name in [name for name in sys.modules if name.partition(".")[0] in ROOTS]:
        monkeypatch.delitem(sys.modules, name)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    if broken:
        monkeypatch.setattr(sys, "meta_path", [_BrokenCuPy(error), *sys.meta_path])
    return modules.get("cupy")


def uninstall() -> None:
    """Undo the last `install()` that is not undone."""
    if _installations:
        _installations.pop().undo()
