"""The SIMT shim itself: right kernels give right results, and every class of defect is caught."""

import numpy as np
import pytest

from tests import simt
from tests.simt import compiler, samples, sanitize
from tests.simt.translate import TranslationError, find_kernels, translate_shared

pytestmark = pytest.mark.skipif(
    simt.why_no_compiler() is not None, reason=str(simt.why_no_compiler())
)

ORDERS = range(4)


def defects(caught_by: str) -> list:
    return [
        pytest.param(name, defect, id=f"{name}: {defect}")
        for name, sample in samples.SAMPLES.items()
        for defect, change in sample.defects.items()
        if change.caught_by == caught_by
    ]


# ------------------------------------------------------------------ samples and their defects


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", samples.SAMPLES)
def test_right_kernel_in_every_order(name, order):
    samples.run(name, None, order)


@pytest.mark.parametrize(("name", "defect"), defects("plain"))
def test_defect_is_caught_in_some_order(name, defect):
    caught = 0
    for order in ORDERS:
        try:
            samples.run(name, defect, order)
        except (simt.LaunchError, AssertionError):
            caught += 1
    assert caught


@pytest.mark.parametrize("sanitizer", compiler.SANITIZERS)
def test_right_kernels_pass_under_sanitizer(sanitizer):
    done = sanitize.run(sanitizer, ["-m", "tests.simt.samples", "0", "all"])
    assert done.returncode == 0, done.stderr
    assert "Sanitizer" not in done.stderr


@pytest.mark.parametrize(("name", "defect"), defects("address"))
def test_defect_is_caught_by_address_sanitizer(name, defect):
    done = sanitize.run("address", ["-m", "tests.simt.samples", "0", name, defect])
    assert done.returncode != 0
    assert "ERROR: AddressSanitizer" in done.stderr or "runtime error:" in done.stderr
    assert f"{name}.cu:" in done.stderr


@pytest.mark.parametrize(("name", "defect"), defects("thread"))
def test_defect_is_caught_by_thread_sanitizer(name, defect):
    done = sanitize.run("thread", ["-m", "tests.simt.samples", "0", name, defect])
    assert done.returncode != 0
    assert "WARNING: ThreadSanitizer: data race" in done.stderr
    assert f"{name}.cu:" in done.stderr


@pytest.mark.parametrize(
    ("name", "defect", "message"),
    [
        ("column_sum", "barrier in a divergent branch", r"divergent __syncthreads.* line 12"),
        ("column_sum", "exit before a barrier", r"wait at __syncthreads \(line \d+\) but \d+ have"),
        ("axpy", "a misaligned 128-bit access", r"axpy\.cu:\d+: misaligned .*float4.* of 16"),
        ("softmax", "shuffle from a lane that has exited", r"reads lane \d+, which has exited"),
        ("softmax", "a mask without the calling lane", r"0000ffff does not name the calling lane"),
    ],
)
def test_message_names_kernel_block_and_line(name, defect, message):
    with pytest.raises(simt.LaunchError, match=rf"^{name}: block \(\d+,0,0\).*{message}"):
        samples.run(name, defect, 1)


def test_last_block_differs_between_orders():
    module = simt.build(samples.LAST_BLOCK, name="last_block.cu")
    last = [samples.run_last_block(module, order) for order in ORDERS]
    assert last[0] == 4 and last[1] == 0
    assert last[2] not in (0, 4) or last[3] not in (0, 4)


def test_order_comes_from_the_environment(monkeypatch):
    module = simt.build(samples.LAST_BLOCK, name="last_block.cu")
    monkeypatch.setenv("GPUMLP_SIMT_ORDER", "1")
    assert samples.run_last_block(module, None) == 0


def test_waiting_for_lanes_that_never_come():
    text = """
    extern "C" __global__ void stuck() {
        if (threadIdx.x < 8) __syncwarp();
        else __syncthreads();
    }"""
    kernel = simt.build(text, name="stuck.cu").get_function("stuck")
    with pytest.raises(simt.LaunchError, match=r"deadlock: 24 .* 8 for lanes .*__syncwarp at line"):
        kernel((1,), (32,), ())


def test_denormals_are_flushed_as_on_the_gpu():
    text = 'extern "C" __global__ void halve(float* x) { *x *= 0.5f; }'
    kernel = simt.build(text, name="halve.cu").get_function("halve")
    for flush, expected in (True, 0), (False, np.float32(1e-38) / 2):
        x = np.array([1e-38], np.float32)
        kernel((1,), (1,), (x,), flush_denormals=flush)
        assert x[0] == expected
    assert np.float32(1e-38) / np.float32(2) > 0, "the launch has left its mode behind"


def test_float_atomics_and_nvrtc_unknown_names_do_not_compile():
    for body in "atomicAdd(x, 1.f);", "*x = INFINITY;", "*x = M_PI;", "uint32_t i = 0; *x = i;":
        text = f'extern "C" __global__ void wrong(float* x) {{ {body} }}'
        with pytest.raises(simt.BuildError, match=r"wrong\.cu:1"):
            simt.build(text, name="wrong.cu")


# ------------------------------------------------------------------ arguments

SCALE = """
extern "C" __global__ void __launch_bounds__(64) scale(float* x, const double* y, int n,
                                                       long long stride, unsigned u, float a) {
    for (int i = 0; i < n; ++i) x[i * stride] *= a + float(y[0]) + float(u);
}
"""


def scale_arguments(**changes) -> tuple:
    right = {
        "x": np.ones(3, np.float32),
        "y": np.zeros(1),
        "n": np.int32(3),
        "stride": 1,
        "u": np.uint32(0),
        "a": np.float32(2),
    }
    return tuple((right | changes).values())


def scale() -> simt.Kernel:
    return simt.build(SCALE, name="scale.cu").get_function("scale")


def test_right_arguments():
    x = np.ones(3, np.float32)
    scale()((1,), (1,), scale_arguments(x=x))
    scale()((1, 1), (1, 1, 1), list(scale_arguments(x=np.uint64(x.ctypes.data))))
    np.testing.assert_array_equal(x, 4)


def test_rows_of_a_wider_array():
    wide = np.ones((3, 5), np.float32)
    scale()((1,), (1,), scale_arguments(x=wide[:, :1], stride=5))
    np.testing.assert_array_equal(wide[:, 0], 2)
    np.testing.assert_array_equal(wide[:, 1:], 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.ones(3)}, r"argument 0 \(x\): the parameter is float\*, the array float64"),
        ({"y": np.zeros(1, np.float32)}, r"\(y\): the parameter is double\*, the array float32"),
        ({"x": 0}, r"\(x\): the parameter is float\*, the argument a Python int"),
        ({"x": None}, r"\(x\): the parameter is float\*, the argument None"),
        ({"n": 3}, r"argument 2 \(n\): .* int, .* Python int, which is passed as long long"),
        ({"n": np.uint32(3)}, r"\(n\): .* np.uint32, which is passed as unsigned"),
        ({"n": np.array([3], np.int32)}, r"\(n\): the parameter is int, .* an array of int32"),
        ({"stride": np.int32(1)}, r"\(stride\): .* is long long, the argument np.int32"),
        ({"stride": True}, r"\(stride\): .* is long long, .* passed as bool"),
        ({"u": np.int32(0)}, r"\(u\): the parameter is unsigned, the argument np.int32"),
        ({"a": 2.0}, r"argument 5 \(a\): .* float, .* Python float, which is passed as double"),
        ({"x": np.ones((3, 4), np.float32).T}, r"\(x\): an array of shape \(4, 3\) .*contiguous"),
        ({"x": np.ones(3, np.float32)[::-1]}, r"\(x\): an array .* not contiguous"),
        ({"x": np.broadcast_to(np.float32(1), (3, 2))}, r"\(x\): an array .* not contiguous"),
        ({"more": 1}, r"7 arguments for 6 parameters \(x, y, n, stride, u, a\)"),
    ],
)
def test_wrong_argument(changes, message):
    with pytest.raises(simt.ArgumentError, match="^scale: .*" + message):
        scale()((1,), (1,), scale_arguments(**changes))


@pytest.mark.parametrize(
    ("grid", "block", "shared", "message"),
    [
        (1, (1,), 0, "grid is a tuple"),
        ((0,), (1,), 0, "grid .* impossible"),
        ((1,), (65,), 0, "__launch_bounds__ allows 64"),
        ((1, 70000), (1,), 0, "grid of .* impossible"),
        ((1,), (1,), 49153, "49153 bytes of shared memory; a block has 49152"),
    ],
)
def test_impossible_launch(grid, block, shared, message):
    with pytest.raises(simt.LaunchError, match="^scale: .*" + message):
        scale()(grid, block, scale_arguments(), shared)


def test_more_shared_memory_than_a_block_has():
    text = """extern "C" __global__ void greedy() {
        __shared__ float a[12000], b[400]; a[0] = b[0]; }"""
    kernel = simt.build(text, name="greedy.cu").get_function("greedy")
    with pytest.raises(simt.LaunchError, match="49600 bytes of shared memory"):
        kernel((1,), (1,), ())


def test_more_dynamic_shared_memory_by_attribute():
    text = """extern "C" __global__ void roomy(int* x, int last) {
        extern __shared__ __align__(16) int a[]; __shared__ int b[2];
        a[last] = 7; b[1] = a[last]; x[0] = b[1]; }"""
    kernel = simt.build(text, name="roomy.cu").get_function("roomy")
    x = np.zeros(1, np.int32)
    arguments = x, np.int32(24_999)
    with pytest.raises(simt.LaunchError, match="100000 bytes of shared memory; a block has 49152"):
        kernel((1,), (1,), arguments, 100_000)
    kernel.max_dynamic_shared_size_bytes = 100_000
    kernel((1,), (1,), arguments, 100_000)
    assert x[0] == 7
    kernel.max_dynamic_shared_size_bytes = 227 << 10
    with pytest.raises(simt.LaunchError, match="232456 bytes of shared memory; a block has 232448"):
        kernel((1,), (1,), arguments, 227 << 10)


def test_unknown_kernel():
    module = simt.build(SCALE, name="scale.cu")
    with pytest.raises(KeyError, match=r"scale\.cu has no kernel 'shrink'; it has scale"):
        module.get_function("shrink")


# ------------------------------------------------------------------ translation and building


def test_kernels_are_found_however_they_are_declared():
    text = """
    extern "C" __global__ void plain(const float *x, Pair<int, long> p, int n[]);
    extern "C" __global__ __launch_bounds__(128, 2) void before() {}
    extern "C" __global__ void __launch_bounds__(2 * (32))
        after(float* __restrict__ x) {}
    __global__ void not_exported(int n) {}
    """
    plain, before, after = find_kernels(text)
    assert (plain.name, plain.parameters[:2], plain.largest_block) == ("plain", ("x", "p"), "1024")
    assert (before.name, before.parameters, before.largest_block) == ("before", (), "128")
    assert (after.name, after.parameters, after.largest_block) == ("after", ("x",), "2 * (32)")


def test_kernels_from_macros_run():
    text = """
    #define KERNEL(name, step) extern "C" __global__ void name(int* x) { *x += step; }  // {
    KERNEL(one, 1) KERNEL(two, 2)
    """
    module = simt.build(text, name="macro.cu", options=("-std=c++17", "-DUNUSED=1"))
    x = np.zeros(1, np.int32)
    for name in module.kernel_names:
        module.get_function(name)((1,), (1,), (x,))
    assert module.kernel_names == ["one", "two"] and x[0] == 3


def test_shared_declarations():
    text = "__shared__ alignas(16) Pair<int, 2> a[2][3], b;\n__shared__ volatile int c;"
    translated = translate_shared(text)
    assert "typedef Pair<int, 2> a_type[2][3];" in translated
    assert "Pair<int, 2> b_type;" in translated and "shared<b_type, 16>" in translated
    assert "typedef volatile int c_type;" in translated
    assert translated.count("\n") == text.count("\n")
    with pytest.raises(TranslationError, match="int n = 0"):
        translate_shared("__shared__ int n = 0;")


def test_compiler_error_names_the_line():
    text = '\nextern "C" __global__ void broken(int* x) {\n    *x = nothing;\n}'
    with pytest.raises(simt.BuildError, match=r"broken\.cu:3.*nothing"):
        simt.build(text, name="broken.cu")
    with pytest.raises(ValueError, match="--use_fast_math"):
        simt.build(SCALE, name="scale.cu", options=("--use_fast_math",))


def test_second_build_comes_from_the_cache(monkeypatch):
    simt.build(SCALE, name="scale.cu")
    monkeypatch.setattr(compiler, "_compile", None)
    simt.build(SCALE, name="scale.cu")
    with pytest.raises(TypeError):
        simt.build(SCALE + "// another text", name="scale.cu")


def test_build_all_keeps_the_order():
    modules = simt.build_all([("scale.cu", SCALE), ("axpy.cu", samples.AXPY)])
    assert [module.kernel_names for module in modules] == [["scale"], ["axpy"]]


def test_sanitized_program_needs_a_sanitized_process():
    with pytest.raises(simt.BuildError, match=r"simt\.sanitize\.run"):
        simt.build(SCALE, name="scale.cu", sanitize="address")
    with pytest.raises(ValueError, match="no sanitizer 'memory'"):
        simt.build(SCALE, name="scale.cu", sanitize="memory")
