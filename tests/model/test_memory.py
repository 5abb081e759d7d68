"""What a fit of a stack takes is worked out beforehand, within a tenth of what is measured."""

import gc
import tracemalloc
import warnings

import numpy as np
import pytest

import gpumlp
from gpumlp.backend.cpu import pool
from gpumlp.estimators import stack_fitter
from gpumlp.estimators.member_task import Member
from gpumlp.model import memory
from gpumlp.training import executors, persistent, rows

R, HELD = 330, 170

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
}


def data(held, dtype, features):
    rng = np.random.default_rng(0)
    for count in (R, held):
        yield rng.normal(size=(count, features)).astype(dtype), rng.integers(0, 4, count)


def make(
    device, *, sizes=(64, 64, 4), models=32, batch=100, dtype="float32", hidden="relu",
    optimizer=None, shuffle=True, resident=None, **_,
):  # fmt: skip
    net = gpumlp.MLP(sizes, hidden, models=models, dtype=dtype, device=device)
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
            held=len(validation[0]) if validation else 0,
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
])  # fmt: skip
def test_sizes_in_words(size, text):
    assert memory.text(size) == text
