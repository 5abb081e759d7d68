"""Rungs 1 and 3 for arrays in bfloat16: the kernels that read and write them, and `narrow`.

Odd sizes, and one whose rows go by 128 bits: 8 elements.  Without a GPU the kernels run on the CPU
(tests/simt).
"""

import pytest

from gpumlp import backend
from gpumlp.backend.cuda import cuda_sources
from gpumlp.backend.sources import BF16
from tests import simt
from tests.operations import bf16, layers, losses, minibatches, sparse

SHAPES = [(1, 1), (3, 37), (70, 132), (130, 8), (37, 136)]
LOSSES = [losses.NATURAL[0], losses.NATURAL[6], losses.NATURAL[8], losses.NATURAL[10]]


@pytest.fixture(scope="module", autouse=True)
def programs(request):
    """Build all programs that these tests need at once, on all processors."""
    if request.config.getoption("--require-gpu") or simt.why_no_compiler():
        return
    named = dict(cuda_sources.programs("float32"))
    texts = [
        text for label, text in named.items() if "bf16" in label and not label.startswith("loss-")
    ]
    texts += [
        cuda_sources.loss("float32", form, rows, log_u, BF16)
        for form, _, rows, log_u in map(losses.pair_of, LOSSES)
    ]
    simt.build_all([("module.cu", text) for text in texts], options=("-std=c++17",))


@pytest.fixture
def ops(cuda):
    return backend.get("cuda:0")


shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


@pytest.mark.parametrize("name", layers.ELEMENTWISE)
def test_activation(ops, name):
    for shape in (7, 37), (70, 136):
        bf16.check_activate(ops, 2, name, shape)
        bf16.check_backprop(ops, 2, name, shape)
        bf16.check_backprop(ops, 2, name, shape, stored="float32")


@shapes
@pytest.mark.parametrize("name", ["identity", "tanh", "prelu", "gelu"])
def test_activation_sizes(ops, shape, name):
    bf16.check_activate(ops, 3, name, shape)
    for stored in "uint16", "float32":
        bf16.check_backprop(ops, 3, name, shape, stored)


@shapes
def test_scale(ops, shape):
    for models in 1, 3:
        bf16.check_scale(ops, models, shape)


@shapes
@pytest.mark.parametrize("named", sparse.NAMED)
def test_sparse_rows(ops, shape, named):
    for models in 1, 3:
        for stored in "uint16", "float32":
            bf16.check_sparse_product(ops, models, named, shape, stored)
        bf16.check_sparse_gradient(ops, models, named, shape)


@shapes
def test_dropout_mask(ops, shape):
    bf16.check_dropout_mask(ops, 3, shape)


@shapes
def test_drawn_slopes(ops, shape):
    bf16.check_drawn_slopes(ops, 3, shape)


@shapes
@pytest.mark.parametrize("case", LOSSES, ids=lambda case: f"{case[0]} {case[2]} {case[3]}")
def test_loss(ops, shape, case):
    bf16.check_loss(ops, 3, *case, shape)


@pytest.mark.parametrize("source", minibatches.SOURCES)
def test_gather(ops, source):
    for columns in 1, 37, 136, 1096:
        bf16.check_gather(ops, 3, source, columns)


@pytest.mark.parametrize("size", [1, 7, 8, 37, 2053, 40_000])
def test_narrow(device, size):
    ops = backend.get("cpu" if device == "cpu" else "cuda:0")
    for models in 1, 3:
        bf16.check_narrow(ops, size, models)


def test_narrow_places(device):
    bf16.check_narrow_places(backend.get("cpu" if device == "cpu" else "cuda:0"))
