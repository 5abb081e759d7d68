"""cuBLASLt on simulated memory: functions with the library's true C signatures.

`library` takes the place of the shared library: the binding calls these functions through ctypes,
so the order and width of arguments, the sizes of structures and the numbers of attributes are put
to the test.  What cuBLASLt checks ends with its status; what it does not check and would go wrong
on a GPU raises here: addresses outside live memory, weaker alignment than was promised, overlaps,
a workspace that is too small, another stream than the current one.

There are ten algorithms.  They compute the same, need different workspaces and alignments, and add
`library.seconds[number]` to `library.elapsed`: a clock that no load on the machine disturbs.
"""

from __future__ import annotations

import collections
import ctypes
import itertools
from ctypes import c_int, c_int64, c_size_t, c_uint64, c_void_p

import numpy as np

from . import memory
from .blas import Matrices, from_bf16, host_number, to_bf16, to_tf32
from .counting import record
from .descriptions import (
    ALGORITHMS,
    COMPUTE_32F_FAST_TF32,
    DESCRIPTION,
    DTYPES,
    LAYOUT,
    MAGIC,
    PREFERENCE,
    R_64F,
    SUPPORTED,
    Algorithm,
    Description,
    Layout,
    Preference,
    Problem,
    Result,
)
from .hardware import machine
from .streams import get_current_stream, submit

VERSION = 130100
MOST_BATCH = 65535  # matrices
SUCCESS, NOT_INITIALIZED, ALLOC_FAILED, INVALID_VALUE, NOT_SUPPORTED = 0, 1, 3, 7, 15
STATUSES = {
    NOT_INITIALIZED: b"CUBLAS_STATUS_NOT_INITIALIZED",
    ALLOC_FAILED: b"CUBLAS_STATUS_ALLOC_FAILED",
    INVALID_VALUE: b"CUBLAS_STATUS_INVALID_VALUE",
    NOT_SUPPORTED: b"CUBLAS_STATUS_NOT_SUPPORTED",
}


class Status(Exception):
    """Ends a function with a status that is not success."""


def signature(result, *parameters):
    def mark(method):
        method.prototype = ctypes.CFUNCTYPE(result, *parameters)
        return method

    return mark


class _Function:
    """A C function that runs a method of the library; what that raises goes to the caller."""

    def __init__(self, library: Library, name: str, method):
        self._library, self._name, self._method = library, name, method
        self._raised: BaseException | None = None
        self._c = method.prototype(self._run)

    restype = property(lambda self: self._c.restype, lambda self, x: setattr(self._c, "restype", x))
    argtypes = property(
        lambda self: self._c.argtypes, lambda self, x: setattr(self._c, "argtypes", x)
    )

    def __call__(self, *arguments):
        self._library.calls[self._name] += 1
        result = self._c(*arguments)
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised
        return result

    def _run(self, *arguments):
        try:
            result = self._method(self._library, *arguments)
        except Status as status:
            return status.args[0]
        except BaseException as error:
            self._raised = error
            return NOT_SUPPORTED
        return SUCCESS if result is None else result


def _write(address: int, value: int) -> None:
    c_void_p.from_address(address).value = value


class Library:
    """The shared library's functions, and what has become of their calls."""

    def __init__(self):
        self._addresses = itertools.count(0x7F0000000000, 0x100)  # above 32 bits, as real ones
        self._objects: dict[int, object] = {}
        self._names = {each: ctypes.create_string_buffer(STATUSES[each]) for each in STATUSES}
        self.calls: collections.Counter[str] = collections.Counter()
        self.algorithms: list[int] = []  # the numbers of those that ran
        self.seconds: dict[int, float] = {}  # of each algorithm
        self.elapsed = 0.0  # seconds of all that ran
        self.offers = ALGORITHMS
        for name, method in vars(Library).items():
            if hasattr(method, "prototype"):
                setattr(self, name, _Function(self, name, method))

    def described(self) -> int:
        """Descriptions, layouts and preferences that have not been destroyed."""
        return sum(not isinstance(each, int) for each in self._objects.values())

    def _new(self, made: int, thing: object) -> None:
        address = next(self._addresses)
        self._objects[address] = thing
        _write(made, address)

    def _find(self, address: int | None, kind: type):
        found = self._objects.get(address)
        if not isinstance(found, kind):
            raise Status(INVALID_VALUE)
        return found

    def _set(self, thing: object, attributes: dict, number: int, value: int, size: int) -> None:
        name, expected = attributes.get(number, (None, None))
        if expected != size or not value:
            raise Status(INVALID_VALUE)
        setattr(thing, name, int.from_bytes(ctypes.string_at(value, size), "little", signed=True))

    def _destroy(self, address: int, kind: type) -> None:
        self._find(address, kind)
        del self._objects[address]

    # ------------------------------------------------------------ the functions
    @signature(c_size_t)
    def cublasLtGetVersion(self):
        return VERSION

    @signature(c_void_p, c_int)
    def cublasLtGetStatusName(self, status):
        return ctypes.addressof(self._names[status])

    @signature(c_int, c_void_p)
    def cublasLtCreate(self, made):
        if machine.error is not None or not machine.devices:
            raise Status(NOT_INITIALIZED)
        if get_current_stream().is_capturing():
            raise RuntimeError("cublasLtCreate allocates, which a capture does not allow")
        self._new(made, machine.current_device)

    @signature(c_int, c_void_p, c_int, c_int)
    def cublasLtMatmulDescCreate(self, made, compute, scale):
        self._new(made, Description(compute, scale))

    @signature(c_int, c_void_p, c_int, c_void_p, c_size_t)
    def cublasLtMatmulDescSetAttribute(self, description, attribute, value, size):
        self._set(self._find(description, Description), DESCRIPTION, attribute, value, size)

    @signature(c_int, c_void_p)
    def cublasLtMatmulDescDestroy(self, description):
        self._destroy(description, Description)

    @signature(c_int, c_void_p, c_int, c_uint64, c_uint64, c_int64)
    def cublasLtMatrixLayoutCreate(self, made, kind, rows, columns, leading):
        self._new(made, Layout(kind, rows, columns, leading))

    @signature(c_int, c_void_p, c_int, c_void_p, c_size_t)
    def cublasLtMatrixLayoutSetAttribute(self, layout, attribute, value, size):
        self._set(self._find(layout, Layout), LAYOUT, attribute, value, size)

    @signature(c_int, c_void_p)
    def cublasLtMatrixLayoutDestroy(self, layout):
        self._destroy(layout, Layout)

    @signature(c_int, c_void_p)
    def cublasLtMatmulPreferenceCreate(self, made):
        self._new(made, Preference())

    @signature(c_int, c_void_p, c_int, c_void_p, c_size_t)
    def cublasLtMatmulPreferenceSetAttribute(self, preference, attribute, value, size):
        self._set(self._find(preference, Preference), PREFERENCE, attribute, value, size)

    @signature(c_int, c_void_p)
    def cublasLtMatmulPreferenceDestroy(self, preference):
        self._destroy(preference, Preference)

    @signature(c_int, *[c_void_p] * 7, c_int, c_void_p, c_void_p)
    def cublasLtMatmulAlgoGetHeuristic(
        self, handle, description, a, b, c, d, preference, requested, results, count
    ):
        problem = self._problem(handle, description, a, b, c, d)
        wish = self._find(preference, Preference)
        if wish.alignment_c != wish.alignment_d:
            raise ValueError("C and D are the same, so their alignments are")
        promised = wish.alignment_a, wish.alignment_b, wish.alignment_d
        found = []
        for number in range(self.offers):
            # Those of even number count on all that was promised.
            relied = promised if number % 2 == 0 else (1, 1, 1)
            algorithm = Algorithm(MAGIC, number, relied)
            allowed = algorithm.reduction & ~wish.reductions == 0
            if allowed and algorithm.workspace(problem) <= wish.workspace:
                found.append(Result(algorithm, algorithm.workspace(problem)))
        found = found[:requested]
        (Result * len(found)).from_address(results)[:] = found
        c_int.from_address(count).value = len(found)

    @signature(c_int, *[c_void_p] * 8)
    def cublasLtMatmulAlgoCheck(self, handle, description, a, b, c, d, algorithm, result):
        problem = self._problem(handle, description, a, b, c, d)
        found = self._algorithm(algorithm)
        Result.from_address(result).workspace = found.workspace(problem)

    @signature(c_int, *[c_void_p] * 14, c_size_t, c_void_p)
    def cublasLtMatmul(
        self, handle, description, alpha, A, a, B, b, beta, C, c, D, d, algorithm, workspace, size,
        stream,
    ):  # fmt: skip
        problem = self._problem(handle, description, a, b, c, d)
        if C != D:
            raise ValueError("C is not D")
        if (stream or 0) != get_current_stream().ptr:
            raise ValueError(f"stream {stream:#x} is not the current one")
        found = self._algorithm(algorithm)
        for name, address, bytes_ in zip("ABD", (A, B, D), found.alignments, strict=True):
            if address % bytes_:
                raise ValueError(f"{name} = {address:#x} is not at a multiple of {bytes_}")
        room = self._workspace(found.workspace(problem), workspace, size)
        run, blocks = self._product(problem, alpha, A, B, beta, D, found.number, room)
        if room is not None and any(memory.find(workspace, size) is block for block in blocks):
            raise ValueError("the workspace overlaps A, B or D")
        submit(run, [*blocks, *([] if room is None else [memory.find(workspace, size)])])

    # ------------------------------------------------------------ what they have in common
    def _problem(self, handle, description, a, b, c, d) -> Problem:
        """What the arguments describe, if it can be computed."""
        if self._find(handle, int) != machine.current_device:
            raise ValueError("the handle is not of the current device")
        if c != d:
            raise ValueError("the layouts of C and D differ")
        problem = Problem(
            self._find(description, Description), *(self._find(each, Layout) for each in (a, b, d))
        )
        how, a, b, d = problem
        if a.type != b.type or (a.type, d.type) not in SUPPORTED.get((how.compute, how.scale), ()):
            raise Status(NOT_SUPPORTED)
        if d.batch > MOST_BATCH:
            raise Status(NOT_SUPPORTED)
        m, inner = (a.columns, a.rows) if how.transa else (a.rows, a.columns)
        other, n = (b.columns, b.rows) if how.transb else (b.rows, b.columns)
        if (m, n) != (d.rows, d.columns) or inner != other or not a.batch == b.batch == d.batch:
            raise Status(INVALID_VALUE)
        if 0 in (m, n, inner) or any(each.leading < each.rows for each in (a, b, d)):
            raise Status(INVALID_VALUE)
        return problem

    def _algorithm(self, address: int) -> Algorithm:
        if not address:
            raise ValueError("no algorithm: the library would choose one at every call")
        found = Algorithm.from_buffer_copy(ctypes.string_at(address, 64))
        if found.magic != MAGIC or found.number >= ALGORITHMS:
            raise Status(INVALID_VALUE)
        return found

    def _workspace(self, needed: int, address: int | None, size: int) -> np.ndarray | None:
        if needed == 0:
            return None
        if size < needed or not address or address % 256:
            raise ValueError(f"a workspace of {size} bytes at {address}; {needed} are needed")
        memory.find(address, size)
        return memory.host_view(address, (needed,), np.uint8)

    def _product(self, problem, alpha, A, B, beta, D, number, room):
        """A function that computes it, and the memory that it touches."""
        how, *layouts = problem
        matrices = [
            Matrices(name, at, x.rows, x.columns, x.leading, x.stride, x.batch, DTYPES[x.type])
            for name, at, x in zip("ABD", (A, B, D), layouts, strict=True)
        ]
        a, b, d = (each.view() for each in matrices)
        matrices[2].refuse_overlaps(d, A=a, B=b)
        number_type = np.float64 if how.scale == R_64F else np.float32
        alpha, beta = host_number(alpha, number_type), host_number(beta, number_type)

        def read(array: np.ndarray, transposed: int) -> np.ndarray:
            if array.dtype == np.uint16:
                array = from_bf16(array)
            elif how.compute == COMPUTE_32F_FAST_TF32:
                array = to_tf32(array)
            return array.swapaxes(1, 2) if transposed else array

        def run() -> None:
            if room is not None:
                room[:] = 0xA5  # whatever an algorithm leaves there
            self.elapsed += self.seconds.get(number, 0)
            with np.errstate(all="ignore"):
                product = alpha * (read(a, how.transa) @ read(b, how.transb))
                if beta:  # else D is not read: it may be fresh memory
                    product += beta * (from_bf16(d) if d.dtype == np.uint16 else d)
                d[...] = to_bf16(product) if d.dtype == np.uint16 else product
            self.algorithms.append(number)
            record(gemms=1)

        return run, [each.block() for each in matrices]


library = Library()
