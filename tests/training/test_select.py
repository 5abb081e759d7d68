"""Networks that leave a stack train on as they would have in it."""

import numpy as np
import pytest

import gpumlp
from gpumlp.training.select import select
from tests.helpers.comparison import to_numpy
from tests.helpers.training import blobs, theta

X, Y = blobs(22)
XV, YV = blobs(9, seed=1)
M = 4

CASES = {
    "Adam": {"optimizer": gpumlp.Adam(np.array([1e-2, 3e-3, 3e-2, 1e-3]), l2=1e-3)},
    "SGD": {
        "optimizer": gpumlp.SGD(0.05, momentum=np.array([0.0, 0.5, 0.9, 0.1])),
        "schedule": "cosine",
        "clip_norm": np.array([0.1, 1.0, 0.5, 9.0]),
    },
    "plateau": {
        "optimizer": gpumlp.RMSprop(np.array([1e-2, 3e-3, 3e-2, 1e-3])),
        "schedule": gpumlp.schedules["plateau"](patience=1, decay=0.3, delta=0.02),
    },
}


def make(device, case):
    net = gpumlp.MLP(
        (4, 7, 5, 3), ["tanh", "prelu"], models=M, seed=3, dtype="float64", device=device,
        dropout=[0.3, np.array([0.0, 0.2, 0.4, 0.6])],
    )  # fmt: skip
    return gpumlp.Trainer(net, batch_size=8, seed=[5, 9, 2, 7], **CASES[case])


def train(trainer, epochs):
    return trainer.fit(X, Y, epochs, (XV, YV), progress=False)


@pytest.mark.parametrize("members", [[2], [3, 1], [0, 1, 2, 3]])
@pytest.mark.parametrize("case", CASES)
def test_they_train_on_alike(device, case, members):
    whole, other = make(device, case), make(device, case)
    train(whole, 3)
    train(whole, 2)
    train(other, 3)
    chosen = select(other, members)
    train(other, 1)  # what stays behind trains by itself
    history = train(chosen, 2)
    np.testing.assert_allclose(theta(chosen), theta(whole)[members], rtol=0, atol=1e-12)
    for name in ("loss", "val_loss", "val_accuracy", "lr"):
        expected = np.array(getattr(whole.history, name))[:, members]
        np.testing.assert_allclose(np.array(getattr(history, name)), expected, rtol=1e-9)
    np.testing.assert_array_equal(chosen.steps, whole.steps[members])


def test_those_that_stand_still_do_so_afterwards(device):
    trainer = make(device, "Adam")
    train(trainer, 1)
    trainer.net.b[3][3] = np.nan
    with pytest.warns(RuntimeWarning, match="network 3"):
        train(trainer, 1)
    trainer.stop(np.array([True, False, False, False]))
    chosen = select(trainer, [3, 0, 1])
    assert list(chosen.diverged) == [0] and list(chosen.history.diverged) == [0]
    np.testing.assert_array_equal(
        to_numpy(chosen.state.device.stopped_at) != 0, [True, True, False]
    )


def test_what_cannot_be_selected_from():
    with pytest.raises(ValueError, match="a single one"):
        select(gpumlp.Trainer(gpumlp.MLP((4, 3))), [0])
    trainer = make("cpu", "Adam")
    trainer.state.batches_done = 1
    with pytest.raises(ValueError, match="between two"):
        select(trainer, [0])
