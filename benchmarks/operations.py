"""Each operation of a training step, and of an evaluation, against its limit: a copy of the bytes
that it must move, or for its products, the array library's own matmul.

NumPy moves more bytes in several passes: there the fraction says how far the readable reference is
from one pass.
"""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks import clock, traffic
from benchmarks.contenders.library import Library
from benchmarks.networks import Network
from benchmarks.recorder import Call, recorded
from benchmarks.tables import table
from gpumlp.training.evaluate import Evaluation

TITLE = "Operations against a copy of their bytes, products against matmul"
GOAL = 0.9  # of a copy's bandwidth, for those that stream on a GPU
TOLERANCE = {"float32": 1e-4, "bf16": 1e-2}
NAMES = "shuffle", "gemm", *traffic.other_bytes(Network((1, 1), 1, 1))
EVALUATED = "activate", "accumulate_metrics"
BATCHES = 1 << 10  # of metrics, more than are measured
REPEATS = {"cuda": 20, "cpu": 3, "quick": 2}
# Wider than the caches of a GPU, and on a CPU as wide as NumPy does in reasonable time; and few
# classes and short rows, which do not stream.
SIZES = {
    "cuda": ((4096, 4096, 4096, 4096), 8192),
    "cpu": ((1024, 2048, 2048, 1024), 4096),
    "quick": ((37, 29, 13), 16),
}
FEW = (20, 1024, 10), 1 << 15
ODD = (37, 29, 13), 71  # at which answers are compared, so that kernels meet tails


class Operation(NamedTuple):
    """All calls of it in a step; amount: bytes, or of products, floating-point operations."""

    name: str
    amount: int
    calls: list[Call]
    streams: bool

    def __call__(self):
        for call in self.calls:
            call()


def networks(device: str, quick: bool = False) -> list[Network]:
    """Each activation and loss once."""
    kind = "quick" if quick else device.partition(":")[0]
    wide = Network(*SIZES[kind], SIZES[kind][1])
    chosen = [wide, wide._replace(hidden="gelu", loss="squared_error")]
    chosen += [wide._replace(hidden=hidden) for hidden in ("tanh", "sigmoid")]
    chosen += [] if quick else [Network(*FEW, FEW[1])]
    if device != "cpu":
        chosen += [wide._replace(precision="bf16")]
        chosen += [wide._replace(precision="bf16", hidden="gelu")]
    return chosen


def calls_of(network: Network, device: str, check: bool = False) -> list[Call]:
    """Those of a step, and of an evaluation what a step has not."""
    library = Library(network.problem(), device)
    library.load()
    library.trainer.resident = False
    ops, net, objective = library.ops, library.net, library.trainer.objective
    one_thread = {"threads": lambda net, objective=None: 1}  # no slices: each call is whole
    with recorded(ops, *NAMES, check=check, **one_thread) as calls:
        library.epoch()
    with ops.on_device(), recorded(ops, *EVALUATED, check=check, **one_thread) as evaluated:
        Evaluation(net, objective, library.x, library.y)()
    outputs = [call for call in evaluated if call.name == "accumulate_metrics"]
    if net.f[net.K].rows:
        softmax = [call for call in evaluated if call.arguments[0] is net.f[net.K]]
        outputs += [call._replace(name="softmax") for call in softmax]
    return [*calls, *outputs]


def check(network: Network, device: str) -> float:
    """The largest relative difference to NumPy in float64, of all operations at an odd size, in
    parts of what is allowed."""
    sizes, rows = ODD
    calls = calls_of(network._replace(sizes=sizes, batch=rows, rows=rows), device, check=True)
    return max(call.error or 0.0 for call in calls) / TOLERANCE[network.precision]


def operations(network: Network, device: str) -> list[Operation]:
    calls, amounts = calls_of(network, device), traffic.other_bytes(network)
    weights = [a * b for a, b in zip(network.sizes, network.sizes[1:], strict=False)]
    amounts |= {
        "shuffle": 20 * network.rows,  # keys written and read, the order written
        "gemm": 2 * network.batch * (3 * sum(weights) - weights[0]),
    }
    chosen = []
    for name in dict.fromkeys(call.name for call in calls):
        group = [repeatable(call) for call in calls if call.name == name]
        if name == "softmax":  # reads z, writes n
            amounts[name] = sum(2 * call.arguments[3].nbytes for call in group)
        elif name == "accumulate_metrics":  # reads n, or nothing where there are no classes
            amounts[name] = sum(getattr(call.arguments[0], "nbytes", 0) for call in group)
        streams = name not in ("shuffle", "gemm") and min(network.sizes) >= 1 << 10
        if amounts[name]:
            chosen.append(Operation(name, amounts[name], group, streams))
    return chosen


def repeatable(call: Call) -> Call:
    """With a cursor, and places to write, that repeated calls do not run out of."""
    arguments, xp = list(call.arguments), call.operation.__self__.xp
    if call.name == "gather":
        arguments[2] = xp.zeros_like(arguments[2])
    if call.name == "accumulate_metrics":
        arguments[-1] = xp.zeros((BATCHES, *arguments[-1].shape[1:]), arguments[-1].dtype)
    return call._replace(arguments=tuple(arguments))


def matmul(ops, calls) -> Callable | None:
    """The same products by the array library: none of bfloat16, and none by the stand-in."""
    if calls[0].arguments[0].dtype == np.uint16 or not hasattr(ops.xp, "matmul"):
        return None
    triples = []
    for call in calls:
        a, b = call.arguments
        a = a.swapaxes(1, 2) if call.options.get("ta") else a
        b = b.swapaxes(1, 2) if call.options.get("tb") else b
        triples.append((a, b, ops.xp.empty_like(call.options["out"])))

    def run():
        for a, b, out in triples:
            ops.xp.matmul(a, b, out=out)

    return run


def copy_bandwidth(ops, quick: bool = False) -> float:
    """Bytes per second, read and written, of copying a buffer of float32."""
    kind = "quick" if quick else ops.device.partition(":")[0]
    sizes, rows = SIZES[kind]
    with ops.on_device():
        source = ops.xp.ones((rows, max(sizes)), np.float32)
        target = ops.xp.empty_like(source)
        taken = clock.times(ops, lambda: ops.xp.copyto(target, source), REPEATS[kind])
    return 2 * source.nbytes / statistics.median(taken)


def measure(operation: Operation, ops, quick: bool = False) -> dict:
    """amount (of unit); limit and median, seconds, and their ratio: None without a limit."""
    repeats = REPEATS["quick" if quick else ops.device.partition(":")[0]]
    record = {"amount": operation.amount, "streams": operation.streams, "unit": "GB/s"}
    if operation.name == "gemm":
        product = matmul(ops, operation.calls)
        limit = statistics.median(clock.times(ops, product, repeats)) if product else None
        record["unit"] = "GFLOP/s"
    else:
        limit = operation.amount / copy_bandwidth(ops, quick)
    record["seconds"] = clock.times(ops, operation, repeats)
    median = statistics.median(record["seconds"])
    return record | {"limit": limit, "median": median, "ratio": limit and limit / median}


def run(device: str, quick: bool, name: str):
    """The record of each operation of each network, or of a network that failed."""
    for network in networks(device, quick):
        try:
            by = check(network, device)
            if not by < 1:
                raise ArithmeticError(f"wrong by {by:.1e} of what is allowed")
            for operation in operations(network, device):
                title = f"{network.name}: {operation.name}"
                if name in title:
                    ops = operation.calls[0].operation.__self__
                    yield {"name": title, "error": None} | measure(operation, ops, quick)
        except Exception as error:
            traceback.print_exc()
            yield {"name": network.name, "error": f"{type(error).__name__}: {error}"}


def operations_table(title: str, records: list[dict]) -> str:
    rows, notes = [], []
    for record in records:
        if record["error"]:
            notes.append(f"{record['name']} failed: {record['error']}")
            continue
        times = [record[key] for key in ("median", "limit") if record[key]]
        cells = [f"{record['amount'] / taken / 1e9:.3g} {record['unit']}" for taken in times]
        cells += [f"{record['ratio']:.2f}"] if record["ratio"] else ["", ""]
        rows.append([record["name"], *cells])
    return table(title, ["", "achieved", "limit", "ratio"], rows, notes)
