"""A plugin of pytest: which lines of gpumlp/ each test runs, which files of kernels/, and how long
it takes.  Every process of the run leaves a file in $GPUMLP_REACHED.

A kernel's lines are not told apart: a test reaches all files of the programs that it calls.
"""

import functools
import json
import os
import re
from collections import defaultdict
from pathlib import Path

import coverage

from gpumlp.backend.cpu.host_ops import HostOps, program_text
from tests import simt
from tests.simt import module

OUT = Path(os.environ["GPUMLP_REACHED"])
PART_OF_A_PROGRAM = re.compile(r'^#line 1 "(.*)"$', re.M)

_measured = coverage.Coverage(
    data_file=str(OUT / f"coverage-{os.getpid()}"), source=["gpumlp"], messages=False
)
_measured.start()
_now = ""  # the test that runs
_programs: dict[str, set[str]] = defaultdict(set)  # test -> parts of the programs that it calls
_seconds: dict[str, float] = defaultdict(float)  # of those that pass
_failed: set[str] = set()


@functools.cache
def _parts(text: str) -> list[str]:
    return PART_OF_A_PROGRAM.findall(text)


def _noting(function, texts):
    """The function; it notes the programs' parts that `texts` finds in its arguments."""

    @functools.wraps(function)
    def noted(*args, **options):
        _programs[_now].update(*map(_parts, texts(*args)))
        return function(*args, **options)

    return noted


_build = module.build


def _kept(text, **options):
    built = _build(text, **options)
    built.text = text
    return built


for _place in (module, simt):
    _place.build = _kept
module.Kernel.__call__ = _noting(
    module.Kernel.__call__, lambda kernel, *_: [getattr(kernel._module, "text", "")]
)
HostOps._get = _noting(
    HostOps._get, lambda _, names, program, *options: [_program(program, options)]
)


@functools.cache
def _program(program, options) -> str:
    return program_text(program, options)


def pytest_runtest_logstart(nodeid, location):
    global _now
    _now = nodeid
    _measured.switch_context(nodeid)


def pytest_runtest_logreport(report):
    if report.failed:
        _failed.add(report.nodeid)
    elif report.passed:
        _seconds[report.nodeid] += report.duration


def pytest_sessionfinish(session):
    _measured.stop()
    _measured.save()
    found = {
        "seconds": {test: s for test, s in _seconds.items() if test not in _failed},
        "programs": {test: sorted(parts) for test, parts in _programs.items() if test},
    }
    (OUT / f"tests-{os.getpid()}.json").write_text(json.dumps(found))
