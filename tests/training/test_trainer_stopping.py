"""Callbacks, early stopping, and trainers in threads.

How a fit fails is in test_trainer_failures.py, Ctrl-C in test_interrupt.py.
"""

import threading

import numpy as np
import pytest

import gpumlp
from tests.helpers.training import blobs, fit, make_trainer, theta

X, Y = blobs(24, spread=1.5)
XV, YV = blobs(18, seed=1, spread=1.5)
LR = np.array([0.05, 0.5, 3.0])  # slow, quick, and one that jumps about


class Watch(gpumlp.Callback):
    """Keeps the weights after every epoch."""

    def __init__(self):
        self.thetas = []

    def on_epoch_end(self, trainer, history):
        self.thetas.append(theta(trainer))


def test_best_weights_are_copied_for_all_networks_at_once(counters):
    counts = []
    for models in (3, 30):
        trainer = make_trainer("cuda", models=models)
        fit(trainer, X, Y, 2, callbacks=gpumlp.EarlyStopping(9, monitor="loss"))
        with counters.count() as c:
            fit(trainer, X, Y, 3, callbacks=gpumlp.EarlyStopping(9, monitor="loss"))
        counts.append((c.d2d, c.h2d, c.d2h))
    assert counts[0] == counts[1]


# --- callbacks ------------------------------------------------------------------------------------


class Note(gpumlp.Callback):
    """Writes down when it was called, and with what."""

    def __init__(self, name, log):
        self._name, self._log = name, log

    def on_fit_begin(self, trainer, history):
        self._log.append((self._name, "begin", history.epochs))

    def on_epoch_end(self, trainer, history):
        assert history is trainer.history
        self._log.append((self._name, "epoch", history.epochs))

    def on_fit_end(self, trainer, history):
        self._log.append((self._name, "end", history.epochs))


def test_callbacks_are_called_in_order(device):
    log = []
    trainer = make_trainer(device)
    fit(trainer, X, Y, 2, callbacks=(Note("a", log), Note("b", log), gpumlp.Callback()))
    assert log == [
        *(("a", "begin", 0), ("b", "begin", 0)),
        *(("a", "epoch", 1), ("b", "epoch", 1)),
        *(("a", "epoch", 2), ("b", "epoch", 2)),
        *(("a", "end", 2), ("b", "end", 2)),
    ]


def test_a_callback_ends_the_fit(device):
    class Enough(gpumlp.Callback):
        def on_epoch_end(self, trainer, history):
            if history.epochs % 3 == 0:
                trainer.stop()

    log = []
    trainer = make_trainer(device)
    callbacks = [Enough(), Note("after", log)]
    assert fit(trainer, X, Y, 10, callbacks=callbacks).epochs == 3
    assert log[-2:] == [("after", "epoch", 3), ("after", "end", 3)]
    assert fit(trainer, X, Y, 10, callbacks=callbacks).epochs == 6  # the next fit goes on


@pytest.mark.parametrize("models", [None, 2])
def test_after_a_fit_that_was_stopped_steps_move_again(device, models):
    class Stop(gpumlp.Callback):
        def on_epoch_end(self, trainer, history):
            trainer.stop()

    trainer = make_trainer(device, models)
    fit(trainer, X, Y, 5, callbacks=[Stop()])
    before, steps = theta(trainer), trainer.steps
    trainer.step(X, Y)
    assert np.all(trainer.steps == steps + 1)
    assert (theta(trainer) != before).any(axis=-1).all()


def test_an_error_in_a_callback_is_the_users(device):
    class Broken(gpumlp.Callback):
        def on_epoch_end(self, trainer, history):
            raise KeyError("mine")

    trainer, other = make_trainer(device), make_trainer(device)
    with pytest.raises(KeyError, match="mine"):
        fit(trainer, X, Y, 5, callbacks=[Broken()])
    fit(trainer, X, Y, 2)
    fit(other, X, Y, 3)
    np.testing.assert_array_equal(theta(trainer), theta(other))


# --- early stopping -------------------------------------------------------------------------------


def expected_stop(values, patience, delta):
    """(epochs run, best epoch), counted from 1, of one network that runs by itself."""
    best, best_epoch = np.inf, 0
    for epoch, value in enumerate(values, start=1):
        if value < best - delta:
            best, best_epoch = value, epoch
        elif epoch - best_epoch >= patience:
            return epoch, best_epoch
    return len(values), best_epoch


EPOCHS = 15


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize(
    "monitor, patience, delta",
    [(None, 3, 0.01), ("loss", 1, 0.0), ("val_loss", 1, 0.0), ("val_accuracy", 2, 0.0)],
)
def test_each_network_stops_at_its_epoch_with_its_best_weights(
    device, models, monitor, patience, delta
):
    lr = LR if models else LR[1]
    data = {"x": X, "y": Y, "epochs": EPOCHS, "validation": (XV, YV)}
    free, stopped = (make_trainer(device, models, optimizer=gpumlp.SGD(lr)) for _ in range(2))
    watch = Watch()
    reference = fit(free, **data, callbacks=[watch])
    early = gpumlp.EarlyStopping(patience, delta=delta, monitor=monitor)
    history = fit(stopped, **data, callbacks=[early])

    values = np.array(getattr(reference, monitor or "val_loss")).reshape(EPOCHS, -1)
    sign = -1 if monitor == "val_accuracy" else 1
    ends = []
    for m in range(models or 1):
        end, best = expected_stop(sign * values[:, m], patience, delta)
        ends.append(end)
        own, kept = theta(stopped), watch.thetas[best - 1]
        np.testing.assert_array_equal(own[m] if models else own, kept[m] if models else kept)
        assert np.ravel(early.best_epoch)[m] == best
        assert np.ravel(early.best)[m] == values[best - 1, m]
        np.testing.assert_array_equal(np.ravel(stopped.steps)[m], 3 * end)
    assert min(ends) < EPOCHS, "nothing was stopped"
    assert history.epochs == max(ends)


@pytest.mark.parametrize("restore", [False, True])
def test_a_stopped_network_stands_still_and_the_others_go_on(device, restore):
    free, stopped = (make_trainer(device, 3, optimizer=gpumlp.SGD(LR)) for _ in range(2))
    before, after = Watch(), Watch()
    data = {"x": X, "y": Y, "epochs": EPOCHS, "validation": (XV, YV)}
    fit(free, **data, callbacks=[before])
    early = gpumlp.EarlyStopping(2, delta=0.01, restore_best=restore)
    history = fit(stopped, **data, callbacks=[early, after])
    ends = stopped.steps // 3
    assert len(set(ends)) > 1
    for m, end in enumerate(ends):
        for epoch in range(1, history.epochs + 1):
            expected = before.thetas[min(epoch, end) - 1][m]
            np.testing.assert_array_equal(after.thetas[epoch - 1][m], expected)
        losses = np.array(history.loss)[:, m]
        assert np.isfinite(losses[:end]).all() and np.isnan(losses[end:]).all()
        if not restore:
            np.testing.assert_array_equal(theta(stopped)[m], before.thetas[end - 1][m])


def test_a_stop_that_never_comes_still_restores_the_best(device):
    trainer, watch = make_trainer(device, optimizer=gpumlp.SGD(3.0)), Watch()
    history = fit(
        trainer, X, Y, 10, validation=(XV, YV), callbacks=[watch, gpumlp.EarlyStopping(1000)]
    )
    assert history.epochs == 10
    best = int(np.argmin(history.val_loss))
    assert best < 9
    np.testing.assert_array_equal(theta(trainer), watch.thetas[best])
    value, _ = trainer.net.loss_and_grad(XV, YV)
    assert float(value) == pytest.approx(history.val_loss[best], rel=1e-12)


def test_a_second_fit_after_early_stopping(device):
    """It begins with patience anew, from the best weights, and remembers the best."""
    trainer, early = make_trainer(device, optimizer=gpumlp.SGD(3.0)), gpumlp.EarlyStopping(2)
    data = {"x": X, "y": Y, "epochs": 20, "validation": (XV, YV), "callbacks": [early]}
    first = fit(trainer, **data).epochs
    assert first < 20
    best = early.best
    history = fit(trainer, **data)
    assert history.epochs >= first + 2
    assert early.best == min(history.val_loss) <= best
    value, _ = trainer.net.loss_and_grad(XV, YV)
    assert float(value) == pytest.approx(early.best, rel=1e-12)


def test_early_stopping_used_for_another_network(device):
    """It must not put the weights of one network into another."""
    early = gpumlp.EarlyStopping(3)
    data = {"x": X, "y": Y, "validation": (XV, YV), "callbacks": [early]}
    fit(make_trainer(device, optimizer=gpumlp.Adam(3e-2)), **data, epochs=15)
    trainer, watch = make_trainer(device, optimizer=gpumlp.SGD(1e-3), seed=1), Watch()
    data["callbacks"] = [early, watch]
    history = fit(trainer, **data, epochs=2)  # worse than the first network at its best
    best = int(np.argmin(history.val_loss))
    np.testing.assert_array_equal(theta(trainer), watch.thetas[best])


def test_early_stopping_without_what_it_watches():
    with pytest.raises(ValueError, match="no val_accuracy: train with validation"):
        fit(make_trainer(), X, Y, callbacks=[gpumlp.EarlyStopping(monitor="val_accuracy")])
    assert fit(make_trainer(), X, Y, callbacks=[gpumlp.EarlyStopping()]).epochs == 1  # the loss


@pytest.mark.parametrize(
    "arguments", [{"patience": 0}, {"delta": -0.1}, {"monitor": "accuracy"}], ids=str
)
def test_arguments_that_make_no_early_stopping(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=name):
        gpumlp.EarlyStopping(**arguments)


# --- threads --------------------------------------------------------------------------------------


def test_two_trainers_in_two_threads():
    def run(seed):
        trainer = make_trainer(seed=seed, net={"dropout": 0.2})
        fit(trainer, X, Y, 30, validation=(XV, YV))
        return theta(trainer)

    found = {}
    threads = [
        threading.Thread(target=lambda seed=seed: found.update({seed: run(seed)}))
        for seed in (1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in (1, 2):
        np.testing.assert_array_equal(found[seed], run(seed))
