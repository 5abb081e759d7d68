"""RawModule and its kernels, which the SIMT shim runs; it also checks every argument."""

from __future__ import annotations

import numpy as np

from tests import simt
from tests.simt import arguments

from . import memory
from .array import ndarray
from .counting import record_launch, record_program
from .errors import CUDADriverError
from .hardware import ATTRIBUTES, check_current, machine
from .streams import get_current_stream, submit

MAX_GRID = (2**31 - 1, 65535, 65535)


class RawModule:
    """CUDA text, built when its first kernel is asked for."""

    def __init__(self, *, code: str | None = None, options: tuple[str, ...] = ()):
        if not isinstance(code, str):
            raise TypeError(f"code must be a str, not {type(code).__name__}")
        if not isinstance(options, tuple):
            raise TypeError(f"options must be a tuple, not {type(options).__name__}")
        self.code, self.options = code, options
        self._built: simt.Module | None = None

    def get_function(self, name: str) -> RawKernel:
        machine.require_device()
        if self._built is None:
            self._built = simt.build(self.code, name="module.cu", options=self.options)
            record_program("RawModule", hash(self.code))
        return RawKernel(self._built.get_function(name))


class RawKernel:
    def __init__(self, shim: simt.Kernel):
        self._shim = shim
        self._carveout = -1

    @property
    def name(self) -> str:
        return self._shim.name

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._shim.max_dynamic_shared_size_bytes

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        if size > ATTRIBUTES["MaxSharedMemoryPerBlockOptin"]:
            raise CUDADriverError(f"{self.name}: {size} bytes of shared memory")
        self._shim.max_dynamic_shared_size_bytes = size

    @property
    def preferred_shared_memory_carveout(self) -> int:
        """Per cent of an SM's shared memory; -1 leaves it to the driver."""
        return self._carveout

    @preferred_shared_memory_carveout.setter
    def preferred_shared_memory_carveout(self, percent: int) -> None:
        if not isinstance(percent, int) or not -1 <= percent <= 100:
            raise CUDADriverError(f"{self.name}: {percent!r} per cent of shared memory")
        self._carveout = percent

    def __call__(self, grid, block, args, *, shared_mem: int = 0) -> None:
        """Arrays go as addresses, a Python int as int64, a float as float64, the rest as it is."""
        shim = self._shim
        grid, block = _three(grid, "grid"), _three(block, "block")
        if any(count > limit for count, limit in zip(grid, MAX_GRID, strict=True)):
            raise CUDADriverError(f"{shim.name}: a grid of {grid} blocks")
        blocks, passed = [], []
        for argument in args:
            if isinstance(argument, ndarray):
                check_current(argument._memory.device)
                blocks.append(argument._memory)
                argument = argument._host
            elif isinstance(argument, np.ndarray):
                raise TypeError(f"{shim.name}: a NumPy array as an argument of a kernel")
            passed.append(argument)
        blocks += _behind_addresses(shim, args)
        if get_current_stream().is_capturing():
            arguments.pack(shim.name, shim.parameters, passed)  # fail now, not at the launch

        # Nothing in here may hold on to the device arrays: a graph does not, either.
        def run() -> None:
            shim(grid, block, tuple(passed), shared_mem=shared_mem)
            record_launch(shim.name)

        submit(run, blocks)


def _three(counts, what: str) -> tuple[int, int, int]:
    """CuPy fills up to three dimensions with 1, and makes 1 of a 0."""
    if not isinstance(counts, tuple) or not 1 <= len(counts) <= 3:
        raise TypeError(f"{what} must be a tuple of 1 to 3 ints, not {counts!r}")
    for count in counts:
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)):
            raise TypeError(f"{what} must hold ints, not {count!r}")
    return tuple(max(1, int(count)) for count in (*counts, 1, 1)[:3])


def _behind_addresses(shim: simt.Kernel, args) -> list[memory.Memory]:
    """The live memory behind the pointers that are passed as numbers; 0 is no pointer."""
    pointers = [
        int(argument)
        for parameter, argument in zip(shim.parameters, args, strict=False)
        if parameter.is_pointer and isinstance(argument, np.uint64) and argument
    ]
    return [memory.find(address, 1) for address in pointers]
