"""How a fit fails: divergence, and too little memory on the device."""

import gc
import re

import numpy as np
import pytest

import gpumlp
from gpumlp.training import placement
from tests.helpers.comparison import fill
from tests.helpers.training import blobs, fit, make_trainer, theta

X, _ = blobs(24, spread=1.5)
TARGETS = X[:, :2] + 1


# --- divergence -----------------------------------------------------------------------------------


def exploding(device, models=None, lr=50.0, dtype="float32", schedule=None, seed=0):
    """Linear least squares; 50 is a rate at which the weights grow some 500-fold a step."""
    net = gpumlp.MLP(
        (4, 2), output="identity", models=models, dtype=dtype, device=device, seed=seed
    )
    options = {"batch_size": 8, "shuffle": False, "schedule": schedule}
    return gpumlp.Trainer(net, "squared_error", gpumlp.SGD(lr), **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loss_that_overflows(device, dtype):
    by_hand = exploding(device, dtype=dtype)
    good, epoch, update = None, 0, 0
    while not by_hand.diverged:
        good = theta(by_hand)
        start = 8 * (update % 3)
        epoch, update = 1 + update // 3, update + 1
        by_hand.step(X[start : start + 8], TARGETS[start : start + 8])
        assert update < 100
    assert update > 3, "it should take more than an epoch"
    assert by_hand.diverged == {0: update}

    trainer = exploding(device, dtype=dtype)
    with pytest.raises(gpumlp.DivergenceError) as raised:
        fit(trainer, X, TARGETS, 50)
    error = raised.value
    assert (error.epoch, error.step, error.lr) == (epoch, update, 50)
    assert f"epoch {epoch}, at update {update}, with learning rate 50;" in str(error)
    assert "clip_norm" in str(error)
    assert error.history is trainer.history
    assert trainer.steps == update - 1
    assert np.isfinite(good).all()
    np.testing.assert_allclose(theta(trainer), good, rtol=1e-5)
    np.testing.assert_array_equal(theta(by_hand), good)


@pytest.mark.filterwarnings("ignore:epoch [0-9]+")
@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize(
    "optimizer",
    [
        gpumlp.SGD(3e38),
        gpumlp.SGD(3e38, momentum=0.9, nesterov=True),
        gpumlp.SGD(1, l2=3e38),
        gpumlp.RMSprop(3e38, momentum=0.9, centered=True),
        gpumlp.Adam(3e38),
        gpumlp.AdamW(1, weight_decay=3e38),
    ],
)
def test_weights_are_finite_after_a_first_update_that_overflows(
    device, resident, models, optimizer
):
    net = gpumlp.MLP((4, 7, 2), output="identity", models=models, device=device)
    trainer = gpumlp.Trainer(net, "squared_error", optimizer, batch_size=8)
    trainer.resident = resident and device != "cpu"
    x, y = (1e3 * np.concatenate([a] * 2) for a in (X, TARGETS))
    if models is None:
        with pytest.raises(gpumlp.DivergenceError, match="keeps finite weights"):
            fit(trainer, x, y, 2)
    else:
        fit(trainer, x, y, 2)
    assert list(trainer.diverged) == list(range(net.M))
    for array in (theta(trainer), *filter(lambda a: a is not None, trainer.state.buffers.values())):
        assert np.isfinite(net.ops.to_host(array)).all()


def test_the_last_update_overflows(device):
    """Nothing comes after it that would show what it did."""
    net = gpumlp.MLP((4, 2), output="identity", device=device)
    trainer = gpumlp.Trainer(net, "squared_error", gpumlp.SGD(3e38), batch_size=24)
    with pytest.raises(gpumlp.DivergenceError) as raised:
        fit(trainer, 1e3 * X, 1e3 * TARGETS, 1)
    assert (raised.value.epoch, raised.value.step) == (1, 1)
    assert np.isfinite(theta(trainer)).all()


@pytest.mark.parametrize("by_fit", [False, True])
def test_a_gradient_that_overflows_while_the_loss_is_finite(device, by_fit):
    """L = ½ (10^10)², but ∂L/∂W = 10^10 · 10^30, beyond float32."""
    net = gpumlp.MLP((1, 1), output="identity", init="zeros", device=device)
    trainer = gpumlp.Trainer(net, "squared_error", gpumlp.SGD(1e-3), schedule="exponential")
    x, y = [[1e30]], [[1e10]]
    if by_fit:
        with pytest.raises(gpumlp.DivergenceError, match=r"epoch 1, at update 1, .* 0\.001;"):
            fit(trainer, x, y)
    else:
        trainer = gpumlp.Trainer(net, "squared_error", gpumlp.SGD(1e-3))
        assert float(trainer.step(x, y)) == pytest.approx(5e19)
    assert trainer.diverged == {0: 1}
    assert trainer.steps == 0
    assert not theta(trainer).any()


def test_steps_after_a_divergence_move_nothing(device):
    trainer = exploding(device)
    fill(trainer.net.W[1], np.full((2, 4), 1e30))
    before = theta(trainer)
    for _ in range(2):
        trainer.step(X, TARGETS)
        assert trainer.diverged == {0: 1}
        np.testing.assert_array_equal(theta(trainer), before)


def test_a_fit_after_a_divergence_says_so_again(device):
    """Rather than running for hours without moving."""
    trainer = exploding(device)
    for _ in range(2):
        with pytest.raises(gpumlp.DivergenceError):
            fit(trainer, X, TARGETS, 50)


def falling(step):
    return np.array([1.0, 0.9, 0.8, *[0.7] * 2000])[step]


@pytest.mark.parametrize(
    "schedule",
    [
        None,
        gpumlp.schedules["inverse_scaling"](unit="step", power=0.01),
        gpumlp.schedules["plateau"](patience=1, decay=0.99),
        falling,
    ],
    ids=["none", "inverse scaling", "plateau", "a table"],
)
def test_in_a_stack_only_the_member_that_diverged_stands_still(device, schedule):
    lr = np.array([0.01, 50.0, 0.002])
    stack = exploding(device, 3, lr, schedule=schedule)
    with pytest.warns(RuntimeWarning) as warned:
        history = fit(stack, X, TARGETS, 12, validation=(X, TARGETS))
    (warning,) = warned  # once, not in every epoch
    said = re.search(
        r"for network 1 \(update (\d+), learning rate ([\d.]+)\)", str(warning.message)
    )
    assert said and history.diverged == stack.diverged == {1: int(said[1])}
    assert 0.7 * 50 <= float(said[2]) <= 50
    assert history.epochs == 12
    np.testing.assert_array_equal(stack.steps, [36, int(said[1]) - 1, 36])
    assert np.isfinite(theta(stack)).all()
    assert np.isfinite(np.array(history.loss)[:, [0, 2]]).all()

    others = exploding(device, 2, lr[[0, 2]], schedule=schedule, seed=[0, 2])
    expected = fit(others, X, TARGETS, 12, validation=(X, TARGETS))
    np.testing.assert_array_equal(theta(stack)[[0, 2]], theta(others))
    for name in ("loss", "val_loss", "lr"):
        found = np.array(getattr(history, name))[:, [0, 2]]
        np.testing.assert_array_equal(found, getattr(expected, name))


def test_checkpoints_of_a_stack_of_which_one_has_an_infinite_rate(tmp_path):
    """They are written, and the others go on from them."""
    net = gpumlp.MLP((4, 2), output="identity", models=2, device="cpu")
    trainer = gpumlp.Trainer(net, "squared_error", gpumlp.SGD([1e-32, 1e30]), 8, huge)
    written = gpumlp.Checkpoint(tmp_path)
    with pytest.warns(RuntimeWarning, match=r"network 1 \("):
        trainer.fit(X, TARGETS, epochs=1, callbacks=[written], progress=False)
    assert trainer.lr[1] == np.inf
    resumed = gpumlp.load(next(tmp_path.iterdir()), device="cpu", custom={"huge": huge})
    assert np.array_equal(theta(resumed), theta(trainer)) and resumed.diverged == trainer.diverged
    before = theta(resumed).copy()
    resumed.fit(X, TARGETS, epochs=1, progress=False)
    assert ((theta(resumed) != before).any(axis=1) == [True, False]).all()


def huge(steps):
    return np.full(steps.shape, 1e30)


def test_the_warning_points_to_the_call_of_fit():
    trainer = exploding("cpu", 2, np.array([0.01, 50.0]))
    with pytest.warns(RuntimeWarning) as warned:
        trainer.fit(X, TARGETS, epochs=12, progress=False)
    assert warned[0].filename == __file__


def test_a_stack_of_which_all_diverged_ends(device):
    trainer = exploding(device, 2)
    with pytest.warns(RuntimeWarning, match=r"network 0 \(update"):
        history = fit(trainer, X, TARGETS, 1000)
    assert set(history.diverged) == {0, 1}
    epochs = history.epochs
    assert epochs < 100
    assert np.isfinite(theta(trainer)).all()
    assert fit(trainer, X, TARGETS, 1000).epochs <= epochs + 1  # nor does a second fit go on


def test_early_stopping_beside_divergence(device):
    """A network that diverged keeps its best weights, too."""
    trainer = exploding(device, 2, np.array([0.01, 50.0]))
    early = gpumlp.EarlyStopping(30)
    with pytest.warns(RuntimeWarning, match="network 1 "):
        fit(trainer, X, TARGETS, 12, validation=(X, TARGETS), callbacks=[early])
    value, _ = trainer.net.loss_and_grad(X, TARGETS, "squared_error")
    np.testing.assert_allclose(value, early.best, rtol=1e-5)


# --- too little memory ----------------------------------------------------------------------------

UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def bytes_in(text, what):
    number, unit = re.search(rf"([\d.]+) (bytes|[KMG]iB) are {what}", text).groups()
    return float(number) * UNITS[unit]


@pytest.mark.parametrize("sizes, rows, batch", [((4, 6, 3), 3000, 2000), ((4, 300, 99, 3), 20, 8)])
def test_a_fit_that_does_not_fit(counters, monkeypatch, sizes, rows, batch):
    """For its rows, or for its parameters: the message predicts what a fit really takes."""

    def make():
        net = gpumlp.MLP(sizes, dtype="float64", device="cuda")
        return gpumlp.Trainer(net, batch_size=batch)

    x, y = blobs(rows)
    gc.collect()
    with counters.count() as c:
        start = c.current_bytes
        fit(make(), x, y)
        needed = c.peak_bytes - start
    trainer = make()
    before = theta(trainer)
    counters.leave(monkeypatch, 2000)
    with pytest.raises(MemoryError) as raised:
        fit(trainer, x, y)
    said = str(raised.value)
    assert said.startswith("out of memory on cuda:0: about ")
    assert "; lower batch_size, sizes, " in said and "dtype='float32'" in said
    assert bytes_in(said, "needed") == pytest.approx(needed, rel=0.35)
    assert bytes_in(said, "free") <= 2048
    np.testing.assert_array_equal(theta(trainer), before)
    monkeypatch.undo()
    fit(trainer, x, y)  # with room, it works


def test_a_network_that_does_not_fit(counters, monkeypatch):
    counters.leave(monkeypatch, 100_000)
    with pytest.raises(MemoryError, match=r"out of memory on cuda:0: .* lower sizes, models"):
        gpumlp.MLP((100, 500, 10), models=5, device="cuda")


def test_a_trainer_that_does_not_fit(counters, monkeypatch):
    net = gpumlp.MLP((100, 500, 10), device="cuda")
    counters.leave(monkeypatch, 300_000)  # the parameters take 220 KB
    with pytest.raises(MemoryError, match=r"about .* are needed.*; lower batch_size, sizes"):
        gpumlp.Trainer(net)


@pytest.mark.parametrize("status", [1, 2])
@pytest.mark.parametrize("where", ["Stream", "alloc_pinned_memory"])
def test_cuda_itself_without_memory(counters, monkeypatch, where, status):
    """CuPy tells it by the runtime's number; the other one is "invalid value"."""
    import cupy

    trainer = make_trainer("cuda")
    fit(trainer, X, np.arange(24) % 3)

    def fails(*given, **options):
        raise cupy.cuda.runtime.CUDARuntimeError(status)

    monkeypatch.setattr(placement, "ORDER_BYTES", 1 << 60)  # so that rows are streamed
    monkeypatch.setattr(cupy.cuda, where, fails)
    error = MemoryError if status == 2 else RuntimeError
    with pytest.raises(error, match=r"cudaError") as raised:
        fit(trainer, X, np.arange(24) % 3, 3)
    assert ("out of memory on cuda:0: about" in str(raised.value)) == (status == 2)


def test_a_prediction_that_does_not_fit(counters, monkeypatch):
    net = gpumlp.MLP((10, 200, 3), device="cuda")
    x = np.random.default_rng(0).normal(size=(5_000, 10))
    whole = net.forward(x)
    net = gpumlp.MLP((10, 200, 3), device="cuda")
    counters.leave(monkeypatch, 100_000)
    np.testing.assert_allclose(net.forward(x), whole, rtol=1e-5)  # in smaller chunks
    net = gpumlp.MLP((10, 200, 3), device="cuda")
    counters.leave(monkeypatch, 500)
    with pytest.raises(MemoryError, match=r"out of memory .*lower sizes, the rows given at once"):
        net.forward(x)  # not even one row


def test_memory_goes_back_with_the_network(counters):
    """At once: Python's garbage collector knows nothing of how large things on a device are, so
    that a loop over networks would fill it."""
    gc.collect()
    gc.disable()
    try:
        before = counters.machine.used.get(0, 0)
        trainer = make_trainer("cuda")
        fit(trainer, X, np.arange(24) % 3, validation=(X, np.arange(24) % 3))
        trainer.net.forward(X)
        assert counters.machine.used[0] > before
        del trainer
        assert counters.machine.used[0] == before
    finally:
        gc.enable()
