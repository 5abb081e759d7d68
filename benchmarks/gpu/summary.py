"""What the records of a run say: a JSON to keep, and a text that begins with what matters most."""

from __future__ import annotations

import collections
import datetime
import json
import re
from pathlib import Path

from benchmarks import machine, operations, stacks, training
from benchmarks.contenders import LIBRARY, OPERATIONS, RESIDENT
from benchmarks.gpu import records
from benchmarks.gpu.probes import DEVICE, TUNED
from benchmarks.gpu.records import BEGUN, FAILED, NOT_BEGUN, PASSED, SKIPPED
from benchmarks.gpu.stages import STAGES

TEXT = "summary.txt"
MOST, MOST_LINE, MOST_FAILURES = 11_500, 400, 25  # characters, of a line, and lines
EARNED = 1.1


def merge(folder: Path) -> dict:
    """Machine, whether all that ran passed, and of each stage what became of it; of items that
    passed, only those with figures."""
    stages = records.read(folder)
    results: dict = {"machine": {}, "dry": False, "passed": False, "stages": {}}
    for name in dict.fromkeys([*(stage.name for stage in STAGES), *stages]):
        about, items = stages.get(name, ({"closed": "not begun"}, {}))
        outcomes = collections.Counter(item["outcome"] for item in items.values())
        results["stages"][name] = found = {
            **{key: about[key] for key in ("closed", "why", "limit", "seconds") if key in about},
            "outcomes": dict(outcomes),
            "left out": [n for n, item in items.items() if item["outcome"] in (NOT_BEGUN, BEGUN)],
            "items": {
                item: {key: record[key] for key in ("outcome", "seconds", "error", "figures")}
                for item, record in items.items()
                if record["outcome"] in (FAILED, SKIPPED) or record.get("figures")
            },
        }
        found.setdefault("closed", "cut off")
        results["dry"] |= about.get("dry", False)
    outcomes = [o for stage in results["stages"].values() for o in stage["outcomes"]]
    results["passed"] = PASSED in outcomes and FAILED not in outcomes
    described = results["stages"]["facts"]["items"].get("machine", {})
    results["machine"] = described.get("figures", {})
    return results


def result_file(results: dict, folder: Path) -> Path:
    """DATE-GPU.json: the same for all summaries of a run."""
    gpus = results["machine"].get("gpus") or [{"name": "no GPU"}]
    name = "dry run" if results["dry"] else gpus[0]["name"]
    date = results["machine"].get("date") or datetime.datetime.now().isoformat()
    name = f"{date[:16].replace('T', '-').replace(':', '')}-{name.lower()}"
    return folder / f"{re.sub(r'[^a-z0-9]+', '-', name).strip('-')}.json"


def text(results: dict, path: Path) -> str:
    """Failures and where they are, what is missing, what the figures decide, the figures."""
    about = machine.one_line(results["machine"]) if results["machine"] else "nothing of the machine"
    lines = [f"{'ALL THAT RAN PASSED' if results['passed'] else 'NOT PASSED'}: {path}", about]
    for part in (_failures, _missing, _decisions, _tables, _figures):
        found = list(part(results))
        lines += ["", *found] if found else []
    kept, size = [], 0
    for line in lines:
        kept.append(line[:MOST_LINE])
        size += len(kept[-1].encode()) + 1
        if size > MOST:
            return "\n".join([*kept[:-1], "... the rest is in the JSON"])
    return "\n".join(kept)


def _items(results, *outcomes):
    for stage, found in results["stages"].items():
        for name, item in found["items"].items():
            if item["outcome"] in outcomes:
                yield stage, name, item


def _failures(results):
    """Those of one error in one line."""
    by_error: dict[tuple[str, str], list[str]] = {}
    for stage, name, item in _items(results, FAILED):
        by_error.setdefault((stage, " ".join(item["error"].split())), []).append(name)
    for i, ((stage, error), names) in enumerate(by_error.items()):
        if i == MOST_FAILURES:
            yield f"... and {len(by_error) - i} other errors"
            return
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"FAILED {stage}: {names[0]}{others}: {error}"


def _missing(results):
    """A line for each stage, with what it left out; then skips, and peers that are absent."""
    for name, stage in results["stages"].items():
        counts = ", ".join(f"{count} {outcome}" for outcome, count in stage["outcomes"].items())
        took = f"{stage['seconds']:.0f} of {stage['limit']:.0f} s" if "seconds" in stage else ""
        told = [f"{name}: {stage['closed']}", stage.get("why"), took, counts]
        yield ", ".join(filter(None, told))
        if stage["left out"]:
            yield f"  for lack of time without {', '.join(stage['left out'])}"
    skips = [(stage, item["error"]) for stage, _, item in _items(results, SKIPPED)]
    for (stage, why), count in collections.Counter(skips).items():
        yield f"{stage}: skipped {count}: {why}"
    absent = [item["figures"].get("absent", {}) for _, _, item in _items(results, PASSED, FAILED)]
    for name, why in {name: why for one in absent for name, why in one.items()}.items():
        yield f"{name} is absent: {why}"


def _decisions(results):
    """What stays if it earns a tenth on some network of the suite, and what it earns on each."""
    items = results["stages"]["epochs"]["items"]
    taken = {name: item["figures"] for name, item in items.items() if item["outcome"] == PASSED}
    gains: dict[str, dict[str, float]] = {
        "the persistent kernel": {}, "timed algorithms": {}, "bf16 storage, over TF32": {}
    }  # fmt: skip
    kernel, timed, bf16 = gains.values()
    for name, of in taken.items():
        network, other = name.partition(":")[0], taken.get(name.replace(" bf16", " tf32"))
        if RESIDENT in of:
            kernel[network] = of[OPERATIONS] / of[RESIDENT]
        if TUNED in of:
            timed[network] = of[LIBRARY] / of[TUNED]
        if " bf16" in name and other:
            bf16[network] = min(other[LIBRARY], other[TUNED]) / min(of[LIBRARY], of[TUNED])
    for what, by in gains.items():
        best = max(by.values(), default=None)
        verdict = "was not measured" if best is None else "stays" if best >= EARNED else "goes"
        verdict = "a dry run decides nothing" if results["dry"] else verdict
        shown = ", ".join(f"{gain:.2f}x {network}" for network, gain in by.items())
        yield f"{what}: {verdict} {shown}".rstrip()


def _tables(results):
    for name, part in (("training", training), ("stacks", stacks), ("operations", operations)):
        items = results["stages"][name]["items"].values()
        found = [item["figures"] for item in items if item["figures"]]
        tables = part.tables(found, DEVICE) if found else []
        for table in tables[:1] if name == "training" else tables:  # the rest are in the JSON
            yield from (*table.text().splitlines(), "")


def _figures(results):
    for stage, name, item in _items(results, PASSED):
        if stage not in ("training", "stacks", "operations") and name != "machine":
            shown = (f"{key} {_short(value)}" for key, value in item["figures"].items())
            yield f"{stage} {name}: {', '.join(shown)}"


def _short(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write(folder: Path) -> tuple[str, bool]:
    """The JSON and the text, into the folder; the text, and whether all that ran passed."""
    results = merge(folder)
    path = result_file(results, folder)
    said = text(results, path)
    for file, content in ((path, json.dumps(results, indent=1)), (folder / TEXT, said)):
        unfinished = file.with_name("unfinished")
        unfinished.write_text(content + "\n", encoding="utf-8")
        unfinished.replace(file)  # whole or not at all
    return said, results["passed"]
