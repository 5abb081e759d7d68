"""Estimators on sparse matrices, which stay sparse: scikit-learn's numbers, and what goes on."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV as SklearnSearch
from sklearn.model_selection import KFold
from sklearn.neural_network import MLPClassifier as SklearnClassifier
from sklearn.neural_network import MLPRegressor as SklearnRegressor

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from tests.helpers.sparse import sparse_rows

X = sparse_rows(143, 71, 0.02)
X.data[X.indices % 7 == 3] *= np.random.default_rng(0).random((X.indices % 7 == 3).sum()) < 0.1
X.eliminate_zeros()
LABELS = np.random.default_rng(1).integers(0, 3, 143)
VALUES = np.random.default_rng(2).normal(size=(143, 2))
KINDS = {"classifier": (MLPClassifier, LABELS), "regressor": (MLPRegressor, VALUES)}
SKLEARN = {"classifier": SklearnClassifier, "regressor": SklearnRegressor}
QUICK = {"hidden_layer_sizes": (9,), "max_iter": 6, "random_state": 3, "batch_size": 32}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def make(kind, **options):
    return KINDS[kind][0](**({"dtype": "float64", "device": "cpu"} | QUICK | options))


def assert_same(found, expected, rtol=1e-9):
    for a, b in zip(found.coefs_, expected.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(found.loss_, expected.loss_, rtol=rtol)


def test_the_rows_here_stay_sparse():
    assert 0.01 < X.nnz / (143 * 71) < 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {"solver": "adam"},
        {"solver": "sgd", "learning_rate_init": 0.05, "learning_rate": "adaptive"},
        {"solver": "lbfgs", "max_iter": 9},
        {"solver": "adam", "early_stopping": True, "alpha": 0.1, "max_iter": 12},
        {"solver": "adam", "hidden_layer_sizes": (7, 5), "activation": "tanh", "shuffle": False},
    ],
    ids=str,
)
def test_scikit_learns_numbers(kind, options):
    y = KINDS[kind][1]
    if kind == "regressor" and options["solver"] == "lbfgs":
        y = y[:, 0]  # of several outputs scikit-learn's gradient is that of another loss
    arguments = QUICK | options
    if options["solver"] == "lbfgs":
        arguments = {name: value for name, value in arguments.items() if name != "batch_size"}
    expected = SKLEARN[kind](**arguments).fit(X, y)
    found = make(kind, **options).fit(X, y)
    assert found._engine.spec.sparse
    assert_same(found, expected)
    if options["solver"] != "lbfgs":
        np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_, rtol=1e-9)
    ask = "predict_proba" if kind == "classifier" else "predict"
    np.testing.assert_allclose(getattr(found, ask)(X), getattr(expected, ask)(X), rtol=1e-9)
    np.testing.assert_allclose(getattr(found, ask)(X.toarray()), getattr(found, ask)(X), rtol=1e-11)
    assert found.score(X, y) == pytest.approx(expected.score(X, y))


@pytest.mark.parametrize("kind", KINDS)
def test_each_device(kind, device):
    y = KINDS[kind][1]
    found = make(kind, device=device).fit(X, y)
    expected = make(kind, device=device).fit(X.toarray(), y)
    assert found._engine.net.shape.sparse and not expected._engine.net.shape.sparse
    assert_same(found, expected)
    np.testing.assert_allclose(found.transform(X), expected.transform(X.toarray()), rtol=1e-9)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_fits_go_on_with_other_rows(solver):
    """partial_fit and warm starts: dense rows, then sparse ones, then dense ones again.  The
    optimiser keeps its state."""
    parts = [slice(0, 50), slice(50, 100), slice(100, 143)]
    models = [make("classifier", solver=solver, batch_size=20) for _ in range(3)]
    for round_ in range(2):
        for i, part in enumerate(parts):
            for which, model in enumerate(models):
                rows = X[part]
                dense = which == 0 or (which == 1 and i != 1)
                given = rows.toarray() if dense else rows
                model.partial_fit(given, LABELS[part], classes=[0, 1, 2])
        assert [m._engine.spec.sparse for m in models] == [False, True, True], round_
    assert_same(models[1], models[0])
    assert_same(models[2], models[0])
    warm = [make("classifier", solver=solver, warm_start=True, keep_optimizer=True) for _ in "ab"]
    for model, second in zip(warm, (X, X.toarray()), strict=True):
        model.fit(X.toarray(), LABELS).fit(second, LABELS).fit(X.toarray(), LABELS)
    assert_same(*warm)


def test_predictions_of_sparse_rows_by_what_was_fitted_on_dense_ones():
    """Which goes on training as before, and is what it was in a pickle and in a file."""
    model = make("classifier", warm_start=True).fit(X.toarray(), LABELS)
    other = pickle.loads(pickle.dumps(model))
    expected = model.predict_proba(X.toarray())
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-11)
    np.testing.assert_allclose(other.predict_proba(X.tocsc()), expected, rtol=1e-11)
    model.partial_fit(X.toarray(), LABELS)
    other.partial_fit(X.toarray(), LABELS)
    assert_same(model, other, 1e-12)
    model.coefs_[0][5] += 1.0
    np.testing.assert_allclose(model.predict_proba(X), model.predict_proba(X.toarray()), rtol=1e-11)


def test_full_rows_are_dense_again_after_a_prediction_of_sparse_ones():
    full = np.random.default_rng(0).normal(size=X.shape)
    models = [make("classifier").partial_fit(full, LABELS, classes=[0, 1, 2]) for _ in "ab"]
    models[0].predict(X)
    assert models[0]._engine.spec.sparse
    for model in models:
        model.partial_fit(full, LABELS)
        assert not model._engine.spec.sparse
    assert_same(*models, 1e-12)


@pytest.mark.parametrize("models", [None, 2])
def test_a_large_validation_set_stays_sparse(models, monkeypatch):
    full = np.random.default_rng(0).normal(size=(100, 71))
    options = {"early_stopping": True, "n_models": models}
    given = LABELS[:100], X[100:], LABELS[100:]
    fitted = []
    for most in (1 << 30, 1000):
        monkeypatch.setattr("gpumlp.estimators.estimator_rows.DENSE_BYTES", most)
        y, X_val, y_val = given
        fitted.append(make("classifier", **options).fit(full, y, X_val=X_val, y_val=y_val))
    for a, b in zip(*(m.estimators_ if models else [m] for m in fitted), strict=True):
        assert_same(a, b)
        assert b._engine.spec.sparse and not a._engine.spec.sparse


def test_a_callback_may_ask_for_sparse_rows():
    seen = []

    class Ask(gpumlp.Callback):
        def on_epoch_end(self, trainer, history):
            seen.append((model.predict_proba(X), model.predict_proba(X.toarray())))

    model = make("classifier", callbacks=[Ask()])
    model.fit(X.toarray(), LABELS)
    assert len(seen) == 6
    for sparse_one, dense_one in seen:
        np.testing.assert_allclose(sparse_one, dense_one, rtol=1e-11)


@pytest.mark.parametrize("validation", ["sparse", "dense"])
@pytest.mark.parametrize("training", ["sparse", "dense"])
def test_validation_sets(training, validation):
    def form(rows, kind):
        return rows if kind == "sparse" else rows.toarray()

    options = {"early_stopping": True, "scoring": "neg_log_loss"}
    model = make("classifier", **options).fit(
        form(X[:100], training), LABELS[:100], X_val=form(X[100:], validation), y_val=LABELS[100:]
    )
    expected = make("classifier", **options).fit(
        X[:100].toarray(), LABELS[:100], X_val=X[100:].toarray(), y_val=LABELS[100:]
    )
    assert_same(model, expected)
    np.testing.assert_allclose(model.validation_scores_, expected.validation_scores_, rtol=1e-9)


@pytest.mark.parametrize(
    "options", [{}, {"bootstrap": True}, {"max_features": 0.5, "bootstrap": True}], ids=str
)
@pytest.mark.parametrize("kind", KINDS)
def test_ensembles(kind, options):
    y = KINDS[kind][1]
    found = make(kind, n_models=3, **options).fit(X, y)
    expected = make(kind, n_models=3, **options).fit(X.toarray(), y)
    np.testing.assert_allclose(found.predict(X), expected.predict(X.toarray()), rtol=1e-8)
    np.testing.assert_allclose(expected.predict(X), expected.predict(X.toarray()), rtol=1e-11)
    for a, b in zip(found.estimators_, expected.estimators_, strict=True):
        assert_same(a, b)
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.predict(X), found.predict(X))


@pytest.mark.parametrize("trained", [X, X.toarray()], ids=["sparse", "dense"])
def test_ensembles_predict_sparse_and_dense_rows_in_turn(trained):
    model = make("classifier", n_models=3).fit(trained, LABELS)
    again = pickle.loads(pickle.dumps(model))
    expected = model.predict_proba(X)
    for rows in (X.toarray(), X, X.toarray(), X):
        np.testing.assert_allclose(again.predict_proba(rows), expected, rtol=1e-11)
    again.estimators_[0].predict(X)
    for rows in (X.toarray(), X):
        np.testing.assert_allclose(again.predict_proba(rows), expected, rtol=1e-11)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("form", ["csr", "csc"])
def test_places_outside_of_the_matrix_are_refused(form, early_stopping, device):
    model = make("classifier", device=device, early_stopping=early_stopping)
    for part, value in (("indptr", 10**6), ("indices", -(10**6)), ("indices", 10**6)):
        spoiled = X.asformat(form, copy=True)
        getattr(spoiled, part)[3] = value
        with pytest.raises(ValueError, match=f"X is no {form.upper()} matrix"):
            model.fit(spoiled, LABELS)
    model.fit(X, LABELS)
    with pytest.raises(ValueError, match=f"x is no {form.upper()} matrix"):
        model.predict(spoiled)


def test_searches_train_stacks_of_sparse_rows(monkeypatch):
    grid = {"alpha": [1e-4, 1.0], "learning_rate_init": [1e-3, 1e-2]}
    cv = KFold(3, shuffle=True, random_state=0)
    found = gpumlp.GridSearchCV(make("classifier"), grid, cv=cv).fit(X, LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = SklearnSearch(SklearnClassifier(**QUICK), grid, cv=cv).fit(X, LABELS)
    np.testing.assert_allclose(
        found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"], rtol=1e-9
    )
    assert found.best_params_ == expected.best_params_
    assert found.best_estimator_._engine.spec.sparse


def test_files(tmp_path, device):
    model = make("classifier", device=device, early_stopping=True, warm_start=True)
    model.set_params(keep_optimizer=True).fit(X, LABELS)
    gpumlp.save(model, tmp_path / "model.npz")
    loaded = gpumlp.load(tmp_path / "model.npz", device=device)
    assert loaded._engine.spec.sparse
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    assert_same(loaded.fit(X, LABELS), model.fit(X, LABELS), 1e-13)


def test_scikit_learn_takes_it_over_and_back():
    model = make("regressor").fit(X, VALUES)
    theirs = gpumlp.to_sklearn(model)
    np.testing.assert_allclose(theirs.predict(X), model.predict(X), rtol=1e-9)
    back = MLPRegressor.from_sklearn(theirs)
    np.testing.assert_allclose(back.predict(X), model.predict(X), rtol=1e-6)


@pytest.mark.parametrize("spoil", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(spoil):
    spoiled = X.copy()
    spoiled.data[7] = spoil
    for ask in (lambda m: m.fit(spoiled, LABELS), lambda m: m.fit(X, LABELS).predict(spoiled)):
        with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
            ask(make("classifier"))
