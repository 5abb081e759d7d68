"""A pytest plugin: keeps the tests that touch the GPU, and records each as it ends.

It is told its part of them by the environment.  A test that hangs ends its process, as an error
that leaves the GPU unusable does; the run then goes on with the tests after it.
"""

import faulthandler
import json
import os

import pytest

from benchmarks.gpu.processes import BEGUN, FAILED, MARK, PASSED, PLANNED, POISONED, VARIABLE, Task
from benchmarks.machine import ROOT

TASK = Task(*json.loads(os.environ[VARIABLE]))
STDERR = os.dup(2)  # pytest redirects it later


def touches(item) -> bool:
    """Whether it runs on the device "cuda", and not only to count what the stand-in counts."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    by = params.get("device", params.get("ops"))
    chosen = "cuda" in item.fixturenames if by is None else by == "cuda"
    probe = item.path.is_relative_to(ROOT / "benchmarks")
    return probe or (chosen and "counters" not in item.fixturenames)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    i, n = TASK.share
    part = [item for item in items if touches(item)][i::n]
    for item in part:
        TASK.write(name=item.nodeid, outcome=PLANNED)
    left = set(TASK.tests(PLANNED))
    items[:] = [item for item in part if item.nodeid in left]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    TASK.write(name=item.nodeid, outcome=BEGUN)
    os.write(STDERR, f"\n{MARK}{item.nodeid}\n".encode())
    faulthandler.dump_traceback_later(TASK.most, exit=True, file=STDERR)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_runtest_logreport(report):
    # Setup and teardown are worth a line only where they did not pass.
    if report.when == "call" or report.outcome != PASSED:
        TASK.end(report.nodeid, report.outcome, message(report), **dict(report.user_properties))
        if report.outcome == FAILED and unusable():
            pytest.exit("the GPU is of no use to this process any more", returncode=POISONED)


def pytest_collectreport(report):
    if report.outcome == FAILED:
        TASK.end(report.nodeid, FAILED, message(report))


def pytest_sessionfinish(session):
    # A test failed, a file cannot be read, nothing was chosen: what there is to say is recorded.
    if session.exitstatus in (1, 2, 5):
        session.exitstatus = 0


def message(report) -> str:
    """Why it did not pass, and where."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2]  # why it was skipped
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None:
        return report.longreprtext[-400:]
    first = "; ".join(crash.message.splitlines()[:3])[:400]
    return f"{first} @ {crash.path.removeprefix(f'{ROOT}/')}:{crash.lineno}"


def unusable() -> bool:
    """Whether an error sticks to this process: every later call would fail, too."""
    import cupy

    try:
        cupy.cuda.get_current_stream().synchronize()
    except Exception:
        return True
    return False
