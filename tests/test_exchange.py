"""Networks as ONNX files, as scikit-learn's estimators and as PyTorch's state dicts."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn import datasets
from sklearn.exceptions import NotFittedError
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

import gpumlp
from gpumlp import exchange
from gpumlp.exchange import onnx_file, onnx_functions
from tests.comparison import fill, to_numpy

HIDDEN = [name for name, f in gpumlp.activations.items() if not f.rows]
EVERY = list(gpumlp.activations)
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
# onnxruntime has the error function in float32 only.
TOLERANCE_GELU_64 = 1e-6


def network(sizes, hidden="tanh", output="identity", *, spread=1.0, **arguments):
    """A network with random parameters: biases and slopes too, inputs of layers on both sides of
    every kink."""
    net = gpumlp.MLP(sizes, hidden, output, **arguments)
    rng = np.random.default_rng(7)
    for k in range(1, net.K + 1):
        fill(net.W[k], rng.normal(size=net.W[k].shape) * spread / np.sqrt(net.sizes[k - 1]))
        fill(net.b[k], rng.normal(size=net.b[k].shape) * spread)
        if net.slope[k] is not None:
            fill(net.slope[k], rng.uniform(-0.2, 0.6, net.slope[k].shape))
    return net


def rows(B, N, dtype="float32"):
    return np.random.default_rng(3).normal(size=(B, N)).astype(dtype)


# ---------------------------------------------------------------- ONNX
def run_onnx(path, x):
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    [y] = session.run(["y"], {"x": x})
    return y


def check_onnx(net, path, x, tolerance=None, **arguments):
    """onnxruntime's result against forward's, of one row and of many."""
    gpumlp.export_onnx(net, path, **arguments)
    tolerance = tolerance or TOLERANCE[str(net.dtype)]
    for some in (x, x[:1]):
        expected = to_numpy(net.forward(some))
        y = run_onnx(path, some)
        assert y.dtype == net.dtype and y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("name", EVERY)
def test_onnx_has_every_activation(name, models, dtype, tmp_path):
    hidden = "tanh" if name in ("softmax", "log_softmax") else name
    # exp of exp would leave every number's range.
    spread = 0.3 if name == "exp" else 2.0
    net = network((5, 9, 4), hidden, name, spread=spread, models=models, dtype=dtype)
    gelu = name == "gelu" and dtype == "float64"
    x = rows(37, 5, dtype)
    check_onnx(net, tmp_path / "net.onnx", x, TOLERANCE_GELU_64 if gelu else None)


@pytest.mark.parametrize("opset", [13, 14, 18, 21])
@pytest.mark.parametrize("name", EVERY)
def test_onnx_in_other_operator_sets(name, opset, tmp_path):
    spread = 0.3 if name == "exp" else 2.0
    net = network((5, 4), output=name, spread=spread)
    check_onnx(net, tmp_path / "net.onnx", rows(19, 5), opset=opset)
    [used] = onnx.load(tmp_path / "net.onnx").opset_import
    assert used.version == opset


@pytest.mark.parametrize("name, kind", [(n, o.kind) for n, o in onnx_functions.OPERATORS.items()])
def test_onnx_uses_the_operator_that_there_is(name, kind, tmp_path):
    gpumlp.export_onnx(network((3, 2), output=name), tmp_path / "net.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node]
    assert kinds == ["Gemm", kind]


@pytest.mark.parametrize(
    "name, constants",
    [
        ("leaky_relu", {"slope": 0.3}),
        ("rrelu", {"lower": 0.2, "upper": 0.6}),
        ("elu", {"alpha": 0.4}),
        ("celu", {"alpha": 0.4}),
        ("celu", {"alpha": 2.5}),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_onnx_keeps_the_constants_of_an_activation(name, constants, dtype, tmp_path):
    f = gpumlp.activations[name](**constants)
    net = network((5, 9, 4), f, f, spread=2.0, dtype=dtype)
    check_onnx(net, tmp_path / "net.onnx", rows(37, 5, dtype))


def test_onnx_of_many_layers_with_dropout(tmp_path):
    hidden = ("relu", "prelu", gpumlp.activations["leaky_relu"](slope=0.2), "prelu")
    net = network((6, 8, 1, 7, 3, 5), hidden, "softmax", dropout=0.5)
    check_onnx(net, tmp_path / "net.onnx", rows(11, 6))
    net = network((6, 8, 1, 7, 3, 5), hidden, "softmax", dropout=0.5, models=2)
    check_onnx(net, tmp_path / "stack.onnx", rows(11, 6))


def test_onnx_from_a_device(device, tmp_path):
    net = network((4, 6, 3), "prelu", "softmax", models=2, device=device)
    check_onnx(net, tmp_path / "net.onnx", rows(9, 4))


def test_onnx_file_says_what_it_is(tmp_path):
    net = network((4, 3), output="softmax", models=2)
    net.metadata = {"classes": ["a", "b", "c"], "data": "iris"}
    gpumlp.export_onnx(net, tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    assert (model.producer_name, model.producer_version) == ("gpumlp", gpumlp.__version__)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    assert kept["data"] == "iris" and json.loads(kept["classes"]) == ["a", "b", "c"]

    def shape(tensor):
        return [d.dim_param or d.dim_value for d in tensor.type.tensor_type.shape.dim]

    assert shape(model.graph.input[0]) == ["B", 4]
    assert shape(model.graph.output[0]) == [2, "B", 3]
    assert {tensor.name for tensor in model.graph.initializer} == {"W_1", "b_1"}

    gpumlp.export_onnx(net, tmp_path / "net.onnx", metadata={"scale": np.array([1.5, 2.0])})
    [entry] = onnx.load(tmp_path / "net.onnx").metadata_props
    assert entry.key == "scale" and json.loads(entry.value) == [1.5, 2.0]
    with pytest.raises(TypeError, match="set"):
        gpumlp.export_onnx(net, tmp_path / "net.onnx", metadata={"x": {1, 2}})


def test_onnx_parameters_too_large_for_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "ONE_FILE_BYTES", 1000)
    net = network((40, 50, 30), "relu", "softmax")
    for _ in range(2):  # the second time over the first's files
        check_onnx(net, tmp_path / "net.onnx", rows(3, 40))
        assert (tmp_path / "net.onnx").stat().st_size < 5000
        # Each matrix starts at a page; biases are too short to be worth one.
        size = (tmp_path / "net.onnx.data").stat().st_size
        assert size == 2 * 4096 + 4 * 50 * 30


@pytest.mark.parametrize("name", ["cube", "relu"])
def test_onnx_refuses_activations_of_the_user(name, tmp_path):
    own = gpumlp.Activation(name, lambda z, p: z**3, lambda z, n, p: 3 * z**2, ("z*z*z", "3*z*z"))
    net = network((3, 4, 2), own, device="cpu")
    with pytest.raises(ValueError, match=f"'{name}' has no ONNX operator"):
        gpumlp.export_onnx(net, tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


@pytest.mark.parametrize("opset", [12, 1000])
def test_onnx_refuses_operator_sets_that_are_not_there(opset, tmp_path):
    with pytest.raises(ValueError, match=f"opset = {opset}; it is 13 to"):
        gpumlp.export_onnx(network((3, 2)), tmp_path / "net.onnx", opset=opset)


def test_onnx_takes_only_networks(tmp_path):
    trainer = gpumlp.Trainer(network((3, 2)), "squared_error", gpumlp.SGD(0.1))
    with pytest.raises(TypeError, match=r"gpumlp\.MLP.*Trainer"):
        gpumlp.export_onnx(trainer, tmp_path / "net.onnx")


def test_onnx_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "gpumlp\[onnx\]"'):
        gpumlp.export_onnx(network((3, 2)), tmp_path / "net.onnx")


# ---------------------------------------------------------------- scikit-learn
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
        with pytest.raises(ValueError, match=r"model = 0 \.\. 1"):
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


# ---------------------------------------------------------------- PyTorch
class Tensor:
    """As much of a tensor with a gradient as `load_torch_state` meets."""

    def __init__(self, array, requires_grad=True):
        self.array, self.requires_grad = array, requires_grad

    def detach(self):
        return Tensor(self.array, requires_grad=False)

    def cpu(self):
        return self

    def __array__(self, dtype=None, copy=None):
        if self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return np.asarray(self.array, dtype)


class Capsule:
    """An array that speaks DLPack and nothing else."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **arguments):
        return self.array.__dlpack__(**arguments)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_torch_state_is_that_of_a_sequential():
    """Names and shapes as nn.Sequential(Linear(4, 6), Tanh(), Linear(6, 3)) has them."""
    net = network((4, 6, 3))
    state = gpumlp.to_torch_state(net)
    assert {name: array.shape for name, array in state.items()} == {
        "0.weight": (6, 4),
        "0.bias": (6,),
        "2.weight": (3, 6),
        "2.bias": (3,),
    }
    x = rows(10, 4)
    n = np.tanh(x @ state["0.weight"].T + state["0.bias"])
    np.testing.assert_allclose(
        n @ state["2.weight"].T + state["2.bias"], net.forward(x), rtol=1e-5, atol=1e-5
    )
    for array in state.values():
        assert array.dtype == np.float32 and array.flags.owndata and array.flags.c_contiguous
        array[...] = 0
    assert np.any(net.W[1]) and np.any(net.b[2])


@pytest.mark.parametrize("wrap", [np.asarray, Tensor, Capsule, np.ndarray.tolist])
@pytest.mark.parametrize("models", [None, 2])
def test_torch_state_round_trip(models, wrap, device):
    arguments = {"hidden": ("prelu", "relu"), "output": "prelu", "models": models}
    net = network((4, 6, 5, 3), **arguments, device=device)
    stack = () if models is None else (models,)
    state = gpumlp.to_torch_state(net)
    assert state["1.weight"].shape == (*stack, 1) and state["5.weight"].shape == (*stack, 1)
    other = gpumlp.MLP((4, 6, 5, 3), **arguments, device=device, init="zeros")
    gpumlp.load_torch_state(other, {name: wrap(array) for name, array in state.items()})
    np.testing.assert_array_equal(to_numpy(other.theta), to_numpy(net.theta))
    x = rows(3, 4)
    np.testing.assert_array_equal(other.forward(x), net.forward(x))


def test_torch_state_of_the_device(cuda):
    import cupy

    net = network((4, 3), device=cuda)
    other = gpumlp.MLP((4, 3), output="identity", init="zeros", device="cpu")
    state = gpumlp.to_torch_state(net)
    gpumlp.load_torch_state(other, {name: cupy.asarray(array) for name, array in state.items()})
    np.testing.assert_array_equal(other.W[1], to_numpy(net.W[1]))


def test_torch_state_with_other_names():
    net = network((4, 6, 3), "prelu")
    state = gpumlp.to_torch_state(net, prefix="net.", spacing=3)
    assert list(state) == [
        "net.0.weight",
        "net.0.bias",
        "net.1.weight",
        "net.3.weight",
        "net.3.bias",
    ]
    other = gpumlp.MLP((4, 6, 3), "prelu", "identity", init="zeros")
    # With a prefix, what does not have it belongs to others.
    gpumlp.load_torch_state(other, state | {"head.weight": np.ones(3)}, prefix="net.", spacing=3)
    np.testing.assert_array_equal(other.theta, net.theta)
    assert "1.weight" in gpumlp.to_torch_state(network((4, 6, 3)), spacing=1)
    with pytest.raises(ValueError, match="PReLU"):
        gpumlp.to_torch_state(net, spacing=1)
    with pytest.raises(ValueError, match="spacing = 0"):
        gpumlp.to_torch_state(net, spacing=0)


def test_torch_state_changes_dtype():
    net = network((4, 6, 3), dtype="float64")
    other = gpumlp.MLP((4, 6, 3), "tanh", "identity", dtype="float32", init="zeros")
    gpumlp.load_torch_state(other, gpumlp.to_torch_state(net))
    np.testing.assert_array_equal(other.W[1], net.W[1].astype(np.float32))


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"2.bias": None}, ValueError, "lacks 2.bias"),
        ({"4.weight": np.ones((2, 2))}, ValueError, "does not, 4.weight"),
        ({"2.weight": np.ones((6, 3))}, ValueError, r"\(6, 3\); the network takes \(3, 6\)"),
        ({"2.bias": np.ones((1,))}, ValueError, r"\(1,\); the network takes \(3,\)"),
        ({"2.bias": np.array([1, np.nan, 0])}, ValueError, "2.bias holds NaN"),
        ({"2.bias": np.array([1, 1e300, 0])}, ValueError, "what float32 cannot hold"),
        ({"2.bias": np.array(["a", "b", "c"])}, TypeError, "2.bias has dtype <U1"),
        ({"2.bias": np.ones(3, complex)}, TypeError, "complex128"),
        ({"2.bias": [[1], [2, 3], 4]}, TypeError, "2.bias cannot be read"),
        ({"2.bias": {}}, TypeError, "2.bias cannot be read"),
    ],
)
def test_torch_state_refuses_and_changes_nothing(change, error, message):
    net = network((4, 6, 3))
    state = {name: np.zeros_like(a) for name, a in gpumlp.to_torch_state(net).items()} | change
    state = {name: array for name, array in state.items() if array is not None}
    before = net.theta.copy()
    with pytest.raises(error, match=message):
        gpumlp.load_torch_state(net, state)
    np.testing.assert_array_equal(net.theta, before)


def test_torch_state_takes_dictionaries():
    with pytest.raises(TypeError, match=r"module\.state_dict\(\)"):
        gpumlp.load_torch_state(network((4, 3)), [np.ones((3, 4)), np.ones(3)])


def test_public_names():
    for name in exchange.__all__:
        assert getattr(gpumlp, name) is getattr(exchange, name)
        assert name in gpumlp.__all__
