"""Arithmetic on device arrays: what CuPy would do with kernels of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import allowed
from .counting import record, record_program
from .hardware import check_current
from .memory import Memory, allocate
from .streams import refuse_while_capturing, submit

SCALARS = (bool, int, float, complex, np.generic)


class DeviceArray:
    """The operators of an array. `_host` looks into `_memory`; `_base` is what it is a view of."""

    __slots__ = ("_base", "_host", "_memory")

    _host: np.ndarray
    _memory: Memory
    _base: DeviceArray | None

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: object, **kwargs: object):
        """NumPy's operators end here when only one side is a device array."""
        if method != "__call__" or allowed.ELEMENTWISE.get(ufunc.__name__) is not ufunc:
            raise TypeError(f"numpy.{ufunc.__name__} ({method}) is not for device arrays")
        out = kwargs.pop("out", (None,))
        return compute(ufunc, *inputs, out=out[0], **kwargs)

    def __array_function__(self, func, types, args, kwargs):
        raise TypeError(f"numpy.{func.__name__} on a device array: call cupy's function instead")


def compute(
    function: Callable, *operands: object, out: DeviceArray | None = None, **options: object
) -> DeviceArray:
    """`function(*operands)` as one kernel, into `out` or else into a new array."""
    host = [host_operand(operand) for operand in operands]
    arrays = [each for each in (*operands, out) if isinstance(each, DeviceArray)]
    if not arrays:
        raise TypeError(f"{function.__name__}: no operand is a device array")
    record_program(function.__name__, *map(_kind, (*operands, out)), str(options.get("dtype")))
    if out is None:
        refuse_while_capturing("an allocation for the result")
        submit(lambda: record(elementwise=1), [each._memory for each in arrays])
        result = _quietly(function, *host, **options)
        return type(arrays[0])._from_result(np.asarray(result))

    target = host_operand(out)

    def run() -> None:
        _quietly(function, *host, out=target, **options)
        record(elementwise=1)

    submit(run, [each._memory for each in arrays])
    return out


def host_operand(operand: object):
    """The operand as NumPy takes it; a NumPy array is refused, as CuPy does."""
    if isinstance(operand, DeviceArray):
        check_current(operand._memory.device)
        return operand._host
    if isinstance(operand, SCALARS):
        return operand
    raise TypeError(f"Unsupported type {type(operand)}")


def _kind(operand: object) -> str:
    """What CuPy compiles a kernel for: an operand's dtype, and how its memory is gone through."""
    if not isinstance(operand, DeviceArray):
        return "" if operand is None else type(operand).__name__
    host = operand._host
    layout = "contiguous" if host.flags.c_contiguous else f"{host.ndim} axes"
    return f"{host.dtype} {layout}"


def clear(target: DeviceArray) -> None:
    """Zeros, which the driver writes by itself."""
    _assign(target, 0, [target], None, elementwise=1)


def fill(target: DeviceArray, value: object, where: DeviceArray | None = None) -> None:
    """Write one number everywhere (where `where` is true)."""
    check_current(target._memory.device)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if not isinstance(value, SCALARS):
        raise ValueError(f"non-scalar {type(value).__name__} cannot be used for fill")
    record_program("fill", _kind(target), _kind(where))
    _assign(target, value, [target], where, elementwise=1)


def copy(target: DeviceArray, source: DeviceArray, where: DeviceArray | None = None) -> None:
    """Write `source`, broadcast and cast, into `target`; the devices may differ."""
    if target._memory.device == source._memory.device:
        check_current(target._memory.device)
    kinds = _kind(target), _kind(source)
    plain = where is None and kinds[0] == kinds[1] and kinds[0].endswith("contiguous")
    if not plain or target._host.shape != source._host.shape:  # else the driver copies by itself
        record_program("copy", *kinds, _kind(where))
    _assign(target, source._host, [target, source], where, d2d=1)


def sort(array: DeviceArray, axis: int) -> None:
    """In place, with room of its own beside it, as Thrust needs it: as much again for a row alone;
    for many, keys of 8 bytes, and pairs of key and element."""
    check_current(array._memory.device)
    refuse_while_capturing("an allocation for sorting")
    if not array._host.flags.c_contiguous:
        raise NotImplementedError("CuPy sorts a copy of what is not contiguous")
    pairs = 3 * 8 * array._host.size
    room = allocate(array._host.nbytes if array._host.ndim == 1 else pairs)
    array._host.sort(axis)
    record(sorts=1)
    del room


def _assign(
    target: DeviceArray,
    value: object,
    arrays: list[DeviceArray],
    where: DeviceArray | None,
    **counts: int,
) -> None:
    """What copies and fills have in common: checked now, done now or when a graph runs."""
    host = target._host
    mask = True if where is None else host_operand(where)
    arrays = arrays if where is None else [*arrays, where]
    np.broadcast_to(np.asarray(value), host.shape)

    def run() -> None:
        _quietly(np.copyto, host, value, casting="unsafe", where=mask)
        record(**counts)

    submit(run, [each._memory for each in arrays])


def _quietly(function: Callable, *args: object, **kwargs: object):
    """A device raises no floating-point warnings."""
    with np.errstate(all="ignore"):
        return function(*args, **kwargs)


BINARY_OPERATORS = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "pow": np.power,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "lshift": np.left_shift,
    "rshift": np.right_shift,
}
COMPARISONS = {
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
UNARY_OPERATORS = {"neg": np.negative, "abs": np.absolute, "invert": np.invert}


def _define_operators() -> None:
    def forward(ufunc):
        return lambda self, other: compute(ufunc, self, other)

    def reflected(ufunc):
        return lambda self, other: compute(ufunc, other, self)

    def in_place(ufunc):
        return lambda self, other: compute(ufunc, self, other, out=self)

    def unary(ufunc):
        return lambda self: compute(ufunc, self)

    for name, ufunc in BINARY_OPERATORS.items():
        setattr(DeviceArray, f"__{name}__", forward(ufunc))
        setattr(DeviceArray, f"__r{name}__", reflected(ufunc))
        setattr(DeviceArray, f"__i{name}__", in_place(ufunc))
    for name, ufunc in COMPARISONS.items():
        setattr(DeviceArray, f"__{name}__", forward(ufunc))
    for name, ufunc in UNARY_OPERATORS.items():
        setattr(DeviceArray, f"__{name}__", unary(ufunc))


_define_operators()


def reduction(function: Callable, options: tuple[str, ...]) -> Callable:
    """A reduction over one axis, several or all; its result is an array even when it is 0-d."""
    if "dtype" in options:

        def reduce(a, axis=None, *, dtype=None, out=None, keepdims=False):
            return compute(function, a, axis=axis, dtype=dtype, out=out, keepdims=keepdims)

    elif "out" in options:

        def reduce(a, axis=None, *, out=None, keepdims=False):
            return compute(function, a, axis=axis, out=out, keepdims=keepdims)

    else:

        def reduce(a, axis=None, *, keepdims=False):
            return compute(function, a, axis=axis, keepdims=keepdims)

    reduce.__name__ = function.__name__
    return reduce


REDUCTIONS = {
    **{name: reduction(f, ("dtype", "out")) for name, f in allowed.SUMS.items()},
    **{name: reduction(f, ("out",)) for name, f in allowed.EXTREMES.items()},
    **{name: reduction(f, ()) for name, f in allowed.POSITIONS.items()},
}

for _name, _function in REDUCTIONS.items():
    setattr(DeviceArray, _name, _function)
