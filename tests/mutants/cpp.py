"""The places of a CUDA or C++ text that a mutant changes.

There is no parser: operators are told from pointers and templates by the spaces around them, and
what does not compile is no mutant (run.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .edit import SWAPS, Edit, numbers_instead

NO_CODE = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*', re.M | re.S
)
BINARY = re.compile(r"(?<= )(<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%<>&|])(?= )")
COMPOUND = re.compile(r"(?<= )[-+*/](?==(?: |$))", re.M)
WORD = re.compile(r"\b(?:true|false|break|continue|fmin|fmax|min|max)\b")
NUMBER = re.compile(
    r"(?<![\w.])(?:0x[0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)[uUlLfF]*(?![\w.])"
)
UNARY = re.compile(r"!(?=[\w(])|(?:(?<=\()|(?<=[=,?:] )|(?<=return ))-(?=[\w(])")
STATEMENT = re.compile(r"^[ \t]+(?!typedef\b|using\b|template\b)([^;{}\n]*);[ \t]*$", re.M)
CALL = re.compile(r"\b(\w+)(?:<[\w, ]*>)?\(")
NO_CALLS = {"if", "for", "while", "switch", "__launch_bounds__", "fmax", "fmin", "max", "min"}
DECLARATION = re.compile(r"\s*(?:[\w:<>]+[ *&]+)+\w+\s*$")


def edits(text: str) -> list[Edit]:
    """Every change, in the order of the text."""
    return sorted(set(_edits(NO_CODE.sub(_blank, text))))


def _blank(match: re.Match) -> str:
    return re.sub(r"[^\n]", " ", match.group())


def _edits(code: str) -> Iterator[Edit]:
    for pattern in BINARY, COMPOUND, WORD:
        for match in pattern.finditer(code):
            yield Edit(*match.span(), SWAPS[match.group()])
    for match in NUMBER.finditer(code):
        for new in numbers_instead(match.group()):
            yield Edit(*match.span(), new)
    for match in UNARY.finditer(code):
        yield Edit(*match.span(), "")
    for match in STATEMENT.finditer(code):
        before = code[: match.start()].rstrip()
        if match[1].count("(") == match[1].count(")") and before.endswith((";", "{", "}", ")")):
            yield Edit(*match.span(1), "")
    for match in CALL.finditer(code):
        if match[1] not in NO_CALLS:
            yield from _swapped(code, match.end())


def _swapped(code: str, start: int) -> Iterator[Edit]:
    """The first two arguments of a call, if they stand on one line."""
    depth, ends = 0, []
    for place in range(start, len(code)):
        sign = code[place]
        if depth == 0 and sign in ",)":
            ends.append(place)
        if sign in "\n;" or len(ends) == 2 or (depth == 0 and sign == ")"):
            break
        depth += (sign in "([{") - (sign in ")]}")
    if len(ends) == 2:
        first, second = code[start : ends[0]], code[ends[0] + 1 : ends[1]]
        a, b = first.strip(), second.strip()
        if a != b and not DECLARATION.match(first) and not DECLARATION.match(second):
            yield Edit(start, ends[1], f"{b}, {a}")
