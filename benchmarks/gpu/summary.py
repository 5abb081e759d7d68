"""What the records of a run say: a JSON to keep, and a text that begins with what matters most."""

import collections
import datetime
import json
import re
from pathlib import Path

from benchmarks import goals, machine
from benchmarks.__main__ import tables
from benchmarks.gpu.processes import BEGUN, FAILED, PASSED, PLANNED, SKIPPED, read
from benchmarks.gpu.stages import DRY, STAGES

TEXT = "summary.txt"
MOST, MOST_LINE = 11_500, 400  # characters, and of a line


def merge(folder: Path) -> dict:
    """The results of the suite's parts, as `python -m benchmarks` writes them, and what became of
    each stage and its tests; of those that passed, only those with figures."""
    results: dict = {"machine": machine.describe(), "device": "cuda:0", "quick": DRY}
    results |= {"errors": [], "stages": {}}
    stages, outcomes = read(folder), set()
    for name in [stage.name for stage in STAGES]:
        stage = stages.get(name, {"closed": "not begun", "tests": {}})
        stage["outcomes"] = collections.Counter(t["outcome"] for t in stage["tests"].values())
        outcomes |= {*stage["outcomes"]}
        tests = stage["tests"].items()
        stage["tests"] = {n: t for n, t in tests if t["outcome"] != PASSED or t["figures"]}
        results["stages"][name] = stage
        file = folder / f"{name}.json"
        if file.exists():
            suite = json.loads(file.read_text(encoding="utf-8"))
            results |= suite | {"errors": results["errors"] + suite["errors"]}
            outcomes.add(FAILED if suite["errors"] else PASSED)
    results["goals"] = goals.judge(results)
    results["passed"] = PASSED in outcomes and FAILED not in outcomes
    return results


def text(results: dict, path: Path) -> str:
    """Failures and where they are, what is missing, what the figures decide, the figures."""
    lines = [f"{'ALL THAT RAN PASSED' if results['passed'] else 'NOT PASSED'}: {path}"]
    lines += [machine.one_line(results["machine"]), *failures(results), "", *stages(results), ""]
    by_part = tables(results)
    lines += [*by_part.pop("goals").splitlines(), "", *figures(results)]
    lines += [line for table in by_part.values() for line in ("", *table.splitlines())]
    said = "\n".join(line[:MOST_LINE] for line in lines)
    return said if len(said) < MOST else f"{said[:MOST]}\n... the rest is in the JSON"


def failures(results):
    """Those of one error in one line."""
    by_error: dict[str, list[str]] = {error: ["suite"] for error in results["errors"]}
    for stage in results["stages"].values():
        for name, test in stage["tests"].items():
            if test["outcome"] == FAILED:
                by_error.setdefault(" ".join(test["error"].split()), []).append(name)
    for error, names in by_error.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"FAILED {names[0]}{others}: {error}"


def stages(results):
    """A line for each stage, what it left out or skipped, and peers that are absent."""
    for name, stage in results["stages"].items():
        counts = ", ".join(f"{count} {outcome}" for outcome, count in stage["outcomes"].items())
        took = f"{stage['seconds']:.0f} of {stage['limit']:.0f} s" if "seconds" in stage else ""
        yield ", ".join(filter(None, [f"{name}: {stage.get('closed', 'cut off')}", took, counts]))
        tests = stage["tests"].items()
        left = [test for test, record in tests if record["outcome"] in (PLANNED, BEGUN)]
        if left:
            yield f"  for lack of time without {', '.join(left)}"
        skips = [record["error"] for _, record in tests if record["outcome"] == SKIPPED]
        for why, count in collections.Counter(skips).items():
            yield f"  skipped {count}: {why}"
    yield from (f"{name} is absent: {why}" for name, why in results.get("absent", {}).items())


def figures(results):
    """Of tests."""
    for stage in results["stages"].values():
        for name, test in stage["tests"].items():
            if test.get("figures"):
                shown = ", ".join(f"{key} {value}" for key, value in test["figures"].items())
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
