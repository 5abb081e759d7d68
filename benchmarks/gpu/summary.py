"""What the records of a run say: a JSON to keep, and a text that begins with what matters most."""

from __future__ import annotations

import collections
import datetime
import json
import re
from pathlib import Path

from benchmarks import machine
from benchmarks.__main__ import tables
from benchmarks.gpu import records
from benchmarks.gpu.records import BEGUN, FAILED, NOT_BEGUN, PASSED, SKIPPED
from benchmarks.gpu.stages import DRY, STAGES

TEXT = "summary.txt"
MOST, MOST_LINE, MOST_FAILURES = 11_500, 400, 25  # characters, of a line, and lines


def merge(folder: Path) -> dict:
    """The results of the suite's parts, as `python -m benchmarks` writes them, and what became of
    each stage and its tests; of those that passed, only those with figures."""
    results: dict = {"machine": machine.describe(), "device": "cuda:0", "quick": DRY}
    results |= {"errors": [], "stages": {}}
    stages = records.read(folder)
    for stage in STAGES:
        about, items = stages.get(stage.name, ({"closed": "not begun"}, {}))
        counts = collections.Counter(item["outcome"] for item in items.values())
        kept = {n: i for n, i in items.items() if i["outcome"] != PASSED or i["figures"]}
        results["stages"][stage.name] = about | {"outcomes": counts, "items": kept}
        file = folder / f"{stage.name}.json"
        if file.exists():
            suite = json.loads(file.read_text(encoding="utf-8"))
            suite["errors"] = results["errors"] + suite["errors"]
            results |= suite
            counts[PASSED] += 1
    outcomes = [set(stage["outcomes"]) for stage in results["stages"].values()]
    reached = set().union(*outcomes)
    results["passed"] = PASSED in reached and FAILED not in reached and not results["errors"]
    return results


def text(results: dict, path: Path) -> str:
    """Failures and where they are, what is missing, what the figures decide, the figures."""
    lines = [f"{'ALL THAT RAN PASSED' if results['passed'] else 'NOT PASSED'}: {path}"]
    lines += [machine.one_line(results["machine"]), *failures(results), "", *stages(results), ""]
    shown = tables(results)
    goals = shown.pop("goals").splitlines()
    lines += [*goals, "", *figures(results)]
    lines += [line for table in shown.values() for line in ("", *table.splitlines())]
    kept, size = [], 0
    for line in lines:
        kept.append(line[:MOST_LINE])
        size += len(kept[-1].encode()) + 1
        if size > MOST:
            return "\n".join([*kept[:-1], "... the rest is in the JSON"])
    return "\n".join(kept)


def failures(results):
    """Those of one error in one line."""
    by_error: dict[str, list[str]] = {error: ["suite"] for error in results["errors"]}
    for stage in results["stages"].values():
        for name, item in stage["items"].items():
            if item["outcome"] == FAILED:
                by_error.setdefault(" ".join(item["error"].split()), []).append(name)
    for i, (error, names) in enumerate(by_error.items()):
        if i == MOST_FAILURES:
            yield f"... and {len(by_error) - i} other errors"
            return
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"FAILED {names[0]}{others}: {error}"


def stages(results):
    """A line for each stage, what it left out or skipped, and peers that are absent."""
    for name, stage in results["stages"].items():
        counts = ", ".join(f"{count} {outcome}" for outcome, count in stage["outcomes"].items())
        took = f"{stage['seconds']:.0f} of {stage['limit']:.0f} s" if "seconds" in stage else ""
        yield ", ".join(filter(None, [f"{name}: {stage.get('closed', 'cut off')}", took, counts]))
        items = stage["items"].items()
        left = [item for item, record in items if record["outcome"] in (NOT_BEGUN, BEGUN)]
        if left:
            yield f"  for lack of time without {', '.join(left)}"
        skips = [record["error"] for _, record in items if record["outcome"] == SKIPPED]
        for why, count in collections.Counter(skips).items():
            yield f"  skipped {count}: {why}"
    yield from (f"{name} is absent: {why}" for name, why in results.get("absent", {}).items())


def figures(results):
    """Of tests."""
    for stage in results["stages"].values():
        for name, item in stage["items"].items():
            if item.get("figures"):
                shown = ", ".join(f"{key} {value}" for key, value in item["figures"].items())
                yield f"{name.rpartition('::')[2]}: {shown}"


def write(folder: Path) -> tuple[str, bool]:
    """The JSON and the text, into the folder; the text, and whether all that ran passed."""
    results = merge(folder)
    gpus = [gpu["name"] for gpu in results["machine"]["gpus"]] or ["no GPU"]
    name = f"{datetime.date.today()} {'dry run' if DRY else gpus[0]}".lower()
    path = folder / f"{re.sub(r'[^a-z0-9]+', '-', name).strip('-')}.json"
    said = text(results, path)
    for file, content in ((path, json.dumps(results, indent=1)), (folder / TEXT, said)):
        unfinished = file.with_name("unfinished")
        unfinished.write_text(content + "\n", encoding="utf-8")
        unfinished.replace(file)  # whole or not at all
    return said, results["passed"]
