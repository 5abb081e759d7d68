"""What only a fresh process can show: the time of an import, the time to the first step, and the
memory of a fit.

`python -m benchmarks.fresh import CODE`, `... first CONTENDER DEVICE`, `... fit CONTENDER DEVICE`
measure it, and print a line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 300.0
MEGABYTE = 1 << 20


def ask(arguments: list[str], cache: str | None = None, limit: float = LIMIT) -> dict:
    """Runs this module in a fresh process; raises RuntimeError with the end of its output.

    cache: a folder in which every library keeps what it compiles.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    if cache is not None:
        variables = {
            "XDG_CACHE_HOME": "xdg",
            "CUPY_CACHE_DIR": "cupy",
            "CUDA_CACHE_PATH": "cuda",
            "TORCHINDUCTOR_CACHE_DIR": "inductor",
            "TRITON_CACHE_DIR": "triton",
            "JAX_COMPILATION_CACHE_DIR": "jax",
        }
        environment |= {name: os.path.join(cache, folder) for name, folder in variables.items()}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fresh", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=limit,
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1])
    return json.loads(lines[-1])


# ------------------------------------------------------------ in the fresh process
def time_import(code: str) -> dict:
    begin = time.perf_counter()
    exec(code, {})
    return {"seconds": time.perf_counter() - begin}


def _contender(name: str):
    from benchmarks.contenders import ENTRIES

    return next(entry for entry in ENTRIES if entry.name == name).load()


def _network(quick: bool):
    from benchmarks.networks import MIDDLE

    return MIDDLE.shortened() if quick else MIDDLE


def time_first_step(name: str, device: str) -> dict:
    """From the first import to the end of the first step; the making of data is not counted."""
    begin = time.perf_counter()
    cls = _contender(name)
    imported = time.perf_counter()
    problem = _network(quick=True).problem()
    made = time.perf_counter()
    contender = cls(problem, device)
    contender.load()
    contender.step()
    contender.wait()
    return {"seconds": time.perf_counter() - made + imported - begin}


def memory_of_fit(name: str, device: str, quick: bool) -> dict:
    """The most bytes during two epochs, beyond those before the network and its data's copy were
    made; what the library takes for itself, it takes in a small fit before."""
    cls, network = _contender(name), _network(quick)
    small = cls(network._replace(sizes=(4, 5, 3), batch=8, rows=64).problem(), device)
    small.load()
    small.epoch()
    del small
    problem = network.problem()
    before = _reset_peak(device, name)
    contender = cls(problem, device)
    contender.load()
    contender.epoch()
    contender.epoch()
    contender.wait()
    found = {"bytes": _peak(device, name) - before}
    if name == "gpumlp":
        from gpumlp.model import memory

        data = 0 if device == "cpu" else memory.size_of(problem.x, problem.y)
        # The rows are on the device, or on the host, once; Adam has two slots.
        fit = memory.MemoryPlan(network.rows, sorts=True)
        found["predicted"] = memory.predict(contender.net, network.batch, 2, data, fit=fit)
    return found


def _reset_peak(device: str, name: str) -> int:
    if device == "cpu" or name == "scikit-learn":
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held now
        return _status("VmRSS")
    if name.startswith("PyTorch"):
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if name.startswith("JAX"):
        import jax

        return jax.local_devices()[0].memory_stats()["bytes_in_use"]
    import cupy

    cupy.get_default_memory_pool().free_all_blocks()
    return cupy.get_default_memory_pool().total_bytes()


def _peak(device: str, name: str) -> int:
    if device == "cpu" or name == "scikit-learn":
        return _status("VmHWM")
    if name.startswith("PyTorch"):
        import torch

        return torch.cuda.max_memory_allocated()
    if name.startswith("JAX"):
        import jax

        return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]
    import cupy

    return cupy.get_default_memory_pool().total_bytes()  # what the pool ever took


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", text)
    if found is None:
        raise OSError(f"/proc/self/status does not say {field}")
    return int(found[1]) << 10


def main(given: list[str]) -> int:
    verb, *rest = given
    verbs = {
        "import": time_import,
        "first": time_first_step,
        "fit": lambda name, device, quick="": memory_of_fit(name, device, bool(quick)),
    }
    print(json.dumps(verbs[verb](*rest)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
