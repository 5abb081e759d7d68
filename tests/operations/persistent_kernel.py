"""train_persistent: many updates in one launch, against NumPy's operations one after another.

A check takes `ops` of the GPU side, as all do, and compares whole fits: parameters, the optimiser's
state, losses, counters.
"""

import numpy as np

import gpumlp
from gpumlp.backend.reference.numpy_ops import NumpyOps
from gpumlp.backend.sources import SCALARS
from gpumlp.functions.activation import Activation
from gpumlp.functions.loss import Form, Loss
from gpumlp.training import persistent
from gpumlp.training.placement import make_rows

TOLERANCE = {"float32": 2e-5, "float64": 1e-10}

COSINE = gpumlp.schedules["cosine"](total=30.0, floor=0.1)
CUBE = Activation(
    "cube",
    f=lambda z, p: p[0] * z**3,
    df=lambda z, n, p: 3 * p[0] * z**2,
    df_from="z",
    cuda=("p[0] * z * z * z", "3 * p[0] * z * z"),
    parameters={"factor": 0.3},
)
PINBALL = Loss(
    "pinball",
    Form(
        lambda u, y, p: np.maximum(0.9 * (y - u), 0.1 * (u - y)),
        lambda u, y, p: np.where(y > u, -0.9, 0.1),
        ("fmax(Real(.9) * (y - u), Real(.1) * (u - y))", "y > u ? Real(-.9) : Real(.1)"),
    ),
)

# What a fit is made of: network, loss, trainer; targets are labels, values, bits or counts.  Where
# nothing else is said: 3 networks, 100 rows in batches of 70, which are two tiles, and 30.
CASES = {
    "relu, one network": (
        {"sizes": (5, 7, 6, 3), "hidden": "relu", "models": None},
        ("cross_entropy", "labels"),
        {"optimizer": gpumlp.SGD(0.1)},
    ),
    "tanh, bits": (
        {"sizes": (5, 7, 6, 3), "hidden": "tanh", "output": "sigmoid"},
        ("binary_cross_entropy", "bits"),
        {"optimizer": gpumlp.SGD([0.3, 0.1, 0.2], momentum=0.9, nesterov=True, l2=1e-2)},
    ),
    "gelu, values": (
        {"sizes": (8, 16, 8, 4), "hidden": "gelu", "output": "identity"},
        ("squared_error", "values"),
        {"optimizer": gpumlp.RMSprop(1e-2, momentum=0.5, centered=True), "clip_norm": 0.5},
    ),
    "prelu and rrelu with dropout": (
        {"sizes": (5, 7, 6, 3), "hidden": ["prelu", "rrelu"], "dropout": [[0.0, 0.2, 0.5], 0.3]},
        ("cross_entropy", "labels"),
        {
            "optimizer": gpumlp.Adam([1e-2, 3e-2, 1e-3], l1=1e-3, l2=[0.0, 0.1, 0.5]),
            "schedule": COSINE,
            "clip_norm": [0.05, 1e9, 0.3],
            "penalty_in_loss": True,
        },
    ),
    "packs, drawn slopes and dropout": (
        {"sizes": (8, 12, 16, 4), "hidden": ["rrelu", "elu"], "dropout": 0.4},
        ("focal", "labels"),
        {"optimizer": gpumlp.AdamW(1e-2, weight_decay=[0.0, 0.1, 1.0])},
    ),
    "f' of the output": (
        {"sizes": (5, 7, 2), "hidden": "softplus", "output": "tanh"},
        ("squared_error", "values"),
        {"optimizer": gpumlp.RMSprop(1e-2), "reduction": "sum"},
    ),
    "learned slope at the output": (
        {"sizes": (6, 9, 2), "hidden": "prelu", "output": "prelu"},
        ("huber", "values"),
        {"optimizer": gpumlp.RMSprop(1e-2, momentum=0.3)},
    ),
    "drawn slope at the output": (
        {"sizes": (6, 9, 3), "hidden": "silu", "output": "rrelu"},
        ("absolute_error", "values"),
        {"optimizer": gpumlp.RMSprop(1e-2, centered=True)},
    ),
    "counts": (
        {"sizes": (5, 6, 1), "hidden": "mish", "output": "exp"},
        ("poisson", "counts"),
        {"optimizer": gpumlp.SGD(1e-2, momentum=0.5)},
    ),
    "one layer": (
        {"sizes": (5, 3), "output": "log_softmax"},
        ("kl_divergence", "labels"),
        {"optimizer": gpumlp.SGD(0.1), "batch_size": 1},
    ),
    "functions of one's own": (
        {"sizes": (5, 7, 2), "hidden": CUBE, "output": CUBE},
        (PINBALL, "values"),
        {"optimizer": gpumlp.Adam(1e-2), "schedule": lambda t: 1 / (1.0 + t)},
    ),
    "digits": (
        {"sizes": (64, 64, 10), "hidden": "relu", "dropout": 0.2},
        ("cross_entropy", "labels"),
        {"optimizer": gpumlp.Adam(1e-2)},
    ),
    "rests of every product": (
        {"sizes": (45, 37, 30, 3), "hidden": ["prelu", "elu"]},
        ("cross_entropy", "labels"),
        {"optimizer": gpumlp.SGD(0.03, momentum=0.5)},
    ),
    "many outputs": (
        {"sizes": (3, 5, 70), "hidden": "tanh"},
        ("cross_entropy", "labels"),
        {"optimizer": gpumlp.Adam(1e-2), "batch_size": 9},
    ),
}


def data(case, rows=100, own=False, weighted=True):
    """Rows for it; own: other data for each network."""
    network, (_, kind), _ = CASES[case]
    inputs, outputs = network["sizes"][0], network["sizes"][-1]
    rng = np.random.default_rng(8)
    shape = (3, rows) if own else (rows,)
    y = {
        "labels": lambda: rng.integers(0, outputs, shape),
        "values": lambda: 2 * rng.normal(size=(*shape, outputs)),
        "bits": lambda: rng.integers(0, 2, (*shape, outputs)),
        "counts": lambda: rng.poisson(2.0, (*shape, outputs)),
    }[kind]()
    x = rng.normal(size=(*shape, inputs)).astype(np.float32)
    return x, y, rng.uniform(0.0, 2.0, shape) if weighted else None


def make(case, dtype, device, resident, ops=None, **options):
    """A trainer; ops: the operations of its network, if not its own."""
    network, (loss, _), trainer = CASES[case]
    network = {"models": 3} | network
    options = {"batch_size": 70} | trainer | options
    net = gpumlp.MLP(**network, dtype=dtype, device=device, seed=3)
    if ops is not None:
        net.network = net.network.by(ops)
    made = gpumlp.Trainer(net, loss, seed=5, **options)
    made.resident = resident
    return made


def run(trainer, given, epochs=3, orders=None):
    """Losses and weights of each batch of some epochs."""
    x, y, weight = given
    net = trainer.net
    with net.ops.on_device():
        rows = make_rows(net, trainer.objective, x, y, weight, trainer.batch_size)
        trainer.rates.plan(rows.steps, epochs * rows.steps)
        done = [
            trainer.run_epoch(rows, None if orders is None else orders[i]) for i in range(epochs)
        ]
    return [np.concatenate([getattr(e, name) for e in done]) for name in ("losses", "weights")]


def launches_of(monkeypatch, steps):
    """Whatever the batches cost, a launch takes so many."""
    plan = persistent.plan
    monkeypatch.setattr(persistent, "plan", lambda *given: plan(*given)._replace(steps=steps))


def state(trainer):
    """name -> all that an update changes, on the host."""
    now = trainer.state.device

    def host(array):
        return trainer.net.ops.to_host(array).copy()

    found = {"theta": host(trainer.net.parameters.buffer)}
    found |= {name: host(slot) for name, slot in trainer.state.buffers.items() if slot is not None}
    names = ("t", "stopped_at", "cursor", "norm", "scalars")
    return found | {name: host(getattr(now, name)) for name in names}


def assert_same_course(found, expected, dtype):
    """Two of (losses, weights, state); networks that stood still may have noted other losses."""
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    (losses, weights, now), (losses_, weights_, now_) = found, expected
    np.testing.assert_allclose(weights, weights_, **tolerance, err_msg="weights")
    counted = weights_ > 0
    np.testing.assert_allclose(losses[counted], losses_[counted], **tolerance, err_msg="losses")
    moved = now_["scalars"][:, SCALARS.index("GO")] > 0
    assert moved.any()
    for name in ("GO", "RATE"):
        column = SCALARS.index(name)
        np.testing.assert_allclose(
            now["scalars"][:, column], now_["scalars"][:, column], **tolerance, err_msg=name
        )
    for name, values in now_.items():
        part = moved if name in ("norm", "scalars") else slice(None)
        np.testing.assert_allclose(now[name][part], values[part], **tolerance, err_msg=name)


def check(
    ops, dtype, case, epochs=3, own=False, weighted=True, padded=False, stopped=False, **options
):
    """Epochs by the kernel are those of NumPy's operations.

    padded: orders with a row of padding here and there, for one network a whole batch of it.
    stopped: one network stands still from the beginning.
    """
    given = data(case, own=own, weighted=weighted)
    orders = padding(given[0].shape[-2], epochs) if padded else None
    courses = []
    for device, way, its in (("cuda", True, ops), ("cpu", None, NumpyOps())):
        trainer = make(case, dtype, device, way, its, **options)
        before = state(trainer)["theta"]
        if stopped:
            trainer.stop([False, True, False])
        courses.append((*run(trainer, given, epochs, orders), state(trainer)))
    assert_same_course(*courses, dtype)
    assert np.abs(courses[0][2]["theta"] - before).max() > 1e-4, "nothing moved"


def padding(rows, epochs):
    """An order of each epoch, (3, rows)."""
    orders = []
    for seed in range(epochs):
        rng = np.random.default_rng(seed)
        order = np.stack([rng.permutation(rows) for _ in range(3)]).astype(np.int32)
        order[1, ::7] = -1
        order[2, 70:] = -1
        orders.append(order)
    return orders
