"""The places of a Python text that a mutant changes: what it computes, not what it says.

Left alone are imports, annotations, decorators, assertions, messages and what type checkers read.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

from .edit import SWAPS, Edit, numbers_instead

OPERATORS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%",
    ast.Pow: "**", ast.LShift: "<<", ast.RShift: ">>", ast.BitAnd: "&", ast.BitOr: "|",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in",
    ast.And: "and", ast.Or: "or",
}  # fmt: skip
SKIPPED = (ast.Import, ast.ImportFrom, ast.JoinedStr, ast.Assert, ast.Global, ast.Nonlocal)
SKIPPED_FIELDS = {"annotation", "returns", "decorator_list", "bases"}
STATEMENTS = (ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return, ast.Raise, ast.Delete)


def edits(text: str) -> list[Edit]:
    """Every change, in the order of the text."""
    return sorted(_Finder(text).walk(ast.parse(text), False))


class _Finder:
    def __init__(self, text: str):
        self.text = text
        self._needless: list[ast.AST] = []  # a `return` where the function ends anyway
        self._lines = [line.encode() for line in text.splitlines(keepends=True)]
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line.decode()))

    def _place(self, line: int, column: int) -> int:
        return self._starts[line - 1] + len(self._lines[line - 1][:column].decode())

    def _span(self, node) -> tuple[int, int]:
        end = self._place(node.end_lineno, node.end_col_offset)
        return self._place(node.lineno, node.col_offset), end

    def walk(self, node: ast.AST, called: bool) -> Iterator[Edit]:
        """called: inside a function."""
        if isinstance(node, SKIPPED) or _is_for_type_checkers(node) or _is_docstring(node):
            return
        if isinstance(node, ast.FunctionDef):
            self._needless += [each for each in node.body[-1:] if _is_nothing(each)]
        needed = called and not _is_declaration(node) and node not in self._needless
        if isinstance(node, STATEMENTS) and needed:
            yield Edit(*self._span(node), "pass")
        for found in self._tokens(node):
            yield found._replace(once=not called)
        if isinstance(node, ast.Raise):  # a message
            return
        inside = called or isinstance(node, ast.FunctionDef | ast.Lambda)
        for name, value in ast.iter_fields(node):
            if name in SKIPPED_FIELDS or (isinstance(node, ast.ClassDef) and name == "keywords"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from self.walk(child, called if name == "args" else inside)

    def _tokens(self, node) -> Iterator[Edit]:
        start, end = self._span(node) if hasattr(node, "lineno") else (0, 0)
        match node:
            case ast.BinOp(left, operator, right):
                yield from self._operator(left, operator, right)
            case ast.BoolOp(operator, values):
                for left, right in pairwise(values):
                    yield from self._operator(left, operator, right)
            case ast.Compare(first, operators, others):
                pairs = pairwise([first, *others])
                for (left, right), operator in zip(pairs, operators, strict=True):
                    yield from self._operator(left, operator, right)
            case ast.AugAssign(target, operator, value):
                yield from self._operator(target, operator, value)
            case ast.Constant(bool(value)):
                yield Edit(start, end, str(not value))
            case ast.Constant(int() | float()):
                for new in numbers_instead(self.text[start:end]):
                    yield Edit(start, end, new)
            case ast.UnaryOp(ast.Not() | ast.USub()):
                sign = re.compile(r"not\s*|-").match(self.text, start)
                yield Edit(*sign.span(), "")
            case ast.Break() | ast.Continue():
                yield Edit(start, end, SWAPS[self.text[start:end]])
            case ast.Call(function, arguments):
                other = list(self._function(function))  # min and max take arguments in any order
                yield from other or self._swapped(*arguments[:2])

    def _operator(self, left, operator, right) -> Iterator[Edit]:
        sign = OPERATORS.get(type(operator))
        begin, end = self._span(left)[1], self._span(right)[0]
        pattern = r"\s+".join(map(re.escape, (sign or "").split()))
        found = re.search(pattern, re.sub(r"#.*", _blank, self.text[begin:end])) if sign else None
        if found:
            yield Edit(begin + found.start(), begin + found.end(), SWAPS[sign])

    def _function(self, function) -> Iterator[Edit]:
        """min and max, minimum and maximum."""
        start, end = self._span(function)
        name = self.text[start:end].rpartition(".")[2]
        if name in SWAPS:
            yield Edit(end - len(name), end, SWAPS[name])

    def _swapped(self, first=None, second=None) -> Iterator[Edit]:
        if second is None:
            return
        (a, b), (c, d) = self._span(first), self._span(second)
        whole = self.text[a:d]
        plain = not isinstance(first, ast.Starred) and not isinstance(second, ast.Starred)
        if plain and "\n" not in whole and self.text[a:b] != self.text[c:d]:
            yield Edit(a, d, self.text[c:d] + self.text[b:c] + self.text[a:b])


def _blank(match: re.Match) -> str:
    return " " * len(match.group())


def _is_docstring(node) -> bool:
    """A docstring, or an ellipsis."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_declaration(node) -> bool:
    return isinstance(node, ast.AnnAssign) and node.value is None


def _is_nothing(node) -> bool:
    """`return` or `return None`."""
    return isinstance(node, ast.Return) and ast.unparse(node) in ("return", "return None")


def _is_for_type_checkers(node) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
