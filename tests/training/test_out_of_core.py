"""Data larger than the device: streamed epochs are those of resident rows, to the last bit."""

import gc
import threading

import numpy as np
import pytest

import gpumlp
from gpumlp.backend.cpu import pool
from gpumlp.backend.cuda import transfer
from gpumlp.model.shape import NetworkShape
from gpumlp.training import out_of_core, placement, rows
from gpumlp.training.evaluate import Evaluation
from tests.helpers.training import PressCtrlC, fit, theta

COUNT, FEATURES, BATCH = 203, 40, 16


@pytest.fixture
def stream(cuda, monkeypatch):
    """A function after which all data are streamed, in pieces of so many batches; it returns the
    list of rows that are made."""

    def begin(batches, sorted_there=True):
        made, whole = [], out_of_core.Streamed.__init__

        def make(self, net, given, batch_size, orders, room):
            assert out_of_core.least(net, given, batch_size, orders) < room
            piece = batches * rows.size(net, given, batch_size, orders)
            monkeypatch.setattr(out_of_core, "PIECE_BYTES", piece)
            if not sorted_there:
                room = 2 * piece + out_of_core.ORDER_BYTES * given.x.shape[1]
            whole(self, net, given, batch_size, orders, room)
            assert self._batches == min(batches, -(-self.steps // -(-self.steps // batches)))
            assert self._sorted_there == (sorted_there or not orders)
            made.append(self)

        monkeypatch.setattr(placement, "ORDER_BYTES", 1 << 60)  # which nothing has room for
        monkeypatch.setattr(out_of_core, "PART_OF_FREE", 1)
        monkeypatch.setattr(out_of_core.Streamed, "__init__", make)
        return made

    return begin


def values(count=COUNT, models=None):
    shape = (count, FEATURES) if models is None else (models, count, FEATURES)
    return np.random.default_rng(0).normal(size=shape)


def pixels():
    return np.random.default_rng(4).integers(0, 256, (COUNT, FEATURES)).astype("uint8")


def labels(count=COUNT, models=None):
    shape = count if models is None else (models, count)
    return np.random.default_rng(1).integers(0, 3, shape)


def targets():
    return np.random.default_rng(2).normal(size=(COUNT, 3))


def weights(models=None):
    shape = COUNT if models is None else (models, COUNT)
    return np.random.default_rng(3).uniform(0, 2, shape)


def make_trainer(models=None, dtype="float64", loss="cross_entropy", **options):
    output = "identity" if loss == "squared_error" else "softmax"
    net = gpumlp.MLP(
        (FEATURES, 4, 3), "tanh", output, models=models, dtype=dtype, device="cuda", dropout=0.2
    )
    options = {"optimizer": gpumlp.Adam(1e-2), "batch_size": BATCH} | options
    return gpumlp.Trainer(net, loss, **options)


def assert_same(found, expected):
    np.testing.assert_array_equal(theta(found), theta(expected))
    for name in ("loss", "val_loss", "val_accuracy", "lr"):
        a, b = getattr(found.history, name), getattr(expected.history, name)
        assert len(a) == len(b)
        np.testing.assert_array_equal(a, b)


# --- the same results -----------------------------------------------------------------------------

OTHER_ORDER = values().astype(values().dtype.newbyteorder())

# options of the trainer, what is given to `fit`
CASES = {
    "shuffled": ({}, {"x": values(), "y": labels()}),
    "in order": ({"shuffle": False}, {"x": values(), "y": labels()}),
    "weights": ({}, {"x": values(), "y": labels(), "sample_weight": weights()}),
    "dense": ({"loss": "squared_error"}, {"x": values(), "y": targets()}),
    "bytes": ({}, {"x": pixels(), "y": labels()}),
    "every other column": ({}, {"x": np.repeat(pixels(), 2, axis=1)[:, ::2], "y": labels()}),
    "columns first": ({}, {"x": np.asfortranarray(values()), "y": labels()}),
    "the other byte order": ({}, {"x": OTHER_ORDER, "y": labels()}),
    "no ragged batch": ({}, {"x": values(208), "y": labels(208)}),
    "stack": ({"models": 3}, {"x": values(), "y": labels()}),
    "stack, own data": ({"models": 3}, {"x": values(models=3), "y": labels(models=3)}),
    "stack, own labels and weights": (
        {"models": 3},
        {"x": values(), "y": labels(models=3), "sample_weight": weights(models=3)},
    ),
    "stack, own data, in order": (
        {"models": 3, "shuffle": False},
        {"x": values(models=3), "y": labels(), "sample_weight": weights()},
    ),
}


@pytest.mark.parametrize("batches, dtype", [(1, "float64"), (3, "float32")])
@pytest.mark.parametrize("case", CASES)
def test_streamed_epochs_are_the_same(stream, case, batches, dtype):
    options, given = CASES[case]
    expected, found = (make_trainer(dtype=dtype, **options) for _ in range(2))
    fit(expected, **given, epochs=4)
    made = stream(batches)
    fit(found, **given, epochs=4)
    assert len(made) == 1
    assert_same(found, expected)


class Together:
    """Calls of a function, the first so many of which wait for one another."""

    def __init__(self, function, count):
        self._function, self._left = function, iter(range(count))
        self._barrier = threading.Barrier(count)

    def __call__(self, *arguments):
        if next(self._left, None) is not None:
            self._barrier.wait(timeout=60)
        return self._function(*arguments)


@pytest.mark.parametrize("case", CASES)
def test_threads_gather_a_piece_together(stream, monkeypatch, case):
    """Each some of its rows, down to a single one: no result depends on that."""
    options, given = CASES[case]
    expected, found = (make_trainer(**options) for _ in range(2))
    fit(expected, **given, epochs=2)
    made = stream(3)
    monkeypatch.setattr(out_of_core, "SHARE_BYTES", 1)
    monkeypatch.setattr(pool, "_cores", lambda: 3)
    monkeypatch.setattr(pool, "_pool", pool._Pool())
    monkeypatch.setattr(out_of_core, "_take", Together(out_of_core._take, 3))
    fit(found, **given, epochs=2)
    assert len(made) == 1
    assert_same(found, expected)


@pytest.mark.parametrize("models", [None, 2])
def test_where_there_is_no_room_for_sorting_the_host_sorts(stream, counters, models):
    expected, found = make_trainer(models), make_trainer(models)
    fit(expected, values(), labels(), epochs=3)
    made = stream(3, sorted_there=False)
    with counters.count() as c:
        fit(found, values(), labels(), epochs=3)
    assert "shuffle_keys" not in c.kernels
    assert len(made) == 1
    assert_same(found, expected)


@pytest.mark.parametrize("models", [None, 3])
def test_validation_is_streamed_in_its_own_order(stream, monkeypatch, models):
    expected, found = make_trainer(models), make_trainer(models)
    given = {"x": values(50), "y": labels(50), "epochs": 3}
    given["validation"] = values(), labels(), weights()
    monkeypatch.setattr(NetworkShape, "chunk_rows", 30)
    fit(expected, **given)
    made = stream(2)
    fit(found, **given)
    assert [each.count for each in made] == [50, COUNT]
    assert_same(found, expected)


@pytest.mark.parametrize("batches", [1, 3, 8])
def test_folds_are_streamed_too(stream, monkeypatch, batches):
    expected, found = make_trainer(3), make_trainer(3)
    order = np.array([np.random.default_rng(m).permutation(COUNT) for m in range(3)])
    given = {"x": values(), "y": labels(), "epochs": 3, "sample_weight": weights()}
    given["folds"] = order[:, :150], order[:, 150:193]
    monkeypatch.setattr(NetworkShape, "chunk_rows", 30)
    fit(expected, **given)
    made = stream(batches)
    fit(found, **given)
    assert [each.length for each in made] == [150, 43]
    assert_same(found, expected)


def test_one_piece_that_stays_is_sent_once(stream, counters):
    """Validation in one piece: its order never changes."""
    stream(1)
    trainer = make_trainer()
    with trainer.net.ops.on_device():
        evaluation = Evaluation(trainer.net, trainer.objective, values(), labels())
        with counters.count() as c:
            first = evaluation()
            again = evaluation()
    assert c.h2d == 1
    assert first == again


def test_features_on_the_device_are_not_streamed(stream):
    import cupy

    made = stream(1)
    fit(make_trainer(), cupy.asarray(values()), labels())
    assert not made
    expected, found = make_trainer(), make_trainer()
    fit(expected, values(), labels())
    fit(found, values(), cupy.asarray(labels()))  # these are fetched
    assert len(made) == 2
    assert_same(found, expected)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("every", [1, 2])
def test_a_memory_mapped_file(stream, tmp_path, order, every):
    np.save(tmp_path / "x.npy", np.asarray(np.repeat(pixels(), every, axis=0), order=order))
    expected, found = make_trainer(), make_trainer()
    fit(expected, pixels(), labels(), epochs=2)
    made = stream(3)
    fit(found, np.load(tmp_path / "x.npy", mmap_mode="r")[::every], labels(), epochs=2)
    kept = made[0]._data.x
    while not isinstance(kept, np.memmap):
        kept = kept.base  # None if it were a copy
        assert kept is not None
    assert_same(found, expected)


@pytest.mark.parametrize("shuffle", [True, False])
def test_estimators(stream, shuffle):
    options = {
        "hidden_layer_sizes": (5,),
        "max_iter": 4,
        "batch_size": BATCH,
        "early_stopping": True,
        "random_state": 2,
        "device": "cuda",
        "shuffle": shuffle,
    }
    with pytest.warns(UserWarning):
        expected = gpumlp.MLPClassifier(**options).fit(values(), labels())
    made = stream(3)
    with pytest.warns(UserWarning):
        found = gpumlp.MLPClassifier(**options).fit(values(), labels())
    assert len(made) >= 1
    assert found.loss_curve_ == expected.loss_curve_
    assert found.validation_scores_ == expected.validation_scores_
    for a, b in zip(found.coefs_, expected.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)


# --- in the middle of an epoch --------------------------------------------------------------------


@pytest.mark.parametrize("batch", [0, 2, 4, 12])  # of 13, in pieces of three
def test_interrupted_and_resumed_in_the_middle_of_an_epoch(stream, monkeypatch, tmp_path, batch):
    expected = make_trainer(models=2)
    fit(expected, values(), labels(), epochs=4)
    stream(3)
    found = make_trainer(models=2)
    with monkeypatch.context() as patch:
        PressCtrlC(patch, (13 + 1) + batch + 1)  # it is also looked at after the first epoch
        file = gpumlp.Checkpoint(tmp_path / "file", every_epochs=100)
        fit(found, values(), labels(), epochs=4, callbacks=[file])
    assert found.history.interrupted
    assert (found.epoch, found.batches_done) == divmod(13 + batch + 1, 13)
    found = gpumlp.resume(tmp_path / "file", device="cuda")
    fit(found, values(), labels(), epochs=found.epochs_left)
    np.testing.assert_array_equal(theta(found), theta(expected))


def test_the_same_rows_after_an_interrupt(stream, monkeypatch):
    """An epoch that was left in the middle of a piece, and then begins anew."""
    expected, found = make_trainer(), make_trainer()
    for trainer in (expected, found):
        made = stream(3) if trainer is found else None
        with trainer.net.ops.on_device():
            net, objective = trainer.net, trainer.objective
            data = placement.make_rows(net, objective, values(), labels(), None, BATCH)
            trainer.rates.plan(data.steps, 3 * data.steps)

            class Asked:
                def __init__(self, after):
                    self.left = after

                @property
                def asked(self):
                    self.left -= 1
                    return self.left < 0

            trainer.run_epoch(data, interrupt=Asked(5))
            trainer.run_epoch(data, interrupt=Asked(9), first=5)
            trainer.run_epoch(data)
    assert len(made) == 1
    np.testing.assert_array_equal(theta(found), theta(expected))


# --- what it costs --------------------------------------------------------------------------------


def test_work_of_an_epoch(stream, counters):
    """As much as where the rows lie on the device, but for a copy and a wait for each piece and the
    reading of the order."""
    x, y, names = values(), labels(), "launches gemms graphs d2d allocations".split()

    def work(epochs):
        trainer = make_trainer()
        fit(trainer, x, y)
        with counters.count() as c:
            fit(trainer, x, y, epochs=epochs)
        return c

    def of_an_epoch():
        few, many = work(4), work(5)
        every = (*names, "h2d", "d2h", "synchronisations", "waits")
        return {name: getattr(many, name) - getattr(few, name) for name in every}

    resident = of_an_epoch()
    made = stream(3)
    found = of_an_epoch()
    pieces = -(-13 // made[0]._batches)
    assert pieces == 5
    assert found["launches"] == resident["launches"]
    assert found["gemms"] == resident["gemms"]
    assert found["graphs"] == resident["graphs"]
    assert found["h2d"] - resident["h2d"] == pieces
    assert found["d2h"] - resident["d2h"] == 1
    assert found["synchronisations"] - resident["synchronisations"] == 1
    assert found["waits"] == pieces  # for a buffer, and for no batch within a piece


@pytest.mark.parametrize("free, on_device", [(1_600_000, True), (600_000, False), (90_000, False)])
def test_never_more_memory_than_there_is(counters, monkeypatch, free, on_device):
    """With 960 KB of data, the form is chosen beforehand: nothing is tried in vain."""
    x, y = values(3000), labels(3000)
    expected, found = make_trainer(), make_trainer()
    fit(expected, x, y, epochs=2)
    counters.leave(monkeypatch, free)
    before = counters.machine.used[0]
    with counters.count() as c:
        start = c.current_bytes
        fit(found, x, y, epochs=2)
    assert c.peak_bytes - start <= free
    assert (c.allocated_bytes >= x.nbytes) == on_device
    assert_same(found, expected)
    assert counters.machine.used[0] - before < 50_000  # the workspace, not the pieces


@pytest.mark.parametrize("kept", [0, 1000])
def test_memory_that_an_earlier_fit_has_left(counters, monkeypatch, kept):
    """CuPy's pool gives it back, unless a small array lies in it: then it is of no use to a large
    one."""
    import cupy

    x, y = values(3000), labels(3000)
    expected, found = make_trainer(), make_trainer()
    fit(expected, x, y, epochs=2)
    counters.leave(monkeypatch, 1_700_000)
    earlier = cupy.empty(900_000, np.uint8)
    del earlier
    small = cupy.empty(kept, np.uint8)
    with counters.count() as c:
        fit(found, x, y, epochs=2)
    assert (c.allocated_bytes >= x.nbytes) == (kept == 0)
    assert_same(found, expected)
    assert len(small) == kept


def test_small_fits_leave_the_pool_as_it_is(counters, monkeypatch):
    import cupy

    freed = []
    pool = type(cupy.get_default_memory_pool())
    monkeypatch.setattr(pool, "free_all_blocks", lambda self: freed.append(self))
    fit(make_trainer(), values(), labels(), validation=(values(), labels()))
    assert not freed


def test_pieces_of_a_real_size_are_a_sixteenth(cuda, monkeypatch):
    net = make_trainer().net
    given = rows.Data(values(3000), labels(3000).astype(np.int32)[None], None, None)
    given = given._replace(x=given.x[None])
    batch = rows.size(net, given, BATCH, 1)
    made = out_of_core.Streamed(net, given, BATCH, 1, 160 * batch)
    assert 160 // 16 - 1 <= made._batches <= 160 // 16
    monkeypatch.setattr(out_of_core, "PIECE_BYTES", 4 * batch)
    assert out_of_core.Streamed(net, given, BATCH, 1, 160 * batch)._batches == 4


def test_not_even_pieces_fit(counters, monkeypatch):
    trainer = make_trainer()
    before = theta(trainer)
    counters.leave(monkeypatch, 30_000)
    told = (
        r"^out of memory on cuda:0: about [\d.]+ KiB are needed, [\d.]+ KiB are free; lower "
        r"batch_size, sizes, .*\(two pieces of 16 rows of the data take [\d.]+ KiB\)$"
    )
    with pytest.raises(MemoryError, match=told):
        fit(trainer, values(30_000), labels(30_000))
    np.testing.assert_array_equal(theta(trainer), before)


def test_memory_goes_back(stream, counters):
    gc.collect()
    gc.disable()
    try:
        made = stream(2)
        trainer = make_trainer()
        fit(trainer, values(), labels())
        made.clear()
        before = counters.machine.used[0]
        fit(trainer, values(), labels(), epochs=2)
        made.clear()
        assert counters.machine.used[0] == before
    finally:
        gc.enable()


# --- waiting --------------------------------------------------------------------------------------


def no_wait_of_the_host(patch):
    patch.setattr(transfer.Transfer, "wait", lambda self: None)


def no_wait_of_the_copy(patch):
    patch.setattr(transfer.Transfer, "release", lambda self: None)


def no_wait_of_the_computing(patch):
    def send(self):
        self._stream.wait_event(self._used)
        self.array.set(self.host, stream=self._stream)
        self._sent.record(self._stream)

    patch.setattr(transfer.Transfer, "send", send)


def never_left(patch):
    patch.setattr(out_of_core.Streamed, "_leave", lambda self: setattr(self, "_piece", None))


MISSING = {
    no_wait_of_the_host: "overwritten before",
    no_wait_of_the_copy: "may still be using",
    no_wait_of_the_computing: "wait for an event",
    never_left: "may still be using",
}


@pytest.mark.parametrize("missing", MISSING)
def test_a_wait_that_is_missing_is_noticed(stream, counters, monkeypatch, missing):
    """By the stand-in; a GPU would compute on whatever is there."""
    stream(3)
    missing(monkeypatch)
    with pytest.raises(RuntimeError, match=MISSING[missing]):
        fit(make_trainer(), values(), labels(), epochs=2)
