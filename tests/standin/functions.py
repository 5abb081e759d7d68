"""The functions of the module `cupy`, with CuPy's argument names.

CuPy has more arguments than these; a call that uses one of them fails here.
"""

from __future__ import annotations

import types

import numpy as np

from . import allowed, dlpack, memory, operations
from .array import ndarray
from .counting import record, record_program
from .streams import Stream, refuse_while_capturing

# ---------------------------------------------------------------------- creation


def empty(shape, dtype=float, order="C"):
    return ndarray._empty(shape, dtype, order)


def zeros(shape, dtype=float, order="C"):
    result = ndarray._empty(shape, dtype, order)
    operations.clear(result)
    return result


def ones(shape, dtype=float, order="C"):
    return full(shape, 1, dtype, order)


def full(shape, fill_value, dtype=None, order="C"):
    dtype = np.asarray(fill_value).dtype if dtype is None else dtype
    result = ndarray._empty(shape, dtype, order)
    result.fill(fill_value)
    return result


def empty_like(prototype, dtype=None):
    return empty(prototype.shape, dtype or prototype.dtype)


def zeros_like(a, dtype=None):
    return zeros(a.shape, dtype or a.dtype)


def ones_like(a, dtype=None):
    return ones(a.shape, dtype or a.dtype)


def full_like(a, fill_value, dtype=None):
    return full(a.shape, fill_value, dtype or a.dtype)


def arange(start, stop=None, step=1, dtype=None):
    numbers = np.arange(start, dtype=dtype) if stop is None else np.arange(start, stop, step, dtype)
    record(elementwise=1)
    record_program("arange", str(numbers.dtype))
    return ndarray._from_result(numbers)


# ---------------------------------------------------------------------- from one side to the other


def asarray(a, dtype=None):
    return array(a, dtype, copy=False)


def array(obj, dtype=None, copy=True):
    """A copy from the host, a view of somebody else's device array, or `obj` itself."""
    if not isinstance(obj, ndarray) and hasattr(obj, "__cuda_array_interface__"):
        obj = _from_cuda_array_interface(obj)
    if isinstance(obj, ndarray):
        return obj.astype(obj.dtype if dtype is None else dtype, copy=copy)
    refuse_while_capturing("a copy from the host")
    columns_first = isinstance(obj, np.ndarray) and obj.flags.fnc  # stays so
    host = np.asarray(obj, dtype, order="F" if columns_first else "C")
    host = host.astype(host.dtype.newbyteorder("="), copy=False)
    if memory.is_pinned(host.ctypes.data, host.nbytes):
        result = ndarray._empty(host.shape, host.dtype, "F" if columns_first else "C")
        result.set(host)  # which may be overwritten before it is read
        return result
    result = ndarray._from_result(host)
    record(h2d=1, staged_bytes=host.nbytes)
    return result


def ascontiguousarray(a, dtype=None):
    if not isinstance(a, ndarray):
        return asarray(a, dtype)
    converted = a.astype(a.dtype if dtype is None else dtype, copy=False)
    return converted if converted.flags.c_contiguous else converted.copy()


def asnumpy(a, stream: Stream | None = None, order="C", out=None):
    """Of a NumPy array that is not in that order it is a copy, as in CuPy."""
    if isinstance(a, ndarray):
        return a.get(stream, order, out)
    host = np.asarray(a, order=order)
    if out is None:
        return host
    out[...] = host
    return out


def from_dlpack(array):
    return ndarray._adopt(*dlpack.receive(array))


def _from_cuda_array_interface(producer) -> ndarray:
    interface = producer.__cuda_array_interface__
    shape, strides = interface["shape"], interface.get("strides")
    host = memory.host_view(interface["data"][0], shape, interface["typestr"], strides)
    return ndarray._adopt(host, producer)


def copyto(dst, src, casting="same_kind", where=None):
    if isinstance(src, ndarray):
        if not np.can_cast(src.dtype, dst.dtype, casting):
            raise TypeError(f"Cannot cast {src.dtype} to {dst.dtype} in {casting} casting mode")
        operations.copy(dst, src, where)
    else:
        operations.fill(dst, src, where)


# ---------------------------------------------------------------------- views


def broadcast_to(array, shape):
    return _view(np.broadcast_to, array, shape)


def expand_dims(a, axis):
    return _view(np.expand_dims, a, axis)


def moveaxis(a, source, destination):
    return _view(np.moveaxis, a, source, destination)


def _view(function, a, *args):
    host = function(operations.host_operand(a), *args)
    return a._view(host)


# ---------------------------------------------------------------------- the rest


def where(condition, x, y):
    return operations.compute(np.where, condition, x, y)


def flatnonzero(a):
    """CuPy waits for the device, which alone knows how many there are."""
    record(synchronisations=1)
    return operations.compute(np.flatnonzero, a)


def searchsorted(a, v):
    return operations.compute(np.searchsorted, a, v)


def take(a, indices, axis=None):
    """CuPy wraps an index that is out of range without a word; here it is an error."""
    return operations.compute(np.take, a, indices, axis=axis)


def sort(a, axis=-1):
    return operations.compute(np.sort, a, axis=axis)


def concatenate(tup, axis=0):
    return operations.compute(_joined(np.concatenate), *tup, axis=axis)


def stack(tup, axis=0):
    return operations.compute(_joined(np.stack), *tup, axis=axis)


def _joined(function):
    return lambda *arrays, axis: function(arrays, axis=axis)


def may_share_memory(a, b):
    return np.may_share_memory(operations.host_operand(a), operations.host_operand(b))


def _elementwise(name: str, ufunc: np.ufunc):
    def call(*operands, out=None, dtype=None, casting="same_kind"):
        options = {"casting": casting} | ({} if dtype is None else {"dtype": dtype})
        return operations.compute(ufunc, *operands, out=out, **options)

    call.__name__ = name
    return call


def table() -> dict[str, object]:
    """Everything that the module `cupy` offers on arrays, by its name."""
    written_out = {
        name: value
        for name, value in globals().items()
        if isinstance(value, types.FunctionType)
        and value.__module__ == __name__
        and not name.startswith("_")
        and name != "table"
    }
    elementwise = {name: _elementwise(name, f) for name, f in allowed.ELEMENTWISE.items()}
    return {**allowed.CONSTANTS, **written_out, **operations.REDUCTIONS, **elementwise}
