"""The stand-in's `cupy.ndarray`: host memory behind the walls that device memory has."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

import numpy as np

from . import dlpack, memory, operations, ordering, streams
from .counting import record
from .hardware import Device
from .streams import Stream, get_current_stream, refuse_while_capturing

KINDS = "biufc"  # of dtypes that device memory can hold


class Flags(NamedTuple):
    c_contiguous: bool
    f_contiguous: bool
    owndata: bool


class ndarray(operations.DeviceArray):
    """An array in simulated device memory; a fresh one is poisoned.

    It never turns into a NumPy array by itself, nor a NumPy array into it: `get`, `item`,
    `asnumpy`, `set` and `asarray` cross over, and are counted.
    """

    __slots__ = ("__weakref__",)
    __module__ = "cupy"
    __array_priority__ = 100
    __hash__ = None

    def __init__(self, *args: object, **kwargs: object):
        raise NotImplementedError("arrays are made with cupy.empty and its like")

    @classmethod
    def _empty(cls, shape: int | tuple[int, ...], dtype, order: str = "C") -> ndarray:
        """Poisoned memory of its own."""
        lengths = shape if isinstance(shape, (tuple, list)) else (shape,)
        lengths = tuple(operator.index(length) for length in lengths)
        dtype = np.dtype(dtype)
        if dtype.kind not in KINDS or not dtype.isnative:  # CuPy takes the latter, and computes
            raise ValueError(f"Unsupported dtype {dtype}")  # with its bytes in the wrong order
        self = cls.__new__(cls)
        self._memory = memory.allocate(math.prod(lengths) * dtype.itemsize)
        self._host = self._memory.host(lengths, dtype, order)
        self._base = None
        return self

    @classmethod
    def _from_result(cls, result: np.ndarray) -> ndarray:
        """A new array with the numbers and the memory order of a NumPy result."""
        columns_first = result.flags.f_contiguous and not result.flags.c_contiguous
        self = cls._empty(result.shape, result.dtype, "F" if columns_first else "C")
        self._host[...] = result
        return self

    @classmethod
    def _adopt(cls, host: np.ndarray, owner: object) -> ndarray:
        """An array on memory that somebody else shares with us."""
        self = cls.__new__(cls)
        start, end = np.lib.array_utils.byte_bounds(host)
        self._host, self._base = host, None
        self._memory = memory.adopt(start, end - start, owner)
        return self

    def _view(self, host: np.ndarray) -> ndarray:
        view = ndarray.__new__(ndarray)
        view._host, view._memory = host, self._memory
        view._base = self if self._base is None else self._base
        return view

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"the stand-in's ndarray has no {name!r}; "
            "what the library needs of CuPy is listed in tests/standin"
        )

    def __reduce__(self):
        """By way of the host, to the device that is then current."""
        from .functions import array

        return array, (self.get(),)

    def __copy__(self) -> ndarray:
        with self.device:
            return self.copy()

    def __deepcopy__(self, memo: dict) -> ndarray:
        with self.device:
            return self.copy()

    # ------------------------------------------------------------------ what it is

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    base = property(lambda self: self._base)

    @property
    def flags(self) -> Flags:
        flags = self._host.flags
        return Flags(flags.c_contiguous, flags.f_contiguous, self._base is None)

    @property
    def data(self) -> memory.MemoryPointer:
        return memory.MemoryPointer(self._memory, self._host.ctypes.data)

    @property
    def device(self) -> Device:
        return Device(self._memory.device)

    def __len__(self) -> int:
        return len(self._host)

    def __repr__(self) -> str:
        return f"device({self._host!r})"  # for messages of failed tests: not counted as a copy

    # ------------------------------------------------------------------ to and from the host

    def get(
        self, stream: Stream | None = None, order: str = "C", out: np.ndarray | None = None
    ) -> np.ndarray:
        refuse_while_capturing("a copy to the host")
        source = self if self._host.flags.forc else self.copy()  # as CuPy does, on the device
        record(d2h=1, synchronisations=1)
        streams.read_by_host([source._memory])
        if out is None:
            return np.array(source._host, order=order)
        if out.dtype != self.dtype or out.shape != self.shape:
            raise ValueError(f"out is {out.dtype} {out.shape}, not {self.dtype} {self.shape}")
        out[...] = source._host
        return out

    def set(self, arr: np.ndarray, stream: Stream | None = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if arr.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not self._host.flags.forc:
            raise RuntimeError("Cannot set to non-contiguous array")
        refuse_while_capturing("a copy from the host")
        record(h2d=1)
        target, order = self._host, "C" if self._host.flags.c_contiguous else "F"
        source = np.asarray(arr, order=order)  # perhaps a copy, which is gone when this returns

        def write(sent: bytes) -> None:
            np.copyto(target, np.ndarray(target.shape, target.dtype, sent, order=order))

        pinned = memory.is_pinned(source.ctypes.data, source.nbytes)
        ordering.send(stream or get_current_stream(), self._memory, source, pinned, write)

    def item(self):
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self.get().item()

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __bool__(self) -> bool:
        if self.size > 1:
            raise ValueError(
                "The truth value of an array with more than one element is ambiguous. "
                "Use a.any() or a.all()"
            )
        return bool(self.get())

    def __array__(self, dtype=None) -> NoReturn:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    # ------------------------------------------------------------------ to other libraries

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "data": (self.data.ptr, False),
            "strides": None if self._host.flags.c_contiguous else self.strides,
            "stream": get_current_stream().ptr or 1,  # 1 is the default stream
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self._memory.device

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("the stand-in shares its memory, and on its own device alone")
        return dlpack.export(self._host, self._memory.device)

    # ------------------------------------------------------------------ views

    def __getitem__(self, key) -> ndarray:
        return self._view(self._host[_basic_index(key)])

    def __setitem__(self, key, value) -> None:
        if isinstance(key, ndarray) and key.dtype == bool and key.shape == self.shape:
            operations.fill(self, value, where=key)  # a number under a mask: CuPy need not wait
            return
        target = self[key]
        if isinstance(value, ndarray):
            operations.copy(target, value)
        else:
            operations.fill(target, value)

    def __iter__(self) -> Iterator[ndarray]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[index] for index in range(len(self)))

    @property
    def T(self) -> ndarray:
        return self._view(self._host.T)

    def transpose(self, *axes) -> ndarray:
        return self._view(self._host.transpose(*axes))

    def squeeze(self, axis=None) -> ndarray:
        return self._view(self._host.squeeze(axis))

    def view(self, dtype=None) -> ndarray:
        return self._view(self._host.view() if dtype is None else self._host.view(dtype))

    def reshape(self, *shape) -> ndarray:
        """A view where the strides permit; otherwise a copy, which is counted."""
        reshaped = self._host.reshape(*shape)
        if np.may_share_memory(reshaped, self._host) or self.size == 0:
            return self._view(reshaped)
        return self.copy().reshape(*shape)

    def ravel(self) -> ndarray:
        return self.reshape(-1)

    # ------------------------------------------------------------------ copies

    def copy(self) -> ndarray:
        result = ndarray._empty(self.shape, self.dtype)
        operations.copy(result, self)
        return result

    def astype(self, dtype, *, copy: bool = True) -> ndarray:
        if self.dtype == dtype:
            return self.copy() if copy else self
        return operations.compute(_cast, self, dtype=dtype)

    def sort(self, axis=-1) -> None:
        operations.sort(self, axis)

    def fill(self, value) -> None:
        operations.fill(self, value)


def _cast(host: np.ndarray, dtype) -> np.ndarray:
    return host.astype(dtype)


def _basic_index(key) -> tuple:
    """The index, if it makes a view; the 0-d result of integers alone is a view too."""
    parts = key if isinstance(key, tuple) else (key,)
    checked = []
    for part in parts:
        if isinstance(part, (bool, np.bool_, list, np.ndarray, ndarray)):
            raise NotImplementedError(
                f"an index of {type(part).__name__}: CuPy copies it or waits for it; "
                "use cupy.take or cupy.where"
            )
        basic = part is None or part is Ellipsis or isinstance(part, slice)
        checked.append(part if basic else operator.index(part))
    if not any(part is Ellipsis for part in checked):
        checked.append(Ellipsis)
    return tuple(checked)
