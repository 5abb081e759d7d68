"""RawModule and RawKernel, with CuPy's rules for arguments; the SIMT shim runs the kernels."""

from __future__ import annotations

import math

import numpy as np

from . import errors
from .array import ndarray
from .counting import record_launch
from .hardware import check_current, getDeviceProperties, machine
from .streams import submit

MAX_THREADS = 1024
MAX_GRID = (2**31 - 1, 65535, 65535)


class RawModule:
    """CUDA text, built when its first kernel is asked for."""

    def __init__(self, *, code: str | None = None, options: tuple[str, ...] = ()):
        if not isinstance(code, str):
            raise TypeError(f"code must be a str, not {type(code).__name__}")
        if not isinstance(options, tuple):
            raise TypeError(
                "Argument 'options' has incorrect type "
                f"(expected tuple, got {type(options).__name__})"
            )
        self.code, self.options = code, options
        self._built = None

    def get_function(self, name: str) -> RawKernel:
        machine.require_device()
        if self._built is None:
            from tests import simt

            self._built = simt.build(self.code, name="module", options=self.options)
        return RawKernel(name, self._built.get_function(name))


class RawKernel:
    def __init__(self, name: str, shim):
        self.name = name
        self._shim = shim
        self._max_dynamic = 48 << 10

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._max_dynamic

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        limit = getDeviceProperties(machine.current_device)["sharedMemPerBlockOptin"]
        if size > limit:
            raise errors.CUDADriverError(f"{self.name}: {size} of {limit} bytes of shared memory")
        self._max_dynamic = size

    def __call__(self, grid, block, args, *, shared_mem: int = 0) -> None:
        grid, block = self._three(grid, "grid"), self._three(block, "block")
        if math.prod(block) > MAX_THREADS:
            raise errors.CUDADriverError(f"{self.name}: a block of {math.prod(block)} threads")
        if any(count > limit for count, limit in zip(grid, MAX_GRID, strict=True)):
            raise errors.CUDADriverError(f"{self.name}: a grid of {grid} blocks")
        if shared_mem > self._max_dynamic:
            raise errors.CUDADriverError(
                f"{self.name}: {shared_mem} bytes of dynamic shared memory; "
                f"max_dynamic_shared_size_bytes is {self._max_dynamic}"
            )
        arrays = [argument for argument in args if isinstance(argument, ndarray)]
        converted = tuple(self._argument(i, argument) for i, argument in enumerate(args))
        # Nothing here may hold on to the device arrays: a graph does not, either.
        name, shim = self.name, self._shim

        def run() -> None:
            shim(grid, block, converted, shared_mem=shared_mem)
            record_launch(name)

        submit(run, [array._memory for array in arrays])

    def _three(self, counts, what: str) -> tuple[int, int, int]:
        """CuPy fills up to three dimensions with 1, and makes 1 of a 0."""
        if not isinstance(counts, tuple) or not 1 <= len(counts) <= 3:
            raise TypeError(f"{self.name}: {what} must be a tuple of 1 to 3 ints, not {counts!r}")
        for count in counts:
            if isinstance(count, bool) or not isinstance(count, (int, np.integer)):
                raise TypeError(f"{self.name}: {what} must hold ints, not {count!r}")
        return tuple(max(1, int(count)) for count in (*counts, 1, 1)[:3])

    def _argument(self, position: int, argument):
        """What CuPy passes: Python's int as int64, its float as float64, the rest as it is."""
        where = f"{self.name}, argument {position}"
        if isinstance(argument, ndarray):
            check_current(argument._memory.device)
            _check_rows(argument._host, where)
            return argument._host
        if isinstance(argument, np.generic):
            return argument
        if isinstance(argument, bool):
            return np.bool_(argument)
        if isinstance(argument, int):
            return np.int64(argument)
        if isinstance(argument, float):
            return np.float64(argument)
        raise TypeError(f"{where}: Unsupported type {type(argument)}")


def _check_rows(host: np.ndarray, where: str) -> None:
    """CuPy passes the bare pointer: only the leading axis may have a stride of its own."""
    if host.flags.c_contiguous or host.size == 0:
        return
    if not host[:1].flags.c_contiguous or host.strides[0] < 0:
        raise ValueError(
            f"{where}: shape {host.shape}, strides {host.strides} is not contiguous in all "
            "but its leading axis, and the kernel does not see the strides"
        )
