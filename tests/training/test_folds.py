"""A stack with folds is a cross-validation: each network the one of its own rows."""

import numpy as np
import pytest

import gpumlp
from gpumlp.utils.checks import ParameterError
from tests.helpers.training import PressCtrlC, blobs, fit, make_trainer, theta

M, ROWS = 3, 47
X, Y = blobs(ROWS)
WEIGHTS = np.random.default_rng(8).uniform(0.1, 2, ROWS)


def draw_folds():
    """Training and held-out rows of each network, none of them in both."""
    rows = [np.random.default_rng(m).permutation(ROWS) for m in range(M)]
    return np.array([r[:29] for r in rows]), np.array([r[29:40] for r in rows])


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_each_network_is_that_of_its_rows(device, weights):
    training, held_out = draw_folds()
    stack = make_trainer(device, M, seed=5, net={"seed": 5, "dropout": 0.2})
    history = fit(stack, X, Y, 4, sample_weight=weights, folds=(training, held_out))
    for m in range(M):
        alone = make_trainer(device, seed=5 + m, net={"seed": 5 + m, "dropout": 0.2})
        own, held = training[m], held_out[m]
        w = (None, None) if weights is None else (weights[own], weights[held])
        validation = (X[held], Y[held], w[1])
        expected = fit(alone, X[own], Y[own], 4, sample_weight=w[0], validation=validation)
        for name in ("loss", "val_loss", "val_accuracy"):
            found = np.array(getattr(history, name))[:, m]
            np.testing.assert_allclose(found, getattr(expected, name), rtol=1e-12)
        np.testing.assert_allclose(theta(stack)[m], theta(alone), rtol=1e-11)


def test_a_single_network_has_one_fold(device):
    training, held_out = (rows[:1] for rows in draw_folds())
    one, other = make_trainer(device), make_trainer(device)
    fit(one, X, Y, 2, folds=(training, held_out))
    fit(other, X[training[0]], Y[training[0]], 2)
    np.testing.assert_allclose(theta(one), theta(other), rtol=1e-12)


def test_without_shuffling_rows_come_as_they_stand():
    training, held_out = draw_folds()
    stack = make_trainer(models=M, shuffle=False)
    fit(stack, X, Y, 2, folds=(training, held_out))
    alone = make_trainer(shuffle=False, seed=1, net={"seed": 1})
    fit(alone, X[training[1]], Y[training[1]], 2)
    np.testing.assert_allclose(theta(stack)[1], theta(alone), rtol=1e-12)


def test_resumed_fit_takes_the_same_rows(tmp_path, monkeypatch):
    whole, first = make_trainer(models=M), make_trainer(models=M)
    folds = draw_folds()
    fit(whole, X, Y, 5, folds=folds)
    with monkeypatch.context() as patch:
        PressCtrlC(patch, 12)  # within the third epoch
        fit(first, X, Y, 5, folds=folds, callbacks=[gpumlp.Checkpoint(tmp_path)])
    second = gpumlp.resume(tmp_path, device="cpu")
    assert second.batches_done
    fit(second, X, Y, second.epochs_left, folds=folds)
    np.testing.assert_array_equal(theta(second), theta(whole))
    np.testing.assert_array_equal(second.history.val_loss, whole.history.val_loss)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (5, r"folds = 5 must be \(training"),
        ((np.zeros((M, 4), int),), "folds = .* must be"),
        ((np.zeros((M, 4)), np.zeros((M, 4), int)), r"folds\[0\] = .* must be"),
        ((np.zeros((M, 4), int), np.zeros((2, 4), int)), r"folds\[1\] = .* must be"),
        ((np.zeros(4, int), np.zeros((M, 4), int)), r"folds\[0\] = .* must be"),
        ((np.zeros((M, 0), int), np.zeros((M, 4), int)), r"folds\[0\] = .* must be"),
        ((np.full((M, 4), ROWS), np.zeros((M, 4), int)), rf"folds\[0\].* {ROWS} to {ROWS}; the"),
        ((np.zeros((M, 4), int), np.full((M, 4), -1)), r"folds\[1\] holds numbers from -1 to -1"),
    ],
)
def test_wrong_folds_are_refused(folds, message):
    with pytest.raises(ParameterError, match=message):
        fit(make_trainer(models=M), X, Y, folds=folds)


def test_folds_and_a_validation_set_exclude_each_other():
    with pytest.raises(ParameterError, match="folds hold rows out; give them, or validation"):
        fit(make_trainer(models=M), X, Y, folds=draw_folds(), validation=(X, Y))
