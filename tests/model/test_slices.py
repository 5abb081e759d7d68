"""One network on the CPU, whose batches threads share by rows: the same to rounding, whatever it
learns and by however many threads; to the bit by as many."""

import copy
import pickle
import threading

import numpy as np
import pytest

import gpumlp
from gpumlp.backend.cpu import blas, compiler, pool
from gpumlp.backend.cpu.host_ops import HostOps
from gpumlp.functions.activation import Activation
from gpumlp.functions.loss import Form
from gpumlp.model import blas_threads, blocks, slices
from gpumlp.model.propagate import loss_and_backward
from tests.helpers.training import blobs, fit, theta
from tests.helpers.waiting import HANGS

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
        {"hidden": ["sigmoid", "prelu"]},
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
    "dense targets": ({"hidden": "gelu"}, {"loss": "kl_divergence"}),
}


def make(case="softmax, Adam", sizes=(4, 17, 11, 3), dtype="float64", **options):
    net, own = CASES[case]
    net = gpumlp.MLP(sizes, **net, dtype=dtype, seed=3)
    return gpumlp.Trainer(net, **{"batch_size": BATCH, "seed": 5} | own | options)


def data(weighted=True, labels=False):
    x, y = blobs(ROWS)
    weight = np.random.default_rng(0).uniform(0, 2, ROWS) * (np.arange(ROWS) % 3 > 0)
    return x, y if labels else np.eye(3)[y], {"sample_weight": weight} if weighted else {}


def trained(trainer, weighted=True, epochs=4):
    # Labels where the loss takes them.
    x, y, options = data(weighted, trainer.loss.classes)
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
    made = trainer.net.network.slices._made
    trained(trainer, epochs=2)
    assert trainer.net.network.slices._made is made
    assert [part.nbytes for part in made] == [3 * trainer.net.layout.size * 8, 3 * 8]
    assert slices.size(trainer.net.shape, len(made[0])) == sum(part.nbytes for part in made)


# ------------------------------------------------------------------ when


def test_how_many_slices(monkeypatch):
    monkeypatch.setattr(pool, "_cores", lambda: 4)

    def count(sizes=(20, 64, 64, 2), rows=1024, **options):
        net = gpumlp.MLP(sizes, **options)
        return slices.number(net.shape, rows, net.ops.threads(net.shape))

    multiplications = 1024 * (20 * 64 + 64 * 64 + 64 * 2)
    assert count() == multiplications // slices.LEAST == 2
    assert count(rows=1500) == 3
    assert 1500 * 64 * 64 < blas_threads.SMALL_PRODUCT <= 1024 * 256 * 256
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


def test_what_is_not_compiled_is_not_divided(monkeypatch):
    """Python has one thread at a time, and NumPy's products BLAS's threads."""
    monkeypatch.setattr(pool, "_cores", lambda: 4)

    def count(loss="cross_entropy", **options):
        trainer = gpumlp.Trainer(gpumlp.MLP((20, 64, 64, 2), **options), loss)
        net = trainer.net
        return slices.number(net.shape, 1024, net.ops.threads(net.shape, trainer.objective))

    own = gpumlp.Loss("own", Form(lambda u, y, p: (u - y) ** 4, lambda u, y, p: 4 * (u - y) ** 3))
    assert count() == count(hidden="sigmoid", output="log_softmax") == 2
    assert count(hidden=OWN) == count(hidden=["relu", OWN]) == count(own) == 1
    with monkeypatch.context() as patch:
        patch.setattr(blas, "find", lambda: None)
        assert count() == 1
    with monkeypatch.context() as patch:
        found = blas.find()
        patch.setattr(blas, "find", lambda: found._replace(threads=None))
        assert count() == 1  # a limit that other threads do not have
    monkeypatch.setenv("GPUMLP_HOST", "0")
    assert count() == 1


def threads_of_blas(monkeypatch, operation):
    """A list that notes how many BLAS has whenever the operation is asked for."""
    seen, own = [], getattr(HostOps, operation)

    def noted(self, *given, **options):
        seen.append(blas.find().threads.get())
        return own(self, *given, **options)

    monkeypatch.setattr(HostOps, operation, noted)
    monkeypatch.setattr(HostOps, "capture", lambda self, work: None)
    return seen


needs_threads = pytest.mark.skipif(
    not (blas.find() and blas.find().threads and blas.find().threads.get() > 1),
    reason="NumPy's BLAS has one thread here, or its threads are unknown",
)


@needs_threads
@pytest.mark.parametrize("where", ["main thread", "another"])
def test_slices_multiply_on_one_thread_each(cores, monkeypatch, where):
    """Whichever Python thread asks; and afterwards BLAS has its own again."""
    monkeypatch.setattr(blas_threads, "TINY_PRODUCT", 1)
    monkeypatch.setattr(blas_threads, "SMALL_PRODUCT", 2)
    monkeypatch.setattr(slices, "MANY_ROWS", 1)
    before = blas.find().threads.get()
    with blas_threads.limit_blas_threads(make().net.shape, 1, shared=True):
        pass  # the first to limit BLAS, which threadpoolctl would listen to
    updates = threads_of_blas(monkeypatch, "backprop")
    validation = threads_of_blas(monkeypatch, "accumulate_metrics")
    x, y, _ = data()

    def train():
        fit(make(), x, y, 2, validation=(x, y))

    if where == "main thread":
        train()
    else:
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
    assert set(updates) == {1}
    assert set(validation) == {before}  # which is not divided
    assert blas.find().threads.get() == before


@needs_threads
def test_the_limit_ends_with_its_last_user(monkeypatch):
    """Also where that is not the thread of the first, which lives on."""
    monkeypatch.setattr(blas_threads, "TINY_PRODUCT", 1)
    net, before = gpumlp.MLP((4, 7, 3)), blas.find().threads.get()
    entered, left, end = threading.Barrier(2), threading.Event(), threading.Event()

    def first():
        with blas_threads.limit_blas_threads(net.shape, 5):
            entered.wait(HANGS)
        left.set()
        end.wait(HANGS)

    thread = threading.Thread(target=first)
    thread.start()
    with blas_threads.limit_blas_threads(net.shape, 5):
        entered.wait(HANGS)
        left.wait(HANGS)
        assert blas.find().threads.get() == 1
    assert blas.find().threads.get() == before
    end.set()
    thread.join()


@needs_threads
def test_the_threads_of_an_unknown_blas_are_limited_by_threadpoolctl(monkeypatch):
    monkeypatch.setattr(blas_threads, "TINY_PRODUCT", 1)
    net, own = gpumlp.MLP((4, 7, 3)), blas.find().threads
    before = own.get()
    monkeypatch.setattr(blas, "find", lambda: None)
    with blas_threads.limit_blas_threads(net.shape, 5):
        assert own.get() == 1
        with blas_threads.limit_blas_threads(net.shape, 5):
            pass
        assert own.get() == 1
    assert own.get() == before


def test_fits_in_several_threads_are_those_of_one(cores):
    expected, found = [trained(make(case))[0] for case in CASES], {}

    def train(case):
        found[case] = trained(make(case))[0]

    running = [threading.Thread(target=train, args=[case]) for case in CASES]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    for case, whole in zip(CASES, expected, strict=True):
        np.testing.assert_array_equal(found[case], whole, case)


def test_a_block_of_one_network_is_not_divided_again(cores, monkeypatch):
    """Its thread has its core for itself; and its numbers do not depend on who has it."""
    monkeypatch.setattr(blocks, "number", lambda shape, rows: shape.M)
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
    monkeypatch.setattr(blas_threads, "SMALL_PRODUCT", BATCH * 17 * 11)
    trained(make(), epochs=1)
    assert set(counts) == {1}
    counts.clear()
    monkeypatch.setattr(blas_threads, "SMALL_PRODUCT", BATCH * 17 * 11 + 1)
    trained(make(), epochs=1)
    assert set(counts) == {3}
