"""DLPack capsules that say "CUDA": NumPy's, with the device in them changed.

So NumPy and CPU libraries refuse them as they refuse CuPy's.
"""

from __future__ import annotations

import ctypes

import numpy as np

from . import memory

CUDA = 2  # kDLCUDA
NAME = b"dltensor"  # of a capsule that nobody has consumed
KINDS = {0: "i", 1: "u", 2: "f", 5: "c", 6: "b"}  # kDLInt, kDLUInt, kDLFloat, kDLComplex, kDLBool


class _Tensor(ctypes.Structure):
    """DLTensor of dlpack.h; strides count elements."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("kind", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def _tensor(capsule: object) -> _Tensor:
    return _Tensor.from_address(_pointer_of(capsule, NAME))


def export(host: np.ndarray, device: int) -> object:
    """A capsule of `host`, said to be on CUDA device `device`."""
    capsule = host.__dlpack__()
    tensor = _tensor(capsule)
    tensor.device_type, tensor.device_id = CUDA, device
    return capsule


def receive(producer: object) -> tuple[np.ndarray, object]:
    """The memory of a device array that speaks DLPack, and what keeps it alive."""
    if producer.__dlpack_device__()[0] != CUDA:
        raise TypeError(
            "CPU arrays cannot be directly imported to CuPy. "
            "Use `cupy.array(numpy.from_dlpack(input))` instead."
        )
    capsule = producer.__dlpack__(stream=1)  # the legacy default stream
    tensor = _tensor(capsule)
    dtype = np.dtype(f"{KINDS[tensor.kind]}{tensor.bits // 8}")
    shape, strides = tuple(tensor.shape[: tensor.ndim]), None
    if tensor.strides:
        strides = tuple(step * dtype.itemsize for step in tensor.strides[: tensor.ndim])
    address = tensor.data + tensor.byte_offset
    return memory.host_view(address, shape, dtype, strides), capsule
