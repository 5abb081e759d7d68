"""Device strings and what "auto" means, on machines made of small fakes."""

import sys
import types
import warnings

import numpy as np
import pytest

from gpumlp.backend import device
from gpumlp.backend.cuda import driver
from tests.helpers import host


class CUDAError(RuntimeError):
    """As CuPy's CUDARuntimeError: carries the runtime's number."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def fail(error):
    def call(*_args, **_kwargs):
        raise error

    return call


class FakeDevice:
    def __init__(self, index):
        self.index = index

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def arange(stop, dtype):
    return np.arange(stop, dtype=dtype)


def fake_cupy(gpus=1, count_error=None, kernel_error=None, built_for=13020):
    """A module with just the names of CuPy that device.py uses."""
    cupy = types.ModuleType("cupy")
    cupy.__version__ = "14.2.0"
    properties = {"name": b"NVIDIA Fake 100", "totalGlobalMem": 80 * 2**30, "major": 9, "minor": 0}
    runtime = types.SimpleNamespace(
        getDeviceCount=fail(count_error) if count_error else lambda: gpus,
        runtimeGetVersion=lambda: built_for,
        getDeviceProperties=lambda index: properties,
    )
    cupy.cuda = types.SimpleNamespace(
        runtime=runtime,
        Device=FakeDevice,
    )
    cupy.arange = fail(kernel_error) if kernel_error else arange
    return cupy


NO_DEVICE = CUDAError(device.NO_DEVICE, "cudaErrorNoDevice: no CUDA-capable device is detected")
TOO_OLD = CUDAError(
    device.INSUFFICIENT_DRIVER,
    "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version",
)


@pytest.fixture
def machine(monkeypatch):
    """Makes the process see a machine: its driver's CUDA version, and its cupy module."""
    monkeypatch.delenv(device.VARIABLE, raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(device, "_answered", {})
    monkeypatch.setattr(device, "_warned", False)
    monkeypatch.setattr(device.cublaslt, "handle", lambda index: index)
    monkeypatch.setattr(device, "_running_blas", dict)

    def make(cuda=None, cupy=None):
        monkeypatch.setattr(driver, "cuda_version", lambda: cuda)
        monkeypatch.setattr(driver, "driver_version", lambda: "580.65.06" if cuda else None)
        monkeypatch.setattr(driver, "gpus", lambda: [("NVIDIA Listed 9", 2**34)] if cuda else [])
        if isinstance(cupy, Exception):
            monkeypatch.delitem(sys.modules, "cupy", raising=False)
            monkeypatch.setattr(sys, "meta_path", [RefuseCupy(cupy), *sys.meta_path])
        else:
            monkeypatch.setitem(sys.modules, "cupy", cupy)

    return make


class RefuseCupy:
    """An import hook: importing cupy raises this error."""

    def __init__(self, error):
        self.error = error

    def find_spec(self, name, path=None, target=None):
        if name == "cupy":
            raise self.error
        return None


MISSING = ModuleNotFoundError("No module named 'cupy'", name="cupy")


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("auto", ("auto", 0)),
        ("cpu", ("cpu", 0)),
        ("cuda", ("cuda", 0)),
        ("cuda:0", ("cuda", 0)),
        ("cuda:12", ("cuda", 12)),
    ],
)
def test_valid_strings(text, meaning):
    assert device.parse(text) == meaning


@pytest.mark.parametrize(
    "text", ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cpu:0", None, 0]
)
def test_an_invalid_string_names_the_valid_ones(text):
    with pytest.raises(ValueError, match='"auto", "cpu", "cuda" or "cuda:<number>"'):
        device.resolve(text)


@pytest.mark.parametrize(
    ("cuda", "cupy"),
    [
        (None, MISSING),
        ((12, 8), MISSING),
        (None, fake_cupy(count_error=TOO_OLD)),
        (None, fake_cupy(count_error=NO_DEVICE)),
        ((13, 0), fake_cupy(count_error=NO_DEVICE)),
        ((13, 0), fake_cupy(gpus=0)),
    ],
)
def test_auto_without_a_gpu_is_silently_the_cpu(machine, cuda, cupy):
    machine(cuda, cupy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert device.resolve("auto") == "cpu"


def test_auto_is_the_first_gpu(machine):
    machine((13, 0), fake_cupy(gpus=2))
    assert device.resolve() == "cuda:0"
    assert device.resolve("cuda") == "cuda:0"
    assert device.resolve("cuda:1") == "cuda:1"
    assert device.resolve("cpu") == "cpu"


BANNER = """
================================================================
Failed to import CuPy.

Original error:
  ImportError: libcudart.so.12: cannot open shared object file
================================================================
"""

BROKEN = [
    ((12, 8), ImportError(BANNER), "cannot be imported (ImportError: libcudart.so.12: cannot"),
    ((12, 8), ModuleNotFoundError("No module named 'fastrlock'", name="fastrlock"), "'fastrlock'"),
    ((12, 8), AttributeError("numpy has no attribute 'int'"), "AttributeError: numpy has no"),
    (None, ImportError("libcudart.so.13"), "ImportError: libcudart.so.13"),
    ((12, 8), fake_cupy(count_error=TOO_OLD), "supports CUDA 12.8, but the installed CuPy 14.2.0"),
    ((11, 4), fake_cupy(count_error=TOO_OLD), "supports CUDA 11.4"),
    ((13, 0), fake_cupy(count_error=CUDAError(999, "cudaErrorUnknown")), "cudaErrorUnknown"),
    ((13, 0), fake_cupy(kernel_error=RuntimeError("libnvrtc.so.13 not found")), "libnvrtc.so.13"),
    ((13, 0), fake_cupy(kernel_error=MemoryError("out of memory")), "out of memory"),
]


@pytest.mark.parametrize("kernels, vectors, told", [
    ("Haswell", ["X86_V3", "AVX512F"], True), ("Zen", ["X86_V3", "X86_V4"], True),
    ("SkylakeX", ["X86_V4"], False), ("Haswell", ["X86_V3"], False),
])  # fmt: skip
@pytest.mark.parametrize("chosen, says", [
    (None, "set OPENBLAS_CORETYPE=SkylakeX in the environment; this CPU has AVX-512, which "
     "OpenBLAS has not found."),
    ("Haswell", "unset OPENBLAS_CORETYPE in the environment; this CPU has AVX-512, which "
     "OPENBLAS_CORETYPE=Haswell does not use."),
])  # fmt: skip
def test_info_tells_of_avx512_that_openblas_does_not_use(
    machine, monkeypatch, kernels, vectors, told, chosen, says
):
    machine()
    if chosen:
        monkeypatch.setenv("OPENBLAS_CORETYPE", chosen)
    else:
        monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    blas = {"user_api": "blas", "architecture": kernels, "num_threads": 2}
    monkeypatch.setattr(device, "_running_blas", lambda: blas)
    config = np.show_config(mode="dicts") | {"SIMD Extensions": {"found": vectors}}
    monkeypatch.setattr("numpy.show_config", lambda mode: config)
    found = device.found()
    assert found.blas.endswith(f", 2 threads, {kernels} kernels")
    assert (f"To multiply faster on the CPU: {says}" in found.advice) == told
    assert any("OPENBLAS_CORETYPE" in line for line in found.advice) == told


@pytest.mark.parametrize(("cuda", "cupy", "says"), BROKEN)
def test_auto_with_a_broken_gpu_warns_once_and_takes_the_cpu(machine, cuda, cupy, says):
    machine(cuda, cupy)
    with pytest.warns(RuntimeWarning) as warned:
        assert device.resolve("auto") == "cpu"
        assert device.resolve("auto") == "cpu"
    assert len(warned) == 1
    assert says in str(warned[0].message)
    assert "Using the CPU." in str(warned[0].message)
    assert warned[0].filename == __file__


def test_a_gpu_without_cublaslt_is_broken(machine, monkeypatch):
    machine((13, 0), fake_cupy())
    monkeypatch.setattr(device.cublaslt, "handle", fail(RuntimeError("libcublasLt.so.13: no file")))
    with pytest.warns(RuntimeWarning, match=r"the GPU does not work .*libcublasLt.so.13: no file"):
        assert device.resolve("auto") == "cpu"


@pytest.mark.parametrize(("cuda", "cupy", "says"), BROKEN)
def test_cuda_with_a_broken_gpu_is_an_error(machine, cuda, cupy, says):
    machine(cuda, cupy)
    with pytest.raises(RuntimeError) as raised:
        device.resolve("cuda")
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("cuda", "cupy", "missing", "remedy"),
    [
        (None, MISSING, "CuPy is not installed, and no NVIDIA driver", "driver 580 or newer, then"),
        ((12, 2), MISSING, "CuPy is not installed", 'pip install "gpumlp[cuda12]"'),
        ((13, 1), MISSING, "CuPy is not installed", 'pip install "gpumlp[cuda13]"'),
        ((14, 0), MISSING, "CuPy is not installed", 'pip install "gpumlp[cuda13]"'),
        ((11, 4), MISSING, "CuPy is not installed", "this one supports only CUDA 11.4"),
        (
            None,
            fake_cupy(count_error=TOO_OLD),
            "no NVIDIA driver was found",
            "Install NVIDIA driver",
        ),
        ((12, 2), fake_cupy(count_error=TOO_OLD), "needs CUDA 13", 'pip install "gpumlp[cuda12]"'),
        ((13, 0), fake_cupy(count_error=NO_DEVICE), "no NVIDIA GPU was found", "nvidia-smi"),
    ],
)
def test_cuda_says_what_is_missing_and_what_to_install(machine, cuda, cupy, missing, remedy):
    machine(cuda, cupy)
    with pytest.raises(RuntimeError) as raised:
        device.resolve("cuda")
    assert missing in str(raised.value)
    assert remedy in str(raised.value)


def test_hidden_gpus_are_named(machine, monkeypatch):
    machine((13, 0), fake_cupy(count_error=NO_DEVICE))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(RuntimeError, match=r"CUDA_VISIBLE_DEVICES=''"):
        device.resolve("cuda")


@pytest.mark.parametrize(("gpus", "says"), [(1, "found 1 GPU, only cuda:0"), (4, "4 GPUs, cuda:0")])
def test_an_index_out_of_range_says_how_many_there_are(machine, gpus, says):
    machine((13, 0), fake_cupy(gpus=gpus))
    with pytest.raises(RuntimeError, match=says):
        device.resolve("cuda:7")


@pytest.mark.parametrize(
    ("value", "means"),
    [("cpu", "cpu"), ("cuda:1", "cuda:1"), ("cuda", "cuda:0"), ("auto", "cuda:0"), ("", "cuda:0")],
)
def test_the_environment_sets_what_auto_means(machine, monkeypatch, value, means):
    machine((13, 0), fake_cupy(gpus=2))
    monkeypatch.setenv(device.VARIABLE, value)
    assert device.resolve("auto") == means
    assert device.resolve("cuda:1") == "cuda:1"
    assert device.found().auto == means


def test_an_environment_that_cannot_be_met_is_an_error(machine, monkeypatch):
    machine(None, MISSING)
    monkeypatch.setenv(device.VARIABLE, "cuda")
    with pytest.raises(RuntimeError, match=r"'cuda' \(from GPUMLP_DEVICE\)"):
        device.resolve("auto")
    monkeypatch.setenv(device.VARIABLE, "gpu")
    with pytest.raises(ValueError, match="GPUMLP_DEVICE: 'gpu' is no device"):
        device.resolve("auto")
    assert device.found().auto == "an error"
    assert device.resolve("cpu") == "cpu"


def test_a_gpu_that_has_answered_is_not_asked_again(machine):
    cupy = fake_cupy()
    machine((13, 0), cupy)
    device.resolve("cuda")
    cupy.cuda.runtime.getDeviceCount = fail(AssertionError("asked again"))
    assert device.resolve("cuda") == "cuda:0"


def test_a_gpu_that_was_busy_is_asked_again(machine):
    cupy = fake_cupy(kernel_error=MemoryError("out of memory"))
    machine((13, 0), cupy)
    with pytest.raises(RuntimeError, match="out of memory"):
        device.resolve("cuda")
    cupy.arange = arange
    assert device.resolve("cuda") == "cuda:0"


def test_found_on_a_machine_with_a_gpu(machine):
    machine((13, 0), fake_cupy())
    found = device.found()
    assert found.auto == "cuda:0"
    assert not [advice for advice in found.advice if "GPU" in advice]
    assert found.cupy == "14.2.0, CUDA 13.2"
    assert (found.driver, found.cuda) == ("580.65.06", "13.0")
    assert found.gpus == ["cuda:0 NVIDIA Fake 100, 80.0 GiB, compute capability 9.0"]


def test_found_on_a_machine_with_a_gpu_and_no_cupy(machine):
    machine((12, 4), MISSING)
    found = device.found()
    assert (found.auto, found.auto_reason) == ("cpu", "CuPy is not installed")
    assert found.cupy is None
    assert 'pip install "gpumlp[cuda12]"' in found.advice[0]
    assert found.gpus == ["NVIDIA Listed 9, 16.0 GiB"]


def test_found_advises_the_plot_extra_where_matplotlib_is_missing(machine, monkeypatch):
    machine((13, 0), fake_cupy())
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(device.compiler, "remedy", lambda: None)
    assert device.found().advice == [
        'To draw the curves of a training: pip install "gpumlp[plot]".'
    ]


@pytest.mark.parametrize(
    ("variables", "says", "advice"),
    [
        (
            {"PATH": ""},
            "NumPy (no C++ compiler was found)",
            "Install a C++ compiler, g++ or clang++",
        ),
        ({"CXX": "no-such-cxx"}, "NumPy (CXX names no-such-cxx, which was", "Let CXX name a C++"),
        ({"GPUMLP_HOST": "0"}, "NumPy (GPUMLP_HOST=0)", "Unset GPUMLP_HOST."),
    ],
)
def test_found_says_why_numpy_computes_alone_on_the_cpu(
    machine, monkeypatch, variables, says, advice
):
    machine(None, MISSING)
    host.forget(monkeypatch)
    monkeypatch.delenv("CXX", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = device.found()
    assert found.host.startswith(says)
    assert any(each.startswith(f"To train faster on the CPU: {advice}") for each in found.advice)


@pytest.mark.parametrize(
    ("threads", "says"), [(1, "; 1 thread"), (2, "; 2 threads"), (64, "; 64 threads")]
)
def test_found_names_compiler_vectors_and_threads(machine, monkeypatch, threads, says):
    machine(None, MISSING)
    if device.compiler.problem():
        pytest.skip(f"nothing can be compiled for the CPU: {device.compiler.problem()}")
    monkeypatch.setattr(device.pool, "_cores", lambda: threads)
    found = device.found()
    assert found.host == f"kernels by {device.compiler.toolchain()}{says}"
    assert not [advice for advice in found.advice if "CPU" in advice]


def test_found_says_when_the_kernels_do_not_compile(machine, monkeypatch):
    machine(None, MISSING)
    if device.compiler.problem():
        pytest.skip(f"nothing can be compiled for the CPU: {device.compiler.problem()}")
    host.forget(monkeypatch)
    monkeypatch.setattr(device.host_sources, "layer", lambda dtype, f: "#error mistaken")
    found = device.found()
    assert "mistaken" in found.host and found.host.startswith("NumPy (")
    assert any(each.startswith("To train faster on the CPU: ") for each in found.advice)


def test_found_on_this_machine(monkeypatch):
    monkeypatch.delenv(device.VARIABLE, raising=False)
    found = device.found()
    assert found.python.startswith(".".join(map(str, sys.version_info[:3])))
    assert found.numpy and found.blas and found.platform
    assert found.auto == "cpu" or found.auto.startswith("cuda:")
