"""Modules and kernels with the interface of CuPy's RawModule and RawKernel."""

from __future__ import annotations

import ctypes
import operator
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import arguments
from .arguments import Parameter
from .compiler import SANITIZERS, BuildError, build_program, build_runtime


class LaunchError(RuntimeError):
    """The launch was impossible, or the kernel did something that it must not."""


def build(text: str, *, name: str, options=(), sanitize: str | None = None) -> Module:
    """Compile a program, or take it from the cache.

    `name` is the file name in messages. `options` are NVRTC's: -D, -U and -std count here.
    `sanitize` is "address" (with undefined behaviour), "thread", or "" for none; by default
    what GPUMLP_SIMT_SANITIZE says. A sanitized program loads only in a process that
    `simt.sanitize` has started.
    """
    sanitize = _sanitizer(sanitize)
    library = build_program(text, name, tuple(options), sanitize)
    return Module(name, library, build_runtime(sanitize))


def build_all(programs: Iterable[tuple[str, str]], *, options=(), sanitize=None) -> list[Module]:
    """Build many (name, text) at once, as many at a time as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = [
            pool.submit(build, text, name=name, options=options, sanitize=sanitize)
            for name, text in programs
        ]
        return [future.result() for future in futures]


def _sanitizer(requested: str | None) -> str | None:
    if requested is None:
        requested = os.environ.get("GPUMLP_SIMT_SANITIZE", "")
    if not requested:
        return None
    if requested not in SANITIZERS:
        raise ValueError(f"no sanitizer {requested!r}; there are {', '.join(SANITIZERS)}")
    # Loading a sanitized library elsewhere would end the process.
    symbol = {"address": "__asan_init", "thread": "__tsan_init"}[requested]
    if not hasattr(ctypes.CDLL(None), symbol):
        raise BuildError(
            f"the {requested} sanitizer is not loaded in this process; start it with "
            "simt.sanitize.run"
        )
    return requested


# ------------------------------------------------------------------ the structs of registry.h


class _Parameter(ctypes.Structure):
    _fields_ = (
        ("is_pointer", ctypes.c_int),
        ("kind", ctypes.c_int),
        ("size", ctypes.c_int),
    )


class _Kernel(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("parameter_names", ctypes.c_char_p),
        ("parameter_count", ctypes.c_int),
        ("largest_block", ctypes.c_int),
        ("parameters", ctypes.POINTER(_Parameter)),
        ("call", ctypes.c_void_p),
    )


class Module:
    """A program that is ready to run."""

    def __init__(self, name: str, library: Path, runtime: Path):
        # PyDLL keeps the interpreter's lock: the runtime runs one launch at a time.
        self._library = ctypes.PyDLL(str(library))
        self._launch = ctypes.PyDLL(str(runtime)).simt_launch
        self._launch.restype = ctypes.c_char_p
        self.name = name
        count = ctypes.c_int.in_dll(self._library, "simt_kernel_count").value
        table = (_Kernel * count).in_dll(self._library, "simt_kernels")
        self._kernels = {entry.name.decode(): entry for entry in table}

    @property
    def kernel_names(self) -> list[str]:
        return list(self._kernels)

    def get_function(self, name: str) -> Kernel:
        if name not in self._kernels:
            known = ", ".join(self._kernels) or "none"
            raise KeyError(f"{self.name} has no kernel {name!r}; it has {known}")
        return Kernel(self, self._kernels[name], self._launch)


class Kernel:
    """One kernel: `kernel((grid,), (block,), (arguments...), shared_mem=bytes)`."""

    def __init__(self, module: Module, entry: _Kernel, launch):
        self._module = module  # keeps the library loaded
        self._entry = entry
        self._launch = launch
        self.name = entry.name.decode()
        self.largest_block = entry.largest_block
        self.max_dynamic_shared_size_bytes = 48 << 10  # more may be asked for, before a launch
        names = entry.parameter_names.decode().split(",")
        self.parameters = tuple(
            Parameter(names[i], bool(raw.is_pointer), f"{chr(raw.kind)}{raw.size}")
            for i, raw in enumerate(entry.parameters[: entry.parameter_count])
        )

    def __call__(self, grid, block, args, shared_mem=0, order=None, flush_denormals=True):
        """Run the kernel to its end.

        grid, block: tuples of one to three ints. shared_mem: bytes of dynamic shared memory.
        order: 0 runs threads and blocks in ascending order, 1 in descending order, every number
        from 2 on in another random order; by default GPUMLP_SIMT_ORDER, or 0.
        flush_denormals: as -ftz=true, which CuPy always sets.
        """
        if order is None:
            order = int(os.environ.get("GPUMLP_SIMT_ORDER", "0"))
        grid, block = self._extent("grid", grid), self._extent("block", block)
        if block[0] * block[1] * block[2] > self.largest_block:
            raise LaunchError(
                f"{self.name}: a block of {tuple(block)} threads, but __launch_bounds__ allows "
                f"{self.largest_block}"
            )
        packed = arguments.pack(self.name, self.parameters, args)
        error = self._launch(
            ctypes.c_void_p(self._entry.call),
            arguments.addresses(packed),
            grid,
            block,
            ctypes.c_size_t(operator.index(shared_mem)),
            ctypes.c_size_t(self.max_dynamic_shared_size_bytes),
            ctypes.c_int(order),
            ctypes.c_int(flush_denormals),
        )
        if error is not None:
            raise LaunchError(f"{self.name}: {error.decode()}")

    def _extent(self, what: str, extent) -> ctypes.Array:
        if not isinstance(extent, tuple) or not 1 <= len(extent) <= 3:
            raise LaunchError(f"{self.name}: {what} is a tuple of 1 to 3 ints, not {extent!r}")
        sizes = [operator.index(size) for size in extent] + [1] * (3 - len(extent))
        if min(sizes) < 1 or max(sizes) >= 2**31:
            raise LaunchError(f"{self.name}: {what} {extent} is impossible")
        return (ctypes.c_uint * 3)(*sizes)
