"""Rungs 1 and 3: every operation of the backend contract, on NumPy, compiled, on the GPU.

Both dtypes, one network and three, sizes that no block or 128-bit pack divides and sizes that they
do, against float64 formulas that share no code with the library (tests/operations). Without a GPU
the kernels run on the CPU (tests/simt).
"""

import sys

import numpy as np
import pytest

import gpumlp
from gpumlp import backend
from gpumlp.backend.cpu import compiler
from gpumlp.backend.cpu.host_ops import HostOps
from gpumlp.backend.cuda import cuda_sources
from gpumlp.backend.reference.numpy_ops import NumpyOps
from gpumlp.model.objective import Objective
from gpumlp.training.placement import make_rows
from tests import simt
from tests.conftest import require_cuda
from tests.operations import layers, losses, metrics, minibatches, noise, sparse, updates

DTYPES = ("float32", "float64")
MODELS = (1, 3)

# (rows, columns).  Columns 132 and 8 go by 128 bits, the others one by one; 70 rows make several
# chunks, so that the last block adds partial sums.
SIZES = [(1, 1), (3, 37), (70, 37), (70, 132), (37, 130), (130, 8), (1100, 3)]


@pytest.fixture(scope="module", autouse=True)
def programs(request):
    """Build all programs that these tests need at once, on all processors."""
    if request.config.getoption("--require-gpu") or simt.why_no_compiler():
        return
    texts = []
    for dtype in DTYPES:
        named = dict(cuda_sources.programs(dtype))
        texts += [text for label, text in named.items() if not label.startswith("loss-")]
        texts += [
            cuda_sources.loss(dtype, form, rows, log_u)
            for form, _, rows, log_u in map(losses.pair_of, losses.NATURAL + losses.OTHERS)
        ]
    unique = dict.fromkeys(texts)
    simt.build_all([("module.cu", text) for text in unique], options=("-std=c++17",))


@pytest.fixture(params=["cpu", "host", "cuda"])
def ops(request, monkeypatch):
    """NumPy; the programs compiled for the CPU; the CUDA kernels, in as few blocks as on large
    arrays, so that each thread takes several rows."""
    if request.param == "cpu":
        return NumpyOps()
    if request.param == "host":
        if compiler.problem():
            pytest.skip(f"nothing can be compiled for the CPU: {compiler.problem()}")
        return HostOps()
    require_cuda(request.config)
    found = backend.get("cuda:0")
    monkeypatch.setattr(sys.modules[type(found).__module__], "ENOUGH", 1)
    return found


dtypes = pytest.mark.parametrize("dtype", DTYPES)
models = pytest.mark.parametrize("models", MODELS)
sizes = pytest.mark.parametrize("shape", SIZES, ids=lambda shape: "x".join(map(str, shape)))


def named(*rows):
    """ids for rows of names and dictionaries: "elu alpha=1.5"."""
    return [" ".join(str(part) for part in row if part != {}) for row in rows]


# ------------------------------------------------------------------ gemm


@dtypes
@models
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (-0.5, 0.0), (2.0, 0.25)])
@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
def test_gemm(ops, dtype, models, ta, tb, alpha, beta):
    layers.check_gemm(ops, dtype, models, ta, tb, alpha, beta)


@dtypes
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 37, 1), (1, 130, 8), (130, 3, 37)])
def test_gemm_sizes(ops, dtype, shape):
    layers.check_gemm(ops, dtype, 3, False, True, 1.0, 0.0, shape=shape)
    layers.check_gemm(ops, dtype, 3, True, False, 1.0, 0.0, shape=shape, view=False)


@dtypes
def test_gemm_of_a_shared_array(ops, dtype):
    layers.check_gemm(ops, dtype, 3, False, True, 1.0, 0.0, shared=True)
    layers.check_gemm(ops, dtype, 3, False, False, 1.5, 0.5, shared=True)


# ------------------------------------------------------------------ f and f'


@dtypes
@models
@pytest.mark.parametrize("name", layers.ELEMENTWISE)
def test_activation(ops, dtype, models, name):
    for shape in (70, 37), (70, 132):
        layers.check_activate(ops, dtype, models, name, shape)
        layers.check_backprop(ops, dtype, models, name, shape)


@dtypes
@models
@sizes
@pytest.mark.parametrize("name", ["tanh", "prelu"])
def test_activation_sizes(ops, dtype, models, shape, name):
    layers.check_activate(ops, dtype, models, name, shape, shared_p=name == "tanh")
    layers.check_backprop(ops, dtype, models, name, shape, shared_p=name == "tanh")


@dtypes
@models
@sizes
def test_scale(ops, dtype, models, shape):
    layers.check_scale(ops, dtype, models, shape)


@dtypes
def test_scale_with_the_most_partial_sums(ops, dtype):
    layers.check_scale(ops, dtype, 1, (64 * 64 + 100, 33))


@dtypes
def test_backprop_with_the_most_partial_sums(ops, dtype):
    layers.check_backprop(ops, dtype, 1, "prelu", (64 * 64 + 100, 33))


@dtypes
@models
@sizes
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(ops, dtype, models, shape, name):
    layers.check_softmax(ops, dtype, models, name, shape)


@dtypes
@pytest.mark.parametrize("name", layers.ELEMENTWISE)
def test_activation_far_from_zero(ops, dtype, name):
    layers.check_far(ops, dtype, name)


@dtypes
@pytest.mark.parametrize("name", layers.ELEMENTWISE)
def test_activation_of_nan_and_infinity(ops, dtype, name):
    layers.check_not_finite(ops, dtype, name)


@dtypes
@pytest.mark.parametrize("name", layers.KINKS)
def test_activation_at_kinks(ops, dtype, name):
    layers.check_kinks(ops, dtype, name)


@dtypes
@models
@pytest.mark.parametrize("df_from", ["z", "n"])
def test_activation_of_the_users_own(ops, dtype, models, df_from):
    for shape in (5, 37), (5, 8):
        layers.check_custom(ops, dtype, models, df_from, shape)


# ------------------------------------------------------------------ sparse rows

named_rows = pytest.mark.parametrize("named_by", sparse.NAMED)
SPARSE_SIZES = [(1, 1), (3, 37), (70, 64), (37, 100), (33, 132), (130, 3)]


@dtypes
@models
@named_rows
@pytest.mark.parametrize("shape", SPARSE_SIZES, ids=lambda shape: "x".join(map(str, shape)))
def test_sparse_rows(ops, dtype, models, named_by, shape):
    sparse.check_product(ops, dtype, models, named_by, shape)
    sparse.check_gradient(ops, dtype, models, named_by, shape)


@dtypes
@models
@pytest.mark.parametrize("width", [20, 5003])
def test_sparse_rows_of_few_and_many_features(ops, dtype, models, width):
    sparse.check_product(ops, dtype, models, "own", (37, 8), width)
    sparse.check_gradient(ops, dtype, models, "own", (37, 8), width)


@dtypes
@models
def test_rows_without_nonzeros(ops, dtype, models):
    sparse.check_no_nonzeros(ops, dtype, models)


@dtypes
def test_sparse_gradient_adds_in_the_order_of_rows(ops, dtype):
    sparse.check_order(ops, dtype)


@dtypes
@models
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("targets", ["labels", "dense", None])
def test_gather_sparse_rows(ops, dtype, models, shared, targets):
    sparse.check_gather(ops, dtype, models, targets, weighted=not shared, shared=shared)


@dtypes
@models
@pytest.mark.parametrize("units", [1, 3, 37, 64])
@pytest.mark.parametrize("case", sparse.CASES, ids=named(*sparse.CASES))
def test_update_of_occurring_features(ops, dtype, models, case, units):
    sparse.check_update(ops, dtype, models, *case, units)


@dtypes
@pytest.mark.parametrize("case", sparse.CASES, ids=named(*sparse.CASES))
def test_update_of_occurring_features_with_factors(ops, dtype, case):
    sparse.check_update(ops, dtype, 3, *case, factors=True)


@dtypes
@models
@pytest.mark.parametrize("case", sparse.CASES, ids=named(*sparse.CASES))
def test_overflow_of_features(ops, dtype, models, case):
    sparse.check_overflow(ops, dtype, models, *case)


# ------------------------------------------------------------------ randomness


def test_philox_known_answers(ops):
    noise.check_known_answers(ops)


def test_philox_reference_known_answers():
    for counter, key, answer in noise.KNOWN_ANSWERS:
        assert noise.philox4x32(counter, key) == answer


@dtypes
@models
@pytest.mark.parametrize("shape", [(1, 1), (3, 37), (37, 130), (70, 132)])
def test_dropout_mask(ops, dtype, models, shape):
    noise.check_dropout_mask(ops, dtype, models, shape)


@dtypes
def test_dropout_keeps_its_rate(ops, dtype):
    noise.check_keep_rate(ops, dtype)


@dtypes
@models
@pytest.mark.parametrize("name", ["sigmoid", "gelu"])  # f' from n, and from z
def test_dropout_and_activation(ops, dtype, models, name):
    for shape in (37, 37), (37, 8):
        noise.check_dropout_and_f(ops, dtype, models, shape, name)


@dtypes
@models
@pytest.mark.parametrize("shape", [(3, 37), (37, 130), (7, 132)])
def test_drawn_slopes(ops, dtype, models, shape):
    noise.check_drawn_slopes(ops, dtype, models, shape)


# ------------------------------------------------------------------ the loss

CASES = losses.NATURAL + losses.OTHERS


@dtypes
@models
@pytest.mark.parametrize("case", CASES, ids=named(*CASES))
def test_loss(ops, dtype, models, case):
    losses.check_loss(ops, dtype, models, *case, (70, 10))
    losses.check_loss(ops, dtype, models, *case, (9, 37), shared=True, mean=False, broken=True)


@dtypes
@sizes
@pytest.mark.parametrize("case", [("squared_error", {}, "identity", "real"), losses.NATURAL[6]])
def test_loss_sizes(ops, dtype, shape, case):
    losses.check_loss(ops, dtype, 3, *case, shape)


@dtypes
def test_labels_of_a_single_output(ops, dtype):
    losses.check_loss(ops, dtype, 3, "binary_cross_entropy", {}, "sigmoid", "label", (70, 1))
    losses.check_loss(ops, dtype, 3, "hinge", {}, "identity", "label", (70, 1))


@dtypes
@models
def test_loss_of_the_users_own(ops, dtype, models):
    losses.check_custom(ops, dtype, models, (70, 10))


@dtypes
@pytest.mark.parametrize("output", ["softmax", "identity"])
def test_targets_that_begin_anywhere(ops, dtype, output):
    losses.check_targets_anywhere(ops, dtype, output)


ONE_OF_EACH = [("cross_entropy", "softmax", "label"), ("squared_error", "identity", "real")]


@dtypes
@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_loss_without_weight(ops, dtype, case):
    losses.check_no_weight(ops, dtype, *case)


@dtypes
@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_nan_shows_in_the_loss(ops, dtype, case):
    losses.check_nan_shows(ops, dtype, *case)


@dtypes
def test_large_logits(ops, dtype):
    losses.check_large_logits(ops, dtype)


# ------------------------------------------------------------------ the update


@dtypes
@models
@pytest.mark.parametrize("penalty", [False, True])
@pytest.mark.parametrize("size", [64, 12320])  # one block, and several
def test_advance(ops, dtype, models, size, penalty):
    updates.check_advance(ops, dtype, models, size, penalty)


def test_advance_with_more_blocks_than_threads(ops):
    updates.check_advance(ops, "float64", 1, 2048 * 260 + 32)


@dtypes
def test_events(ops, dtype):
    updates.check_events(ops, dtype)


@dtypes
@models
@pytest.mark.parametrize("case", updates.CASES, ids=named(*updates.CASES))
def test_update(ops, dtype, models, case):
    updates.check_update(ops, dtype, models, *case)


# The steps of the others are α long, however large the gradient is.
BY_THE_GRADIENT = [case for case in updates.CASES if case[0] != "Lion"]


@dtypes
@models
@pytest.mark.parametrize("case", updates.CASES, ids=named(*updates.CASES))
def test_factors_of_slices(ops, dtype, models, case):
    updates.check_factors(ops, dtype, models, *case)


@dtypes
@pytest.mark.parametrize("case", updates.CASES, ids=named(*updates.CASES))
def test_factors_of_one(ops, dtype, case):
    updates.check_neutral_factors(ops, dtype, *case)


@dtypes
@models
def test_plain_epsilon(ops, dtype, models):
    updates.check_plain_epsilon(ops, dtype, models)


@dtypes
@models
@pytest.mark.parametrize("case", BY_THE_GRADIENT, ids=named(*BY_THE_GRADIENT))
def test_overflow(ops, dtype, models, case):
    updates.check_overflow(ops, dtype, models, *case)


@dtypes
@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam"])
def test_frozen_network(ops, dtype, name):
    updates.check_frozen(ops, dtype, name)


# ------------------------------------------------------------------ minibatches


@dtypes
@models
@pytest.mark.parametrize("source", minibatches.SOURCES)
def test_gather(ops, dtype, models, source):
    for columns in 37, 132:
        minibatches.check_gather(ops, dtype, models, source, columns)


@dtypes
@models
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("targets", ["labels", "dense", None])
def test_gather_targets(ops, dtype, models, shared, targets):
    options = {"targets": targets, "shared": shared}
    minibatches.check_gather(ops, dtype, models, "float32", 3, weighted=not shared, **options)


@dtypes
@pytest.mark.parametrize("columns", [1, 8, 130])
def test_gather_sizes(ops, dtype, columns):
    minibatches.check_gather(ops, dtype, 3, "float32", columns, weighted=False)
    minibatches.check_gather(ops, dtype, 3, "uint8", columns, rows=1)
    minibatches.check_gather(ops, dtype, 3, "uint8", 1, rows=4400, weighted=columns > 1)


@dtypes
def test_ragged_batch(ops, dtype):
    minibatches.check_ragged_batch(ops, dtype)


def test_gather_beyond_32_bits(ops):
    minibatches.check_gather_far(ops)


@models
@pytest.mark.parametrize("rows", [1, 3, 37, 5000])
def test_shuffle(ops, models, rows):
    minibatches.check_shuffle(ops, models, rows, epoch=9)


@pytest.mark.parametrize("models", [2, 16, 64, 65, 70])
def test_shuffle_of_many_networks(ops, models):
    """At powers of two, and one beyond, of networks and rows."""
    for rows in (2, 64, 65):
        minibatches.check_shuffle(ops, models, rows, epoch=2)


def test_data_of_the_users_is_aligned_for_the_kernels(cuda):
    """`gather` reads rows by 128 bits, but an array on the device may begin at any element."""
    xp = backend.get("cuda:0").xp
    flat = xp.arange(1 + 64 * 8, dtype="float32")
    x, y = flat[1:].reshape(64, 8), xp.zeros((64, 1), "float32")
    net = gpumlp.MLP((8, 3, 1), output="identity", device="cuda")
    rows = make_rows(net, Objective(net, "squared_error"), x, y, None, 16)
    assert rows.data.x.data.ptr % 32 == 0
    np.testing.assert_array_equal(rows.data.x[0].get(), x.get())


# ------------------------------------------------------------------ evaluation


@dtypes
@models
@pytest.mark.parametrize("case", metrics.CASES)
def test_tally(ops, dtype, models, case):
    for shape in (37, 3), (5, 1), (70, 37), (1100, 2):
        metrics.check_tally(ops, dtype, models, case, shape)
    metrics.check_tally(ops, dtype, models, case, (1, 5), mean=False)


@dtypes
@models
def test_tally_without_classes(ops, dtype, models):
    metrics.check_without_classes(ops, dtype, models)
