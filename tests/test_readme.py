"""The examples of the README run.

Every block that begins with ```python is executed, in order, in one namespace and an empty folder;
one that begins with ```python gpu only where the tests have a GPU.
"""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"^```python([^\n]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
MARKERS = ("", "gpu")


def blocks():
    """(line in the README, marker, code) of each block."""
    text = README.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start(2)), match[1].strip(), match[2])
        for match in BLOCK.finditer(text)
    ]


def needs_gpu(config, marker):
    return marker == "gpu" and not config.getoption("--require-gpu")


def test_blocks_run(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    run = 0
    for line, marker, code in blocks():
        if not needs_gpu(request.config, marker):
            # As many empty lines before it, so that an error names the line of the README.
            exec(compile("\n" * line + code, str(README), "exec"), namespace)
            run += 1
    assert run > 0


def test_markers_are_known():
    assert {marker for _, marker, _ in blocks()} <= set(MARKERS)


def test_no_block_is_overlooked():
    """Every line that opens a block of Python is one that is found above."""
    text = README.read_text(encoding="utf-8")
    opened = [
        line for line in text.splitlines() if re.match(r"\s*```+\s*(py|python)\b", line, re.I)
    ]
    assert len(opened) == len(blocks())


def test_blocks_for_a_gpu(request):
    waiting = [line for line, marker, _ in blocks() if needs_gpu(request.config, marker)]
    if waiting:
        lines = ", ".join(map(str, waiting))
        pytest.skip(f"README.md, line {lines}: needs a GPU, and --require-gpu was not given")


def test_the_table_points_at_its_equations():
    """Each `file#Lnumber` of the table is a line that carries the number of the equation."""
    rows = [line for line in README.read_text(encoding="utf-8").splitlines() if "#L" in line]
    assert len(rows) >= 8
    for row in rows:
        numbers = re.findall(r"\(\d+'?\)", row.split("|")[1])
        for path, line in re.findall(r"\((\S+)#L(\d+)\)", row):
            text = (README.parent / path).read_text(encoding="utf-8").splitlines()[int(line) - 1]
            assert any(number in text for number in numbers), f"{path}:{line} is {text!r}"
