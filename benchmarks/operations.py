"""Each operation of a training step, and of an evaluation, against a copy of the bytes that it must
move; the rate of the products.

NumPy moves more bytes in several passes: there the fraction says how far the readable reference is
from one pass.
"""

import statistics
import traceback
from functools import partial
from typing import NamedTuple

import numpy as np

from benchmarks import clock, traffic
from benchmarks.contenders.library import Library
from benchmarks.networks import Network
from benchmarks.recorder import Call, recorded
from benchmarks.tables import table
from gpumlp import backend
from gpumlp.backend import selfcheck
from gpumlp.training.evaluate import Evaluation

TITLE = "Operations, as fractions of a copy's bytes a second"
GOAL = 0.9  # for those that stream on a GPU
STEP = "shuffle", "gemm", *traffic.other_bytes(Network((1, 1), 1, 1))
EVALUATED = "activate", "accumulate_metrics"
SHUFFLED = 20  # bytes of a row: a key written and read, the row's number written
BATCHES = 1 << 10  # of metrics, more than are measured
REPEATS = {"cuda": 20, "cpu": 3, "quick": 2}
# Wider than the caches of a GPU, and on a CPU as wide as NumPy does in reasonable time.
WIDE = {
    "cuda": Network((4096, 4096, 4096, 4096), 8192, 8192),
    "cpu": Network((1024, 2048, 2048, 1024), 4096, 4096),
    "quick": Network((37, 29, 13), 16, 16),
}
NARROW = Network((20, 1024, 10), 1 << 15, 1 << 15)  # short rows and few classes
SHUFFLES = (1, 1_797), (64, 1_797), (1_000, 1_797), (1, 1_000_000), (1, 50_000_000)


class Operation(NamedTuple):
    """All calls of it in a step; amount: bytes, or of products, floating-point operations."""

    name: str
    amount: int
    calls: list[Call]
    streams: bool

    def __call__(self):
        for call in self.calls:
            call()


def kind(device: str, quick: bool) -> str:
    return "quick" if quick else device.partition(":")[0]


def networks(device: str, quick: bool = False) -> list[Network]:
    """Each activation and loss once."""
    wide = WIDE[kind(device, quick)]
    gelu = wide._replace(hidden="gelu", loss="squared_error")
    chosen = [wide, gelu, *(wide._replace(hidden=hidden) for hidden in ("tanh", "sigmoid"))]
    if device != "cpu":
        chosen += [wide._replace(precision="bf16"), gelu._replace(precision="bf16")]
    return chosen if quick else [*chosen, NARROW]


def operations(network: Network, device: str) -> list[Operation]:
    """Of a step, and what an evaluation has besides."""
    library = Library(network.problem(), device, persistent=False)
    library.load()
    ops, net, amounts = library.ops, library.net, traffic.other_bytes(network)
    one_thread = {"threads": lambda net, objective=None: 1}  # no slices: each call is whole
    with ops.on_device():
        with recorded(ops, *STEP, **one_thread) as calls:
            library.epoch()
        with recorded(ops, *EVALUATED, **one_thread) as evaluated:
            Evaluation(net, library.trainer.objective, library.x, library.y)()
    for call in evaluated:
        f_or_n, outputs = call.arguments[0], call.arguments[3]
        if call.name == "accumulate_metrics" and f_or_n is not None:
            calls.append(call)
            amounts[call.name] = f_or_n.nbytes
        elif f_or_n is net.f[net.K] and net.f[net.K].rows:  # reads z, writes n
            calls.append(call._replace(name="softmax"))
            amounts["softmax"] = 2 * outputs.nbytes
    weights = [a * b for a, b in zip(network.sizes, network.sizes[1:], strict=False)]
    amounts["gemm"] = 2 * network.batch * (3 * sum(weights) - weights[0])
    amounts["shuffle"] = SHUFFLED * network.rows
    groups: dict[str, list[Call]] = {}
    for call in calls:
        groups.setdefault(call.name, []).append(repeatable(call))
    return [
        Operation(name, amounts[name], group, streams=network.sizes != NARROW.sizes)
        for name, group in groups.items()
    ]


def shuffles(ops, quick: bool) -> list[Operation]:
    """A new order of so many rows for each of so many networks."""
    chosen = []
    for models, rows in SHUFFLES[:1] if quick or ops.device == "cpu" else SHUFFLES:
        with ops.on_device():
            seeds = ops.to_device(np.arange(models, dtype=np.uint64))
            order = ops.xp.zeros((models, rows), np.int32)
        call = Call("shuffle", ops.shuffle, (seeds, 1, order), {}, None)
        name = f"shuffle {models:,} x {rows:,}"
        chosen.append(Operation(name, SHUFFLED * order.size, [call], streams=False))
    return chosen


def repeatable(call: Call) -> Call:
    """With a cursor, and places to write, that repeated calls do not run out of."""
    arguments, xp = list(call.arguments), call.operation.__self__.xp
    if call.name == "gather":
        arguments[2] = xp.zeros_like(arguments[2])
    if call.name == "accumulate_metrics":
        arguments[-1] = xp.zeros((BATCHES, *arguments[-1].shape[1:]), arguments[-1].dtype)
    return call._replace(arguments=tuple(arguments))


def copy_bandwidth(ops, quick: bool = False) -> float:
    """Bytes per second, read and written, of copying a buffer of float32."""
    wide = WIDE[kind(ops.device, quick)]
    with ops.on_device():
        source = ops.xp.ones((wide.batch, max(wide.sizes)), np.float32)
        target = ops.xp.empty_like(source)
        repeats = REPEATS[kind(ops.device, quick)]
        times = clock.times(ops, lambda: ops.xp.copyto(target, source), repeats)
    return 2 * source.nbytes / statistics.median(times)


def measure(operation: Operation, ops, quick: bool = False) -> dict:
    """median and limit, in seconds, and their ratio; products have no limit here."""
    times = clock.times(ops, operation, REPEATS[kind(ops.device, quick)])
    record = {"amount": operation.amount, "seconds": times, "median": statistics.median(times)}
    if operation.name == "gemm":
        return record
    limit = operation.amount / copy_bandwidth(ops, quick)
    streams = operation.streams and operation.name != "shuffle"
    return record | {"limit": limit, "ratio": limit / record["median"], "streams": streams}


def run(device: str, quick: bool, name: str):
    """The record of each operation of each network, after the backend was found to compute what
    NumPy does."""
    ops = backend.get(device)
    checks = [case for case in selfcheck.cases() if case.first or not quick]
    wrong = [str(outcome) for outcome in selfcheck.run(ops.device, checks) if not outcome.passed]
    if wrong:
        yield {"name": "self-check", "error": "; ".join(wrong)}
        return
    makers = {n.name: partial(operations, n, device) for n in networks(device, quick)}
    for network, make in (makers | {"alone": partial(shuffles, ops, quick)}).items():
        try:
            for operation in make():
                record = {"name": f"{network}: {operation.name}", "error": None}
                if name in record["name"]:
                    record |= {"network": network, "operation": operation.name}
                    yield record | measure(operation, ops, quick)
        except Exception:
            yield {"name": network, "error": traceback.format_exc()}


def operations_table(title: str, records: list[dict]) -> str:
    """A row for each operation, a column for each network."""
    cells: dict[str, dict[str, str]] = {}
    for record in records:
        if not record["error"]:
            rate = f"{record['amount'] / record['median'] / 1e9:.3g} GFLOP/s"
            shown = f"{record['ratio']:.2f}" if "ratio" in record else rate
            cells.setdefault(record["operation"], {})[record["network"]] = shown
    names = list(dict.fromkeys(name for row in cells.values() for name in row))
    rows = [[operation, *(row.get(name, "") for name in names)] for operation, row in cells.items()]
    return table(title, ["", *names], rows)
