"""ŷ of 1, 128 and 8192 rows that are on the device already."""

from __future__ import annotations

from benchmarks.compared import as_table
from benchmarks.contenders import COMPILED, ENTRIES, JAX_SCAN
from benchmarks.networks import LARGE, MIDDLE, SMALLEST, WIDE, Network
from benchmarks.tables import Table

ROWS, QUICK_ROWS = (1, 128, 8192), (1, 64)


def networks(device: str, quick: bool) -> list[Network]:
    if quick:
        return [SMALLEST.shortened()]
    found = [network._replace(batch=128, rows=max(ROWS)) for network in (MIDDLE, WIDE)]
    large = [network._replace(batch=128, rows=max(ROWS)) for network in LARGE]
    return found + (large if device != "cpu" else [])


def run(bench):
    works = [f"predict {rows}" for rows in (QUICK_ROWS if bench.quick else ROWS)]
    left_out = {JAX_SCAN, *[COMPILED] * bench.quick}  # a scan is an epoch's
    names = [entry.name for entry in ENTRIES if entry.name not in left_out]
    for network in networks(bench.device, bench.quick):
        if bench.network is None or bench.network in network.name:
            yield bench.contest.measure(network, works, bench.effort, "predictions", names)


def tables(records: list[dict], device: str) -> list[Table]:
    return [
        as_table(
            record, f"Inference, {record['name']}, {record['task']['precision']}, {device}; medians"
        )
        for record in records
    ]
