"""Imports, first steps and the memory of a fit: each measured in fresh processes."""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
from typing import NamedTuple

from benchmarks import fresh
from benchmarks.contenders import (
    COMPILED,
    EAGER,
    ENTRIES,
    GEMMS,
    JAX_JIT,
    LIBRARY,
    SCIKIT_LEARN,
)
from benchmarks.tables import Table, ratio, seconds

TURNS, QUICK_TURNS = 5, 1


class Import(NamedTuple):
    name: str
    package: str
    code: str


IMPORTS = (
    Import("gpumlp, MLP and Trainer", "gpumlp", "from gpumlp import MLP, Trainer"),
    Import("gpumlp, MLPClassifier", "gpumlp", "from gpumlp import MLPClassifier"),
    Import("scikit-learn, MLPClassifier", "sklearn",
           "from sklearn.neural_network import MLPClassifier"),
    Import("NumPy", "numpy", "import numpy"),
    Import("PyTorch", "torch", "import torch"),
    Import("JAX", "jax", "import jax.numpy"),
)  # fmt: skip
FIRST = (LIBRARY, SCIKIT_LEARN, EAGER, JAX_JIT, COMPILED)
QUICK_FIRST = (LIBRARY, SCIKIT_LEARN)


def _attempt(work) -> dict:
    """Its values and error None, or the error."""
    try:
        return {"error": None, **work()}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def run_imports(bench):
    """Each in turn, so that all meet the same disk cache; the first round only warms it."""
    chosen = [each for each in IMPORTS if importlib.util.find_spec(each.package)]
    chosen = chosen[:3] if bench.quick else chosen
    found: dict = {each.name: [] for each in chosen}
    errors: dict = dict.fromkeys(found)
    for turn in range((QUICK_TURNS if bench.quick else TURNS) + 1):
        for each in chosen:
            record = _attempt(lambda code=each.code: fresh.ask(["import", code]))
            errors[each.name] = errors[each.name] or record["error"]
            if turn and record["error"] is None:
                found[each.name].append(record["seconds"])
    for name, times in found.items():
        record = {"name": name, "error": errors[name], "seconds": times}
        yield record | ({"median": statistics.median(times)} if times else {})


def import_tables(records: list[dict], device: str) -> list[Table]:
    peer = next((r.get("median") for r in records if r["name"].startswith(SCIKIT_LEARN)), None)
    rows, notes = [], []
    for record in records:
        taken = record.get("median")
        rows.append(
            [record["name"], seconds(taken), ratio(taken / peer if taken and peer else None)]
        )
        if record["error"]:
            notes.append(f"{record['name']} failed: {record['error']}")
    heads = ["", "import", f"/ {SCIKIT_LEARN}"]
    return [Table("Imports in a fresh process; medians", heads, rows, notes)] if rows else []


def _taking_part(bench, names) -> list[str]:
    entries = {entry.name: entry for entry in ENTRIES}
    return [name for name in names if entries[name].missing(bench.device) is None]


def run_first_steps(bench):
    """With empty caches, then with what that left in them."""
    for name in _taking_part(bench, QUICK_FIRST if bench.quick else FIRST):

        def measure(name=name):
            with tempfile.TemporaryDirectory() as cache:
                cold = fresh.ask(["first", name, bench.device], cache)["seconds"]
                turns = 1 if bench.quick else 3
                warm = [
                    fresh.ask(["first", name, bench.device], cache)["seconds"] for _ in range(turns)
                ]
            return {"cold": cold, "warm": statistics.median(warm)}

        yield {"name": name, **_attempt(measure)}


def first_step_tables(records: list[dict], device: str) -> list[Table]:
    ours = next((r for r in records if r["name"] == LIBRARY and not r["error"]), {})
    rows, notes = [], []
    for record in records:
        cells = []
        for what in ("cold", "warm"):
            taken, base = record.get(what), ours.get(what)
            cells += [seconds(taken), ratio(taken / base if taken and base else None)]
        rows.append([record["name"], *cells])
        if record["error"]:
            notes.append(f"{record['name']} failed: {record['error']}")
    heads = ["", "empty caches", "/ gpumlp", "filled", "/ gpumlp"]
    title = f"From the first import to the end of the first step, 784-256-128-10, {device}"
    return [Table(title, heads, rows, notes)] if rows else []


def run_memory(bench):
    names = [e.name for e in ENTRIES if e.name not in (GEMMS, COMPILED)]
    if bench.quick:
        names = list(QUICK_FIRST)
    for name in _taking_part(bench, names):
        arguments = ["fit", name, bench.device, *["quick"] * bench.quick]
        yield {"name": name, **_attempt(lambda given=arguments: fresh.ask(given))}


def memory_tables(records: list[dict], device: str) -> list[Table]:
    ours = next((r for r in records if r["name"] == LIBRARY and not r["error"]), {})
    predicted = ours.get("predicted")
    rows, notes = [], []
    for record in records:
        if record["error"]:
            notes.append(f"{record['name']} failed: {record['error']}")
            continue
        taken = record["bytes"]
        rows.append(
            [
                record["name"],
                f"{taken / fresh.MEGABYTE:.1f} MiB",
                ratio(taken / predicted if predicted else None),
                ratio(taken / ours["bytes"] if ours.get("bytes") else None),
            ]
        )
    heads = ["", "growth", "/ predicted", "/ gpumlp"]
    title = f"Memory of a fit, 784-256-128-10, batch 128, 12,800 rows, {device}; most at any time"
    if predicted:
        notes.append(f"gpumlp predicts {predicted / fresh.MEGABYTE:.1f} MiB")
    return [Table(title, heads, rows, notes)] if rows else []
