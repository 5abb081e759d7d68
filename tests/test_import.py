"""`import gpumlp` is quick and loads no heavy library."""

import subprocess
import sys

MEASURE = """
import sys, time
start = time.perf_counter()
import gpumlp
print(time.perf_counter() - start)
print(*sorted(name for name in sys.modules if "." not in name))
"""
HEAVY = {"cupy", "cupy_backends", "sklearn", "matplotlib", "scipy"}
LIMIT_SECONDS = 0.3


def import_once() -> tuple[float, set[str]]:
    """Seconds of `import gpumlp` in a fresh process, and the modules that it loaded."""
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seconds, modules = done.stdout.splitlines()
    return float(seconds), set(modules.split())


def test_import_is_quick():
    # The best of several: the first may have to write bytecode, and the machine may be busy.
    assert min(import_once()[0] for _ in range(5)) < LIMIT_SECONDS


def test_import_loads_no_heavy_library():
    modules = import_once()[1]
    assert "gpumlp" in modules
    assert not modules & HEAVY
