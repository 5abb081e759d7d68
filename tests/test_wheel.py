"""The wheel with compiled programs: full speed without a compiler, and the same bits."""

import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import gpumlp
from gpumlp.backend.cpu import compiler, host_sources, processor
from tests.helpers.waiting import HANGS

ROOT = Path(__file__).parent.parent
LEVEL = processor.level()

FIT = """
    import hashlib, numpy as np, gpumlp
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 7)), rng.integers(0, 3, 300)
    net = gpumlp.MLP((7, 33, 10, 3), hidden=["relu", "tanh"], output="softmax", dropout=0.2)
    trainer = gpumlp.Trainer(net, loss="cross_entropy", optimizer=gpumlp.Adam(0.01), seed=1)
    trainer.fit(x, y, epochs=3, progress=False)
    digest = hashlib.sha256(net.theta.tobytes()).hexdigest()
    print(type(net.ops).__name__, digest, gpumlp.__file__)
"""


def build(folder, monkeypatch):
    """Build a wheel, in this process; the file."""
    builders = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    monkeypatch.setattr(sys, "path", [*sys.path])
    (file,) = builders.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return Path(file)


@pytest.fixture
def run(tmp_path):
    """run(place, code, compilers=False): what a process printed that has the package from there."""

    def run(place, code, compilers=False):
        environment = os.environ | {"GPUMLP_DEVICE": "cpu", "PYTHONPATH": str(place)}
        for name in ("CXX", compiler.VARIABLE):
            environment.pop(name, None)
        if not compilers:
            environment |= {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            **{"capture_output": True, "text": True, "check": True, "timeout": HANGS},
            **{"env": environment, "cwd": tmp_path},
        )

    return run


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel with the programs that FIT and `gpumlp info` need, for this CPU, and its contents."""
    if compiler.problem() or LEVEL is None:
        pytest.skip(f"no wheel can be compiled: {compiler.problem() or 'this CPU has no level'}")
    asked = {host_sources.layer("float32", gpumlp.activations["relu"])}
    folder = tmp_path_factory.mktemp("wheel")
    library = compiler.library
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "library", lambda source: asked.add(source) or library(source))
        exec(textwrap.dedent(FIT), {})
        assert asked <= host_sources.built_in()
        patch.setattr(host_sources, "built_in", lambda: asked)
        patch.setattr(processor, "LEVELS", {LEVEL: processor.LEVELS[LEVEL]})
        file = build(folder, patch)
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "site")
    return SimpleNamespace(file=file, site=folder / "site", programs=len(asked))


def compiled(site):
    return sorted((site / "gpumlp" / "kernels" / "compiled" / LEVEL).glob("*.so"))


def test_it_is_for_this_platform_and_any_python(wheel):
    platform, machine = "linux", processor.LEVELS[LEVEL].machine
    assert wheel.file.name.endswith(f"-py3-none-{platform}_{machine}.whl")
    assert len(compiled(wheel.site)) == wheel.programs


def test_without_a_compiler_it_computes_the_bits_of_the_compiler(wheel, run):
    done = run(wheel.site, FIT)
    ops, digest, file = done.stdout.split()
    assert (ops, done.stderr) == ("HostOps", "")
    assert Path(file).is_relative_to(wheel.site)
    assert run(ROOT, FIT, compilers=True).stdout.split()[:2] == [ops, digest]
    assert not (wheel.site.parent / "cache").exists()


def test_info_says_that_they_are_from_the_wheel(wheel, run):
    printed = run(wheel.site, "from gpumlp.cli import main; main(['info'])").stdout
    assert f"kernels from the wheel, {LEVEL}; " in printed
    assert "To train faster on the CPU" not in printed


def test_they_can_be_switched_off(wheel, run):
    code = f"import os; os.environ['{compiler.VARIABLE}'] = '0'\n{textwrap.dedent(FIT)}"
    done = run(wheel.site, code)
    assert done.stdout.startswith("NumpyOps ") and done.stderr == ""


def test_a_damaged_program_is_passed_over(wheel, run):
    path = compiled(wheel.site)[0]
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    try:
        done = run(wheel.site, FIT)
    finally:
        path.write_bytes(data)
    assert done.stdout.startswith("HostOps ")
    (note,) = done.stderr.splitlines()
    assert "no C++ compiler was found" in note


def test_without_a_compiler_it_is_pure_and_says_what_is_missing(run, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        patch.delenv("CXX", raising=False)
        file = build(tmp_path, patch)
    assert file.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(file) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".so")]
        archive.extractall(tmp_path / "site")
    done = run(tmp_path / "site", FIT)
    assert done.stdout.startswith("NumpyOps ")
    (note,) = done.stderr.splitlines()
    assert note.startswith("gpumlp: note: NumPy computes on the CPU, at about half the speed")
    assert "apt install g++" in note
