"""The stand-in for CuPy: what it does, what it refuses, what it counts."""

import copy
import gc
import importlib
import importlib.util
import pickle
import sys

import numpy as np
import pytest

from tests import simt, standin
from tests.standin import allowed, functions

KERNELS = r"""
extern "C" __global__ void axpy(const float* x, float* y, long long size, float a) {
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step)
        y[i] += a * x[i];
}
extern "C" __global__ void fill_rows(double* x, long long stride, int rows, int columns) {
    for (int i = threadIdx.x; i < rows * columns; i += blockDim.x)
        x[i / columns * stride + i % columns] = i;
}
"""

needs_compiler = pytest.mark.skipif(
    simt.why_no_compiler() is not None, reason=f"the SIMT shim: {simt.why_no_compiler()}"
)


@pytest.fixture
def cp(monkeypatch):
    return standin.install(monkeypatch)


@pytest.fixture
def x(cp):
    return cp.asarray(np.arange(12, dtype=np.float32).reshape(3, 4))


def random(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# ---------------------------------------------------------------------- installing


def test_install_and_uninstall_put_back_what_was_there():
    before = cupy_modules()
    cupy = standin.install()
    try:
        assert importlib.import_module("cupy") is cupy
        assert importlib.import_module("cupy.cuda.device") is cupy.cuda.device
        assert importlib.util.find_spec("cupy") is not None
    finally:
        standin.uninstall()
    assert cupy_modules() == before


def cupy_modules() -> dict[str, object]:
    return {name: module for name, module in sys.modules.items() if name.startswith("cupy")}


def test_installations_nest():
    before = cupy_modules()
    outer = standin.install(devices=2)
    kept = outer.zeros(10)
    with pytest.MonkeyPatch.context() as patch:
        assert standin.install(patch, devices=3) is not outer
        assert outer.cuda.runtime.getDeviceCount() == 3
        assert outer.cuda.runtime.memGetInfo()[0] == standin.machine.memory
        inner = standin.install(memory=64)
        assert sys.modules["cupy"] is inner
        standin.uninstall()
    try:
        assert sys.modules["cupy"] is outer
        assert outer.cuda.runtime.getDeviceCount() == 2
        assert standin.counters.current_bytes == kept.nbytes
        assert standin.machine.used == {0: kept.nbytes}
    finally:
        standin.uninstall()
    assert cupy_modules() == before


@pytest.mark.parametrize("path", ["linalg", "einsum", "matmul", "random", "RawKernel"])
def test_what_is_not_listed_is_refused(cp, path):
    with pytest.raises(AttributeError, match=f"no cupy.{path}; what the library may use"):
        getattr(cp, path)


def test_methods_that_are_not_listed_are_refused(x):
    for name in ("tofile", "ctypes", "dot", "__array_interface__"):
        with pytest.raises(AttributeError, match=name):
            getattr(x, name)


# ---------------------------------------------------------------------- no usable device


def test_no_device(monkeypatch):
    cp = standin.install(monkeypatch, devices=0)
    for call in (
        cp.cuda.runtime.getDeviceCount,
        cp.cuda.runtime.memGetInfo,
        cp.cuda.get_current_stream,
        cp.cuda.Stream,
        lambda: cp.zeros(1),
        lambda: cp.asarray([1.0]),
        lambda: cp.cuda.Device(0).use(),
    ):
        with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="cudaErrorNoDevice"):
            call()


def test_old_driver(monkeypatch):
    cp = standin.install(monkeypatch, error=35, driver_version=11040)
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="InsufficientDriver") as raised:
        cp.cuda.runtime.getDeviceCount()
    assert raised.value.status == 35
    assert cp.cuda.runtime.driverGetVersion() == 11040
    assert cp.cuda.runtime.runtimeGetVersion() == 13020


@pytest.mark.parametrize("patched", [True, False])
def test_broken_cupy(patched):
    error = ImportError("libcudart.so.13: cannot open shared object file")
    with pytest.MonkeyPatch.context() as patch:
        assert standin.install(patch if patched else None, error=error) is None
        try:
            with pytest.raises(ImportError, match="libcudart"):
                importlib.import_module("cupy")
        finally:
            if not patched:
                standin.uninstall()
    assert all(type(hook).__name__ != "_BrokenCuPy" for hook in sys.meta_path)


# ---------------------------------------------------------------------- arrays


def test_fresh_memory_is_poisoned_and_aligned(cp):
    for dtype in (np.float32, np.float64):
        assert np.isnan(cp.empty((3, 5), dtype).get()).all()
    assert (cp.empty(7, np.int32).get() == -1).all()
    assert cp.empty(1).data.ptr % 512 == 0


# CuPy's __array__ does not take NumPy's `copy` either.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    "mix",
    [
        lambda x, h: x + h,
        lambda x, h: h + x,
        lambda x, h: x.__iadd__(h),
        lambda x, h: np.multiply(h, x, out=h),
        lambda x, h: h.__imul__(x),
        lambda x, h: x < h,
        lambda x, h: x * [1.0, 2.0, 3.0, 4.0],
        lambda x, h: x == None,  # noqa: E711
        lambda x, h: np.sum(x),
        lambda x, h: np.concatenate([x, h]),
        lambda x, h: np.add.reduce(x),
        lambda x, h: np.asarray(x),
        lambda x, h: h.__setitem__(slice(None), x),
        lambda x, h: x @ x,
    ],
)
def test_host_and_device_do_not_mix(x, mix):
    with pytest.raises(TypeError):
        mix(x, np.ones((3, 4), np.float32))


def test_copies_and_pickles(monkeypatch):
    """A copy stays on its device; a pickle goes by way of the host to the current one."""
    cp = standin.install(monkeypatch, devices=2)
    with cp.cuda.Device(1):
        x = cp.asarray(np.arange(12.0).reshape(3, 4))
    for other in (copy.copy(x[1:]), copy.deepcopy(x[1:])):
        assert (other.device.id, other.base) == (1, None)
        assert np.array_equal(other.get(), x[1:].get())
    with standin.count() as c:
        other = pickle.loads(pickle.dumps(x))
    assert (c.d2h, c.h2d, other.device.id) == (1, 1, 0)
    assert np.array_equal(other.get(), x.get())


@pytest.mark.parametrize("name", ["sqrt", "add", "sum", "argmax", "where", "take", "sort"])
def test_functions_refuse_host_arrays(cp, x, name):
    h = np.ones((3, 4), np.float32)
    arguments = {"add": (x, h), "where": (h > 0, x, x), "take": (x, np.array([0]))}
    with pytest.raises(TypeError, match="Unsupported type"):
        getattr(cp, name)(*arguments.get(name, (h,)))


@pytest.mark.parametrize("index", [[0, 1], np.array([0, 1]), np.ones((3, 4), bool), True])
def test_indices_that_need_a_copy_are_refused(x, index):
    with pytest.raises(NotImplementedError, match=r"cupy\.take"):
        x[index]


def test_a_number_under_a_mask(x):
    with standin.count() as c:
        mask = x > 5
        x[mask] = -1.0
    assert np.array_equal(x.get(), np.where(np.arange(12) > 5, -1, np.arange(12)).reshape(3, 4))
    assert (c.elementwise, c.synchronisations) == (2, 0)
    with pytest.raises(ValueError, match="cannot be used for fill"):
        x[mask] = x[0]
    with pytest.raises(NotImplementedError):
        x[mask[0]] = 0.0


def test_views_share_memory(cp, x):
    x[1:, ::2] = 0.0
    x[0] = x[1]
    x.T[3, 2] = -1.0
    x[2, 1] += 2
    expected = [[0, 5, 0, 7], [0, 5, 0, 7], [0, 11, 0, -1]]
    assert np.array_equal(x.get(), expected)
    assert x[2, 3].ndim == 0
    assert cp.may_share_memory(x, x[1:])


def test_operators_are_numpys(cp):
    a, b = random(3, 5), random(5, seed=1)
    da, db = cp.asarray(a), cp.asarray(b)
    for device, host in [
        (da + db, a + b),
        (2 - da, 2 - a),
        (np.float32(2) / da, np.float32(2) / a),
        (da * np.float64(2), a * np.float64(2)),
        (da**2, a**2),
        (-da, -a),
        (abs(da), abs(a)),
        (da > db, a > b),
        ((da > 0) & ~(da > 1), (a > 0) & ~(a > 1)),
        (da.T + 1, a.T + 1),
        (da.sum(axis=1, keepdims=True), a.sum(axis=1, keepdims=True)),
        (da.astype(np.int32), a.astype(np.int32)),
    ]:
        assert device.dtype == host.dtype
        assert device.strides == host.strides
        assert np.array_equal(device.get(), host)
    with pytest.raises(TypeError, match="cast"):
        cp.arange(3).__iadd__(0.5)


@pytest.mark.parametrize("name", sorted(allowed.ELEMENTWISE))
def test_elementwise(cp, name):
    ufunc = allowed.ELEMENTWISE[name]
    integers = "shift" in name or "bitwise" in name or name == "invert"
    operands = [np.arange(1, 7, dtype=np.int32 if integers else np.float64)] * ufunc.nin
    device = [cp.asarray(operand) for operand in operands]
    expected = ufunc(*operands)
    assert np.array_equal(getattr(cp, name)(*device).get(), expected)
    out = cp.empty(6, expected.dtype)
    assert getattr(cp, name)(*device, out=out) is out
    assert np.array_equal(out.get(), expected)


@pytest.mark.parametrize("name", [*allowed.SUMS, *allowed.EXTREMES, *allowed.POSITIONS])
def test_reductions_give_arrays(cp, name):
    host = random(4, 7)
    device = cp.asarray(host)
    for axis in (None, 0, -1):
        result = getattr(cp, name)(device, axis)
        assert isinstance(result, cp.ndarray)
        assert np.array_equal(result.get(), getattr(np, name)(host, axis))
        assert np.array_equal(getattr(device, name)(axis=axis).get(), result.get())


def test_other_functions(cp):
    a = random(3, 4)
    d = cp.asarray(a)
    index = cp.asarray(np.array([2, 0]))
    for device, host in [
        (cp.where(d > 0, d, 0.0), np.where(a > 0, a, np.float32(0))),
        (cp.take(d, index, axis=0), a[[2, 0]]),
        (cp.sort(d, axis=0), np.sort(a, axis=0)),
        (cp.concatenate([d, d], axis=1), np.concatenate([a, a], axis=1)),
        (cp.stack([d, d]), np.stack([a, a])),
        (cp.moveaxis(d, 0, 1), a.T),
        (cp.expand_dims(d, 0), a[None]),
        (cp.broadcast_to(d, (2, 3, 4)), np.broadcast_to(a, (2, 3, 4))),
        (cp.ascontiguousarray(d.T), np.ascontiguousarray(a.T)),
        (cp.arange(3), np.arange(3)),
        (cp.arange(1, 2, 0.25, dtype=np.float32), np.arange(1, 2, 0.25, dtype=np.float32)),
        (cp.zeros(3, np.int32), np.zeros(3, np.int32)),
        (cp.ones((2, 3)), np.ones((2, 3))),
        (cp.full((2, 3), 7.0), np.full((2, 3), 7.0)),
        (cp.zeros_like(d), np.zeros_like(a)),
        (cp.ones_like(d), np.ones_like(a)),
        (cp.full_like(d, 2), np.full_like(a, 2)),
        (cp.array(d, dtype=np.float64), a.astype(np.float64)),
        (d.T.reshape(-1), a.T.reshape(-1)),
        (d.T.ravel(), a.T.ravel()),
        (d.view(np.int32), a.view(np.int32)),
        (d[None].squeeze(), a),
    ]:
        assert device.dtype == host.dtype
        assert np.array_equal(device.get(), host)
    with pytest.raises(IndexError):
        cp.take(d, cp.asarray(np.array([3])), axis=0)
    assert set(functions.table()) >= {"where", "take", "sum", "sqrt", "float32", "copyto"}


def test_copyto(cp, x):
    y = cp.zeros((3, 4))
    cp.copyto(y, x)
    assert np.array_equal(y.get(), x.get())
    cp.copyto(y, 5.0, where=x > 5)
    assert np.array_equal(y.get(), np.where(x.get() > 5, 5, x.get()))
    with pytest.raises(TypeError, match="Cannot cast float64 to int32"):
        cp.copyto(cp.zeros((3, 4), np.int32), y)
    with pytest.raises(ValueError, match="broadcast"):
        cp.copyto(y, x[:, :3])


def test_scalars_of_an_array(x):
    assert float(x[0, 1]) == 1.0
    assert int(x[1, 0]) == 4
    assert bool(x[0, 1])
    assert x.sum().item() == 66.0
    assert type(x.sum().item()) is float


def test_columns_first_stays_columns_first(cp):
    host = np.asfortranarray(random(3, 4))
    assert cp.asarray(host).strides == host.strides
    assert cp.ascontiguousarray(cp.asarray(host)).flags.c_contiguous


def test_to_the_host(cp, x):
    out = np.empty((3, 4), np.float32)
    assert x.get(out=out) is out
    assert np.array_equal(out, cp.asnumpy(x))
    assert np.array_equal(x.T.get(), out.T)
    assert np.array_equal(x[:, ::2].get(), out[:, ::2])
    with pytest.raises(ValueError, match="out is"):
        x.get(out=np.empty((3, 4)))
    out[:] = 0
    assert x.sum().item() == 66.0  # a copy


# ---------------------------------------------------------------------- other libraries


class Foreign:
    """An array of another library, on the same device."""

    def __init__(self, array, protocol):
        self._array = array
        if protocol == "interface":
            self.__cuda_array_interface__ = array.__cuda_array_interface__
        else:
            self.__dlpack__ = array.__dlpack__
            self.__dlpack_device__ = array.__dlpack_device__


@pytest.mark.parametrize("protocol", ["interface", "dlpack"])
@pytest.mark.parametrize("transposed", [False, True])
def test_exchange_without_a_copy(cp, x, protocol, transposed):
    source = x.T if transposed else x
    foreign = Foreign(source, protocol)
    with standin.count() as c:
        mine = cp.asarray(foreign) if protocol == "interface" else cp.from_dlpack(foreign)
        mine[0, 0] = 42.0
    assert (c.h2d, c.d2h, c.allocations) == (0, 0, 0)
    assert mine.strides == source.strides
    assert source[0, 0].item() == 42.0


def test_cpu_libraries_refuse_a_device_capsule(cp, x):
    # NumPy 2.5 raises what the array API's standard asks for, BufferError.
    with pytest.raises((RuntimeError, BufferError), match="device"):
        np.from_dlpack(x)
    with pytest.raises(TypeError, match="CPU arrays cannot be directly imported"):
        cp.from_dlpack(np.ones(3))
    assert x.__dlpack_device__() == (2, 0)
    with pytest.raises(BufferError):
        x.__dlpack__(dl_device=(1, 0))


def test_the_other_library_keeps_the_memory(cp):
    view = cp.from_dlpack(Foreign(cp.full(4, 3.0), "dlpack"))
    gc.collect()
    assert np.array_equal(view.get(), [3.0] * 4)


# ---------------------------------------------------------------------- memory


def test_memory_in_use(cp):
    total = cp.cuda.runtime.memGetInfo()[1]
    pool = cp.get_default_memory_pool()
    with standin.count() as c:
        a = cp.empty(1000, np.float32)
        view = a[10:]
        b = cp.zeros(500)
        assert cp.cuda.runtime.memGetInfo() == (total - 8000, total)
        del a
        assert c.current_bytes == 8000  # the view keeps it
        assert (pool.used_bytes(), pool.total_bytes(), pool.free_bytes()) == (8000, 8000, 0)
        del view, b
        assert c.current_bytes == 0
        assert (pool.used_bytes(), pool.total_bytes(), pool.free_bytes()) == (0, 8000, 8000)
        assert cp.cuda.runtime.memGetInfo() == (total - 8000, total)
        pool.free_all_blocks()
        assert cp.cuda.runtime.memGetInfo() == (total, total)
    assert (c.allocations, c.allocated_bytes, c.peak_bytes, c.current_bytes) == (2, 8000, 8000, 0)


def test_a_block_of_the_pool_that_is_in_use_in_part(monkeypatch):
    """Small arrays may have its rest, a large one may not."""
    cp = standin.install(monkeypatch, memory=10_000)
    pool = cp.get_default_memory_pool()
    large = cp.empty(8000, np.uint8)
    del large
    small = cp.empty(1000, np.uint8)  # cut from it
    pool.free_all_blocks()
    assert (pool.used_bytes(), pool.free_bytes()) == (1000, 7000)
    with pytest.raises(cp.cuda.memory.OutOfMemoryError):
        cp.empty(7001, np.uint8)
    others = [cp.empty(3500, np.uint8) for _ in range(2)]
    assert (pool.used_bytes(), pool.total_bytes()) == (8000, 8000)
    del others, small
    assert len(cp.empty(10_000, np.uint8)) == 10_000  # the pool gives back what it can


def test_out_of_memory(monkeypatch):
    cp = standin.install(monkeypatch, memory=1 << 20)
    kept = cp.zeros(1 << 19, np.uint8)
    with pytest.raises(cp.cuda.memory.OutOfMemoryError, match=r"allocating 1,048,576 .* 524,288"):
        cp.empty(1 << 18, np.float32)
    standin.machine.memory = 4 << 20
    assert cp.empty(1 << 18, np.float32).size == 1 << 18
    assert isinstance(cp.cuda.memory.OutOfMemoryError(1, 2), MemoryError)
    assert kept.nbytes == 1 << 19


# ---------------------------------------------------------------------- counters


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (lambda cp, x: cp.asarray(np.ones(3)), {"h2d": 1, "allocations": 1}),
        (lambda cp, x: cp.asarray(x), {}),
        (lambda cp, x: cp.ascontiguousarray(x), {}),
        (lambda cp, x: x.set(np.ones((3, 4), np.float32)), {"h2d": 1}),
        (lambda cp, x: x.get(), {"d2h": 1, "synchronisations": 1}),
        (lambda cp, x: cp.asnumpy(x), {"d2h": 1, "synchronisations": 1}),
        (lambda cp, x: x[0, 0].item(), {"d2h": 1, "synchronisations": 1}),
        (lambda cp, x: float(x[0, 0]), {"d2h": 1, "synchronisations": 1}),
        (lambda cp, x: bool(x[0, 0]), {"d2h": 1, "synchronisations": 1}),
        (
            lambda cp, x: x[:, 1:].get(),
            {"d2d": 1, "allocations": 1, "d2h": 1, "synchronisations": 1},
        ),
        (lambda cp, x: x[1:].reshape(-1), {}),
        (lambda cp, x: x.T.reshape(-1), {"d2d": 1, "allocations": 1}),
        (lambda cp, x: x + 1, {"elementwise": 1, "allocations": 1}),
        (lambda cp, x: x.__iadd__(1), {"elementwise": 1}),
        (lambda cp, x: cp.sqrt(x, out=x), {"elementwise": 1}),
        (lambda cp, x: x.sum(), {"elementwise": 1, "allocations": 1}),
        (lambda cp, x: x.fill(0), {"elementwise": 1}),
        (lambda cp, x: cp.zeros(3), {"elementwise": 1, "allocations": 1}),
        (lambda cp, x: cp.empty(3), {"allocations": 1}),
        (lambda cp, x: x.astype(np.float64), {"elementwise": 1, "allocations": 1}),
        (lambda cp, x: x.copy(), {"d2d": 1, "allocations": 1}),
        (lambda cp, x: x.__setitem__(0, x[1]), {"d2d": 1}),
        (lambda cp, x: x.__setitem__(0, 1.0), {"elementwise": 1}),
        (lambda cp, x: cp.copyto(x[0], x[1]), {"d2d": 1}),
        (lambda cp, x: cp.cuda.get_current_stream().synchronize(), {"synchronisations": 1}),
        (lambda cp, x: cp.cuda.Event().synchronize(), {"waits": 1}),
        (lambda cp, x: repr(x), {}),
    ],
)
def test_what_is_counted(cp, x, work, expected):
    with standin.count() as c:
        work(cp, x)
    names = ("h2d", "d2h", "d2d", "elementwise", "allocations", "synchronisations", "waits")
    counted = {name: getattr(c, name) for name in names if getattr(c, name)}
    assert counted == expected
    assert (c.launches, c.gemms) == (0, 0)


def test_counters_nest_and_reset(cp):
    with standin.count() as outer:
        kept = cp.zeros(4)
        with standin.count() as inner:
            kept += 1
        kept += 1
    kept += 1
    assert (outer.elementwise, inner.elementwise, standin.counters.elementwise) == (3, 1, 4)
    before = standin.counters.snapshot()
    standin.counters.reset()
    assert before.elementwise == 4
    assert (standin.counters.elementwise, standin.counters.current_bytes) == (0, 32)
    assert standin.counters.peak_bytes == 32


# ---------------------------------------------------------------------- kernels


@needs_compiler
def test_a_kernel_runs_and_is_counted(cp):
    a, b = random(1000), random(1000, seed=1)
    da, db = cp.asarray(a), cp.asarray(b)
    kernel = cp.RawModule(code=KERNELS, options=("-std=c++17",)).get_function("axpy")
    with standin.count() as c:
        kernel((3,), (64,), (da, db, np.int64(1000), np.float32(2)))
        kernel((3,), (64,), (da, db, 1000, np.float32(-1)))  # a Python int is an int64
    assert (c.launches, c.kernels) == (2, ["axpy", "axpy"])
    assert (c.elementwise, c.h2d, c.d2h, c.allocations) == (0, 0, 0, 0)
    assert np.allclose(db.get(), b + a, atol=1e-5)


@needs_compiler
def test_a_kernel_takes_rows_of_a_wider_array(cp):
    wide = cp.zeros((3, 10))
    kernel = cp.RawModule(code=KERNELS).get_function("fill_rows")
    kernel((1,), (32,), (wide[:, 2:6], np.int64(10), np.int32(3), np.int32(4)))
    expected = np.zeros((3, 10))
    expected[:, 2:6] = np.arange(12).reshape(3, 4)
    assert np.array_equal(wide.get(), expected)
    for bad in (wide.T, wide[:, ::2], cp.zeros((2, 3, 4)).transpose(0, 2, 1), wide[::-1, :4]):
        with pytest.raises(TypeError, match="not contiguous in all but its leading"):
            kernel((1,), (32,), (bad, np.int64(10), np.int32(3), np.int32(4)))


@needs_compiler
def test_arguments_of_a_kernel(cp):
    x, y = cp.zeros(4, np.float32), cp.zeros(4, np.float32)
    kernel = cp.RawModule(code=KERNELS).get_function("axpy")
    size, a = np.int64(4), np.float32(1)
    for bad in (
        (x, y, size, 1.0),  # Python's float is a double
        (x, y, np.int32(4), a),
        (x, np.zeros(4, np.float32), size, a),
        (x, None, size, a),
        (x, y.astype(np.float64), size, a),
        (x, y, size),
    ):
        with pytest.raises(TypeError):
            kernel((1,), (32,), bad)
    with pytest.raises(TypeError, match="block must be a tuple"):
        kernel((1,), 32, (x, y, size, a))
    with pytest.raises(TypeError, match="grid must hold ints"):
        kernel((1.0,), (32,), (x, y, size, a))
    with pytest.raises(RuntimeError, match="threads"):
        kernel((1,), (2048,), (x, y, size, a))
    with pytest.raises(RuntimeError, match="a grid of"):
        kernel((1, 65536), (32,), (x, y, size, a))
    with pytest.raises(RuntimeError, match="shared memory"):
        kernel((1,), (32,), (x, y, size, a), shared_mem=60_000)


@needs_compiler
def test_a_kernel_is_given_more_shared_memory(cp):
    x, y = cp.ones(4, np.float32), cp.zeros(4, np.float32)
    kernel = cp.RawModule(code=KERNELS).get_function("axpy")
    most = cp.cuda.Device(0).attributes["MaxSharedMemoryPerBlockOptin"]
    kernel.max_dynamic_shared_size_bytes = most
    kernel((1,), (32,), (x, y, np.int64(4), np.float32(1)), shared_mem=most)
    assert np.array_equal(y.get(), np.ones(4))
    with pytest.raises(RuntimeError, match="shared memory"):
        kernel.max_dynamic_shared_size_bytes = most + 1
    assert kernel.preferred_shared_memory_carveout == -1
    kernel.preferred_shared_memory_carveout = 100
    with pytest.raises(RuntimeError, match="101 per cent"):
        kernel.preferred_shared_memory_carveout = 101
    assert kernel.preferred_shared_memory_carveout == 100


@needs_compiler
def test_addresses_as_arguments(cp):
    x, y = cp.ones(4, np.float32), cp.zeros(4, np.float32)
    kernel = cp.RawModule(code=KERNELS).get_function("axpy")
    size, a = np.int64(4), np.float32(1)
    kernel((1,), (32,), (np.uint64(x.data.ptr), y, size, a))
    assert np.array_equal(y.get(), [1, 1, 1, 1])
    kernel((0,), (32,), (np.uint64(0), y, np.int64(0), a))  # a null pointer; CuPy makes the 0 a 1
    host = np.zeros(4, np.float32)
    with pytest.raises(RuntimeError, match="not inside one live allocation"):
        kernel((1,), (32,), (np.uint64(host.ctypes.data), y, size, a))


@needs_compiler
def test_arguments_are_checked_while_capturing(cp):
    x = cp.zeros(4, np.float32)
    kernel = cp.RawModule(code=KERNELS).get_function("axpy")
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(TypeError):
            kernel((1,), (32,), (x, x, np.int64(4), 1.0))
        stream.end_capture()


# ---------------------------------------------------------------------- graphs


@needs_compiler
def test_a_graph_replays(cp):
    x, y, z = cp.ones(8, np.float32), cp.zeros(8, np.float32), cp.zeros(8, np.float32)
    kernel = cp.RawModule(code=KERNELS).get_function("axpy")
    stream = cp.cuda.Stream(non_blocking=True)
    with standin.count() as c, stream:
        stream.begin_capture()
        assert stream.is_capturing()
        kernel((1,), (32,), (x, y, np.int64(8), np.float32(3)))
        cp.multiply(y, 2, out=y)
        cp.copyto(z, y)
        x.fill(10)
        graph = stream.end_capture()
    assert (c.launches, c.elementwise, c.d2d, c.graphs) == (0, 0, 0, 0)
    assert y.sum().item() == 0  # recorded, not done
    with standin.count() as c:
        graph.launch(stream)
        assert np.array_equal(z.get(), np.full(8, 6))
        graph.launch()
        assert np.array_equal(z.get(), np.full(8, (6 + 30) * 2))
    assert (c.launches, c.elementwise, c.d2d, c.graphs) == (2, 4, 2, 2)


@pytest.mark.parametrize(
    ("work", "error"),
    [
        (lambda cp, x: x.get(), "synchronous API calls are disallowed"),
        (lambda cp, x: x[0, 0].item(), "synchronous API calls are disallowed"),
        (lambda cp, x: cp.asarray(np.ones(3)), "synchronous API calls are disallowed"),
        (lambda cp, x: x.set(np.ones((3, 4), np.float32)), "synchronous API calls are disallowed"),
        (lambda cp, x: cp.empty(3), "an allocation"),
        (lambda cp, x: x + 1, "an allocation"),
        (lambda cp, x: x.sum(), "an allocation"),
        (lambda cp, x: cp.cuda.Event().synchronize(), "synchronous API calls are disallowed"),
        (lambda cp, x: cp.cuda.get_current_stream().begin_capture(), "cudaErrorIllegalState"),
    ],
)
def test_refused_while_capturing(cp, x, work, error):
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match=error):
            work(cp, x)
        stream.end_capture()


def test_synchronising_spoils_the_capture(cp):
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="CaptureUnsupported"):
            stream.synchronize()
        with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="CaptureInvalidated"):
            stream.end_capture()
    assert not stream.is_capturing()


def test_only_the_current_stream_records(cp):
    x = cp.zeros(2)
    stream = cp.cuda.Stream(non_blocking=True)
    stream.begin_capture()
    x += 1  # on the default stream
    graph = stream.end_capture()
    graph.launch()
    assert np.array_equal(x.get(), [1, 1])
    assert cp.cuda.get_current_stream() == cp.cuda.Stream.null


def test_a_graph_does_not_keep_its_arrays(cp):
    x = cp.zeros(2)
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        x += 1
        graph = stream.end_capture()
    graph.launch()
    del x
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="freed: keep a reference"):
        graph.launch()


def test_streams_and_events(cp):
    assert cp.cuda.get_current_stream() is cp.cuda.Stream.null
    stream = cp.cuda.Stream(non_blocking=True)
    start, end = cp.cuda.Event(), cp.cuda.Event()
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="InvalidResourceHandle"):
        cp.cuda.get_elapsed_time(start, end)
    with stream:
        assert cp.cuda.get_current_stream() is stream
        start.record()
        end.record(stream)
    assert cp.cuda.get_current_stream() is cp.cuda.Stream.null
    assert cp.cuda.get_elapsed_time(start, end) >= 0
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="IllegalState"):
        stream.end_capture()


# ---------------------------------------------------------------------- several devices


def test_arrays_know_their_device(monkeypatch):
    cp = standin.install(monkeypatch, devices=2)
    assert cp.cuda.runtime.getDeviceCount() == 2
    with cp.cuda.Device(1):
        x = cp.ones(3)
        assert cp.cuda.runtime.getDevice() == 1
    assert x.device.id == 1
    assert x.data.device.id == 1
    with pytest.raises(ValueError, match="array device = 1 while current = 0"):
        x + 1
    with pytest.raises(ValueError, match="array device = 1 while current = 0"):
        cp.sum(x)
    y = cp.zeros(3)
    cp.copyto(y, x)  # the only thing that goes across
    assert np.array_equal(y.get(), [1, 1, 1])
    free, total = cp.cuda.Device(1).mem_info
    assert total - free == 24


def test_streams_belong_to_a_device(monkeypatch):
    cp = standin.install(monkeypatch, devices=2)
    stream = cp.cuda.Stream(non_blocking=True)
    with cp.cuda.Device(1), pytest.raises(RuntimeError, match="stream of device 0"):
        stream.use()
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="invalid device ordinal"):
        cp.cuda.Device(2).use()


def test_properties(cp):
    properties = cp.cuda.runtime.getDeviceProperties(0)
    assert isinstance(properties["name"], bytes)
    assert (properties["major"], properties["minor"]) == (9, 0)
    assert cp.cuda.Device(0).compute_capability == "90"
    assert properties["sharedMemPerBlockOptin"] > properties["sharedMemPerBlock"]
    assert properties["multiProcessorCount"] > 0
