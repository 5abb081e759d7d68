"""`cupy_backends.cuda.libs.cublas`: batched GEMM over raw addresses, column-major.

cuBLAS looks at little of what it is given; here every address must lie in live memory of
the current device, for the whole extent that sizes, leading dimensions and strides imply.
"""

from __future__ import annotations

import ctypes
import operator
from typing import NamedTuple

import numpy as np

from . import memory
from .counting import record
from .errors import CUBLAS_INVALID_VALUE, CUBLAS_NOT_INITIALIZED, cublas_error
from .hardware import machine
from .streams import get_current_stream

CUBLAS_OP_N, CUBLAS_OP_T = 0, 1

_FIRST_HANDLE = 0x0B1A5000


def get_cublas_handle() -> int:
    """The handle of the current device."""
    machine.require_device()
    return _FIRST_HANDLE + machine.current_device


def _invalid_value(detail: str) -> RuntimeError:
    return cublas_error(CUBLAS_INVALID_VALUE, detail)


class _Matrices(NamedTuple):
    """`batch` column-major matrices in device memory; sizes and strides in elements."""

    name: str
    address: int
    rows: int
    columns: int
    leading: int
    stride: int
    batch: int

    def view(self, dtype: type) -> np.ndarray:
        """(batch, rows, columns), after a look at every byte's owner."""
        if self.leading < max(1, self.rows):
            detail = f"ld{self.name.lower()} = {self.leading} for {self.rows} rows"
            raise _invalid_value(detail)
        if self.stride < 0:
            raise _invalid_value(f"stride{self.name} = {self.stride}")
        shape = (self.batch, self.rows, self.columns)
        itemsize = np.dtype(dtype).itemsize
        if self.address % itemsize:
            raise _invalid_value(f"{self.name} is misaligned")
        strides = tuple(itemsize * step for step in (self.stride, 1, self.leading))
        if 0 not in shape:
            memory.find(self.address, memory.bytes_spanned(shape, itemsize, strides))
        return memory.host_view(self.address, shape, dtype, strides)

    def overlaps_itself(self) -> bool:
        """Whether two elements may share an address."""
        axes = [(self.leading, self.columns), (self.stride, self.batch)]
        reach = self.rows
        for step, length in sorted(axis for axis in axes if axis[1] > 1):
            if step < reach:
                return True
            reach += step * (length - 1)
        return False


def _number(address: int, dtype: type, name: str) -> float:
    if memory.is_device_address(address):
        raise ValueError(f"{name} is a device address; cuBLAS reads it on the host")
    number = ctypes.c_float if dtype is np.float32 else ctypes.c_double
    return dtype(number.from_address(address).value)


def _gemm(
    dtype, handle, transa, transb, m, n, k, alpha, A, lda, strideA, B, ldb, strideB, beta, C, ldc,
    strideC, batchCount,
):  # fmt: skip
    if get_current_stream().is_capturing():
        raise NotImplementedError(
            "calling cuBLAS API during stream capture is currently unsupported"
        )
    if handle != get_cublas_handle():
        raise cublas_error(CUBLAS_NOT_INITIALIZED, "not the current device's handle")
    m, n, k, batch = map(operator.index, (m, n, k, batchCount))
    if min(m, n, k, batch) < 0:
        raise _invalid_value(f"m, n, k, batchCount = {m}, {n}, {k}, {batch}")
    if {transa, transb} - {CUBLAS_OP_N, CUBLAS_OP_T}:
        raise _invalid_value(f"transa, transb = {transa!r}, {transb!r}")

    a_shape = (m, k) if transa == CUBLAS_OP_N else (k, m)
    b_shape = (k, n) if transb == CUBLAS_OP_N else (n, k)
    operands = (
        _Matrices("A", A, *a_shape, lda, strideA, batch),
        _Matrices("B", B, *b_shape, ldb, strideB, batch),
        _Matrices("C", C, m, n, ldc, strideC, batch),
    )
    a, b, c = (operand.view(dtype) for operand in operands)
    if operands[2].overlaps_itself():
        raise ValueError(f"two elements of C overlap: ldc = {ldc}, strideC = {strideC}")
    for name, other in (("A", a), ("B", b)):
        if np.shares_memory(c, other):
            raise ValueError(f"C overlaps {name}; cuBLAS would give garbage")

    alpha, beta = _number(alpha, dtype, "alpha"), _number(beta, dtype, "beta")
    if transa == CUBLAS_OP_T:
        a = a.swapaxes(1, 2)
    if transb == CUBLAS_OP_T:
        b = b.swapaxes(1, 2)
    with np.errstate(all="ignore"):
        product = alpha * (a @ b)
        # With beta = 0, C is not read: it may be fresh memory.
        c[...] = product if beta == 0 else product + beta * c
    record(gemms=1)


def sgemmStridedBatched(
    handle, transa, transb, m, n, k, alpha, A, lda, strideA, B, ldb, strideB, beta, C, ldc,
    strideC, batchCount,
):  # fmt: skip
    """C_i <- alpha op(A_i) op(B_i) + beta C_i for float32; alpha and beta are host addresses."""
    _gemm(
        np.float32, handle, transa, transb, m, n, k, alpha, A, lda, strideA, B, ldb, strideB,
        beta, C, ldc, strideC, batchCount,
    )  # fmt: skip


def dgemmStridedBatched(
    handle, transa, transb, m, n, k, alpha, A, lda, strideA, B, ldb, strideB, beta, C, ldc,
    strideC, batchCount,
):  # fmt: skip
    """C_i <- alpha op(A_i) op(B_i) + beta C_i for float64; alpha and beta are host addresses."""
    _gemm(
        np.float64, handle, transa, transb, m, n, k, alpha, A, lda, strideA, B, ldb, strideB,
        beta, C, ldc, strideC, batchCount,
    )  # fmt: skip
