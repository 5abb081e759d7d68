"""What the operations on the GPU do around their kernels: copies, captures, the epoch's order."""

import dataclasses

import numpy as np
import pytest

import gpumlp
from gpumlp import backend
from gpumlp.backend.contract import Batch, Data, Occurring
from gpumlp.backend.cuda import cupy_ops
from gpumlp.functions.activation import activations
from gpumlp.model import memory
from gpumlp.training import placement
from tests.helpers.training import fit
from tests.operations import minibatches, random, send, sparse
from tests.operations.selection import IN_MANY_BLOCKS


@pytest.fixture
def ops(cuda):
    return backend.get("cuda:0")


# ------------------------------------------------------------------ from the host


LARGE = cupy_ops.MOST_STAGED // 4 + 2  # float32


def big_endian(array):
    return array.astype(">f4")


VIEWS = pytest.mark.parametrize("view", [np.copy, np.ravel, np.flip, np.asfortranarray, big_endian])


@VIEWS
@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("stream", ["the default", "another"])
def test_copies_from_any_memory_that_are_made_later(counters, monkeypatch, view, size, stream):
    """As on a GH200, where what the copy was made of must not be gone by then."""
    monkeypatch.setattr(counters.machine, "pageable_access", True)
    ops = backend.get("cuda:0")
    given = view(random(2, size // 2).astype("float32"))
    expected = given.copy()
    with ops.xp.cuda.Stream(null=stream == "the default", non_blocking=True):
        sent = ops.to_device(given)
        given[:] = 0
        del given
        np.testing.assert_array_equal(ops.to_host(sent), expected)


@VIEWS
def test_large_arrays_take_no_page_locked_memory(counters, view):
    ops = backend.get("cuda:0")
    given = view(random(2, LARGE // 2).astype("float32"))
    with counters.count() as c:
        sent = ops.to_device(given)
    assert (c.h2d, c.staged_bytes) == (1, 0)
    np.testing.assert_array_equal(ops.to_host(sent), given)
    assert sent.flags.c_contiguous


def test_small_arrays_are_sent_without_waiting(counters):
    ops = backend.get("cuda:0")
    given = random(LARGE - 2).astype("float32")
    with counters.count() as c:
        sent = ops.to_device(given)
    assert (c.h2d, c.synchronisations) == (1, 0)
    np.testing.assert_array_equal(ops.to_host(sent), given)


@pytest.mark.parametrize("size", [10, LARGE])
def test_what_is_sent_may_be_overwritten(counters, size):
    """Also where it lies in page-locked memory, from where copies are made later."""
    ops = backend.get("cuda:0")
    pinned = np.frombuffer(ops.xp.cuda.alloc_pinned_memory(4 * size), np.float32)
    pinned[:] = 1
    with ops.xp.cuda.Stream(non_blocking=True):
        sent = ops.to_device(pinned)
        pinned[:] = 2
        assert (ops.to_host(sent) == 1).all()


def test_data_of_a_fit_take_no_page_locked_memory(counters):
    x = random(LARGE // 8, 16).astype("float32")
    net = gpumlp.MLP((16, 3), device="cuda")
    trainer = gpumlp.Trainer(net, batch_size=len(x))
    with counters.count() as c:
        fit(trainer, x, np.zeros(len(x), int))
        net.forward(x)
    assert c.staged_bytes < x.nbytes


# ------------------------------------------------------------------ blocks


@pytest.mark.parametrize("check", IN_MANY_BLOCKS)
def test_small_arrays_in_many_blocks(ops, check):
    """The other tests of the kernels have few, as large arrays do."""
    IN_MANY_BLOCKS[check](ops)


def test_blocks():
    """Enough for the GPU where there are rows enough; then as few as the rows per thread say."""
    assert cupy_ops._chunks(1, 8, 4, 1) == 1
    assert cupy_ops._chunks(128, 8, 4, 1) == 16
    assert cupy_ops._chunks(4000, 8, 4, 1) == 264
    assert cupy_ops._chunks(4000, 8, 4, 100) == 125
    assert cupy_ops._chunks(80_000, 8, 4, 1) == 2500
    assert cupy_ops._chunks(4000, 8, 4, 1000) == 125


def test_blocks_that_add_weights():
    """One for a small batch, many for a large one, and no more than one block can add up."""
    assert cupy_ops._weight_blocks(1, 1) == cupy_ops._weight_blocks(256, 1) == 1
    assert cupy_ops._weight_blocks(8192, 1) == 32
    assert cupy_ops._weight_blocks(8192, 1000) == 4
    assert cupy_ops._weight_blocks(1_000_000, 1) == 489
    assert cupy_ops._weight_blocks(10_000_000, 1) == 512


@pytest.mark.parametrize("weighted", [False, True])
def test_many_weights_are_added_in_one_order(monkeypatch, ops, weighted):
    """Whichever block is the last; weights of 1 to their exact number."""
    rows = 20_000
    data = Data(
        ops.xp.zeros((2, rows, 1), np.float32),
        *(None, None),
        send(ops, np.random.default_rng(0).random((2, rows)), np.float32) if weighted else None,
    )
    order = np.arange(rows)[None] - 3  # the first three are padding
    order = send(ops, np.maximum(order, -1), np.int32)
    sums = []
    for number in range(4):
        monkeypatch.setenv("GPUMLP_SIMT_ORDER", str(number))
        out = minibatches.Minibatch(ops, np.float32, 2, rows, 1, False, 0).out
        ops.gather(data, order, ops.xp.zeros(2, np.int64), rows, out)
        sums.append(ops.to_host(out.w_sum))
    for each in sums[1:]:
        np.testing.assert_array_equal(each, sums[0])
    if weighted:
        exact = ops.to_host(data.weight)[:, : rows - 3].sum(axis=1, dtype=np.float64)
        np.testing.assert_allclose(sums[0], exact, rtol=1e-6)
    else:
        np.testing.assert_array_equal(sums[0], [rows - 3, rows - 3])


# ------------------------------------------------------------------ captures


def gelu_layer(ops, height):
    """A function that runs `backprop` on as many rows, and its arrays."""
    f = activations["gelu"]
    z, delta = (send(ops, random(1, height, 5, seed=i), np.float32) for i in range(2))
    db, p = ops.xp.zeros((1, 5), np.float32), send(ops, np.zeros((1, 2)), np.float32)
    return (lambda: ops.backprop(f, z, z, delta, db, p)), (z, delta, db, p)


def test_an_error_in_a_capture_is_the_one_that_is_told(ops):
    def work():
        ops.xp.cuda.get_current_stream().synchronize()  # which ends the capture

    with pytest.raises(Exception, match=r"(?i)captur") as told:
        ops.capture(work)
    assert not told.value.__suppress_context__
    assert "INVALIDATED" not in str(told.value).upper()

    def broken():
        try:
            work()
        except Exception:
            raise ValueError("the first error") from None

    with pytest.raises(ValueError, match="the first error"):
        ops.capture(broken)
    work, arrays = gelu_layer(ops, 9)
    work()
    ops.capture(work)()  # there is nothing left of the captures before
    assert np.isfinite(ops.to_host(arrays[2])).all()


def test_a_graph_keeps_the_room_for_its_partial_sums(ops):
    work, arrays = gelu_layer(ops, 300)
    work()
    replay = ops.capture(work)
    larger, _keep = gelu_layer(ops, 3000)
    larger()
    replay()
    assert np.isfinite(ops.to_host(arrays[2])).all()


def test_a_capture_in_which_room_grows_is_refused(ops):
    """Its first operations would write to what is released, and counters would not be zeroed."""
    work, arrays = gelu_layer(ops, 300)
    work()
    expected = ops.to_host(arrays[2])
    larger, others = gelu_layer(ops, 3000)
    partial, arrived = ops._partial["f"], ops._arrived
    with pytest.raises(RuntimeError, match="more room in its capture"):
        ops.capture(larger)
    assert ops._partial["f"] is partial and ops._arrived is arrived
    ops.capture(gelu_layer(ops, 300)[0])
    larger()
    ops.capture(larger)()
    again, arrays = gelu_layer(ops, 300)
    again()
    np.testing.assert_array_equal(ops.to_host(arrays[2]), expected)
    assert np.isfinite(ops.to_host(others[2])).all()


def test_a_capture_in_which_the_workspace_of_products_grows_is_refused(counters):
    ops = backend.get("cuda:0")
    a, b = (send(ops, random(1, 40, 40, seed=i), np.float32) for i in range(2))
    out = ops.xp.empty((1, 40, 40), np.float32)

    def work():
        ops.gemm(a, b, out)

    with pytest.raises(RuntimeError, match="more room in its capture"):
        ops.capture(work)
    work()
    ops.capture(work)()
    expected = ops.to_host(a)[0] @ ops.to_host(b)[0]
    np.testing.assert_allclose(ops.to_host(out)[0], expected, rtol=1e-4, atol=1e-4)


class SparseStep:
    """The operations of a step on sparse rows, on arrays of their own."""

    KERNELS = "gather", "sparse_product", "clear_gradient", "sparse_gradient", "update"

    def __init__(self, ops, rows=37, units=5, width=64):
        self.ops, self.rows = ops, rows
        self.optimizer = gpumlp.Adam(0.1)
        x = sparse.sent(ops, sparse.make_rows("float32", 3 * rows, width))
        self.numbers = send(ops, np.full((1, rows), -7), np.int32)
        batch = dataclasses.replace(x, numbers=self.numbers)
        w, w_sum = (send(ops, np.ones(s), np.float32) for s in ((1, rows), (1,)))
        self.given = Data(x, None, None, None), send(ops, [np.arange(3 * rows)[::-1]], np.int32)
        self.out = Batch(batch, None, None, w, w_sum)
        self.cursor = send(ops, [0], np.int64)
        self.theta = send(ops, random(1, width * units), np.float32)
        self.g, self.first, self.second = (ops.xp.zeros_like(self.theta) for _ in range(3))
        self.WT, self.GT = (a.reshape(1, width, units) for a in (self.theta, self.g))
        self.z = ops.xp.zeros((1, rows, units), np.float32)
        self.occurs = ops.xp.zeros((1, width), np.uint8)
        hyper, scalars = self.optimizer.hyper(1), [[1, 1, 0.1, 1]]
        self.now = send(ops, scalars, np.float32), send(ops, hyper, np.float32)
        self.t, self.stopped_at = send(ops, [1], np.int64), send(ops, [0], np.int64)

    def __call__(self):
        ops, x = self.ops, self.out.x
        ops.gather(*self.given, self.cursor, self.rows, self.out)
        ops.sparse_product(x, self.WT, self.z)
        ops.sparse_gradient(x, self.z, self.occurs, self.GT)
        ops.update(
            *(self.optimizer.family, self.theta, self.g, (self.first, self.second)),
            *(*self.now, self.t, self.stopped_at, 0),
            occurring=Occurring(self.occurs, self.WT.shape[2]),
        )


def test_sparse_rows_in_a_graph(counters):
    """Nothing is allocated or awaited; what changes from step to step lies in arrays."""
    ops = backend.get("cuda:0")
    eager, captured = SparseStep(ops), SparseStep(ops)
    eager()
    captured()
    with counters.count() as c:
        replay = ops.capture(captured)
    assert (c.launches, c.allocations, c.synchronisations) == (0, 0, 0)
    for step in 1, 2:
        for each in eager, captured:
            each.cursor += 1
            each.t += 1
        eager()
        with counters.count() as c:
            replay()
        assert (c.graphs, c.allocations, c.synchronisations) == (1, 0, 0)
        assert (*c.kernels,) == SparseStep.KERNELS
        expected = np.arange(3 * 37)[::-1][step * 37 : (step + 1) * 37]
        np.testing.assert_array_equal(ops.to_host(captured.numbers)[0], expected)
        for name in "theta", "g", "first", "second", "z", "occurs":
            own, other = (ops.to_host(getattr(each, name)) for each in (captured, eager))
            np.testing.assert_array_equal(own, other)
            assert np.isfinite(own).all()


# ------------------------------------------------------------------ around an epoch


def test_only_the_losses_of_the_epoch_are_read(device, monkeypatch):
    net = gpumlp.MLP((3, 2), device=device, models=2)
    read, to_host = [], net.ops.to_host
    monkeypatch.setattr(net.ops, "to_host", lambda array: read.append(array) or to_host(array))
    trainer = gpumlp.Trainer(net, batch_size=2)
    fit(trainer, random(5, 3), np.array([0, 1, 0, 1, 0]), epochs=2)
    assert trainer.state.device._buffer.nbytes > 1000 * 2 * 4
    # Of two networks whether they stand still, four scalars, losses and weights of three steps.
    assert max(array.nbytes for array in read) == 2 * (8 + 4 * 4 + 2 * 3 * 4)


@pytest.mark.parametrize("models", [1, 3, 70])
def test_work_and_memory_of_an_order(counters, models):
    """One sort for all networks, in as much room again, and no copy of the keys."""
    net = gpumlp.MLP((3, 2), device="cuda", models=models)
    trainer = gpumlp.Trainer(net)
    x, y = random(1000, 3), np.zeros(1000, int)
    made = placement.make_rows(net, trainer.objective, x, y, None, 100)
    made.shuffle(trainer.state.seeds, 0)
    with counters.count() as c:
        before = c.current_bytes
        made.shuffle(trainer.state.seeds, 1)
    assert c.kernels == ["shuffle_keys", "shuffle_order"]
    assert (c.sorts, c.elementwise, c.d2d) == (1, 0, 0)
    assert c.peak_bytes - before == memory.SORTING_BYTES * models * 1000


def test_keys_that_64_bits_are_too_few_for(counters, monkeypatch):
    """Of so many networks and rows that a number of 64 bits does not hold both beside the random
    bits: sorted one network after another, in the same order."""
    ops, orders = backend.get("cuda:0"), []
    for bits, sorts in ((64, 1), (32 + 6 + 3, 1), (32 + 6 + 2, 5)):  # 5 networks of 37 rows
        monkeypatch.setattr(cupy_ops, "KEY_BITS", bits)
        order = ops.xp.empty((5, 37), np.int32)
        with counters.count() as c:
            ops.shuffle(ops.to_device(np.arange(5, dtype=np.uint64)), 3, order)
        assert c.sorts == sorts
        orders.append(ops.to_host(order).tolist())
    assert orders[0] == orders[1] == orders[2]
