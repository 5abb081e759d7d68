"""Arrays of every library into the estimators, and results on the side that they were on."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.estimators import array_io
from tests.helpers.estimators import BOTH, DIABETES, IRIS, data, fitted, same_weights, small
from tests.helpers.optional import Package
from tests.helpers.sparse import on_gpu

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

NAMES = list("abcd")
FRAMES = {"pandas": Package("pandas"), "polars": Package("polars")}
pd, pl = FRAMES.values()
WORDS = np.array(["setosa", "versicolor", "virginica"])[IRIS[1]]


def frame(kind, X=IRIS[0]):
    columns = [f"{name}" for name in NAMES[: X.shape[1]]]
    return FRAMES[kind].DataFrame(dict(zip(columns, X.T, strict=True)))


def series(kind, y, dtype=None):
    if kind == "pandas":
        return pd.Series(y, dtype=dtype)
    return pl.Series(y, dtype=dtype and dtype(pl))


# ---------------------------------------------------------------- frames
@pytest.mark.parametrize("kind", FRAMES)
def test_frames_are_trained_on_as_arrays_are(kind):
    X, y = IRIS
    weight = np.linspace(0.5, 2, len(y))
    more = {"X_val": frame(kind), "y_val": series(kind, y)}
    expected = small(MLPClassifier).fit(X, y, weight, X_val=X, y_val=y)
    model = small(MLPClassifier).fit(frame(kind), series(kind, y), series(kind, weight), **more)
    same_weights(model, expected)
    assert model.validation_scores_ == expected.validation_scores_
    assert list(model.feature_names_in_) == NAMES
    score = expected.score(X, y, weight)
    assert model.score(frame(kind), series(kind, y), series(kind, weight)) == score
    model.partial_fit(frame(kind), series(kind, y))
    expected.partial_fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(frame(kind)), expected.predict_proba(X))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame(kind)[NAMES[::-1]])


@pytest.mark.parametrize("kind, dtype", [
    ("pandas", "str"), ("pandas", object), ("pandas", "category"),
    ("polars", lambda pl: pl.String), ("polars", lambda pl: pl.Categorical),
    ("polars", lambda pl: pl.Enum(sorted(set(WORDS)))),
])  # fmt: skip
def test_series_of_words(kind, dtype):
    X = frame(kind)
    expected = small(MLPClassifier).fit(X, WORDS)
    model = small(MLPClassifier).fit(X, series(kind, WORDS, dtype))
    same_weights(model, expected)
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    np.testing.assert_array_equal(model.classes_, np.unique(WORDS))
    part = small(MLPClassifier).partial_fit(
        X, series(kind, WORDS, dtype), classes=series(kind, np.unique(WORDS))
    )
    assert set(part.predict(X)) <= set(WORDS)


def test_columns_of_pandas_that_know_missing_values():
    columns, y = frame("pandas").astype("Float64"), pd.Series(IRIS[1], dtype="Int64")
    model = small(MLPClassifier).fit(columns, y)
    same_weights(model, fitted(MLPClassifier))
    missing = frame("pandas").astype("Float64")
    missing.iloc[3, 2] = pd.NA
    with pytest.raises(ValueError, match="NaN"):
        model.predict(missing)


@pytest.mark.parametrize("kind", FRAMES)
def test_targets_of_several_columns(kind):
    X, y = DIABETES
    several = np.c_[y, -y]
    model = small(MLPRegressor).fit(X, frame(kind, several))
    same_weights(model, small(MLPRegressor).fit(X, several))
    assert model.predict(X).shape == several.shape
    labels = (several > 0).astype(int)
    model = small(MLPClassifier).fit(X, frame(kind, labels))
    np.testing.assert_array_equal(model.predict(X), small(MLPClassifier).fit(X, labels).predict(X))


# ---------------------------------------------------------------- hidden layers as frames
@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("kind", FRAMES)
def test_hidden_layers_as_frames(cls, kind):
    pytest.importorskip(kind, reason=f"{kind} is not installed")
    X, y = data(cls)
    prefix = cls.__name__.lower()
    model = small(cls, hidden_layer_sizes=(3, 5)).fit(X, y)
    values = model.transform(X)
    assert list(model.get_feature_names_out()) == [f"{prefix}{i}" for i in range(5)]
    shown = model.set_output(transform=kind).transform(X)
    assert isinstance(shown, FRAMES[kind].DataFrame)
    assert list(shown.columns) == list(model.get_feature_names_out())
    np.testing.assert_array_equal(shown.to_numpy(), values)
    for layer, width in ((1, 3), (2, 5), (-1, 3 if cls is MLPClassifier else 1)):
        shown = model.transform(X, layer=layer)
        assert isinstance(shown, FRAMES[kind].DataFrame)
        assert list(shown.columns) == [f"{prefix}{i}" for i in range(width)]
    again = clone(model).fit_transform(X, y)
    assert isinstance(again, FRAMES[kind].DataFrame)
    np.testing.assert_array_equal(again.to_numpy(), values)
    np.testing.assert_array_equal(model.set_output(transform="default").transform(X), values)


def test_hidden_layers_keep_the_index_of_their_rows():
    X = frame("pandas").set_index(np.arange(1000, 1150))
    model = small(MLPClassifier).fit(X, IRIS[1]).set_output(transform="pandas")
    assert list(model.transform(X).index) == list(X.index)
    assert list(model.transform(X, layer=2).index) == list(X.index)


def test_hidden_layers_in_a_pipeline():
    X, y = frame("pandas"), IRIS[1]
    network = small(MLPClassifier, hidden_layer_sizes=3)
    pipe = make_pipeline(StandardScaler(), network, fitted(MLPRegressor, hidden_layer_sizes=2))
    pipe.set_output(transform="pandas").fit(X, y)
    names = pipe[:2].get_feature_names_out()
    assert list(pipe[-1].feature_names_in_) == list(names)
    assert pipe.transform(X).shape == (150, 2)


def test_hidden_layers_of_arrays_on_the_gpu_as_frames(cuda):
    pytest.importorskip("pandas", reason="pandas is not installed")
    import cupy

    X, y = (part[::10] for part in IRIS)
    model = small(MLPClassifier, device=cuda, max_iter=2).fit(X, y)
    on_gpu = cupy.asarray(X)
    assert isinstance(model.transform(on_gpu), cupy.ndarray)
    shown = model.set_output(transform="pandas").transform(on_gpu)
    np.testing.assert_array_equal(shown.to_numpy(), model.transform(X).to_numpy())


# ---------------------------------------------------------------- tensors on the host
class Tensor:
    """A tensor of a library that speaks DLPack and nothing else."""

    def __init__(self, array):
        self._array = np.asarray(array)

    def __dlpack__(self, **arguments):
        return self._array.__dlpack__(**arguments)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class TorchLike(Tensor):
    """As PyTorch's on the CPU: NumPy can take it, but its dtype is not NumPy's."""

    class Float32:
        pass

    dtype = Float32()

    @property
    def shape(self):
        return self._array.shape

    def __len__(self):
        return len(self._array)

    def __array__(self, dtype=None, copy=None):
        return np.array(self._array, dtype=dtype, copy=copy)


class Gradient(TorchLike):
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


@pytest.mark.parametrize("kind", [Tensor, TorchLike])
@pytest.mark.parametrize("cls", BOTH)
def test_tensors_on_the_host(cls, kind):
    X, y = data(cls)
    X = X.astype(np.float32)
    weight = np.linspace(0.5, 2, len(y))
    more = {"classes": kind(np.arange(3))} if cls is MLPClassifier else {}
    expected = small(cls).fit(X, y, weight, X_val=X, y_val=y)
    model = small(cls).fit(kind(X), kind(y), kind(weight), X_val=kind(X), y_val=kind(y))
    same_weights(model, expected)
    assert model.coefs_[0].dtype == np.float32
    for method in ("predict", "transform"):
        result = getattr(model, method)(kind(X))
        assert type(result) is np.ndarray
        np.testing.assert_array_equal(result, getattr(expected, method)(X))
    assert model.score(kind(X), kind(y), kind(weight)) == expected.score(X, y, weight)
    small(cls).partial_fit(kind(X), kind(y), **more)


def test_a_tensor_that_has_a_gradient_is_refused():
    X, y = IRIS
    with pytest.raises(TypeError, match=r"Gradient cannot be taken.*requires grad"):
        small(MLPClassifier).fit(Gradient(X), y)


# ---------------------------------------------------------------- tensors on the GPU
class CudaTensor:
    """A tensor of another library on the GPU, which speaks DLPack and nothing else."""

    def __init__(self, array):
        import cupy

        self._array = cupy.asarray(array)

    def __dlpack__(self, **arguments):
        return self._array.__dlpack__(**arguments)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


@pytest.mark.parametrize("cls", BOTH)
def test_tensors_on_the_gpu(cls, cuda):
    import cupy

    X, y = (part[::10] for part in data(cls))
    X = X.astype(np.float32)
    weight = np.linspace(0.5, 2, len(y)).astype(np.float32)
    more = {"classes": CudaTensor(np.arange(3))} if cls is MLPClassifier else {}
    expected = small(cls, device=cuda).fit(X, y, weight)
    tensors = [CudaTensor(array) for array in (X, y, weight)]
    model = small(cls, device=cuda).fit(*tensors, X_val=tensors[0], y_val=tensors[1])
    same_weights(model, expected)
    for method in ("predict", "transform"):
        result = getattr(model, method)(tensors[0])
        assert isinstance(result, cupy.ndarray)
        np.testing.assert_array_equal(cupy.asnumpy(result), getattr(expected, method)(X))
    assert model.score(*tensors) == expected.score(X, y, weight)
    small(cls, device=cuda).partial_fit(*tensors[:2], **more)
    with pytest.raises(TypeError, match="on a GPU"):
        small(cls, device="cpu").fit(*tensors)


def test_several_labels_on_the_gpu_need_no_classes(cuda):
    import cupy

    X, y = (part[::10] for part in IRIS)
    labels = np.c_[y == 0, y > 0].astype(np.int64)
    model = small(MLPClassifier, device=cuda).partial_fit(cupy.asarray(X), cupy.asarray(labels))
    expected = small(MLPClassifier, device=cuda).partial_fit(X, labels)
    result = model.predict(cupy.asarray(X))
    np.testing.assert_array_equal(cupy.asnumpy(result), expected.predict(X))


# ---------------------------------------------------------------- sparse matrices
FORMATS = ["csr", "csc", "coo", "lil", "dok", "bsr"]


@pytest.mark.parametrize("shape", ["matrix", "array"])
@pytest.mark.parametrize("layout", FORMATS)
def test_sparse_matrices_of_scipy(layout, shape):
    X, y = IRIS
    X = np.where(np.abs(X) > 0.5, X, 0)
    given = getattr(sparse, f"{layout}_{shape}")(X)
    model = small(MLPClassifier).fit(given, y)
    same_weights(model, small(MLPClassifier).fit(X, y))
    for method in ("predict", "predict_proba", "transform"):
        found, expected = getattr(model, method)(given), getattr(model, method)(X)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_sparse_matrices_on_the_gpu(cuda):
    """They stay there."""
    import cupy

    X, y = (part[::3] for part in IRIS)
    X = sparse.csr_matrix(np.where(np.abs(X) > 6.2, X, 0))
    assert X.nnz < 0.1 * X.shape[0] * X.shape[1]
    given, arguments = on_gpu(X), {"device": cuda, "batch_size": 16}
    for changes in ({}, {"early_stopping": True}, {"solver": "lbfgs"}, {"n_models": 2}):
        model = small(MLPClassifier, **arguments, **changes).fit(given, y)
        host = small(MLPClassifier, **arguments, **changes).fit(X, y)
        for method in ("predict", "predict_proba", "transform"):
            result = getattr(model, method)(given)
            assert isinstance(result, cupy.ndarray)
            np.testing.assert_array_equal(cupy.asnumpy(result), getattr(host, method)(X))
        assert model.score(given, y) == host.score(X, y)
    with pytest.raises(ValueError, match="4 features"):
        model.predict(on_gpu(X[:, :3]))


def test_cupyx_has_what_is_asked_of_its_sparse_matrices():
    """On the classes themselves, in a process in which no stand-in has CuPy's place."""
    program = """
import sys
try:
    from cupyx.scipy import sparse
except ImportError as error:
    sys.exit(f"skip: {error}")
for kind in (sparse.csr_matrix, sparse.csc_matrix, sparse.coo_matrix):
    for name in ("toarray", "tocsr", "get", "device", "astype", "__getitem__"):
        assert hasattr(kind, name), (kind, name)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if "skip:" in done.stderr:
        pytest.skip(f"CuPy is not installed: {done.stderr}")
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- small devices
@pytest.mark.parametrize("where", ["host", "gpu", "sparse"])
@pytest.mark.parametrize("cls", BOTH)
def test_predictions_on_a_device_with_little_memory(cls, where, cuda, counters, monkeypatch):
    """The rows go in chunks that fit, also where that is less than a chunk would usually have."""
    import cupy

    X, y = data(cls)
    model = small(cls, device=cuda, hidden_layer_sizes=(64,), max_iter=1).fit(X[::10], y[::10])
    X = np.tile(X, (4, 1)).astype(np.float32)
    given = {"host": X, "gpu": cupy.asarray(X), "sparse": sparse.csr_array(X)}[where]
    expected = {name: getattr(model, name)(X) for name in ("predict", "transform")}
    model = pickle.loads(pickle.dumps(model))  # which has no workspaces yet
    model.predict(X[:1])

    for name, values in expected.items():
        counters.leave(monkeypatch, 50_000 + (values.nbytes if where == "gpu" else 0))
        with counters.count() as done:
            found = array_io.host(getattr(model, name)(given))
        assert done.gemms > 2  # of two layers: more than one chunk
        np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-6)

    counters.leave(monkeypatch, 0)
    another = pickle.loads(pickle.dumps(model))
    with pytest.raises(MemoryError, match="out of memory on cuda:0"):
        another.predict(given)
