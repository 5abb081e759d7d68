"""What an epoch leaves for the host: all of it in one reading, whatever its length."""

import copy
import pickle

import numpy as np
import pytest

import gpumlp
from gpumlp.training import device_state
from gpumlp.training.device_state import DeviceState
from gpumlp.training.placement import make_rows
from tests.helpers.comparison import to_numpy
from tests.helpers.training import blobs, make_trainer


@pytest.fixture(autouse=True)
def short_tables(monkeypatch):
    """Epochs are longer than what there is room for at first."""
    monkeypatch.setattr(device_state, "STEPS_NOTED", 4)


def rows_of(trainer, count):
    x, y = blobs(count)
    with trainer.net.ops.on_device():
        return make_rows(trainer.net, trainer.objective, x, y, None, trainer.batch_size)


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("count", [5, 32, 83])
def test_an_epoch_is_what_the_device_noted(device, models, count):
    trainer = make_trainer(device, models)
    rows = rows_of(trainer, count)
    steps = -(-count // 8)
    trainer.rates.plan(steps, 2 * steps)
    for _ in range(2):
        with trainer.net.ops.on_device():
            done = trainer.run_epoch(rows)
        state = trainer.state.device
        assert done.losses.shape == done.weights.shape == (steps, models or 1)
        np.testing.assert_array_equal(done.losses, to_numpy(state.losses)[:steps])
        assert (done.weights[:-1] == 8).all() and (done.weights[-1] == count - 8 * steps + 8).all()
        assert (done.losses > 0).all() and (done.stopped_at == 0).all() and not done.diverged
        np.testing.assert_array_equal(done.rates, trainer.lr)
        np.testing.assert_allclose(done.rates, 0.01)


def test_whoever_diverged(device):
    trainer = make_trainer(
        device, 3, "identity", {"output": "identity"}, loss="squared_error",
        optimizer=gpumlp.SGD([0.01, 1e150, 0.02]),
    )  # fmt: skip
    x, y = blobs(83)
    with trainer.net.ops.on_device():
        rows = make_rows(trainer.net, trainer.objective, x, np.eye(3)[y], None, 8)
        done = trainer.run_epoch(rows)
    assert list(done.diverged) == [1] and done.diverged == trainer.diverged
    update = done.diverged[1]
    assert (done.weights[update:, 1] == 0).all() and (done.weights[:, [0, 2]] > 0).all()
    assert done.rates[1] == 1e150


def test_longer_epochs_keep_what_is_known(device):
    """The tables get more room; who stands still, and the rates, stay."""
    trainer = make_trainer(device, 3)
    short, long = rows_of(trainer, 83), rows_of(trainer, 131)
    with trainer.net.ops.on_device():
        trainer.run_epoch(short)
        trainer.stop([False, True, False])
        stopped_at, scalars = (
            to_numpy(trainer.state.device.stopped_at),
            to_numpy(trainer.state.device.scalars),
        )
        trainer.state.make_room(long.steps)
        np.testing.assert_array_equal(to_numpy(trainer.state.device.stopped_at), stopped_at)
        np.testing.assert_array_equal(to_numpy(trainer.state.device.scalars), scalars)
        for rows in (long, short, long):
            done = trainer.run_epoch(rows)
            assert (done.weights[:, 1] == 0).all() and (done.weights[:, [0, 2]] > 0).all()
            assert done.stopped_at.tolist() == [0, -1, 0]
            np.testing.assert_allclose(done.rates, 0.01)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state))])
def test_a_copy_reads_its_own(device, how):
    trainer = make_trainer(device, 2)
    rows = rows_of(trainer, 83)
    with trainer.net.ops.on_device():
        trainer.run_epoch(rows)
        other = how(trainer)
        assert isinstance(other.state.device, DeviceState)
        found = [each.run_epoch(rows_of(each, 83)) for each in (trainer, other)]
        for a, b in zip(*found, strict=True):
            np.testing.assert_array_equal(a, b)
        other.stop()
        assert other.state.device.read(other.net.ops.to_host, 1).stopped_at.tolist() == [-1, -1]
        assert trainer.state.device.read(trainer.net.ops.to_host, 1).stopped_at.tolist() == [0, 0]


@pytest.mark.parametrize("steps", [2, 7, 30])
def test_what_the_first_batches_have_left_stays(steps):
    """As many as there are in the tables before and after: those of a fit that is resumed."""
    state = DeviceState.zeros(np, 3, np.dtype(np.float32))
    state.make_room(np, 7)
    losses = np.arange(21, dtype=np.float32).reshape(7, 3)
    state.losses[...], state.weights[...], state.stopped_at[...] = losses, losses + 100, 5
    kept = min(steps, 7)
    state.make_room(np, steps, kept)
    assert len(state.losses) == len(state.weights) == steps
    np.testing.assert_array_equal(state.losses[:kept], losses[:kept])
    np.testing.assert_array_equal(state.weights[:kept], losses[:kept] + 100)
    assert (state.stopped_at == 5).all()
