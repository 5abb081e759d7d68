"""The binding of cuBLASLt: every type of number, strides, graphs, plans, choices and errors.

Without a GPU the library's place is taken by tests/standin/cublaslt.py, which also refuses what
would go wrong in silence on one; the last tests are of these refusals.
"""

import ctypes
import itertools
import json
import sys
import types

import numpy as np
import pytest

from gpumlp import backend
from gpumlp.backend import cublaslt
from tests import standin
from tests.operations import Wide, empty, random, rounded, send
from tests.standin.cublaslt import Library
from tests.standin.cublaslt import library as fake

# What is given, what comes out, ops.precision, and the bits of an operand's and a result's mantissa
# behind the leading one.
KINDS = {
    "float32": ("float32", "float32", "float32", 23, 23),
    "float64": ("float64", "float64", "float32", 52, 52),
    "tf32": ("float32", "float32", "tf32", 10, 23),
    "bf16": ("uint16", "uint16", "bf16", 7, 7),
    "bf16 to float32": ("uint16", "float32", "bf16", 7, 23),
}
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def no_plans():
    cublaslt.plan.cache_clear()


@pytest.fixture
def ops(cuda):
    return backend.get("cuda:0")


def bits(numbers):
    """bfloat16 in uint16, of numbers that it holds exactly."""
    return (np.asarray(numbers, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def to_bf16(numbers):
    """The nearest numbers with seven bits behind the leading one."""
    fraction, exponent = np.frexp(numbers)
    return np.ldexp(np.rint(np.ldexp(fraction, 8)), exponent - 8)


def stored(numbers, dtype):
    return bits(numbers) if dtype == "uint16" else np.asarray(numbers, dtype)


def exact(numbers, dtype):
    """The float64 numbers that an array of that dtype holds."""
    return to_bf16(numbers) if dtype == "uint16" else rounded(numbers, dtype)


def read(ops, array):
    host = ops.to_host(array)
    if host.dtype == np.uint16:
        host = (host.astype(np.uint32) << 16).view(np.float32)
    return host.astype(np.float64)


def errors(kind, models, ta, tb, alpha=1.0, beta=0.0, shape=(37, 29, 13), shared=(), view=True):
    """What comes out beside the formula in float64: the largest error over sum |a||b|, and the
    largest over the rounding that the format allows, which must not be above 1."""
    given, result, precision, operand_bits, result_bits = KINDS[kind]
    ops = backend.get("cuda:0", precision)
    rows, inner, columns = shape
    a = random(models, *((inner, rows) if ta else (rows, inner)), seed=1)
    b = random(models, *((columns, inner) if tb else (inner, columns)), seed=2)
    out = random(models, rows, columns, seed=3) * (1 if beta else np.nan)
    a, b = (x[:1] if name in shared else x for name, x in (("a", a), ("b", b)))
    a, b, out = exact(a, given), exact(b, given), exact(out, result)
    left, right = (a.swapaxes(1, 2) if ta else a), (b.swapaxes(1, 2) if tb else b)
    left, right = (np.broadcast_to(x, (models, *x.shape[1:])) for x in (left, right))
    expected = alpha * np.einsum("mij,mjl->mil", left, right) + (beta * out if beta else 0)
    size = abs(alpha) * np.einsum("mij,mjl->mil", abs(left), abs(right)) + abs(
        beta * out if beta else 0
    )

    wide_b = Wide(ops, stored(b, given), given)
    given_b = wide_b.view if view else send(ops, stored(b, given))
    wide_out = Wide(ops, stored(out, result), result)
    ops.gemm(
        send(ops, stored(a, given)), given_b, wide_out.view, ta=ta, tb=tb, alpha=alpha, beta=beta
    )
    wide_out.assert_untouched_outside()
    error = abs(read(ops, wide_out.view) - expected)
    accumulated = (inner + 3) * 2.0 ** (-52 if kind == "float64" else -23)
    operands = 2.1 * 2.0 ** -(operand_bits + 1) if kind == "tf32" else 0
    allowed = (accumulated + operands) * size + 2.0 ** -(result_bits + 1) * abs(expected)
    return (error / size).max(), (error / allowed).max()


@kinds
@pytest.mark.parametrize("models", [1, 3])
@pytest.mark.parametrize("ta, tb", [*itertools.product([False, True], repeat=2)])
@pytest.mark.parametrize("alpha, beta", [(1.0, 0.0), (-0.5, 0.0), (2.0, 0.25), (1.0, 1.0)])
def test_product(cuda, kind, models, ta, tb, alpha, beta):
    _, over_allowed = errors(kind, models, ta, tb, alpha, beta)
    assert over_allowed <= 1


@kinds
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 37, 1), (1, 130, 8), (130, 3, 37), (64, 64, 64)])
def test_sizes(cuda, kind, shape):
    for ta, tb, view in ((False, True, True), (False, False, True), (True, False, False)):
        assert errors(kind, 3, ta, tb, shape=shape, view=view)[1] <= 1


@kinds
@pytest.mark.parametrize("shared", ["a", "b", "ab"])
def test_operands_that_all_networks_share(cuda, kind, shared):
    assert errors(kind, 3, False, True, shared=shared)[1] <= 1
    assert errors(kind, 3, True, False, 1.5, 0.5, shared=shared)[1] <= 1


def test_precision_is_what_was_asked_for(cuda):
    """Fewer bits give larger errors: TF32's are not float32's, nor bf16's."""
    found = {kind: errors(kind, 1, False, True)[0] for kind in KINDS}
    assert found["float64"] < 1e-14
    assert 1e-9 < found["float32"] < 1e-6
    assert 1e-5 < found["tf32"] < 1e-3
    assert 1e-4 < found["bf16"] < 1e-2
    assert found["bf16 to float32"] < 1e-6  # of operands that were rounded before


def test_float64_is_exact_under_every_precision(cuda):
    a = random(1, 37, 29)
    for precision in ("float32", "tf32", "bf16"):
        ops = backend.get("cuda:0", precision)
        out = empty(ops, (1, 37, 37), "float64")
        ops.gemm(send(ops, a), send(ops, a), out, tb=True)
        np.testing.assert_allclose(read(ops, out), a @ a.swapaxes(1, 2), rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------- graphs


@kinds
def test_a_captured_product_is_computed_again_at_every_launch(cuda, kind):
    given, result, precision, _, _ = KINDS[kind]
    ops = backend.get("cuda:0", precision)
    cp = ops.xp
    a, b = (send(ops, stored(exact(random(3, 13, 13, seed=i), given), given)) for i in (1, 2))
    out = send(ops, stored(exact(random(3, 13, 13, seed=3), result), result))
    before = out.copy()

    def work():
        ops.gemm(a, b, out, tb=True, alpha=0.5, beta=0.5)
        ops.gemm(a, b, out, ta=True, alpha=0.5, beta=0.5)

    work()
    eager = ops.to_host(out)
    with cp.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        work()
        graph = stream.end_capture()
        out[...] = before
        graph.launch(stream)
        np.testing.assert_array_equal(ops.to_host(out), eager)
        a[...] = b
        out[...] = before
        graph.launch(stream)
        replayed = ops.to_host(out)
    out[...] = before
    work()
    np.testing.assert_array_equal(ops.to_host(out), replayed)
    assert (replayed != eager).any()


def test_what_a_captured_product_counts(counters, ops):
    cp = ops.xp
    a = cp.ones((1, 5, 5), np.float32)
    out = cp.zeros((1, 5, 5), np.float32)
    ops.gemm(a, a, out)
    with counters.count() as c, cp.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        ops.gemm(a, a, out)
        graph = stream.end_capture()
        assert c.gemms == 0
        graph.launch()
        graph.launch()
    assert (c.gemms, c.allocations, c.synchronisations) == (2, 0, 0)


@pytest.mark.parametrize("freed", ["a", "out", "workspace"])
def test_a_graph_needs_its_operands_and_its_workspace(counters, ops, freed):
    cp = ops.xp
    held = {name: cp.ones((1, 5, 5), np.float32) for name in ("a", "b", "out")}
    ops.gemm(held["a"], held["b"], held["out"])
    with cp.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        ops.gemm(held["a"], held["b"], held["out"])
        graph = stream.end_capture()
        graph.launch()
        if freed == "workspace":
            ops._workspace = None
        else:
            del held[freed]
        with pytest.raises(RuntimeError, match="freed: keep a reference"):
            graph.launch()


# ---------------------------------------------------------------------- plans


def heuristics():
    return fake.calls["cublasLtMatmulAlgoGetHeuristic"]


def test_a_plan_is_made_once(counters, ops):
    a, b = (send(ops, random(2, 5, 7, seed=i), np.float32) for i in range(2))
    out = empty(ops, (2, 5, 5), np.float32)
    before = heuristics()
    ops.gemm(a, b, out, tb=True)
    assert heuristics() == before + 1
    with counters.count() as c:
        calls = fake.calls.copy()
        for _ in range(5):
            ops.gemm(a, b, out, tb=True)
            ops.gemm(b, a, out, tb=True)
    assert fake.calls - calls == {"cublasLtMatmul": 10}
    assert (c.gemms, c.allocations, c.synchronisations, c.h2d) == (10, 0, 0, 0)
    ops.gemm(a, b, out, tb=True, beta=1.0)
    ops.gemm(a, b[:1], out, tb=True)
    ops.gemm(a[:, :3], b, out[:, :3], tb=True)
    ops.gemm(a, b, empty(ops, (2, 7, 7), np.float32), ta=True)
    assert heuristics() == before + 5
    backend.get("cuda:0").gemm(a, b, out, tb=True)  # another network's
    assert heuristics() == before + 5


@pytest.mark.parametrize("apart", ["a", "b", "out"])
def test_a_plan_is_for_one_stride(ops, apart):
    """The same sizes and alignments, of matrices one behind the other and of some that are not."""
    given = {name: send(ops, random(3, 8, 8, seed=i), np.float32) for i, name in enumerate("ab")}
    given["out"] = empty(ops, (3, 8, 8), np.float32)
    expected = read(ops, given["a"]) @ read(ops, given["b"])
    ops.gemm(given["a"], given["b"], given["out"])
    wider = empty(ops, (3, 16, 8), np.float32)
    wider[:, :8] = given[apart]
    given[apart] = wider[:, :8]
    ops.gemm(given["a"], given["b"], given["out"])
    np.testing.assert_allclose(read(ops, given["out"]), expected, atol=1e-5)
    assert np.isnan(read(ops, wider)[:, 8:]).all()


def test_the_workspace_is_replaced_by_a_larger_one(counters, ops):
    """Graphs hold on to the old one; a smaller product does with what there is."""
    assert ops._workspace is None
    sizes = []
    for columns in (5, 300, 7):
        a, out = empty(ops, (1, 3, 4), np.float32), empty(ops, (1, 3, columns), np.float32)
        ops.gemm(a, empty(ops, (1, 4, columns), np.float32), out)
        sizes.append(ops._workspace)
    assert 0 < sizes[0].size < sizes[1].size < 32 << 20
    assert sizes[1] is sizes[2] is not sizes[0]


def test_the_alignment_is_what_the_addresses_have(counters, ops):
    """Rows of data begin anywhere.  Too much promised, and the stand-in's algorithm would refuse;
    plans are made for powers of two only."""
    x = send(ops, random(1, 300, 3), np.float32)
    W = send(ops, random(1, 5, 3), np.float32)
    out = empty(ops, (1, 20, 5), np.float32)
    before = heuristics()
    for start in range(70):
        ops.gemm(x[:, start : start + 20], W, out, tb=True)
        expected = read(ops, x)[:, start : start + 20] @ read(ops, W).swapaxes(1, 2)
        np.testing.assert_allclose(read(ops, out), expected, atol=1e-5)
    assert heuristics() - before == 7  # 4, 8, ..., 256
    for name in ("a", "b", "d"):
        gemm = next(iter(ops._plans.values())).gemm
        assert getattr(gemm, f"alignment_{name}") == 256
    assert {plan.gemm.alignment_b for plan in ops._plans.values()} == {2**i for i in range(2, 9)}


def test_plans_are_forgotten_when_there_are_too_many(counters, ops, monkeypatch):
    monkeypatch.setattr(sys.modules[type(ops).__module__], "MOST_PLANS", 4)
    x = send(ops, random(1, 40, 3), np.float32)
    described = fake.described()
    for rows in range(1, 12):
        ops.gemm(x[:, :rows], x[:, :2], empty(ops, (1, rows, 2), np.float32), tb=True)
        assert len(ops._plans) <= 4
    assert fake.described() > described
    ops._plans.clear()
    cublaslt.plan.cache_clear()
    assert fake.described() == described  # nothing of the library's is left behind


# ---------------------------------------------------------------------- choices


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of the user's files; algorithm 3 is the fastest, and 1 the next."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    seconds = {number: 0.001 for number in range(8)} | {1: 0.0005, 3: 0.0, 9: 0.0}
    monkeypatch.setattr(fake, "seconds", seconds)
    return tmp_path / "gpumlp" / "gemm"


def ran(ops, a, out, **options):
    """The algorithm of a product."""
    ops.gemm(a, a, out, **options)
    return fake.algorithms[-1]


@pytest.fixture
def operands(ops):
    return send(ops, random(3, 5, 5), np.float32), send(ops, random(3, 5, 5, seed=1), np.float32)


def test_the_first_proposal_is_taken_unless_asked(counters, cache, ops, operands):
    assert ran(ops, *operands) == 0
    assert ops.choices() == {}
    assert not cache.exists()


def test_the_fastest_of_eight_is_taken(counters, cache, operands):
    a, out = operands
    ops = backend.get("cuda:0", tune=True)
    before = read(ops, out)
    with counters.count() as c:
        assert ran(ops, a, out, beta=0.5) == 3
    assert c.gemms > 8
    expected = read(ops, a) @ read(ops, a) + 0.5 * before  # once: trying wrote elsewhere
    np.testing.assert_allclose(read(ops, out), expected, atol=1e-5)
    with counters.count() as c:
        assert ran(ops, a, out, beta=0.5) == 3
    assert (c.gemms, c.allocations, c.synchronisations) == (1, 0, 0)


def test_choices_are_kept_for_the_next_process(counters, cache, operands):
    first, second, third = (backend.get("cuda:0", tune=True) for _ in range(3))
    assert ran(first, *operands) == 3
    assert ran(first, *operands, ta=True) == 3
    (file,) = cache.iterdir()
    assert len(json.loads(file.read_text())) == 2
    fake.seconds[3] = 0.001
    before = heuristics()
    with counters.count() as c:
        assert ran(second, *operands) == 3
    assert (heuristics(), c.gemms) == (before, 1)
    assert second.choices()["algorithms"].items() <= first.choices()["algorithms"].items()
    file.unlink()
    assert ran(third, *operands) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\x00",
        b"[1, 2]",
        b'{"SHAPE": 3}',
        b'{"SHAPE": "no digits"}',
        b'{"SHAPE": "c0b1a5"}',
        b'{"SHAPE": "%s"}' % (b"00" * 64),  # not an algorithm of this library
        None,  # a folder in its place
    ],
)
def test_a_broken_file_costs_time_and_nothing_else(counters, cache, operands, content):
    ops = backend.get("cuda:0", tune=True)
    ran(ops, *operands)
    (file,) = cache.iterdir()
    (shape,) = json.loads(file.read_text())
    file.unlink()
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content.replace(b"SHAPE", shape.encode()))
    ops = backend.get("cuda:0", tune=True)
    assert ran(ops, *operands) == 3
    if content is not None:
        assert json.loads(file.read_text())[shape] == ops.choices()["algorithms"][shape]


def test_a_folder_that_cannot_be_made(counters, cache, operands):
    cache.parent.write_text("a file")
    assert ran(backend.get("cuda:0", tune=True), *operands) == 3


def test_choices_of_a_checkpoint(counters, cache, operands):
    tuned = backend.get("cuda:0", tune=True)
    assert ran(tuned, *operands) == 3
    choices = json.loads(json.dumps(tuned.choices()))
    assert choices["gpu"] == "Stand-in for a GPU"

    fake.seconds[3] = 0.001
    for tune in (False, True):
        ops = backend.get("cuda:0", tune=tune)
        ops.adopt(choices)
        assert ran(ops, *operands) == 3
        assert ops.choices() == choices
    ops = backend.get("cuda:0")
    assert ran(ops, *operands) == 0
    ops.adopt(choices)  # after the first product, too
    assert ran(ops, *operands) == 3
    for name, value in (("gpu", "another"), ("cublaslt", 120000)):
        ops = backend.get("cuda:0")
        ops.adopt({**choices, name: value})
        assert ran(ops, *operands) == 0
    ops.adopt({})
    assert ran(ops, *operands) == 0


def test_nothing_is_tried_while_capturing(counters, cache, operands):
    ops = backend.get("cuda:0")
    a, out = operands
    ops.gemm(a, a, out)  # makes a workspace, for which nothing can be allocated below
    ops.tune = True
    with ops.xp.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        ops.gemm(a, a, out, ta=True)
        graph = stream.end_capture()
        graph.launch()
    assert fake.algorithms[-1] == 0
    assert (ops.choices(), cache.exists()) == ({}, False)


def test_a_candidate_that_fails_is_left_out(counters, cache, operands, monkeypatch):
    called = fake.cublasLtMatmul

    def fails(*arguments):
        algorithm = ctypes.string_at(arguments[12].value, 64)
        return 15 if algorithm[8] in (3, 4) else called(*arguments)

    monkeypatch.setattr(fake, "cublasLtMatmul", fails)
    assert ran(backend.get("cuda:0", tune=True), *operands) == 1


# ---------------------------------------------------------------------- errors


def test_other_types_are_refused(ops):
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
        pytest.skip(str(error))
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


def test_matrices_may_be_interleaved(ops):
    """Two matrices of each network in one row of a flat buffer: they do not overlap."""
    flat = send(ops, random(3, 20), np.float32)
    source, target = flat[:, :8].reshape(3, 2, 4), flat[:, 8:16].reshape(3, 2, 4)
    square = random(3, 4, 4, seed=1)
    ops.gemm(source, send(ops, square, np.float32), target)
    np.testing.assert_allclose(read(ops, target), read(ops, source) @ square, atol=1e-5)


def test_rounding_of_the_stand_in():
    numbers = np.array([1.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3.3895e38], np.float32)
    from tests.standin import blas

    there_and_back = blas.from_bf16(blas.to_bf16(numbers))
    np.testing.assert_array_equal(there_and_back[:5], numbers[:5])
    many = random(1000).astype(np.float32)
    np.testing.assert_array_equal(blas.from_bf16(blas.to_bf16(many)), to_bf16(many))
    fraction, exponent = np.frexp(many)
    np.testing.assert_array_equal(
        blas.to_tf32(many), np.ldexp(np.rint(np.ldexp(fraction, 11)), exponent - 11)
    )
    assert np.isnan(blas.to_tf32(np.array([np.nan], np.float32)))[0]
