"""Parameters as PyTorch's state dicts, and the public names of gpumlp.io."""

import numpy as np
import pytest

import gpumlp
from tests.helpers.comparison import to_numpy
from tests.helpers.networks import network, rows


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
    for name in "export_onnx from_sklearn load_torch_state to_sklearn to_torch_state".split():
        assert getattr(gpumlp, name).__module__.startswith("gpumlp.io.")
        assert name in gpumlp.__all__


def test_an_estimator_gives_and_takes_the_layout():
    x, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3
    with pytest.warns(UserWarning, match="converged"):
        model = gpumlp.MLPClassifier((5,), max_iter=3, random_state=0).fit(x, y)
    state = gpumlp.to_torch_state(model)
    np.testing.assert_array_equal(state["0.weight"], model.coefs_[0].T)
    changed = {name: 0.5 * array for name, array in state.items()}
    held = model.coefs_
    gpumlp.load_torch_state(model, changed)
    np.testing.assert_array_equal(held[0].T, changed["0.weight"])
    model.predict(x)  # which looks for changes in the lists
    np.testing.assert_array_equal(gpumlp.to_torch_state(model)["2.bias"], changed["2.bias"])
