"""What scikit-learn's users and tools expect of MLPClassifier and MLPRegressor."""

import copy
import inspect
import pickle
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy import sparse
from sklearn import datasets, neural_network
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils.estimator_checks import check_estimator

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from tests import standin

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

BOTH = [MLPClassifier, MLPRegressor]
IRIS = scale(datasets.load_iris().data), datasets.load_iris().target
DIABETES = scale(datasets.load_diabetes().data), scale(datasets.load_diabetes().target)


def data(cls):
    return IRIS if issubclass(cls, MLPClassifier) else DIABETES


def small(cls, **arguments):
    return cls(**({"hidden_layer_sizes": (5,), "max_iter": 5, "random_state": 0} | arguments))


def fitted(cls, **arguments):
    return small(cls, **arguments).fit(*data(cls))


def same_weights(a, b):
    for name in ("coefs_", "intercepts_"):
        for mine, its in zip(getattr(a, name), getattr(b, name), strict=True):
            np.testing.assert_array_equal(mine, its)


# ---------------------------------------------------------------- scikit-learn's checks
@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("arguments", [{}, {"solver": "lbfgs"}])
def test_check_estimator(cls, arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks fit in a few iterations, and warn of their own
        results = check_estimator(cls(max_iter=60, **arguments), on_fail=None)
    assert len(results) > 50
    wrong = [r for r in results if r["status"] not in ("passed", "skipped")]
    assert not wrong, "\n".join(f"{r['check_name']}: {r['exception']!r}" for r in wrong)
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    # They want an environment variable, and a method that exists only without predict_proba.
    assert skipped <= {
        "check_array_api_input",
        "check_classifiers_multilabel_output_format_decision_function",
    }


@pytest.mark.parametrize("cls", BOTH)
def test_parameters_are_scikit_learns_and_then_ours(cls):
    theirs = inspect.signature(getattr(neural_network, cls.__name__)).parameters
    mine = inspect.signature(cls).parameters
    assert list(mine)[: len(theirs)] == list(theirs)
    for name, parameter in theirs.items():
        assert (mine[name].default, mine[name].kind) == (parameter.default, parameter.kind), name
    ours = list(mine)[len(theirs) :]
    assert all(mine[name].kind is inspect.Parameter.KEYWORD_ONLY for name in ours)
    assert {"device", "dtype", "dropout", "l1", "schedule", "scoring", "callbacks"} <= set(ours)


@pytest.mark.parametrize("cls", BOTH)
def test_methods_and_attributes_are_scikit_learns(cls):
    theirs = getattr(neural_network, cls.__name__)(max_iter=2).fit(*data(cls))
    mine = fitted(cls)
    public = {name for name in dir(theirs) if not name.startswith("_")}
    assert public - set(dir(mine)) <= {"loss"}
    for name in ("fit", "partial_fit", "predict", "score"):
        expected = list(inspect.signature(getattr(theirs, name)).parameters)
        assert list(inspect.signature(getattr(mine, name)).parameters)[: len(expected)] == expected


def test_kinds():
    assert is_classifier(MLPClassifier()) and is_regressor(MLPRegressor())
    assert MLPClassifier((3,), "tanh").activation == "tanh"
    assert MLPRegressor("poisson", (3,), "tanh").loss == "poisson"


# ---------------------------------------------------------------- copies and files
@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("how", ["pickle", "deepcopy", "joblib"])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_copies_predict_and_train_on_as_the_original(cls, how, solver, tmp_path):
    X, y = data(cls)
    original = fitted(cls, solver=solver, learning_rate="invscaling")
    if how == "joblib":
        joblib.dump(original, tmp_path / "model")
        other = joblib.load(tmp_path / "model")
    else:
        other = pickle.loads(pickle.dumps(original)) if how == "pickle" else copy.deepcopy(original)
    np.testing.assert_array_equal(other.predict(X), original.predict(X))
    for _ in range(2):
        original.partial_fit(X, y)
        other.partial_fit(X, y)
    same_weights(original, other)
    assert original.loss_curve_ == other.loss_curve_


def test_pickle_keeps_learned_slopes_and_changed_weights():
    X, _ = IRIS
    original = fitted(MLPClassifier, activation="prelu", learning_rate_init=0.1)
    assert original._engine.net.slope[1] != 0.25
    original.coefs_[0][0] = 3
    other = pickle.loads(pickle.dumps(original))
    np.testing.assert_array_equal(other.predict_proba(X), original.predict_proba(X))
    assert other.coefs_[0][0, 0] == 3


def test_pickle_of_objects_among_the_parameters():
    X, _ = IRIS
    original = fitted(
        MLPClassifier,
        activation=gpumlp.activations["leaky_relu"](slope=0.3),
        loss=gpumlp.losses["focal"](gamma=1.5),
        schedule=gpumlp.schedules["cosine"](),
        callbacks=[gpumlp.EarlyStopping(patience=3)],
    )
    other = pickle.loads(pickle.dumps(original))
    np.testing.assert_array_equal(other.predict_proba(X), original.predict_proba(X))
    assert repr(other.activation) == "leaky_relu(slope=0.3)"
    assert clone(other).fit(*IRIS).loss_curve_ == original.loss_curve_


@pytest.mark.parametrize("cls", BOTH)
def test_clone(cls):
    original = fitted(cls, dropout=0.1, hidden_layer_sizes=[4, 3])
    other = clone(original)
    assert other.get_params() == original.get_params()
    with pytest.raises(NotFittedError):
        other.predict(data(cls)[0])
    with pytest.raises(AttributeError, match="before fit"):
        _ = other.coefs_


# ---------------------------------------------------------------- tools around an estimator
def test_pipeline_and_grid_search():
    X, y = datasets.load_iris(return_X_y=True)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), MLPClassifier(max_iter=60, random_state=0)),
        {
            "mlpclassifier__hidden_layer_sizes": [(4,), (8, 4)],
            "mlpclassifier__activation": ["tanh", ["relu", "gelu"], "relu"],
            "mlpclassifier__learning_rate_init": [0.05],
        },
        cv=3,
        error_score=-1.0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two activations do not fit one layer
        search.fit(X, y)
    assert search.best_score_ > 0.9
    failed = search.cv_results_["mean_test_score"] == -1
    assert failed.sum() == 1


def test_cross_validation_in_processes():
    X, y = IRIS
    model = small(MLPClassifier, max_iter=40, learning_rate_init=0.05)
    alone = cross_val_score(model, X, y)
    np.testing.assert_array_equal(cross_val_score(model, X, y, n_jobs=2), alone)


def test_hidden_layer_as_features_of_a_pipeline():
    from sklearn.linear_model import LogisticRegression

    X, y = IRIS
    model = make_pipeline(small(MLPClassifier, max_iter=100), LogisticRegression())
    assert model.fit(X, y).score(X, y) > 0.9
    assert model[-1].n_features_in_ == 5


def test_metadata_routing():
    X, y = IRIS
    weight = np.linspace(0, 1, len(X))
    with sklearn.config_context(enable_metadata_routing=True):
        model = small(MLPClassifier).set_fit_request(sample_weight=True, X_val=False, y_val=False)
        model.set_score_request(sample_weight=True)
        scores = cross_validate(model, X, y, params={"sample_weight": weight})["test_score"]
        assert len(scores) == 5
        pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), model).fit(
            X, y, sample_weight=weight
        )
    direct = clone(model).fit(StandardScaler().fit_transform(X), y, sample_weight=weight)
    same_weights(pipeline[-1], direct)


def test_several_outputs_by_scikit_learns_own_means():
    X, y = IRIS
    both = np.c_[y, (y == 1).astype(int)]
    model = MultiOutputClassifier(small(MLPClassifier, max_iter=60, learning_rate_init=0.05))
    assert model.fit(X, both).predict(X).shape == (150, 2)


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
    """Made dense at once, or, where that would be too much, a few batches at a time."""
    X, y = data(cls)
    X = np.where(np.abs(X) > 0.5, X, 0)
    weight = np.linspace(0, 2, len(X))
    arguments = {"batch_size": 16, "solver": solver, "early_stopping": solver == "adam"}
    dense = small(cls, **arguments).fit(X, y, weight)
    for limit in (1 << 30, 0):
        monkeypatch.setattr("gpumlp.estimator.data.DENSE_BYTES", limit)
        monkeypatch.setattr("gpumlp.estimator.data.PIECE_BYTES", 5000)
        other = small(cls, **arguments).fit(kind(X), y, weight)
        np.testing.assert_allclose(other.coefs_[0], dense.coefs_[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(other.loss_, dense.loss_, rtol=1e-12)
        if solver == "adam":
            np.testing.assert_allclose(other.validation_scores_, dense.validation_scores_)
        np.testing.assert_array_equal(other.predict(kind(X)), other.predict(X))


def test_sparse_pieces_without_weight(monkeypatch):
    X, y = IRIS
    weight = np.r_[np.zeros(40), np.ones(110)]
    arguments = {"batch_size": 5, "shuffle": False}
    dense = small(MLPClassifier, **arguments).fit(X, y, weight)
    monkeypatch.setattr("gpumlp.estimator.data.DENSE_BYTES", 0)
    monkeypatch.setattr("gpumlp.estimator.data.PIECE_BYTES", 800)
    other = small(MLPClassifier, **arguments).fit(sparse.csr_matrix(X), y, weight)
    np.testing.assert_allclose(other.coefs_[0], dense.coefs_[0], rtol=1e-12)
    np.testing.assert_allclose(other.loss_curve_, dense.loss_curve_, rtol=1e-12)


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


# ---------------------------------------------------------------- errors and warnings
@pytest.mark.parametrize("name, value", [
    ("hidden_layer_sizes", (3, 0)), ("hidden_layer_sizes", -1), ("hidden_layer_sizes", (2.5,)),
    ("hidden_layer_sizes", "wide"), ("activation", "cosine"), ("activation", ["relu", "tanh"]),
    ("solver", "newton"), ("alpha", -1), ("alpha", "much"), ("alpha", np.nan), ("batch_size", 0),
    ("batch_size", 1.5), ("learning_rate", "fast"), ("learning_rate_init", 0), ("power_t", -1),
    ("max_iter", 0), ("shuffle", "yes"), ("random_state", "seed"), ("random_state", -1),
    ("tol", -1),
    ("verbose", "loud"), ("warm_start", None), ("momentum", 1.1), ("nesterovs_momentum", 2),
    ("early_stopping", "no"), ("validation_fraction", 1), ("beta_1", 1), ("beta_2", -0.1),
    ("epsilon", 0), ("n_iter_no_change", 0), ("max_fun", 0), ("loss", "zero_one"),
    ("device", "tpu"), ("dtype", "float16"), ("output_activation", "cosine"), ("l1", -1),
    ("weight_decay", -1), ("dropout", 1), ("dropout", [0.1, 0.2]), ("schedule", "never"),
    ("clip_norm", 0), ("scoring", 3), ("callbacks", "all"), ("keep_optimizer", 1),
])  # fmt: skip
@pytest.mark.parametrize("cls", BOTH)
def test_parameters_out_of_range(cls, name, value):
    model = small(cls).set_params(**{name: value})
    with pytest.raises(ValueError, match=name if name != "scoring" else "scoring"):
        model.fit(*data(cls))


@pytest.mark.parametrize("arguments, message", [
    ({"label_smoothing": 1}, "label_smoothing"),
    ({"label_smoothing": 0.1, "loss": "hinge"}, "label_smoothing has no meaning"),
    ({"class_weight": "fair"}, "class_weight"),
    ({"class_weight": {0: 1, 7: 2}}, "class"),
    ({"output_activation": "tanh"}, "needs output"),
    ({"solver": "lbfgs", "dropout": 0.1}, "lbfgs"),
    ({"solver": "lbfgs", "l1": 0.1}, "lbfgs"),
    ({"solver": "sgd", "weight_decay": 0.1}, "weight_decay needs solver='adam'"),
    ({"schedule": "cosine", "learning_rate": "adaptive"}, "not both"),
])  # fmt: skip
def test_parameters_that_do_not_go_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(MLPClassifier, **arguments).fit(*IRIS)


@pytest.mark.parametrize("cls", BOTH)
def test_data_that_cannot_be_used(cls):
    X, y = data(cls)
    for bad in (np.nan, np.inf):
        broken = X.copy()
        broken[3, 1] = bad
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            small(cls).fit(broken, y)
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            fitted(cls).predict(broken)
    with pytest.raises(ValueError, match="infinity or a value too large"):
        small(cls, dtype="float32").fit(X * 1e300, y)
    for weight, message in [
        (np.ones(3), "shape"),
        (-np.ones(len(X)), "negative"),
        (np.zeros(len(X)), "zero"),
        (np.full(len(X), np.nan), "NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            small(cls).fit(X, y, weight)
    with pytest.raises(ValueError, match="validation set is too small"):
        small(cls, early_stopping=True, validation_fraction=0.3).fit(X[:2], y[:2])
    with pytest.raises(NotFittedError):
        cls().predict(X)


def test_targets_that_cannot_be_used():
    X, y = DIABETES
    with pytest.raises(ValueError, match="continuous"):
        small(MLPClassifier).fit(X, y)
    with pytest.raises(ValueError, match=r"poisson_deviance takes \[0, inf\]"):
        small(MLPRegressor, loss="poisson").fit(X, y)
    with pytest.raises(ValueError, match=r"too large|infinity"):
        small(MLPRegressor, dtype="float32").fit(X, y * 1e300)


def test_a_diverging_fit_ends_with_an_error():
    X, y = DIABETES
    model = small(MLPRegressor, solver="sgd", learning_rate_init=1e3, activation="identity")
    with pytest.raises(ValueError, match=r"non-finite.*learning_rate_init"):
        model.set_params(max_iter=200).fit(X, 1e3 * y)


def test_a_diverging_fit_with_early_stopping_keeps_the_best_weights():
    X, y = DIABETES
    model = small(
        MLPRegressor,
        solver="sgd",
        learning_rate_init=1e3,
        activation="identity",
        early_stopping=True,
        max_iter=200,
    )
    with pytest.warns(ConvergenceWarning, match="NaN or infinite"):
        model.fit(X, 1e3 * y)
    assert np.isnan(model.validation_scores_[-1]) and isinstance(
        model.validation_scores_[-1], float
    )
    assert np.isfinite(model.predict(X)).all()


@pytest.mark.filterwarnings("default")
def test_warnings():
    X, y = IRIS
    for solver in ("adam", "lbfgs"):
        with pytest.warns(ConvergenceWarning, match="has not converged") as seen:
            small(MLPClassifier, solver=solver, max_iter=2).fit(X, y)
        assert {warning.filename for warning in seen} == {__file__}
    with pytest.warns(UserWarning, match="batch_size = 1000"):
        small(MLPClassifier, batch_size=1000).fit(X, y)


# ---------------------------------------------------------------- what is shown
def test_verbose(capsys):
    X, y = IRIS
    small(MLPClassifier, verbose=True, early_stopping=True).fit(X, y)
    shown = capsys.readouterr().out
    assert "Iteration 5, loss = " in shown and "Validation score: " in shown
    small(MLPClassifier, verbose=True, solver="lbfgs").fit(X, y)
    assert "Iteration 5, loss = " in capsys.readouterr().out
    small(MLPClassifier, solver="sgd", learning_rate="adaptive", tol=9, verbose=2, max_iter=60).fit(
        X, y
    )
    shown = capsys.readouterr().out
    assert "The learning rate is now 0.0002." in shown
    small(MLPClassifier).fit(X, y)
    assert capsys.readouterr().out == ""


def test_repr_and_summary():
    model = small(MLPClassifier, hidden_layer_sizes=(5, 4), activation=["relu", "gelu"])
    assert repr(model).startswith("MLPClassifier(activation=['relu', 'gelu']")
    summary = model.fit(*IRIS).summary()
    assert "4 -> 5" in summary and "gelu" in summary and "float64, on cpu" in summary


# ---------------------------------------------------------------- the GPU's side
@pytest.mark.parametrize("arguments", [
    {},
    {"solver": "sgd", "early_stopping": True, "validation_fraction": 0.3},
    {"solver": "lbfgs"},
    {"activation": ["prelu", "gelu"], "hidden_layer_sizes": (4, 3), "dropout": 0.2},
])  # fmt: skip
@pytest.mark.parametrize("cls", BOTH)
def test_a_gpu_trains_as_the_cpu_does(cls, arguments, device):
    X, y = (part[::6] for part in data(cls))
    arguments = {"dtype": "float64", "max_iter": 3} | arguments
    expected = small(cls, device="cpu", **arguments).fit(X, y)
    model = small(cls, device=device, **arguments).fit(X, y)
    assert model._engine.net.device == ("cpu" if device == "cpu" else "cuda:0")
    np.testing.assert_allclose(model.loss_, expected.loss_, rtol=1e-9)
    for mine, its in zip(model.coefs_, expected.coefs_, strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(model.predict(X[:5]).shape, expected.predict(X[:5]).shape)
    if model.solver != "lbfgs" and not model.early_stopping:
        model.partial_fit(X, y), expected.partial_fit(X, y)
        np.testing.assert_allclose(model.coefs_[0], expected.coefs_[0], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("cls", BOTH)
def test_every_reported_loss_on_a_gpu(cls, cuda):
    X, y = (part[::5] for part in data(cls))
    targets = [y, (y > 0).astype(int)] if cls is MLPClassifier else [y, np.c_[y, y]]
    for target in targets:
        losses = ["log_loss"] if cls is MLPClassifier else ["squared_error", "poisson"]
        for loss in losses:
            seen = np.abs(target) if loss == "poisson" else target
            curves = [
                small(cls, loss=loss, device=where, dtype="float64").fit(X, seen).loss_curve_
                for where in ("cpu", cuda)
            ]
            np.testing.assert_allclose(*curves, rtol=1e-10)


@pytest.mark.parametrize("arguments", [
    {}, {"early_stopping": True, "validation_fraction": 0.3}, {"solver": "lbfgs"},
    {"early_stopping": True, "validation_fraction": 0.3, "scoring": "neg_log_loss"},
])  # fmt: skip
def test_arrays_on_the_gpu_stay_there(cuda, arguments):
    import cupy

    X, y = (part[::5] for part in IRIS)
    model = small(MLPClassifier, device=cuda, **arguments).fit(X, y)
    on_gpu = cupy.asarray(X)
    other = small(MLPClassifier, device=cuda, **arguments).fit(on_gpu, cupy.asarray(y))
    same_weights(model, other)
    for method in ("predict", "predict_proba", "predict_log_proba", "transform"):
        result = getattr(other, method)(on_gpu)
        assert isinstance(result, cupy.ndarray)
        np.testing.assert_array_equal(cupy.asnumpy(result), getattr(model, method)(X))
        assert isinstance(getattr(other, method)(X), np.ndarray)
    assert other.score(on_gpu, cupy.asarray(y)) == model.score(X, y)
    named = small(MLPClassifier, device=cuda).fit(on_gpu, np.array(["a", "b", "c"])[y])
    assert set(named.predict(on_gpu)) <= {"a", "b", "c"}


def test_regression_of_arrays_on_the_gpu(cuda):
    import cupy

    X, y = (part[::15] for part in DIABETES)
    model = small(MLPRegressor, device=cuda).fit(X, y)
    other = small(MLPRegressor, device=cuda).fit(cupy.asarray(X), y)
    same_weights(model, other)
    result = other.predict(cupy.asarray(X))
    assert isinstance(result, cupy.ndarray) and result.shape == (len(X),)
    np.testing.assert_array_equal(cupy.asnumpy(result), model.predict(X))


def test_arrays_on_the_gpu_that_cannot_be_used(cuda):
    import cupy

    X, y = (part[::5] for part in IRIS)
    broken = X.copy()
    broken[1, 1] = np.nan
    for bad, message in [(X[0], "shape"), (broken, "NaN"), (X[:5], "samples")]:
        with pytest.raises(ValueError, match=message):
            small(MLPClassifier, device=cuda).fit(cupy.asarray(bad), y)
    model = small(MLPClassifier, device=cuda).fit(cupy.asarray(X), y)
    with pytest.raises(ValueError, match="features"):
        model.predict(cupy.asarray(X[:, :2]))
    with pytest.raises(TypeError, match="on a GPU"):
        small(MLPClassifier, device="cpu").fit(cupy.asarray(X), y)


def test_tensors_and_frames():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    X, y = IRIS
    model = fitted(MLPClassifier)
    same_weights(model, small(MLPClassifier).fit(torch.from_numpy(X), torch.from_numpy(y)))
    same_weights(model, small(MLPClassifier).fit(pd.DataFrame(X), pd.Series(y)))
    np.testing.assert_array_equal(model.predict(torch.from_numpy(X)), model.predict(X))


def test_float64_becomes_float32_on_a_gpu(cuda):
    X, y = (part[::6] for part in IRIS)
    model = small(MLPClassifier, device=cuda, max_iter=2).fit(X, y)
    assert model.coefs_[0].dtype == np.float32
    assert model.predict_proba(X).dtype == np.float32


def test_weights_can_be_changed_on_a_gpu(cuda):
    X, y = (part[::20] for part in DIABETES)
    model = small(MLPRegressor, device=cuda, max_iter=1, activation="identity").fit(X, y)
    model.coefs_[0][...] = 0
    model.intercepts_[0][...] = 0
    np.testing.assert_allclose(model.predict(X), np.full(len(X), model.intercepts_[1]), rtol=1e-6)


def test_a_model_of_a_gpu_loads_where_there_is_none(cuda, tmp_path):
    X, y = (part[::6] for part in IRIS)
    model = small(MLPClassifier, device=cuda, activation="prelu").fit(X, y)
    joblib.dump((model, X, model.predict_proba(X)), tmp_path / "model")
    program = f"""
import sys
sys.modules["cupy"] = None  # as if it were not installed
import joblib, numpy as np
model, X, expected = joblib.load({str(tmp_path / "model")!r})
np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-5)
model.set_params(device="cpu").partial_fit(X, model.predict(X))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_device_memory_is_released_with_the_estimator(cuda, counters):
    import gc

    X, y = (part[::6] for part in IRIS)
    start = standin.counters.current_bytes
    gc.disable()  # cycles would keep the memory until the collector runs
    try:
        for arguments in (
            {"early_stopping": True, "validation_fraction": 0.3},
            {"solver": "lbfgs"},
        ):
            model = small(MLPClassifier, device=cuda, max_iter=2, **arguments).fit(X, y)
            model.predict(X)
            assert standin.counters.current_bytes > start
            model.fit(X, y)
            del model
            assert standin.counters.current_bytes == start
    finally:
        gc.enable()


def test_two_estimators_train_in_two_threads():
    from concurrent.futures import ThreadPoolExecutor

    X, y = IRIS
    alone = [small(MLPClassifier, random_state=seed, max_iter=30).fit(X, y) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(small(MLPClassifier, random_state=seed, max_iter=30).fit, X, y)
            for seed in range(4)
        ]
        for job, expected in zip(jobs, alone, strict=True):
            same_weights(job.result(), expected)


def test_one_estimator_predicts_in_several_threads():
    from concurrent.futures import ThreadPoolExecutor

    X, _ = IRIS
    model = fitted(MLPClassifier)
    parts = [X[start : start + 37] for start in range(100)] * 3
    expected = [model.predict_proba(part) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        for got, want in zip(pool.map(model.predict_proba, parts), expected, strict=True):
            np.testing.assert_array_equal(got, want)
