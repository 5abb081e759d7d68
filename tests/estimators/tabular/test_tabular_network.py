"""The networks that tables are learned by: folds, initial weights, falling decay, time limits."""

import math

import numpy as np
import pytest

import gpumlp
from gpumlp.estimators.tabular import preset, time_limit
from gpumlp.estimators.tabular.fold_rows import fold_rows
from tests.helpers.training import blobs, fit, theta


# ---------------------------------------------------------------- folds
@pytest.mark.parametrize("rows", [2, 3, 7, 8, 9, 41, 203])
@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("models", [1, 3, 8])
def test_each_row_is_held_out_and_never_trained_on_there(rows, classes, models):
    rng = np.random.default_rng(rows)
    y = rng.integers(0, 3, rows) if classes else rng.normal(size=rows)
    training, held_out = fold_rows(y, models, classes, rng)
    assert len(training) == len(held_out) == models
    folds = min(models, rows)
    for own, held in zip(training, held_out, strict=True):
        assert not set(own) & set(held)
        assert len(set(own)) == len(own)
        assert rows - 1 <= len(own) + len(set(held)) <= rows
    if models == 1:
        assert len(held_out[0]) == -(-rows // 8)
    else:
        assert set(held_out[:folds].ravel()) == set(range(rows))


def test_folds_have_the_classes_in_equal_shares():
    y = np.random.default_rng(3).permutation(np.repeat([0, 1, 2], [400, 80, 24]))
    _, held_out = fold_rows(y, 8, True, np.random.default_rng(0))
    for held in held_out:
        np.testing.assert_array_equal(np.bincount(y[held]), [50, 10, 3])


def test_a_single_row_is_trained_on_and_held_out():
    training, held_out = fold_rows(np.zeros(1, int), 3, True, np.random.default_rng(0))
    assert training.tolist() == held_out.tolist() == [[0]] * 3


@pytest.mark.parametrize(
    ("rows", "batch", "width", "epochs"),
    [(1, 64, 128, 128), (1025, 128, 128, 128), (8193, 256, 128, 122), (10**5, 256, 256, 16)],
)
def test_what_depends_on_the_number_of_rows(rows, batch, width, epochs):
    assert preset.batch_size_for(rows) == batch
    assert preset.hidden_sizes_for(rows) == (width,) * 3
    assert preset.epochs_for(rows) == epochs


# ---------------------------------------------------------------- initial weights
@pytest.mark.parametrize("params", [preset.CLASSES, preset.VALUES])
def test_units_have_unit_deviation_and_a_kink_amid_the_data(device, params):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(300, 11)) * rng.uniform(0.1, 30, 11) + rng.normal(size=11)
    net = preset.make_network(params, (11, 17, 13, 4), "softmax", 2, dtype="float64", device=device)
    preset.draw_weights(net, x, rng)
    f = gpumlp.activations[params.activation]
    for m in range(2):
        n = x
        for k in (1, 2, 3):
            W, b = (np.array(net.ops.to_host(a[k][m])) for a in (net.W, net.b))
            z = n @ W.T
            np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-6)
            assert (z.min(axis=0) <= -b).all()
            assert (-b <= z.max(axis=0)).all()
            n = f.f(z + b, f.p)
    assert not np.allclose(net.ops.to_host(net.W[1][0]), net.ops.to_host(net.W[1][1]))


def test_first_layer_learns_as_if_inputs_were_scaled():
    """Adam's steps of W^(1) are c times as long, and its decay is the same: a network whose inputs
    are multiplied by c, and its first weights divided."""
    x, y = blobs(30, 9)
    c = 16 / 3
    params = preset.CLASSES._replace(scale_rate=0, dropout=0, schedule=None)
    found = preset.make_network(params, (9, 7, 3), "softmax", 1, dtype="float64", device="cpu")
    other = preset.make_network(params, (9, 7, 3), "softmax", 1, dtype="float64", device="cpu")
    preset.draw_weights(found, x, np.random.default_rng(0))
    other.theta[...] = found.theta
    other.W[1][...] /= c
    optimizer = gpumlp.AdamW(0.01, beta2=0.95, weight_decay=0.3, eps=1e-30)
    trainer = preset.make_trainer(params, found, "cross_entropy", 0.01, 8, 3)
    trainer.retune(eps=1e-30)
    fit(trainer, x, y, 3)
    fit(gpumlp.Trainer(other, "cross_entropy", optimizer, 8, seed=3), x * c, y, 3)
    np.testing.assert_allclose(found.forward(x), other.forward(x * c), rtol=1e-9)


# ---------------------------------------------------------------- numbers that fall
def test_dropout_and_decay_fall_in_the_second_half(device):
    x, y = blobs(20)
    params = preset.CLASSES._replace(dropout=0.25, weight_decay=0.5)
    net = preset.make_network(params, (4, 5, 3), "softmax", 2, device=device)
    preset.draw_weights(net, x, np.random.default_rng(0))
    trainer = preset.make_trainer(params, net, "cross_entropy", 0.01, 8, 0)
    seen = []

    class Watch(gpumlp.Callback):
        def on_epoch_end(self, trainer, history):
            threshold = int(net.ops.to_host(net.network.thresholds[1])[1])
            seen.append((net.dropout, threshold / 2**32, trainer.optimizer.weight_decay))

    fit(trainer, x, y, 8, callbacks=[preset.FallingDecay(params), Watch()])
    factors = [1.0] * 4 + [0.5 * (1 + math.cos(math.pi * i / 4)) for i in (1, 2, 3, 4)]
    expected = [(0.25 * f, 0.25 * f, 0.5 * f) for f in factors]
    np.testing.assert_allclose(seen, expected, atol=1e-9)


class TestDropoutThatIsSet:
    def test_training_goes_on_with_it(self, device):
        x, y = blobs(23)

        def trained(first):
            net = gpumlp.MLP((4, 30, 3), dropout=first, dtype="float64", device=device, seed=2)
            net.dropout = [0.4]
            trainer = gpumlp.Trainer(net, batch_size=8)
            fit(trainer, x, y, 2)
            assert net.dropout == [0.4]
            return theta(trainer)

        np.testing.assert_array_equal(trained(0.1), trained(0.4))

    def test_0_is_none(self, device):
        x, y = blobs(23)

        def trained(first, then):
            net = gpumlp.MLP((4, 30, 3), dropout=first, dtype="float64", device=device, seed=2)
            net.dropout = then
            trainer = gpumlp.Trainer(net, batch_size=8)
            fit(trainer, x, y, 2)
            return theta(trainer)

        np.testing.assert_allclose(trained(0.1, 0), trained(0, 0), rtol=1e-12)

    def test_a_layer_that_was_made_without_is_refused(self):
        net = gpumlp.MLP((4, 30, 20, 3), dropout=[0.1, 0], device="cpu")
        net.dropout = [0.3, 0]
        with pytest.raises(ValueError, match=r"dropout = \[0.1, 0.2\]: layer 2 was made without"):
            net.dropout = [0.1, 0.2]
        with pytest.raises(ValueError, match=r"dropout = 1.5 must be a number in \[0, 1\)"):
            net.dropout = 1.5
        assert net.dropout == [0.3, 0]


# ---------------------------------------------------------------- time
class Clock:
    """Time that passes at the end of each epoch, and otherwise stands."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time_limit.time, "monotonic", lambda: self.now)

    def callback(self, *times):
        class Pass(gpumlp.Callback):
            def on_epoch_end(_, trainer, history):
                self.now += times[history.epochs - 1] if history.epochs <= len(times) else 1.0

        return Pass()


def epochs_in(monkeypatch, seconds, most, *times):
    """Epochs of a fit, whose first epochs take these times, the others a second."""
    clock = Clock(monkeypatch)
    x, y = blobs(20)
    trainer = gpumlp.Trainer(gpumlp.MLP((4, 3), device="cpu"), batch_size=20, schedule="cosine_log")
    limit = time_limit.TimeLimit(seconds, clock.now)
    history = fit(trainer, x, y, most, callbacks=[clock.callback(*times), limit])
    assert trainer.rates.total >= history.epochs
    return history.epochs


@pytest.mark.parametrize(
    ("seconds", "epochs"), [(100, 10), (12, 10), (9.3, 9), (5.5, 5), (1.5, 1), (0.1, 1)]
)
def test_as_many_epochs_as_there_is_time_for(monkeypatch, seconds, epochs):
    assert epochs_in(monkeypatch, seconds, 10) == epochs


def test_a_slow_first_epoch_says_little_of_the_others(monkeypatch):
    assert epochs_in(monkeypatch, 100, 1000, 20.0) in range(70, 81)


def test_the_schedule_ends_with_the_last_epoch(monkeypatch):
    clock = Clock(monkeypatch)
    x, y = blobs(20)
    trainer = gpumlp.Trainer(gpumlp.MLP((4, 3), device="cpu"), batch_size=20, schedule="cosine")
    limit = time_limit.TimeLimit(30, clock.now)
    history = fit(trainer, x, y, 1000, callbacks=[clock.callback(), limit])
    assert history.lr[-1] < 0.05 * max(history.lr)
