"""Estimators to ONNX, to scikit-learn's and back."""

import json

import numpy as np
import pytest
from sklearn import neural_network

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from tests.helpers.estimators import BOTH, DIABETES, IRIS, data, fitted, same_weights, small
from tests.helpers.optional import Package

onnx, onnxruntime, pd = Package("onnx"), Package("onnxruntime"), Package("pandas")

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = IRIS
LABELS = np.eye(3, dtype=int)[Y] | np.eye(3, dtype=int)[(Y + 1) % 3]
NAMES = np.array(["no", "yes"])[(Y == 0).astype(int)]
CLASSIFIERS = {
    "several": (Y, {}),
    "two": (NAMES, {}),
    "one": (Y * 0, {}),
    "labels": (LABELS, {}),
    "log_softmax": (Y, {"output_activation": "log_softmax"}),
    "shares": (Y, {"loss": "binary_cross_entropy", "output_activation": "logistic"}),
    "float32": (Y, {"dtype": "float32", "activation": "tanh"}),
    "lbfgs": (NAMES, {"solver": "lbfgs"}),
}
SKLEARN_HAS = ["several", "two", "labels", "float32", "lbfgs"]


def classifier(kind):
    y, arguments = CLASSIFIERS[kind]
    return small(MLPClassifier, **arguments).fit(X, y)


@pytest.fixture
def onnx_file(tmp_path):
    """Where the library, which imports onnx itself, writes one."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    return tmp_path / "model.onnx"


def run_onnx(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


def shape_of(path):
    [output] = onnx.load(path).graph.output
    return output.type.tensor_type.shape.dim[1].dim_value


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_onnx_gives_probabilities(kind, onnx_file):
    model, path = classifier(kind), onnx_file
    gpumlp.export_onnx(model, path)
    dtype = model.coefs_[0].dtype
    given, expected = run_onnx(path, X.astype(dtype)), model.predict_proba(X)
    assert given.shape == expected.shape and shape_of(path) == expected.shape[1]
    np.testing.assert_allclose(given, expected, atol=1e-6 if dtype == "float32" else 1e-12)


def test_onnx_of_margins_and_regressors(onnx_file):
    path = onnx_file
    model = small(MLPClassifier, loss="hinge").fit(X, Y)
    gpumlp.export_onnx(model, path)
    np.testing.assert_allclose(run_onnx(path, X), model.decision_function(X), atol=1e-12)
    model = fitted(MLPRegressor)
    gpumlp.export_onnx(model, path)
    x = DIABETES[0]
    np.testing.assert_allclose(run_onnx(path, x)[:, 0], model.predict(x), atol=1e-12)


def test_onnx_says_which_classes_and_features(onnx_file, tmp_path):
    def about(**options):
        gpumlp.export_onnx(model, tmp_path / "model.onnx", **options)
        return {each.key: each.value for each in onnx.load(tmp_path / "model.onnx").metadata_props}

    model = small(MLPClassifier).fit(pd.DataFrame(X, columns=["a", "b", "c", "d"]), NAMES)
    told = {key: json.loads(value) for key, value in about().items()}
    assert told == {"classes": ["no", "yes"], "features": ["a", "b", "c", "d"]}
    assert about(metadata={"a": "b"}) == {"a": "b"}


@pytest.mark.parametrize("kind", SKLEARN_HAS)
def test_a_classifier_becomes_scikit_learns_and_back(kind):
    model = classifier(kind)
    its = gpumlp.to_sklearn(model)
    assert type(its) is neural_network.MLPClassifier
    tolerance = {"atol": 1e-6 if kind == "float32" else 1e-12}
    np.testing.assert_allclose(its.predict_proba(X), model.predict_proba(X), **tolerance)
    np.testing.assert_array_equal(its.predict(X), model.predict(X))
    assert its.n_iter_ == model.n_iter_ and its.solver == model.solver
    if kind != "lbfgs":
        assert its.loss_curve_ == model.loss_curve_ and its.t_ == model.t_
    back = MLPClassifier.from_sklearn(its, **({"dtype": "float32"} if kind == "float32" else {}))
    np.testing.assert_allclose(back.predict_proba(X), model.predict_proba(X), **tolerance)
    np.testing.assert_array_equal(back.predict(X), model.predict(X))


def test_a_regressor_becomes_scikit_learns_and_back():
    x, y = DIABETES
    for model in (
        fitted(MLPRegressor),
        small(MLPRegressor, loss="poisson").fit(x, np.exp(y)),
        small(MLPRegressor).fit(x, np.column_stack([y, -y])),
    ):
        its = gpumlp.to_sklearn(model)
        assert its.loss == model.loss
        np.testing.assert_allclose(its.predict(x), model.predict(x), atol=1e-12)
        back = MLPRegressor.from_sklearn(its)
        same_weights(back, model)
        np.testing.assert_array_equal(back.predict(x), model.predict(x))


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("cls", BOTH)
def test_scikit_learns_goes_on_here(cls, early):
    """Without momentum there is no state that would be lost."""
    x, y = data(cls)
    arguments = {"solver": "sgd", "momentum": 0.0, "random_state": 0, "max_iter": 4}
    its = getattr(neural_network, cls.__name__)(
        hidden_layer_sizes=(5,), early_stopping=early, **arguments
    ).fit(x, y)
    model = cls.from_sklearn(its, n_iter_no_change=7)
    assert model.get_params()["n_iter_no_change"] == 7 and model.momentum == 0.0
    np.testing.assert_allclose(model.predict(x), its.predict(x), atol=1e-12)
    for each in (its, model):
        each.set_params(warm_start=True, n_iter_no_change=7).fit(x, y)
    for mine, theirs in zip(model.coefs_, its.coefs_, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-9)
    np.testing.assert_allclose(model.loss_curve_, its.loss_curve_, atol=1e-9)
    assert model.t_ == its.t_
    if early:
        assert len(model.validation_loss_curve_) == len(model.validation_scores_) == 8


def test_from_scikit_learns_to_a_device(device):
    its = neural_network.MLPClassifier((5,), max_iter=3, random_state=0).fit(X, NAMES)
    model = MLPClassifier.from_sklearn(its, device=device)
    assert model.summary().count(device) >= 1
    np.testing.assert_allclose(model.predict_proba(X), its.predict_proba(X), atol=1e-5)
    model.partial_fit(X, NAMES)


@pytest.mark.parametrize("kind", [kind for kind in CLASSIFIERS if kind not in SKLEARN_HAS])
def test_what_scikit_learn_has_not(kind):
    with pytest.raises(ValueError, match="no output activation"):
        gpumlp.to_sklearn(classifier(kind))


def test_wrong_ways():
    with pytest.raises(ValueError, match="has no output activation"):
        gpumlp.to_sklearn(fitted(MLPRegressor, output_activation="logistic"))
    with pytest.raises(ValueError, match="no activation 'gelu'"):
        gpumlp.to_sklearn(fitted(MLPRegressor, activation="gelu"))
    with pytest.raises(ValueError, match="go with a network"):
        gpumlp.to_sklearn(classifier("two"), classes=[0, 1])
    with pytest.raises(TypeError, match="takes a fitted MLPRegressor of scikit-learn"):
        MLPRegressor.from_sklearn(neural_network.MLPClassifier((5,), max_iter=2).fit(X, Y))
    for function in (gpumlp.to_sklearn, lambda model: gpumlp.export_onnx(model, "none")):
        with pytest.raises(ValueError, match="not fitted"):
            function(MLPClassifier())
    with pytest.raises(ValueError, match="not fitted"):
        MLPClassifier.from_sklearn(neural_network.MLPClassifier())
