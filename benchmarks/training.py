"""The training step and epoch of gpumlp, its peers and the step's GEMMs alone."""

from __future__ import annotations

from benchmarks import traffic
from benchmarks.compared import as_table, median
from benchmarks.contenders import (
    COMPILED,
    EAGER,
    ENTRIES,
    GEMMS,
    GRAPHED,
    JAX_JIT,
    JAX_SCAN,
    LIBRARY,
    SCIKIT_LEARN,
)
from benchmarks.networks import LARGE, LONG, MIDDLE, NETWORKS, SMALLEST, WIDE, Network
from benchmarks.tables import Table, ratio, seconds

WORKS = ("step", "epoch")
QUICK = SMALLEST, LONG
TORCH, JAX = (EAGER, COMPILED, GRAPHED), (JAX_JIT, JAX_SCAN)


def chosen(name: str | None = None, quick: bool = False, device: str = "cpu") -> list[Network]:
    """The networks whose name contains this; two of them, with short epochs, if it has to be
    quick."""
    networks = [network.shortened() for network in QUICK] if quick else [*NETWORKS]
    if device != "cpu" and not quick:
        # What is most worth knowing comes first: such runs are limited in time.
        networks = [SMALLEST, MIDDLE, *LARGE, WIDE, LONG]
    return [network for network in networks if name is None or name in network.name]


def contenders(network: Network, quick: bool) -> list[str]:
    """torch.compile takes longer than all the rest: the quick run tries it on one network."""
    names = [entry.name for entry in ENTRIES]
    if quick and network.sizes != SMALLEST.sizes:
        names.remove(COMPILED)
    return names


def run(bench):
    for network in chosen(bench.network, bench.quick, bench.device):
        names = contenders(network, bench.quick)
        record = bench.contest.measure(network, WORKS, bench.effort, names=names)
        yield record | limit(record, network, bench.copy_bandwidth)


def limit(record: dict, network: Network, copy_bandwidth: float) -> dict:
    """What the step's GEMMs and its other bytes would take one after the other, and how far from it
    gpumlp is."""
    gemms, ours = (median(record, name, "step") for name in (GEMMS, LIBRARY))
    found: dict = {"other_bytes": traffic.other_bytes(network)}
    if gemms:
        found["step_limit"] = traffic.step_limit(network, gemms, copy_bandwidth)
        found["over_limit"] = ours / found["step_limit"] if ours else None
    return found


def summary(records: list[dict], device: str) -> Table:
    """An epoch of each network beside the best of each peer's ways, and a step beside its limit."""
    rows = []
    for record in records:
        ours = median(record, LIBRARY, "epoch")
        rows.append([record["name"], seconds(ours)])
        for names in ((SCIKIT_LEARN,), TORCH, JAX):
            times = [median(record, name, "epoch") for name in names]
            best = min((taken for taken in times if taken), default=None)
            rows[-1].append(ratio(best / ours if best and ours else None))
        gemms = median(record, GEMMS, "epoch")
        rows[-1].append(ratio(ours / gemms if ours and gemms else None))
        rows[-1].append(ratio(record.get("over_limit")))
    heads = ["", "epoch", f"{SCIKIT_LEARN} / gpumlp", "PyTorch / gpumlp", "JAX / gpumlp"]
    heads += ["gpumlp / GEMMs", "step / limit"]
    return Table(f"An epoch of training, {device}; the best of each peer's ways", heads, rows)


def tables(records: list[dict], device: str) -> list[Table]:
    found = [summary(records, device)] if records else []
    for record in records:
        task, notes = record["task"], []
        if record.get("over_limit"):
            moved = sum(record["other_bytes"].values())
            notes.append(
                f"limit of a step: its GEMMs and {moved / 1e6:.3g} MB as fast as a copy, "
                f"{seconds(record['step_limit'])}; gpumlp takes {ratio(record['over_limit'])}"
            )
        title = (
            f"Training {record['name']}, batch {task['batch']:,}, {task['rows']:,} rows, "
            f"{task['loss']}, {task['precision']}, Adam, {device}; medians"
        )
        found.append(as_table(record, title, notes))
    return found
