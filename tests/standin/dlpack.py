"""DLPack capsules that say "CUDA", made from NumPy's and turned back into NumPy's.

Only the device in the capsule changes; with it, NumPy and CPU libraries refuse the capsule
as they refuse CuPy's.
"""

from __future__ import annotations

import ctypes

import numpy as np

CPU, CUDA = 1, 2  # kDLCPU, kDLCUDA

# Where the tensor begins: behind version, context, deleter and flags; or right at the start.
TENSOR_OFFSET = {b"dltensor_versioned": 32, b"dltensor": 0}
DEVICE_OFFSET = 8  # in the tensor, behind the pointer to its data

_name_of = ctypes.pythonapi.PyCapsule_GetName
_name_of.restype, _name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def _set_device(capsule: object, kind: int, index: int) -> None:
    name = _name_of(capsule)
    tensor = _pointer_of(capsule, name) + TENSOR_OFFSET[name]
    device = (ctypes.c_int32 * 2).from_address(tensor + DEVICE_OFFSET)
    device[0], device[1] = kind, index


def export(host: np.ndarray, device: int, max_version: tuple[int, int] | None) -> object:
    """A capsule of `host`, said to be on CUDA device `device`."""
    capsule = host.__dlpack__(max_version=max_version)
    _set_device(capsule, CUDA, device)
    return capsule


class _Relabelled:
    """What NumPy takes: the same capsule, said to be on the CPU."""

    def __init__(self, capsule: object):
        _set_device(capsule, CPU, 0)
        self._capsule = capsule

    def __dlpack__(self, **options: object) -> object:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU, 0


def receive(producer: object) -> np.ndarray:
    """The memory of any device array that speaks DLPack, as a NumPy array."""
    if producer.__dlpack_device__()[0] != CUDA:
        raise TypeError(
            "CPU arrays cannot be directly imported to CuPy. "
            "Use `cupy.array(numpy.from_dlpack(input))` instead."
        )
    try:
        capsule = producer.__dlpack__(stream=1, max_version=(1, 0))
    except TypeError:  # a producer of DLPack before 1.0
        capsule = producer.__dlpack__(stream=1)
    return np.from_dlpack(_Relabelled(capsule))
