"""Training on sparse rows: what dense rows give, and the law of lazy updates."""

import numpy as np
import pytest

import gpumlp
from gpumlp.io.checkpoint import Checkpoint
from gpumlp.training import out_of_core, placement, rows
from gpumlp.training.select import select
from gpumlp.utils.checks import ParameterError
from tests.helpers.comparison import to_numpy
from tests.helpers.sparse import on_gpu, sparse_rows
from tests.helpers.training import fit, theta

SIZES = (61, 7, 3)
X = sparse_rows(83, SIZES[0])
Y = np.random.default_rng(1).integers(0, 3, 83)
WEIGHT = np.random.default_rng(2).uniform(0, 2, 83)


def make(device="cpu", sparse=True, models=None, optimizer=None, net=None, **options):
    arguments = {"dtype": "float64", "device": device, "models": models, "dropout": 0.2}
    options = {"optimizer": optimizer or gpumlp.Adam(1e-2, eps=1e-4, l2=1e-3)} | options
    mlp = gpumlp.MLP(SIZES, "tanh", sparse=sparse, seed=5, **(arguments | (net or {})))
    return gpumlp.Trainer(mlp, **({"batch_size": 16} | options))


def assert_close(found, expected, rtol=1e-10):
    for name in ("loss", "val_loss", "val_accuracy", "lr"):
        pair = [np.array(getattr(t.history, name)) for t in (found, expected)]
        np.testing.assert_allclose(*pair, rtol=rtol, err_msg=name)
    for k in (1, 2):
        a, b = to_numpy(found.net.W[k]), to_numpy(expected.net.W[k])
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


# options of the trainer, what is given to `fit`
CASES = {
    "Adam": ({}, {}),
    "in order": ({"shuffle": False}, {"sample_weight": WEIGHT}),
    "SGD": ({"optimizer": gpumlp.SGD(0.05, 0.9, nesterov=True, l1=1e-3), "clip_norm": 0.5}, {}),
    "AdamW": ({"optimizer": gpumlp.AdamW(1e-2, eps=1e-4)}, {"validation": (X[:20], Y[:20])}),
    "penalty, sum": ({"penalty_in_loss": True, "reduction": "sum"}, {}),
    "factors": ({"factors": {"W": ([0.5, 2], [1, 0]), "b": (1, 1)}}, {}),
    "stack": ({"models": 3}, {"validation": (X[:20], Y[:20], WEIGHT[:20])}),
    "stack, own labels": (
        {"models": 3},
        {"y": np.stack([Y, (Y + 1) % 3, Y[::-1]]), "sample_weight": np.stack([WEIGHT] * 3)},
    ),
    "folds": (
        {"models": 2},
        {"folds": (np.stack([np.arange(60), np.arange(20, 80)]), [[70, 71, 72], [1, 2, 3]])},
    ),
    "folds, one row": (
        {"models": 2},
        {"folds": (np.full((2, 60), np.diff(X.indptr).argmax()), [[70, 71, 72], [1, 1, 1]])},
    ),
    "folds, longer": (
        {"models": 2},
        {"folds": (np.arange(400).reshape(2, 200) % 83, [[70, 71, 72], [1, 2, 3]])},
    ),
}
STREAMED = "Adam", "SGD", "stack", "stack, own labels", "folds", "folds, one row", "folds, longer"


def dense(given):
    """The same with dense rows."""
    changed = dict(given)
    if "validation" in given:
        changed["validation"] = (given["validation"][0].toarray(), *given["validation"][1:])
    return changed


@pytest.mark.parametrize("case", CASES)
def test_as_of_dense_rows(place, case):
    options, given = CASES[case]
    given = {"y": Y} | given
    found, expected = make(place, **options), make(place, False, **options)
    fit(found, X, epochs=3, **given)
    fit(expected, X.toarray(), epochs=3, **dense(given))
    assert_close(found, expected)
    mixed = make(place, **options)
    fit(mixed, X.toarray(), epochs=3, **dense(given))
    assert_close(mixed, found, 1e-13)


@pytest.mark.parametrize("case", STREAMED)
@pytest.mark.parametrize("sorted_there", [True, False])
def test_streamed_rows_are_those_of_the_device(cuda, case, sorted_there, monkeypatch):
    options, given = CASES[case]
    given = {"y": Y} | given
    expected = make(cuda, **options)
    fit(expected, X, epochs=3, **given)
    made, whole = [], out_of_core.Streamed.__init__

    def begin(self, net, data, batch_size, orders, room):
        piece = 2 * rows.size(net, data, batch_size, max(orders, net.M))
        monkeypatch.setattr(out_of_core, "PIECE_BYTES", piece)
        if not sorted_there:
            room = 2 * piece + out_of_core.ORDER_BYTES * data.x.shape[1]
        whole(self, net, data, batch_size, orders, room)
        made.append(self)

    monkeypatch.setattr(placement, "ORDER_BYTES", 1 << 60)  # which nothing has room for
    monkeypatch.setattr(out_of_core, "PART_OF_FREE", 1)
    monkeypatch.setattr(out_of_core.Streamed, "__init__", begin)
    found = make(cuda, **options)
    fit(found, X, epochs=3, **given)
    assert made and made[0].steps > 1
    np.testing.assert_array_equal(theta(found), theta(expected))
    np.testing.assert_array_equal(found.history.loss, expected.history.loss)


def test_rows_of_the_gpu_stay_there(cuda, counters):
    found, expected = make(cuda), make(cuda)
    there, y = on_gpu(X.astype("float64")), Y
    fit(expected, X, y, epochs=2)
    fit(found, there, y, epochs=2)
    np.testing.assert_array_equal(theta(found), theta(expected))


def test_a_step_is_a_graph(cuda, counters):
    trainer = make(cuda)
    fit(trainer, X, Y, epochs=2)
    with counters.count() as done:
        fit(trainer, X, Y, epochs=1)
    steps = -(-83 // 16)
    assert done.graphs >= steps - 3  # the ragged batch, and the first two of the others
    assert done.kernels.count("sparse_gradient") == steps
    assert done.kernels.count("sparse_product") == steps


def test_single_steps(place):
    found, expected = make(place), make(place, False)
    for start in (0, 16, 32, 0, 16):
        part = slice(start, start + 16)
        losses = [
            t.step(x[part], Y[part], WEIGHT[part]) for t, x in ((found, X), (expected, X.toarray()))
        ]
        assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-12)
    same = X[:16].astype("float64")  # the same arrays again and again
    same.indptr = same.indptr.astype("int64")
    for _ in range(4):
        found.step(same, Y[:16])
        expected.step(same.toarray(), Y[:16])
        same.data *= 1.25
    np.testing.assert_allclose(to_numpy(found.net.W[1]), to_numpy(expected.net.W[1]), rtol=1e-9)


def test_checkpoints_and_files(device, tmp_path):
    whole, killed = make(device), make(device)
    fit(whole, X, Y, epochs=4)
    fit(killed, X, Y, epochs=2, callbacks=[Checkpoint(tmp_path)])
    gpumlp.save(killed, tmp_path / "trainer.npz")
    resumed = gpumlp.load(tmp_path / "trainer.npz", device=device)
    assert resumed.net.shape.sparse
    fit(resumed, X, Y, epochs=2, resume=False)
    again = make(device)
    again.load_state_dict(killed.state_dict())
    fit(again, X, Y, epochs=2)
    np.testing.assert_array_equal(theta(resumed), theta(again))


@pytest.mark.parametrize("sparse", [True, False])
def test_a_state_of_another_layout_is_refused(sparse):
    trainer, other = make(sparse=sparse), make(sparse=not sparse)
    before = theta(trainer).copy()
    with pytest.raises(ValueError, match=f"a network with sparse={not sparse}, whose W"):
        trainer.load_state_dict(other.state_dict())
    np.testing.assert_array_equal(theta(trainer), before)


def test_selected_networks_go_on(device):
    stack = make(device, models=3)
    fit(stack, X, Y, epochs=2)
    chosen = select(stack, [2, 0])
    fit(stack, X, Y, epochs=2)
    fit(chosen, X, Y, epochs=2)
    expected = to_numpy(stack.net.theta)[[2, 0]]
    np.testing.assert_allclose(to_numpy(chosen.net.theta), expected, rtol=1e-12, atol=1e-15)


# ------------------------------------------------------------------ lazy updates


def lazily(kind, trainer, batches):
    """The weights W[1] after these batches, of a lazy trainer's law: rows of W^T that occur take a
    step of the optimiser with the t of all updates, the others nothing."""
    W = to_numpy(trainer.net.W[1]).T.copy()
    state = [np.zeros_like(W), np.zeros_like(W)]
    opt = trainer.optimizer
    for t, (x, y) in enumerate(batches, 1):
        _, grad = trainer.net.loss_and_grad(x, y)
        g, occurs = to_numpy(grad.W[1]).T, np.unique(x.indices)
        for j in occurs:
            gradient = g[j] + opt.l2 * W[j]
            if kind == "Adam":
                state[0][j] = opt.beta1 * state[0][j] + (1 - opt.beta1) * gradient
                state[1][j] = opt.beta2 * state[1][j] + (1 - opt.beta2) * gradient**2
                m = state[0][j] / (1 - opt.beta1**t)
                v = state[1][j] / (1 - opt.beta2**t)
                W[j] -= opt.lr * m / (np.sqrt(v) + opt.eps)
            else:
                state[0][j] = opt.momentum * state[0][j] - opt.lr * gradient
                W[j] += state[0][j]
        trainer.step(x, y)
        yield t, W, occurs


LAZY = {
    "Adam": gpumlp.Adam(1e-2, eps=1e-4, l2=1e-2, lazy=True),
    "SGD": gpumlp.SGD(0.05, 0.9, l2=1e-2, lazy=True),
}


@pytest.mark.parametrize("kind", LAZY)
def test_only_features_that_occur_move(place, kind):
    trainer = make(place, optimizer=LAZY[kind], net={"dropout": 0.0})
    batches = [(X[start : start + 9], Y[start : start + 9]) for start in range(0, 72, 9)]
    for t, W, occurs in lazily(kind, trainer, batches):
        found = to_numpy(trainer.net.W[1]).T
        np.testing.assert_allclose(found, W, rtol=1e-9, atol=1e-12, err_msg=f"update {t}")
        assert 0 < len(occurs) < SIZES[0]


@pytest.mark.parametrize("kind", LAZY)
def test_lazy_epochs(place, kind):
    """Of a stack too, whose networks have orders of their own; by graphs."""
    fitted = []
    for models in (None, 3):
        trainer = make(place, optimizer=LAZY[kind], models=models)
        before = to_numpy(trainer.net.W[1]).copy()
        twice = X.copy().tolil()
        twice[:, 4] = 0
        fit(trainer, twice.tocsr(), Y, epochs=4)
        after = to_numpy(trainer.net.W[1])
        np.testing.assert_array_equal(after[..., 4], before[..., 4])
        assert (after[..., 3] != before[..., 3]).any()
        fitted.append(after)
    np.testing.assert_allclose(fitted[1][0], fitted[0], rtol=1e-10, atol=1e-13)


def test_lazy_and_eager_agree_where_all_features_occur(place):
    full = np.random.default_rng(0).normal(size=(83, SIZES[0]))
    pair = []
    for lazy in (True, False):
        trainer = make(place, optimizer=gpumlp.Adam(1e-2, eps=1e-4, l2=1e-3, lazy=lazy))
        fit(trainer, full, Y, epochs=3)
        pair.append(theta(trainer))
    np.testing.assert_array_equal(*pair)


def test_lazy_needs_sparse_rows():
    with pytest.raises(ParameterError, match="Adam: lazy = True needs a network with sparse=True"):
        make(sparse=False, optimizer=gpumlp.Adam(lazy=True))
    with pytest.raises(ParameterError, match="SGD: lazy = 1 must be True or False"):
        gpumlp.SGD(lazy=1)
    with pytest.raises(TypeError):
        gpumlp.RMSprop(lazy=True)
    with pytest.raises(ParameterError, match="penalty_in_loss = True counts the penalties of all"):
        make(optimizer=gpumlp.Adam(lazy=True), penalty_in_loss=True)


@pytest.mark.parametrize("starts", ["int32", "int64"])
def test_steps_on_the_same_arrays_are_graphs(cuda, counters, starts):
    trainer, rows = make(cuda), X[:16].astype("float64")
    rows.indptr = rows.indptr.astype(starts)
    there = on_gpu(rows)
    for _ in range(2):
        trainer.step(there, Y[:16])
    with counters.count() as done:
        for _ in range(3):
            trainer.step(there, Y[:16])
    assert done.graphs == 3 and done.h2d <= 3  # labels


def test_a_running_trainer_stays_lazy_or_not():
    for lazy in (True, False):
        trainer = make(optimizer=gpumlp.Adam(lazy=lazy))
        trainer.retune(lr=0.1, lazy=lazy)
        with pytest.raises(ValueError, match=f"lazy = {not lazy}; which weights move stays"):
            trainer.retune(lazy=not lazy)
        assert trainer.optimizer.lazy is lazy


def test_lazy_is_in_files(tmp_path):
    trainer = make(optimizer=LAZY["Adam"])
    fit(trainer, X, Y)
    gpumlp.save(trainer, tmp_path / "t.npz")
    loaded = gpumlp.load(tmp_path / "t.npz", device="cpu")
    assert loaded.optimizer == trainer.optimizer and loaded.optimizer.lazy
    fit(trainer, X, Y)
    fit(loaded, X, Y)
    np.testing.assert_array_equal(theta(trainer), theta(loaded))
