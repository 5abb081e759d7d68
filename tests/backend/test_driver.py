"""What the NVIDIA driver says, through its library, nvidia-smi or its kernel module."""

import pytest

from gpumlp.backend.cuda import driver


@pytest.fixture(autouse=True)
def ask_anew():
    driver.cuda_version.cache_clear()
    yield
    driver.cuda_version.cache_clear()


@pytest.mark.parametrize(
    ("version", "extra"),
    [(None, None), ((11, 8), None), ((12, 0), "cuda12"), ((13, 2), "cuda13"), ((15, 1), "cuda13")],
)
def test_the_extra_for_a_driver(version, extra):
    assert driver.extra(version) == extra


@pytest.mark.parametrize(
    ("number", "failed", "version"),
    [(12080, 0, (12, 8)), (13000, 0, (13, 0)), (0, 0, None), (12080, 34, None)],
)
def test_the_library_of_the_driver_says_its_cuda_version(monkeypatch, number, failed, version):
    class Library:
        def cuDriverGetVersion(self, pointer):
            pointer._obj.value = number
            return failed

    monkeypatch.setattr(driver.ctypes, "CDLL", lambda name: Library())
    assert driver._version_from_library() == version


SMI = "| NVIDIA-SMI 570.86.10    Driver Version: 570.86.10    CUDA Version: 12.8     |"
MODULE = "NVRM version: NVIDIA UNIX {}  {}  Wed Jul 30 02:01:22 UTC 2025\nGCC version: gcc 12"


def test_nvidia_smi_says_the_cuda_version(monkeypatch):
    monkeypatch.setattr(driver, "_version_from_library", lambda: None)
    monkeypatch.setattr(driver, "_smi", lambda *arguments: ["+---+", SMI])
    assert driver.cuda_version() == (12, 8)


@pytest.mark.parametrize(
    ("kind", "release", "version"),
    [
        ("x86_64 Kernel Module", "535.104.05", (12, 0)),
        ("Open Kernel Module for x86_64", "580.65.06", (13, 0)),
        ("x86_64 Kernel Module", "470.57.02", (11, 0)),
    ],
)
def test_the_kernel_module_says_the_driver(monkeypatch, tmp_path, kind, release, version):
    file = tmp_path / "version"
    file.write_text(MODULE.format(kind, release))
    monkeypatch.setattr(driver, "PROC_VERSION", file)
    monkeypatch.setattr(driver, "_version_from_library", lambda: None)
    monkeypatch.setattr(driver, "_smi", lambda *arguments: [])
    assert driver.driver_version() == release
    assert driver.cuda_version() == version


def test_gpus_as_nvidia_smi_lists_them(monkeypatch):
    lines = ["NVIDIA H100 80GB HBM3, 81559", "NVIDIA GB10, [N/A]"]
    monkeypatch.setattr(driver, "_smi", lambda *arguments: lines)
    assert driver.gpus() == [("NVIDIA H100 80GB HBM3", 81559 * 2**20)]


def test_a_missing_nvidia_smi_says_nothing(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert driver._smi() == []


def test_it_is_asked_once_a_process(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(driver, "PROC_VERSION", tmp_path / "none")
    monkeypatch.setattr(driver, "_version_from_library", lambda: None)
    monkeypatch.setattr(driver, "_smi", lambda *arguments: asked.append(arguments) or [])
    assert driver.cuda_version() is driver.cuda_version() is None
    assert len(asked) == 2  # for the CUDA version, then for the driver's
