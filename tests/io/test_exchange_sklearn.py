"""Networks from scikit-learn's estimators and as them: both predict the same."""

import json

import numpy as np
import pytest
from sklearn import datasets
from sklearn.exceptions import NotFittedError
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

import gpumlp
from tests.helpers.comparison import to_numpy
from tests.helpers.networks import network, rows

EVERY = list(gpumlp.activations)
HIDDEN = [name for name, f in gpumlp.activations.items() if not f.rows]


def table(name, dtype="float64"):
    data = getattr(datasets, f"load_{name}")()
    return StandardScaler().fit_transform(data.data).astype(dtype), data


def fitted(kind, x, y, **arguments):
    """A few epochs: what matters is that the weights are those of a fit."""
    arguments = {"hidden_layer_sizes": (7, 5), "random_state": 0} | arguments
    estimator = kind(**arguments)
    classes = {} if kind is MLPRegressor or np.ndim(y) > 1 else {"classes": np.unique(y)}
    if np.ndim(y) > 1 and kind is MLPClassifier:
        classes = {"classes": np.arange(np.shape(y)[1])}
    for _ in range(3):
        estimator.partial_fit(x, y, **classes)
    return estimator


def sklearn_cases():
    iris_x, iris = table("iris")
    cancer_x, cancer = table("breast_cancer")
    diabetes_x, diabetes = table("diabetes")
    several = np.column_stack([diabetes.target, diabetes.target**2]) / 100
    labels = np.column_stack([iris.target == c for c in range(3)]).astype(int)
    names = np.array(["no", "yes"])[cancer.target]
    return {
        "several classes": (MLPClassifier, iris_x, iris.target_names[iris.target]),
        "two classes": (MLPClassifier, cancer_x, names),
        "multilabel": (MLPClassifier, iris_x, labels),
        "regression": (MLPRegressor, diabetes_x, diabetes.target),
        "several outputs": (MLPRegressor, diabetes_x, several),
    }


def prediction(estimator, x):
    """What net.forward is to give: (B, N_K)."""
    if isinstance(estimator, MLPRegressor):
        y = estimator.predict(x)
        return y[:, None] if y.ndim == 1 else y
    y = estimator.predict_proba(x)
    return y[:, 1:] if estimator.n_outputs_ == 1 else y


def same(a, b, tolerance=1e-12):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("case", sklearn_cases())
def test_from_sklearn_and_back(case, activation):
    kind, x, y = sklearn_cases()[case]
    theirs = fitted(kind, x, y, activation=activation)
    net = gpumlp.from_sklearn(theirs, device="cpu")
    assert net.dtype == np.float64 and net.sizes[1:-1] == (7, 5)
    same(net.forward(x), prediction(theirs, x))
    if kind is MLPClassifier:
        assert net.metadata["classes"] == theirs.classes_.tolist()
        json.dumps(net.metadata)

    back = gpumlp.to_sklearn(net)
    assert type(back) is kind and back.out_activation_ == theirs.out_activation_
    same(prediction(back, x), net.forward(x))
    np.testing.assert_array_equal(back.predict(x), theirs.predict(x))
    for name in ("n_features_in_", "n_layers_", "n_outputs_"):
        assert getattr(back, name) == getattr(theirs, name)
    for mine, its in zip(
        back.coefs_ + back.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True
    ):
        np.testing.assert_array_equal(mine, its)
    if kind is MLPClassifier:
        np.testing.assert_array_equal(back.classes_, theirs.classes_)


@pytest.mark.parametrize("case", sklearn_cases())
def test_to_sklearn_trains_on(case):
    """An estimator made of initial weights learns as the one that drew them."""
    kind, x, y = sklearn_cases()[case]
    numbers = {"max_iter": 1, "learning_rate_init": 0.01, "shuffle": False}
    theirs = fitted(kind, x, y, **numbers)
    mine = gpumlp.to_sklearn(gpumlp.from_sklearn(theirs, device="cpu"))
    assert (mine.n_iter_, mine.t_, mine.loss_curve_) == (0, 0, [])
    assert not hasattr(mine, "loss_")
    mine.set_params(**numbers, random_state=0)
    # The moments of the optimiser are not carried over: both start anew.
    del theirs._optimizer
    theirs.t_ = 0
    theirs.partial_fit(x, y)
    mine.partial_fit(x, y)
    assert mine.n_iter_ == 1
    assert mine.loss_ == pytest.approx(theirs.loss_, rel=1e-12)
    same(prediction(mine, x), prediction(theirs, x))


def test_poisson_to_and_from_sklearn():
    if "loss" not in MLPRegressor().get_params():
        with pytest.raises(ValueError, match=r"scikit-learn 1\.7"):
            gpumlp.to_sklearn(network((3, 2), output="exp"))
        return
    x, data = table("diabetes")
    theirs = fitted(MLPRegressor, x, data.target / 50, loss="poisson", activation="tanh")
    net = gpumlp.from_sklearn(theirs, device="cpu")
    assert net.f[net.K].name == "exp"
    same(net.forward(x)[:, 0], theirs.predict(x))
    back = gpumlp.to_sklearn(net)
    assert back.loss == "poisson"
    same(back.predict(x), theirs.predict(x))


def test_from_sklearn_without_hidden_layers():
    x, data = table("iris")
    theirs = fitted(MLPClassifier, x, data.target, hidden_layer_sizes=())
    net = gpumlp.from_sklearn(theirs, device="cpu")
    assert net.sizes == (4, 3)
    same(net.forward(x), theirs.predict_proba(x))
    same(gpumlp.to_sklearn(net).predict_proba(x), theirs.predict_proba(x))


def test_from_sklearn_device_and_dtype(device):
    x, data = table("iris", "float32")
    theirs = fitted(MLPClassifier, x, data.target)
    net = gpumlp.from_sklearn(theirs, device=device)
    assert net.dtype == np.float32 and net.device.startswith(device)
    same(to_numpy(net.forward(x)), theirs.predict_proba(x), 1e-5)
    back = gpumlp.to_sklearn(net)
    assert {coef.dtype for coef in back.coefs_} == {np.dtype(np.float32)}
    same(back.predict_proba(x), theirs.predict_proba(x), 1e-5)
    assert gpumlp.from_sklearn(theirs, device, "float64").dtype == np.float64


def test_from_sklearn_survives_a_file(tmp_path):
    x, data = table("iris")
    names = data.target_names[data.target].astype(object)
    theirs = fitted(MLPClassifier, x, names)
    gpumlp.save(gpumlp.from_sklearn(theirs, device="cpu"), tmp_path / "net.gpumlp")
    back = gpumlp.to_sklearn(gpumlp.load(tmp_path / "net.gpumlp", device="cpu"))
    np.testing.assert_array_equal(back.predict(x), theirs.predict(x))


def test_from_sklearn_refuses():
    with pytest.raises(TypeError, match="not StandardScaler"):
        gpumlp.from_sklearn(StandardScaler())
    with pytest.raises(NotFittedError):
        gpumlp.from_sklearn(MLPRegressor())
    x, data = table("diabetes")
    broken = fitted(MLPRegressor, x, data.target)
    broken.intercepts_[1] = broken.intercepts_[1][:1]
    with pytest.raises(ValueError, match=r"intercepts_\[1\] \(1,\)"):
        gpumlp.from_sklearn(broken)


@pytest.mark.parametrize("outputs, output", [(1, "sigmoid"), (2, "softmax"), (4, "softmax")])
def test_to_sklearn_gives_a_classifier(outputs, output):
    net = network((5, 6, outputs), "relu", output, dtype="float64", spread=2.0)
    x = rows(50, 5, "float64")
    net.b[2][...] = 0  # so that each class is somewhere the likeliest
    n = net.forward(x)
    expected = np.column_stack([1 - n, n]) if outputs == 1 else n
    mine = gpumlp.to_sklearn(net)
    same(mine.predict_proba(x), expected)
    best = expected.argmax(axis=1)
    assert len(set(best)) > 1
    np.testing.assert_array_equal(mine.predict(x), best)
    names = ["ant", "bee", "cat", "dog"][: max(outputs, 2)]
    named = gpumlp.to_sklearn(net, classes=names)
    np.testing.assert_array_equal(named.predict(x), np.array(names)[best])


def test_to_sklearn_leaves_the_network_alone():
    net = network((5, 6, 2), "relu", "softmax", dtype="float64")
    before = net.theta.copy()
    mine = gpumlp.to_sklearn(net)
    mine.partial_fit(rows(20, 5, "float64"), np.arange(20) % 2)
    np.testing.assert_array_equal(net.theta, before)


def test_to_sklearn_takes_one_of_a_stack(device):
    net = network((5, 6, 3), "relu", "softmax", models=2, dtype="float64", device=device)
    x = rows(20, 5, "float64")
    for m in range(2):
        same(gpumlp.to_sklearn(net, model=m).predict_proba(x), to_numpy(net.forward(x))[m])
    for model in (None, 2, -1):
        with pytest.raises(ValueError, match=r"model = .* must be a whole number in \[0, 2\)"):
            gpumlp.to_sklearn(net, model=model)
    with pytest.raises(ValueError, match="not a stack"):
        gpumlp.to_sklearn(network((5, 3)), model=0)


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"logistic"}))
def test_to_sklearn_refuses_activations(name):
    hidden_ok = name in ("identity", "sigmoid", "tanh", "relu")
    if name in HIDDEN:
        net = network((3, 4, 2), name)
        if hidden_ok:
            assert isinstance(gpumlp.to_sklearn(net), MLPRegressor)
        else:
            with pytest.raises(ValueError, match="no activation"):
                gpumlp.to_sklearn(net)
    if name not in ("identity", "exp", "sigmoid", "softmax"):
        with pytest.raises(ValueError, match="no output activation"):
            gpumlp.to_sklearn(network((3, 4, 2), "relu", name))


def test_to_sklearn_refuses():
    with pytest.raises(ValueError, match=r"one activation for all hidden layers.*relu, tanh"):
        gpumlp.to_sklearn(network((3, 4, 4, 2), ("relu", "tanh")))
    with pytest.raises(ValueError, match="always 1"):
        gpumlp.to_sklearn(network((3, 1), output="softmax"))
    with pytest.raises(ValueError, match="regressor"):
        gpumlp.to_sklearn(network((3, 2)), classes=["a", "b"])
    own = gpumlp.Activation("relu", lambda z, p: z, lambda z, n, p: n)
    with pytest.raises(ValueError, match="no activation 'relu'"):
        gpumlp.to_sklearn(network((3, 4, 2), own, device="cpu"))
    with pytest.raises(TypeError, match="not dict"):
        gpumlp.to_sklearn({})


@pytest.mark.parametrize(
    "classes, outputs, output, message",
    [
        (["a", "b"], 3, "softmax", r"shape \(2,\); 3 outputs of softmax take \(3,\)"),
        (["b", "a", "c"], 3, "softmax", "ascending"),
        (["a", "a"], 1, "sigmoid", "ascending"),
        ([1, 2, 3], 3, "sigmoid", r"0 \.\. 2"),
    ],
)
def test_to_sklearn_refuses_classes(classes, outputs, output, message):
    with pytest.raises(ValueError, match=message):
        gpumlp.to_sklearn(network((3, outputs), output=output), classes=classes)
