"""cuBLASLt through ctypes: batched matrix products that may be captured into a CUDA graph.

CuPy's own calls of cuBLAS refuse to be captured.  A `Gemm` describes a product by columns, as
cuBLAS reads memory; a `Plan` is made of it once and then called with addresses, a workspace and a
stream.  Nothing in a call allocates or waits.

Numbers, types and layouts are those of cublasLt.h, library_types.h and cublas_api.h of CUDA 12 and
13.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from ctypes import byref, c_char_p, c_float, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64
from ctypes import c_void_p as pointer
from typing import Any, NamedTuple

MAJOR_VERSIONS = (12, 13)  # of the library, that these declarations hold for

R_32F, R_64F, R_16BF = 0, 1, 14  # cudaDataType
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77  # cublasComputeType_t
OP_N, OP_T = 0, 1  # cublasOperation_t
ALLOC_FAILED = 3  # cublasStatus_t

# Attributes: the number, and the type of the value.
LAYOUT_BATCH_COUNT = 5, c_int32
LAYOUT_STRIDED_BATCH_OFFSET = 6, c_int64
DESC_TRANSA = 3, c_int32
DESC_TRANSB = 4, c_int32
PREF_MAX_WORKSPACE_BYTES = 1, c_uint64
PREF_REDUCTION_SCHEME_MASK = 3, c_uint32
PREF_MIN_ALIGNMENT_A_BYTES = 5, c_uint32
PREF_MIN_ALIGNMENT_B_BYTES = 6, c_uint32
PREF_MIN_ALIGNMENT_C_BYTES = 7, c_uint32
PREF_MIN_ALIGNMENT_D_BYTES = 8, c_uint32

# cublasLtReductionScheme_t, a mask; no reduction at all is always allowed.
REDUCTION_COMPUTE_TYPE, REDUCTION_ANY = 2, 7

MOST_BATCH = (1 << 16) - 1  # matrices of one product: more are refused, which no header says
MOST_WORKSPACE = 32 << 20  # bytes; what NVIDIA advises for Hopper
ALIGNMENT = 256  # bytes, beyond which no algorithm asks for more
ALGORITHM_BYTES = 64


class Algorithm(ctypes.Structure):
    """cublasLtMatmulAlgo_t: its bytes mean the same to every process with the same library."""

    _fields_ = [("data", c_uint64 * (ALGORITHM_BYTES // 8))]


class HeuristicResult(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t"""

    _fields_ = [
        ("algo", Algorithm),
        ("workspaceSize", c_size_t),
        ("state", c_int),
        ("wavesCount", c_float),
        ("reserved", c_int * 4),
    ]


# function: (result, parameters)
SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "cublasLtGetVersion": (c_size_t, []),
    "cublasLtGetStatusName": (c_char_p, [c_int]),
    "cublasLtCreate": (c_int, [pointer]),
    "cublasLtMatmulDescCreate": (c_int, [pointer, c_int, c_int]),
    "cublasLtMatmulDescSetAttribute": (c_int, [pointer, c_int, pointer, c_size_t]),
    "cublasLtMatmulDescDestroy": (c_int, [pointer]),
    "cublasLtMatrixLayoutCreate": (c_int, [pointer, c_int, c_uint64, c_uint64, c_int64]),
    "cublasLtMatrixLayoutSetAttribute": (c_int, [pointer, c_int, pointer, c_size_t]),
    "cublasLtMatrixLayoutDestroy": (c_int, [pointer]),
    "cublasLtMatmulPreferenceCreate": (c_int, [pointer]),
    "cublasLtMatmulPreferenceSetAttribute": (c_int, [pointer, c_int, pointer, c_size_t]),
    "cublasLtMatmulPreferenceDestroy": (c_int, [pointer]),
    # handle, description, layouts of A, B, C, D, preference, count, results, count of results
    "cublasLtMatmulAlgoGetHeuristic": (c_int, [pointer] * 7 + [c_int, pointer, pointer]),
    # handle, description, layouts of A, B, C, D, algorithm, result
    "cublasLtMatmulAlgoCheck": (c_int, [pointer] * 8),
    # handle, description, alpha, A, its layout, B, its layout, beta, C, its layout, D, its layout,
    # algorithm, workspace, its size, stream
    "cublasLtMatmul": (c_int, [pointer] * 14 + [c_size_t, pointer]),
}


class CublasError(RuntimeError):
    """A function of cuBLASLt failed; out of memory is a MemoryError instead."""


# ---------------------------------------------------------------------- the library


@functools.cache
def library():
    """cuBLASLt, loaded at the first call."""
    return load()


def load():
    """Load cuBLASLt; raises RuntimeError if it is missing or of another version."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        path = load_nvidia_dynamic_lib("cublasLt").abs_path
        if path is None:  # for which ctypes would open the program itself
            raise OSError("it was found, but not where it is")
        functions = declare(ctypes.CDLL(path))
    except (ImportError, OSError, AttributeError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise RuntimeError(
            f"cuBLASLt, which multiplies matrices on the GPU, cannot be loaded ({why}); "
            "CuPy's extra [ctk] brings it: pip install 'cupy-cuda13x[ctk]', or cupy-cuda12x[ctk]"
        ) from error
    version = functions.cublasLtGetVersion()
    if version // 10000 not in MAJOR_VERSIONS:
        supported = " or ".join(map(str, MAJOR_VERSIONS))
        raise RuntimeError(
            f"{path} is cuBLASLt {version // 10000}.{version // 100 % 100}; "
            f"gpumlp works with version {supported}"
        )
    return functions


def declare(functions):
    """Declare the functions' types: without them, ctypes cuts addresses to 32 bits."""
    for name, (result, parameters) in SIGNATURES.items():
        function = getattr(functions, name)
        function.restype, function.argtypes = result, parameters
    return functions


@functools.cache
def handle(device: int):
    """cuBLASLt's handle for a device, which must be the current one."""
    return _create("cublasLtCreate")


def _call(name: str, *arguments, subject: object = None) -> None:
    status = getattr(library(), name)(*arguments)
    if status:
        raise _error(name, status, subject)


def _error(name: str, status: int, subject: object = None) -> CublasError | MemoryError:
    text = library().cublasLtGetStatusName(status).decode()
    kind = MemoryError if status == ALLOC_FAILED else CublasError
    return kind(f"{name}: {text}" + (f" for {subject}" if subject else ""))


def _create(name: str, *arguments):
    address = pointer()
    _call(name, byref(address), *arguments)
    return address


# ---------------------------------------------------------------------- what is multiplied


class Gemm(NamedTuple):
    """D_i <- alpha op(A_i) op(B_i) + beta D_i for i < batch: op(A) (m, k), op(B) (k, n), D (m, n).

    Column-major; leading dimensions and strides from matrix to matrix in elements, stride 0 for one
    that is shared; alignments of the addresses in bytes.
    """

    m: int
    n: int
    k: int
    transa: int
    transb: int
    lda: int
    ldb: int
    ldd: int
    batch: int
    stride_a: int
    stride_b: int
    stride_d: int
    type_ab: int
    type_d: int
    compute: int
    alpha: float
    beta: float
    alignment_a: int
    alignment_b: int
    alignment_d: int

    @property
    def reductions(self) -> int:
        """The reduction schemes that may keep partial sums: none that keeps them in bfloat16."""
        return REDUCTION_COMPUTE_TYPE if self.type_d == R_16BF else REDUCTION_ANY

    def __str__(self):
        return (
            f"op(A) {self.m} x {self.k}, op(B) {self.k} x {self.n}, batch {self.batch} "
            f"({', '.join(f'{name}={value}' for name, value in self._asdict().items())})"
        )


class _Descriptor:
    """A description, a layout or a preference of the library's, destroyed with this object."""

    def __init__(self, kind: str, *arguments):
        self._kind = kind
        self.address = _create(f"{kind}Create", *arguments)
        destroy = weakref.finalize(self, getattr(library(), f"{kind}Destroy"), self.address)
        destroy.atexit = False

    def set(self, attribute, value: int) -> None:
        number, ctype = attribute
        data = ctype(value)
        _call(f"{self._kind}SetAttribute", self.address, number, byref(data), ctypes.sizeof(data))


def _layout(kind: int, rows: int, columns: int, leading: int, batch: int, stride: int):
    layout = _Descriptor("cublasLtMatrixLayout", kind, rows, columns, leading)
    if batch > 1:
        layout.set(LAYOUT_BATCH_COUNT, batch)
        layout.set(LAYOUT_STRIDED_BATCH_OFFSET, stride)
    return layout


class _Problem:
    """A Gemm described to the library: its operation and the layouts of A, B and D."""

    def __init__(self, gemm: Gemm):
        g = self.gemm = gemm
        self.scale = R_64F if g.compute == COMPUTE_64F else R_32F
        self.description = _Descriptor("cublasLtMatmulDesc", g.compute, self.scale)
        self.description.set(DESC_TRANSA, g.transa)
        self.description.set(DESC_TRANSB, g.transb)
        a = (g.k, g.m) if g.transa else (g.m, g.k)
        b = (g.n, g.k) if g.transb else (g.k, g.n)
        self.a = _layout(g.type_ab, *a, g.lda, g.batch, g.stride_a)
        self.b = _layout(g.type_ab, *b, g.ldb, g.batch, g.stride_b)
        self.d = _layout(g.type_d, g.m, g.n, g.ldd, g.batch, g.stride_d)
        # C is D: the product is added in place.
        descriptors = self.description, self.a, self.b, self.d, self.d
        self.addresses = [descriptor.address for descriptor in descriptors]

    def candidates(self, device: int, most: int) -> list[HeuristicResult]:
        """The library's proposals, the best first; CublasError if there is none."""
        g = self.gemm
        preference = _Descriptor("cublasLtMatmulPreference")
        preference.set(PREF_MAX_WORKSPACE_BYTES, MOST_WORKSPACE)
        preference.set(PREF_REDUCTION_SCHEME_MASK, g.reductions)
        preference.set(PREF_MIN_ALIGNMENT_A_BYTES, g.alignment_a)
        preference.set(PREF_MIN_ALIGNMENT_B_BYTES, g.alignment_b)
        preference.set(PREF_MIN_ALIGNMENT_C_BYTES, g.alignment_d)
        preference.set(PREF_MIN_ALIGNMENT_D_BYTES, g.alignment_d)
        results, count = (HeuristicResult * most)(), c_int()
        name = "cublasLtMatmulAlgoGetHeuristic"
        arguments = *self.addresses, preference.address, most, results, byref(count)
        _call(name, handle(device), *arguments, subject=g)
        usable = [result for result in results[: count.value] if result.state == 0]
        if not usable:
            raise CublasError(f"{name}: this GPU has no algorithm for {g}")
        return usable

    def checked(self, device: int, algorithm: bytes) -> HeuristicResult:
        """Check an algorithm that was kept, for its workspace; raises CublasError."""
        c_algorithm, result = Algorithm.from_buffer_copy(algorithm), HeuristicResult()
        arguments = *self.addresses, byref(c_algorithm), byref(result)
        _call("cublasLtMatmulAlgoCheck", handle(device), *arguments, subject=self.gemm)
        result.algo = c_algorithm
        return result


class Plan:
    """A Gemm with its algorithm, ready to be called with addresses and a stream.

    The workspace that it is called with must hold `workspace` bytes, at a multiple of ALIGNMENT.
    """

    __slots__ = (
        "_a", "_algorithm", "_alpha", "_b", "_beta", "_d", "_description", "_handle", "_keep",
        "_matmul", "algorithm", "gemm", "workspace",
    )  # fmt: skip

    def __init__(self, device: int, problem: _Problem, chosen: HeuristicResult):
        self.gemm, self.workspace = problem.gemm, chosen.workspaceSize
        self.algorithm = bytes(chosen.algo)
        number = ctypes.c_double if problem.scale == R_64F else c_float
        c_values = number(self.gemm.alpha), number(self.gemm.beta), Algorithm()
        ctypes.memmove(byref(c_values[2]), self.algorithm, ctypes.sizeof(Algorithm))
        self._alpha, self._beta, self._algorithm = (pointer(ctypes.addressof(x)) for x in c_values)
        self._description, self._a, self._b, _, self._d = problem.addresses
        self._handle, self._matmul = handle(device), library().cublasLtMatmul
        self._keep = problem, c_values  # what those addresses point to

    def __call__(self, a: int, b: int, d: int, workspace: int, stream: int) -> None:
        status = self._matmul(
            self._handle, self._description, self._alpha, a, self._a, b, self._b, self._beta,
            d, self._d, d, self._d, self._algorithm, workspace, self.workspace, stream,
        )  # fmt: skip
        if status:
            raise _error("cublasLtMatmul", status, self.gemm)


# A server that predicts batches of every size makes many plans; each holds a few kilobytes.
@functools.lru_cache(maxsize=4096)
def plan(device: int, gemm: Gemm, algorithm: bytes | None = None) -> Plan:
    """The plan with the library's first proposal or with an algorithm that was kept.

    The device must be the current one.
    """
    problem = _Problem(gemm)
    if algorithm is None:
        return Plan(device, problem, problem.candidates(device, 1)[0])
    return Plan(device, problem, problem.checked(device, algorithm))


def plans(device: int, gemm: Gemm, most: int) -> list[Plan]:
    """Plans with each of the library's first proposals."""
    problem = _Problem(gemm)
    return [Plan(device, problem, result) for result in problem.candidates(device, most)]
