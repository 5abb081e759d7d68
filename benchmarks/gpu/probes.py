"""What only a GPU can say of the ways that gpumlp takes on it.

A function of a task is a stage and gives pairs: a name, and what is done, which gives figures."""

from __future__ import annotations

import functools
import os
import signal
import statistics
import threading
import time
import types

import numpy as np

import gpumlp
from benchmarks import clock, turns
from benchmarks.agreement import TOLERANCE, difference
from benchmarks.contenders import ENTRIES, LIBRARY, OF_STACKS, OPERATIONS, RESIDENT, Declined, Entry
from benchmarks.gpu.records import Skip
from benchmarks.networks import LARGE, MIDDLE, PRECISIONS, SMALLEST, Network
from benchmarks.stacks import FITS
from gpumlp import backend
from gpumlp.training.out_of_core import Streamed
from gpumlp.training.placement import make_rows
from gpumlp.training.rows import read

DEVICE = "cuda:0"
TUNED = "gpumlp, timed algorithms"
BY_NAME = {entry.name: entry for entry in (*ENTRIES, *OF_STACKS)}
BY_NAME[TUNED] = Entry(TUNED, "gpumlp", "library", "Tuned")
TURNS, LEAST = 5, 0.02  # times of an epoch, and the least seconds of each
CARVEOUTS = -1, 100  # of shared memory: what the driver chooses, and all that there is


def median_ms(seconds) -> float:
    return 1e3 * statistics.median(seconds)


def epochs(task):
    """Networks with and without the persistent kernel; products in each precision, by cuBLASLt's
    first algorithm and by the fastest of those that were timed."""
    alone, stacked = (SMALLEST, MIDDLE, *LARGE[:1]), (16, 64, 132, 1_000)
    networks = [alone[0], *(FITS._replace(models=models) for models in stacked)]
    if task.dry:
        alone = (Network((5, 4, 3), 8, 12),)
        networks = [*alone, alone[0]._replace(models=2)]
    for network in networks:
        yield f"{network.name}: kernel", lambda network=network: kernel_or_operations(network)
    for network in alone:
        for precision in PRECISIONS:
            one = network._replace(precision=precision)
            yield f"{one.name}: products", lambda one=one: compare(one, LIBRARY, TUNED)[0]


def compare(network, *names):
    """({name: milliseconds of an epoch}, {name: its session}); first their answers must agree."""
    sessions = {name: turns.Session(BY_NAME[name], DEVICE) for name in names}
    task = types.SimpleNamespace(problem=functools.cache(network.problem))
    answers = [session.prepare(task, "answers") for session in sessions.values()]
    by = difference(answers[1], answers[0])
    if not by < TOLERANCE[network.precision]:
        raise ArithmeticError(f"{names[1]} differs from {names[0]} by {by:.1e}")
    for session in sessions.values():
        session.warm("epoch", LEAST)
    rounds = [[session.time("epoch") for session in sessions.values()] for _ in range(TURNS)]
    times = map(median_ms, zip(*rounds, strict=True))
    return dict(zip(names, times, strict=True)) | {"difference": by}, sessions


def kernel_or_operations(network) -> dict:
    try:
        found, sessions = compare(network, OPERATIONS, RESIDENT)
    except Declined as reason:
        raise Skip(str(reason)) from reason
    session = sessions[RESIDENT]
    calls = session.contender.ops._kernels.values()  # the persistent kernel's is a partial
    kernels = [call.args[0] for call in calls if hasattr(call, "args")]
    kernels = [kernel for kernel in kernels if hasattr(kernel, "preferred_shared_memory_carveout")]
    for carveout in CARVEOUTS if kernels else ():
        for kernel in kernels:
            kernel.preferred_shared_memory_carveout = carveout
        session.warm("epoch", LEAST)
        found[f"carveout {carveout}"] = median_ms([session.time("epoch") for _ in range(TURNS)])
    return found


def shuffles(task):
    """Each network's order of the rows."""
    sizes = [(1, 40), (3, 40)]
    if not task.dry:
        sizes = [(models, 1_797) for models in (1, 16, 64, 65, 1_000)]
        sizes += [(1, 1_000_000), (1, 50_000_000)]
    for models, count in sizes:
        yield f"{models:,} x {count:,}", lambda m=models, n=count: shuffle(m, n)


def shuffle(models: int, count: int) -> dict:
    net = gpumlp.MLP((1, 1), output="identity", models=models, device=DEVICE)
    trainer = gpumlp.Trainer(net, "squared_error")
    x = np.zeros((count, 1), np.float32)  # which a shuffle does not touch
    with net.ops.on_device():
        rows = make_rows(net, trainer.objective, x, x, None, count, models)
        times = clock.times(net.ops, lambda: rows.shuffle(trainer.state.seeds, 3), 7)
        first, *last = net.ops.to_host(rows.order[:: max(1, models - 1)])
    for order in (first, *last):
        taken = np.zeros(count, bool)
        taken[order] = True
        if not taken.all():
            raise ArithmeticError("some rows are missing, and others come twice")
    if last and (first == last[0]).all():
        raise ArithmeticError("networks of different seeds take the same order")
    return {"ms": median_ms(times)}


# Above a power of two, in units of the last bit that TF32 keeps: so much is left if nothing is
# rounded, 1 if it is rounded to the nearest, 0 if bits are cut off.
ABOVE, LAST_BIT = 0.75, 2.0**-10
KINDS = {"not rounded": ABOVE, "rounded to the nearest": 1.0, "cut off": 0.0}
SHAPES = """1x1x1 37x29x13 64x64x64 128x784x256 128x128x10 256x13x64 128x256x64
    4096x4096x4096"""


def rounding(task):
    """Which products in TF32 are rounded, at which shapes."""
    for precision in ("float32", "tf32"):
        for shape in SHAPES.split()[: 3 if task.dry else None]:
            yield f"{precision} {shape}", lambda p=precision, s=shape: rounded(p, s)


def rounded(precision: str, shape: str) -> dict:
    """Of a (I, J) times b^T, b (L, J)."""
    I, J, L = map(int, shape.split("x"))  # noqa: E741
    ops, rng = backend.get(DEVICE, precision), np.random.default_rng()
    # No sum cancels, and powers of two change no other bits.
    signs = rng.choice([-1.0, 1.0], J)
    a, b = (2.0 ** rng.integers(-3, 4, (rows, 1)) for rows in (I, L))
    with ops.on_device():
        out = ops.xp.empty((1, I, L), np.float32)
        factors = [signs * (1 + ABOVE * LAST_BIT) * a, signs * b]
        factors = [ops.to_device(factor.astype(np.float32)[None]) for factor in factors]
        times = clock.times(ops, lambda: ops.gemm(*factors, out=out, tb=True), 10)
        found = ops.to_host(out)[0]
    above = (found / (J * a * b.T) - 1) / LAST_BIT
    kind = min(KINDS, key=lambda kind: abs(KINDS[kind] - above.mean()))
    off = np.abs(above - KINDS[kind]).max()
    if off > 0.125 or (precision == "float32" and kind != "not rounded"):
        raise ArithmeticError(f"{kind}, and off by {off:.2g} of TF32's last bits")
    return {"factors are": kind, "ms": median_ms(times)}


class CtrlC(gpumlp.Callback):
    """Presses it after two epochs, in the middle of the next."""

    def on_epoch_end(self, trainer, history):
        if len(history.seconds) == 2:
            threading.Timer(0.4 * history.seconds[-1], self.press).start()

    def press(self):
        self.pressed = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)


def interrupted(task):
    """How far the host runs ahead: so many updates Ctrl-C waits for."""
    long, short = ((64, 8192, 8192, 10), 1024, 60), ((64, 100, 10), 200, 5_000)
    for name, size in (("short steps", short), ("long steps", long)):
        size = ((4, 3, 2), 4, 20) if task.dry else size
        yield name, lambda size=size: ctrl_c(*size)


def ctrl_c(sizes, batch: int, steps: int) -> dict:
    rng, press = np.random.default_rng(), CtrlC()
    x = rng.standard_normal((steps * batch, sizes[0]), np.float32)
    labels = rng.integers(0, sizes[-1], len(x))
    trainer = gpumlp.Trainer(gpumlp.MLP(sizes, device=DEVICE), batch_size=batch)
    trainer.resident = False
    history = trainer.fit(x, labels, 1 << 30, callbacks=press, progress=False)
    waited, step = time.perf_counter() - press.pressed, history.seconds[1] / steps
    return {"step ms": 1e3 * step, "waited ms": 1e3 * waited, "steps ahead": waited / step}


def streaming(task):
    """Epochs of data that stay on the device, and of the same sent in pieces, in batches of which a
    piece has few and many."""
    rows, features, room = (64, 8, 1 << 16) if task.dry else (300_000, 1024, 1 << 30)
    for batch in (4, 2) if task.dry else (4096, 256):
        name = f"{rows:,} x {features:,} by {batch}"
        yield name, lambda batch=batch: stream(rows, features, room, batch)


def stream(count: int, features: int, room: int, batch: int) -> dict:
    rng = np.random.default_rng()
    x, y = rng.random((count, features), np.float32), rng.integers(0, 10, count)
    found, losses = {}, []
    for way in ("resident", "streamed"):
        net = gpumlp.MLP((features, features // 4, 10), device=DEVICE)
        trainer = gpumlp.Trainer(net, batch_size=batch)
        with net.ops.on_device():
            if way == "resident":
                rows = make_rows(net, trainer.objective, x, y, None, batch)
            else:
                given = read(net, trainer.objective, x, y, None)
                rows = Streamed(net, given, batch, 1, room)
            losses.append(trainer.run_epoch(rows).losses)
            taken = [clock.seconds(lambda t=trainer, r=rows: t.run_epoch(r)) for _ in range(4)]
        found[f"{way} GB/s"] = x.nbytes / statistics.median(taken[1:]) / 1e9
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    return found
