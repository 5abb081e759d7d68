"""The stand-in against the installed CuPy: every name, every parameter, and what raises.

CuPy imports without a GPU. It is imported in a process of its own, so that this one never
sees it.
"""

import importlib.machinery
import inspect
import json
import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

from tests import standin
from tests.helpers.waiting import HANGS
from tests.standin import describe, errors, hardware, kernels, memory

ROOT = pathlib.Path(__file__).parents[2]

# Looks at the disk, where the stand-in is not.
pytestmark = pytest.mark.skipif(
    importlib.machinery.PathFinder.find_spec("cupy") is None,
    reason="CuPy is not installed (cupy-cuda13x or cupy-cuda12x)",
)

# What every Python class has of its own.
NOT_OFFERED = {
    "__annotations__",
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__getattr__",
    "__init__",
    "__module__",
    "__reduce_ex__",
    "__slots__",
    "__static_attributes__",
    "__weakref__",
}

# Attributes of objects, not of classes, where an object can be had without a GPU.
OF_OBJECTS = ["cupy.cuda.Stream.null.ptr", "cupy.cuda.Stream.null.device_id"]


def offered() -> dict[str, object]:
    """Everything that the stand-in offers: dotted path -> object."""
    found = {}
    for module, contents in standin.build().items():
        found[module] = contents
        for name, value in vars(contents).items():
            if name.startswith("__") and name != "__version__":
                continue
            if isinstance(value, types.ModuleType):
                continue
            found[f"{module}.{name}"] = value
            if isinstance(value, type) and value.__module__ != "numpy":
                found.update(members(f"{module}.{name}", value))
    # Objects of these are had, but nobody constructs them.
    found.update(members("cupy.RawKernel", kernels.RawKernel))
    found.update(members("cupy.cuda.memory.MemoryPointer", memory.MemoryPointer))
    return found


def members(path: str, cls: type) -> dict[str, object]:
    own = [base for base in cls.__mro__ if base.__module__.startswith(("tests.", "cupy"))]
    names = {name for base in own for name in vars(base)} - NOT_OFFERED
    public = {name for name in names if not name.startswith("_") or name.startswith("__")}
    return {f"{path}.{name}": getattr(cls, name) for name in public}


# CuPy's `Device.attributes` has these names of the CUDA runtime, without their beginning.
ATTRIBUTES = [f"cudaDevAttr{name}" for name in hardware.ATTRIBUTES]

OFFERED = offered()
PATHS = sorted(OFFERED)

# What CuPy does with these without a GPU, the stand-in does too. x is a device array (3, 4) of
# float32, h a NumPy array like it.
EXPRESSIONS = """
np.asarray(x)
np.from_dlpack(h) is None
x.ctypes
x.__array_interface__
x.set([1.0])
x.set(np.ones(3, np.float32))
x.set(np.ones((3, 4)))
x[:, ::2].set(h[:, ::2])
x.__setitem__(slice(None), h)
x.__setitem__(slice(0, 1), h[:1])
x.__setitem__(Ellipsis, h)
x.__setitem__(slice(None), [1.0, 2.0, 3.0, 4.0])
x.item()
x.item(0)
bool(x)
hash(x)
setattr(x, "note", 1)
len(x)
len(x[0, 0])
iter(x[0, 0])
[1, 2][x[0, 0]]
x[0, 1]
x[9]
x[np.int64(1)]
x[None]
x[1:, ::2]
x[..., 1]
list(x)[2]
x.T
x.T.flags.c_contiguous
x.T.flags.f_contiguous
x.flags.owndata
x[1:].base is x
x[1:][1:].base is x
x.base
x[1:].data.ptr - x.data.ptr
x.device.id
x.reshape(-1)
x.reshape(2, -1)
x.reshape((4, 3))
x.reshape(5)
x.ravel()
x.transpose(1, 0)
x[None].squeeze()
x.view(np.int32)
x.view(np.float64)
x[:, :3].view(np.float64)
x.astype(np.float32, copy=False) is x
x.size, x.ndim, x.nbytes, x.itemsize
cp.ascontiguousarray(x) is x
cp.asnumpy(h) is h
cp.asnumpy(h.T) is h.T
cp.asnumpy(h.T).flags.c_contiguous
cp.asnumpy(h[:, ::2]).base is None
cp.asnumpy(h, out=h.T)
cp.asnumpy(h, out=h) is h
cp.copyto(x, h)
cp.copyto(x, np.ones(2))
cp.moveaxis(h, 0, 1)
cp.moveaxis(x, 0, 1)
cp.expand_dims(x, 1)
cp.broadcast_to(x, (2, 3, 4))
cp.broadcast_to(x, (3, 5))
cp.from_dlpack(h)
cp.empty(3, "U1")
cp.this_name_is_nowhere
cp.RawModule("")
cp.RawModule()
cp.RawModule(code="", options=["-std=c++17"])
cp.cuda.Graph()
cp.cuda.Stream.null.begin_capture()
cp.cuda.Stream.null == cp.cuda.Stream(null=True)
cp.cuda.Device(1).id
cp.cuda.runtime.CUDARuntimeError(2).status
""".strip().splitlines()


@pytest.fixture(scope="module")
def real() -> dict[str, dict]:
    """What a child process finds in the real CuPy."""
    properties = inspect.getsource(hardware.getDeviceProperties).split('"')[1::2]
    request = {
        "paths": [*PATHS, *OF_OBJECTS],
        "expressions": EXPRESSIONS,
        "statuses": list(errors.RUNTIME_ERRORS),
        "in_runtime": [name for name in properties if name.isidentifier()] + ATTRIBUTES,
    }
    child = subprocess.run(
        [sys.executable, "-m", "tests.standin.describe"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=HANGS,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


@pytest.fixture
def names() -> dict[str, object]:
    cupy = standin.install()
    x = cupy.asarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    yield {"cp": cupy, "np": np, "x": x, "h": np.ones((3, 4), np.float32)}
    standin.uninstall()


@pytest.mark.parametrize("path", [*PATHS, *OF_OBJECTS])
def test_cupy_has_it(real, path):
    assert real["paths"][path]["exists"], real["paths"][path]


CALLABLE = [path for path in PATHS if callable(OFFERED[path])]


@pytest.mark.parametrize("path", CALLABLE)
def test_parameters(real, path):
    ours = describe.parameters(OFFERED[path])
    theirs = real["paths"][path].get("parameters")
    if ours is None or theirs is None or path.rpartition(".")[2].startswith("__"):
        return  # an operator, or a class whose parameters its constructor does not tell
    if path.startswith("cupy.ndarray."):
        ours["positional"] = [name for name in ours["positional"] if name != "a"]  # self
    assert_fits(ours, theirs)


def assert_fits(ours: dict[str, list[str]], theirs: dict[str, list[str]]) -> None:
    """Whoever calls ours rightly calls theirs rightly."""
    count = len(ours["positional"])
    assert ours["positional"] == theirs["positional"][:count]
    assert set(ours["keyword"]) <= {*theirs["positional"], *theirs["keyword"]}


def test_most_parameters_were_readable(real):
    told = [path for path in CALLABLE if real["paths"][path].get("parameters") is not None]
    assert len(told) > 0.6 * len(CALLABLE)
    for path in (
        "cupy.RawModule",
        "cupy.RawKernel.__call__",
        "cupy.ndarray.set",
        "cupy.ndarray.reshape",
        "cupy.cuda.Stream.begin_capture",
        "cupy.cuda.Graph.launch",
        "cupy.cuda.runtime.getDeviceProperties",
        "cupy.asarray",
        "cupy.sqrt",
    ):
        assert path in told


def test_a_kernel_is_called_with_these(real):
    theirs = real["paths"]["cupy.RawKernel.__call__"]["parameters"]
    assert theirs == {"positional": ["grid", "block", "args"], "keyword": ["shared_mem"]}


def test_device_properties(real):
    assert {"name", "multiProcessorCount", "sharedMemPerBlockOptin"} <= real["in_runtime"].keys()
    assert all(real["in_runtime"].values()), real["in_runtime"]


@pytest.mark.parametrize("status", list(errors.RUNTIME_ERRORS))
def test_texts_of_errors(real, status):
    assert str(errors.CUDARuntimeError(status)) == real["errors"][str(status)]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_same_outcome(real, names, expression):
    assert describe.outcome(expression, names) == real["outcomes"][expression]


def test_a_wrong_parameter_is_noticed():
    theirs = describe.from_text("intptr_t handle, int m, size_t alpha, *, out=None")
    assert theirs == {"positional": ["handle", "m", "alpha"], "keyword": ["out"]}
    assert_fits({"positional": ["handle", "m"], "keyword": ["out"]}, theirs)
    for positional, keyword in ((["handle", "n"], []), (["m"], []), (["handle"], ["axis"])):
        with pytest.raises(AssertionError):
            assert_fits({"positional": positional, "keyword": keyword}, theirs)
