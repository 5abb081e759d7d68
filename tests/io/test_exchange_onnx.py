"""Networks as ONNX files: what onnxruntime computes from them is what `forward` computes."""

import json
import sys

import numpy as np
import pytest

import gpumlp
from gpumlp.io import onnx_file, onnx_functions
from tests.helpers.comparison import to_numpy
from tests.helpers.networks import network, rows
from tests.helpers.optional import Package

onnx = pytest.importorskip("onnx", reason="onnx, which writes the files, is not installed")
onnxruntime = Package("onnxruntime")

EVERY = list(gpumlp.activations)
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
# onnxruntime has the error function in float32 only.
TOLERANCE_GELU_64 = 1e-6


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
    with pytest.raises(TypeError, match=r"^metadata\['x'\]\[1\] = \{1, 2\} of type set must be"):
        gpumlp.export_onnx(net, tmp_path / "net.onnx", metadata={"x": [np.ones(2), {1, 2}]})
    with pytest.raises(TypeError, match=r"^metadata = \[1\] must be a dictionary$"):
        gpumlp.export_onnx(net, tmp_path / "net.onnx", metadata=[1])


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
    with pytest.raises(ValueError, match=f"opset = {opset} must be a whole number in .13, "):
        gpumlp.export_onnx(network((3, 2)), tmp_path / "net.onnx", opset=opset)


def test_onnx_takes_only_networks(tmp_path):
    trainer = gpumlp.Trainer(network((3, 2)), "squared_error", gpumlp.SGD(0.1))
    with pytest.raises(TypeError, match=r"gpumlp\.MLP.*Trainer"):
        gpumlp.export_onnx(trainer, tmp_path / "net.onnx")


def test_onnx_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "gpumlp\[onnx\]"'):
        gpumlp.export_onnx(network((3, 2)), tmp_path / "net.onnx")
