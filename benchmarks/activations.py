"""Epochs of one network with each of four activations: tanh, gelu and sigmoid should be as fast
against their peers as relu, whose f costs nothing."""

from __future__ import annotations

from benchmarks.compared import median, remarks
from benchmarks.contenders import EAGER, GEMMS, LIBRARY, SCIKIT_LEARN
from benchmarks.networks import MIDDLE, SMALLEST
from benchmarks.tables import Table, ratio, seconds

ACTIVATIONS = ("relu", "tanh", "gelu", "sigmoid")
CONTENDERS = (LIBRARY, GEMMS, SCIKIT_LEARN, EAGER)


def run(bench):
    network = SMALLEST.shortened() if bench.quick else MIDDLE
    for name in ACTIVATIONS:
        task = network._replace(hidden=name)
        record = bench.contest.measure(task, ("epoch",), bench.effort, names=CONTENDERS)
        yield record | {"activation": name}


def tables(records: list[dict], device: str) -> list[Table]:
    if not records:
        return []
    rows, notes = [], {}
    for record in records:
        cells = [seconds(median(record, LIBRARY, "epoch"))]
        cells.append(
            ratio(record["contenders"][LIBRARY]["works"]["epoch"].get("over_gemms"))
            if median(record, LIBRARY, "epoch")
            else ""
        )
        for peer in (SCIKIT_LEARN, EAGER):
            times = record["contenders"].get(peer, {"works": {}})["works"].get("epoch", {})
            cells.append(ratio(times.get("over_gpumlp")))
        rows.append([record["activation"], *cells])
        notes.update((note, None) for note in remarks(record) if "agree" not in note)
    task = records[0]["task"]
    heads = ["", "epoch", "/ GEMMs", f"{SCIKIT_LEARN} / gpumlp", f"{EAGER} / gpumlp"]
    sizes = "-".join(map(str, task["sizes"]))
    title = f"Activations, {sizes}, batch {task['batch']}, {task['rows']:,} rows, {device}; medians"
    return [Table(title, heads, rows, list(notes))]
