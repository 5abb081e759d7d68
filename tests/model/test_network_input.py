"""What the network takes and gives back, and what it refuses, with which words."""

import contextlib
import re
import types

import numpy as np
import pytest

import gpumlp
from tests.helpers.comparison import to_numpy

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4))
LABELS = np.arange(6) % 3


def make(device, models=None, output="softmax", sizes=(4, 5, 3), dtype="float64"):
    return gpumlp.MLP(sizes, "tanh", output, models=models, dtype=dtype, device=device)


# --- whatever holds numbers -----------------------------------------------------------------------


class HostDLPack:
    """An array of another library that speaks nothing but DLPack, in host memory."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


def as_torch(x):
    return pytest.importorskip("torch", reason="torch is not installed").from_numpy(x.copy())


def as_frame(x):
    return pytest.importorskip("pandas", reason="pandas is not installed").DataFrame(x)


FORMS = {
    "a list": np.ndarray.tolist,
    "a list of rows": list,
    "columns first": np.asfortranarray,
    "every other row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "backwards": lambda x: x[::-1].copy()[::-1],
    "read-only": lambda x: np.broadcast_to(x, x.shape),
    "big-endian": lambda x: x.astype(">f8"),
    "torch": as_torch,
    "pandas": as_frame,
    "DLPack alone": HostDLPack,
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_x(device, form):
    net = make(device)
    x = FORMS[form](X)
    found = net.forward(x)
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, net.forward(X))
    value, grad = net.loss_and_grad(x, LABELS)
    assert type(grad.W[1]) is np.ndarray
    assert np.isfinite(value)


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int16", "int64", "uint64", "float16", "float32"]
)
@pytest.mark.parametrize("real", ["float32", "float64"])
def test_dtypes_of_x(device, dtype, real):
    net = make(device, dtype=real)
    x = (RNG.uniform(0, 3, (5, 4))).astype(dtype)
    found = net.forward(x)
    assert found.dtype == real
    np.testing.assert_array_equal(found, net.forward(x.astype(real)))


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "int64", "uint64"])
def test_dtypes_of_labels(device, dtype):
    net = make(device)
    y = (LABELS % 2).astype(dtype)
    expected, _ = net.loss_and_grad(X, (LABELS % 2))
    np.testing.assert_array_equal(net.loss_and_grad(X, y)[0], expected)


def test_labels_stand_for_one_hot_rows(device):
    net = make(device)
    value, grad = net.loss_and_grad(X, LABELS)
    expected, expected_grad = net.loss_and_grad(X, np.eye(3)[LABELS])
    np.testing.assert_allclose(value, expected, rtol=1e-14)
    np.testing.assert_allclose(grad.theta, expected_grad.theta, atol=1e-15)


@pytest.mark.parametrize("models", [None, 2])
def test_targets_of_a_single_output_may_lack_the_last_axis(device, models):
    net = make(device, models, "identity", (4, 5, 1))
    y = RNG.normal(size=(6, 1))
    expected, _ = net.loss_and_grad(X, y, "squared_error")
    np.testing.assert_array_equal(net.loss_and_grad(X, y[:, 0], "squared_error")[0], expected)


def test_a_stack_takes_targets_and_weights_of_its_own(device):
    net = make(device, models=2)
    y, w = np.stack([LABELS, 2 - LABELS]), RNG.uniform(1, 2, (2, 6))
    both, _ = net.loss_and_grad(X, y, sample_weight=w)
    for m in range(2):
        alone, _ = net.loss_and_grad(X, y[m], sample_weight=w[m])
        np.testing.assert_allclose(both[m], alone[m], rtol=1e-14)


# --- arrays on the device -------------------------------------------------------------------------


def test_device_arrays_in_give_device_arrays_out(cuda):
    import cupy

    net = make(cuda)
    x, y, w = cupy.asarray(X), cupy.asarray(LABELS), cupy.asarray(np.ones(6))
    found = net.forward(x)
    value, grad = net.loss_and_grad(x, y, sample_weight=w)
    for array in (found, value, grad.theta, grad.W[1], grad.b[2]):
        assert isinstance(array, cupy.ndarray)
    np.testing.assert_array_equal(to_numpy(found), net.forward(X))
    expected, expected_grad = net.loss_and_grad(X, LABELS)
    np.testing.assert_array_equal(to_numpy(value), expected)
    np.testing.assert_array_equal(to_numpy(grad.theta), expected_grad.theta)


@pytest.mark.parametrize("models", [None, 2])
def test_device_arrays_make_no_trip_through_the_host(counters, models):
    import cupy

    net = make("cuda", models)
    trainer = gpumlp.Trainer(net, batch_size=4)
    x, y = cupy.asarray(X), cupy.asarray(LABELS)
    net.forward(x)
    net.loss_and_grad(x, y)
    trainer.step(x, y)
    with counters.count() as c:
        trainer.step(x, y)
        assert (c.h2d, c.d2h, c.synchronisations) == (0, 0, 0)
    # Elsewhere a few numbers are read, to refuse NaN; the arrays themselves stay where they are.
    big = cupy.asarray(RNG.normal(size=(500, 4)))
    labels = cupy.asarray(np.arange(500) % 3)
    counts = []
    for rows in (50, 500):
        with counters.count() as c:
            net.forward(big[:rows])
            net.loss_and_grad(big[:rows], labels[:rows])
        assert c.h2d <= 1  # the constants of the loss
        counts.append(c.d2h)
    assert counts[0] == counts[1] <= 12


def test_host_labels_with_device_features_and_the_reverse(cuda):
    import cupy

    net = make(cuda)
    value, grad = net.loss_and_grad(cupy.asarray(X), LABELS)
    other, other_grad = net.loss_and_grad(X, cupy.asarray(LABELS))
    assert isinstance(grad.theta, cupy.ndarray)  # x decides
    assert isinstance(other_grad.theta, np.ndarray)
    np.testing.assert_array_equal(to_numpy(value), other)


class CudaInterface:
    """A device array of another library that shows the CUDA array interface alone, as Numba's."""

    def __init__(self, array):
        self._array = array
        self.__cuda_array_interface__ = array.__cuda_array_interface__


class CudaDLPack:
    """A device array of another library that speaks DLPack alone, as JAX's."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


@pytest.mark.parametrize("kind", [CudaInterface, CudaDLPack])
def test_device_arrays_of_other_libraries(cuda, kind):
    import cupy

    net = make(cuda)
    found = net.forward(kind(cupy.asarray(X)))
    assert isinstance(found, cupy.ndarray)
    np.testing.assert_array_equal(to_numpy(found), net.forward(X))
    value, _ = net.loss_and_grad(kind(cupy.asarray(X)), kind(cupy.asarray(LABELS)))
    np.testing.assert_array_equal(to_numpy(value), net.loss_and_grad(X, LABELS)[0])


def test_device_views_that_are_not_contiguous(cuda):
    import cupy

    net = make(cuda)
    wide = cupy.asarray(RNG.normal(size=(12, 9)))
    part = wide[::2, 1:5]
    np.testing.assert_array_equal(to_numpy(net.forward(part)), net.forward(to_numpy(part)))


def test_a_device_array_for_a_network_on_the_cpu(cuda):
    import cupy

    net = make("cpu")
    with pytest.raises(TypeError, match="x is on a GPU and the network on the CPU"):
        net.forward(cupy.asarray(X))
    with pytest.raises(TypeError, match="y is on a GPU and the network on the CPU"):
        net.loss_and_grad(X, cupy.asarray(LABELS))


def test_nan_on_the_device_is_refused(cuda):
    import cupy

    net = make(cuda)
    broken = X.copy()
    broken[2, 1] = np.nan
    with pytest.raises(ValueError, match="x cannot be used: NaN or infinity in 1 of 24 places"):
        net.forward(cupy.asarray(broken))


# --- what is refused ------------------------------------------------------------------------------


def replaced(array, index, value):
    changed = np.array(array)
    changed[index] = value
    return changed


REFUSED_X = {
    "a row": (X[0], ValueError, r"\(4,\).*\(B, 4\)"),
    "a number": (3.0, ValueError, r"\(\).*\(B, 4\)"),
    "three axes": (X[None], ValueError, r"\(1, 6, 4\).*\(B, 4\)"),
    "too narrow": (X[:, :3], ValueError, "3 features.*takes 4"),
    "transposed": (X.T, ValueError, "6 features.*takes 4"),
    "no rows": (X[:0], ValueError, "no rows"),
    "NaN": (replaced(X, (1, 2), np.nan), ValueError, "NaN or infinity in 1 of 24"),
    "infinity": (replaced(X, (1, 2), -np.inf), ValueError, "NaN or infinity in 1 of 24"),
    "complex": (X + 0j, TypeError, "complex128"),
    "text": (X.astype(str), TypeError, "dtype"),
    "numbers as text": (np.array([["1", "2", "3", "4"]]), TypeError, "dtype"),
    "objects": (X.astype(object), TypeError, "object"),
    "None": (None, TypeError, "object"),
    "dates": (np.zeros((6, 4), "datetime64[s]"), TypeError, "datetime64"),
    "ragged rows": ([[1.0, 2.0, 3.0, 4.0], [1.0]], TypeError, "is not an array of numbers"),
    "a dictionary": ({"x": X}, TypeError, "object"),
}


@pytest.mark.parametrize("kind", REFUSED_X)
def test_refused_x(device, kind):
    net = make(device)
    x, error, said = REFUSED_X[kind]
    asked = [net.forward, lambda x: net.loss_and_grad(x, LABELS)]
    trainer = gpumlp.Trainer(net)
    asked += [
        lambda x: trainer.step(x, LABELS),
        lambda x: trainer.fit(x, LABELS, progress=False),
        lambda x: trainer.fit(X, LABELS, validation=(x, LABELS), progress=False),
    ]
    before = to_numpy(net.theta).copy()
    for ask in asked:
        with pytest.raises(error, match=said) as raised:
            ask(x)
        assert re.match("(validation )?x ", str(raised.value))
    np.testing.assert_array_equal(to_numpy(net.theta), before)
    assert trainer.steps == 0


def test_sparse_x_is_refused(device):
    sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed")
    for matrix in (sparse.csr_matrix(X), sparse.csr_array(X), sparse.coo_array(X)):
        with pytest.raises(TypeError, match="x is sparse: make the network with sparse=True"):
            make(device).forward(matrix)


def test_numbers_too_large_for_float32(device):
    x = replaced(X, (0, 0), 1e39)
    with pytest.raises(ValueError, match=r"x cannot be used: too large .*float32"):
        make(device, dtype="float32").forward(x)
    make(device, dtype="float64").forward(x)


def test_refused_x_of_a_stack(device):
    net = make(device, models=3)
    with pytest.raises(ValueError, match="for 2 networks; there are 3"):
        net.forward(np.zeros((2, 6, 4)))
    with pytest.raises(ValueError, match=r"\(4,\).*\(B, 4\) or \(3, B, 4\)"):
        net.forward(X[0])
    with pytest.raises(ValueError, match="no rows"):
        net.forward(np.zeros((3, 0, 4)))


REFUSED_Y = {  # for six rows and three outputs, softmax and cross-entropy
    "too few": (LABELS[:5], ValueError, r"\(5,\).*6 rows and 3 outputs takes \(6, 3\)"),
    "too many": (np.arange(7) % 3, ValueError, r"\(7,\).*6 rows"),
    "too narrow": (np.full((6, 2), 0.5), ValueError, r"\(6, 2\).*\(6, 3\)"),
    "a column of labels": (LABELS[:, None], ValueError, r"\(6, 1\).*\(6, 3\)"),
    "empty": (LABELS[:0], ValueError, r"\(0,\)"),
    "labels as real numbers": (LABELS.astype(float), ValueError, "float64.*integer labels"),
    "a label too large": (replaced(LABELS, 0, 3), ValueError, "0 to 3; .* 0 .. 2"),
    "a negative label": (replaced(LABELS, 0, -1), ValueError, "-1 to 2; .* 0 .. 2"),
    "probabilities above 1": (np.full((6, 3), 1.5), ValueError, r"1.5.*\[0, 1\]"),
    "probabilities below 0": (np.full((6, 3), -0.5), ValueError, r"-0.5.*\[0, 1\]"),
    "NaN": (np.full((6, 3), np.nan), ValueError, "NaN or infinity in 18 of 18"),
    "complex": (np.eye(3)[LABELS] + 0j, TypeError, "complex"),
    "text": (np.array(list("abcabc")), TypeError, "dtype"),
    "None": (None, TypeError, "y"),
}


@pytest.mark.parametrize("kind", REFUSED_Y)
def test_refused_y(device, kind):
    net = make(device)
    y, error, said = REFUSED_Y[kind]
    trainer = gpumlp.Trainer(net)
    before = to_numpy(net.theta).copy()
    for ask in (
        lambda: net.loss_and_grad(X, y),
        lambda: trainer.step(X, y),
        lambda: trainer.fit(X, y, progress=False),
        lambda: trainer.fit(X, LABELS, validation=(X, y), progress=False),
    ):
        with pytest.raises(error, match=said) as raised:
            ask()
        assert re.match("(validation )?y ", str(raised.value))
    np.testing.assert_array_equal(to_numpy(net.theta), before)
    assert trainer.steps == 0


def test_counts_below_zero_are_refused(device):
    net = make(device, output="exp")
    with pytest.raises(ValueError, match=r"-1.0 to .*poisson takes \[0, inf\]"):
        net.loss_and_grad(X, np.full((6, 3), -1.0), "poisson")


def test_infinite_targets_are_refused(device):
    net = make(device, output="identity")
    y = replaced(np.zeros((6, 3)), (0, 0), np.inf)
    with pytest.raises(ValueError, match="y cannot be used: NaN or infinity in 1 of 18"):
        net.loss_and_grad(X, y, "squared_error")


REFUSED_WEIGHTS = {
    "too few": (np.ones(5), ValueError, r"\(5,\); there are 6 rows"),
    "a column": (np.ones((6, 1)), ValueError, r"\(6, 1\); there are 6 rows"),
    "a number": (2.0, ValueError, r"\(\); there are 6 rows"),
    "negative": (replaced(np.ones(6), 3, -1.0), ValueError, "negative weights"),
    "all 0": (np.zeros(6), ValueError, "0 everywhere"),
    "NaN": (replaced(np.ones(6), 3, np.nan), ValueError, "NaN or infinity in 1 of 6"),
    "infinite": (replaced(np.ones(6), 3, np.inf), ValueError, "NaN or infinity in 1 of 6"),
    "complex": (np.ones(6) + 0j, TypeError, "complex"),
    "text": (["a"] * 6, TypeError, "dtype"),
}


@pytest.mark.parametrize("kind", REFUSED_WEIGHTS)
def test_refused_weights(device, kind):
    net = make(device)
    weight, error, said = REFUSED_WEIGHTS[kind]
    trainer = gpumlp.Trainer(net)
    for ask in (
        lambda: net.loss_and_grad(X, LABELS, sample_weight=weight),
        lambda: trainer.step(X, LABELS, weight),
        lambda: trainer.fit(X, LABELS, sample_weight=weight, progress=False),
        lambda: trainer.fit(X, LABELS, validation=(X, LABELS, weight), progress=False),
    ):
        with pytest.raises(error, match=f"sample_weight .*{said}"):
            ask()
    assert trainer.steps == 0


def test_a_refusal_leaves_no_trace(device):
    """A refused call in between changes nothing."""
    y = LABELS
    thetas = []
    for refuse in (False, True):
        trainer = gpumlp.Trainer(make(device), batch_size=4)
        trainer.fit(X, y, epochs=1, progress=False)
        if refuse:
            for x in (X[:, :2], replaced(X, (0, 0), np.nan)):
                with contextlib.suppress(ValueError):
                    trainer.fit(x, y, progress=False)
        trainer.fit(X, y, epochs=2, progress=False)
        thetas.append(to_numpy(trainer.net.theta).copy())
    np.testing.assert_array_equal(*thetas)


def test_x_is_never_written_to(device):
    """Dropout and activations work in place, on buffers of the library's own."""
    net = gpumlp.MLP((4, 5, 3), dropout=0.5, dtype="float64", device=device)
    x, y, w = X.copy(), np.eye(3)[LABELS], np.ones(6)
    arrays = types.SimpleNamespace(x=x.copy(), y=y.copy(), w=w.copy())
    trainer = gpumlp.Trainer(net, batch_size=4)
    net.forward(x)
    net.loss_and_grad(x, y, sample_weight=w)
    trainer.step(x, y, w)
    trainer.fit(x, y, epochs=1, sample_weight=w, validation=(x, y), progress=False)
    np.testing.assert_array_equal(x, arrays.x)
    np.testing.assert_array_equal(y, arrays.y)
    np.testing.assert_array_equal(w, arrays.w)
