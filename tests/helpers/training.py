"""What the tests of training share: small data, small networks, a look into an epoch's batches."""

import numpy as np

import gpumlp
import gpumlp.training.trainer
from tests.helpers.comparison import to_numpy


def blobs(rows, features=4, classes=3, seed=0, spread=0.4):
    """Points around one centre for each class, and their labels."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, features)) * 2
    labels = rng.integers(0, classes, rows)
    return centres[labels] + spread * rng.normal(size=(rows, features)), labels


def make_trainer(device="cpu", models=None, hidden="tanh", net=None, **options):
    """A trainer of a network 4-6-3 in float64; net are the network's own arguments."""
    arguments = {"dtype": "float64", "device": device, "models": models} | (net or {})
    options = {"optimizer": gpumlp.Adam(1e-2), "batch_size": 8} | options
    return gpumlp.Trainer(gpumlp.MLP((4, 6, 3), hidden, **arguments), **options)


def fit(trainer, x, y, epochs=1, **options):
    return trainer.fit(x, y, epochs=epochs, progress=False, **options)


def theta(trainer):
    """A copy of all parameters, on the host."""
    return to_numpy(trainer.net.theta).copy()


class BatchReader:
    """A trainer whose losses tell which rows each batch held.

    The network gives 0 and the rate is 0, so that row i has the loss ½ y_i² = 2^i, and the loss of
    a batch, a sum, is a number with a bit for each of its rows.
    """

    def __init__(self, device, rows, models=None, **options):
        net = gpumlp.MLP(
            (1, 1), output="identity", init="zeros", models=models, dtype="float64", device=device
        )
        self.trainer = gpumlp.Trainer(
            net, "squared_error", gpumlp.SGD(0.0), reduction="sum", **options
        )
        self._x = np.zeros((rows, 1))
        self._y = np.sqrt(2 * 2.0 ** np.arange(rows))

    def epoch(self):
        """For each network the rows of each batch, as sets, of the next epoch."""
        fit(self.trainer, self._x, self._y)
        size = min(self.trainer.batch_size, len(self._x))
        steps = -(-len(self._x) // size)
        bits = np.rint(to_numpy(self.trainer.state.device.losses)[:steps]).astype(np.int64)
        return [
            [{i for i in range(len(self._x)) if batch >> i & 1} for batch in bits[:, m].tolist()]
            for m in range(bits.shape[1])
        ]


class PressCtrlC:
    """In place of the trainer's Interrupt: pressed before the n-th update, counted from 0."""

    def __init__(self, monkeypatch, before):
        self.left = before
        monkeypatch.setattr(gpumlp.training.trainer, "Interrupt", lambda: self)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    @property
    def asked(self):
        self.left -= 1
        return self.left < 0
