"""What a GEMM works on: matrices at raw addresses, column-major, and numbers of fewer bits.

BLAS looks at little of what it is given; here every address must lie in live memory of the
current device, for the whole extent that sizes, leading dimensions and strides imply.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import memory
from .hardware import machine


def get_cublas_handle() -> int:
    """CuPy's handle of cuBLAS for the current device, with which nothing is multiplied."""
    machine.require_device()
    return 0x0B1A5000 + machine.current_device


class Matrices(NamedTuple):
    """`batch` column-major matrices in device memory; sizes and strides in elements."""

    name: str
    address: int
    rows: int
    columns: int
    leading: int
    stride: int
    batch: int
    dtype: type

    def _strides(self) -> tuple[int, int, int]:
        itemsize = np.dtype(self.dtype).itemsize
        return itemsize * self.stride, itemsize, itemsize * self.leading

    def block(self) -> memory.Memory:
        """The live memory that holds them all."""
        shape = self.batch, self.rows, self.columns
        size = memory.bytes_spanned(shape, np.dtype(self.dtype).itemsize, self._strides())
        return memory.find(self.address, size)

    def view(self) -> np.ndarray:
        """(batch, rows, columns), after a look at every byte's owner."""
        if self.address % np.dtype(self.dtype).itemsize:
            raise ValueError(f"{self.name} is misaligned")
        self.block()
        shape = self.batch, self.rows, self.columns
        return memory.host_view(self.address, shape, self.dtype, self._strides())

    def refuse_overlaps(self, written: np.ndarray, **read: np.ndarray) -> None:
        """Nothing may be written twice, or be written and read."""
        if self._overlaps_itself():
            raise ValueError(f"two elements of {self.name} overlap")
        for name, other in read.items():
            if np.shares_memory(written, other):
                raise ValueError(f"{self.name} overlaps {name}; the product would be garbage")

    def _overlaps_itself(self) -> bool:
        """Whether two elements may share an address."""
        axes = [(self.leading, self.columns), (self.stride, self.batch)]
        reach = self.rows
        for step, length in sorted(axis for axis in axes if axis[1] > 1):
            if step < reach:
                return True
            reach += step * (length - 1)
        return False


def host_number(address: int, dtype: type):
    """alpha or beta."""
    if memory.is_device_address(address):
        raise ValueError("alpha or beta is a device address; it is read on the host")
    return dtype(np.ctypeslib.as_ctypes_type(dtype).from_address(address).value)


def from_bf16(bits: np.ndarray) -> np.ndarray:
    """float32 from the bits of bfloat16 in uint16: the upper half of float32's."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bf16(numbers: np.ndarray) -> np.ndarray:
    """The bits of the nearest bfloat16, of two the even one; NaN stays NaN."""
    bits = (_nearest(numbers, 16) >> 16).astype(np.uint16)
    bits[np.isnan(numbers)] = 0x7FFF
    return bits


def to_tf32(numbers: np.ndarray) -> np.ndarray:
    """float32 with a mantissa of 10 bits."""
    return np.where(np.isfinite(numbers), _nearest(numbers, 13).view(np.float32), numbers)


def _nearest(numbers: np.ndarray, dropped: int) -> np.ndarray:
    """The bits of float32, rounded to even so that the last ones are 0."""
    bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    odd = (bits >> np.uint32(dropped)) & np.uint32(1)
    half = np.uint32((1 << (dropped - 1)) - 1)
    return (bits + half + odd) & ~np.uint32((1 << dropped) - 1)
