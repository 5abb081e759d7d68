"""What scikit-learn's users and tools expect of MLPClassifier and MLPRegressor."""

import copy
import inspect
import pickle
import warnings
from importlib.util import find_spec

import joblib
import numpy as np
import pytest
import sklearn
from sklearn import datasets, neural_network
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from tests.helpers.estimators import BOTH, IRIS, data, fitted, same_weights, small

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


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
    known = {
        "check_array_api_input",
        "check_classifiers_multilabel_output_format_decision_function",
    }
    if not find_spec("pandas"):
        known |= {"check_sample_weights_pandas_series", "check_classifier_data_not_an_array"}
        known |= {"check_regressor_data_not_an_array"}
    assert skipped <= known


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
    original = fitted(cls, solver=solver, learning_rate="invscaling", dropout=0.2)
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


def test_display_in_a_notebook():
    model = small(MLPClassifier)
    assert "parameters, float64" not in model._repr_mimebundle_()["text/html"]
    model.fit(*IRIS)
    shown = model._repr_mimebundle_()
    assert "<pre>" in shown["text/html"] and "4 -&gt; 5" in shown["text/html"]
    assert shown["text/plain"] == repr(model)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_plot(early_stopping, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib, which draws the curves, is not installed")
    model = fitted(MLPClassifier, early_stopping=early_stopping)
    figure = model.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    panels = [axes.get_ylabel() for axes in figure.axes]
    assert panels == ["loss", "validation score"][: 1 + early_stopping]
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), model.loss_curve_)
    with pytest.raises(ValueError, match="no curves"):
        fitted(MLPClassifier, solver="lbfgs").plot()
