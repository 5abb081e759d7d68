"""What a run writes while it goes: a line of JSON for whatever was planned, began or ended.

Several processes add to the file, each line by one write, so that none is lost or mixed up.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

FILE = "records.jsonl"
VARIABLE = "GPUMLP_BENCHMARKS_TASK"
NOT_BEGUN, BEGUN = "not begun", "cut short"  # unless another record follows
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
MESSAGE = 600  # characters kept of an error


class Skip(Exception):
    """Something cannot be done here; the reason is recorded."""


class Task(NamedTuple):
    """What a process has to do and where it writes, which it reads in its environment.

    process: its name within the stage; share: it does part i of n; most: seconds of one item;
    until: when the stage's time is over; dry: on the stand-in for CuPy, at tiny sizes.
    """

    folder: str
    stage: str
    most: float
    until: float
    dry: bool = False
    process: str = ""
    share: tuple[int, int] = (0, 1)

    @classmethod
    def of_environment(cls) -> Task:
        return cls(*json.loads(os.environ[VARIABLE]))

    def write(self, **record):
        about = {"at": round(time.time(), 2), "stage": self.stage, "process": self.process}
        # A line that was cut short with an earlier run does not swallow the next.
        begin = "\n" if "limit" in record else ""
        line = begin + json.dumps(about | record, default=_plain) + "\n"
        file = os.open(Path(self.folder, FILE), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def plan(self, names) -> list[str]:
        """Those that have not ended yet."""
        self.write(plan=list(names))
        return [name for name, outcome in self.outcomes().items() if outcome == NOT_BEGUN]

    def patience(self) -> float | None:
        """Seconds after which an item that has not ended hangs: `most`, or what the stage's end
        leaves of it; None where that is less than half, so that it only lacked time."""
        left = min(self.most, self.until - time.time() - 1)
        return left if left >= self.most / 2 else None

    def begin(self, name: str):
        self.write(name=name, outcome=BEGUN)

    def end(self, name: str, outcome: str, seconds: float = 0.0, error="", figures=None):
        ended = {"name": name, "outcome": outcome, "seconds": round(seconds, 3)}
        self.write(**ended, error=str(error)[:MESSAGE], figures=figures or {})

    def outcomes(self) -> dict[str, str]:
        """Of what this process planned, so far."""
        items = read(self.folder)[self.stage].items.items()
        return {name: item["outcome"] for name, item in items if item["process"] == self.process}


class Stage(NamedTuple):
    """about: limit and, when it is over, closed, seconds, why; items: name -> its last record."""

    about: dict
    items: dict[str, dict]


def read(folder) -> dict[str, Stage]:
    """Each stage since it last began."""
    stages: dict[str, Stage] = {}
    path = Path(folder, FILE)
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:  # cut short
            continue
        if "limit" in record:
            stages[record["stage"]] = Stage(record, {})
        about, items = stages[record["stage"]]
        about |= record if "closed" in record else {}
        for planned in record.get("plan", ()):
            items.setdefault(planned, {"outcome": NOT_BEGUN, "process": record["process"]})
        # A test whose teardown fails has passed before: the worse counts.
        name = record.get("name")
        if name and items.get(name, {}).get("outcome") != FAILED:
            items[name] = record
    return stages


def _plain(value):
    """What JSON does not know: NumPy's numbers, paths."""
    return value.item() if hasattr(value, "item") else str(value)
