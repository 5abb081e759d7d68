"""A pytest plugin: keeps the tests that touch the GPU, and records each as it ends.

It is told its part of a file by the environment.  A test that hangs ends its process, as an error
that leaves the GPU unusable does; the run then goes on with the tests after it.
"""

import faulthandler
import os
import time

import pytest

from benchmarks.gpu.processes import POISONED, unusable
from benchmarks.gpu.records import FAILED, PASSED, SKIPPED, Task

TASK = Task.of_environment()
STDERR = os.dup(2)  # pytest redirects it later


def touches(item) -> bool:
    """Whether it runs on the device "cuda", and not only to count what the stand-in counts."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    by = params.get("device", params.get("ops"))
    chosen = "cuda" in item.fixturenames if by is None else by == "cuda"
    return chosen and "counters" not in item.fixturenames


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    touching = [item for item in items if touches(item)]
    i, n = TASK.share
    part = touching[len(touching) * i // n : len(touching) * (i + 1) // n]
    left = set(TASK.plan(item.nodeid for item in part))
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in left])
    items[:] = [item for item in part if item.nodeid in left]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    TASK.begin(item.nodeid)
    if patience := TASK.patience():
        faulthandler.dump_traceback_later(patience, exit=True, file=STDERR)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_runtest_logreport(report):
    # Setup and teardown are worth a line only where they did not pass.
    if report.when != "call" and report.outcome == PASSED:
        return
    TASK.end(report.nodeid, report.outcome, report.duration, message(report))
    if report.outcome == FAILED and unusable():
        pytest.exit("the GPU is of no use to this process any more", returncode=POISONED)
    if time.time() > TASK.until:
        pytest.exit("the time is over", returncode=0)


def pytest_collectreport(report):
    if report.outcome == FAILED:
        TASK.end(report.nodeid, FAILED, error=message(report))


def pytest_sessionfinish(session):
    # A test failed, a file cannot be read, nothing was chosen: what there is to say is recorded.
    if session.exitstatus in (1, 2, 5):
        session.exitstatus = 0


def message(report) -> str:
    """Why it did not pass, and where."""
    if report.outcome == SKIPPED and isinstance(report.longrepr, tuple):
        return report.longrepr[2]
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None:
        return report.longreprtext[-400:]
    first = "; ".join(crash.message.splitlines()[:3])[:400]
    return f"{first} @ {crash.path.removeprefix(f'{os.getcwd()}/')}:{crash.lineno}"
