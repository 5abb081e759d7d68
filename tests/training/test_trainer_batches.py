"""Batches: which rows they hold, in which order, and with which weights."""

import numpy as np
import pytest

import gpumlp
from tests.helpers.training import BatchReader, blobs, fit, make_trainer, theta

X, Y = blobs(21)


# --- batches and their order ----------------------------------------------------------------------


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 20, 21, 1000])
def test_batches_cover_every_row_once_in_an_epoch(device, batch_size, models):
    reader = BatchReader(device, 21, models, batch_size=batch_size)
    for _ in range(2):
        for batches in reader.epoch():
            sizes = [len(batch) for batch in batches]
            assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
            assert set.union(*batches) == set(range(21))
            assert sum(sizes) == 21


def order(reader):
    return [next(iter(batch)) for batch in reader.epoch()[0]]


def test_without_shuffling_rows_keep_their_order(device):
    reader = BatchReader(device, 21, batch_size=1, shuffle=False)
    assert order(reader) == order(reader) == list(range(21))


def test_order_depends_on_seed_and_epoch(device):
    reader = BatchReader(device, 21, batch_size=1, seed=4)
    first, second = order(reader), order(reader)
    assert len({tuple(first), tuple(second), tuple(sorted(first))}) == 3
    again = BatchReader(device, 21, batch_size=1, seed=4)
    assert [order(again), order(again)] == [first, second]
    assert order(BatchReader(device, 21, batch_size=1, seed=5)) != first


def test_order_is_the_same_on_both_devices(cuda):
    there, here = (BatchReader(where, 37, 2, batch_size=5, seed=3) for where in (cuda, "cpu"))
    for _ in range(3):
        assert there.epoch() == here.epoch()


def test_order_has_no_bias():
    """Where row 0 comes in 400 epochs: each of 8 places about 50 times (χ², 7 degrees, 0.01 %)."""
    reader = BatchReader("cpu", 8, batch_size=1)
    fit(reader.trainer, np.zeros((8, 1)), np.zeros(8))
    places = np.bincount([order(reader).index(0) for _ in range(400)], minlength=8)
    assert ((places - 50) ** 2 / 50).sum() < 29.9


def test_a_fit_without_shuffling_is_steps_on_its_slices(device):
    """The last batch is shorter; the loss of the epoch is the mean over its rows."""
    fitted, stepped = make_trainer(device, shuffle=False), make_trainer(device)
    history = fit(fitted, X, Y)
    losses = [float(stepped.step(X[i : i + 8], Y[i : i + 8])) for i in (0, 8, 16)]
    np.testing.assert_allclose(theta(fitted), theta(stepped), rtol=1e-14, atol=1e-16)
    assert history.loss == pytest.approx([np.average(losses, weights=[8, 8, 5])], rel=1e-13)
    assert fitted.steps == stepped.steps == 3


def test_a_batch_larger_than_the_data(device):
    larger, exact = (make_trainer(device, batch_size=size, shuffle=False) for size in (1000, 21))
    assert fit(larger, X, Y, 3).loss == fit(exact, X, Y, 3).loss
    np.testing.assert_array_equal(theta(larger), theta(exact))


def test_a_single_row(device):
    trainer = make_trainer(device)
    assert len(fit(trainer, X[:1], Y[:1], 2).loss) == trainer.steps == 2


# --- sample weights -------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_weight_2_is_the_row_twice(device, reduction):
    options = {"shuffle": False, "batch_size": 100, "reduction": reduction}
    weighted, repeated = make_trainer(device, **options), make_trainer(device, **options)
    counts = np.arange(21) % 3  # 0: not there
    h = fit(weighted, X, Y, 6, sample_weight=counts)
    g = fit(repeated, np.repeat(X, counts, axis=0), np.repeat(Y, counts), 6)
    np.testing.assert_allclose(h.loss, g.loss, rtol=1e-12)
    np.testing.assert_allclose(theta(weighted), theta(repeated), rtol=1e-10, atol=1e-12)


def test_rows_of_weight_0_count_for_nothing(device):
    """Whatever is in them."""
    trainers = [make_trainer(device, shuffle=False, batch_size=7) for _ in range(2)]
    weight = np.tile([1.0, 0, 2, 0, 1, 1, 0.5], 3)
    other = np.where(weight[:, None] > 0, X, 1e3)
    for trainer, x in zip(trainers, (X, other), strict=True):
        fit(trainer, x, np.where(weight > 0, Y, 0 if x is X else 2), 3, sample_weight=weight)
    np.testing.assert_array_equal(*map(theta, trainers))


def test_a_batch_whose_weights_are_all_0_makes_no_update(device):
    """Not even by momentum or decay; and the epoch's loss is that of the other batches."""
    optimizer = gpumlp.SGD(0.1, momentum=0.9, l2=0.1)
    skipping = make_trainer(device, optimizer=optimizer, shuffle=False, batch_size=7)
    plain = make_trainer(device, optimizer=optimizer, shuffle=False, batch_size=7)
    weight = np.repeat([1.0, 0, 1], 7)
    kept = weight > 0
    h, g = fit(skipping, X, Y, 2, sample_weight=weight), fit(plain, X[kept], Y[kept], 2)
    assert h.loss == g.loss
    assert skipping.steps == plain.steps == 4
    np.testing.assert_array_equal(theta(skipping), theta(plain))
