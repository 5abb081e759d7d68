"""The operations compiled for the CPU: held against NumPy's, captured, threaded, and left to NumPy.

Every operation by itself is held against formulas in test_operations.py.
"""

import copy
import ctypes
import dataclasses
import functools
import pickle
import platform
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import gpumlp
from gpumlp import backend
from gpumlp.backend.contract import Data, Noise, Occurring, Targets
from gpumlp.backend.cpu import blas, compiler, host_ops, host_sources, pool, sequence
from gpumlp.backend.cpu.host_ops import HostOps
from gpumlp.backend.reference.numpy_ops import NumpyOps
from gpumlp.backend.sources import SOURCE
from gpumlp.functions.activation import Activation, activations
from gpumlp.functions.loss import losses, pair
from gpumlp.functions.optimizer import examples
from gpumlp.model import blas_threads
from gpumlp.model.shape import NetworkShape
from tests.operations import layers, minibatches, random, sparse, updates
from tests.operations import losses as loss_checks

pytestmark = pytest.mark.skipif(
    compiler.problem() is not None,
    reason=f"nothing can be compiled for the CPU: {compiler.problem()}",
)

DTYPES = ("float32", "float64")
SHAPE = NetworkShape(
    (600, 700, 2), (None, *2 * [activations["relu"]]), 1, np.dtype("float32"), "cpu", "float32", ()
)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture
def numpy_alone(monkeypatch):
    """Operations that HostOps leaves to NumPy fail."""

    by_numpy = HostOps._by_numpy

    def refuse(self, operation, *args, **options):
        if operation is NumpyOps.gemm and blas.find() is None:
            return by_numpy(self, operation, *args, **options)
        raise AssertionError(f"{operation.__name__} was left to NumPy")

    monkeypatch.setattr(HostOps, "_by_numpy", refuse)


# ------------------------------------------------------------------ which operations there are


def test_the_cpu_has_them():
    assert type(backend.get("cpu")) is HostOps
    assert type(gpumlp.MLP((3, 4, 2)).ops) is HostOps


def test_they_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("GPUMLP_HOST", "0")
    assert type(backend.get("cpu")) is NumpyOps


KINDS = ("classes", "two classes", "several outputs", "poisson")


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_an_estimators_fit_is_compiled(numpy_alone, kind):
    fit(kind)


def fit(kind):
    """An estimator's, with the losses as scikit-learn reports them."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 3))
    y = np.arange(20) % (2 if kind == "two classes" else 3)
    common = {"hidden_layer_sizes": (4,), "max_iter": 2, "tol": 0.0, "device": "cpu"}
    with pytest.warns(ConvergenceWarning):
        if "classes" in kind:
            gpumlp.MLPClassifier(**common).fit(X, y)
        elif kind == "poisson":
            gpumlp.MLPRegressor(loss="poisson", **common).fit(X, y)
        else:
            gpumlp.MLPRegressor(**common).fit(X, rng.standard_normal((20, 2)))


def train(ops, case, models=None, steps=20, dtype="float64", rows=37, monkeypatch=None):
    """theta after some steps on batches of 16 rows, the last of them with 5; and the losses."""
    sizes, arguments, loss, optimizer, weighted = case
    monkeypatch.setattr(backend, "get", lambda *_: ops)
    net = gpumlp.MLP(sizes, models=models, dtype=dtype, seed=3, **arguments)
    assert net.ops is ops
    rng = np.random.default_rng(5)
    x = rng.standard_normal((rows, sizes[0]))
    y = rng.integers(0, sizes[-1], rows)
    if loss != "cross_entropy":
        y = rng.standard_normal((rows, sizes[-1]))
    weight = rng.uniform(0, 2, rows) * (np.arange(rows) % 4 > 0) if weighted else None
    trainer = gpumlp.Trainer(net, loss=loss, optimizer=optimizer, batch_size=16, seed=4)
    history = trainer.fit(x, y, epochs=-(-steps // 3), sample_weight=weight, progress=False)
    return net.theta.copy(), np.array(history.loss)


CASES = {
    "tanh, Adam": (
        (7, 13, 10, 4),
        {"hidden": "tanh", "output": "softmax"},
        "cross_entropy",
        gpumlp.Adam(0.01),
        True,
    ),
    "prelu and gelu, momentum": (
        (7, 13, 11, 3),
        {"hidden": ["prelu", "gelu"], "output": "identity"},
        "huber",
        gpumlp.SGD(0.01, momentum=0.9, nesterov=True, l2=0.1, l1=0.01),
        False,
    ),
    "rrelu with dropout, RMSprop": (
        (7, 33, 9, 4),
        {"hidden": ["rrelu", "sigmoid"], "output": "softmax", "dropout": 0.3},
        "cross_entropy",
        gpumlp.RMSprop(0.003, momentum=0.5, centered=True, eps=1e-3),
        True,
    ),
    "tanh at the output": (
        (7, 20, 3),
        {"hidden": "relu", "output": "tanh"},
        "squared_error",
        gpumlp.AdamW(0.01, weight_decay=0.1),
        False,
    ),
}


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("name", CASES)
def test_trajectories_are_numpys(monkeypatch, name, models):
    arguments = {"models": models, "monkeypatch": monkeypatch}
    expected, expected_losses = train(NumpyOps(), CASES[name], **arguments)
    actual, actual_losses = train(HostOps(), CASES[name], **arguments)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(actual_losses, expected_losses, rtol=1e-12)


def test_wheels_carry_all_that_is_asked_for(monkeypatch):
    asked, library = set(), compiler.library
    monkeypatch.setattr(compiler, "library", lambda text: asked.add(text) or library(text))
    for dtype in DTYPES:
        for case in CASES.values():
            train(HostOps(), case, steps=3, dtype=dtype, monkeypatch=monkeypatch)
        use_every_function(HostOps(), dtype)
    for kind in KINDS:
        fit(kind)
    missing = asked - host_sources.built_in()
    assert not [text[-500:] for text in missing] and len(asked) > 100


@dtypes
@pytest.mark.parametrize("name", CASES)
def test_a_captured_step_is_the_step(monkeypatch, name, dtype):
    """To the bit: eager operations, and those that the trainer captures and replays."""
    arguments = {"monkeypatch": monkeypatch, "dtype": dtype}
    captured, captured_losses = train(HostOps(), CASES[name], **arguments)
    eager = HostOps()
    eager.capture = lambda work: work
    expected, expected_losses = train(eager, CASES[name], **arguments)
    np.testing.assert_array_equal(captured, expected)
    np.testing.assert_array_equal(captured_losses, expected_losses)


# ------------------------------------------------------------------ no silent way round


@dtypes
def test_every_function_of_the_tables_is_compiled(numpy_alone, dtype):
    use_every_function(HostOps(), dtype)


def use_every_function(ops, dtype):
    z, b, p = np.ones((1, 3, 4), dtype), np.ones((1, 4), dtype), np.full((1, 2), 0.5, dtype)
    for f in activations.values():
        ops.activate(f, z.copy(), b, np.empty_like(z), p)
        if not f.rows:
            dp = np.empty(1, dtype) if f.learned else None
            ops.backprop(f, z, z, z.copy(), np.empty_like(b), p, dp)
    w, value = np.ones((1, 3), dtype), np.empty(1, dtype)
    targets = Targets(None, np.full_like(z, 0.25), 1.0, 0.0)
    for each in losses.values():
        for output in each.outputs or ("identity", "softmax"):
            way = pair(each, activations[output])
            if way.form.cuda is None:  # focal loss of other outputs: it has no struct
                continue
            bias = b if way.fused else None
            ops.loss(way, z, bias, targets, w, w.sum(axis=1), True, p, np.empty_like(z), value)
            assert np.isfinite(value).all()
    for _, optimizer in examples():
        theta, used = np.ones((1, 64), dtype), optimizer.state_buffers().values()
        state_buffers = [np.ones((1, 64), dtype) if is_used else None for is_used in used]
        state = updates.make_state(ops, 1, dtype)
        hyper, one = optimizer.hyper(1).astype(dtype), np.ones(1, dtype)
        ops.prepare_update(theta, one, one, hyper, None, np.zeros(1, np.int64), state)
        now = state.scalars, hyper, state.t, state.stopped_at
        ops.update(optimizer.family, theta, theta.copy(), state_buffers, *now, 32)
        ops.update(
            *(optimizer.family, theta, theta.copy(), state_buffers, *now, 32),
            occurring=Occurring(np.ones((1, 8), np.uint8), 4),
        )
    x = sparse.make_rows(dtype, 3, 8)
    ops.sparse_product(x, np.ones((1, 8, 4), dtype), np.empty_like(z))
    ops.sparse_gradient(x, z, np.ones((1, 8), np.uint8), np.empty((1, 8, 4), dtype))
    numbers = np.empty((1, 2), np.int32)
    out = minibatches.Minibatch(ops, dtype, 1, 2, 8, False, 0).out
    out = out._replace(x=dataclasses.replace(x, numbers=numbers))
    order = np.array([[2, -1]], np.int32)
    ops.gather(Data(x, None, None, None), order, np.zeros(1, np.int64), 2, out)
    assert (numbers == order).all()
    for source in SOURCE:
        out = minibatches.Minibatch(ops, dtype, 1, 2, 3, False, 0).out
        data = Data(np.ones((1, 5, 3), source), None, None, None)
        ops.gather(data, np.zeros((1, 2), np.int32), np.zeros(1, np.int64), 2, out)
        assert (out.x == 1).all()


def test_what_has_no_program_is_numpys():
    """An activation of the user's own, eager and captured, beside compiled operations."""
    cube = Activation("cube", lambda z, p: z**3, lambda z, n, p: 3 * z**2)
    sizes, x, y = (5, 8, 6, 2), random(9, 5), random(9, 2, seed=1)

    def trained(ops):
        net = gpumlp.MLP(sizes, hidden=["relu", cube], output="identity", dtype="float64", seed=1)
        net.network = net.network.by(ops)
        trainer = gpumlp.Trainer(net, loss="squared_error", optimizer=gpumlp.SGD(1e-3))
        return [trainer.step(x, y) for _ in range(6)], net.theta

    values, theta = trained(HostOps())
    expected_values, expected = trained(NumpyOps())
    np.testing.assert_allclose(values, expected_values, rtol=1e-12)
    np.testing.assert_allclose(theta, expected, rtol=1e-12, atol=1e-14)


# ------------------------------------------------------------------ capture


def test_a_capture_does_nothing_yet_and_then_what_the_arrays_say():
    ops, f = HostOps(), activations["relu"]
    z, b, p = random(1, 3, 5), random(1, 5), np.zeros((1, 2))
    n = np.zeros_like(z)
    replay = ops.capture(lambda: ops.activate(f, z, b, n, p))
    assert (n == 0).all()
    b += 1
    replay()
    np.testing.assert_array_equal(n, np.maximum(z + b[:, None], 0))
    ops.activate(f, z, b, n, p)  # again at once
    np.testing.assert_array_equal(n, np.maximum(z + b[:, None], 0))


def test_a_capture_keeps_its_arrays():
    """Also those that only the operation knows of, such as room for partial sums."""
    ops, f, db = HostOps(), activations["tanh"], np.empty((1, 33))
    delta = random(1, 70, 33)

    def capture():
        z, p, own = np.full((1, 70, 33), 0.5), np.zeros((1, 2)), delta.copy()
        ops.backprop(f, z, z, own, db, p)
        return ops.capture(lambda: ops.backprop(f, z, z, own, db, p))

    replay = capture()
    rubbish = [np.full((1, 70, 33), np.nan) for _ in range(20)] + [np.full((1, 2), np.nan)]
    replay()
    del rubbish
    np.testing.assert_allclose(db, (delta * 0.75**2).sum(axis=1), rtol=1e-12)


@pytest.mark.skipif(blas.find() is None, reason="NumPy has a BLAS that is unknown")
@pytest.mark.parametrize("models", [None, 3])
def test_a_captured_step_needs_python_once(monkeypatch, models):
    """All of it is one call of the library."""
    replays, joined = [], sequence.joined

    def noted(calls, run):
        replays.append(joined(calls, run))
        return replays[-1]

    monkeypatch.setattr(sequence, "joined", noted)
    ops = HostOps()
    train(ops, CASES["tanh, Adam"], models, monkeypatch=monkeypatch)
    assert [len(calls) for calls in replays if calls] == [1] * len(replays)


def test_an_error_ends_the_capture():
    ops = HostOps()
    with pytest.raises(ZeroDivisionError):
        ops.capture(lambda: 1 / 0)
    out = np.empty((1, 2, 2))
    ops.gemm(np.ones((1, 2, 2)), np.ones((1, 2, 2)), out)
    assert (out == 2).all()


# ------------------------------------------------------------------ products


@pytest.mark.parametrize("name", CASES)
def test_without_a_known_blas_products_are_numpys(monkeypatch, name):
    expected, expected_losses = train(HostOps(), CASES[name], monkeypatch=monkeypatch)
    monkeypatch.setattr(blas, "find", lambda: None)
    actual, losses = train(HostOps(), CASES[name], monkeypatch=monkeypatch)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-12)


@dtypes
def test_products_of_views(dtype):
    """Networks with a distance between them, and matrices that BLAS would have to be told of."""
    ops = HostOps()
    whole = random(3, 2 * 35).astype(dtype)
    a = whole[:, :35].reshape(3, 5, 7)
    for b in (random(3, 7, 4).astype(dtype), random(3, 4, 7).astype(dtype).swapaxes(1, 2)):
        out = np.full((3, 40), 7.0, dtype)
        ops.gemm(a, b, out[:, :20].reshape(3, 5, 4))
        np.testing.assert_allclose(out[:, :20].reshape(3, 5, 4), a @ b, rtol=1e-4, atol=1e-5)
        assert (out[:, 20:] == 7).all()


FEW_PRODUCTS = [(257, 300), (70, 1001), (511, 129), (2, 70_000), (1, 65_536), (65_536, 1)]


@dtypes
@pytest.mark.parametrize("columns, inner", FEW_PRODUCTS)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 9, 33, 64, 65])
def test_products_of_few_rows(monkeypatch, dtype, columns, inner, rows):
    """By functions of our own, or by columns on several threads: of one network or of several, at
    places that are no multiple of a vector."""
    for models in (1, 2):
        a, b = random(models, rows, inner).astype(dtype), random(models, columns, inner)
        places = np.full((models, columns * inner + 7), 9, dtype)
        places[:, 3:-4] = b.reshape(models, -1)
        expected = a.astype(np.float64) @ places[:, 3:-4].reshape(b.shape).swapaxes(1, 2)
        scale = np.abs(a).astype(np.float64) @ np.abs(b).swapaxes(1, 2)
        results = []
        for cores in (1, 2, 3):
            monkeypatch.setattr(pool, "_cores", lambda cores=cores: cores)
            out = np.full((models, rows * columns + 5), 7, dtype)
            view = out[:, 2:-3].reshape(models, rows, columns)
            with blas_threads.limit_blas_threads(SHAPE, 1, shared=True):
                HostOps().gemm(a, places[:, 3:-4].reshape(b.shape), view, tb=True)
            assert (np.abs(view - expected) <= 40 * np.finfo(dtype).eps * scale + 1e-30).all()
            assert (out[:, [0, 1, -3, -2, -1]] == 7).all()
            results.append(view)
        if rows <= host_ops.FEW_ROWS:
            assert all(np.array_equal(results[0], other) for other in results)


def test_few_rows_are_shared_among_threads(monkeypatch):
    """In two pieces where BLAS has one thread, else in one; BLAS's own threads share the rest."""
    monkeypatch.setattr(pool, "_cores", lambda: 2)
    ops, pieces = HostOps(), {}
    for rows in (8, 64, 65):
        a, b, out = (np.zeros((1, *shape)) for shape in ((rows, 600), (500, 600), (rows, 500)))
        for limited in (False, True):
            with blas_threads.limit_blas_threads(SHAPE, 1, shared=True):
                monkeypatch.setattr(blas, "has_one_thread", lambda limited=limited: limited)
                (call,) = ops._record(functools.partial(ops.gemm, a, b, out, tb=True))
            pieces[rows, limited] = call.pieces
    assert pieces == {
        **{(8, False): 2, (8, True): 2, (64, False): 1, (64, True): 2},
        **{(65, False): 1, (65, True): 1},
    }


class Library:
    """A BLAS as threadpoolctl finds it."""

    user_api, internal_api = "blas", "openblas"

    def __init__(self, filepath, prefix="", suffix="", layer="pthreads"):
        self.filepath, self.threading_layer = filepath, layer
        names = "cblas_sgemm", "cblas_dgemm", "openblas_set_num_threads", "openblas_get_num_threads"
        functions = {prefix + name + suffix: ctypes.CFUNCTYPE(None)(print) for name in names}
        self.gemm = [ctypes.cast(f, ctypes.c_void_p).value for f in list(functions.values())[:2]]
        self.dynlib = SimpleNamespace(**functions)


def test_which_blas_is_numpys(monkeypatch):
    """Of several that are loaded the one beside NumPy; of those elsewhere the only one."""

    def find(*libraries):
        controller = SimpleNamespace(lib_controllers=libraries)
        monkeypatch.setattr(blas, "controller", lambda: controller)
        found = blas.find.__wrapped__()
        return found and (list(found.gemm.values()), found.integer, found.threads is not None)

    beside = str(Path(np.__file__).parents[1] / "numpy.libs" / "libopenblas.so")
    own, other = Library(beside, "scipy_", "64_"), Library("/usr/lib/libblas.so")
    assert find(other, own) == (own.gemm, "long long", True)
    assert find(other) == (other.gemm, "int", True)
    # A limit that each thread has for itself does not reach those that share a batch.
    openmp = Library("/usr/lib/libblas.so", layer="openmp")
    assert find(openmp) == (openmp.gemm, "int", False)
    assert find(other, other) is find() is find(Library(beside, "other_")) is None


# ------------------------------------------------------------------ rows of outputs

# Groups of rows, whole and not, the widest of them, and single rows with a rest and without.
WIDTHS = [(1, 3), (33, 2), (37, 15), (19, 17), (35, 64), (5, 65), (3, 128), (3, 1000), (2, 1101)]
FORMS = [
    ("cross_entropy", {}, "softmax", "label"),
    ("kl_divergence", {}, "softmax", "distribution"),
    ("focal", {}, "softmax", "label"),
    ("focal", {}, "sigmoid", "binary"),
    ("binary_cross_entropy", {}, "sigmoid", "binary"),
    ("cross_entropy", {"label_smoothing": 0.1}, "log_softmax", "label"),
]


@dtypes
@pytest.mark.parametrize("shape", WIDTHS)
@pytest.mark.parametrize("case", FORMS, ids=[f"{case[0]}-{case[2]}" for case in FORMS])
def test_losses_of_rows_of_any_length(numpy_alone, dtype, shape, case):
    loss_checks.check_loss(HostOps(), dtype, 2, *case, shape, broken=shape[0] > 2)


@dtypes
@pytest.mark.parametrize("shape", WIDTHS)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_rows_of_any_length(numpy_alone, dtype, shape, name):
    layers.check_softmax(HostOps(), dtype, 2, name, shape)


@dtypes
@pytest.mark.parametrize("shape", [(21, 10), (3, 131)])
def test_a_label_without_weight_may_be_any(dtype, shape):
    """And nothing is written beyond what is given, wherever that begins."""
    rows, columns = shape
    way = pair(losses["cross_entropy"], activations["softmax"])
    labels = np.arange(rows, dtype=np.int32)[None] % columns
    labels[0, ::3] = -1, *[2**31 - 1] * (len(labels[0, ::3]) - 1)
    w = (labels < columns).astype(dtype) * (labels >= 0)
    b, p, w_sum = np.zeros((1, columns), dtype), np.zeros((1, 2), dtype), w.sum(axis=1)
    results = []
    for shift in 0, 1, 3:
        u, delta = (np.full(rows * columns + 8, 7, dtype) for _ in range(2))
        u = u[shift : shift + rows * columns].reshape(1, rows, columns)
        u[...] = random(1, rows, columns)
        given = delta[shift : shift + rows * columns].reshape(u.shape)
        value = np.empty(1, dtype)
        HostOps().loss(way, u, b, Targets(labels, None, 1, 0), w, w_sum, True, p, given, value)
        assert (delta[:shift] == 7).all() and (delta[shift + rows * columns :] == 7).all()
        assert not given[w == 0].any()
        results.append((given.copy(), value))
    for given, value in results[1:]:
        np.testing.assert_array_equal(given, results[0][0])
        np.testing.assert_array_equal(value, results[0][1])


# ------------------------------------------------------------------ threads


def everything(ops, dtype, models, rows, columns):
    """The results of every operation that is divided among threads."""
    z, delta = (random(models, rows, columns, seed=i).astype(dtype) for i in (1, 2))
    b, p = random(models, columns).astype(dtype), np.full((models, 2), 0.25, dtype)
    noise = Noise(
        seeds=np.arange(models, dtype=np.uint64),
        step=np.arange(models, dtype=np.int64),
        layer=1,
        dropout=np.full(models, 1 << 30, np.uint32),
    )
    results = []
    for name, drawn in ("prelu", None), ("gelu", noise), ("rrelu", noise._replace(dropout=None)):
        f, total, n, d = activations[name], z.copy(), np.empty_like(z), delta.copy()
        db, dp = np.empty_like(b), np.empty(models, dtype)
        ops.activate(f, total, b, n, p, drawn)
        kept = n.copy()
        ops.backprop(f, total, kept, d, db, p, dp if f.learned else None, drawn)
        results += [n, d, db] + ([dp] if f.learned else [])
    n = np.empty_like(z)
    ops.activate(activations["softmax"], z.copy(), b, n, p)
    w = np.linspace(0, 1, rows, dtype=dtype)[None]
    labels = np.arange(rows, dtype=np.int32)[None] % columns
    d, value = np.empty_like(z), np.empty(models, dtype)
    way, targets = (
        pair(losses["cross_entropy"], activations["softmax"]),
        Targets(labels, None, 1, 0),
    )
    ops.loss(way, z, b, targets, w, np.full(models, w.sum(), dtype), True, p, d, value)
    results += [n, d, value]

    optimizer, size = gpumlp.Adam(0.1, l2=0.01), rows * columns // 32 * 32
    theta, g, first = (a.reshape(models, -1)[:, :size].copy() for a in (z, delta, n))
    second = np.abs(first)
    state, hyper = updates.make_state(ops, models, dtype), optimizer.hyper(models).astype(dtype)
    ones, zero = np.ones(models, dtype), np.zeros(1, np.int64)
    ops.prepare_update(g, ones, ones, hyper, None, zero, state, theta, size // 64 * 32)
    ops.update(
        *(optimizer.family, theta, g, [first, second]),
        *(state.scalars, hyper, state.t, state.stopped_at, size // 64 * 32),
    )
    moved = (a.copy() for a in (theta, first, second))
    results += [state.norm, state.losses[0], state.scalars, *moved]

    width = 40
    x, WT = sparse.make_rows(dtype, rows, width), random(models, width, columns).astype(dtype)
    numbers = np.random.default_rng(1).integers(-1, rows, (models, rows)).astype(np.int32)
    for batch in x, dataclasses.replace(x, numbers=numbers):
        product, gradient = np.empty_like(z), np.full_like(WT, np.nan)
        occurs = np.ones((models, width), np.uint8)
        ops.sparse_product(batch, WT, product)
        ops.sparse_gradient(batch, delta, occurs, gradient)
        results += [product, gradient, occurs]
    ops.update(
        *(optimizer.family, theta, g, [first, second]),
        *(state.scalars, hyper, state.t, state.stopped_at, size // 64 * 32),
        occurring=Occurring(
            np.arange(models * 9).reshape(models, 9).astype(np.uint8) % 2, size // 10
        ),
    )
    results += [theta, first, second]

    out = minibatches.Minibatch(ops, dtype, models, rows, columns, True, 0).out
    order = np.random.default_rng(0).integers(-1, rows, (1, rows)).astype(np.int32)
    ops.gather(Data(z, labels, None, w), order, np.zeros(models, np.int64), rows, out)
    results += [out.x, out.w, out.w_sum, out.labels]
    order = np.empty((len(noise.seeds), rows * columns), np.int32)
    ops.shuffle(noise.seeds, 3, order)
    results.append(order)
    return results


SHAPES = [(1, 1100, 301), (3, 5000, 37), (2, 3, 50_001)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_large_buffers_are_shared_and_numpys(numpy_alone, monkeypatch, shape):
    """Several threads give the numbers of one, to the bit, and NumPy's to rounding."""
    shared = []

    def joined(calls, run, own=sequence.joined):
        shared.extend(call.pieces for call in calls if call.pieces > 1)
        return own(calls, run)

    monkeypatch.setattr(sequence, "joined", joined)
    results = {}
    for count in (1, 2, 5):
        monkeypatch.setattr(pool, "threads", lambda count=count: count)
        shared.clear()
        results[count] = everything(HostOps(), "float64", *shape)
        assert len(shared) == (17 if count > 1 else 0)
    for count in (2, 5):
        for one, several in zip(results[1], results[count], strict=True):
            np.testing.assert_array_equal(several, one)
    for own, expected in zip(results[1], everything(NumpyOps(), "float64", *shape), strict=True):
        if own.dtype.kind == "f":
            np.testing.assert_allclose(own, expected, rtol=1e-9, atol=1e-12)
        elif own.dtype == np.uint64:
            np.testing.assert_array_equal(own, expected)


@pytest.mark.parametrize("columns", [1, 16, 1023, 1024, 1025, 5000])
def test_rows_longer_than_a_tile(numpy_alone, columns):
    own = everything(HostOps(), "float64", 1, 32, columns)
    for actual, expected in zip(
        own, everything(NumpyOps(), "float64", 1, 32, columns), strict=True
    ):
        if actual.dtype.kind == "f":
            np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("copy", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_network_that_has_captured_is_copied(copy):
    net, x = gpumlp.MLP((5, 8, 2), hidden="gelu", seed=1), random(4, 5)
    for _ in range(3):
        expected = net.forward(x)
    np.testing.assert_array_equal(copy(net).forward(x), expected)


# ------------------------------------------------------------------ the process is left as it was


def test_denormal_numbers_stay():
    """A library that is linked with -ffast-math would flush them to zero in the whole process."""
    HostOps().shuffle(np.zeros(1, np.uint64), 0, np.zeros((1, 8), np.int32))
    assert np.float32(1e-40) * np.float32(0.5) != 0
    assert np.float64(1e-310) * 0.5 != 0
    z = np.full((1, 1, 40), 1e-40, np.float32)
    n, p = np.empty_like(z), np.full((1, 2), 0.5, np.float32)
    HostOps().activate(activations["leaky_relu"], z, np.zeros((1, 40), np.float32), n, p)
    np.testing.assert_array_equal(n, z)


def test_items_are_made_of_large_buffers_only():
    assert host_ops._chunks(200, 100) == 1
    assert host_ops._chunks(1100, 301) == 10
    assert host_ops._chunks(3, 1 << 20) == 3  # no more items than rows


@pytest.mark.skipif(compiler.problem() is not None, reason=f"{compiler.problem()}")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_update_rules_are_vectors(dtype):
    """The loop over the parameters has Adam's square root for several of them at once: what the
    compiler cannot tell apart in memory, it computes one by one, in many times as long."""
    if shutil.which("objdump") is None or platform.machine() != "x86_64":
        pytest.skip("objdump, or an x86-64 to read the code of, is missing")
    library = compiler.library(host_sources.update(dtype, "Adam", (True, True)))
    code = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", library._name], capture_output=True, text=True
    ).stdout
    packed = "sqrtps" if dtype == "float32" else "sqrtpd"
    assert re.search(rf"v?{packed} .*%[yz]mm", code), "no square roots of vectors"
