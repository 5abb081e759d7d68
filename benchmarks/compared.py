"""A task done by all contenders: first their answers must agree, then they are timed in turn."""

import statistics
from collections.abc import Iterable

from benchmarks import traffic
from benchmarks.agreement import TOLERANCE, difference
from benchmarks.cases import Case
from benchmarks.contenders import ENTRIES, GEMMS, LIBRARY, Declined
from benchmarks.load import load
from benchmarks.networks import Network
from benchmarks.tables import ratio, seconds, table
from benchmarks.turns import Failed, Runner
from gpumlp.backend.cpu import pool

LIMITS = {"cpu": 300.0, "cuda": 40.0}  # seconds for one answer


class Contest:
    """The contenders that can take part on this device, each in its process; a process begins with
    the contender's first task and lives until the end."""

    def __init__(self, device: str, names: Iterable[str] | None = None):
        self._device, self._limit = device, LIMITS[device.partition(":")[0]]
        reasons = {name: entry.missing(device) for name, entry in ENTRIES.items()}
        self.absent = {name: why for name, why in reasons.items() if why}
        self._taking_part = {*(names or ENTRIES)} - {*self.absent}
        self._runners: dict[str, Runner] = {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for runner in self._runners.values():
            runner.close()

    def measure(self, case: Case, copy_bandwidth: float) -> dict:
        """{name, label, task, works, first, contenders: {name: {error, declined, difference,
        seconds, median}}}, the last two by work; and a step's limit where its GEMMs were timed."""
        names = [name for name in case.names if name in self._taking_part]
        results: dict = {name: {"error": None, "declined": None, "seconds": {}} for name in names}
        for name in names:
            if name not in self._runners:
                self._runners[name] = Runner(ENTRIES[name], self._device, self._limit)

        def ask(*verb):
            """Of all that have neither failed nor declined, in turn."""
            for name, result in results.items():
                if result["error"] is None and result["declined"] is None:
                    try:
                        yield name, self._runners[name].ask(*verb)
                    except Declined as reason:
                        result["declined"] = str(reason)
                    except Failed as failure:
                        result["error"] = str(failure)

        compare(dict(ask("prepare", case.task)), results, case)
        loaded = getattr(case.task, "loaded", False)
        with load(pool.threads() if loaded else 0):
            for work in case.works:
                if case.least:
                    list(ask("warm", work, case.least))
                for _ in range(case.turns):
                    for name, taken in ask("time", work):
                        results[name]["seconds"].setdefault(work, []).append(taken)
        task = {"name": case.task.name, "label": case.task.label, "task": case.task._asdict()}
        record = task | {"works": case.works, "first": case.names[0], "contenders": results}
        return record | summarise(results, case.task, copy_bandwidth)


def compare(answers, results, case: Case):
    """Each answer with the first contender's."""
    first, allowed = case.names[0], tolerance(case.task._asdict())
    for name, answer in answers.items():
        if answer is not None and answers.get(first) is not None:
            results[name]["difference"] = by = difference(answer, answers[first])
            if not by < allowed:
                results[name]["error"] = f"answers differ from {first}'s by {by:.1e}"


def tolerance(task: dict) -> float:
    return TOLERANCE[task.get("precision", "float32")]


def summarise(results, task, copy_bandwidth: float) -> dict:
    """Adds medians, but for one that failed; a step's limit, which is its GEMMs and then its other
    bytes as fast as a copy, and how far from it gpumlp is."""
    for result in results.values():
        times = {} if result["error"] else result["seconds"]
        result["median"] = {work: statistics.median(taken) for work, taken in times.items()}
    ours, gemms = (results.get(name, {}).get("median", {}).get("step") for name in (LIBRARY, GEMMS))
    if not isinstance(task, Network) or not gemms:
        return {}
    limit = traffic.step_limit(task, gemms, copy_bandwidth)
    return {
        "other_bytes": traffic.other_bytes(task),
        "step_limit": limit,
        "over_limit": over(ours, limit),
    }


def median(record: dict | None, name: str, work: str) -> float | None:
    """The median seconds of one contender's work, or None."""
    result = record["contenders"].get(name) if record else None
    return result["median"].get(work) if result else None


def over(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None


def errors(record: dict) -> list[str]:
    """Of contenders, or of an operation."""
    results = record.get("contenders", {"it": record})
    failed = {name: result["error"].strip() for name, result in results.items() if result["error"]}
    lines = {name: error.splitlines()[-1] for name, error in failed.items()}
    return [f"{record['name']}: {name} failed: {line}" for name, line in lines.items()]


def part_table(title: str, records: list[dict]) -> str:
    """A row for each work of each task: the first contender's time, and the others' over it; how
    far from its GEMMs and from the limit of a step it is."""
    first, limited = records[0]["first"], any(record.get("over_limit") for record in records)
    names = dict.fromkeys(name for record in records for name in record["contenders"])
    peers = [name for name in names if name not in (first, GEMMS)]
    heads = ["", first, *[f"/ {GEMMS}"] * (GEMMS in names), *["/ limit"] * limited, *peers]
    rows, notes, differences = [], [], [0.0]
    for record in records:
        for work in record["works"]:
            ours = median(record, first, work)
            cells = [f"{record['label']}: {work}", seconds(ours)]
            if GEMMS in names:
                cells.append(ratio(over(ours, median(record, GEMMS, work))))
            if limited:
                cells.append(ratio(record.get("over_limit") if work == "step" else None))
            rows.append([*cells, *(ratio(over(median(record, p, work), ours)) for p in peers)])
        for name, result in record["contenders"].items():
            if result["declined"]:
                notes.append(f"{name} takes no part: {result['declined']}")
            differences.append(result.get("difference", 0.0) / tolerance(record["task"]))
    notes.append(f"answers differ by {max(differences):.1e} of what is allowed")
    return table(title, heads, rows, dict.fromkeys(notes))
