"""What the estimators take and give: kinds of data, weights in a user's hands, going on."""

import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn import datasets
from sklearn.exceptions import DataConversionWarning

from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.estimators import estimator_rows
from gpumlp.model.shape import NetworkShape
from tests.helpers.estimators import BOTH, DIABETES, IRIS, data, fitted, same_weights, small
from tests.helpers.optional import Package

pd = Package("pandas")

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


# ---------------------------------------------------------------- kinds of data
def test_labels_of_every_kind():
    X, y = IRIS
    names = np.array(["setosa", "versicolor", "virginica"])
    expected = fitted(MLPClassifier).predict(X)
    for labels in (names, names.astype(object), np.array([-3, 0, 10]), np.array([0.0, 1.0, 2.0])):
        model = small(MLPClassifier).fit(X, labels[y])
        np.testing.assert_array_equal(model.classes_, np.sort(labels))
        np.testing.assert_array_equal(model.predict(X), labels[expected])
    model = small(MLPClassifier).fit(X, y == 1)
    assert model.predict(X).dtype == bool and model.out_activation_ == "logistic"


def test_a_single_class():
    X = IRIS[0][:20]
    model = small(MLPClassifier).fit(X, np.full(20, "only"))
    assert list(model.predict(X[:3])) == ["only"] * 3
    assert model.predict_proba(X).shape == (20, 1)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, sparse.coo_array])
@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_sparse_equals_dense(cls, kind, solver, monkeypatch):
    """Made dense where it is rather full, else left sparse."""
    X, y = data(cls)
    X = np.where(np.abs(X) > 0.5, X, 0)
    weight = np.linspace(0, 2, len(X))
    arguments = {"batch_size": 16, "solver": solver, "early_stopping": solver == "adam"}
    dense = small(cls, **arguments).fit(X, y, weight)
    for full in (0.0, 1.0):
        monkeypatch.setattr("gpumlp.estimators.estimator_rows.FULL", full)
        other = small(cls, **arguments).fit(kind(X), y, weight)
        assert other._engine.spec.sparse == bool(full)
        np.testing.assert_allclose(other.coefs_[0], dense.coefs_[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(other.loss_, dense.loss_, rtol=1e-12)
        if solver == "adam":
            np.testing.assert_allclose(other.validation_scores_, dense.validation_scores_)
        np.testing.assert_array_equal(other.predict(kind(X)), other.predict(X))


def test_sparse_batches_without_weight(monkeypatch):
    X, y = IRIS
    weight = np.r_[np.zeros(40), np.ones(110)]
    arguments = {"batch_size": 5, "shuffle": False}
    dense = small(MLPClassifier, **arguments).fit(X, y, weight)
    monkeypatch.setattr("gpumlp.estimators.estimator_rows.FULL", 1.0)
    other = small(MLPClassifier, **arguments).fit(sparse.csr_matrix(X), y, weight)
    np.testing.assert_allclose(other.coefs_[0], dense.coefs_[0], rtol=1e-12)
    np.testing.assert_allclose(other.loss_curve_, dense.loss_curve_, rtol=1e-12)


def test_sparse_predictions_in_chunks(monkeypatch):
    """More chunks than features."""
    X, y = IRIS
    model = small(MLPClassifier).fit(X, y)
    expected = model.predict_proba(X)
    monkeypatch.setattr(NetworkShape, "chunk_rows", 7)
    np.testing.assert_allclose(model.predict_proba(sparse.csr_array(X)), expected, rtol=1e-12)


@pytest.mark.parametrize("cls", BOTH)
def test_the_rows_of_partial_fits_take_turns(cls, device, monkeypatch):
    """Calls of as many rows share their buffers, which are not the user's; the numbers are those of
    calls with buffers of their own."""
    X, y = data(cls)
    parts = [slice(0, 40), slice(40, 80), slice(80, 120), slice(0, 31), slice(31, 62), slice(0, 40)]
    weights = [None, None, np.linspace(0.1, 2, 40), None, np.linspace(0.1, 2, 31), None]
    order = {"shuffle": device == "cpu"}
    models = [small(cls, device=device, batch_size=16, **order) for _ in range(2)]
    before = X.copy(), y.copy()
    shared = 0
    for part, weight in zip(parts, weights, strict=True):
        options = {"sample_weight": weight}
        if cls is MLPClassifier:
            options["classes"] = np.unique(y)
        for model, kept in zip(models, (1 << 20, 0), strict=True):
            monkeypatch.setattr("gpumlp.estimators.estimator_rows.KEPT_BYTES", kept)
            rows = model._engine.rows if hasattr(model, "_engine") else None
            model.partial_fit(X[part], y[part], **options)
            shared += rows is not None and model._engine.rows is rows
        same_weights(*models)
        assert models[1]._engine.rows is None
        models[0].set_params(shuffle=not models[0].shuffle)
        models[1].set_params(shuffle=not models[1].shuffle)
    assert shared == 1  # the second; later ones have weights or have not, or are fewer
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])
    again = [pickle.loads(pickle.dumps(model)) for model in models]
    for model in (*models, *again):
        model.partial_fit(X[:40], y[:40])
    same_weights(*models)
    same_weights(*again)


def test_several_labels_sparse_and_dense():
    X, y = datasets.make_multilabel_classification(80, 8, n_classes=3, random_state=0)
    dense = small(MLPClassifier).fit(X, y)
    other = small(MLPClassifier).fit(X, sparse.csr_matrix(y))
    same_weights(dense, other)
    assert sparse.issparse(other.predict(X))
    np.testing.assert_array_equal(other.predict(X).toarray(), dense.predict(X))


def test_feature_names():
    X, y = IRIS
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = small(MLPClassifier, early_stopping=True, scoring="roc_auc_ovr").fit(frame, y)
    assert list(model.feature_names_in_) == list("abcd")
    np.testing.assert_array_equal(model.predict(frame), model.predict(frame.copy()))
    with pytest.warns(UserWarning, match="feature names"):
        model.predict(X)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("bacd")])


def test_a_column_of_targets_warns():
    X, y = DIABETES
    with pytest.warns(DataConversionWarning):
        column = small(MLPRegressor).fit(X, y[:, None])
    same_weights(column, fitted(MLPRegressor))
    assert column.predict(X).shape == y.shape


@pytest.mark.parametrize("cls", BOTH)
def test_dtype(cls):
    X, y = data(cls)
    for dtype, given, working in [
        (None, np.float32, np.float32),
        (None, np.float64, np.float64),
        (None, np.int64, np.float64),
        ("float32", np.float64, np.float32),
        (np.float64, np.float32, np.float64),
    ]:
        model = small(cls, dtype=dtype, solver="sgd").fit(X.astype(given), y)
        assert model.coefs_[0].dtype == working
        outputs = model.predict if cls is MLPRegressor else model.predict_proba
        assert outputs(X.astype(given)).dtype == working


def test_lbfgs_in_float32_searches_in_float64():
    X, y = IRIS
    single = small(MLPClassifier, solver="lbfgs", max_iter=30).fit(X.astype(np.float32), y)
    double = small(MLPClassifier, solver="lbfgs", max_iter=30).fit(X, y)
    assert single.coefs_[0].dtype == np.float32
    assert single.loss_ == pytest.approx(double.loss_, rel=1e-3)


# ---------------------------------------------------------------- weights in a user's hands
def test_weights_can_be_changed_in_place_item_by_item_and_as_a_whole():
    X, y = DIABETES
    model = fitted(MLPRegressor, activation="identity")

    def by_hand():
        (W1, W2), (b1, b2) = model.coefs_, model.intercepts_
        return ((X @ W1 + b1) @ W2 + b2).ravel()

    np.testing.assert_allclose(model.predict(X), by_hand())
    model.coefs_[0][...] *= 2
    np.testing.assert_allclose(model.predict(X), by_hand())
    model.intercepts_[1] = np.array([5.0])
    np.testing.assert_allclose(model.predict(X), by_hand())
    model.coefs_ = [np.ones((10, 5)), np.ones((5, 1))]
    np.testing.assert_allclose(model.predict(X), by_hand())
    held = model.coefs_[0]
    model.partial_fit(X, y)
    assert held is model.coefs_[0] and not np.all(held == 1)
    np.testing.assert_allclose(model.predict(X), by_hand())


def test_weights_of_an_earlier_fit_stay_what_they_were():
    model = fitted(MLPRegressor)
    held = model.coefs_[0]
    before = held.copy()
    model.set_params(random_state=1).fit(*DIABETES)
    np.testing.assert_array_equal(held, before)
    assert not np.array_equal(model.coefs_[0], before)


def test_weights_of_the_wrong_shape():
    model = fitted(MLPRegressor)
    model.coefs_[1] = np.ones((4, 1))
    with pytest.raises(ValueError, match=r"coefs_\[1\] has shape \(4, 1\); layer 2 takes \(5, 1\)"):
        model.predict(DIABETES[0])


def test_partial_fit_from_weights_that_were_set_before_any_fit():
    """One step by hand: a sigmoid layer of two units, one output."""
    X, y = np.array([[0.6, 0.8, 0.7]]), np.array([0])
    model = MLPClassifier(
        2, "logistic", solver="sgd", learning_rate_init=0.1, alpha=0.1, momentum=0, random_state=1
    )
    W1, b1 = np.array([[0.1, 0.2], [0.3, 0.1], [0.5, 0]]), np.array([0.1, 0.1])
    W2, b2 = np.array([[0.1], [0.2]]), np.array([1.0])
    model.coefs_ = [0, 0]
    model.coefs_[0], model.coefs_[1] = W1.copy(), W2.copy()
    model.intercepts_ = [b1.copy(), b2.copy()]
    model.partial_fit(X, y, classes=[0, 1])

    hidden = 1 / (1 + np.exp(-(X @ W1 + b1)))
    delta2 = 1 / (1 + np.exp(-(hidden @ W2 + b2))) - 0.0
    delta1 = delta2 @ W2.T * hidden * (1 - hidden)
    np.testing.assert_allclose(model.coefs_[1], W2 - 0.1 * (hidden.T @ delta2 + 0.1 * W2))
    np.testing.assert_allclose(model.coefs_[0], W1 - 0.1 * (X.T @ delta1 + 0.1 * W1))
    np.testing.assert_allclose(model.intercepts_[1], b2 - 0.1 * delta2[0])
    np.testing.assert_allclose(model.intercepts_[0], b1 - 0.1 * delta1[0])


# ---------------------------------------------------------------- warm_start and partial_fit
def test_partial_fit_errors():
    X, y = IRIS
    with pytest.raises(ValueError, match="classes must be passed"):
        small(MLPClassifier).partial_fit(X, y)
    for cls in BOTH:
        assert not hasattr(cls(solver="lbfgs"), "partial_fit")
        extra = {"classes": [0, 1, 2]} if cls is MLPClassifier else {}
        with pytest.raises(ValueError, match="early_stopping=True without X_val"):
            small(cls, early_stopping=True).partial_fit(*data(cls), **extra)
    model = small(MLPClassifier).partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="in the first call they were"):
        model.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"classes \[7\]"):
        model.partial_fit(X, np.where(y == 1, 7, y))
    with pytest.raises(ValueError, match="features"):
        model.partial_fit(X[:, :2], y)


def test_partial_fit_without_a_class():
    X, y = IRIS
    model = small(MLPClassifier).partial_fit(X[:50], y[:50], classes=[0, 1, 2])
    assert model.predict_proba(X).shape == (150, 3)


def test_warm_start_errors():
    X, y = IRIS
    model = fitted(MLPClassifier, warm_start=True)
    with pytest.raises(ValueError, match="same classes"):
        model.fit(X, np.minimum(y, 1))
    with pytest.raises(ValueError, match=r"sizes \(4, 5, 3\).*\(4, 6, 3\)"):
        model.set_params(hidden_layer_sizes=6).fit(X, y)
    model.set_params(warm_start=False).fit(X, y)
    assert model.coefs_[0].shape == (4, 6)


def test_a_new_fit_may_have_other_data():
    model = fitted(MLPClassifier)
    X, y = datasets.load_digits(return_X_y=True)
    model.fit(X[:100], y[:100])
    assert model.predict_proba(X).shape == (len(X), 10) and model.n_features_in_ == 64


@pytest.mark.parametrize("shape", [(40, 3), (3, 40)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_made_dense(shape, dtype, monkeypatch):
    """What has more than the part FULL of its places, and takes no more than DENSE_BYTES then."""
    X = sparse.csr_array(np.eye(*shape, dtype=dtype))
    size = X.toarray().nbytes
    for full, limit, dense in (
        (0.024, size, True),
        (0.025, size, False),
        (0.024, size - 1, False),
    ):
        monkeypatch.setattr("gpumlp.estimators.estimator_rows.FULL", full)
        monkeypatch.setattr("gpumlp.estimators.estimator_rows.DENSE_BYTES", limit)
        assert isinstance(estimator_rows.dense_if_full(X), np.ndarray) == dense
