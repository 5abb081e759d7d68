"""Rung 2: every CUDA program compiled for every architecture, and each kernel's code inspected.

No spills, no local memory, no float64 instruction in a float32 kernel, 128-bit loads and stores
where they are promised, and no more registers than the ceiling. A GPU is not needed.

All programs by both compilers for all architectures and dtypes would take minutes: about 12 s on
one core for each of the 20 combinations. So NVRTC, which is what compiles them for users, gets each
float32 program for all architectures, and each in float64 or with arrays in bfloat16 for two. nvcc,
the same optimiser behind another front end, gets each program for one. Which ones changes from
program to program; with GPUMLP_ALL_ARCHS=1 in the environment it is all.
"""

import ctypes
import functools
import json
import os
import shutil
import subprocess
import sys

import pytest

from gpumlp.backend.cuda import cuda_sources, persistent_kernel
from tests.helpers import cubin

ARCHS = (75, 80, 90, 100, 120)
DTYPES = ("float32", "float64")

# For how many of the architectures a program is compiled: functions of the tables take turns, and
# each architecture has every kernel.  GPUMLP_ALL_ARCHS=1 compiles all for all.
SHARE = {
    ("nvrtc", "float32"): 3,
    ("nvrtc", "float64"): 2,
    ("nvrtc", "bf16"): 2,
    ("nvcc", "float32"): 1,
    ("nvcc", "float64"): 1,
    ("nvcc", "bf16"): 1,
}

# Registers per thread. A multiprocessor has 65,536: enough for three blocks of 256 threads at 80
# each, and their loads of 16 bytes keep the memory busy; for two blocks at 128, as a float64 takes
# two registers.
CEILING = {"float32": 80, "float64": 128}

# A network that stays in shared memory has half a multiprocessor's registers, where two of them fit
# into its memory; or all that 256 threads can name.
CEILING_OF_RESIDENTS = {2: 128, 1: 255}
RESIDENTS = {
    (f"persistent-{label}", dtype): at.blocks
    for dtype in DTYPES
    for label, shape in persistent_kernel.samples(dtype)
    if (at := persistent_kernel.fit(shape, persistent_kernel.H100)) is not None
}

# Kernels whose time is memory traffic move 128 bits at a time: how many such loads and stores the
# code has at least. It is one for each array that the kernel reads or writes in all cases, one more
# for the next row's loads, and several where a thread has several packs under way.
WIDE = {
    "activate": (3, 1),  # z twice, b; n
    "backprop": (4, 1),  # delta, and n or z, twice; delta
    "gather": (0, 3),  # what it loads depends on the type of the data; x, two packs or more and one
    "scale": (3, 1),  # V twice, s; W
    "scale_gradient": (5, 1),  # G and V twice, s; G
    "sparse_product": (8, 1),  # W^T of eight non-zeros, and more; z
    "cast_bf16": (5, 5),  # four packs and one
    "prepare_update": (1, 0),  # g
    "loss": (3, 0),  # u, b, y
    "activate_rows": (6, 0),  # z and b, three times
    "accumulate_metrics": (2, 0),  # n, y
}
WIDE_IN_PROGRAM = {  # f' = 1 needs neither n nor z
    (f"layer-identity{arrays}", "backprop"): (2, 1) for arrays in ("", "-bf16", "-bf16-delta")
} | {  # theta, g and the state buffers in use; all but g
    (f"{label}{way}", "update"): (2 + sum(used), 1 + sum(used))
    for label, _, used in cuda_sources.update_rules()
    for way in ("", "-factors", "-occurring")
}

# float32 programs that round float64 data, as that is what they are for.
ROUNDS = {"gather-float64", "gather-float64-bf16"}


def examine(compiler: str, programs: list[tuple[str, str]], arch: int = 90) -> cubin.Compiled:
    """Compile and read the programs; skip where a tool is missing or does not know the GPU."""
    try:
        if arch not in cubin.compiler(compiler).archs:
            pytest.skip(f"{compiler} here does not know sm_{arch}: install that of CUDA 13")
        return cubin.examine_all(compiler, programs, arch)
    except cubin.ToolMissing as missing:
        pytest.skip(f"a tool of CUDA is not installed: {missing}")


def complaints(compiled: cubin.Compiled, dtype: str) -> list[str]:
    """What is wrong by the tables above, one line for each kernel."""
    lines = []
    for kernel in compiled.kernels:
        wide = WIDE.get(kernel.name, (0, 0))
        wide = WIDE_IN_PROGRAM.get((kernel.program, kernel.name), wide)
        rounds = kernel.program in ROUNDS
        ceiling = CEILING[dtype]
        if (kernel.program, dtype) in RESIDENTS:
            ceiling = CEILING_OF_RESIDENTS[RESIDENTS[kernel.program, dtype]]
        found = cubin.faults(kernel, dtype, ceiling, wide, rounds)
        if found:
            lines.append(f"{kernel.program}: {kernel.name}: {'; '.join(found)}")
    if compiled.warnings:
        lines.append(f"the compiler warns: {compiled.warnings}")
    return lines


def programs_for(compiler: str, arch: int, dtype: str) -> list[tuple[str, str]]:
    """The programs whose turn it is."""
    turn = ARCHS.index(arch) + 2 * DTYPES.index(dtype)
    return [
        program
        for number, program in enumerate(cuda_sources.programs(dtype))
        if (number + turn) % len(ARCHS) < share(compiler, dtype, program)
    ]


def share(compiler: str, dtype: str, program: tuple[str, str]) -> int:
    """For how many architectures a program is compiled."""
    alone = compiler == "nvrtc" and "-" not in program[0]
    if alone or os.environ.get("GPUMLP_ALL_ARCHS"):
        return len(ARCHS)
    return SHARE[compiler, "bf16" if "-bf16" in program[0] else dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("compiler", cubin.COMPILERS)
def test_machine_code(compiler, arch, dtype):
    programs = programs_for(compiler, arch, dtype)
    compiled = examine(compiler, programs, arch)
    assert {kernel.program for kernel in compiled.kernels} == {label for label, _ in programs}
    assert not (lines := complaints(compiled, dtype)), "\n".join(["", *lines])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compiler", cubin.COMPILERS)
def test_no_program_is_left_out(compiler, dtype):
    taken = [program for arch in ARCHS for program in programs_for(compiler, arch, dtype)]
    for program in cuda_sources.programs(dtype):
        assert taken.count(program) >= share(compiler, dtype, program)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("arch", ARCHS)
def test_every_kernel_is_compiled_for_every_architecture(arch, dtype):
    def kernels(programs):
        return {name for _, text in programs for name in cubin.KERNEL.findall(text)}

    assert kernels(programs_for("nvrtc", arch, dtype)) == kernels(cuda_sources.programs(dtype))


def test_tables_name_what_there_is():
    programs = [program for dtype in DTYPES for program in cuda_sources.programs(dtype)]
    kernels = [(label, name) for label, text in programs for name in cubin.KERNEL.findall(text)]
    assert {name for _, name in kernels} >= WIDE.keys()
    assert {*kernels} >= WIDE_IN_PROGRAM.keys()
    assert {label for label, _ in programs} >= ROUNDS


# ------------------------------------------------------- seeded faults, each of which must be found


def seed(signature: str, body: str, bounds: str = "") -> str:
    """A program of one kernel, in which i is the number of the thread."""
    index = "int i = blockIdx.x * blockDim.x + threadIdx.x;"
    return f'extern "C" __global__ void {bounds} {signature} {{ {index} {body} }}'


# 80 values that are alive at once: more than fit the 64 registers that 1024 threads leave to each.
HOLD = """
    float kept[80];
    #pragma unroll
    for (int j = 0; j < 80; ++j) kept[j] = x[j * 4096 + i];
    __syncthreads();
    #pragma unroll
    for (int j = 0; j < 80; ++j) x[j * 4096 + i] = kept[79 - j] * kept[0];
"""
LOOK_UP = """
    float kept[64] = {};
    for (int j = 0; j < 64; ++j) kept[which[j] & 63] += x[j];
    x[i] = kept[which[i] & 63];
"""
# Dividing 64-bit integers takes conversions to float32 and back: no fault.
SOUND = """
    float4 v = x[i], w = y[i], u = z[i];
    v.x = tanh(v.x) + float(rows[i] / size);
    v.y = exp(v.y) + sqrt(w.z);
    v.z = v.w = log(v.w) + w.x * w.y / w.w + u.x * u.y * u.z * u.w;
    x[i] = v;
"""

# name: (the dtype it stands for, the program, words of the faults that must be found)
SEEDS = {
    "sound": (
        "float32",
        seed("activate(float4* x, float4* y, float4* z, long long* rows, long long size)", SOUND),
        [],
    ),
    "sound in float64": (
        "float64",
        seed(
            "activate(double2* x, double2* y, double2* z)",
            "double2 v = x[i], w = y[i]; v.x *= 0.1 * w.y; v.y += w.x * z[i].x * z[i].y; x[i] = v;",
        ),
        [],
    ),
    "float64 literal": (
        "float32",
        seed("scale(float* x)", "x[i] = x[i] * 0.1;"),
        ["4 float64 instructions: DMUL"],
    ),
    "float64 stored": (
        "float32",
        seed("widen(float* x, double* y)", "y[i] = x[i];"),
        ["1 float64 instructions: F2F.F64.F32"],
    ),
    "float64 compared": (
        "float32",
        seed("bound(float* x, double low)", "if (x[i] < low) x[i] = 0.0f;"),
        ["float64 instructions: DSETP"],
    ),
    "float64 from an integer": (
        "float32",
        seed("convert(long long* x, double* y)", "y[i] = x[i];"),
        ["1 float64 instructions: I2F.F64"],
    ),
    "float64 rounded": (
        "float32",
        seed("round_all(double* x, float* y)", "y[i] = x[i];"),
        ["float64 instructions: DSETP.GEU.AND, F2F.F32.F64"],
    ),
    "array indexed at run time": (
        "float32",
        seed("look_up(float* x, const int* which)", LOOK_UP),
        ["256 bytes of local memory"],
    ),
    "spilled registers": (
        "float32",
        seed("hold(float* x)", HOLD, bounds="__launch_bounds__(1024)"),
        ["bytes of local memory"],
    ),
    "too many registers": (
        "float32",
        seed("hold(float* x)", HOLD),
        ["registers, more than 80"],
    ),
    "cast_bf16": (
        "float32",
        seed("backprop(float2* x)", "float2 v = x[i]; v.x += v.y; x[i] = v;"),
        ["0 loads of 128 bits, fewer than 4", "0 stores of 128 bits, fewer than 1"],
    ),
    "one array narrow": (
        "float32",
        seed(
            "backprop(float4* x, float4* y, float4* z, float* g)",
            "float4 v = x[i], w = y[i], u = z[i]; v.x += g[i] * w.x + u.x; v.y *= w.y / u.y;"
            "v.z += w.z - u.z; v.w = w.w + u.w; x[i] = v; y[i] = w = u; z[i] = v;",
        ),
        ["3 loads of 128 bits, fewer than 4"],
    ),
}


@functools.cache
def seeded(compiler: str) -> cubin.Compiled:
    return examine(compiler, [(name, text) for name, (_, text, _) in SEEDS.items()])


@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.parametrize("compiler", cubin.COMPILERS)
def test_fault_is_found(compiler, name):
    dtype, _, expected = SEEDS[name]
    compiled = seeded(compiler)
    kernels = [kernel for kernel in compiled.kernels if kernel.program == name]
    found = complaints(cubin.Compiled(kernels, compiled.warnings), dtype)
    assert bool(found) == bool(expected), found
    assert all(words in "\n".join(found) for words in expected), found


def test_only_rounding_can_be_allowed():
    [kernel] = [each for each in seeded("nvrtc").kernels if each.program == "float64 rounded"]
    assert not cubin.faults(kernel, "float32", 80, may_round=True)
    [kernel] = [each for each in seeded("nvrtc").kernels if each.program == "float64 literal"]
    assert cubin.faults(kernel, "float32", 80, may_round=True) == [
        "2 float64 instructions: DMUL, F2F.F64.F32"
    ]


@pytest.mark.parametrize("compiler", cubin.COMPILERS)
def test_warning_is_found(compiler):
    compiled = examine(compiler, [("warned", seed("idle(float* x)", "int unused; x[i] = 1.0f;"))])
    assert '"unused" was declared but never referenced' in complaints(compiled, "float32")[0]


@pytest.mark.parametrize("compiler", cubin.COMPILERS)
def test_refused_text_is_reported_with_its_program(compiler):
    with pytest.raises(cubin.CompileError, match=r'(?s)broken.*"missing" is undefined'):
        examine(compiler, [("broken", seed("fill(float* x)", "x[i] = missing;"))])


# ----------------------------------------------------------------------------- the tools themselves


@pytest.mark.parametrize("compiler", cubin.COMPILERS)
def test_programs_in_one_text_are_compiled_as_they_are_alone(compiler):
    programs = list(cuda_sources.programs("float32"))[::50]
    together = examine(compiler, programs).kernels
    alone = [kernel for program in programs for kernel in examine(compiler, [program]).kernels]
    assert sorted(together, key=repr) == sorted(alone, key=repr)


def test_kernel_that_cannot_be_renamed_is_reported():
    text = '#define KERNEL extern "C" __global__ void\nKERNEL fill(float* x) { x[0] = 1; }'
    with pytest.raises(AssertionError, match="the cubin has kernels"):
        examine("nvrtc", [("hidden", text)])


def test_kernels_are_recognised():
    text = """
        extern "C" __global__ void plain(float* x) {}
        extern "C" __global__ void __launch_bounds__(256) bounded(float* x) {}
        extern "C" __global__ void __launch_bounds__(THREADS, sizeof(Real) == 4 ? 3 : 2)
            computed(float* x) {}
        extern "C" __launch_bounds__(256) __global__ void unusual(float* x) {}
        extern "C" __global__ __launch_bounds__(256) void before(float* x) {}
        __device__ void helper(float* x) {}
    """
    assert cubin.KERNEL.findall(text) == ["plain", "bounded", "computed", "before"]


def test_results_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    programs = [("fill", seed("fill(float* x)", "x[i] = 1;"))]
    first = examine("nvrtc", programs)
    with monkeypatch.context() as patch:
        patch.setattr(cubin, "disassemble", None)  # must not be called again
        assert examine("nvrtc", programs) == first
    assert len(list(tmp_path.glob("gpumlp/cubin/*.json"))) == 1
    examine("nvrtc", programs, arch=80)
    examine("nvrtc", [("fill", seed("fill(float* x)", "x[i] = 2;"))])
    assert len(list(tmp_path.glob("gpumlp/cubin/*.json"))) == 3


def test_results_need_not_be_kept(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cubin.cache_entry("key") is None
    assert examine("nvrtc", [("fill", seed("fill(float* x)", "x[i] = 1;"))]).kernels


def test_old_results_are_dropped(tmp_path):
    old = tmp_path / "old.json"
    old.touch()
    os.utime(old, (0, 0))
    cubin.keep(tmp_path / "new.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["new.json"]


def test_nvrtc_is_found_in_the_wheels_of_either_cuda(tmp_path):
    thirteen = tmp_path / "nvidia/cu13/lib/libnvrtc.so.13"
    twelve = tmp_path / "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"
    toolkit = tmp_path / "cuda/lib64/libnvrtc.so"
    for library in (twelve, thirteen, toolkit):
        library.parent.mkdir(parents=True)
        library.touch()
    found = cubin.nvrtc_libraries([tmp_path / "nvidia"], [tmp_path / "cuda"])
    assert found == [thirteen, twelve, toolkit]


def test_nvrtc_finds_its_builtins_without_a_runpath(tmp_path):
    """A library that opens another by name, as CUDA 13.0's NVRTC does, in a folder that the loader
    does not look in."""
    if not shutil.which("gcc"):
        pytest.skip("no gcc, which makes the two libraries of this test")
    text = """
        #include <dlfcn.h>
        int found(void) { return dlopen("libnvrtc-builtins.so.99.0", RTLD_LAZY) != 0; }
    """
    built = tmp_path / "libnvrtc.so.99", tmp_path / "libnvrtc-builtins.so.99.0"
    for library, content in zip(built, (text, "int nothing;"), strict=True):
        options = ["-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-o", str(library)]
        subprocess.run(
            ["gcc", "-x", "c", *options, "-", "-ldl"], input=content, text=True, check=True
        )
    assert not ctypes.CDLL(str(built[0])).found()
    assert cubin.load_nvrtc(built[0]).found()


@pytest.mark.parametrize("compiler", cubin.COMPILERS)
def test_missing_tools_are_named(monkeypatch, compiler):
    for finder in ("nvidia_roots", "toolkit_roots"):
        monkeypatch.setattr(cubin, finder, list)
    monkeypatch.setenv("PATH", "")
    package = {"nvrtc": "nvidia-cuda-nvrtc", "nvcc": "CUDA toolkit"}[compiler]
    with pytest.raises(cubin.ToolMissing, match=package):
        cubin.COMPILERS[compiler]()
    with pytest.raises(cubin.ToolMissing, match="nvidia-cuda-nvdisasm"):
        cubin.find_disassembler("nvdisasm")


RECORD_OPTIONS = """
import json
from cupy.cuda import compiler

class Program:
    def __init__(self, *arguments, method="ptx", **named):
        self.method = method
    def compile(self, options=(), log=None):
        if self.method == "cubin":
            print(json.dumps(options))
            raise SystemExit
        return b"", None  # the version of the compiler, for CuPy's cache

compiler._NVRTCProgram = Program
compiler._get_arch_for_options_for_nvrtc = lambda arch: (f"-arch=sm_{arch}", "cubin")
compiler._compile_module_with_cache("", ("-std=c++17",), arch="90")
"""


def test_options_are_those_of_cupy(tmp_path):
    # In a process of its own: this one has a stand-in for CuPy.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RECORD_OPTIONS],
        env={**os.environ, "CUPY_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    if "No module named 'cupy'" in done.stderr:
        pytest.skip("no CuPy: pip install cupy-cuda13x")
    assert done.returncode == 0, done.stderr
    assert {*json.loads(done.stdout)} == {*cubin.CUPY_OPTIONS, "-arch=sm_90"}
