"""Checks and packs the arguments of a launch, by the rules of CuPy's RawKernel made strict.

CuPy passes a NumPy scalar as it is, a Python int as int64, a float as float64, a bool as bool and
an array as its address, and never looks at the kernel's parameters. Here each must be exactly
what the parameter is.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

C_NAMES = {
    "f4": "float",
    "f8": "double",
    "b1": "bool",
    "i1": "char",
    "i2": "short",
    "i4": "int",
    "i8": "long long",
    "u1": "unsigned char",
    "u2": "unsigned short",
    "u4": "unsigned",
    "u8": "unsigned long long",
}


class ArgumentError(TypeError):
    """An argument of a launch is not what the kernel's parameter is."""


@dataclass(frozen=True)
class Parameter:
    name: str
    is_pointer: bool
    code: str  # NumPy's for the value, or for what the pointer points to: "f4"; "V16" for structs

    def __str__(self) -> str:
        c_name = C_NAMES.get(self.code, f"a struct of {self.code[1:]} bytes")
        if self.code == "V0":
            c_name = "void"
        return c_name + "*" * self.is_pointer

    @property
    def any_element(self) -> bool:
        return self.code[0] == "V"


def pack(kernel: str, parameters: Sequence[Parameter], arguments: Sequence) -> list[np.ndarray]:
    """One single-element array for each argument, which holds the bytes that the kernel gets."""
    if not isinstance(arguments, tuple | list):
        raise ArgumentError(f"{kernel}: the arguments are a tuple, not {_describe(arguments)}")
    if len(arguments) != len(parameters):
        names = ", ".join(parameter.name for parameter in parameters)
        raise ArgumentError(
            f"{kernel}: {len(arguments)} arguments for {len(parameters)} parameters ({names})"
        )
    packed = []
    for number, (parameter, argument) in enumerate(zip(parameters, arguments, strict=True)):
        try:
            value = _pack_pointer if parameter.is_pointer else _pack_value
            packed.append(np.array([value(parameter, argument)]))
        except ArgumentError as error:
            raise ArgumentError(
                f"{kernel}: argument {number} ({parameter.name}): {error}"
            ) from None
    return packed


def addresses(packed: list[np.ndarray]) -> ctypes.Array:
    state_buffers = (ctypes.c_void_p * max(1, len(packed)))()
    for number, value in enumerate(packed):
        state_buffers[number] = value.ctypes.data
    return state_buffers


def _pack_pointer(parameter: Parameter, argument) -> np.uint64:
    if isinstance(argument, np.uint64):
        return argument
    if not isinstance(argument, np.ndarray):
        raise ArgumentError(
            f"the parameter is {parameter}, the argument {_describe(argument)}; pass an array, "
            "or an address as np.uint64"
        )
    if not parameter.any_element and argument.dtype != np.dtype(parameter.code):
        raise ArgumentError(f"the parameter is {parameter}, the array {argument.dtype}")
    check_layout(argument)
    return np.uint64(argument.ctypes.data)


def _pack_value(parameter: Parameter, argument) -> np.generic:
    value = _as_cupy_passes(argument)
    if value is None:
        raise ArgumentError(f"the parameter is {parameter}, the argument {_describe(argument)}")
    code = "V" + str(value.dtype.itemsize) if value.dtype.kind == "V" else value.dtype.str[1:]
    if code != parameter.code:
        raise ArgumentError(
            f"the parameter is {parameter}, the argument {_describe(argument)}, which is passed "
            f"as {C_NAMES.get(code, code)}"
        )
    return value


def _as_cupy_passes(argument) -> np.generic | None:
    if isinstance(argument, np.generic):
        return argument
    if isinstance(argument, bool):
        return np.bool_(argument)
    if isinstance(argument, int):
        return np.int64(argument)
    if isinstance(argument, float):
        return np.float64(argument)
    return None


def check_layout(array: np.ndarray) -> None:
    """Refuse an array that is not C-contiguous in all but its leading axis."""
    expected = array.itemsize
    for axis in range(array.ndim - 1, -1, -1):
        size, stride = array.shape[axis], array.strides[axis]
        leading_of_wider_rows = axis == 0 and stride >= expected and stride % array.itemsize == 0
        if size > 1 and array.size and stride != expected and not leading_of_wider_rows:
            raise ArgumentError(
                f"an array of shape {array.shape} with strides {array.strides} is not contiguous "
                "in all but its leading axis"
            )
        expected *= size


def _describe(argument) -> str:
    if isinstance(argument, np.ndarray):
        return f"an array of {argument.dtype}"
    if isinstance(argument, np.generic):
        return f"np.{type(argument).__name__}"
    return "None" if argument is None else f"a Python {type(argument).__name__}"
