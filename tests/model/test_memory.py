"""What a fit of a stack takes is worked out beforehand, within a tenth of what is measured."""

import gc
import tracemalloc
import warnings

import numpy as np
import pytest

import gpumlp
from gpumlp.backend.cpu import pool
from gpumlp.estimators import base, stack_fitter
from gpumlp.estimators.member_task import Member
from gpumlp.model import arrays, memory
from gpumlp.training import executors, persistent, rows

R, HELD = 330, 170
TOTAL_MEMORY = "gpumlp.backend.reference.numpy_ops.NumpyOps.total_memory"

CASES = {
    "Adam": {},
    "SGD": {"optimizer": gpumlp.SGD(0.1)},
    "centred RMSprop with momentum": {
        "optimizer": gpumlp.RMSprop(1e-3, momentum=0.5, centered=True)
    },
    "validation": {"held": HELD},
    "wide": {"sizes": (30, 120, 90, 4), "batch": 64},
    "large batch, gelu": {"batch": 300, "hidden": "gelu"},
    "many validated on": {"held": 3_000, "sizes": (20, 20, 4)},
    "one order": {"shuffle": False},
    "float64": {"dtype": "float64", "models": 5},
    "scale": {"scale": True},
}


def data(held, dtype, features):
    rng = np.random.default_rng(0)
    for count in (R, held):
        yield rng.normal(size=(count, features)).astype(dtype), rng.integers(0, 4, count)


def make(
    device, *, sizes=(64, 64, 4), models=32, batch=100, dtype="float32", hidden="relu",
    optimizer=None, shuffle=True, resident=None, scale=False, **_,
):  # fmt: skip
    net = gpumlp.MLP(sizes, hidden, models=models, dtype=dtype, device=device, scale=scale)
    trainer = gpumlp.Trainer(net, optimizer=optimizer, batch_size=batch, shuffle=shuffle)
    trainer.resident = resident
    return trainer


def run(trainer, training, validation):
    x, y = training
    return trainer.fit(x, y, 2, validation=validation, progress=False)


def foreseen(trainer, training, validation):
    """By what is known before the fit."""
    net, shuffle = trainer.net, trainer.shuffle
    both = [each for each in (training, validation) if each]
    sets = [rows.read(net, trainer.objective, *each, None) for each in both]
    host = net.device == "cpu"  # where only the labels are copied, for their dtype
    data_bytes = sum(
        each.labels.nbytes if host else rows.size(net, each, each.x.shape[1]) for each in sets
    )
    executor = executors.choose(
        *(net.shape, net.ops, trainer.objective, trainer.optimizer),
        *(trainer.batch_size, training[0].dtype, trainer.resident),
    )
    return memory.predict(
        net.shape,
        trainer.batch_size,
        sum(trainer.optimizer.state_buffers().values()),
        data_bytes,
        fit=memory.MemoryPlan(
            positions=R,
            orders=net.M if shuffle else 1,
            sorts=shuffle,
            validation_rows=len(validation[0]) if validation else 0,
            passes=executor.bytes(net.shape, trainer.batch_size),
        ),
    )


def cases(held=0, **given):
    training, validation = data(held, given.get("dtype", "float32"), given.get("sizes", (64,))[0])
    return training, validation if held else None, given


def on_gpu(counters, given):
    training, validation, given = cases(**given)
    run(make("cuda:0", **given), training, validation)  # what the operations keep for themselves
    gc.collect()
    with counters.count() as c:
        start = c.current_bytes
        trainer = make("cuda:0", **given)
        run(trainer, training, validation)
        measured = c.peak_bytes - start
    assert foreseen(trainer, training, validation) == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("resident", [False, True], ids=["operations", "one kernel"])
@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu(counters, case, resident):
    on_gpu(counters, {"models": 8} | CASES[case] | {"resident": resident})


@pytest.mark.parametrize("models", [1, 32, 70])
@pytest.mark.parametrize("held", [0, HELD])
def test_few_and_many_networks_on_a_gpu(counters, models, held):
    """As many as take one of the two ways."""
    on_gpu(counters, {"models": models, "held": held, "sizes": (16, 24, 4)})


MEMBERS = {
    "Adam": {},
    "dropout": {"dropout": 0.5},
    "early stopping": {"early_stopping": True, "validation_fraction": 0.5},
    "wide": {"hidden_layer_sizes": (120, 90)},
}


@pytest.mark.parametrize("case", MEMBERS)
def test_members_of_a_stack(counters, monkeypatch, case):
    """Where they train in shared memory, and where they are too large for it."""
    (X, y), _ = data(0, "float32", 30)
    base = {"hidden_layer_sizes": (40,), "batch_size": 100, "max_iter": 2, "device": "cuda"}
    members = [
        Member(gpumlp.MLPClassifier(**base | MEMBERS[case], random_state=m)) for m in range(20)
    ]
    monkeypatch.setattr(persistent, "SAVED", -1.0)  # wherever they fit
    calls, bytes_needed, plans, plan = [], stack_fitter.bytes_needed, [], persistent.plan
    monkeypatch.setattr(
        stack_fitter, "bytes_needed", lambda *given: calls.append(bytes_needed(*given)) or calls[-1]
    )
    monkeypatch.setattr(persistent, "plan", lambda *given: plans.append(plan(*given)) or plans[-1])

    def fit():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert stack_fitter.fit_members(members, X, y) == [None] * 20

    fit()
    gc.collect()
    with counters.count() as c:
        start = c.current_bytes
        fit()
        measured = c.peak_bytes - start
    assert sum(calls[-1]) == pytest.approx(measured, rel=0.1)
    assert {plan is None for plan in plans} == {case == "wide"}
    assert len({plan and plan.steps for plan in plans}) == 1  # the same batches are foreseen


def on_cpu(given):
    training, validation, given = cases(**given)
    run(make("cpu", **given), training, validation)
    gc.collect()
    tracemalloc.start()
    try:
        trainer = make("cpu", **given)
        run(trainer, training, validation)
        measured = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert foreseen(trainer, training, validation) == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("models", [32, 200])
@pytest.mark.parametrize("case", CASES)
def test_on_the_cpu(case, models):
    """In blocks of networks, but for the largest products."""
    on_cpu(CASES[case] | {"models": models})


@pytest.mark.parametrize("held", [0, 300])
@pytest.mark.parametrize("threads", [1, 3])
def test_one_network_on_the_cpu(monkeypatch, threads, held):
    """Beside a smaller one, Python's own objects count.  Each thread has a gradient of its own."""
    monkeypatch.setattr(pool, "_cores", lambda: threads)
    on_cpu({"models": 1, "sizes": (100, 400, 300, 4), "batch": 50, "held": held})


@pytest.mark.parametrize("size, text", [
    (0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (1536, "1.5 KiB"),
    (1024**2 - 60, "1023.9 KiB"), (1024**2, "1.0 MiB"), (2.5 * 1024**3, "2.5 GiB"),
    (2.5 * 1024**4, "2.5 TiB"), (3000 * 1024**4, "3000.0 TiB"),
    (99_999 * 1024**4, "99999.0 TiB"), (10**5 * 1024**4, "1.0e+5 TiB"), (10**30, "9.1e+17 TiB"),
    (9.97e40, "9.1e+28 TiB"), (9.97 * 2**90, "1.1e+16 TiB"), (10**900, "9.1e+887 TiB"),
])  # fmt: skip
def test_sizes_in_words(size, text):
    assert memory.text(size) == text


def seen(*_):
    pytest.fail("the values were looked at")


def endless(rows):
    """Rows that take no memory."""
    return np.broadcast_to(np.float32(0), (rows, 4)), np.broadcast_to(0, (rows,))


@pytest.mark.parametrize(
    "call",
    [
        lambda net, x, y: net.forward(x),
        lambda net, x, y: net.loss_and_grad(x, y),
        lambda net, x, y: gpumlp.Trainer(net).step(x, y),
        lambda net, x, y: gpumlp.Trainer(net).fit(x, y, 1),
        lambda net, x, y: gpumlp.Trainer(net).fit(x[:2], y[:2], 1, validation=(x, y)),
    ],
    ids=["forward", "loss_and_grad", "step", "fit", "validation"],
)
def test_memory_is_foreseen_before_values_are_looked_at(call, monkeypatch):
    """The values of so many rows take minutes."""
    net = gpumlp.MLP((4, 8, 3), device="cpu")
    x, y = endless(2**31 - 1)
    monkeypatch.setattr(TOTAL_MEMORY, lambda ops: 2**30)
    checked = arrays.check_finite
    monkeypatch.setattr(
        "gpumlp.model.arrays.check_finite",
        lambda features, *rest: (checked if features.array.size < 99 else seen)(features, *rest),
    )
    said = r"out of memory on cpu: about [\d.]+ GiB are needed; .* \(there are 1.0 GiB on cpu\)"
    with pytest.raises(MemoryError, match=said):
        call(net, x, y)


def test_rows_that_lie_there_take_no_more_memory(monkeypatch):
    """As of a file that is mapped into memory, which may be larger than that."""
    net = gpumlp.MLP((4, 8, 3), device="cpu")
    monkeypatch.setattr(TOTAL_MEMORY, lambda ops: 10_000)
    monkeypatch.setattr(memory, "EVERYWHERE", 100)
    x, y = np.ones((2000, 4), np.float32), np.zeros(2000, int)
    for there in (x, x.astype(np.float64), x.astype(np.uint8)):
        gpumlp.Trainer(net).fit(there, y, 1, progress=False)
    for copied in (x[:, ::-1], x.astype(np.float16), x.astype(">f4")):
        with pytest.raises(MemoryError, match=r"there are 9\.8 KiB on cpu"):
            gpumlp.Trainer(net).fit(copied, y, 1, progress=False)


@pytest.mark.parametrize("name", ["x", "validation x"])
def test_rows_that_an_order_cannot_number(name):
    trainer, (x, y) = gpumlp.Trainer(gpumlp.MLP((4, 8, 3), device="cpu")), endless(2**31)
    training = (x, y) if name == "x" else (x[:2], y[:2])
    with pytest.raises(ValueError, match=f"^{name} has 2147483648 rows; .* at most 2147483647$"):
        trainer.fit(*training, 1, validation=(x, y), progress=False)
    with pytest.raises(ValueError, match=r"^x has 2147483648 rows; .* at most 2147483647$"):
        trainer.step(x, y)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda est, x, y: est.predict(x), "X"),
        (lambda est, x, y: est.predict_proba(x), "X"),
        (lambda est, x, y: est.transform(x), "X"),
        (lambda est, x, y: est.score(x, y), "X"),
        (lambda est, x, y: est.fit(x, y), "X"),
        (lambda est, x, y: est.fit(x[:6], np.arange(6) % 3, X_val=x, y_val=y), "X_val"),
    ],
    ids=["predict", "predict_proba", "transform", "score", "fit", "X_val"],
)
@pytest.mark.parametrize("members", [None, 2])
def test_an_estimator_foresees_memory_before_values_are_looked_at(call, name, members, monkeypatch):
    X, labels = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 3
    est = gpumlp.MLPClassifier((8,), device="cpu", max_iter=1, n_models=members, random_state=0)
    with warnings.catch_warnings(action="ignore"):
        est.fit(X.astype(np.float32), labels)
        monkeypatch.setattr(
            base, "validate_data", lambda est, X, **kw: X if len(X) < 99 else seen()
        )
        monkeypatch.setattr(TOTAL_MEMORY, lambda ops: 2**30)
        said = (
            rf"out of memory: {name} has 8589934592 rows, for which about [\d.]+ .iB are needed, "
        )
        with pytest.raises(
            MemoryError, match=f"{said}and there are 1.0 GiB on cpu; give fewer rows"
        ):
            call(est, *endless(2**33))


def test_rows_of_a_gpu_are_seen_before_its_memory_is_full(cuda, monkeypatch):
    """What lies on the host stays there, and comes in pieces."""
    import cupy

    net = gpumlp.MLP((4, 8, 3), device="cuda")
    monkeypatch.setattr("gpumlp.backend.cuda.cupy_ops.CupyOps.total_memory", lambda ops: 10_000)
    monkeypatch.setattr(memory, "EVERYWHERE", 100)
    x, y = np.ones((2000, 4), np.float32)[:, ::-1], np.zeros(2000, int)
    gpumlp.Trainer(net).fit(x, y, 1, progress=False)
    with pytest.raises(MemoryError, match=r"there are 9\.8 KiB on cuda:0"):
        gpumlp.Trainer(net).fit(cupy.asarray(x)[:, ::-1], y, 1, progress=False)
    assert net.forward(x).shape == (2000, 3)
    with pytest.raises(MemoryError, match=r"there are 9\.8 KiB on cuda:0"):
        net.forward(cupy.asarray(x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_counters_of_many_small_networks(dtype):
    """All that a training keeps of a network beside its parameters, to the byte."""
    net = gpumlp.MLP((2, 3, 4, 2), models=50, dropout=0.5, dtype=dtype, device="cpu")
    state = gpumlp.Trainer(net).state
    device, network = state.device, net.network
    kept = [device.t, device.cursor, device.stopped_at, state.seeds, network._nothing_done]
    kept += [state.hyper, device.scalars, device.norm, device.losses, device.weights]
    rows = 4 * (net.K + 1) * net.M  # of thresholds: each layer's, and the table of all
    assert network.dropout_table.nbytes == rows
    counted = memory._counters(net.shape, 1)
    assert counted == sum(array.nbytes for array in kept) + 2 * rows
