"""A pytest plugin, `-p benchmarks.outcomes`: notes how each test ended, as soon as it has.

A run that is killed so leaves what it had.  It also switches CuPy's memory pool off, for tools that
watch every allocation: inside the pool, they do not see where one array ends and the next begins.
"""

import json
from pathlib import Path

MESSAGE = 1500  # characters kept of why a test failed


def pytest_addoption(parser):
    group = parser.getgroup("benchmarks.outcomes")
    group.addoption("--outcomes", metavar="FILE", help="add a line of JSON for each test")
    group.addoption("--no-pool", action="store_true", help="CuPy allocates each array by itself")


def pytest_configure(config):
    if config.getoption("--no-pool"):
        import cupy

        cupy.cuda.set_allocator(None)
    path = config.getoption("--outcomes")
    if path:
        config.pluginmanager.register(_Writer(Path(path)))


class _Writer:
    def __init__(self, path: Path):
        self._path = path

    def pytest_runtest_logreport(self, report):
        # Setup and teardown are worth a line only where they did not pass.
        if report.when == "call" or report.outcome != "passed":
            self._note(report, getattr(report, "duration", 0.0))

    def pytest_collectreport(self, report):
        if report.outcome == "failed":
            self._note(report, 0.0)

    def _note(self, report, seconds):
        message = ""
        if isinstance(report.longrepr, tuple):  # a skipped test: file, line, reason
            message = report.longrepr[2]
        elif report.outcome != "passed":
            message = report.longreprtext[-MESSAGE:]
        line = {
            "test": report.nodeid,
            "outcome": report.outcome,
            "seconds": round(seconds, 3),
            "message": message,
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read(path: Path) -> dict:
    """What the plugin wrote: counts, the outcome of each test, and what was said of those that did
    not pass."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    outcomes: dict[str, str] = {}
    messages: dict[str, str] = {}
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:  # cut short
            continue
        test = found["test"]
        # A test whose teardown fails has passed before: the worse counts.
        if outcomes.get(test) != "failed":
            outcomes[test] = found["outcome"]
        if found["message"]:
            messages[test] = found["message"]
    values = list(outcomes.values())
    counts = {outcome: values.count(outcome) for outcome in sorted(set(values))}
    return {"counts": counts, "outcomes": outcomes, "messages": messages}
