"""What a GPU would run, read without one: programs compiled to machine code, and the code's faults.

Two compilers make the cubin: NVRTC, which CuPy uses (called through ctypes, so neither CuPy nor a
driver is needed), and nvcc. cuobjdump tells the registers and the local memory of each kernel,
nvdisasm its instructions. What was learnt of a text is kept on disk, so that only what has changed
is compiled again.

A run of a compiler costs more than a small kernel, so many programs go through it as one text:
`combine` gives each a namespace of its own, and the kernels, whose C names would clash, a name.
"""

import ctypes
import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

# What the library hands to CuPy, and what CuPy adds to it (a test holds this against CuPy itself).
CUPY_OPTIONS = ("-std=c++17", "-ftz=true", "--device-as-default-execution-space")


class ToolMissing(Exception):
    """A compiler or a disassembler is not installed; the message says what to install."""


class CompileError(Exception):
    """The compiler refused the text; the message is the beginning of what it said."""

    def __init__(self, log: str) -> None:
        super().__init__("\n".join(log.splitlines()[:40]))


@dataclass(frozen=True)
class Kernel:
    """One kernel as it was compiled."""

    program: str  # the label of its program
    name: str
    registers: int  # per thread
    local_bytes: int  # per thread, of local memory: spilled registers and arrays without registers
    opcodes: dict[str, int]  # "LDG.E.128" -> how many of them stand in the code

    def count(self, pattern: re.Pattern[str]) -> int:
        """How many instructions have an opcode that the pattern is found in."""
        return sum(number for opcode, number in self.opcodes.items() if pattern.search(opcode))


@dataclass(frozen=True)
class Compiled:
    """Everything that was learnt of some programs."""

    kernels: list[Kernel]
    warnings: str


# ------------------------------------------------------------------------------- finding the tools


def nvidia_roots() -> list[Path]:
    """Where NVIDIA's wheels put their files: the folders of the namespace package `nvidia`."""
    spec = importlib.util.find_spec("nvidia")
    return [Path(root) for root in spec.submodule_search_locations or ()] if spec else []


def toolkit_roots() -> list[Path]:
    """Where a CUDA toolkit may be installed: by the environment, beside nvcc, the usual place."""
    named = [os.environ.get(variable) for variable in ("CUDA_HOME", "CUDA_PATH")]
    nvcc = shutil.which("nvcc")
    beside = [Path(nvcc).resolve().parent.parent] if nvcc else []
    return [*(Path(root) for root in named if root), *beside, Path("/usr/local/cuda")]


def nvrtc_libraries(wheels: Iterable[Path], toolkits: Iterable[Path]) -> list[Path]:
    """The NVRTC libraries there are: those of the wheels before a toolkit's, the newest first.

    CUDA 13's wheels share the folder nvidia/cu13, CUDA 12's have one each: nvidia/cuda_nvrtc.
    """
    found = [path for root in wheels for path in root.glob("c*/lib/libnvrtc.so.*")]
    found.sort(key=lambda path: int(path.name.split(".")[2]), reverse=True)
    folders = [root / lib for root in toolkits for lib in ("lib64", "targets/x86_64-linux/lib")]
    return found + [path for folder in folders for path in folder.glob("libnvrtc.so")]


def find_disassembler(name: str) -> str:
    """The path of cuobjdump or nvdisasm: a wheel's, as that reads every architecture, or PATH's."""
    in_wheels = [path for root in nvidia_roots() for path in sorted(root.glob(f"c*/bin/{name}"))]
    in_toolkits = [root / "bin" / name for root in toolkit_roots()]
    for path in [*reversed(in_wheels), shutil.which(name), *in_toolkits]:
        if path and Path(path).is_file():
            return str(path)
    raise ToolMissing(f"no {name}: pip install nvidia-cuda-{name}")


# ----------------------------------------------------------------------------------- the compilers


def nvrtc_builtins(library: Path) -> list[Path]:
    """The libraries of built-in headers that lie beside an NVRTC, which opens one by name alone.

    Those of CUDA 13.0 carry no RUNPATH, so that their own folder is not looked in.
    """
    return sorted(library.parent.glob("libnvrtc-builtins.so.*"))


def load_nvrtc(library: Path) -> ctypes.CDLL:
    """An NVRTC whose built-ins have been opened before it, as CuPy does it."""
    for builtins in nvrtc_builtins(library):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(library))


class Nvrtc:
    """The compiler that CuPy uses, as a library."""

    def __init__(self) -> None:
        libraries = nvrtc_libraries(nvidia_roots(), toolkit_roots())
        if not libraries:
            raise ToolMissing("no NVRTC: pip install nvidia-cuda-nvrtc (or nvidia-cuda-nvrtc-cu12)")
        self.library = load_nvrtc(libraries[0])
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        self.call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        size = libraries[0].stat().st_size  # tells patch releases apart, which the version does not
        self.version = f"NVRTC {major.value}.{minor.value} ({size} bytes)"
        self.call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        archs = (ctypes.c_int * count.value)()
        self.call("nvrtcGetSupportedArchs", archs)
        self.archs = set(archs)

    def call(self, function: str, *arguments: object) -> None:
        """Call a function of the library; raise what it reports."""
        status = getattr(self.library, function)(*arguments)
        if status:
            raise CompileError(self.library.nvrtcGetErrorString(status).decode())

    def options(self, arch: int) -> list[str]:
        return [*CUPY_OPTIONS, f"-arch=sm_{arch}"]

    def compile(self, text: str, arch: int) -> tuple[bytes, str]:
        """The cubin, and the compiler's warnings."""
        program = ctypes.c_void_p()
        handle = ctypes.byref(program)
        self.call("nvrtcCreateProgram", handle, text.encode(), b"programs.cu", 0, None, None)
        try:
            options = [option.encode() for option in self.options(arch)]
            vector = (ctypes.c_char_p * len(options))(*options)
            status = self.library.nvrtcCompileProgram(program, len(options), vector)
            log = self.output(program, "ProgramLog").rstrip(b"\0").decode()
            if status:
                raise CompileError(log)
            return self.output(program, "CUBIN"), log
        finally:
            self.library.nvrtcDestroyProgram(handle)

    def output(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self.call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self.call(f"nvrtcGet{what}", program, buffer)
        return buffer.raw


class Nvcc:
    """The compiler of a CUDA toolkit, as a command; it accepts and refuses other things."""

    def __init__(self) -> None:
        beside = [root / "bin/nvcc" for root in toolkit_roots() if (root / "bin/nvcc").is_file()]
        nvcc = shutil.which("nvcc") or next(map(str, beside), None)
        if nvcc is None:
            raise ToolMissing("no nvcc: install the CUDA toolkit")
        if shutil.which("g++") is None:
            raise ToolMissing("nvcc needs a C++ compiler: install g++")
        self.command = nvcc
        self.version = run(nvcc, "--version")
        self.archs = {int(arch) for arch in re.findall(r"sm_(\d+)", run(nvcc, "--list-gpu-code"))}

    def options(self, arch: int) -> list[str]:
        # The last of CuPy's options is NVRTC's alone.
        return [*CUPY_OPTIONS[:2], f"-arch=sm_{arch}"]

    def compile(self, text: str, arch: int) -> tuple[bytes, str]:
        """The cubin, and the compiler's warnings."""
        with tempfile.TemporaryDirectory() as folder:
            source, cubin = Path(folder, "programs.cu"), Path(folder, "programs.cubin")
            source.write_text(text)
            command = [self.command, "-cubin", *self.options(arch), "-o", str(cubin), str(source)]
            done = subprocess.run(command, capture_output=True, text=True)
            log = (done.stdout + done.stderr).strip()
            if done.returncode:
                raise CompileError(log)
            return cubin.read_bytes(), log


COMPILERS = {"nvrtc": Nvrtc, "nvcc": Nvcc}


@functools.cache
def compiler(name: str) -> Nvrtc | Nvcc:
    """The compiler "nvrtc" or "nvcc"; raises ToolMissing."""
    return COMPILERS[name]()


def run(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


# -------------------------------------------------------------------------- many programs, one text

BOUNDS = r"(?:__launch_bounds__\s*\(.*?\)\s*)?"
KERNEL = re.compile(
    rf'extern\s+"C"\s+__global__\s+{BOUNDS}void\s+{BOUNDS}(?!__launch_bounds__)(\w+)\s*\('
)
MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)", re.MULTILINE)


def combine(programs: Sequence[tuple[str, str]]) -> tuple[str, dict[str, tuple[str, str]]]:
    """One text with the code of all programs, and {kernel's name in it: (label, kernel's name)}."""
    names: dict[str, tuple[str, str]] = {}
    lines: list[str] = []
    for number, (label, text) in enumerate(programs):
        kernels = KERNEL.findall(text)
        for kernel in kernels:
            names[f"{kernel}_{number}"] = (label, kernel)
            lines.append(f"#define {kernel} {kernel}_{number}")
        lines += [f'#line 1 "{label}"', f"namespace program_{number} {{", text, "}"]
        # Neither these names nor a macro of the program may reach the next one.
        lines += [f"#undef {macro}" for macro in [*kernels, *MACRO.findall(text)]]
    return "\n".join(lines) + "\n", names


# ----------------------------------------------------------------------------- reading machine code

DISASSEMBLERS = ("cuobjdump", "nvdisasm")

USAGE = re.compile(r"Function (\S+):\s*REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)")
SECTION = re.compile(r"^//-+ \.text\.(\S+)\s+-+$", re.MULTILINE)
# "/*0120*/  @!P0 BRA ..." or "/*0120*/  { @P1 FADD ...": the address, a predicate, the opcode.
OPCODE = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/[\s{]+(?:@!?\w+\s+)?([A-Z][\w.]*)", re.MULTILINE)


def disassemble(cubin: bytes) -> Iterator[tuple[str, int, int, dict[str, int]]]:
    """Per kernel: its name, registers, bytes of local memory, and instructions."""
    cuobjdump, nvdisasm = map(find_disassembler, DISASSEMBLERS)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = run(cuobjdump, "--dump-resource-usage", file.name)
        sections = SECTION.split(run(nvdisasm, "-c", file.name))
    code = dict(zip(sections[1::2], sections[2::2], strict=True))
    for name, registers, stack, local in USAGE.findall(usage):
        opcodes = dict(Counter(OPCODE.findall(code[name])))
        yield name, int(registers), int(stack) + int(local), opcodes


def examine(name: str, programs: Sequence[tuple[str, str]], arch: int) -> Compiled:
    """Compile (label, text) programs for an architecture and read all kernels, or recall them."""
    tool = compiler(name)
    text, names = combine(programs)
    disassemblers = [run(find_disassembler(each), "--version") for each in DISASSEMBLERS]
    # This file is part of the key, as what is kept is what it made of the tools' output.
    parts = [Path(__file__).read_text(), tool.version, *disassemblers, *tool.options(arch), text]
    entry = cache_entry(hashlib.sha256("\0".join(parts).encode()).hexdigest())
    if entry is not None and entry.exists():
        kept = json.loads(entry.read_text())
        return Compiled([Kernel(**kernel) for kernel in kept["kernels"]], kept["warnings"])
    cubin, warnings = tool.compile(text, arch)
    read = {kernel: facts for kernel, *facts in disassemble(cubin)}
    if read.keys() != names.keys():
        raise AssertionError(f"the cubin has kernels {sorted(read)}, the text {sorted(names)}")
    kernels = [Kernel(*names[kernel], *read[kernel]) for kernel in names]
    compiled = Compiled(kernels, warnings)
    if entry is not None:
        keep(entry, json.dumps(asdict(compiled)))
    return compiled


def examine_all(name: str, programs: Sequence[tuple[str, str]], arch: int) -> Compiled:
    """The same by two threads, each with every other program."""
    halves = [half for half in (programs[0::2], programs[1::2]) if half]
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda half: examine(name, half, arch), halves))
    warnings = "\n".join(part.warnings for part in parts if part.warnings)
    return Compiled([kernel for part in parts for kernel in part.kernels], warnings)


# ------------------------------------------------------------------------------------- the memory


def cache_entry(key: str) -> Path | None:
    """The file for a key in the user's cache, or None where there is no folder to write to."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(base, "gpumlp", "cubin")
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder / f"{key}.json"


def keep(entry: Path, text: str, days: float = 14) -> None:
    """Write an entry so that no reader sees half of it; drop entries not written for long."""
    try:
        with tempfile.NamedTemporaryFile("w", dir=entry.parent, delete=False) as file:
            file.write(text)
        os.replace(file.name, entry)
        for other in entry.parent.iterdir():
            if time.time() - other.stat().st_mtime > days * 86400:
                other.unlink()
    except OSError:  # a full disk, or another process that cleans up too: only speed is lost
        return


# -------------------------------------------------------------------------------------- the rules

# Double precision arithmetic, its reciprocals (MUFU.RCP64H), and conversions from and to it.
FLOAT64 = re.compile(r"^D(ADD|MUL|FMA|MMA|SETP?|MNMX)\b|\.F64\b|64H")
# Rounding a float64 to a float32: the conversion, and a comparison to flush denormals.
ROUNDING = re.compile(r"^(F2F\.F32\.F64|DSETP)\b")
LOCAL_MEMORY = re.compile(r"^(LDL|STL)\b")
WIDE_LOAD = re.compile(r"^LDG?\b.*\.(128|256)\b")
WIDE_STORE = re.compile(r"^STG?\b.*\.(128|256)\b")


def faults(
    kernel: Kernel,
    dtype: str,
    ceiling: int,
    wide: tuple[int, int] = (0, 0),
    may_round: bool = False,
) -> list[str]:
    """Everything that is wrong with the code of a kernel, in words.

    dtype is the program's; `ceiling` limits the registers per thread; `wide` tells how many loads
    and how many stores of 128 bits there must be at least; a float32 kernel that `may_round` reads
    float64 data and converts it, but does not calculate with it.
    """
    found = []
    if kernel.registers > ceiling:
        found.append(f"{kernel.registers} registers, more than {ceiling}")
    local = kernel.count(LOCAL_MEMORY)
    if kernel.local_bytes or local:
        found.append(
            f"{kernel.local_bytes} bytes of local memory in {local} instructions: spilled "
            "registers, or an array indexed at run time"
        )
    if dtype == "float32":
        seen = [opcode for opcode in sorted(kernel.opcodes) if FLOAT64.search(opcode)]
        wrong = [opcode for opcode in seen if not (may_round and ROUNDING.search(opcode))]
        if wrong:
            number = sum(kernel.opcodes[opcode] for opcode in wrong)
            found.append(f"{number} float64 instructions: {', '.join(wrong)}")
    loads, stores = kernel.count(WIDE_LOAD), kernel.count(WIDE_STORE)
    if loads < wide[0]:
        found.append(f"{loads} loads of 128 bits, fewer than {wide[0]}")
    if stores < wide[1]:
        found.append(f"{stores} stores of 128 bits, fewer than {wide[1]}")
    return found
