"""What the binding of cuBLASLt refuses, what the real library holds, and what its stand-in refuses.

The stand-in, tests/standin/cublaslt.py, must raise where a GPU would go wrong in silence.
"""

import ctypes
import sys
import types

import numpy as np
import pytest

from gpumlp import backend
from gpumlp.backend.cuda import cublaslt
from tests import standin
from tests.operations import send
from tests.standin.cublaslt import Library
from tests.standin.cublaslt import library as fake


@pytest.fixture(autouse=True)
def no_plans():
    cublaslt.plan.cache_clear()


def test_other_types_are_refused(cuda):
    ops = backend.get("cuda:0")
    arrays = {dtype: send(ops, np.zeros((1, 2, 2)), dtype) for dtype in ("float32", "uint16")}
    with pytest.raises(TypeError, match="no product of float32 and uint16 into float32"):
        ops.gemm(arrays["float32"], arrays["uint16"], arrays["float32"])


GEMM = cublaslt.Gemm(
    *(3, 5, 4, 0, 0, 3, 4, 3, 1, 0, 0, 0),
    *(cublaslt.R_32F, cublaslt.R_32F, cublaslt.COMPUTE_32F, 1.0, 0.0, 256, 256, 256),
)


def test_a_product_without_an_algorithm(counters, monkeypatch):
    monkeypatch.setattr(fake, "offers", 0)
    with pytest.raises(
        RuntimeError, match=r"this GPU has no algorithm for op.A. 3 x 4, op.B. 4 x "
    ):
        cublaslt.plan(0, GEMM)


@pytest.mark.parametrize(
    "changes, status",
    [
        ({"type_ab": cublaslt.R_64F}, "NOT_SUPPORTED"),
        ({"compute": cublaslt.COMPUTE_64F}, "NOT_SUPPORTED"),
        ({"lda": 2}, "INVALID_VALUE"),
        ({"m": 0}, "INVALID_VALUE"),
        ({"batch": 65536}, "NOT_SUPPORTED"),
    ],
)
def test_a_status_is_an_error_with_its_name_and_the_sizes(counters, changes, status):
    gemm = GEMM._replace(**changes)
    what = f"cublasLtMatmulAlgoGetHeuristic: CUBLAS_STATUS_{status} for op.A. {gemm.m} x 4, "
    with pytest.raises(RuntimeError, match=what):
        cublaslt.plan(0, gemm)


def test_an_algorithm_of_another_library(counters):
    with pytest.raises(RuntimeError, match="cublasLtMatmulAlgoCheck: CUBLAS_STATUS_INVALID_VALUE"):
        cublaslt.plan(0, GEMM, bytes(64))


def test_a_failed_product(counters, monkeypatch):
    plan = cublaslt.plan(0, GEMM)
    plan._matmul = lambda *arguments: 15
    with pytest.raises(RuntimeError, match=r"cublasLtMatmul: CUBLAS_STATUS_NOT_SUPPORTED for op.A"):
        plan(0, 0, 0, 0, 0)


def test_a_product_without_memory(counters):
    plan = cublaslt.plan(0, GEMM)
    plan._matmul = lambda *arguments: 3
    with pytest.raises(MemoryError, match=r"cublasLtMatmul: CUBLAS_STATUS_ALLOC_FAILED for"):
        plan(0, 0, 0, 0, 0)


def installed(monkeypatch, load):
    module = types.ModuleType("cuda.pathfinder")
    module.load_nvidia_dynamic_lib = load
    monkeypatch.setitem(sys.modules, "cuda", types.ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", module)


def test_a_library_that_is_missing(monkeypatch):
    def load(name):
        raise RuntimeError(f"{name} was not found")

    installed(monkeypatch, load)
    with pytest.raises(RuntimeError, match=r"cuBLASLt.* cannot be loaded \(cublasLt was not found"):
        cublaslt.load()
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    with pytest.raises(RuntimeError, match=r"pip install 'cupy-cuda13x\[ctk\]'"):
        cublaslt.load()


def test_a_library_whose_place_is_not_known(monkeypatch):
    """ctypes would take whatever the process has loaded."""
    installed(monkeypatch, lambda name: types.SimpleNamespace(abs_path=None))
    monkeypatch.setattr(cublaslt.ctypes, "CDLL", lambda path: Library())
    with pytest.raises(RuntimeError, match=r"cannot be loaded \(it was found, but not where it is"):
        cublaslt.load()


@pytest.mark.parametrize(
    "version, says",
    [
        (120604, None),
        (131000, None),
        (110800, "is cuBLASLt 11.8; .* version 12 or 13"),
        (140000, "14"),
    ],
)
def test_versions(monkeypatch, version, says):
    installed(monkeypatch, lambda name: types.SimpleNamespace(abs_path="libcublasLt.so"))
    monkeypatch.setattr(standin.cublaslt, "VERSION", version)
    monkeypatch.setattr(cublaslt.ctypes, "CDLL", lambda path: Library())
    if says is None:
        assert cublaslt.load().cublasLtGetVersion() == version
    else:
        with pytest.raises(RuntimeError, match=says):
            cublaslt.load()


# ---------------------------------------------------------------------- the real library


@pytest.fixture
def real(monkeypatch):
    try:
        library = cublaslt.load()
    except RuntimeError as error:
        pytest.skip(f"there is no cuBLASLt to look at: {error}")
    monkeypatch.setattr(cublaslt, "library", lambda: library)
    return library


def attribute(library, kind, described, number, ctype):
    """What the library holds, and how many bytes it takes for it."""
    value, size = ctype(), ctypes.c_size_t()
    function = getattr(library, f"{kind}GetAttribute")
    function.argtypes = cublaslt.SIGNATURES[f"{kind}SetAttribute"][1] + [ctypes.c_void_p]
    target = ctypes.byref(value), ctypes.sizeof(value), ctypes.byref(size)
    status = function(described.address, number, *target)
    return status, value.value, size.value


def test_the_real_library_holds_what_it_is_given(real):
    """Descriptions work without a driver: their numbers and sizes are the library's own."""
    types_ = (cublaslt.R_16BF, cublaslt.R_32F, cublaslt.COMPUTE_32F)
    gemm = cublaslt.Gemm(5, 7, 3, 1, 0, 4, 6, 8, 9, 15, 0, 70, *types_, 1.0, 0.0, 4, 8, 16)
    problem = cublaslt._Problem(gemm)
    i32, u32, u64, i64 = ctypes.c_int32, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64
    for number, expected in ((0, gemm.compute), (1, cublaslt.R_32F), (3, 1), (4, 0)):
        found = attribute(real, "cublasLtMatmulDesc", problem.description, number, i32)
        assert found == (0, expected, 4)
    fields = enumerate((u32, i32, u64, u64, i64, i32, i64))  # type, order, rows, columns, ld, ...
    for (number, ctype), *expected in zip(
        fields,
        (cublaslt.R_16BF, 0, 3, 5, 4, 9, 15),
        (cublaslt.R_16BF, 0, 3, 7, 6, 9, 0),
        (cublaslt.R_32F, 0, 5, 7, 8, 9, 70),
        strict=True,
    ):
        for layout, value in zip((problem.a, problem.b, problem.d), expected, strict=True):
            found = attribute(real, "cublasLtMatrixLayout", layout, number, ctype)
            assert found == (0, value, ctypes.sizeof(ctype))
    preference = cublaslt._Described("cublasLtMatmulPreference")
    for value, each in enumerate(
        (
            cublaslt.PREF_MAX_WORKSPACE_BYTES,
            cublaslt.PREF_MIN_ALIGNMENT_A_BYTES,
            cublaslt.PREF_MIN_ALIGNMENT_B_BYTES,
            cublaslt.PREF_MIN_ALIGNMENT_C_BYTES,
            cublaslt.PREF_MIN_ALIGNMENT_D_BYTES,
        ),
        start=4,
    ):
        preference.set(each, 1 << value)
        found = attribute(real, "cublasLtMatmulPreference", preference, *each)
        assert found == (0, 1 << value, ctypes.sizeof(each[1]))
    with pytest.raises(RuntimeError, match="SetAttribute: CUBLAS_STATUS_INVALID_VALUE"):
        problem.description.set((3, ctypes.c_int64), 1)


# ---------------------------------------------------------------------- the stand-in


@pytest.fixture
def cp(monkeypatch):
    return standin.install(monkeypatch, devices=2)


def call(cp, gemm=GEMM, device=0, workspace=None, stream=0, alpha=None, **addresses):
    """A product of fresh arrays, and what is wrong with it."""
    plan = cublaslt.plan(device, gemm)
    arrays = {name: cp.zeros((2, 8, 8), np.float32) for name in "abd"}
    room = cp.empty(plan.workspace, np.uint8)
    if alpha is not None:
        plan._alpha = ctypes.c_void_p(alpha)
    plan(
        *({name: array.data.ptr for name, array in arrays.items()} | addresses).values(),
        room.data.ptr if workspace is None else workspace,
        stream,
    )


BATCH = GEMM._replace(batch=2, stride_a=64, stride_b=64, stride_d=64)


def test_the_stand_in_multiplies(cp):
    call(cp)
    call(cp, BATCH)
    call(cp, BATCH._replace(stride_a=0))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"lda": 60}, "not inside one live allocation"),
        ({"stride_b": 126}, "not inside one live allocation"),
        ({"batch": 3}, "not inside one live allocation"),
        ({"stride_d": 0}, "two elements of D overlap"),
        ({"stride_d": 3}, "two elements of D overlap"),
        ({"transa": 1}, "INVALID_VALUE"),
    ],
)
def test_the_stand_in_refuses_layouts(cp, changes, message):
    with pytest.raises((RuntimeError, ValueError), match=message):
        call(cp, BATCH._replace(**changes))


def test_the_stand_in_looks_at_every_address(cp):
    x = cp.zeros((2, 8, 8), np.float32)
    with pytest.raises(ValueError, match="D overlaps A"):
        call(cp, a=x.data.ptr, d=x.data.ptr)
    with pytest.raises(ValueError, match="D overlaps B"):
        call(cp, b=x.data.ptr, d=x.data.ptr)
    with pytest.raises(ValueError, match=r"A = .* is not at a multiple of 256"):
        call(cp, a=x.data.ptr + 16)
    with pytest.raises(RuntimeError, match="not inside one live allocation"):
        call(cp, b=0x10000)
    with cp.cuda.Device(1):
        far = cp.zeros((2, 8, 8), np.float32)
    with pytest.raises(RuntimeError, match="on device 1"):
        call(cp, b=far.data.ptr)
    with pytest.raises(ValueError, match="alpha or beta is a device address"):
        call(cp, alpha=x.data.ptr)


def test_the_stand_in_looks_at_workspace_stream_and_handle(cp):
    small, x = cp.empty(8, np.uint8), cp.zeros((2, 8, 8), np.float32)
    with pytest.raises(RuntimeError, match="not inside one live allocation"):
        call(cp, workspace=small.data.ptr)
    with pytest.raises(ValueError, match=r"workspace of .* bytes at None"):
        call(cp, workspace=0)
    with pytest.raises(ValueError, match="workspace overlaps"):
        call(cp, workspace=x.data.ptr, a=x.data.ptr)
    with pytest.raises(ValueError, match="is not the current one"):
        call(cp, stream=cp.cuda.Stream().ptr)
    plan = cublaslt.plan(0, GEMM)
    with cp.cuda.Device(1), pytest.raises(ValueError, match="handle is not of the current device"):
        plan(x.data.ptr, x.data.ptr, x.data.ptr, 0, 0)
    with pytest.raises(RuntimeError, match="CUBLAS_STATUS_INVALID_VALUE"):
        cublaslt._Problem(GEMM).description.set((3, ctypes.c_int64), 1)
