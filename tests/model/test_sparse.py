"""Networks of sparse rows compute what they do of the same rows, dense."""

import copy
import pickle

import numpy as np
import pytest
from scipy import sparse

import gpumlp
from gpumlp.backend.cpu import pool
from gpumlp.model import memory
from gpumlp.model.shape import NetworkShape
from gpumlp.utils.checks import ParameterError
from tests.helpers.comparison import to_numpy
from tests.helpers.networks import network
from tests.helpers.sparse import on_gpu, sparse_rows

SIZES = (83, 13, 6, 4)


def pair(device, sizes=SIZES, models=None, hidden="tanh", **options):
    """A network of sparse rows, and one of dense rows with the same parameters."""
    options = {"dtype": "float64", "spread": 0.5} | options
    dense = network(sizes, hidden, device=device, models=models, **options)
    return dense.like(sparse=True), dense


def assert_close(found, expected, rtol=1e-12):
    expected = to_numpy(expected)
    np.testing.assert_allclose(
        to_numpy(found), expected, rtol=rtol, atol=rtol * np.abs(expected).max()
    )


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("sizes", [SIZES, (83, 3), (5, 1, 2), (700, 100, 3)], ids=str)
def test_forward_and_gradient(place, models, sizes):
    net, dense = pair(place, sizes, models, hidden=["tanh", "gelu"][: len(sizes) - 2])
    X = sparse_rows(29, sizes[0])
    y = np.random.default_rng(5).normal(size=(29, sizes[-1]))
    weight = np.random.default_rng(6).uniform(0, 2, 29)
    assert_close(net.forward(X), dense.forward(X.toarray()))
    assert_close(net.forward(X.toarray()), dense.forward(X.toarray()))
    for options in {}, {"sample_weight": weight, "reduction": "sum"}:
        loss, grad = net.loss_and_grad(X, y, "squared_error", **options)
        expected_loss, expected = dense.loss_and_grad(X.toarray(), y, "squared_error", **options)
        assert_close(loss, expected_loss)
        for name in ("W", "b"):
            for found, other in zip(getattr(grad, name), getattr(expected, name), strict=True):
                assert found is None or assert_close(found, other) is None
        again, _ = net.loss_and_grad(X.toarray(), y, "squared_error", **options)
        assert_close(again, expected_loss)


def test_finite_differences():
    """Of the loss by single weights of the first layer, at features that occur and that do not."""
    net, _ = pair("cpu")
    X, y = sparse_rows(11, SIZES[0]).tolil(), np.random.default_rng(0).normal(size=(11, 4))
    X[:, 5] = 0
    X = X.tocsr()
    _, grad = net.loss_and_grad(X, y, "squared_error")
    assert not to_numpy(grad.W[1])[:, 5].any()
    for i, j in ((0, 3), (7, 10), (12, 5), (4, 82)):
        losses = []
        for step in (1e-5, -2e-5):
            net.W[1][i, j] += step
            losses.append(net.loss_and_grad(X, y, "squared_error")[0])
        net.W[1][i, j] += 1e-5
        assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(grad.W[1][i, j], rel=1e-5, abs=1e-9)


def test_any_sparse_matrix(place):
    net, dense = pair(place)
    X = sparse_rows(17, SIZES[0])
    expected = dense.forward(X.toarray())
    unsorted = X.copy()
    unsorted.indices, unsorted.data = unsorted.indices.copy(), unsorted.data.copy()
    for row in range(17):
        part = slice(*unsorted.indptr[row : row + 2])
        unsorted.indices[part] = unsorted.indices[part][::-1].copy()
        unsorted.data[part] = unsorted.data[part][::-1].copy()
    twice = sparse.csr_matrix((np.r_[1.5, 2.5], np.r_[3, 3], np.r_[0, 2]), (1, SIZES[0]))
    longs = X.copy()
    longs.indices, longs.indptr = X.indices.astype("int64"), X.indptr.astype("int64")
    for kind in (X.tocsc(), X.tocoo(), sparse.csr_array(X), sparse.bsr_matrix(X), unsorted, longs):
        assert_close(net.forward(kind), expected)
    assert_close(net.forward(twice), dense.forward(twice.toarray()))
    for dtype in ("float32", "int64", "uint8", "bool"):
        whole = (X * 3).astype(dtype)
        assert_close(net.forward(whole), dense.forward(whole.toarray().astype("float64")))
    nothing = sparse.csr_matrix((6, SIZES[0]))
    assert_close(net.forward(nothing), dense.forward(nothing.toarray()))
    loss, grad = net.loss_and_grad(nothing, np.ones((6, 4)), "squared_error")
    assert not to_numpy(grad.W[1]).any() and np.isfinite(loss)


def test_predictions_in_chunks(place, monkeypatch):
    """Chunks are slices of the rows, whose first non-zero is not the matrix's."""
    net, dense = pair(place)
    X = sparse_rows(31, SIZES[0])
    expected = dense.forward(X.toarray())
    monkeypatch.setattr(NetworkShape, "chunk_rows", 7)
    assert_close(net.forward(X), expected)
    assert_close(net.forward(X.toarray()), expected)


def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    net = network((3000, 70, 3), device="cpu", dtype="float32", sparse=True)
    X = sparse_rows(400, 3000, 0.05, dtype="float32")
    y = np.random.default_rng(0).normal(size=(400, 3))
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(pool, "threads", lambda threads=threads: threads)
        loss, grad = net.loss_and_grad(X, y, "squared_error")
        found.append((loss.tobytes(), grad.theta.tobytes(), net.forward(X).tobytes()))
    assert found[0] == found[1] == found[2]


def test_bf16_stores_all_but_the_non_zeros(cuda):
    net = network((96, 24, 3), device=cuda, sparse=True, precision="bf16", spread=0.5)
    X, y = sparse_rows(40, 96, dtype="float32"), np.random.default_rng(1).normal(size=(40, 3))
    exact = net.like(precision="float32", sparse=False)
    assert_close(net.forward(X), exact.forward(X.toarray()), 3e-2)
    assert_close(net.forward(X.toarray()), net.forward(X), 1e-6)
    loss, grad = net.loss_and_grad(X, y, "squared_error")
    expected_loss, expected = exact.loss_and_grad(X.toarray(), y, "squared_error")
    assert_close(loss, expected_loss, 3e-2)
    assert_close(grad.W[1], expected.W[1], 5e-2)


def test_rows_on_the_gpu_stay_there(cuda, counters):
    net, dense = pair(cuda)
    X = sparse_rows(19, SIZES[0])
    there = on_gpu(X)
    expected = dense.forward(X.toarray())
    net.forward(there)
    with counters.count() as done:
        found = net.forward(there)
    assert not isinstance(found, np.ndarray)
    assert_close(found, expected)
    assert done.h2d == 0 and done.d2h <= 8  # which check the places of the non-zeros


def test_W_is_a_view_of_its_transpose():
    net, dense = pair("cpu")
    assert net.W[1].shape == (13, 83) and net.W[1].T.flags.c_contiguous
    assert np.shares_memory(net.W[1], net.theta)
    X = sparse_rows(5, SIZES[0])
    net.W[1][2, 7] = dense.W[1][2, 7] = 9.0
    net.W[1] *= 0.5
    dense.W[1] *= 0.5
    assert_close(net.forward(X), dense.forward(X.toarray()))
    assert net.count == dense.count and net.layout.size == dense.layout.size


def test_copies_and_files(device, tmp_path):
    net, dense = pair(device)
    X = sparse_rows(9, SIZES[0])
    expected = net.forward(X)
    gpumlp.save(net, tmp_path / "net.npz")
    others = {
        "deepcopy": copy.deepcopy(net),
        "pickle": pickle.loads(pickle.dumps(net)),
        "file": gpumlp.load(tmp_path / "net.npz", device=device),
        "like": net.like(),
    }
    for name, other in others.items():
        assert other.shape.sparse, name
        np.testing.assert_array_equal(to_numpy(other.forward(X)), to_numpy(expected), name)
    assert not net.like(sparse=False).shape.sparse
    assert_close(net.like(sparse=False).forward(X.toarray()), expected)
    np.testing.assert_array_equal(to_numpy(net.like(sparse=False).W[1]), to_numpy(dense.W[1]))


def broken(**parts):
    """A CSR matrix of 3 rows and 83 columns with other parts than it should have."""
    matrix = sparse.csr_matrix(
        (np.ones(4), np.array([0, 5, 82, 7]), np.array([0, 2, 2, 4])), (3, SIZES[0])
    )
    for name, part in parts.items():
        setattr(matrix, name, np.array(part))
    return matrix


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"indices": [0, 5, 83, 7]}, "columns from 0 to 83 of 83"),
        ({"indices": [0, -1, 82, 7]}, "columns from -1 to 82"),
        ({"indptr": [0, 3, 2, 4]}, "rows do not divide 4 values"),
        ({"indptr": [1, 2, 2, 4]}, "rows do not divide 4 values"),
        ({"indptr": [0, 2, 2, 5]}, "rows do not divide 4 values"),
        ({"indptr": [0, 2, 4]}, "3 rows, 3 starts"),
        ({"indices": [0, 5, 82]}, "3 columns of 4 values"),
    ],
    ids=str,
)
def test_what_is_no_csr_matrix(device, parts, message):
    """Kernels read by these numbers without looking."""
    net, _ = pair(device)
    for ask in (net.forward, lambda x: net.loss_and_grad(x, np.ones((3, 4)), "squared_error")):
        with pytest.raises(ValueError, match=f"x is no CSR matrix: .*{message}"):
            ask(broken(**parts))


def test_room_for_more_non_zeros(device):
    """SciPy's matrices may have it; it holds anything."""
    net, _ = pair(device)
    expected = to_numpy(net.forward(broken()))
    roomy = broken(data=[1, 1, 1, 1, np.nan], indices=[0, 5, 82, 7, -9])
    np.testing.assert_array_equal(to_numpy(net.forward(roomy)), expected)


def test_what_is_refused(device):
    net, dense = pair(device)
    X = sparse_rows(7, SIZES[0])
    with pytest.raises(TypeError, match=r"x is sparse: make the network with sparse=True, or pass"):
        dense.forward(X)
    with pytest.raises(ValueError, match=r"x has shape \(7, 82\); the network takes \(B, 83\)"):
        net.forward(X[:, :82])
    with pytest.raises(ValueError, match=r"x has no rows"):
        net.forward(X[:0])
    for value, said in ((np.nan, "NaN or infinity in 1 of"), (np.inf, "NaN or infinity in 1 of")):
        spoiled = X.copy()
        spoiled.data[3] = value
        with pytest.raises(ValueError, match=f"x cannot be used: {said}"):
            net.forward(spoiled)
    with pytest.raises(TypeError, match="x has dtype complex128"):
        net.forward(X.astype(complex))
    with pytest.raises(TypeError, match=r"y is sparse; pass y\.toarray\(\)"):
        net.loss_and_grad(X, X[:, :4], "squared_error")
    stack = net.like(models=None)
    assert stack.models is None
    stack, _ = pair(device, models=2)
    with pytest.raises(ValueError, match="a stack with sparse=True share their rows"):
        stack.loss_and_grad(np.zeros((2, 7, 83)), np.arange(7) % 4)
    for scale in (True, [True, False, False]):
        with pytest.raises(ParameterError, match="scale = True: the first layer's inputs have"):
            gpumlp.MLP(SIZES, scale=scale, sparse=True, device="cpu")
    with pytest.raises(ParameterError, match="sparse = 1 must be True or False"):
        gpumlp.MLP(SIZES, sparse=1, device="cpu")
    with pytest.raises(ParameterError, match=r"with sparse=True there are at most 2147483647 feat"):
        gpumlp.MLP((2**31, 1), sparse=True, device="cpu")
    scaled = gpumlp.MLP(SIZES, scale=[False, True, True], sparse=True, device=device)
    assert np.isfinite(to_numpy(scaled.forward(X))).all()


def test_memory_is_that_of_the_non_zeros():
    """A million features: no buffer has a row of them but the parameters."""
    shape = gpumlp.MLP((10**6, 2, 3), device="cpu", sparse=True).shape
    parameters = shape.layout.size * shape.dtype.itemsize
    assert memory.predict(shape, 256, 2) < 4.1 * parameters + shape.sizes[0] + (1 << 20)
