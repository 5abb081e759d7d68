"""precision="tf32" and "bf16": what is rounded on a GPU, and where they are refused."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

import gpumlp
from tests.helpers.comparison import to_numpy
from tests.helpers.training import fit, theta

SIZES = (13, 40, 24, 5)
BITS = {"tf32": 10, "bf16": 7}  # of the mantissa that is kept

# Batches, and sizes of layers.  With "tf32" the library may round the factors of a product, and may
# also leave them: it has to use tensor cores where all is large and aligned, in other shapes not.
LARGE = 128, (256, 256, 64, 128)
RAGGED = 37, SIZES


def rounded(array, bits):
    """To the nearest number with so many bits behind the leading one, ties to even."""
    fraction, exponent = np.frexp(np.asarray(array, np.float64))
    return np.ldexp(np.rint(np.ldexp(fraction, bits + 1)), exponent - bits - 1)


def gradients_by_formula(net, x, y, precision):
    """(1)-(13) in float64 for tanh, softmax and cross entropy, rounded where a GPU rounds."""
    bits = BITS.get(precision)
    factor = (lambda a: a) if bits is None else lambda a: rounded(a, bits)
    kept = factor if precision == "bf16" else lambda a: a
    K = net.K
    W, b = ([None, *(np.float64(to_numpy(v)) for v in views[1:])] for views in (net.W, net.b))
    n = [kept(x)]
    for k in range(1, K + 1):
        z = factor(n[k - 1]) @ factor(W[k]).T
        if k < K:
            n.append(kept(np.tanh(kept(z) + b[k])))
    z += b[K]
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    delta, found = kept((p - np.eye(p.shape[1])[y]) / len(x)), {}
    for k in range(K, 0, -1):
        found[f"W{k}"] = factor(delta).T @ factor(n[k - 1])
        if k < K:
            found[f"b{k}"] = delta.sum(axis=0)
        if k > 1:
            delta = kept(kept(factor(delta) @ factor(W[k])) * (1 - n[k - 1] ** 2))
    return found


def gradients(cuda, precision, batch, sizes):
    """{name: by the network, by the formula that rounds, by the one that does not}."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, sizes[0])).astype("float32")
    y = rng.integers(0, sizes[-1], batch)
    net = gpumlp.MLP(sizes, "tanh", device=cuda, precision=precision, seed=3)
    for k in range(1, net.K + 1):
        net.b[k][...] = net.ops.to_device(rng.normal(size=sizes[k]).astype("float32"))
    _, grad = net.loss_and_grad(x, y)
    rounding = gradients_by_formula(net, x, y, precision)
    exact = gradients_by_formula(net, x, y, "float32")
    return {
        name: (to_numpy(getattr(grad, name[0])[int(name[1:])]), rounding[name], exact[name])
        for name in exact
    }


@pytest.mark.parametrize("batch, sizes", [LARGE, RAGGED])
def test_gradients_in_bf16(cuda, batch, sizes):
    """Much closer to the formula that rounds than to the one that does not."""
    for name, (found, wanted, exact) in gradients(cuda, "bf16", batch, sizes).items():
        error, rounding = np.linalg.norm(found - wanted), np.linalg.norm(exact - wanted)
        assert error < 0.3 * rounding, name
        assert 1e-5 < rounding / np.linalg.norm(wanted) < 2e-2, name


@pytest.mark.parametrize("batch, sizes", [LARGE, RAGGED])
def test_gradients_in_tf32(cuda, batch, sizes):
    """As far from the exact ones as rounding or cutting the factors takes them; where tensor cores
    need not be used, perhaps not at all."""
    for name, (found, wanted, exact) in gradients(cuda, "tf32", batch, sizes).items():
        error, rounding = np.linalg.norm(found - exact), np.linalg.norm(wanted - exact)
        assert error < 4 * rounding, name
        assert 1e-5 < rounding / np.linalg.norm(exact) < 2e-2, name
        if (batch, sizes) == LARGE:
            assert error > 0.3 * rounding, name


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("hidden, loss", [("gelu", "cross_entropy"), ("relu", "squared_error")])
def test_training_stays_near_float32(cuda, precision, models, hidden, loss):
    """Losses of a fit, with validation, and the update of every weight."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 13)).astype("float32"), rng.integers(0, 5, 60)
    # with squared error on a sigmoid, the last delta comes through f'
    y = y if loss == "cross_entropy" else np.eye(5)[y]
    output = "softmax" if loss == "cross_entropy" else "sigmoid"
    network = {"models": models, "device": cuda, "seed": 3, "dropout": 0.2}
    found = {}
    for kind in ("float32", precision):
        net = gpumlp.MLP(SIZES, hidden, output, precision=kind, **network)
        begin = to_numpy(net.theta).copy()
        trainer = gpumlp.Trainer(net, loss, gpumlp.SGD(0.05, momentum=0.5), batch_size=16, seed=4)
        history = fit(trainer, x, y, 3, validation=(x, y))
        found[kind] = theta(trainer) - begin, history.loss, history.val_loss, net.forward(x)
    moved, near = found["float32"][0], found[precision][0]
    assert np.linalg.norm(near - moved) < 0.03 * np.linalg.norm(moved)
    # Products of this size may stay in full float32 with "tf32".
    assert precision == "tf32" or np.linalg.norm(near - moved) > 0
    for here, there in zip(found["float32"][1:], found[precision][1:], strict=True):
        np.testing.assert_allclose(there, here, rtol=0.03, atol=0.01)


def test_weights_written_by_the_user_count_at_once(cuda):
    """The copy that products read is made in each pass."""
    x = np.ones((2, 3), "float32")
    net = gpumlp.MLP((3, 2, 2), "identity", "identity", device=cuda, precision="bf16")
    for value in (0.5, 2.0, 4.0, 8.0):
        net.theta[...] = value
        np.testing.assert_array_equal(net.forward(x), 2 * value * (3 * value + value) + value)


def test_digits_in_bf16(cuda):
    x, y = load_digits(return_X_y=True)
    x, y = x[:300] / 16, y[:300]
    scores = []
    for precision in ("float32", "bf16"):
        model = gpumlp.MLPClassifier(
            (32,), max_iter=12, batch_size=20, learning_rate_init=0.01, alpha=0,
            precision=precision, device=cuda, dtype="float32", random_state=1,
        )  # fmt: skip
        with pytest.warns(Warning, match="not converged"):
            scores.append(model.fit(x, y).score(x, y))
        hidden = model.transform(x[:5])
        assert hidden.dtype == np.float32 and 0.01 < np.abs(hidden).max() < 100
    assert scores[0] > 0.95 and abs(scores[0] - scores[1]) < 0.03


def test_the_cpu_computes_in_float32():
    x = np.random.default_rng(0).normal(size=(9, 13)).astype("float32")
    outputs = [
        gpumlp.MLP(SIZES, device="cpu", precision=precision).forward(x)
        for precision in ("float32", "tf32", "bf16")
    ]
    np.testing.assert_array_equal(outputs[1], outputs[0])
    np.testing.assert_array_equal(outputs[2], outputs[0])


def test_refusals():
    with pytest.raises(ValueError, match="precision = 'fp8' must be 'float32', 'tf32' or 'bf16'"):
        gpumlp.MLP(SIZES, precision="fp8")
    with pytest.raises(ValueError, match='is for dtype="float32", not float64'):
        gpumlp.MLP(SIZES, dtype="float64", precision="bf16")
    x, y = np.ones((4, 2)), [0, 1, 0, 1]
    for wrong, says in (
        ({"precision": "half"}, "precision = 'half'"),
        ({"precision": "tf32", "dtype": "float64"}, "is for dtype='float32', not float64"),
        ({"precision": "tf32", "solver": "lbfgs"}, "solver='lbfgs' has no precision"),
    ):
        with pytest.raises(ValueError, match=says):
            gpumlp.MLPClassifier(**wrong).fit(x, y)


def test_estimators_with_a_precision_are_float32():
    x, y = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) % 2
    model = gpumlp.MLPClassifier(precision="bf16", max_iter=2, device="cpu")
    with pytest.warns(Warning, match="not converged"):
        model.fit(x, y)
    assert model.coefs_[0].dtype == np.float32


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_files_keep_it(device, tmp_path, precision):
    net = gpumlp.MLP(SIZES, device=device, precision=precision, tune=precision == "bf16")
    gpumlp.save(net, tmp_path / "net")
    loaded = gpumlp.load(tmp_path / "net", device=device)
    assert (loaded.precision, loaded.tune) == (precision, precision == "bf16")
    copied = net.like(dtype="float64")
    assert (copied.precision, copied.dtype) == ("float32", np.float64)
    assert net.like(seed=3).precision == precision


def test_files_keep_the_tuned_products(cuda, tmp_path, monkeypatch):
    """The algorithms that were timed go on with a checkpoint, whatever a timing says later."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "one"))
    x, y = np.ones((4, 13), "float32"), np.arange(4) % 5
    trainer = gpumlp.Trainer(gpumlp.MLP(SIZES, device=cuda, tune=True), batch_size=4)
    fit(trainer, x, y)
    chosen = trainer.net.ops.export_algorithms()
    assert len(chosen["algorithms"]) >= 6
    gpumlp.save(trainer, tmp_path / "trainer")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two"))
    loaded = gpumlp.load(tmp_path / "trainer", device=cuda)
    assert loaded.net.ops.export_algorithms() == chosen
    gpumlp.load(tmp_path / "trainer", device="cpu").step(x, y)
