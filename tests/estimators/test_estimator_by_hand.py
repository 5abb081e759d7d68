"""Attributes of a fit that users set: weights, classes, the output's activation, sizes; and those
that what scikit-learn has fitted may lack."""

import copy
import pickle

import numpy as np
import pytest
from sklearn import neural_network
from sklearn.exceptions import NotFittedError

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from tests.helpers.estimators import BOTH, DIABETES, IRIS, data, fitted, same_weights, small

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = IRIS
NAMES = np.array(["ant", "bee", "cow"])
TARGETS = {
    "two": np.array(["no", "yes"])[(Y == 0).astype(int)],
    "several": NAMES[Y],
    "labels": np.eye(3, dtype=int)[Y] | np.eye(3, dtype=int)[(Y + 1) % 3],
}
WEIGHTS = ("coefs_", "intercepts_")
FUNCTIONS = {
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "identity": lambda z: z,
    "logistic": lambda z: 1 / (1 + np.exp(-z)),
}


def copied(model, names, **arguments):
    """An estimator that was never fitted, with these attributes of one that was."""
    other = small(type(model), **arguments)
    for name in names:
        setattr(other, name, copy.deepcopy(getattr(model, name)))
    return other


def last_z(model, x):
    """z^(K), in float64, of a network with one hidden layer of relu."""
    (W1, W2), (b1, b2) = model.coefs_, model.intercepts_
    return np.maximum(x @ W1 + b1, 0) @ W2 + b2


# ---------------------------------------------------------------- instead of a fit
@pytest.mark.parametrize("also", [(), ("n_layers_", "n_outputs_", "out_activation_")])
@pytest.mark.parametrize("kind", TARGETS)
def test_a_classifier_of_weights_that_were_set(kind, also, device):
    model = small(MLPClassifier, dtype="float32").fit(X, TARGETS[kind])
    if kind == "labels" and not also:
        also = ("out_activation_",)  # else they are three classes
    other = copied(model, [*WEIGHTS, "classes_", *also], device=device)
    np.testing.assert_allclose(other.predict_proba(X), model.predict_proba(X), atol=1e-6)
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    for name in ("n_layers_", "n_outputs_", "out_activation_", "n_features_in_", "classes_"):
        np.testing.assert_array_equal(getattr(other, name), getattr(model, name))


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_a_regressor_of_weights_that_were_set(loss, device):
    x, y = DIABETES
    for values in (y, np.column_stack([y, -y])):
        model = small(MLPRegressor, loss=loss, dtype="float32").fit(x, np.exp(values))
        for also in ((), ("n_layers_", "n_outputs_", "out_activation_")):
            other = copied(model, [*WEIGHTS, *also], loss=loss, device=device)
            np.testing.assert_allclose(other.predict(x), model.predict(x), rtol=1e-5, atol=1e-6)
            assert len(other.get_feature_names_out()) == 5
            assert other.transform(x).shape == (len(x), 5)


@pytest.mark.parametrize("cls", BOTH)
def test_what_was_set_is_used_as_a_fit_is(cls, tmp_path):
    """Changed in place, pickled, saved, trained further."""
    x, y = data(cls)
    model = fitted(cls, solver="sgd", momentum=0.0)
    names = [*WEIGHTS, *(["classes_"] if cls is MLPClassifier else [])]
    other = copied(model, names, solver="sgd", momentum=0.0)
    again = pickle.loads(pickle.dumps(other))
    expected = model.predict(x)
    np.testing.assert_array_equal(other.predict(x), expected)
    np.testing.assert_array_equal(again.predict(x), expected)
    other.coefs_[1][...] = 0
    assert len(np.unique(other.predict(x))) == 1
    other.coefs_ = copy.deepcopy(model.coefs_)
    np.testing.assert_array_equal(other.predict(x), expected)
    gpumlp.save(again, tmp_path / "model")
    np.testing.assert_array_equal(gpumlp.load(tmp_path / "model").predict(x), expected)
    np.testing.assert_allclose(gpumlp.to_sklearn(again).predict(x), expected, atol=1e-12)
    for each in (model, other, again):
        each.partial_fit(x, y)
    same_weights(other, again)
    for mine, its in zip(other.coefs_, model.coefs_, strict=True):
        np.testing.assert_array_equal(mine, its)
    assert len(other.loss_curve_) == 1 and other.n_iter_ == 1


def test_what_is_missing_is_named():
    x, _ = DIABETES
    model = fitted(MLPRegressor)
    with pytest.raises(NotFittedError, match="has no intercepts_: set both"):
        copied(model, ["coefs_"]).predict(x)
    with pytest.raises(NotFittedError, match="has no coefs_: set both"):
        copied(model, ["intercepts_"]).transform(x)
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        copied(model, ["n_layers_", "n_outputs_"]).predict(x)
    with pytest.raises(NotFittedError, match="no classes_: set classes_ too"):
        copied(fitted(MLPClassifier), WEIGHTS).predict(X)


@pytest.mark.parametrize("name, value, message", [
    ("n_layers_", 4, "n_layers_ = 4, but coefs_ and intercepts_ make it 3"),
    ("n_outputs_", 2, "n_outputs_ = 2, but coefs_ and intercepts_ make it 3"),
    ("n_features_in_", 5, "n_features_in_ = 5, but coefs_ and intercepts_ make it 4"),
    ("coefs_", [np.ones((4, 5))], "coefs_ has 1 arrays"),
    ("coefs_", [np.ones((4, 5)), np.ones(5)], r"coefs_\[1\] has shape \(5,\)"),
    ("coefs_", [np.ones((4, 5)), np.ones((6, 3))], r"coefs_\[1\] is \(6, 3\)"),
    ("coefs_", [np.ones((4, 5)), np.full((5, 3), "1")], r"coefs_\[1\] has dtype <U1"),
    ("classes_", ["a", "b"], "classes_ has 2 labels.* 1 outputs; that of coefs_ has 3"),
])  # fmt: skip
def test_what_contradicts_the_weights_is_refused(name, value, message):
    model = fitted(MLPClassifier)
    other = copied(model, [*WEIGHTS, "classes_"])
    setattr(other, name, value)
    with pytest.raises((ValueError, TypeError), match=message):
        other.predict(X)


# ---------------------------------------------------------------- after a fit
@pytest.mark.parametrize("name", FUNCTIONS)
def test_another_output_after_a_fit(name, device):
    x, y = DIABETES
    model = fitted(MLPRegressor, dtype="float32", device=device)
    model.out_activation_ = name
    assert model.out_activation_ == name
    expected = FUNCTIONS[name](last_z(model, x)).ravel()
    np.testing.assert_allclose(model.predict(x), expected, atol=1e-5)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(other.predict(x), model.predict(x))
    model.partial_fit(x, y)
    assert model.out_activation_ == name
    expected = FUNCTIONS[name](last_z(model, x)).ravel()
    np.testing.assert_allclose(model.predict(x), expected, atol=1e-5)


def test_another_output_goes_on_from_a_file(tmp_path):
    x, y = DIABETES
    model = fitted(MLPRegressor)
    model.out_activation_ = gpumlp.activations["leaky_relu"](slope=0.3)
    gpumlp.save(model, tmp_path / "model")
    other = gpumlp.load(tmp_path / "model")
    for each in (model, other):
        each.partial_fit(x, y)
        z = last_z(each, x).ravel()
        np.testing.assert_allclose(each.predict(x), np.where(z > 0, z, 0.3 * z), atol=1e-12)
    same_weights(model, other)


def test_the_output_of_a_classifier_says_what_it_predicts():
    """A sigmoid's probabilities, or logits, of which 0 is the middle."""
    model = small(MLPClassifier).fit(X, TARGETS["two"])
    expected, probability = model.predict(X), model.predict_proba(X)[:, 1]
    model.out_activation_ = "identity"
    assert not hasattr(model, "predict_proba")
    logits = model.decision_function(X)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), probability, atol=1e-12)
    np.testing.assert_array_equal(model.predict(X), expected)


def test_an_output_that_is_none_is_refused():
    model = fitted(MLPRegressor)
    with pytest.raises(ValueError, match="out_activation_ = 'cosine'"):
        model.out_activation_ = "cosine"
    ensemble = fitted(MLPRegressor, n_models=2)
    with pytest.raises(ValueError, match="out_activation_ cannot be set for an ensemble"):
        ensemble.out_activation_ = "relu"
    assert ensemble.out_activation_ == "identity"


def test_outputs_of_members():
    x, _ = DIABETES
    model = fitted(MLPRegressor, n_models=2)
    model.estimators_[0].out_activation_ = "relu"
    with pytest.raises(ValueError, match="out_activation_ differs among the estimators_"):
        model.predict(x)
    model.estimators_[1].out_activation_ = "relu"
    members = [np.maximum(last_z(each, x), 0).ravel() for each in model.estimators_]
    np.testing.assert_allclose(model.predict(x), np.mean(members, axis=0), atol=1e-12)
    assert model.out_activation_ == "relu"


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("members", [None, 2])
def test_a_fit_that_begins_anew_says_that_it_sets_the_output(members, before):
    model = small(MLPRegressor)
    if before:
        model.fit(*DIABETES)
    model.out_activation_ = "relu"
    model.n_models = members
    with pytest.warns(UserWarning, match=r"out_activation_ = 'relu'.*output_activation=") as seen:
        model.fit(*DIABETES)
    assert model.out_activation_ == "identity"
    assert {warning.filename for warning in seen} == {__file__}
    model.fit(*DIABETES)


def test_other_classes_after_a_fit(tmp_path):
    model = fitted(MLPClassifier)
    codes = model.predict(X)
    model.classes_ = list(NAMES)
    np.testing.assert_array_equal(model.predict(X), NAMES[codes])
    model.partial_fit(X, NAMES[Y])
    gpumlp.save(model, tmp_path / "model")
    for other in (pickle.loads(pickle.dumps(model)), gpumlp.load(tmp_path / "model")):
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
    for wrong, message in [
        (["a", "b"], "network is one of 3 classes"),
        (["b", "a", "c"], "in ascending order"),
        (["a", "a", "c"], "each once"),
        ([["a", "b", "c"]], "in ascending order"),
        ([1, "a", None], "classes_"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            model.classes_ = wrong if None not in wrong else np.array(wrong, dtype=object)


def test_classes_that_were_set_are_those_of_partial_fit():
    model = small(MLPClassifier)
    model.classes_ = list(NAMES)
    expected = small(MLPClassifier).partial_fit(X, TARGETS["several"], classes=NAMES)
    same_weights(model.partial_fit(X, TARGETS["several"]), expected)


# ---------------------------------------------------------------- from scikit-learn's
ATTRIBUTES = """
    n_features_in_ n_iter_ t_ loss_ loss_curve_ best_loss_ validation_scores_ n_layers_ n_outputs_
    best_validation_score_ out_activation_ _label_binarizer _no_improvement_count _optimizer
    _random_state
""".split()


def theirs(cls, kind="several", **arguments):
    x, y = data(cls)
    y = TARGETS[kind] if cls is MLPClassifier else y
    made = getattr(neural_network, cls.__name__)(
        hidden_layer_sizes=(5,), max_iter=4, random_state=0, **arguments
    )
    return made.fit(x, y), x, y


@pytest.mark.parametrize("name", [*ATTRIBUTES, "all"])
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("cls", BOTH)
def test_every_attribute_may_be_absent(cls, kind, name):
    if cls is MLPRegressor and kind != "two":
        return
    its, x, y = theirs(cls, kind, early_stopping=name != "best_loss_")
    expected = its.predict(x)
    kept = {"out_activation_"} if kind == "labels" else set()  # else they are three classes
    for each in ATTRIBUTES if name == "all" else [name]:
        if each not in kept or (name != "all" and each == "out_activation_"):
            vars(its).pop(each, None)
    model, net = cls.from_sklearn(its), gpumlp.from_sklearn(its)
    outputs = net.forward(x)
    if cls is MLPRegressor:
        np.testing.assert_allclose(outputs.ravel(), expected, atol=1e-12)
        np.testing.assert_allclose(model.predict(x), expected, atol=1e-12)
    else:
        np.testing.assert_array_equal(model.predict(x), expected)
        probability = model.predict_proba(x)
        mine = probability[:, 1:] if kind == "two" else probability
        np.testing.assert_allclose(outputs, mine, atol=1e-12)
        if kind != "labels":
            assert net.metadata["classes"] == list(np.unique(y))
    model.set_params(early_stopping=False).partial_fit(x, y)
    model.set_params(warm_start=True, early_stopping=True).fit(x, y)


def test_weights_set_by_hand_on_scikit_learns():
    its, x, _ = theirs(MLPClassifier)
    bare = neural_network.MLPClassifier(hidden_layer_sizes=(5,))
    for name in WEIGHTS:
        setattr(bare, name, getattr(its, name))
    with pytest.raises(NotFittedError, match="classes_"):
        MLPClassifier.from_sklearn(bare)
    bare.classes_ = its.classes_
    np.testing.assert_array_equal(MLPClassifier.from_sklearn(bare).predict(x), its.predict(x))
    np.testing.assert_allclose(
        gpumlp.from_sklearn(bare).forward(x), its.predict_proba(x), atol=1e-12
    )
    del bare.intercepts_
    with pytest.raises(NotFittedError, match="no intercepts_"):
        MLPClassifier.from_sklearn(bare)
    with pytest.raises(ValueError, match="no intercepts_: set intercepts_"):
        gpumlp.from_sklearn(bare)


def test_a_parameter_that_an_old_pickle_lacks():
    its, x, _ = theirs(MLPRegressor, solver="lbfgs")
    del its.max_fun, its.n_iter_no_change
    model = MLPRegressor.from_sklearn(its)
    assert (model.max_fun, model.n_iter_no_change) == (15000, 10)
    np.testing.assert_allclose(model.predict(x), its.predict(x), atol=1e-12)


def test_an_output_that_was_set_on_scikit_learns():
    its, x, y = theirs(MLPRegressor)
    its.out_activation_ = "relu"
    model = MLPRegressor.from_sklearn(its)
    for predicted in (model.predict(x), gpumlp.from_sklearn(its).forward(x).ravel()):
        np.testing.assert_allclose(predicted, its.predict(x), atol=1e-12)
        assert (predicted == 0).any()
    assert model.partial_fit(x, y).out_activation_ == "relu"
