"""The training step and epoch of gpumlp, its peers and the step's GEMMs alone."""

from __future__ import annotations

import statistics
from typing import NamedTuple

import numpy as np

from benchmarks.contenders import ENTRIES, GEMMS, LIBRARY
from benchmarks.networks import NETWORKS, Network
from benchmarks.tables import last_line, milliseconds, ratio, table
from benchmarks.turns import Failed, Runner

TOLERANCE = 1e-4


class Effort(NamedTuple):
    """How often a step and an epoch are timed, and the least seconds of each time."""

    turns: int
    least: float


THOROUGH, QUICK = Effort(7, 0.05), Effort(3, 0.005)
LIMIT = 120.0  # seconds for one answer
MEASURED = ("step", "epoch")


def difference(answers, reference) -> float:
    """The largest relative difference of losses, and of each W[k] and b[k] after the first step."""
    losses = np.abs(np.subtract(answers["losses"], reference["losses"])) / reference["losses"]
    parameters = [
        np.abs(found - expected).max() / np.abs(expected).max()
        for found, expected in zip(answers["parameters"], reference["parameters"], strict=True)
    ]
    return float(max(*losses, *parameters))


class Comparison:
    """The contenders that can take part on this device, each in its process."""

    def __init__(self, device: str, names=None, limit: float = LIMIT):
        self.absent = {entry.name: entry.missing(device) for entry in ENTRIES}
        self.absent = {name: why for name, why in self.absent.items() if why}
        chosen = [entry.name for entry in ENTRIES if names is None or entry.name in names]
        self._runners = {
            name: Runner(name, device, limit) for name in chosen if name not in self.absent
        }

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for runner in self._runners.values():
            runner.close()

    def measure(self, network: Network, effort: Effort = THOROUGH) -> dict:
        """Checks the answers, then takes the times in turn: {network, ..., contenders: {name: {
        error | difference, epoch, step, and for each of these NAME_median, NAME_over_gemms,
        NAME_over_gpumlp}}}, in seconds."""
        found: dict = {name: {"error": None} for name in self._runners}

        def ask(verb):
            """Of each that has not failed, in turn."""
            for name, runner in self._runners.items():
                if found[name]["error"] is None:
                    try:
                        yield name, runner.ask(*verb)
                    except Failed as failure:
                        found[name]["error"] = str(failure)

        answers = dict(ask(("prepare", network)))
        self._compare(answers, found)
        for _ in ask(("warm", effort.least)):
            pass
        for what in MEASURED:
            for _ in range(effort.turns):
                for name, seconds in ask(("time", what)):
                    found[name].setdefault(what, []).append(seconds)
        _summarise(found)
        record = network._asdict() | {"network": network.name, "contenders": found}
        return record | {"absent": self.absent}

    @staticmethod
    def _compare(answers, found):
        reference = answers.get(LIBRARY)
        for name, answer in answers.items():
            if answer is None or reference is None:
                continue
            found[name]["difference"] = by = difference(answer, reference)
            if not by < TOLERANCE:
                found[name]["error"] = f"answers differ from gpumlp's by {by:.1e}"


def _summarise(found):
    """Medians, and their ratios to the GEMMs alone and to gpumlp."""
    for times in found.values():
        for what in MEASURED:
            if times["error"] is None:
                times[f"{what}_median"] = statistics.median(times[what])
    for key, other in (("gemms", GEMMS), ("gpumlp", LIBRARY)):
        for times in found.values():
            for what in MEASURED:
                base = found.get(other, {}).get(f"{what}_median")
                if base and f"{what}_median" in times:
                    times[f"{what}_over_{key}"] = times[f"{what}_median"] / base


def as_text(record: dict, device: str) -> str:
    rows, notes = [], []
    for name, times in record["contenders"].items():
        cells = []
        for what in MEASURED:
            median, gemms = times.get(f"{what}_median"), times.get(f"{what}_over_gemms")
            cells += [milliseconds(median), ratio(gemms), ratio(times.get(f"{what}_over_gpumlp"))]
        rows.append([name, *cells])
        if times["error"]:
            notes.append(f"{name} failed: {last_line(times['error'])}")
    notes += [f"{name} is absent: {why}" for name, why in record["absent"].items()]
    differences = [t["difference"] for t in record["contenders"].values() if "difference" in t]
    if differences:
        notes.append(f"answers agree within {max(differences):.1e} (at most {TOLERANCE:g})")
    heads = [""]
    for what in MEASURED:
        heads += [what, "/ GEMMs", "/ gpumlp"]
    title = (
        f"Training {record['network']}, batch {record['batch']}, {record['rows']:,} rows, "
        f"{record['loss']}, float32, Adam, {device}; medians"
    )
    return table(title, heads, rows, notes)


def chosen(name: str | None = None, quick: bool = False) -> list[Network]:
    """The networks whose name contains this; with short epochs if it has to be quick."""
    networks = [network for network in NETWORKS if name is None or name in network.name]
    return [network.shortened() for network in networks] if quick else networks
