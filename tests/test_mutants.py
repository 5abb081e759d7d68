"""The mutants of tests/mutants: changes of sources that are still programs, and their judgement."""

import random
import re
from types import SimpleNamespace

import pytest

from tests import simt
from tests.helpers.waiting import HANGS
from tests.mutants import compiled, cpp, equivalents, python, run
from tests.mutants.edit import Edit
from tests.mutants.tests_of import Reached, nearness, trace

PYTHON = '''
"""A docstring: 1 + 1."""
from a import b
LIMIT: int = 3
@cached(5)
def f(x: int = 0, *, y: "a < b" = True) -> 7:
    """Another, -2."""
    assert x < 1
    if not x or y is not None:
        raise ValueError(f"{x + 1} is not {2}")
    g(x, max(-x, y))  # 4 or 5
    return x % 2.0
def g(x):
    h(max(x, 3)) if x else None
    return None
'''
PYTHON_AFTER = {
    "LIMIT: int = 2", "LIMIT: int = 4", 'def f(x: int = 1, *, y: "a < b" = True) -> 7:',
    'def f(x: int = 0, *, y: "a < b" = False) -> 7:', "if x or y is not None:",
    "if not x and y is not None:", "if not x or y is None:", "pass", "pass  # 4 or 5",
    "g(max(-x, y), x)  # 4 or 5", "g(x, min(-x, y))  # 4 or 5", "g(x, max(x, y))  # 4 or 5",
    "h(min(x, 3)) if x else None", "h(max(x, 2)) if x else None", "h(max(x, 4)) if x else None",
    "return x * 2.0", "return x % 4.0",
}  # fmt: skip
CPP = """
// A comment: 1 + 1
#define TWO 2
template<int V> float f(const float* x, float* y)
{
    int i = -1;
    for (; i < V && !x[i]; ++i) y[i] *= fmax(x[i], 2.5f);
    h(i, y);
    if (i == 0x10) break;
}
"""
CPP_AFTER = {
    "int i = 1;", "int i = -0;", "int i = -2;", ";",
    "for (; i <= V && !x[i]; ++i) y[i] *= fmax(x[i], 2.5f);",
    "for (; i < V || !x[i]; ++i) y[i] *= fmax(x[i], 2.5f);",
    "for (; i < V && x[i]; ++i) y[i] *= fmax(x[i], 2.5f);",
    "for (; i < V && !x[i]; ++i) y[i] /= fmax(x[i], 2.5f);",
    "for (; i < V && !x[i]; ++i) y[i] *= fmin(x[i], 2.5f);",
    "for (; i < V && !x[i]; ++i) y[i] *= fmax(x[i], 5.0f);",
    "h(y, i);", "if (i != 0x10) break;", "if (i == 0xf) break;", "if (i == 0x11) break;",
    "if (i == 0x10) continue;",
}  # fmt: skip


@pytest.mark.parametrize("find, text, expected", [
    (python.edits, PYTHON, PYTHON_AFTER), (cpp.edits, CPP, CPP_AFTER),
])  # fmt: skip
def test_the_places_that_are_changed(find, text, expected):
    edits = find(text)
    assert {edit.told(text)[1] for edit in edits} == expected
    for edit in edits:
        before, _ = edit.told(text)
        assert text.splitlines()[edit.lines(text).start - 1].strip() == before


def test_what_runs_at_import():
    told = {edit.told(PYTHON)[0]: edit.once for edit in python.edits(PYTHON)}
    assert told["LIMIT: int = 3"] and told['def f(x: int = 0, *, y: "a < b" = True) -> 7:']
    assert not told["return x % 2.0"]


def test_mutants_of_python_are_programs():
    mutants = [each for each in run.every_mutant() if each.file.endswith(".py")]
    assert len(mutants) > 10_000
    for mutant in random.Random(0).sample(mutants, 300):
        changed = mutant.edit.apply(mutant.text)
        assert changed != mutant.text
        assert compiled.is_program(mutant.file, mutant.text, changed), str(mutant)


@pytest.mark.skipif(bool(simt.why_no_compiler()), reason=f"{simt.why_no_compiler()}")
@pytest.mark.parametrize("file", ["kernels/cuda/cast_bf16.cu", "kernels/cpu/shuffle.cpp"])
def test_mutants_that_do_not_compile_are_none(file):
    text = (run.REPOSITORY / file).read_text()
    found = []
    for edit in cpp.edits(text)[::5]:
        found.append(compiled.is_program(file, text, edit.apply(text)))
    assert any(found)
    assert not compiled.is_program(file, text, text.replace(";", "", 1))


def test_a_draw_is_repeated():
    drawn = [[str(each) for each in run.draw(8, seed, "gpumlp/")] for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 8


def test_equivalents_are_changes_of_the_sources():
    """Each of the list is one that could be drawn."""
    possible = {(each.file, *each.edit.told(each.text)) for each in run.every_mutant()}
    lines = {each[:2] for each in possible}
    for each in equivalents.EQUIVALENTS:
        assert (each.file, each.before) in lines, each
        assert each.after == equivalents.ANY or each[:3] in possible, each
        assert len(each.reason) > 10, each


def test_the_nearest_tests():
    def nearest(file, *tests):
        return max(tests, key=lambda test: nearness(file, f"tests/{test}.py::test_it"))

    assert nearest("gpumlp/estimators/stack_fitter.py", "test_files", "test_stack") == "test_stack"
    near = nearest("gpumlp/training/learning_rates.py", "test_trainer_rates", "test_cli")
    assert near == "test_trainer_rates"
    assert nearest("kernels/cuda/forward.cu", "test_search", "test_operations") == "test_operations"


SOURCE = "def f(x):\n    while x < 3:\n        x += 1\n    return x, 5\n"
TEST = "from gpumlp_like import f\ndef test_it():\n    assert f(0)[0] == 3\n"


@pytest.mark.parametrize("right, wrong, outcome, why", [
    ("x < 3", "x <= 3", run.KILLED, "test_like.py::test_it"),
    ("5", "6", run.SURVIVED, "1 tests pass"),
    ("x += 1", "pass", run.KILLED, "Timeout|did not end in"),
])  # fmt: skip
def test_the_judgement(right, wrong, outcome, why, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PATIENCE", 6 if wrong == "pass" else HANGS)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "gpumlp_like.py").write_text(SOURCE)
    (tree / "test_like.py").write_text(TEST)
    at = SOURCE.index(right)
    mutant = run.Mutant("gpumlp_like.py", SOURCE, Edit(at, at + len(right), wrong))
    test = "test_like.py::test_it"
    known = SimpleNamespace(seconds={test: 0.0}, tests=lambda *_: [test])
    verdict = run.judge(mutant, tree, known)
    assert verdict.outcome == outcome and re.search(why, verdict.why)
    assert (tree / "gpumlp_like.py").read_text() == SOURCE


def test_what_no_test_runs_survives(tmp_path):
    mutant = run.Mutant("gpumlp_like.py", SOURCE, Edit(0, 0, ""))
    known = SimpleNamespace(seconds={}, tests=lambda *_: [])
    assert run.judge(mutant, tmp_path, known).outcome == run.SURVIVED


def test_equivalents_are_not_run(tmp_path, monkeypatch):
    at = SOURCE.index("5")
    mutant = run.Mutant("gpumlp_like.py", SOURCE, Edit(at, at + 1, "6"))
    row = ("gpumlp_like.py", "return x, 5", "return x, 6", "nobody reads the second")
    monkeypatch.setattr(equivalents, "EQUIVALENTS", [equivalents.Equivalent(*row)])
    verdict = run.judge(mutant, tmp_path, None)
    assert verdict.outcome == run.EQUIVALENT and verdict.why == "nobody reads the second"


def test_a_trace_notes_lines_and_programs(tmp_path):
    """Of tests that train, none of which may fail because it is traced."""
    file, source = "tests/training/test_device_state.py", "gpumlp/training/step.py"
    trace(run.copy(tmp_path / "tree"), tmp_path / "traced", 1, file)
    known, log = Reached(tmp_path / "traced"), (tmp_path / "traced/pytest.log").read_text()
    assert known.seconds and " failed" not in log, log
    text = (run.REPOSITORY / source).read_text()
    line = text[: text.index("net.ops.prepare_update(")].count("\n") + 1
    assert known.tests(source, range(line, line + 1), False)
    assert simt.why_no_compiler() or known.tests("kernels/cpu/layer.cpp", range(1, 2), False)
