"""How the command line splits and prepares its data."""

import json

import numpy as np
import pytest

from gpumlp.cli.data import Samples, load
from gpumlp.cli.error import InputError
from gpumlp.cli.options import parser
from gpumlp.cli.preparation import Standardised


def made(x, y):
    return Samples("made", x, y, np.unique(y), np.arange(len(y)) + 1)


def test_a_split_takes_the_same_share_of_every_class():
    y = np.repeat([0, 1, 2], [50, 30, 20])
    data = made(np.arange(100.0)[:, np.newaxis], y)
    rest, aside = data.split(1 / 5, np.random.default_rng(0))
    assert list(np.bincount(aside.y)) == [10, 6, 4]
    assert sorted([*rest.x[:, 0], *aside.x[:, 0]]) == list(range(100))
    np.testing.assert_array_equal(aside.rows - 1, aside.x[:, 0])


@pytest.mark.parametrize("seed", range(20))
def test_a_split_leaves_a_sample_of_every_class(seed):
    counts = [2, 2, 2, 3, 7]
    y = np.repeat(np.arange(5), counts)
    rng = np.random.default_rng(seed)
    rest, _ = made(np.zeros((len(y), 1)), y).split(1 / 5, rng)
    training, _ = rest.split(1 / 8, rng)
    assert set(training.y) == set(range(5))


def test_features_are_standardised_by_the_training_part():
    x = np.random.default_rng(0).normal(3, 5, size=(50, 3))
    x[:, 1] = 0.1
    preparation = Standardised.fit(made(x, np.arange(50) % 2))
    prepared = preparation.inputs(x, "float64")
    np.testing.assert_allclose(prepared.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(prepared.std(axis=0), [1, 0, 1], atol=1e-12)


def test_pixels_share_one_scale():
    data = load(parser().parse_args(["train", "digits"]))
    preparation = Standardised.fit(data)
    assert len(set(preparation.deviation)) == 1
    np.testing.assert_allclose(preparation.inputs(data.x, "float64").var(axis=0).mean(), 1)


def test_a_preparation_that_does_not_fit_is_refused():
    data = made(np.random.default_rng(0).normal(size=(50, 3)), np.arange(50) % 2)
    stored = json.loads(json.dumps(Standardised.fit(data).metadata()))
    assert Standardised.from_metadata(stored, 3, 2).classes.tolist() == [0, 1]
    for features, outputs in [(2, 2), (3, 3)]:
        with pytest.raises(InputError, match="does not fit"):
            Standardised.from_metadata(stored, features, outputs)
