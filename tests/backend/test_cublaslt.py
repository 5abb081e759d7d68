"""Products through cuBLASLt: every type of number, strides, graphs and plans.

Without a GPU the library's place is taken by tests/standin/cublaslt.py.
"""

import itertools
import sys

import numpy as np
import pytest

from gpumlp import backend
from gpumlp.backend.cuda import cublaslt
from tests.operations import Wide, empty, random, rounded, send
from tests.standin import blas
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
    # Each of two operands may be rounded, or cut: the library does not say which.
    operands = 2.1 * 2.0**-operand_bits if kind == "tf32" else 0
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


@pytest.mark.parametrize("shared", ["", "a", "b"])
def test_more_networks_than_one_call_takes(ops, shared):
    """Also one more than that."""
    for models in (65535, 65536, 65536 + 3):
        a, b = random(models, 2, 3, seed=1), random(models, 4, 3, seed=2)
        a, b = (x[:1] if name == shared else x for name, x in (("a", a), ("b", b)))
        out = send(ops, random(models, 2, 4, seed=3), "float64")
        expected = 2 * a @ b.swapaxes(1, 2) + ops.to_host(out)
        sent = (send(ops, x, "float64") for x in (a, b))
        ops.gemm(*sent, out, tb=True, alpha=2.0, beta=1.0)
        np.testing.assert_allclose(ops.to_host(out), expected, rtol=1e-12, atol=1e-12)


def test_precision_is_what_was_asked_for(cuda):
    """Fewer bits give larger errors: TF32's are not float32's, nor bf16's.

    Of a size that tensor cores are for: smaller products may come back in full float32, since the
    library is allowed to round, not told to.
    """
    found = {kind: errors(kind, 1, False, True, shape=(128, 256, 64))[0] for kind in KINDS}
    assert found["float64"] < 1e-14
    assert 1e-9 < found["float32"] < 1e-6
    assert 2e-6 < found["tf32"] < 1e-3
    assert 1e-4 < found["bf16"] < 1e-2
    assert found["bf16 to float32"] < 1e-6  # of operands that were rounded before


def test_float64_is_exact_under_every_precision(cuda):
    a = random(1, 37, 29)
    for precision in ("float32", "tf32", "bf16"):
        ops = backend.get("cuda:0", precision)
        out = empty(ops, (1, 37, 37), "float64")
        ops.gemm(send(ops, a), send(ops, a), out, tb=True)
        np.testing.assert_allclose(read(ops, out), a @ a.swapaxes(1, 2), rtol=1e-12, atol=1e-12)


def test_matrices_may_be_interleaved(ops):
    """Two matrices of each network in one row of a flat buffer: they do not overlap."""
    flat = send(ops, random(3, 20), np.float32)
    source, target = flat[:, :8].reshape(3, 2, 4), flat[:, 8:16].reshape(3, 2, 4)
    square = random(3, 4, 4, seed=1)
    ops.gemm(source, send(ops, square, np.float32), target)
    np.testing.assert_allclose(read(ops, target), read(ops, source) @ square, atol=1e-5)


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


# ---------------------------------------------------------------------- the stand-in


def test_rounding_of_the_stand_in():
    numbers = np.array([1.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3.3895e38], np.float32)
    there_and_back = blas.from_bf16(blas.to_bf16(numbers))
    np.testing.assert_array_equal(there_and_back[:5], numbers[:5])
    many = random(1000).astype(np.float32)
    np.testing.assert_array_equal(blas.from_bf16(blas.to_bf16(many)), to_bf16(many))
    fraction, exponent = np.frexp(many)
    np.testing.assert_array_equal(
        blas.to_tf32(many), np.ldexp(np.rint(np.ldexp(fraction, 11)), exponent - 11)
    )
    assert np.isnan(blas.to_tf32(np.array([np.nan], np.float32)))[0]
