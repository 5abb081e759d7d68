"""A stack on the CPU in blocks: to the bit what it is as a whole, on any number of threads."""

import copy
import threading

import numpy as np
import pytest

import gpumlp
from gpumlp import backend
from gpumlp.backend.cpu import compiler, pool
from gpumlp.model import blocks, workspace
from gpumlp.training import device_state, executors
from gpumlp.training.evaluate import Evaluation
from gpumlp.training.placement import make_rows
from tests.helpers.training import blobs
from tests.helpers.waiting import HANGS

ROWS, VALIDATION = 53, 19


@pytest.fixture(params=["compiled", "numpy"])
def ops(request, monkeypatch):
    """Which operations the networks take."""
    if request.param == "numpy":
        monkeypatch.setenv("GPUMLP_HOST", "0")
    elif compiler.problem():
        pytest.skip(f"nothing can be compiled for the CPU: {compiler.problem()}")
    return type(backend.get("cpu"))


@pytest.fixture
def divide(monkeypatch):
    """divide(n): from now on stacks are in n blocks, or as many as there are networks."""
    monkeypatch.setattr(pool, "_cores", lambda: 3)

    def set_count(count):
        monkeypatch.setattr(blocks, "number", lambda shape, rows: min(count, shape.M))

    return set_count


def data(models, own, rows=ROWS, seed=0):
    """x, y and weights, of all networks or each its own."""
    sets = [blobs(rows, seed=seed + m) for m in range(models if own else 1)]
    x, y = (np.stack(each) if own else each[0] for each in zip(*sets, strict=True))
    weight = np.random.default_rng(seed).uniform(0, 2, y.shape) * (np.arange(rows) % 5 > 0)
    return x, y, weight


CASES = {
    "softmax, Adam": (
        {"hidden": ["tanh", "prelu"], "dropout": [0.3, 0.0]},
        {"optimizer": gpumlp.Adam(0.01, l2=1e-3), "penalty_in_loss": True},
    ),
    "rrelu, momentum, clipping": (
        {"hidden": ["rrelu", "gelu"]},
        {"optimizer": gpumlp.SGD(0.05, momentum=0.9, nesterov=True), "clip_norm": 0.5},
    ),
    "sigmoid, RMSprop, schedule": (
        {"hidden": "silu", "output": "sigmoid", "dropout": 0.2},
        {"optimizer": gpumlp.RMSprop(0.01), "loss": "squared_error", "schedule": "cosine"},
    ),
}


def trained(case, models, own, dtype="float32"):
    """Every number that training, validation and prediction leave."""
    arguments, options = CASES[case]
    x, y, weight = data(models, own)
    xv, yv, _ = data(models, own, VALIDATION, seed=9)
    if options.get("loss") == "squared_error":
        y, yv = np.eye(3)[y], np.eye(3)[yv]
    net = gpumlp.MLP((4, 7, 5, 3), models=models, seed=3, dtype=dtype, device="cpu", **arguments)
    trainer = gpumlp.Trainer(net, batch_size=10, seed=5, **options)
    history = trainer.fit(x, y, epochs=4, sample_weight=weight, validation=(xv, yv), progress=False)
    trainer.retune(lr=np.linspace(0.001, 0.01, models))
    history = trainer.fit(x, y, epochs=2, sample_weight=weight, progress=False)
    found = {name: getattr(history, name) for name in ("loss", "val_loss", "val_accuracy", "lr")}
    state_buffers = {name: slot for name, slot in trainer.state.buffers.items() if slot is not None}
    state = {
        name: getattr(trainer.state.device, name) for name in ("t", "stopped_at", "norm", "scalars")
    }
    found |= {"theta": net.theta, "forward": net.forward(xv), **state_buffers, **state}
    return {name: np.array(value) for name, value in found.items()}


@pytest.mark.parametrize("own", [False, True], ids=["shared data", "own data"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("models", "counts"), [(1, [4]), (3, [2, 3]), (32, [5, 32])])
def test_a_divided_stack_is_the_undivided_one(ops, divide, models, counts, case, own):
    divide(1)
    whole = trained(case, models, own)
    for count in counts:
        divide(count)
        parts = trained(case, models, own)
        for name, value in whole.items():
            np.testing.assert_array_equal(parts[name], value, name)


def epochs(net, orders, batch=10):
    """The losses and weights of an epoch in each of these orders, and theta."""
    trainer = gpumlp.Trainer(net, batch_size=batch)
    x, y, weight = data(1, own=False)
    rows = make_rows(net, trainer.objective, x, y, weight, batch)
    return [*(trainer.run_epoch(rows, order) for order in orders), (net.theta.copy(),)]


@pytest.mark.parametrize("steps", [1, 2, 100])
def test_ragged_orders(ops, divide, monkeypatch, steps):
    """Networks on rows of their own, of different number; in turns of some batches or one."""
    monkeypatch.setattr(executors, "BATCHES", steps)
    rng = np.random.default_rng(2)
    orders = []
    for length in (40, 40, 31):  # the same buffer twice, and then another
        order = np.stack([rng.permutation(ROWS)[:length] for _ in range(5)]).astype(np.int32)
        order[1, length // 2 :] = -1
        orders.append(order)
    results = []
    for count in (1, 2, 5):
        divide(count)
        net = gpumlp.MLP((4, 7, 3), models=5, device="cpu", dtype="float64")
        results.append(epochs(net, orders))
    for found in results[1:]:
        for each, whole in zip(found, results[0], strict=True):
            for a, b in zip(each, whole, strict=True):
                np.testing.assert_array_equal(a, b)
    weights = results[0][0][1]
    assert (weights[2:, 1] == 0).all() and (weights[:, 0] > 0).all()


def test_more_rows_in_between(ops, divide, monkeypatch):
    """The tables of losses are replaced by larger ones, and the first rows come again."""
    monkeypatch.setattr(device_state, "STEPS_NOTED", 1)
    found = []
    for count in (1, 3):
        divide(count)
        net = gpumlp.MLP((4, 7, 3), models=4, device="cpu")
        trainer = gpumlp.Trainer(net, batch_size=10)
        few, many = (
            make_rows(net, trainer.objective, *data(1, False, n)[:2], None, 10) for n in (23, 53)
        )
        epochs = [trainer.run_epoch(rows) for rows in (few, few, many, few)]
        found.append([*(a for pair in epochs for a in pair), net.theta.copy()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_evaluation_by_index_lists(ops, divide):
    order = np.array([[0, 3, 5, 7], [1, 2, -1, -1], [9, 8, 7, 6]], np.int32)
    x, y, weight = data(1, own=False)
    found = []
    for count in (1, 2):
        divide(count)
        net = gpumlp.MLP((4, 7, 3), models=3, device="cpu")
        evaluation = Evaluation(net, gpumlp.Trainer(net).objective, x, y, weight, order=order)
        found.append([*evaluation(), evaluation.outputs(), *evaluation()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    outputs = gpumlp.MLP((4, 7, 3), models=3, device="cpu").forward(x)
    np.testing.assert_allclose(found[1][2][2], outputs[2][order[2]], rtol=1e-6)


def test_members_that_diverge_stand_still(ops, divide):
    x, y, _ = data(1, own=False)
    found = []
    for count in (1, 3):
        divide(count)
        net = gpumlp.MLP((4, 7, 3), models=4, device="cpu", output="identity")
        optimizer = gpumlp.SGD(np.array([0.01, 1e30, 0.02, 0.03]))
        trainer = gpumlp.Trainer(net, "squared_error", optimizer, batch_size=10)
        with pytest.warns(RuntimeWarning, match="network 1 "):
            trainer.fit(x, np.eye(3)[y], epochs=2, progress=False)
        found.append((net.theta.copy(), trainer.diverged))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1] and list(found[0][1]) == [1]


def test_every_network_is_in_one_block(divide):
    divide(3)
    net = gpumlp.MLP((4, 7, 3), models=10, device="cpu")
    parts = net.network.blocks.get(net.network, 10)
    assert [net.theta[members].shape[0] for members, _ in parts] == [3, 3, 4]
    for members, part in parts:
        assert part.M == members.stop - members.start
        theta = part.parameters.buffer
        assert np.shares_memory(theta, net.theta[members])
        np.testing.assert_array_equal(theta, net.theta[members])


def test_how_many_blocks(monkeypatch):
    monkeypatch.setattr(pool, "_cores", lambda: 2)

    def count(models, sizes=(64, 64, 10), rows=200):
        net = gpumlp.MLP(sizes, models=models, device="cpu")
        return len(net.network.blocks.get(net.network, rows))

    assert count(None) == count(1) == 1
    assert count(2) == 2
    assert count(320) >= 320 * 260_000 / blocks.MOST_BYTES  # x, z, n and delta of 200 rows
    assert count(320) % 2 == 0
    assert count(8, (2, 3, 2), rows=4) == 1  # all of it stays in the cache, and is soon done
    assert count(4, (1000, 1000, 10)) == 1  # BLAS shares each product


def test_threads_work_at_the_same_time(monkeypatch):
    """Two blocks, each of which waits in its first product until the other has come to its own."""
    monkeypatch.setattr(pool, "_cores", lambda: 2)
    net = gpumlp.MLP((64, 64, 10), models=2, device="cpu")
    assert len(net.network.blocks.get(net.network, 200)) == 2
    meeting, gemm = threading.Barrier(2, timeout=HANGS), type(net.ops).gemm

    def wait(self, a, b, out, **options):
        if out.shape[-1] == 64:
            meeting.wait()
        gemm(self, a, b, out, **options)

    monkeypatch.setattr(type(net.ops), "gemm", wait)
    assert net.forward(np.zeros((200, 64))).shape == (2, 200, 10)


def test_threads_capture_each_its_own(ops):
    """Two captures, of which the second begins within the first."""
    shared = backend.get("cpu")
    if shared.capture(lambda: None) is None:
        pytest.skip("these operations are not captured")
    begun, ended, replays = threading.Event(), threading.Event(), {}
    a = np.ones((1, 1, 1))
    products = {name: np.zeros((1, 1, 1)) for name in ("first", "second")}

    def first():
        begun.set()
        assert ended.wait(HANGS)
        shared.gemm(a, a, products["first"])

    def capture(name, work):
        replays[name] = shared.capture(work)

    thread = threading.Thread(target=capture, args=("first", first))
    thread.start()
    assert begun.wait(HANGS)
    capture("second", lambda: shared.gemm(a, a, products["second"]))
    ended.set()
    thread.join()
    replays["second"]()
    assert (products["first"], products["second"]) == (0, 1)
    replays["first"]()
    assert (products["first"], products["second"]) == (1, 1)


def test_memory_is_that_of_the_whole(divide):
    """Blocks have buffers of their own; the stack then has none."""
    divide(4)
    net = gpumlp.MLP((4, 7, 3), models=9, device="cpu")
    x, y, _ = data(1, own=False)
    gpumlp.Trainer(net, batch_size=10).fit(x, y, epochs=2, progress=False)
    assert net.network.workspaces._memory is None
    held = sum(part.workspaces._memory.size for _, part in net.network.blocks.get(net.network, 10))
    whole = workspace.size(net.shape, 10, "fit")
    assert whole <= held <= 1.5 * whole  # small buffers are rounded up


def test_a_copy_has_blocks_of_its_own(divide):
    divide(2)
    net = gpumlp.MLP((4, 7, 3), models=4, device="cpu")
    x, _, _ = data(1, own=False)
    before = net.forward(x)
    other = copy.deepcopy(net)
    other.parameters.buffer[...] = 0
    np.testing.assert_array_equal(net.forward(x), before)
    np.testing.assert_allclose(other.forward(x), 1 / 3, rtol=1e-6)
