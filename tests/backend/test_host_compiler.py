"""C++ compiled at first use: what is cached, what is refused, and life without a compiler."""

import ctypes
import dataclasses
import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gpumlp import backend
from gpumlp.backend.cpu import compiler, processor
from gpumlp.backend.cpu.host_ops import HostOps
from gpumlp.backend.reference.numpy_ops import NumpyOps
from gpumlp.functions.activation import activations
from gpumlp.utils import cache as kept
from tests.helpers import host
from tests.helpers.spoiling import WAYS_TO_SPOIL
from tests.helpers.waiting import HANGS, has_ended, until

CXX = next(filter(None, map(shutil.which, compiler.COMPILERS)), None)
needs_compiler = pytest.mark.skipif(CXX is None, reason="no C++ compiler was found")

TOOLCHAIN = [field.name for field in dataclasses.fields(compiler.Toolchain)]
TWICE = 'extern "C" double twice(double a) { return 2 * a; }'
THRICE = 'extern "C" double thrice(double a) { return 3 * a; }'


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """fresh() makes this process as one that has compiled nothing; its cache is empty at first."""

    host.forget(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv(compiler.VARIABLE, raising=False)
    return lambda: host.forget(monkeypatch)


@pytest.fixture
def cache(fresh, tmp_path):
    return tmp_path / "gpumlp" / "host"


@pytest.fixture
def wrapped(fresh, monkeypatch, tmp_path):
    """A compiler that notes its calls: wrapped(what it does first) -> the list of calls so far."""

    def make(first=""):
        script, log = tmp_path / "cxx", tmp_path / "calls"
        script.write_text(f'#!/bin/sh\necho "$@" >> {log}\n{first}\nexec {CXX} "$@"\n')
        script.chmod(0o755)
        monkeypatch.setenv("CXX", str(script))
        return lambda: log.read_text().splitlines() if log.exists() else []

    return make


def twice(library, a):
    library.twice.restype, library.twice.argtypes = ctypes.c_double, [ctypes.c_double]
    return library.twice(a)


def in_a_process(code, **kwargs):
    """Runs code in a fresh interpreter; what it printed."""
    imports = "import ctypes, os, sys\nfrom gpumlp.backend.cpu import compiler\n"
    code = f"{imports}{textwrap.dedent(code)}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=HANGS, **kwargs
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_compiler
def test_a_function_is_compiled_and_called(fresh, cache):
    assert twice(compiler.library(TWICE), 21.5) == 43
    assert compiler.problem() is None and compiler.remedy() is None
    assert len(list(cache.glob("*.so"))) == 1
    assert not [path for path in cache.iterdir() if path.name.startswith(".")]
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


@needs_compiler
def test_a_library_is_asked_for_once(fresh):
    assert compiler.library(TWICE) is compiler.library(TWICE)


@needs_compiler
def test_what_is_cached_starts_no_compiler(fresh, wrapped):
    calls = wrapped()
    compiler.library(TWICE)
    assert len(calls()) == 3  # its version, a probe, the library
    fresh()
    assert twice(compiler.library(TWICE), 2) == 4
    assert len(calls()) == 3
    compiler.library(THRICE)
    assert len(calls()) == 4


@needs_compiler
def test_several_are_compiled_at_the_same_time(fresh, wrapped, tmp_path):
    # Each waits until the other has been started too; for 100 s, as nobody ends it where the tests
    # are killed: it has a process group of its own.
    both = tmp_path / "both"
    meet = f"""echo >> {both}
        for i in $(seq 5000); do test $(wc -l < {both}) -lt 2 || break; sleep 0.02; done
        test $(wc -l < {both}) -eq 2 || exit 1"""
    wrapped(f'case "$*" in *library.cpp*)\n{meet};; esac')
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(compiler.library, [TWICE, THRICE])
    assert twice(first, 1) == 2
    second.thrice.restype, second.thrice.argtypes = ctypes.c_double, [ctypes.c_double]
    assert second.thrice(1) == 3


@needs_compiler
def test_threads_that_ask_at_once_get_the_same(fresh, wrapped):
    calls = wrapped()
    got = []
    threads = [threading.Thread(target=lambda: got.append(compiler.library(TWICE))) for _ in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4 and got[0] is not None and len(set(map(id, got))) == 1
    assert len(calls()) == 3


@needs_compiler
def test_processes_that_compile_at_once_do_no_harm(fresh, cache):
    code = f"""
        library = compiler.library({TWICE!r})
        library.twice.restype, library.twice.argtypes = ctypes.c_double, [ctypes.c_double]
        print(library.twice(4))
    """
    code = f"import ctypes\nfrom gpumlp.backend.cpu import compiler\n{textwrap.dedent(code)}"
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(3)
    ]
    assert [each.communicate(timeout=HANGS)[0] for each in started] == [b"8.0\n"] * 3
    assert len(list(cache.glob("*.so"))) == len(list(cache.glob("*.json"))) == 1


def without_library(why):
    """Asks for a library in vain, twice; the reason."""
    assert compiler.library(TWICE) is None
    assert compiler.library(THRICE) is None
    assert why in compiler.problem()
    assert "\n" not in compiler.problem()
    assert compiler.remedy().endswith(".")


def test_no_compiler_on_the_path(fresh, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    without_library("no C++ compiler was found")
    assert "apt install g++" in compiler.remedy()


@pytest.mark.parametrize("named", ["no-such-compiler", "g++ 'unbalanced"])
def test_a_named_compiler_that_does_not_exist(fresh, monkeypatch, named):
    monkeypatch.setenv("CXX", named)
    without_library("CXX")


@needs_compiler
def test_a_named_compiler_may_have_options(fresh, monkeypatch):
    monkeypatch.setenv("CXX", f"{CXX} -DFACTOR=5")
    source = 'extern "C" double twice(double a) { return FACTOR * a; }'
    assert twice(compiler.library(source), 2) == 10


@needs_compiler
def test_its_options_do_not_take_rounding_away(fresh, monkeypatch):
    """mathematics.hpp adds numbers so that rounding does what it wants."""
    monkeypatch.setenv("CXX", f"{CXX} -ffast-math")
    z, n = np.array([[[1.0, 2.5, np.nan]]]), np.empty((1, 1, 3))
    HostOps().activate(activations["tanh"], z, np.zeros((1, 3)), n, np.zeros((1, 2)))
    np.testing.assert_allclose(n, np.tanh(z), rtol=1e-15)


def test_a_compiler_that_fails(fresh, monkeypatch, tmp_path):
    script = tmp_path / "cxx"
    script.write_text("#!/bin/sh\necho 'note: hello'\necho 'fatal error: no licence'\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    without_library("cxx failed (fatal error: no licence)")


@needs_compiler
def test_a_failure_is_remembered(fresh, wrapped):
    calls = wrapped("exit 1")
    without_library("cxx failed (exit status 1)")
    count = len(calls())
    without_library("cxx failed (exit status 1)")
    assert len(calls()) == count


@needs_compiler
def test_a_source_that_does_not_compile_spoils_no_other(fresh):
    assert compiler.library("int f() { return nothing; }") is None
    assert "error: " in compiler.problem() and "nothing" in compiler.problem()
    assert twice(compiler.library(TWICE), 3) == 6


def test_a_compiler_that_hangs_is_ended_with_all_it_started(fresh, monkeypatch, tmp_path):
    script, pid = tmp_path / "cxx", tmp_path / "pid"
    script.write_text(f"#!/bin/sh\nsleep 1000 &\necho $! > {pid}\nwait\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    for seconds in (1, 10, 60):
        monkeypatch.setattr(compiler, "TIMEOUT", seconds)
        without_library(f"did not end in {seconds} s")
        if pid.exists() and pid.read_text():  # else it was ended before it had begun
            break
        fresh()
    child = int(pid.read_text())
    until(lambda: has_ended(child), "the end of what the compiler had started")


def test_it_can_be_switched_off(fresh, monkeypatch, cache):
    monkeypatch.setenv(compiler.VARIABLE, "0")
    without_library("GPUMLP_HOST=0")
    assert not cache.exists()


def test_a_cache_that_cannot_be_written(fresh, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/cache")  # not even by root
    without_library("there is no folder for compiled libraries")


def test_a_cache_that_is_no_folder(fresh, tmp_path):
    (tmp_path / "gpumlp").write_text("")
    without_library("there is no folder for compiled libraries")


def test_no_home(fresh, monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", fail)
    without_library("there is no folder")


@needs_compiler
def test_a_full_disk(fresh, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept.tempfile, "mkdtemp", fail)
    without_library("No space left on device")


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_can_write_is_refused(fresh, cache, mode):
    cache.mkdir(parents=True)
    cache.chmod(mode)
    without_library("can be written by others")
    assert compiler.remedy() == f"Run chmod go-w {cache}."


def test_a_folder_of_another_user_is_refused(fresh, cache, monkeypatch):
    cache.mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(compiler.os, "geteuid", lambda: cache.stat().st_uid + 1)
    without_library("belongs to another user")


@needs_compiler
def test_a_folder_is_private_whatever_the_umask(fresh, cache):
    old = os.umask(0)
    try:
        assert compiler.library(TWICE)
    finally:
        os.umask(old)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


@needs_compiler
@pytest.mark.parametrize("spoil", WAYS_TO_SPOIL.values(), ids=WAYS_TO_SPOIL)
def test_a_damaged_library_is_compiled_again(fresh, cache, wrapped, spoil):
    calls = wrapped()
    compiler.library(TWICE)
    (path,) = cache.glob("*.so")
    data = path.read_bytes()
    spoil(path)
    for _ in range(2):
        fresh()
        assert twice(compiler.library(TWICE), 5) == 10
        assert len(calls()) == 4
    assert path.read_bytes() == data


@needs_compiler
@pytest.mark.parametrize("spoil", WAYS_TO_SPOIL.values(), ids=WAYS_TO_SPOIL)
def test_a_damaged_note_of_the_compiler_is_made_again(fresh, cache, wrapped, spoil):
    calls = wrapped()
    before = compiler.toolchain()
    (path,) = cache.glob("*.json")
    data = path.read_bytes()
    spoil(path)
    for _ in range(2):
        fresh()
        assert compiler.toolchain() == before
        assert len(calls()) == 4  # twice its version and a probe
    assert path.read_bytes() == data


OTHER = {
    "no object": lambda known: [],
    "no entries": lambda known: {},
    "one more": lambda known: known | {"more": 1},
    **{f"no {name}": lambda known, name=name: known | {name: None} for name in TOOLCHAIN},
    **{
        f"numbers as {name}": lambda known, name=name: known | {name: [1]}
        for name in ("command", "options")
    },
}


@needs_compiler
@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_a_note_of_other_types_is_made_again(fresh, cache, change):
    before = compiler.toolchain()
    (path,) = cache.glob("*.json")
    kept.keep(path, json.dumps(change(json.loads(kept.read(path)))).encode())
    fresh()
    assert compiler.toolchain() == before
    assert twice(compiler.library(TWICE), 5) == 10


@needs_compiler
def test_another_cpu_or_compiler_gets_a_library_of_its_own(fresh, cache, wrapped, monkeypatch):
    compiler.library(TWICE)
    fresh()
    monkeypatch.setattr(processor, "description", lambda: "another CPU")
    compiler.library(TWICE)
    assert len(list(cache.glob("*.so"))) == 2
    fresh()
    wrapped()
    compiler.library(TWICE)
    assert len(list(cache.glob("*.so"))) == 3


@needs_compiler
def test_options_that_the_compiler_refuses_are_left_out(fresh, wrapped):
    wrapped('case "$*" in *-march=*|*-mcpu=*) echo error: unknown >&2; exit 1;; esac')
    assert twice(compiler.library(TWICE), 1) == 2
    assert tuple(compiler.toolchain().options) == compiler.OPTIONS


@needs_compiler
def test_code_that_does_not_run_here_is_not_compiled(fresh, wrapped):
    # As for a CPU with instructions that this one lacks.
    trap = "main(int, char**) { __builtin_trap(); } int other"
    wrapped(f'case "$*" in *-march=*) exec {CXX} "$@" -Dmain="{trap}";; esac')
    compiler.library(TWICE)
    assert not [option for option in compiler.toolchain().options if "-march" in option]


@needs_compiler
def test_the_options_are_those_of_the_wheels_for_this_cpu(fresh):
    if processor.level() is None:
        pytest.skip("no wheel has programs for this CPU")
    assert tuple(compiler.toolchain().options) == compiler.options(processor.level())


@needs_compiler
@pytest.mark.parametrize("source", ["probe.cpp", "library.cpp"])
def test_what_a_killed_process_has_left_is_removed(fresh, cache, wrapped, tmp_path, source):
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    # The compiler outlives the process, but writes no more; for 100 s at most, as above.
    wait = f"for i in $(seq 5000); do test ! -e {ended} || break; sleep 0.02; done"
    once = f"test -e {begun} || {{ touch {begun}; {wait}; exit 1; }}"
    wrapped(f'case "$*" in *{source}*) {once};; esac')
    code = f"from gpumlp.backend.cpu import compiler; compiler.library({TWICE!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    until(begun.exists)
    (left,) = cache.glob(".*")
    process.kill()
    process.wait(HANGS)
    ended.touch()
    assert twice(compiler.library(TWICE), 5) == 10
    assert not left.exists() and not list(cache.glob(".*"))


@needs_compiler
def test_old_libraries_are_removed_and_used_ones_kept(fresh, cache):
    compiler.library(TWICE)
    used = list(cache.iterdir())  # the library, and what is known of the compiler
    old, left, new = cache / "old.so", cache / ".killed", cache / "new.so"
    old.write_bytes(b"")
    new.write_bytes(b"")
    left.mkdir()
    long_ago = time.time() - kept.KEPT - 10
    for path in (old, left, *used):
        os.utime(path, (long_ago, long_ago))
    fresh()
    compiler.library(TWICE)  # a use of both, which is noted
    compiler.library(THRICE)  # removes what is old
    assert len(used) == 2 and all(path.exists() for path in (*used, new))
    assert not old.exists() and not left.exists()


@needs_compiler
def test_denormal_numbers_survive(fresh):
    tiny = np.array([1e-40], np.float32)
    compiler.library(TWICE)
    assert (tiny * np.float32(0.5))[0] > 0
    assert np.float64(1e-310) * 0.5 > 0


@needs_compiler
def test_a_forked_process_uses_what_was_loaded_and_compiles_the_rest(fresh):
    code = f"""
        a = compiler.library({TWICE!r})
        if child := os.fork():
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        assert compiler.library({TWICE!r}) is a
        b = compiler.library({THRICE!r})
        b.thrice.restype, b.thrice.argtypes = ctypes.c_double, [ctypes.c_double]
        os._exit(int(b.thrice(1) != 3))
    """
    in_a_process(code)


@needs_compiler
def test_a_fork_while_another_thread_compiles(fresh, wrapped, tmp_path):
    begun, forked = tmp_path / "begun", tmp_path / "forked"
    # For 100 s at most, as above.
    wait = f"for i in $(seq 5000); do test ! -e {forked} || break; sleep 0.02; done"
    wrapped(f'case "$*" in *library.cpp*) touch {begun}; {wait};; esac')
    code = f"""
        import pathlib, threading
        from tests.helpers.waiting import until
        compiler.toolchain()
        threading.Thread(target=compiler.library, args=[{TWICE!r}]).start()
        until(pathlib.Path({str(begun)!r}).exists)
        if child := os.fork():
            pathlib.Path({str(forked)!r}).touch()
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert compiler.library({TWICE!r})
            sys.exit(code)
        os._exit(int(compiler.library({TWICE!r}) is None))
    """
    in_a_process(code)


@needs_compiler
def test_who_waits_for_a_compiler_is_told_once(fresh, cache, capfd):
    compiler.library(TWICE)
    compiler.library(THRICE)
    (told,) = capfd.readouterr().err.splitlines()
    assert told == f"gpumlp: note: compiling programs for this CPU, once; they are kept in {cache}"
    fresh()
    compiler.library(TWICE)
    assert capfd.readouterr().err == ""


def test_who_has_no_compiler_is_told_once(fresh, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert type(backend.get("cpu")) is type(backend.get("cpu")) is NumpyOps
    (told,) = capfd.readouterr().err.splitlines()
    assert "at about half the speed (no C++ compiler was found). Install a C++ compiler" in told


@pytest.mark.parametrize("stderr", [None, "closed"])
def test_nobody_has_to_listen(fresh, monkeypatch, tmp_path, stderr):
    monkeypatch.setenv("PATH", str(tmp_path))
    with open(os.devnull, "w") as file:
        monkeypatch.setattr(sys, "stderr", stderr and file)
    assert type(backend.get("cpu")) is NumpyOps


# ------------------------------------------------------------------ the wheel's


@pytest.fixture
def shipped(fresh, monkeypatch, tmp_path):
    """As if installed from a wheel with TWICE; its folder."""
    if processor.level() is None:
        pytest.skip("no wheel has programs for this CPU")
    monkeypatch.setattr(compiler, "SHIPPED", tmp_path / "compiled")
    folder = compiler.SHIPPED / processor.level()
    folder.mkdir(parents=True)
    compiler.ship(TWICE, folder.name, folder)
    return folder


@needs_compiler
def test_the_wheels_library_needs_neither_compiler_nor_cache(shipped, cache, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    library = compiler.library(TWICE)
    assert twice(library, 21.5) == 43 and compiler.is_shipped(library)
    assert compiler.problem() is None and not cache.exists()
    assert type(backend.get("cpu")) is HostOps


@needs_compiler
def test_what_is_not_in_the_wheel_is_compiled(shipped, cache):
    library = compiler.library(THRICE)
    assert library and not compiler.is_shipped(library)
    assert len(list(cache.glob("*.so"))) == 1


@needs_compiler
def test_what_is_not_in_the_wheel_and_cannot_be_compiled_is_numpys(shipped, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compiler.library(THRICE) is None
    assert "no C++ compiler was found" in compiler.problem()
    assert twice(compiler.library(TWICE), 2) == 4
    assert type(backend.get("cpu")) is HostOps


@needs_compiler
@pytest.mark.parametrize("spoil", WAYS_TO_SPOIL.values(), ids=WAYS_TO_SPOIL)
def test_a_damaged_library_of_the_wheel_is_passed_over(shipped, cache, spoil):
    (path,) = shipped.iterdir()
    spoil(path)
    library = compiler.library(TWICE)
    assert twice(library, 5) == 10 and not compiler.is_shipped(library)
    assert len(list(cache.glob("*.so"))) == 1


@needs_compiler
def test_the_wheel_of_another_source_level_or_option_is_passed_over(shipped, monkeypatch):
    assert not compiler.is_shipped(compiler.library(TWICE + "\n"))
    monkeypatch.setattr(compiler, "OPTIONS", (*compiler.OPTIONS, "-DMORE"))
    monkeypatch.setattr(compiler, "_loaded", {})
    assert not compiler.is_shipped(compiler.library(TWICE))
    monkeypatch.setattr(processor, "level", lambda: None)
    assert compiler.shipped() is None


@needs_compiler
def test_the_wheel_is_left_alone(shipped):
    """Whoever runs it may write there, as root in a container does."""
    (path,) = shipped.iterdir()
    long_ago = time.time() - kept.KEPT - 10
    os.utime(path, (long_ago, long_ago))
    compiler.library(TWICE)
    compiler.library(THRICE)
    assert path.stat().st_mtime == pytest.approx(long_ago, abs=1)


LEVELS = [
    ("x86_64", processor.X86_64_V3 | processor.AVX_512 | {"fpu"}, "x86-64-v4"),
    ("x86_64", processor.X86_64_V3 | {"avx512f"}, "x86-64-v3"),
    ("x86_64", processor.X86_64_V3 - {"fma"}, None),
    ("x86_64", processor.AVX_512, None),
    ("aarch64", {"fp", "asimd"}, "armv8-a"),
    ("ppc64le", set(), None),
]


@pytest.mark.parametrize("machine, flags, level", LEVELS)
def test_the_level_is_the_best_that_the_cpu_has_all_flags_of(monkeypatch, machine, flags, level):
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    name = "features" if machine == "aarch64" else "flags"
    monkeypatch.setattr(processor, "_facts", lambda: {name: " ".join(flags)})
    assert processor.level.__wrapped__() == level


def test_the_import_compiles_nothing(fresh, cache):
    in_a_process("import gpumlp.backend.cpu.pool, gpumlp.backend.device; gpumlp.MLP")
    assert not cache.exists()
