"""One network on the CPU, whose batches threads share by rows: the same to rounding, whatever it
learns and by however many threads; to the bit by as many."""

import copy
import pickle

import numpy as np
import pytest

import gpumlp
from gpumlp import blocks, slices, threads
from gpumlp.activation import Activation
from gpumlp.backend import compiler, pool
from gpumlp.backend.host_ops import HostOps
from gpumlp.propagate import loss_and_backward
from tests.training import blobs, fit, theta

ROWS, BATCH = 53, 12  # the last batch has 5 rows


@pytest.fixture(autouse=True)
def compiled():
    if compiler.problem():
        pytest.skip(f"nothing can be compiled for the CPU: {compiler.problem()}")


@pytest.fixture
def cores(monkeypatch):
    """cores(n): from now on batches are in n slices, however small."""
    monkeypatch.setattr(slices, "LEAST", 1)

    def set_count(count):
        monkeypatch.setattr(pool, "_cores", lambda: count)

    set_count(3)
    return set_count


OWN = Activation("bent", lambda z, p: np.sqrt(z * z + 1), lambda z, n, p: z / np.sqrt(z * z + 1))
CASES = {
    "softmax, Adam": (
        {"hidden": ["tanh", "prelu"]},
        {"optimizer": gpumlp.Adam(0.01, l2=1e-3), "penalty_in_loss": True},
    ),
    "dropout": ({"hidden": "relu", "dropout": [0.3, 0.6]}, {}),
    "rrelu, momentum, clipping": (
        {"hidden": ["rrelu", "gelu"]},
        {"optimizer": gpumlp.SGD(0.05, momentum=0.9, nesterov=True), "clip_norm": 0.5},
    ),
    "sigmoid, RMSprop, a sum": (
        {"hidden": "silu", "output": "sigmoid", "dropout": 0.2},
        {"optimizer": gpumlp.RMSprop(1e-3), "loss": "squared_error", "reduction": "sum"},
    ),
    "softmax not at the loss": ({"output": "softmax"}, {"loss": "squared_error"}),
    "an activation without a program": ({"hidden": [OWN, "rrelu"], "dropout": 0.5}, {}),
}


def make(case="softmax, Adam", sizes=(4, 17, 11, 3), dtype="float64", **options):
    net, own = CASES[case]
    net = gpumlp.MLP(sizes, **net, dtype=dtype, seed=3)
    return gpumlp.Trainer(net, **{"batch_size": BATCH, "seed": 5} | own | options)


def data(weighted=True):
    x, y = blobs(ROWS)
    weight = np.random.default_rng(0).uniform(0, 2, ROWS) * (np.arange(ROWS) % 3 > 0)
    return x, np.eye(3)[y], {"sample_weight": weight} if weighted else {}


def trained(trainer, weighted=True, epochs=4):
    x, y, options = data(weighted)
    fit(trainer, x, y, epochs, **options)
    return theta(trainer), np.array(trainer.history.loss)


@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
@pytest.mark.parametrize("case", CASES)
def test_slices_are_the_whole(cores, case, weighted):
    cores(1)
    expected = trained(make(case), weighted)
    for count in (2, 3, 7, BATCH + 5):  # the last: no more than a batch has rows
        cores(count)
        for actual, whole in zip(trained(make(case), weighted), expected, strict=True):
            np.testing.assert_allclose(actual, whole, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("case", CASES)
def test_as_many_threads_give_the_same_bits(cores, case):
    first, again = trained(make(case, dtype="float32")), trained(make(case, dtype="float32"))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_step(cores):
    x, y, _ = data()
    expected, found = make(), make()
    for _ in range(3):  # eager, captured, replayed
        cores(1)
        loss = expected.step(x, y)
        cores(4)
        assert found.step(x, y) == pytest.approx(float(loss), rel=1e-12)
    np.testing.assert_allclose(theta(found), theta(expected), rtol=1e-11)


def test_a_batch_or_a_slice_without_weight(cores):
    x, y, _ = data()
    weight = np.ones(ROWS)
    weight[:BATCH] = weight[2 * BATCH : 2 * BATCH + 4] = 0
    found = {}
    for count in (1, 3):
        cores(count)
        trainer = make(shuffle=False)
        fit(trainer, x, y, 3, sample_weight=weight)
        found[count] = theta(trainer), trainer.history.loss
        assert trainer.steps == 3 * 4  # of five batches
    for actual, whole in zip(found[3], found[1], strict=True):
        np.testing.assert_allclose(actual, whole, rtol=1e-11, atol=1e-13)


def test_what_is_not_finite_stops_all_slices(cores):
    x, y, _ = data()
    trainer = make("sigmoid, RMSprop, a sum")
    before = theta(trainer)
    y[0] = 1e300  # whose square is infinite, in the first slice
    trainer.step(x, y)
    assert trainer.diverged == {0: 1}
    np.testing.assert_array_equal(theta(trainer), before)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_have_slices_of_their_own(cores, how):
    trainer = make()
    trained(trainer, epochs=1)
    other = how(trainer)
    for each in (trainer, other):
        trained(each, epochs=2)
    np.testing.assert_array_equal(theta(other), theta(trainer))
    before = theta(other)
    trained(trainer, epochs=1)
    np.testing.assert_array_equal(theta(other), before)


def test_gradients_of_slices_are_made_once(cores):
    trainer = make()
    trained(trainer, epochs=1)
    made = trainer.net.slices._made
    trained(trainer, epochs=2)
    assert trainer.net.slices._made is made
    assert [part.nbytes for part in made] == [3 * trainer.net.layout.size * 8, 3 * 8]
    assert slices.size(trainer.net, BATCH) == sum(part.nbytes for part in made)


# ------------------------------------------------------------------ when


def test_how_many_slices(monkeypatch):
    monkeypatch.setattr(pool, "_cores", lambda: 4)

    def count(sizes=(20, 64, 64, 2), rows=1024, **options):
        return slices.number(gpumlp.MLP(sizes, **options), rows)

    multiplications = 1024 * (20 * 64 + 64 * 64 + 64 * 2)
    assert count() == multiplications // slices.LEAST == 2
    assert count(rows=1500) == 3
    assert 1500 * 64 * 64 < threads.SMALL_PRODUCT <= 1024 * 256 * 256
    assert count((64, 256, 256, 2)) == 4  # many rows for each thread
    assert count((64, 256, 256, 2), rows=1023) == 1  # fewer: BLAS shares the products
    assert count(rows=2048) == 4
    monkeypatch.setattr(pool, "_cores", lambda: 16)
    assert count(rows=1500) == 3
    assert count(rows=2048) == 1  # enough for five threads, but there are sixteen
    assert count((64, 100, 10), rows=200) == 1  # it takes longer to meet
    assert count(models=2) == count(models=1, rows=100) == 1
    monkeypatch.setattr(pool, "_cores", lambda: 1)
    assert count() == 1


def test_without_a_compiler_nothing_is_shared(monkeypatch):
    monkeypatch.setenv("GPUMLP_HOST", "0")
    monkeypatch.setattr(pool, "_cores", lambda: 4)
    assert slices.number(gpumlp.MLP((20, 64, 64, 2)), 1024) == 1


def test_a_block_of_one_network_is_not_divided_again(cores, monkeypatch):
    """Its thread has its core for itself; and its numbers do not depend on who has it."""
    monkeypatch.setattr(blocks, "number", lambda net, rows: net.models_count)
    monkeypatch.setattr(HostOps, "parallel", lambda *given: pytest.fail("divided"))
    net = gpumlp.MLP((4, 17, 11, 3), models=3, dtype="float64", seed=3)
    trainer = gpumlp.Trainer(net, batch_size=BATCH, seed=5)
    trained(trainer)


def test_the_ragged_batch_is_divided_as_the_others(cores, monkeypatch):
    """What BLAS shares stays with it, also where the last batch is small."""
    counts = []
    monkeypatch.setattr(
        slices, "loss_and_backward",
        lambda *given: counts.append(given[-1]) or loss_and_backward(*given[:-1]),
    )  # fmt: skip
    monkeypatch.setattr(threads, "SMALL_PRODUCT", BATCH * 17 * 11)
    trained(make(), epochs=1)
    assert set(counts) == {1}
    counts.clear()
    monkeypatch.setattr(threads, "SMALL_PRODUCT", BATCH * 17 * 11 + 1)
    trained(make(), epochs=1)
    assert set(counts) == {3}
