"""A task done by all contenders: first their answers must agree, then they are timed in turn."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from benchmarks.agreement import TOLERANCE, difference
from benchmarks.contenders import ENTRIES, GEMMS, LIBRARY, Declined, Entry
from benchmarks.tables import Table, last_line, ratio, seconds
from benchmarks.turns import Failed, Runner

LIMIT = 180.0  # seconds for one answer


class Effort(NamedTuple):
    """How often each work is timed, and the least seconds of each time; twice: whether it is done
    once before each time, as all is that takes no minutes."""

    turns: int
    least: float
    twice: bool = True


THOROUGH, QUICK = Effort(7, 0.05), Effort(2, 0.002)


class Contest:
    """The contenders that can take part on this device, each in its process; a process begins with
    the contender's first task and lives until the end."""

    def __init__(
        self,
        device: str,
        names: Iterable[str] | None = None,
        limit: float = LIMIT,
        entries: Sequence[Entry] = ENTRIES,
    ):
        self._device, self._limit = device, limit
        self._chosen = [entry for entry in entries if names is None or entry.name in names]
        self.absent = {entry.name: entry.missing(device) for entry in entries}
        self.absent = {name: why for name, why in self.absent.items() if why}
        self._runners: dict[str, Runner] = {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for runner in self._runners.values():
            runner.close()

    def measure(
        self,
        task,
        works: Sequence[str],
        effort: Effort = THOROUGH,
        question: str = "answers",
        names: Iterable[str] | None = None,
    ) -> dict[str, Any]:
        """{name, works, contenders: {name: {error | declined, difference, works: {what: {seconds,
        median, over_gemms, over_gpumlp}}}}}; question: the method whose answers must agree."""
        entries = [e for e in self._chosen if names is None or e.name in names]
        entries = [entry for entry in entries if entry.name not in self.absent]
        found: dict = {e.name: {"error": None, "declined": None, "works": {}} for e in entries}
        for entry in entries:
            if entry.name not in self._runners:
                self._runners[entry.name] = Runner(entry, self._device, self._limit)

        def ask(*verb):
            """Of each that has neither failed nor declined, in turn."""
            for name, record in found.items():
                if record["error"] is None and record["declined"] is None:
                    try:
                        yield name, self._runners[name].ask(*verb)
                    except Declined as reason:
                        record["declined"] = str(reason)
                    except Failed as failure:
                        record["error"] = str(failure)

        answers = dict(ask("prepare", task, question))
        compare(answers, found, TOLERANCE[getattr(task, "precision", "float32")])
        for what in works:
            if effort.twice:
                for _ in ask("warm", what, effort.least):
                    pass
            for _ in range(effort.turns):
                for name, taken in ask("time", what, effort.twice):
                    times = found[name]["works"].setdefault(what, {"seconds": []})
                    times["seconds"].append(taken)
        summarise(found)
        named = {"name": task.name, "task": task._asdict(), "works": list(works)}
        return named | {"contenders": found}


def compare(answers, found, tolerance: float):
    reference = answers.get(LIBRARY)
    for name, answer in answers.items():
        if answer is None or reference is None:
            continue
        found[name]["difference"] = by = difference(answer, reference)
        if not by < tolerance:
            found[name]["error"] = f"answers differ from gpumlp's by {by:.1e}"


def summarise(found):
    """Medians, and their ratios to the GEMMs alone and to gpumlp; no times of one that failed."""
    for record in found.values():
        if record["error"] is not None:
            record["works"] = {}
        for times in record["works"].values():
            times["median"] = statistics.median(times["seconds"])
    for key, other in (("gemms", GEMMS), ("gpumlp", LIBRARY)):
        for record in found.values():
            for what, times in record["works"].items():
                base = found.get(other, {"works": {}})["works"].get(what)
                if base:
                    times[f"over_{key}"] = times["median"] / base["median"]


def median(record: dict, name: str, what: str) -> float | None:
    """The median seconds of one contender's work, or None."""
    found = record["contenders"].get(name, {"works": {}})
    return found["works"].get(what, {}).get("median")


def failed(record: dict) -> bool:
    return any(found["error"] for found in record["contenders"].values())


def remarks(record: dict) -> list[str]:
    """Who failed or declined, and how far the answers agree."""
    notes = []
    contenders = record["contenders"]
    for name, found in contenders.items():
        if found["error"]:
            notes.append(f"{name} failed: {last_line(found['error'])}")
        if found["declined"]:
            notes.append(f"{name} takes no part: {found['declined']}")
    differences = [found["difference"] for found in contenders.values() if "difference" in found]
    if differences:
        tolerance = TOLERANCE[record["task"].get("precision", "float32")]
        notes.append(f"answers agree within {max(differences):.1e} (at most {tolerance:g})")
    return notes


def as_table(record: dict, title: str, extra: Sequence[str] = ()) -> Table:
    """A row for each contender; for each work its median and its ratios."""
    with_gemms = GEMMS in record["contenders"]
    heads = [""]
    for what in record["works"]:
        heads += [what, *["/ GEMMs"] * with_gemms, "/ gpumlp"]
    rows = []
    for name, found in record["contenders"].items():
        cells = []
        for what in record["works"]:
            times = found["works"].get(what, {})
            gemms = [ratio(times.get("over_gemms"))] * with_gemms
            cells += [seconds(times.get("median")), *gemms, ratio(times.get("over_gpumlp"))]
        if found["works"]:
            rows.append([name, *cells])
    return Table(title, heads, rows, [*extra, *remarks(record)])
