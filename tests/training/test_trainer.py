"""Training: that it learns, its steps, validation, history, and going on after a fit.

Batches are in test_trainer_batches.py, learning rates in _rates, stacks in _stacks; how a fit ends,
in _stopping, _failures and test_interrupt.py.
"""

import numpy as np
import pytest

import gpumlp
from gpumlp.model import shape
from tests.helpers.comparison import to_numpy
from tests.helpers.training import blobs, fit, make_trainer, theta

X, Y = blobs(21)
XV, YV = blobs(13, seed=1)


# --- it learns ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer",
    [
        gpumlp.SGD(0.1),
        gpumlp.SGD(0.05, momentum=0.9),
        gpumlp.SGD(0.05, momentum=0.9, nesterov=True),
        gpumlp.RMSprop(0.01),
        gpumlp.RMSprop(0.01, momentum=0.5, centered=True),
        gpumlp.Adam(0.02),
        gpumlp.AdamW(0.02),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_every_optimiser_lowers_the_loss(device, optimizer):
    history = fit(make_trainer(device, optimizer=optimizer), X, Y, epochs=12)
    assert history.loss[-1] < 0.4 * history.loss[0]


def test_it_learns_to_tell_images_apart(device):
    """Ten noisy 8 x 8 patterns, as scikit-learn's digits are."""
    rows = 600 if device == "cpu" else 300
    x, y = blobs(rows + 200, features=64, classes=10, spread=2.0)
    x, xv, y, yv = x[:rows], x[rows:], y[:rows], y[rows:]
    net = gpumlp.MLP((64, 32, 10), device=device)
    trainer = gpumlp.Trainer(net, optimizer=gpumlp.Adam(3e-3), batch_size=32)
    history = fit(trainer, x, y, epochs=8, validation=(xv, yv))
    assert history.val_accuracy[0] < history.val_accuracy[-1] >= 0.97
    assert (net.forward(xv).argmax(axis=1) == yv).mean() == history.val_accuracy[-1]


def test_it_learns_a_function(device):
    x = np.linspace(-1, 1, 40)[:, None]
    y = np.sin(3 * x)
    net = gpumlp.MLP((1, 16, 1), "tanh", "identity", dtype="float64", device=device)
    trainer = gpumlp.Trainer(net, "squared_error", gpumlp.Adam(3e-2), batch_size=10)
    fit(trainer, x, y, epochs=60)
    assert np.abs(net.forward(x) - y).mean() < 0.08


# --- one step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("models", [None, 3])
def test_step_returns_the_loss_before_the_update(device, models, dtype):
    trainer = make_trainer(device, models, net={"dtype": dtype})
    before, _ = trainer.net.loss_and_grad(X, Y)
    value = trainer.step(X, Y)
    if device == "cuda":
        import cupy

        assert isinstance(value, cupy.ndarray)
    assert value.shape == (() if models is None else (models,))
    assert value.dtype == dtype
    kept = to_numpy(value).copy()
    np.testing.assert_allclose(kept, before, rtol=1e-6 if dtype == "float32" else 1e-14)
    after = trainer.step(X, Y)
    assert (to_numpy(after) < kept).all()
    np.testing.assert_array_equal(to_numpy(value), kept)  # not overwritten by the second
    assert np.all(trainer.steps == np.full(models or (), 2))


def test_steps_on_batches_of_all_sizes(device):
    """Buffers are made anew for larger batches and used again for smaller ones."""
    trainer = make_trainer(device)
    for rows in (3, 1, 21, 8, 3):
        expected, _ = trainer.net.loss_and_grad(X[:rows], Y[:rows])
        np.testing.assert_allclose(to_numpy(trainer.step(X[:rows], Y[:rows])), expected, rtol=1e-13)


def test_steps_and_predictions_take_turns(device):
    """A prediction in between, of any size, changes nothing."""
    plain, disturbed = make_trainer(device), make_trainer(device)
    for i in range(5):
        plain.step(X, Y)
        disturbed.net.forward(np.ones((1 + 40 * (i % 2), 4)))
        disturbed.step(X, Y)
        disturbed.net.loss_and_grad(X[:2], Y[:2])
    np.testing.assert_array_equal(theta(plain), theta(disturbed))


# --- gradient clipping ----------------------------------------------------------------------------


@pytest.mark.parametrize("models", [None, 3])
def test_a_long_gradient_is_shortened(device, models):
    """The norm is over all of a network's parameters; the penalty of (14) is not clipped."""
    clip = 0.05 if models is None else np.array([0.05, 1e9, 0.2])
    optimizer = gpumlp.SGD(0.5, l2=0.1)
    trainer = make_trainer(device, models, optimizer=optimizer, clip_norm=clip)
    _, grad = trainer.net.loss_and_grad(X, Y)
    before = {k: to_numpy(trainer.net.W[k]).copy() for k in (1, 2)}
    lengths = np.linalg.norm(grad.theta, axis=-1)
    assert np.all(lengths > 0.2)
    factor = np.minimum(1, clip / lengths)[..., None, None]
    trainer.step(X, Y)
    for k in (1, 2):
        expected = before[k] - 0.5 * (grad.W[k] * factor + 0.1 * before[k])
        np.testing.assert_allclose(to_numpy(trainer.net.W[k]), expected, rtol=1e-12)
        expected = -0.5 * grad.b[k] * factor[..., 0]
        np.testing.assert_allclose(to_numpy(trainer.net.b[k]), expected, rtol=1e-12, atol=1e-17)


# --- validation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_validation_loss_is_the_loss_after_the_epoch(device, models, weighted, monkeypatch):
    weight = (np.random.default_rng(0).uniform(0.5, 2, 13),) if weighted else ()
    trainer = make_trainer(device, models)
    monkeypatch.setattr(shape, "CHUNK_BYTES", 5 * 2 * 6 * 8 * (models or 1))
    assert trainer.net.shape.chunk_rows == 5  # validation goes in pieces of 5, 5 and 3 rows
    found, expected, right = [], [], []

    class Direct(gpumlp.Callback):
        def on_epoch_end(self, trainer, history):
            found.append(history.val_loss[-1])
            expected.append(trainer.net.loss_and_grad(XV, YV, "cross_entropy", *weight)[0])
            hits = trainer.net.forward(XV).argmax(axis=-1) == YV
            right.append(np.average(hits, axis=-1, weights=weight[0] if weighted else None))

    history = fit(trainer, X, Y, 3, validation=(XV, YV, *weight), callbacks=[Direct()])
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(history.val_accuracy, right, rtol=1e-12)


def test_validation_does_not_change_training(device):
    trainers = [make_trainer(device, net={"dropout": 0.3}) for _ in range(2)]
    fit(trainers[0], X, Y, 3)
    fit(trainers[1], X, Y, 3, validation=blobs(50, seed=5))
    np.testing.assert_array_equal(*map(theta, trainers))


@pytest.mark.parametrize(
    "outputs, output, loss, targets",
    [
        (3, "softmax", "cross_entropy", "labels"),
        (3, "log_softmax", "cross_entropy", "one-hot"),
        (3, "sigmoid", "binary_cross_entropy", "multilabel"),
        (1, "sigmoid", "binary_cross_entropy", "binary"),
        (1, "hard_sigmoid", "binary_cross_entropy", "binary"),
        (1, "identity", "hinge", "binary"),
        (3, "identity", "squared_hinge", "labels"),
    ],
)
def test_accuracy(device, outputs, output, loss, targets):
    net = gpumlp.MLP((4, outputs), output=output, dtype="float64", device=device, seed=2)
    rng = np.random.default_rng(3)
    y = {
        "labels": YV,
        "one-hot": np.eye(3)[YV],
        "multilabel": rng.integers(0, 2, (13, 3)),
        "binary": rng.integers(0, 2, 13),
    }[targets]
    history = fit(gpumlp.Trainer(net, loss, gpumlp.SGD(0.0)), XV, y, validation=(XV, y))
    n = net.forward(XV)
    threshold = 0 if output == "identity" else 0.5
    expected = {
        "labels": lambda: n.argmax(axis=1) == YV,
        "one-hot": lambda: n.argmax(axis=1) == YV,
        "multilabel": lambda: ((n > threshold) == y).all(axis=1),
        "binary": lambda: (n[:, 0] > threshold) == y,
    }[targets]()
    assert 0 < expected.mean() < 1
    assert history.val_accuracy == pytest.approx([expected.mean()])


def test_history(device):
    trainer = make_trainer(device)
    first = fit(trainer, X, Y, 2)
    assert [len(first.loss), len(first.lr), len(first.seconds)] == [2, 2, 2]
    assert first.val_loss == first.val_accuracy == []
    history = fit(trainer, X, Y, 3, validation=(XV, YV))
    assert history is first and history is trainer.history
    assert [len(history.loss), len(history.lr), len(history.seconds)] == [5, 5, 5]
    assert [len(history.val_loss), len(history.val_accuracy)] == [3, 3]
    assert history.epochs == trainer.epoch == 5
    assert all(type(number) is float for number in history.loss + history.val_loss)
    assert min(history.seconds) > 0
    assert not history.interrupted and not history.diverged
    values = make_trainer(device, loss="squared_error", net={"output": "identity"})
    history = fit(values, X, XV[0, :3] + np.zeros((21, 3)), validation=(X, np.zeros((21, 3))))
    assert len(history.val_loss) == 1 and history.val_accuracy == []  # no classes, no accuracy


# --- going on -------------------------------------------------------------------------------------


SCHEDULES = {
    "none": lambda: None,
    "exponential": lambda: gpumlp.schedules["exponential"](decay=0.8),
    "step, in updates": lambda: gpumlp.schedules["step"](unit="step", every=4, decay=0.5),
    "cosine": lambda: gpumlp.schedules["cosine"](total=6, warmup=1),
    "plateau": lambda: gpumlp.schedules["plateau"](patience=1, decay=0.5, delta=0.05),
    "own": lambda: lambda step: 1 / (1 + step / 10),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("models", [None, 2])
def test_a_second_fit_goes_on_where_the_first_stopped(device, schedule, models):
    """Order, dropout, optimiser and schedule: fit(2) and fit(3) are fit(5), bit for bit."""
    trainers = [
        make_trainer(device, models, net={"dropout": 0.2}, schedule=SCHEDULES[schedule]())
        for _ in range(2)
    ]
    data = {"x": X, "y": Y, "validation": (XV, YV)}
    once = fit(trainers[0], **data, epochs=5)
    fit(trainers[1], **data, epochs=2)
    twice = fit(trainers[1], **data, epochs=3)
    np.testing.assert_array_equal(*map(theta, trainers))
    for name in ("loss", "val_loss", "val_accuracy", "lr"):
        np.testing.assert_array_equal(getattr(once, name), getattr(twice, name))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_seed_gives_the_same_bits(device, dtype):
    def run(seed):
        trainer = make_trainer(device, 2, net={"dropout": 0.3, "dtype": dtype}, seed=seed)
        history = fit(trainer, X, Y, 3, validation=(XV, YV))
        return np.concatenate([theta(trainer).ravel(), np.ravel(history.loss + history.val_loss)])

    first = run(7)
    np.testing.assert_array_equal(first, run(7))
    assert (first != run(8)).any()


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, error, said",
    [
        ({"optimizer": "adam"}, TypeError, "gpumlp.Adam"),
        ({"optimizer": gpumlp.Adam}, TypeError, "gpumlp.Adam"),
        ({"batch_size": 0}, ValueError, "batch_size = 0"),
        ({"batch_size": 2.5}, ValueError, r"batch_size = 2\.5"),
        ({"clip_norm": 0}, ValueError, "clip_norm = 0"),
        ({"clip_norm": np.ones(2)}, ValueError, r"clip_norm = array.* one for each of 1 networks"),
        ({"optimizer": gpumlp.SGD(np.ones(3))}, ValueError, r"SGD: lr = .* each of 1 networks"),
        ({"reduction": "none"}, ValueError, "reduction = 'none' must be 'mean' or 'sum'"),
        ({"schedule": "cosinus"}, ValueError, "schedule = 'cosinus' must be .*'cosine'"),
        ({"schedule": 0.1}, TypeError, "schedule = 0.1 must be None, one of"),
        ({"loss": "nothing"}, ValueError, "loss = 'nothing' must be one of"),
        ({"seed": [1, 2]}, ValueError, r"seed = \[1, 2\] must be .* one for each of 1 networks"),
    ],
)
def test_arguments_that_make_no_trainer(options, error, said):
    with pytest.raises(error, match=said):
        make_trainer(**options)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: gpumlp.SGD(-1), "SGD: lr = -1"),
        (lambda: gpumlp.SGD(float("nan")), "SGD: lr = nan"),
        (lambda: gpumlp.SGD(0.1, momentum=1.0), r"momentum = 1\.0"),
        (lambda: gpumlp.SGD(0.1, nesterov=True), "nesterov = True needs momentum above 0, not 0"),
        (lambda: gpumlp.Adam(0.1, beta2=1.5), r"beta2 = 1\.5"),
        (lambda: gpumlp.Adam(0.1, eps=0), "eps = 0"),
        (lambda: gpumlp.Adam(0.1, l2=-1), "l2 = -1"),
        (lambda: gpumlp.AdamW(0.1, weight_decay=-1), "weight_decay = -1"),
        (lambda: gpumlp.Adam(np.ones((2, 2))), "lr = .* or one for each network"),
    ],
)
def test_numbers_that_no_optimiser_takes(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize("epochs", [0, -1, 1.5])
def test_epochs_is_at_least_1(epochs):
    with pytest.raises(ValueError, match=f"epochs = {epochs}"):
        fit(make_trainer(), X, Y, epochs)


def test_the_bar(capsys, monkeypatch):
    # Older versions of tqdm cut the line at the terminal's width.
    for name, size in (("COLUMNS", 200), ("LINES", 50)):
        monkeypatch.setenv(name, str(size))
    make_trainer().fit(X, Y, epochs=2, validation=(XV, YV), progress=True)
    shown = capsys.readouterr().err
    assert "2/2" in shown and "loss" in shown and "val_accuracy" in shown
    fit(make_trainer(), X, Y)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")
