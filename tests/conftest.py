"""Devices for the tests.

A test with the argument `device` runs on "cpu" and on "cuda".  Without a GPU, "cuda" is a stand-in
for CuPy whose kernels are the library's own, run on the CPU (tests/standin, tests/simt); with
`--require-gpu` it is the real thing, and a machine without it fails.
"""

import os
import signal

import pytest

from gpumlp.backend.cpu import compiler
from tests import simt, standin

# What "auto" means in the tests; those of gpumlp/backend/device.py set it themselves.
os.environ["GPUMLP_DEVICE"] = "cpu"
# A GPU is not checked at first use; test_selfcheck.py does that itself.
os.environ["GPUMLP_CHECK"] = "0"


def pytest_addoption(parser):
    parser.addoption(
        "--require-gpu", action="store_true", help="run the tests of 'cuda' on a real GPU"
    )


def pytest_configure(config):
    # A shell's background jobs ignore Ctrl-C, which tests send to themselves and to their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not config.getoption("--require-gpu"):
        standin.install()


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", ["cpu", "cuda"], indirect=True)


@pytest.fixture
def device(request):
    """ "cpu", then "cuda"."""
    if request.param == "cuda":
        require_cuda(request.config)
    return request.param


@pytest.fixture
def cuda(request):
    """ "cuda" alone, for tests of what only the GPU side does."""
    require_cuda(request.config)
    return "cuda"


@pytest.fixture
def counters(request):
    """The stand-in's counters; a real GPU has none."""
    if request.config.getoption("--require-gpu"):
        pytest.skip("launches and copies are counted on the stand-in for CuPy, not on a GPU")
    require_cuda(request.config)
    return standin


@pytest.fixture(params=["numpy", "host", "cuda"])
def place(request, monkeypatch):
    """The device, and the CPU also without compiled programs."""
    if request.param == "numpy":
        monkeypatch.setenv("GPUMLP_HOST", "0")
    elif request.param == "host" and compiler.problem():
        pytest.skip(f"nothing can be compiled for the CPU: {compiler.problem()}")
    elif request.param == "cuda":
        require_cuda(request.config)
        return "cuda"
    return "cpu"


def require_cuda(config):
    if config.getoption("--require-gpu"):
        import cupy

        assert cupy.cuda.runtime.getDeviceCount() > 0, "--require-gpu: no GPU was found"
    elif simt.why_no_compiler():
        pytest.skip(f"the kernels cannot be run on the CPU: {simt.why_no_compiler()}")
