"""The paths that a matrix product can take, on the shapes of training steps.

On a GPU: CuPy's matmul and cuBLAS's strided batches, and gpumlp's cuBLASLt in each precision, with
the library's first algorithm and with the fastest.  On the CPU: NumPy's matmul on matrices, on
stacks of one, and as gpumlp calls it.
"""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks import clock
from benchmarks.tables import Table, ratio
from gpumlp import backend

# Of the largest element, against float64.
TOLERANCE = {"float32": 1e-5, "tf32": 2e-3, "bf16": 1e-2, "float64": 1e-12}
CHECKED = 64  # rows of a product
LEAST = {"cuda": 0.02, "cpu": 0.05, "quick": 0.001}  # seconds of one time
TURNS = {"cuda": 7, "cpu": 7, "quick": 2}


class Shape(NamedTuple):
    """op(a) (I, J) times op(b) (J, L), for M networks."""

    name: str
    models: int
    I: int  # noqa: E741
    J: int
    L: int
    ta: bool = False
    tb: bool = False


def of_layer(batch: int, fan_in: int, fan_out: int, models: int = 1) -> list[Shape]:
    """The three products of a layer: (1), (11) and (12)."""
    at = f"{batch} rows, {fan_in} to {fan_out}" + (f", {models} networks" if models > 1 else "")
    return [
        Shape(f"n W^T, {at}", models, batch, fan_in, fan_out, tb=True),
        Shape(f"delta W, {at}", models, batch, fan_out, fan_in),
        Shape(f"delta^T n, {at}", models, fan_out, batch, fan_in, ta=True),
    ]


SHAPES = {
    "cpu": [*of_layer(128, 784, 256), *of_layer(256, 2048, 2048), *of_layer(64, 32, 32, 100)],
    "cuda": [*of_layer(128, 784, 256), *of_layer(8192, 4096, 4096), *of_layer(64, 32, 32, 1000)],
    "quick": [*of_layer(16, 24, 12), *of_layer(16, 8, 8, 3)],
}


class Path(NamedTuple):
    """make(a, b, out, shape): the call; a, b and out are what `operands` gives."""

    name: str
    precision: str
    make: Callable


def _turned(array, turn: bool):
    return array.swapaxes(-1, -2) if turn else array


def matmul_2d(a, b, out, shape):
    """NumPy on each network's matrices."""
    triples = [
        (_turned(x, shape.ta), _turned(y, shape.tb), z) for x, y, z in zip(a, b, out, strict=True)
    ]

    def run():
        for x, y, z in triples:
            np.matmul(x, y, out=z)

    return run


def matmul_3d(a, b, out, shape):
    x, y = _turned(a, shape.ta), _turned(b, shape.tb)
    return lambda: np.matmul(x, y, out=out)


def library(device: str, precision: str, tune: bool = False):
    """gpumlp's own; on a GPU captured, as in a step."""
    ops = backend.get(device, "float32" if precision == "float64" else precision, tune)

    def make(a, b, out, shape):
        def run():
            ops.gemm(a, b, out=out, ta=shape.ta, tb=shape.tb)

        run()  # whatever happens only once
        return ops.capture(run) or run

    return make


def cupy_matmul(a, b, out, shape):
    import cupy

    x, y = _turned(a, shape.ta), _turned(b, shape.tb)
    return lambda: cupy.matmul(x, y, out=out)


def cublas_strided(a, b, out, shape):
    """cuBLAS's strided batches; read by columns, row-major out is out^T = op(b)^T op(a)^T."""
    import cupy
    from cupy_backends.cuda.libs import cublas

    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    operations = {True: cublas.CUBLAS_OP_T, False: cublas.CUBLAS_OP_N}

    def matrix(array):
        return array.data.ptr, array.shape[2], array.shape[1] * array.shape[2]

    def run():
        handle = cupy.cuda.device.get_cublas_handle()
        cublas.sgemmStridedBatched(
            *(handle, operations[shape.tb], operations[shape.ta], shape.L, shape.I, shape.J),
            *(one.ctypes.data, *matrix(b), *matrix(a)),
            *(zero.ctypes.data, *matrix(out), shape.models),
        )

    return run


def paths(device: str) -> list[Path]:
    """The first one is what the others are compared with."""
    if device == "cpu":
        return [
            Path("matmul, matrices", "float32", matmul_2d),
            Path("matmul, stacks", "float32", matmul_3d),
            Path("gpumlp", "float32", library(device, "float32")),
        ]
    found = [
        Path("cuBLAS strided batches", "float32", cublas_strided),
        Path("CuPy matmul", "float32", cupy_matmul),
    ]
    for precision in ("float32", "tf32", "bf16", "float64"):
        for tune in (False, True):
            name = f"cuBLASLt {precision}, {'fastest' if tune else 'first'}"
            found.append(Path(name, precision, library(device, precision, tune)))
    return found


def operands(ops, shape: Shape, precision: str):
    """a, b, out on the device, and a and b as float64; bf16 is the upper half of a float32."""
    rng = np.random.default_rng(0)
    sides = []
    for rows, columns, turn in (
        (shape.I, shape.J, shape.ta),
        (shape.J, shape.L, shape.tb),
    ):
        size = (columns, rows) if turn else (rows, columns)
        drawn = rng.standard_normal((shape.models, *size), dtype=np.float32)
        if precision == "bf16":
            drawn = (drawn.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        sides.append(drawn)
    real = np.dtype("float64" if precision == "float64" else "float32")

    def put(array):
        if precision == "bf16":
            return ops.to_device((array.view(np.uint32) >> 16).astype(np.uint16))
        return ops.to_device(array.astype(real))

    out = ops.xp.empty((shape.models, shape.I, shape.L), real)
    return (*map(put, sides), out), sides


def error_of(ops, out, sides, shape: Shape) -> float:
    """Of some rows of the first and the last network, against NumPy in float64."""
    found = ops.to_host(out)
    worst = 0.0
    for m in {0, shape.models - 1}:
        a, b = (side[m].astype(np.float64) for side in sides)
        expected = _turned(a, shape.ta)[:CHECKED] @ _turned(b, shape.tb)
        worst = max(worst, np.abs(found[m][:CHECKED] - expected).max() / np.abs(expected).max())
    return float(worst)


def measure(shape: Shape, ops, chosen: list[Path], size: str) -> dict[str, Any]:
    """{name, paths: {name: {error | difference, seconds, median, ratio}}}, in turn."""
    found: dict = {path.name: {"error": None} for path in chosen}
    works = {}
    with ops.on_device():
        for path in chosen:
            record = found[path.name]
            try:
                given, sides = operands(ops, shape, path.precision)
                run = path.make(*given, shape)
                run()
                record["difference"] = by = error_of(ops, given[2], sides, shape)
                if by < TOLERANCE[path.precision]:
                    # A graph knows only the addresses of what was given: keep it.
                    works[path.name] = run, _count(ops, run, LEAST[size]), given
                else:
                    record["error"] = f"wrong by {by:.1e}"
            except Exception as error:
                traceback.print_exc()
                record["error"] = f"{type(error).__name__}: {error}"
        for _ in range(TURNS[size]):
            for name, (run, count, _) in works.items():
                found[name].setdefault("seconds", []).append(_round(ops, run, count) / count)
    for name in works:
        found[name]["median"] = statistics.median(found[name]["seconds"])
    base = found[chosen[0].name].get("median")
    for name in works:
        found[name]["ratio"] = found[name]["median"] / base if base else None
    flops = 2 * shape.models * shape.I * shape.J * shape.L
    return {"name": shape.name, "flops": flops, "paths": found, "error": _first_error(found)}


def _first_error(found) -> str | None:
    errors = [f"{name}: {record['error']}" for name, record in found.items() if record["error"]]
    return "; ".join(errors) or None


def _count(ops, run, least: float) -> int:
    """How often it runs in so many seconds."""
    count = 1
    while (taken := _round(ops, run, count)) < least:
        count = max(2 * count, int(count * least / max(taken, 1e-7)))
    return count


def _round(ops, run, count: int) -> float:
    clock.wait(ops)
    begin = time.perf_counter()
    for _ in range(count):
        run()
    clock.wait(ops)
    return time.perf_counter() - begin


def run(bench):
    kind = bench.device.partition(":")[0]
    size = "quick" if bench.quick else kind
    ops = backend.get(bench.device)
    for shape in SHAPES[size]:
        yield measure(shape, ops, paths(bench.device), size)


def tables(records: list[dict], device: str) -> list[Table]:
    if not records:
        return []
    names = list(records[0]["paths"])
    rows, notes = [], []
    for record in records:
        found = record["paths"]
        first = found[names[0]].get("median")
        rate = f"{record['flops'] / first / 1e9:.3g}" if first else ""
        rows.append([record["name"], rate, *(ratio(found[name].get("ratio")) for name in names)])
        if record["error"]:
            notes.append(f"{record['name']} failed: {record['error']}")
    heads = ["", "GFLOP/s", *names]
    title = f"Matrix products, {device}: GFLOP/s of {names[0]}, and median times over its"
    return [Table(title, heads, rows, notes)]
