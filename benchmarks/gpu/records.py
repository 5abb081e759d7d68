"""What a run writes while it goes: a line of JSON for whatever was planned, began or ended.

Several processes add to the file, each line by one write, so that none is lost or mixed up.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

FILE, VARIABLE = "records.jsonl", "GPUMLP_BENCHMARKS_TASK"
NOT_BEGUN, BEGUN = "not begun", "cut short"  # unless another record follows
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


class Task(NamedTuple):
    """What a process of pytest has to do and where it writes, which it reads in its environment.

    process: its name within the stage; share: it does part i of n; most: seconds of one test;
    until: when the stage's time is over.
    """

    folder: str
    stage: str
    most: float
    until: float
    process: str = ""
    share: tuple[int, int] = (0, 1)

    @classmethod
    def of_environment(cls) -> Task:
        return cls(*json.loads(os.environ[VARIABLE]))

    def write(self, **record):
        # A line that was cut short with an earlier run does not swallow the next.
        begin = "\n" if "limit" in record else ""
        line = json.dumps({"stage": self.stage, "process": self.process} | record, default=str)
        with Path(self.folder, FILE).open("ab", buffering=0) as file:
            file.write(f"{begin}{line}\n".encode())

    def end(self, name: str, outcome: str, error: str = "", **figures):
        self.write(name=name, outcome=outcome, error=error[:600], figures=figures)

    def outcomes(self) -> dict[str, str]:
        """Of what this process planned, so far."""
        items = read(self.folder)[self.stage].items.items()
        return {name: item["outcome"] for name, item in items if item["process"] == self.process}


class Stage(NamedTuple):
    """about: limit and, when it is over, closed and seconds; items: name -> its last record."""

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
