"""Rung 7: wrong kernels, each caught by the rung that its row in seeded/bugs.py names.

And the right kernels pass the same checks.
"""

import re

import pytest

from gpumlp import backend
from gpumlp.backend import sources
from gpumlp.backend.cuda import cuda_sources
from tests import simt
from tests.helpers import cubin
from tests.operations.selection import SELECTION
from tests.seeded import ADDRESS, MACHINE_CODE, NUMBERS, THREAD, planted, run
from tests.seeded.bugs import BUGS
from tests.simt import sanitize

ORDERS = range(4)


@pytest.fixture(autouse=True)
def on_the_shim(request):
    if request.config.getoption("--require-gpu"):
        pytest.skip("wrong kernels run on the SIMT shim: on a GPU they may do anything")
    if simt.why_no_compiler():
        pytest.skip(f"the kernels cannot be run on the CPU: {simt.why_no_compiler()}")


def caught_by(*rungs):
    """The names of the bugs that one of these rungs catches."""
    return [name for name, bug in BUGS.items() if bug.caught_by in rungs]


def checks(*rungs):
    """The checks that catch them, each once."""
    return list(dict.fromkeys(BUGS[name].check for name in caught_by(*rungs)))


@pytest.mark.parametrize("name", BUGS)
def test_bug_changes_the_text(name):
    bug = BUGS[name]
    before = sources.text(bug.file)
    with planted(bug):
        assert sources.text(bug.file) != before
    assert sources.text(bug.file) == before


# ------------------------------------------------------------------ rung 3: numbers


@pytest.mark.parametrize("check", checks(NUMBERS))
def test_right_kernels_give_right_numbers(check, monkeypatch):
    for order in ORDERS:
        monkeypatch.setenv("GPUMLP_SIMT_ORDER", str(order))
        SELECTION[check](backend.get("cuda:0"))


@pytest.mark.parametrize("name", caught_by(NUMBERS))
def test_bug_gives_wrong_numbers(name, monkeypatch):
    caught = 0
    for order in ORDERS:
        monkeypatch.setenv("GPUMLP_SIMT_ORDER", str(order))
        try:
            run(BUGS[name])
        except (AssertionError, simt.LaunchError):
            caught += 1
    assert caught


# ------------------------------------------------------------------ rung 4: sanitizers


@pytest.mark.parametrize("sanitizer", [ADDRESS, THREAD])
def test_right_kernels_pass_under_sanitizer(sanitizer):
    done = sanitize.run(sanitizer, ["-m", "tests.operations.selection", *checks(sanitizer)])
    assert done.returncode == 0, done.stderr
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr


@pytest.mark.parametrize("name", caught_by(ADDRESS, THREAD))
def test_bug_is_seen_by_sanitizer(name):
    bug = BUGS[name]
    done = sanitize.run(bug.caught_by, ["-m", "tests.seeded", name])
    assert done.returncode != 0
    assert re.search(bug.message, done.stderr), done.stderr
    if "AssertionError" not in done.stderr:
        assert re.search(r"\w\.cuh?:\d+", done.stderr), "the report names no line of a kernel"


# ------------------------------------------------------------------ rung 2: machine code


# Loads and stores of 128 bits, at least.
WIDE = {"activate": (2, 1), "backprop": (2, 1), "cast_bf16": (5, 5)}


def machine_code_faults(label):
    """What is wrong with the kernels of a float32 program, as in test_cubin.py."""
    program = dict(cuda_sources.programs("float32"))[label]
    try:
        compiled = cubin.examine("nvrtc", [(label, program)], 90)
    except cubin.ToolMissing as missing:
        pytest.skip(str(missing))
    found = [
        cubin.faults(kernel, "float32", 255, WIDE.get(kernel.name, (0, 0)))
        for kernel in compiled.kernels
    ]
    return [fault for each in found for fault in each]


@pytest.mark.parametrize("label", checks(MACHINE_CODE))
def test_right_kernels_have_right_machine_code(label):
    assert machine_code_faults(label) == []


@pytest.mark.parametrize("name", caught_by(MACHINE_CODE))
def test_bug_shows_in_machine_code(name):
    bug = BUGS[name]
    with planted(bug):
        found = machine_code_faults(bug.check)
    assert re.search(bug.message, " ".join(found))
