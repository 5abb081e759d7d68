"""How the time of a step, or of an epoch, grows with width, depth, batch, rows and networks: the
slopes of the logarithms, and a plot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.compared import median, remarks
from benchmarks.contenders import EAGER, GEMMS, LIBRARY, VMAP
from benchmarks.networks import Network
from benchmarks.tables import Table, ratio, seconds


class Sweep(NamedTuple):
    """One size of a network that grows, the work that is timed, and PyTorch's way to do it."""

    name: str
    work: str
    network: Callable[[int], Network]
    values: tuple[int, ...]
    on_gpu: tuple[int, ...]
    torch: str = EAGER

    @property
    def contenders(self) -> tuple[str, ...]:
        return LIBRARY, GEMMS, self.torch


SWEEPS = (
    Sweep(
        "width",
        "step",
        lambda width: Network((256, width, width, 10), 256, 512),
        (32, 128, 512, 2048),
        (32, 128, 512, 2048, 8192),
    ),
    Sweep(
        "depth",
        "step",
        lambda depth: Network((256, *[256] * depth, 10), 256, 512),
        (1, 4, 16),
        (1, 4, 16, 64),
    ),
    Sweep(
        "batch",
        "step",
        lambda batch: Network((256, 256, 256, 10), batch, batch),
        (16, 128, 1024, 8192),
        (16, 128, 1024, 8192, 65536),
    ),
    Sweep(
        "rows",
        "epoch",
        lambda rows: Network((64, 100, 10), 200, rows),
        (1_000, 10_000, 100_000),
        (1_000, 10_000, 100_000),
    ),
    Sweep(
        "networks",
        "step",
        lambda models: Network((32, 32, 32, 10), 64, 128, models=models),
        (1, 8, 64, 512),
        (1, 8, 64, 512, 4096),
        VMAP,
    ),
)


def run(bench):
    for sweep in SWEEPS:
        values = sweep.values if bench.device == "cpu" else sweep.on_gpu
        for value in (values[0], 2 * values[0]) if bench.quick else values:
            record = bench.contest.measure(
                sweep.network(value), (sweep.work,), bench.effort, names=sweep.contenders
            )
            yield record | {"sweep": sweep.name, "work": sweep.work, "value": value}


def contenders(sweep: str) -> tuple[str, ...]:
    return next(each.contenders for each in SWEEPS if each.name == sweep)


def points(records: list[dict], sweep: str, name: str) -> list[tuple[int, float]]:
    """(value, seconds) of a contender."""
    chosen = [record for record in records if record["sweep"] == sweep]
    pairs = [(record["value"], median(record, name, record["work"])) for record in chosen]
    return [(value, taken) for value, taken in pairs if taken is not None]


def slope(pairs: list[tuple[int, float]]) -> float | None:
    """Of log seconds over log value, by least squares."""
    if len(pairs) < 2:
        return None
    value, taken = np.log(np.array(pairs, float)).T
    return float(np.polyfit(value, taken, 1)[0])


def tables(records: list[dict], device: str) -> list[Table]:
    if not records:
        return []
    rows, notes = [], {}
    for sweep in dict.fromkeys(record["sweep"] for record in records):
        ours, gemms, torch = (points(records, sweep, name) for name in contenders(sweep))
        work = next(record["work"] for record in records if record["sweep"] == sweep)
        values = [value for value, _ in ours]
        slopes = [f"{s:.2f}" if (s := slope(each)) is not None else "" for each in (ours, gemms)]
        slopes.append(f"{s:.2f}" if (s := slope(torch)) is not None else "")
        ends = [ratio(a[1] / b[1]) for a, b in zip(ours, gemms, strict=False)]
        span = f"{values[0]:,} to {values[-1]:,}" if values else ""
        times = f"{seconds(ours[0][1])} to {seconds(ours[-1][1])}" if ours else ""
        rows.append([sweep, work, span, times, *slopes, ends[0] if ends else "", *ends[-1:]])
    for record in records:
        notes.update((note, None) for note in remarks(record) if "failed" in note)
    heads = ["", "of a", "from", "gpumlp", "its slope", "of GEMMs", "of PyTorch"]
    heads += ["/ GEMMs, first", "last"]
    title = f"Growth, {device}: slopes of log time over log size"
    return [Table(title, heads, [row + [""] * (len(heads) - len(row)) for row in rows], notes)]


def draw(records: list[dict], path: Path, device: str) -> bool:
    """The plot, if matplotlib is there."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    sweeps = list(dict.fromkeys(record["sweep"] for record in records))
    figure = Figure(figsize=(4 * len(sweeps), 4), layout="constrained")
    for axes, sweep in zip(figure.subplots(1, len(sweeps), squeeze=False)[0], sweeps, strict=True):
        work = next(record["work"] for record in records if record["sweep"] == sweep)
        for name in contenders(sweep):
            pairs = points(records, sweep, name)
            if pairs:
                found = slope(pairs)
                label = name if found is None else f"{name}, slope {found:.2f}"
                axes.loglog(*zip(*pairs, strict=True), "o-", label=label)
        axes.set(xlabel=sweep, ylabel=f"seconds of a {work}", title=device)
        axes.grid(True, which="both", alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path)
    return True
