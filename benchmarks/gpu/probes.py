"""What only a GPU can say, as tests: whether the kernels compute what their formulas say, and with
`record_property`, figures of the ways that gpumlp takes on it."""

import importlib
import os
import shutil
import signal
import statistics
import threading
import time

import numpy as np
import pytest

import gpumlp
from benchmarks import clock
from benchmarks.gpu.stages import DRY
from gpumlp import backend
from gpumlp.backend.device import resolve
from tests.operations.selection import IN_MANY_BLOCKS, SELECTION

DEVICE = "cuda:0"
CHECKS = sorted(SELECTION, key=lambda name: not name.startswith(("persistent", "resident")))


def test_device(record_property):
    """The device, its libraries, and the tools that there are."""
    record_property("device", resolve("cuda"))
    cublaslt = importlib.import_module("gpumlp.backend.cuda.cublaslt")
    record_property("cuBLASLt", cublaslt.library().cublasLtGetVersion())
    if not DRY:
        nvrtc = importlib.import_module("cupy_backends.cuda.libs.nvrtc")
        record_property("NVRTC", nvrtc.getVersion())
    tools = filter(shutil.which, ("g++", "nvcc", "cuobjdump", "compute-sanitizer", "ncu"))
    record_property("tools", " ".join(tools))


@pytest.mark.parametrize("blocks", ["few blocks", "many blocks"])
@pytest.mark.parametrize("name", ["resident, rests", "tanh"] if DRY else CHECKS)
def test_check(name, blocks):
    if not DRY:
        import cupy

        cupy.cuda.set_allocator(None)  # no pool: every array has an end that compute-sanitizer sees
    checks = SELECTION if blocks == "few blocks" else IN_MANY_BLOCKS
    checks[name](backend.get(DEVICE))


# Above a power of two, in units of the last bit that TF32 keeps: so much is left if nothing is
# rounded, 1 if it is rounded to the nearest, 0 if bits are cut off.
ABOVE, LAST_BIT = 0.75, 2.0**-10
KINDS = {"not rounded": ABOVE, "rounded to the nearest": 1.0, "cut off": 0.0}
SHAPES = [(1, 1, 1), (37, 29, 13), (64, 64, 64), (128, 784, 256), (128, 128, 10), (256, 13, 64),
          (128, 256, 64), (4096, 4096, 4096)]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES[: 3 if DRY else None])
@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_rounding(precision, shape, record_property):
    """Whether the factors of a (I, J) b^T, b (L, J), are rounded in TF32, and how: cuBLAS may."""
    I, J, L = shape  # noqa: E741
    ops, rng = backend.get(DEVICE, precision), np.random.default_rng()
    # No sum cancels, and powers of two change no other bits.
    signs = rng.choice([-1.0, 1.0], J)
    a, b = (2.0 ** rng.integers(-3, 4, (rows, 1)) for rows in (I, L))
    with ops.on_device():
        out = ops.xp.empty((1, I, L), np.float32)
        factors = [signs * (1 + ABOVE * LAST_BIT) * a, signs * b]
        factors = [ops.to_device(factor.astype(np.float32)[None]) for factor in factors]
        times = clock.times(ops, lambda: ops.gemm(*factors, out=out, tb=True), 10)
        above = (ops.to_host(out)[0] / (J * a * b.T) - 1) / LAST_BIT
    kind = min(KINDS, key=lambda kind: abs(KINDS[kind] - above.mean()))
    assert np.abs(above - KINDS[kind]).max() <= 0.125, f"{kind}, and off by more than that"
    assert precision == "tf32" or kind == "not rounded"
    record_property("factors are", kind)
    record_property("ms", 1e3 * statistics.median(times))


class CtrlC(gpumlp.Callback):
    """Presses it after two epochs, in the middle of the next."""

    def on_epoch_end(self, trainer, history):
        if len(history.seconds) == 2:
            threading.Timer(0.4 * history.seconds[-1], self.press).start()

    def press(self):
        self.pressed = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)


LONG_STEPS, SHORT_STEPS = ((64, 8192, 8192, 10), 1024, 60), ((64, 100, 10), 200, 5_000)


@pytest.mark.parametrize("sizes, batch, steps", [SHORT_STEPS, LONG_STEPS][: 1 if DRY else 2])
def test_interrupt(sizes, batch, steps, record_property):
    """How far the host runs ahead: so many updates Ctrl-C waits for."""
    sizes, batch, steps = ((4, 3, 2), 4, 20) if DRY else (sizes, batch, steps)
    rng, ctrl_c = np.random.default_rng(), CtrlC()
    x = rng.standard_normal((steps * batch, sizes[0]), np.float32)
    labels = rng.integers(0, sizes[-1], len(x))
    trainer = gpumlp.Trainer(gpumlp.MLP(sizes, device=DEVICE), batch_size=batch)
    trainer.resident = False
    history = trainer.fit(x, labels, 1 << 30, callbacks=ctrl_c, progress=False)
    waited, step = time.perf_counter() - ctrl_c.pressed, history.seconds[1] / steps
    record_property("step ms", 1e3 * step)
    record_property("steps ahead", waited / step)
