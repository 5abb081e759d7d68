"""Each operation of the backend as achieved bytes per second, over those of a copy in the same run.

The bytes are those that the header of its kernel states.  NumPy moves more in several passes: there
the fraction says how far the readable reference is from one pass.
"""

from __future__ import annotations

import math
import re
import statistics
import traceback
from typing import Any

import numpy as np

from benchmarks import cases, clock
from benchmarks.agreement import as_float64
from benchmarks.cases import Case, Inputs
from benchmarks.tables import Table
from gpumlp import backend
from gpumlp.backend import sources
from gpumlp.backend.reference.numpy_ops import NumpyOps

TOLERANCE = {False: 1e-4, True: 1e-2}  # in float32, and where some arrays are in bfloat16
CHECKED_ROWS = 37
GOAL = 0.9  # of the copy's bandwidth, for streaming kernels on a GPU

# Elements of a buffer: on a GPU more than its caches hold, on a CPU too, but what NumPy does in
# reasonable time; tiny is for the stand-in.
ELEMENTS = {"cuda": 1 << 25, "cpu": 1 << 24, "quick": 1 << 18, "tiny": 1 << 12}
REPEATS = {"cuda": 30, "cpu": 5, "quick": 3, "tiny": 2}


def stated(kernel: str) -> str:
    """What the header of kernels/<kernel> says of bytes: the paragraph that begins with them."""
    comment = re.findall(r"^//(.*)$", sources.text(kernel), re.MULTILINE)
    for paragraph in "\n".join(line.strip() for line in comment).split("\n\n"):
        if paragraph.startswith("Bytes per "):
            return " ".join(paragraph.split())
    raise LookupError(f"kernels/{kernel} does not state the bytes that it moves")


def check(case: Case, ops) -> float:
    """The largest relative error of a small run in float32, against NumPy in float64."""
    size = CHECKED_ROWS, case.columns
    with ops.on_device():
        run, outputs = case.make(Inputs(ops, np.float32, case.narrow), *size)
        run()
        found = [as_float64(ops.to_host(array)) for array in outputs]
    reference_run, reference = case.make(Inputs(NumpyOps(), np.float64, case.narrow), *size)
    reference_run()
    return max(
        float(np.abs(a - b).max() / max(np.abs(b).max(), np.finfo(np.float32).tiny))
        for a, b in zip(found, reference, strict=True)
    )


def copy_bandwidth(ops, elements: int, repeats: int) -> float:
    """Bytes per second, read and written, of copying a buffer of float32."""
    with ops.on_device():
        source = Inputs(ops).normal(elements)
        target = ops.xp.empty(source.shape, source.dtype)
        seconds = clock.times(ops, lambda: ops.xp.copyto(target, source), repeats)
    return 2 * source.nbytes / statistics.median(seconds)


def moved(case: Case, rows: int) -> int:
    """The bytes that so many rows must move."""
    return case.bytes * rows * case.columns


def measure(case: Case, ops, size: str) -> dict[str, Any]:
    """Checks the answer, then measures the copy and the operation: seconds, bytes, bandwidth,
    copy_bandwidth and their ratio, or an error."""
    record: dict[str, Any] = {"name": case.name, "columns": case.columns, "error": None}
    record["stated"], record["streams"] = stated(case.kernel), case.streams
    record["difference"] = by = check(case, ops)
    if not by < TOLERANCE[case.narrow]:
        allowed = TOLERANCE[case.narrow]
        return record | {"error": f"wrong by {by:.1e}, at most {allowed:g} is allowed"}
    elements, repeats = ELEMENTS[size], REPEATS[size]
    copy = copy_bandwidth(ops, elements, repeats)
    with ops.on_device():
        rows = math.ceil(elements / case.columns)
        run, _ = case.make(Inputs(ops, np.float32, case.narrow), rows, case.columns)
        seconds = clock.times(ops, run, repeats)
    achieved = moved(case, rows) / statistics.median(seconds)
    return record | {
        "seconds": seconds,
        "bytes": moved(case, rows),
        "bandwidth": achieved,
        "copy_bandwidth": copy,
        "ratio": achieved / copy,
    }


def run(bench):
    """Each operation's record."""
    ops = backend.get(bench.device)
    size = "quick" if bench.quick else bench.device.partition(":")[0]
    for case in cases.chosen(bench.device, bench.operation or ""):
        try:
            yield measure(case, ops, size)
        except Exception as error:
            traceback.print_exc()
            yield {"name": case.name, "error": f"{type(error).__name__}: {error}"}


def tables(records: list[dict], device: str) -> list[Table]:
    rows, notes = [], []
    for record in records:
        if record["error"]:
            notes.append(f"{record['name']} failed: {record['error']}")
            continue
        goal = f"{GOAL:g}" if record["streams"] and device != "cpu" else ""
        per_second = (f"{record[key] / 1e9:.3g} GB/s" for key in ("bandwidth", "copy_bandwidth"))
        rows.append([record["name"], *per_second, f"{record['ratio']:.2f}", goal])
    heads = ["", "achieved", "copy", "ratio", "goal"]
    title = f"Operations, {device}: bytes that must move / median time, against a copy"
    return [Table(title, heads, rows, notes)] if records else []
