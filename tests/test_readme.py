"""The examples of the README run.

Every block that begins with ```python is executed, in order, in one namespace and an empty folder;
one that begins with ```python gpu only where the tests have a GPU.
"""

import ast
import re
import textwrap
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


def definition(path, name):
    """The text of a function or class of a file, or of a struct or function of a kernel's."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        for part in name.split("."):
            (node,) = (
                node
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part
            )
            text = textwrap.dedent("\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno]))
        return text
    (found,) = re.finditer(rf"^\S.*\b{name}\b(?:\(| :| \{{)", text, re.MULTILINE)
    return text[found.start() : text.index("\n}", found.start())]


def test_the_table_points_at_its_equations():
    """Each function that the table names says which of the row's equations it computes."""
    lines = README.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if re.match(r"\| (\(\d+'?\))+ \|", line)]
    assert len(rows) >= 8
    for row in rows:
        numbers = re.findall(r"\(\d+'?\)", row.split("|")[1])
        links = re.findall(r"\[`([\w.]+)`\]\((\S+)\)", row)
        assert links
        for name, path in links:
            text = definition(README.parent / path, name)
            assert any(number in text for number in numbers), f"{name} of {path}"
