"""Rung 4: the kernels under AddressSanitizer with UBSan, under ThreadSanitizer, in other orders.

The checks are those of tests/operations/selection.py. That a sanitizer finds what is wrong with a
kernel is proved in test_seeded_bugs.py.
"""

import pytest

from gpumlp import backend
from gpumlp.backend import sources
from tests import simt, standin
from tests.cubin import KERNEL
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
    every = {name for _, text in sources.programs("float32") for name in KERNEL.findall(text)}
    assert every <= {*counted.kernels}
