"""A step of each optimiser on the parameters of a wide network, against PyTorch's and against a
copy of the bytes that it must move."""

from __future__ import annotations

from benchmarks.compared import median, remarks
from benchmarks.contenders import COPY, LIBRARY, TORCH
from benchmarks.contenders.laws import Law
from benchmarks.networks import WIDE
from benchmarks.tables import Table, ratio, seconds

# Reals of each parameter: `prepare_update` reads g; the law reads g, and reads and writes theta and
# its buffers.
PASSES = {"SGD": 4, "momentum": 6, "RMSprop": 6, "Adam": 8, "AdamW": 8}
QUICK_SIZE = 1 << 14


def run(bench):
    for name, passes in PASSES.items():
        law = Law(name, passes, QUICK_SIZE if bench.quick else WIDE.count)
        yield bench.optimizer_contest.measure(law, ["update"], bench.effort)


def tables(records: list[dict], device: str) -> list[Table]:
    if not records:
        return []
    rows, notes = [], {}
    for record in records:
        ours, copy, torch = (median(record, name, "update") for name in (LIBRARY, COPY, TORCH))
        cells = [seconds(ours), ratio(ours / copy if ours and copy else None)]
        rows.append([record["name"], *cells, ratio(torch / ours if torch and ours else None)])
        notes.update((note, None) for note in remarks(record) if "agree" not in note)
    size = records[0]["task"]["size"]
    title = f"Optimisers, {size:,} parameters, float32, {device}; medians"
    heads = ["", "a step", f"/ {COPY}", f"{TORCH} / gpumlp"]
    return [Table(title, heads, rows, list(notes))]
