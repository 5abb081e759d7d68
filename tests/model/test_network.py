"""The network by itself: its parameters, its initial weights, and what it computes.

What it accepts is in test_network_input.py, activations and losses of one's own in test_custom.py.
"""

import numpy as np
import pytest

import gpumlp
from gpumlp.model import shape
from tests.helpers.comparison import fill, to_numpy


def parameters_of(net):
    """Every parameter by name, as NumPy arrays."""
    named = {}
    for group in ("W", "b", "slope"):
        for k, array in enumerate(getattr(net, group)):
            if array is not None:
                named[f"{group}[{k}]"] = to_numpy(array)
    return named


# --- what it is made of ---------------------------------------------------------------------------


@pytest.mark.parametrize("models", [None, 1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shapes(device, models, dtype):
    net = gpumlp.MLP((4, 7, 5, 2), ["prelu", "tanh"], models=models, dtype=dtype, device=device)
    lead = () if models is None else (models,)
    assert net.sizes == (4, 7, 5, 2)
    assert net.K == 3
    assert net.models == models
    assert net.dtype == dtype
    assert net.device == ("cpu" if device == "cpu" else "cuda:0")
    assert [W if W is None else W.shape for W in net.W] == [
        None,
        (*lead, 7, 4),
        (*lead, 5, 7),
        (*lead, 2, 5),
    ]
    assert [b if b is None else b.shape for b in net.b] == [
        None,
        (*lead, 7),
        (*lead, 5),
        (*lead, 2),
    ]
    assert [a if a is None else a.shape for a in net.slope] == [None, lead, None, None]
    assert net.theta.shape[:-1] == lead
    assert net.count == 7 * 4 + 7 + 1 + 5 * 7 + 5 + 2 * 5 + 2
    for array in (net.theta, *net.W[1:], *net.b[1:], net.slope[1]):
        assert array.dtype == dtype


@pytest.mark.parametrize("models", [None, 3])
def test_parameters_are_writable_views_of_theta(device, models):
    net = gpumlp.MLP((3, 5, 2), "prelu", models=models, dtype="float64", device=device)
    names = list(parameters_of(net))
    assert names == ["W[1]", "W[2]", "b[1]", "b[2]", "slope[1]"]
    fill(net.theta, np.zeros(net.theta.shape))
    for number, view in enumerate((*net.W[1:], *net.b[1:], net.slope[1]), start=1):
        fill(view, np.full(view.shape, float(number)))
    theta = to_numpy(net.theta)
    found = dict(zip(*np.unique(theta, return_counts=True), strict=True))
    each = 1 if models is None else models
    assert {number: found[number] for number in range(1, 6)} == {
        1: 15 * each,
        2: 10 * each,
        3: 5 * each,
        4: 2 * each,
        5: each,
    }
    fill(net.theta, np.full(theta.shape, 9.0))
    assert all((array == 9).all() for array in parameters_of(net).values())


def test_segments_are_aligned_and_the_padding_is_zero():
    net = gpumlp.MLP((3, 5, 2), "prelu", models=2, dtype="float32", device="cpu")
    start = net.theta.ctypes.data
    for view in (*net.W[1:], *net.b[1:], net.slope[1]):
        assert (view.ctypes.data - start) % 128 == 0
        assert np.shares_memory(view, net.theta)
        fill(view, np.zeros(view.shape))
    assert not net.theta.any()


def test_assigning_to_a_slot_is_not_lost(device):
    """`net.W[1] = values` looks as if it sets the weights: so it does, or it is refused."""
    net = gpumlp.MLP((2, 3), output="identity", dtype="float64", device=device)
    values = net.W[1] + 1
    try:
        net.W[1] = values
    except TypeError:
        return
    np.testing.assert_array_equal(to_numpy(net.W[1]), to_numpy(values))


def test_updating_a_slot_in_place(device):
    net = gpumlp.MLP((2, 3), output="identity", dtype="float64", device=device)
    before = to_numpy(net.W[1]).copy()
    net.W[1][...] += 1
    net.W[1] += 2
    net.b[1][0] = 5
    np.testing.assert_array_equal(to_numpy(net.W[1]), before + 1 + 2)
    np.testing.assert_array_equal(to_numpy(net.b[1]), [5, 0, 0])


def test_prelu_starts_at_its_slope(device):
    net = gpumlp.MLP((2, 3, 3, 1), ["prelu", gpumlp.activations["prelu"](slope=0.1)], "identity",
                     models=2, device=device)  # fmt: skip
    np.testing.assert_array_equal(to_numpy(net.slope[1]), np.float32([0.25, 0.25]))
    np.testing.assert_array_equal(to_numpy(net.slope[2]), np.float32([0.1, 0.1]))


# --- what it computes -----------------------------------------------------------------------------


@pytest.mark.parametrize("models", [None, 3])
def test_forward_is_the_equations(device, models):
    rng = np.random.default_rng(1)
    net = gpumlp.MLP((4, 6, 5, 3), ["tanh", "relu"], models=models, dtype="float64", device=device)
    for k in (1, 2, 3):
        fill(net.b[k], rng.normal(size=net.b[k].shape))
    x = rng.normal(size=(11, 4))
    found = net.forward(x)
    assert isinstance(found, np.ndarray)
    assert found.shape == ((11, 3) if models is None else (3, 11, 3))
    for m in range(models or 1):
        W, b = (
            [None, *(to_numpy(a) if models is None else to_numpy(a)[m] for a in group[1:])]
            for group in (net.W, net.b)
        )
        for i in range(len(x)):  # one sample, a column vector, as the equations have it
            n1 = np.tanh(W[1] @ x[i] + b[1])  # (1)(2)
            n2 = np.maximum(W[2] @ n1 + b[2], 0)  # (3)(4)
            z3 = W[3] @ n2 + b[3]  # (5)(8)
            expected = np.exp(z3) / np.exp(z3).sum()  # (6)(9)
            row = found[i] if models is None else found[m, i]
            np.testing.assert_allclose(row, expected, rtol=1e-13)


def test_a_stack_takes_shared_or_separate_data(device):
    rng = np.random.default_rng(2)
    stack = gpumlp.MLP((4, 5, 3), models=3, dtype="float64", device=device)
    x = rng.normal(size=(3, 7, 4))
    separate = stack.forward(x)
    for m in range(3):
        np.testing.assert_allclose(separate[m], stack.forward(x[m])[m], rtol=1e-14)


@pytest.mark.parametrize("models", [None, 2])
def test_forward_in_chunks_equals_one_piece(device, models, monkeypatch):
    rng = np.random.default_rng(3)
    net = gpumlp.MLP((5, 8, 3), models=models, dtype="float64", device=device)
    x = rng.normal(size=(23, 5) if models is None else (models, 23, 5))
    whole = net.forward(x)
    monkeypatch.setattr(shape, "CHUNK_BYTES", 2000)
    assert 2 <= net.shape.chunk_rows < 23 and 23 % net.shape.chunk_rows, (
        "chunks, the last of them shorter"
    )
    np.testing.assert_allclose(net.forward(x), whole, rtol=1e-14)
    monkeypatch.setattr(shape, "CHUNK_BYTES", 1)
    assert net.shape.chunk_rows == 1
    np.testing.assert_allclose(net.forward(x), whole, rtol=1e-14)


def test_forward_returns_memory_of_its_own(device):
    net = gpumlp.MLP((2, 3), dtype="float64", device=device)
    first = net.forward(np.ones((4, 2)))
    kept = first.copy()
    net.forward(np.zeros((4, 2)))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("models", [None, 3])
def test_gradient_has_the_shapes_of_the_parameters(device, models):
    net = gpumlp.MLP((4, 6, 3), "prelu", models=models, dtype="float64", device=device)
    rng = np.random.default_rng(4)
    value, grad = net.loss_and_grad(rng.normal(size=(9, 4)), rng.integers(0, 3, 9))
    assert np.shape(value) == (() if models is None else (models,))
    for group in ("W", "b", "slope"):
        mine, its = getattr(net, group), getattr(grad, group)
        assert [None if a is None else a.shape for a in its] == [
            None if a is None else a.shape for a in mine
        ]
    assert grad.theta.shape == net.theta.shape
    assert all(isinstance(array, np.ndarray) for array in (grad.theta, grad.W[1], grad.b[2]))


def test_gradient_is_not_overwritten_by_the_next(device):
    net = gpumlp.MLP((4, 3), dtype="float64", device=device)
    x, y = np.eye(4), np.arange(4) % 3
    value, grad = net.loss_and_grad(x, y)
    kept, kept_value = grad.theta.copy(), float(value)
    net.loss_and_grad(-x, y)
    np.testing.assert_array_equal(grad.theta, kept)
    assert float(value) == kept_value


def test_weighted_loss_and_gradient(device):
    """sum_i w_i L_i / sum_i w_i, and sum_i w_i L_i for the sum."""
    net = gpumlp.MLP((3, 4, 2), "tanh", "identity", dtype="float64", device=device)
    rng = np.random.default_rng(5)
    x, y, w = rng.normal(size=(6, 3)), rng.normal(size=(6, 2)), rng.uniform(0.1, 3, 6)
    singles = [net.loss_and_grad(x[i : i + 1], y[i : i + 1], "squared_error") for i in range(6)]
    losses = np.array([float(value) for value, _ in singles])
    gradients = np.array([grad.theta for _, grad in singles])
    value, grad = net.loss_and_grad(x, y, "squared_error", w)
    np.testing.assert_allclose(value, w @ losses / w.sum(), rtol=1e-13)
    np.testing.assert_allclose(grad.theta, w @ gradients / w.sum(), rtol=1e-11, atol=1e-15)
    value, grad = net.loss_and_grad(x, y, "squared_error", w, reduction="sum")
    np.testing.assert_allclose(value, w @ losses, rtol=1e-13)
    np.testing.assert_allclose(grad.theta, w @ gradients, rtol=1e-11, atol=1e-15)


def test_dropout_is_for_training_alone(device):
    plain, dropped = (
        gpumlp.MLP((4, 8, 3), dropout=rate, dtype="float64", device=device) for rate in (0, 0.5)
    )
    x, y = np.random.default_rng(6).normal(size=(5, 4)), np.arange(5) % 3
    np.testing.assert_array_equal(dropped.forward(x), plain.forward(x))
    np.testing.assert_array_equal(dropped.loss_and_grad(x, y)[0], plain.loss_and_grad(x, y)[0])


@pytest.mark.parametrize(
    "dropout",
    [
        0.25,
        [0.0, 0.25],
        (0.0, 0.25),
        np.array([0.0, 0.25]),
        [0.0, [0.1, 0.2, 0.3]],
        [[0.1, 0.2, 0.3], 0.25],
        [np.array([0.1, 0.2, 0.3]), 0.0],
        [[0.1, 0.2, 0.3], [0.0, 0.0, 0.5]],
    ],
    ids=repr,
)
def test_forms_of_dropout(dropout):
    """A number, or one for each hidden layer; each may be one per network."""
    net = gpumlp.MLP((4, 6, 5, 3), models=3, dropout=dropout, device="cpu")
    gpumlp.Trainer(net).step(np.ones((2, 4)), [0, 1])
    assert "layer" in net.summary()


# --- what it says ---------------------------------------------------------------------------------


def test_repr():
    net = gpumlp.MLP((784, 256, 10), device="cpu")
    assert repr(net) == "<MLP 784-256-10, 203,530 parameters, float32, cpu>"
    stack = gpumlp.MLP((2, 3, 1), output="sigmoid", models=4, dtype="float64", device="cpu")
    assert repr(stack) == "<MLP 2-3-1, models=4, 13 parameters, float64, cpu>"


def test_summary():
    hidden = ["prelu", gpumlp.activations["leaky_relu"](slope=0.2)]
    net = gpumlp.MLP((10, 20, 30, 3), hidden, dropout=[0.0, 0.25], device="cpu")
    header, *layers, total = net.summary().splitlines()
    assert header.split() == ["layer", "shape", "activation", "dropout", "parameters"]
    assert [line.split() for line in layers] == [
        "1 10 -> 20 prelu(slope=0.25) 221".split(),
        "2 20 -> 30 leaky_relu(slope=0.2) 0.25 630".split(),
        "3 30 -> 3 softmax 93".split(),
    ]
    assert total == "944 parameters, float32, on cpu"
    assert (
        "5 networks of 13 parameters"
        in gpumlp.MLP((2, 3, 1), output="identity", models=5, device="cpu").summary()
    )


# --- arguments that make no network ---------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"sizes": (4,)}, r"sizes = \(4,\) must be .*two numbers or more"),
        ({"sizes": ()}, r"sizes = \(\) must be .*two numbers or more"),
        ({"sizes": (4, 0, 3)}, r"sizes\[1\] = 0 must be a whole number in \[1"),
        ({"sizes": (4, -2, 3)}, r"sizes\[1\] = -2 must be a whole number in \[1"),
        ({"sizes": (4, 2.5, 3)}, "2.5"),
        ({"models": 0}, "models = 0"),
        ({"models": -1}, "models = -1"),
        ({"models": True}, "models = True"),
        ({"models": 1.5}, "models = 1.5"),
        ({"dtype": "float16"}, "dtype = 'float16' must be 'float32' or 'float64'"),
        ({"dtype": int}, "dtype = .*int.* must be 'float32' or 'float64'"),
        ({"hidden": "reLu"}, "hidden = 'reLu' must be one of .*'relu'"),
        ({"hidden": ["relu", "relu"]}, "2 activations for 1 hidden"),
        ({"hidden": []}, "0 activations for 1 hidden"),
        ({"hidden": "softmax"}, "hidden = 'softmax' .* only be the output"),
        ({"output": "nothing"}, "output = 'nothing' must be one of"),
        ({"init": "glorot"}, "init = 'glorot' must be .*'glorot_uniform'"),
        ({"seed": -1}, "seed = -1 must be"),
        ({"seed": 2**64}, "seed"),
        ({"seed": [1, 2]}, r"seed = \[1, 2\] must be .* one for each of 1 networks"),
        ({"dropout": 1.0}, r"\[0, 1\)"),
        ({"dropout": -0.1}, r"\[0, 1\)"),
        ({"dropout": float("nan")}, r"\[0, 1\)"),
        ({"dropout": [0.1, 0.2]}, r"dropout = \[0\.1, 0\.2\] has 2 rates for 1 hidden"),
        ({"models": 3, "dropout": [[0.1, 0.2]]}, "one for each of 3 networks"),
        ({"device": "gpu"}, "'gpu' is no device"),
    ],
)
def test_arguments_that_make_no_network(arguments, said):
    with pytest.raises(ValueError, match=said):
        gpumlp.MLP(**({"sizes": (4, 5, 3), "device": "cpu"} | arguments))


def test_a_device_that_is_not_there(counters):
    with pytest.raises(RuntimeError, match="no GPU number 7"):
        gpumlp.MLP((2, 3), device="cuda:7")


def test_unknown_constants_of_an_activation():
    with pytest.raises(TypeError, match="leaky_relu takes slope, not alpha"):
        gpumlp.activations["leaky_relu"](alpha=0.1)
    with pytest.raises(ValueError, match="slope = -1"):
        gpumlp.activations["leaky_relu"](slope=-1)


def test_a_loss_that_does_not_fit_the_output(device):
    net = gpumlp.MLP((2, 3), output="identity", device=device)
    with pytest.raises(ValueError, match=r"cross_entropy needs output .*softmax.* not identity"):
        net.loss_and_grad(np.zeros((1, 2)), [0])
    single = gpumlp.MLP((2, 1), device=device)
    with pytest.raises(ValueError, match="binary_cross_entropy"):
        single.loss_and_grad(np.zeros((1, 2)), [0])
    with pytest.raises(ValueError, match=r"loss = 'mse' must be one of .*'squared_error'"):
        net.loss_and_grad(np.zeros((1, 2)), np.zeros((1, 3)), "mse")
    with pytest.raises(ValueError, match="reduction = 'none' must be 'mean' or 'sum'"):
        net.loss_and_grad(np.zeros((1, 2)), np.zeros((1, 3)), "squared_error", reduction="none")
