"""Dropout in training; that predictions have none is in test_network.py."""

import numpy as np

import gpumlp
from tests.helpers.comparison import fill, to_numpy


def kept_units(device, models=None, dropout=0.25, seed=0):
    """How many of 512 hidden units each of 3 steps kept: ŷ is their number / (1 - p), L = ½ ŷ²."""
    net = gpumlp.MLP(
        (1, 512, 1), "identity", "identity", dropout=[dropout], models=models, init="zeros",
        dtype="float64", device=device,
    )  # fmt: skip
    for view in (net.W[1], net.W[2]):
        fill(view, np.ones(view.shape))
    trainer = gpumlp.Trainer(net, "squared_error", gpumlp.SGD(0.0), seed=seed)
    losses = [to_numpy(trainer.step([[1.0]], [[0.0]])) for _ in range(3)]
    return np.sqrt(2 * np.array(losses)) * (1 - np.asarray(dropout))


def test_dropout_in_training(device):
    """Whole units are dropped, others in every step, and what is left is scaled by 1 / (1 - p)."""
    kept = kept_units(device)
    np.testing.assert_allclose(kept, np.rint(kept), atol=1e-9)
    assert len(set(np.rint(kept))) > 1
    # 384 of 512 are expected, with a standard deviation of 9.8; of the mean of 3, 5.7
    assert abs(kept.mean() - 384) < 4 * 5.7
    assert (kept_units(device, seed=1) != kept).any()


def test_dropout_of_each_network(device):
    rates = np.array([0.0, 0.5, 0.9])
    kept = kept_units(device, 3, rates)
    np.testing.assert_allclose(kept[:, 0], 512)
    np.testing.assert_allclose(kept[:, 1:], np.rint(kept[:, 1:]), atol=1e-9)
    assert (np.abs(kept.mean(axis=0) - 512 * (1 - rates)) < [1e-6, 27, 16]).all()
    for m, rate in enumerate(rates):
        np.testing.assert_allclose(kept_units(device, None, rate, seed=m), kept[:, m], rtol=1e-12)


def test_dropout_masks_are_the_same_on_both_devices(cuda):
    np.testing.assert_allclose(kept_units(cuda), kept_units("cpu"), rtol=1e-12)
