"""Rung 4: the kernels under AddressSanitizer with UBSan, under ThreadSanitizer, in other orders.

The checks are those of tests/operations/selection.py. That a sanitizer finds what is wrong with a
kernel is proved in test_seeded_bugs.py.
"""

import numpy as np
import pytest

from gpumlp import backend
from gpumlp.backend.contract import Targets
from gpumlp.backend.cuda import cuda_sources
from gpumlp.functions.activation import activations
from gpumlp.functions.loss import losses, pair
from tests import simt, standin
from tests.helpers.cubin import KERNEL
from tests.operations import empty, random, send
from tests.operations.selection import SELECTION, run
from tests.simt import sanitize


@pytest.fixture(autouse=True)
def on_the_shim(request):
    if request.config.getoption("--require-gpu"):
        pytest.skip("the SIMT shim is for machines without a GPU; a GPU has compute-sanitizer")
    if simt.why_no_compiler():
        pytest.skip(f"the kernels cannot be run on the CPU: {simt.why_no_compiler()}")


@pytest.mark.parametrize("order", [0, 2])
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_kernels_under_sanitizer(sanitizer, order):
    environment = {"GPUMLP_SIMT_ORDER": str(order)}
    done = sanitize.run(sanitizer, ["-m", "tests.operations.selection"], env=environment)
    assert done.returncode == 0, done.stderr
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr
    assert "every check passed" in done.stdout


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", SELECTION)
def test_kernels_in_another_order_of_threads(name, order, monkeypatch):
    monkeypatch.setenv("GPUMLP_SIMT_ORDER", str(order))
    SELECTION[name](backend.get("cuda:0"))


def test_the_selection_runs_every_kernel():
    with standin.count() as counted:
        run()
    every = {name for _, text in cuda_sources.programs("float32") for name in KERNEL.findall(text)}
    assert every <= {*counted.kernels}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_do_not_depend_on_the_order_of_blocks(dtype, monkeypatch):
    """To the bit: the last block adds the others' partial sums in the order of their numbers."""
    found = set()
    for order in range(4):
        monkeypatch.setenv("GPUMLP_SIMT_ORDER", str(order))
        ops = backend.get("cuda:0")
        delta = send(ops, random(2, 300, 37), dtype)
        db, p = empty(ops, (2, 37), dtype), send(ops, [[0.0, 0.0]], dtype)
        ops.backprop(activations["identity"], delta, delta, delta, db, p)
        w, w_sum, value = (send(ops, np.ones(s), dtype) for s in ((1, 300), (2,), (2,)))
        targets = Targets(None, send(ops, random(2, 300, 37, seed=1), dtype), 1.0, 0.0)
        squares = pair(losses["squared_error"], activations["identity"])
        ops.loss(squares, delta, None, targets, w, w_sum, False, p, None, value)
        found.add(ops.to_host(db).tobytes() + ops.to_host(value).tobytes())
    assert len(found) == 1
