"""Training on the GPU: the trajectories of the CPU, and no work but the kernels' in a step.

Without a GPU both are proved on the stand-in for CuPy, whose counters say what a step consists of.
"""

import itertools

import numpy as np
import pytest

import gpumlp
from gpumlp.backend import device as gpus
from gpumlp.backend.cuda import cupy_ops
from tests.helpers.comparison import to_numpy
from tests.helpers.training import fit, theta
from tests.operations.persistent_kernel import launches_of

# --- the same trajectories on both devices --------------------------------------------------------

SCHEDULE = gpumlp.schedules["cosine"](warmup=1, floor=0.1)

# network arguments, loss, trainer arguments; a target is one of labels, values, bits and counts
TRAJECTORIES = {
    "one layer": (
        {"sizes": (5, 3)},
        "cross_entropy",
        {"optimizer": gpumlp.SGD(0.1)},
    ),
    "dropout, momentum": (
        {"sizes": (5, 9, 3), "hidden": "tanh", "dropout": 0.4},
        "cross_entropy",
        {"optimizer": gpumlp.SGD(0.1, momentum=0.9, nesterov=True, l2=1e-2)},
    ),
    "rrelu, Adam, schedule": (
        {"sizes": (5, 8, 7, 3), "hidden": "rrelu", "output": "log_softmax"},
        "cross_entropy",
        {"optimizer": gpumlp.Adam(1e-2, l1=1e-3), "schedule": SCHEDULE},
    ),
    "rrelu with dropout, clipped": (
        {"sizes": (5, 33, 3), "hidden": "rrelu", "dropout": 0.2},
        "focal",
        {"optimizer": gpumlp.SGD(0.3), "clip_norm": 0.3},
    ),
    "prelu, RMSprop": (
        {"sizes": (5, 6, 6, 2), "hidden": ["prelu", "softplus"], "output": "identity"},
        "huber",
        {"optimizer": gpumlp.RMSprop(1e-2, momentum=0.5, centered=True)},
    ),
    "sigmoid output, sums": (
        {"sizes": (5, 4, 3), "hidden": "mish", "output": "sigmoid"},
        "binary_cross_entropy",
        {"optimizer": gpumlp.AdamW(1e-2), "reduction": "sum"},
    ),
    "exp output, whole batches": (
        {"sizes": (5, 4, 2), "hidden": "selu", "output": "exp"},
        "poisson",
        {"optimizer": gpumlp.Adam(1e-2), "batch_size": 1000, "shuffle": False},
    ),
    "stack, numbers of its own": (
        {"sizes": (5, 8, 3), "hidden": "gelu_tanh", "models": 3, "dropout": [[0.0, 0.3, 0.6]]},
        "cross_entropy",
        {
            "optimizer": gpumlp.AdamW([1e-2, 3e-2, 1e-3], weight_decay=[0.0, 0.1, 0.5]),
            "clip_norm": [0.1, 1e9, 1.0],
            "schedule": gpumlp.schedules["plateau"](patience=1, decay=0.5, delta=0.05),
        },
    ),
}


def data(loss, network):
    """Four batches of eight rows, five updates of them; float32 features, weights of the rows."""
    rng = np.random.default_rng(8)
    rows, outputs = 30, network["sizes"][-1]
    y = {
        "cross_entropy": rng.integers(0, outputs, rows),
        "focal": rng.integers(0, outputs, rows),
        "huber": rng.normal(size=(rows, outputs)) * 2,
        "binary_cross_entropy": rng.integers(0, 2, (rows, outputs)),
        "poisson": rng.poisson(2.0, (rows, outputs)),
    }[loss]
    x = rng.normal(size=(rows, network["sizes"][0])).astype("float32")
    return {"x": x, "y": y, "sample_weight": rng.uniform(0, 2, rows)}


@pytest.mark.parametrize("case", TRAJECTORIES)
def test_trajectories_are_those_of_the_cpu(cuda, case):
    """20 updates in float64, with validation: losses, rates and all parameters to 1e-10."""
    network, loss, options = TRAJECTORIES[case]
    given = data(loss, network)
    options = {"batch_size": 8} | options
    epochs = 5 if options["batch_size"] == 8 else 20
    found = []
    for device in ("cpu", cuda):
        net = gpumlp.MLP(**network, dtype="float64", device=device, seed=3)
        trainer = gpumlp.Trainer(net, loss, seed=5, **options)
        history = fit(trainer, **given, epochs=epochs, validation=(given["x"], given["y"]))
        assert np.all(trainer.steps == 20)
        found.append((theta(trainer), history))
    (here, expected), (there, history) = found
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-10)
    assert (
        np.abs(here - to_numpy(gpumlp.MLP(**network, dtype="float64", seed=3).theta)).max() > 0.01
    )
    for name in ("loss", "val_loss", "val_accuracy", "lr"):
        np.testing.assert_allclose(getattr(history, name), getattr(expected, name), rtol=1e-10)


def test_float32_stays_close_to_the_cpu(cuda):
    network, loss, options = TRAJECTORIES["dropout, momentum"]
    given, thetas = data(loss, network), []
    for device in ("cpu", cuda):
        trainer = gpumlp.Trainer(gpumlp.MLP(**network, device=device), loss, **options)
        fit(trainer, **given, epochs=5)
        thetas.append(theta(trainer))
    np.testing.assert_allclose(*thetas, atol=1e-5)


def test_a_network_that_moves_to_the_other_device_goes_on(cuda, tmp_path):
    network, loss, options = TRAJECTORIES["dropout, momentum"]
    given, thetas = data(loss, network), []
    for devices in (("cpu", "cpu"), ("cpu", cuda), (cuda, "cpu")):
        net = gpumlp.MLP(**network, dtype="float64", device=devices[0])
        trainer = gpumlp.Trainer(net, loss, batch_size=8, **options)
        fit(trainer, **given, epochs=2)
        gpumlp.save(trainer, tmp_path / "trainer")
        trainer = gpumlp.load(tmp_path / "trainer", device=devices[1])
        fit(trainer, **given, epochs=3)
        thetas.append(theta(trainer))
    np.testing.assert_allclose(thetas[1], thetas[0], atol=1e-10)
    np.testing.assert_allclose(thetas[2], thetas[0], atol=1e-10)


# --- what a step consists of ----------------------------------------------------------------------

WIDTHS = (3, 5, 4, 6, 4)
B = 4


def work_of_a_step(counters, trainer, x, y, **options):
    """What one more step adds: the difference between an epoch of 8 batches and one of 3."""
    counted = []
    for batches in (3, 3, 8):  # the first builds kernels and makes buffers
        with counters.count() as c:
            fit(trainer, x[: B * batches], y[: B * batches], **options)
        counted.append(c)
    _, few, many = counted
    names = "launches gemms graphs elementwise h2d d2h d2d synchronisations allocations".split()
    extra = {name: getattr(many, name) - getattr(few, name) for name in names}
    assert all(amount % 5 == 0 for amount in extra.values()), extra
    return {name: amount // 5 for name, amount in extra.items()}


def small_data(rows):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 3)), rng.integers(0, 3, rows)


NOISE = {"no noise": {}, "dropout": {"dropout": 0.5}}
TRAINING = {
    "plain": {},
    "clipped": {"clip_norm": 0.1},
    "schedule": {"schedule": gpumlp.schedules["cosine"](total=20, warmup=1)},
    "all": {
        "clip_norm": 0.1,
        "schedule": gpumlp.schedules["one_cycle"](unit="step", total=1000),
        "optimizer": gpumlp.AdamW(1e-2, l1=1e-3, l2=1e-3),
    },
}

WORK = [
    *itertools.product(range(1, 6), NOISE, ("plain", "all")),
    *((2, "no noise", training) for training in ("clipped", "schedule")),
]


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("K, noise, training", WORK)
def test_work_of_a_step_of_fit(counters, K, noise, training, models):
    """One graph: nothing between host and device, nothing awaited, nothing allocated; 3K - 1 GEMMs
    and 2K + 3 launches: gather, K - 1 activations, loss, K of backprop, advance, update."""
    net = gpumlp.MLP(
        (*WIDTHS[:K], 3), "tanh", models=models, device="cuda", **NOISE[noise] if K > 1 else {}
    )
    trainer = gpumlp.Trainer(net, batch_size=B, **TRAINING[training])
    trainer.resident = False  # networks so deep and narrow would train in shared memory
    step = work_of_a_step(counters, trainer, *small_data(8 * B))
    assert step.pop("graphs") == 1
    assert step.pop("gemms") == 3 * K - 1
    assert step.pop("launches") == 2 * K + 3
    assert not any(step.values()), step


def test_a_scale_is_one_launch_in_each_direction(counters):
    net = gpumlp.MLP((*WIDTHS[:3], 3), "tanh", device="cuda", scale=[True, False, True])
    trainer = gpumlp.Trainer(net, batch_size=B)
    step = work_of_a_step(counters, trainer, *small_data(8 * B))
    assert (step["gemms"], step["launches"]) == (3 * 3 - 1, 2 * 3 + 3 + 2 * 2)


@pytest.mark.parametrize("models", [None, 3])
def test_work_of_a_step_with_weights_validation_and_early_stopping(counters, models):
    x, y = small_data(8 * B)
    net = gpumlp.MLP((3, 5, 3), "prelu", models=models, device="cuda")
    step = work_of_a_step(
        counters,
        gpumlp.Trainer(net, batch_size=B),
        x,
        y,
        validation=(x[:5], y[:5]),
        callbacks=[gpumlp.EarlyStopping(5, restore_best=False)],
    )
    assert step.pop("graphs") == 1
    assert step.pop("gemms") == 5
    assert step.pop("launches") == 7
    assert not any(step.values()), step


def test_work_of_a_validation(counters):
    """From the second one on a graph, whose sums are read once."""
    x, y = small_data(20)
    net = gpumlp.MLP((3, 5, 3), "gelu", device="cuda", dropout=0.5)
    trainer = gpumlp.Trainer(net, batch_size=20)
    counted = []
    for epochs in (2, 2, 3):
        for validation in (None, (x, y)):
            with counters.count() as c:
                fit(trainer, x, y, epochs, validation=validation)
            counted.append(c)
    _, _, without2, with2, without3, with3 = counted

    def of_validation(name):
        return (getattr(with3, name) - getattr(without3, name)) - (
            getattr(with2, name) - getattr(without2, name)
        )

    assert of_validation("graphs") == 1
    # gather, activation, loss, softmax, tally
    assert (of_validation("launches"), of_validation("gemms")) == (5, 2)
    assert (of_validation("d2h"), of_validation("h2d"), of_validation("d2d")) == (1, 0, 0)
    assert of_validation("allocations") == 0


@pytest.mark.parametrize(
    "models, resident, most", [(None, False, 16), (3, False, 16), (16, True, 2)]
)
def test_the_host_never_runs_far_ahead(counters, monkeypatch, models, resident, most):
    """Work that is submitted cannot be called back: at most so many steps, or launches of many, are
    submitted and not known to be done.  While the host waits, the device has half of them to do."""
    import cupy

    from tests.standin import ordering

    ends, ahead, after_waits = [], [], []  # of steps, in operations of the stream
    net = gpumlp.MLP((3, 4, 3), models=models, device="cuda")
    trainer = gpumlp.Trainer(net, batch_size=1)
    trainer.resident = resident
    if resident:
        launches_of(monkeypatch, 1)
    pace = net.ops.pace

    def observed(long=False):
        stream = cupy.cuda.get_current_stream()
        ends.append(stream._submitted)

        def unknown():
            return sum(end > ordering.awaited.get(stream.ptr, 0) for end in ends)

        ahead.append(unknown())
        pace(long)
        if unknown() < ahead[-1]:
            after_waits.append(unknown())

    monkeypatch.setattr(net.ops, "pace", observed)
    with counters.count() as c:
        trainer.fit(*small_data(100), epochs=1, progress=False)
    assert len(ends) == 100 and max(ahead) == most
    assert len(after_waits) == c.waits == 200 // most - 1 and set(after_waits) == {most // 2}


@pytest.mark.parametrize("on_host", [True, False])
def test_work_of_a_prediction(counters, on_host):
    """One graph for each number of rows, behind the product that reads the rows."""
    import cupy

    net = gpumlp.MLP((3, 5, 4, 2), device="cuda")
    x = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
    given = x if on_host else cupy.asarray(x)
    for rows in (12, 7, 12, 7):
        net.forward(given[:rows])
    for rows in (7, 12, 12):
        with counters.count() as c:
            net.forward(given[:rows])
        assert (c.graphs, c.gemms, c.launches) == (1, 3, 3)
        # On the device they are looked at for NaN there, and the host reads the answers.
        assert (c.h2d, c.d2h) == ((1, 1) if on_host else (0, 2))


def test_work_of_an_epoch_does_not_grow_with_its_rows(counters):
    """At the end of an epoch, what is read from the device is small: losses, not data."""
    x, y = small_data(400)
    trainer = gpumlp.Trainer(gpumlp.MLP((3, 5, 3), device="cuda"), batch_size=40)
    fit(trainer, x, y)
    counts = []
    for epochs in (1, 2, 3):
        with counters.count() as c:
            fit(trainer, x, y, epochs)
        counts.append(c)
    # The features go to the device once a fit, not once an epoch.
    assert counts[2].h2d == counts[1].h2d == counts[0].h2d
    # The losses, their weights, the learning rate, who has diverged.
    assert counts[2].d2h - counts[1].d2h == counts[1].d2h - counts[0].d2h == 1


def test_a_step_of_ones_own_batches(counters):
    """`Trainer.step` on arrays that are on the device: the same, but for the loss it returns."""
    import cupy

    net = gpumlp.MLP((3, 5, 3), device="cuda", dropout=0.5)
    trainer = gpumlp.Trainer(net, schedule=gpumlp.schedules["exponential"](unit="step"))
    x = cupy.asarray(np.random.default_rng(0).normal(size=(6, 3)).astype("float32"))
    y = cupy.asarray((np.arange(6) % 3).astype("int32"))
    for _ in range(2):
        trainer.step(x, y)
    with counters.count() as c:
        for _ in range(20):
            trainer.step(x, y)
    assert (c.h2d, c.d2h, c.synchronisations) == (0, 0, 0)
    assert c.graphs == 20
    assert c.gemms == 20 * 5
    assert c.launches == 20 * 7


def test_memory_does_not_grow_from_fit_to_fit(counters):
    x, y = small_data(40)
    trainer = gpumlp.Trainer(gpumlp.MLP((3, 5, 3), device="cuda"), batch_size=8)
    in_use = []
    for _ in range(4):
        fit(trainer, x, y, validation=(x, y))
        trainer.net.forward(x)
        in_use.append(counters.machine.used[0])
    assert in_use[1:] == in_use[1:2] * 3


# --- what a first fit compiles --------------------------------------------------------------------

FIRST_FITS = {
    # gather, relu, identity, loss, prepare_update, update, shuffle; arange, fill
    "a network": ({}, {}, False, 9),
    # softmax, accumulate_metrics
    "with validation": ({}, {}, True, 11),
    "a stack": ({"models": 3}, {}, True, 11),
    "with a schedule": ({"models": 16}, {"schedule": "cosine"}, True, 11),
}


@pytest.mark.parametrize("case", FIRST_FITS)
def test_programs_of_a_first_fit(counters, case):
    """Each is a compilation where the cache is cold: ours, and CuPy's own two, of `arange` and
    `fill`."""
    network, options, validated, most = FIRST_FITS[case]
    x, y = small_data(64)
    cupy_ops._kernel.cache_clear()
    gpus._answered.clear()
    with counters.count() as c:
        net = gpumlp.MLP((3, 8, 3), device="cuda", **network)
        trainer = gpumlp.Trainer(net, batch_size=16, **options)
        trainer.resident = False
        trainer.fit(x, y, epochs=3, validation=(x, y) if validated else None, progress=False)
    own = {program for program in c.programs if program[0] != "RawModule"}
    assert {program[:2] for program in own} == {("arange", "int32"), ("fill", "int64 contiguous")}
    assert len(c.programs) == most


def test_programs_of_an_estimators_first_fit(counters):
    """In a stack with validation: also CuPy's copy of the best weights, where they are better."""
    x, y = small_data(64)
    cupy_ops._kernel.cache_clear()
    model = gpumlp.MLPClassifier((8,), device="cuda", max_iter=3, early_stopping=True, n_models=3)
    with counters.count() as c, pytest.warns(Warning, match="not converged"):
        model.fit(x, y)
    own = {program[0] for program in c.programs if program[0] != "RawModule"}
    assert own <= {"arange", "fill", "copy"} and len(c.programs) <= 11
