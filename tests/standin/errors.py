"""The exceptions of CUDA and the memory pool, with CuPy's texts."""

from __future__ import annotations

INVALID_VALUE = 1
OUT_OF_MEMORY = 2
INSUFFICIENT_DRIVER = 35
NO_DEVICE = 100
INVALID_DEVICE = 101
INVALID_HANDLE = 400
ILLEGAL_STATE = 401
ILLEGAL_ADDRESS = 700
CAPTURE_UNSUPPORTED = 900
CAPTURE_INVALIDATED = 901

RUNTIME_ERRORS = {
    INVALID_VALUE: "cudaErrorInvalidValue: invalid argument",
    OUT_OF_MEMORY: "cudaErrorMemoryAllocation: out of memory",
    INSUFFICIENT_DRIVER: "cudaErrorInsufficientDriver: "
    "CUDA driver version is insufficient for CUDA runtime version",
    NO_DEVICE: "cudaErrorNoDevice: no CUDA-capable device is detected",
    INVALID_DEVICE: "cudaErrorInvalidDevice: invalid device ordinal",
    INVALID_HANDLE: "cudaErrorInvalidResourceHandle: invalid resource handle",
    ILLEGAL_STATE: "cudaErrorIllegalState: the operation cannot be performed in the present state",
    ILLEGAL_ADDRESS: "cudaErrorIllegalAddress: an illegal memory access was encountered",
    CAPTURE_UNSUPPORTED: "cudaErrorStreamCaptureUnsupported: "
    "operation not permitted when stream is capturing",
    CAPTURE_INVALIDATED: "cudaErrorStreamCaptureInvalidated: "
    "operation failed due to a previous error during capture",
}


class CUDARuntimeError(RuntimeError):
    def __init__(self, status: int):
        self.status = status
        super().__init__(RUNTIME_ERRORS.get(status, "cudaErrorUnknown: unknown error"))


class CUDADriverError(RuntimeError):
    """Of the driver's errors, the one for a launch that cannot be."""

    def __init__(self, detail: str):
        super().__init__(f"CUDA_ERROR_INVALID_VALUE: invalid argument ({detail})")


class OutOfMemoryError(MemoryError):
    def __init__(self, size: int, total: int, limit: int = 0):
        text = f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes"
        super().__init__(text + (f", limit set to: {limit:,} bytes)." if limit else ")."))


def runtime_error(status: int, detail: str) -> CUDARuntimeError:
    """CUDA's error with what the stand-in knows, and CUDA would not say, behind its text."""
    error = CUDARuntimeError(status)
    error.args = (f"{error} ({detail})",)
    return error
