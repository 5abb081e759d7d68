"""One change of a text."""

from __future__ import annotations

from typing import NamedTuple


class Edit(NamedTuple):
    """text[start:end] becomes `new`.

    once: the place runs when its module is imported, not when a test calls it.
    """

    start: int
    end: int
    new: str
    once: bool = False

    def apply(self, text: str) -> str:
        return text[: self.start] + self.new + text[self.end :]

    def lines(self, text: str) -> range:
        """The numbers of the lines that it changes."""
        return range(text.count("\n", 0, self.start) + 1, text.count("\n", 0, self.end) + 2)

    def told(self, text: str) -> tuple[str, str]:
        """Its first line, before and after."""
        begin = text.rfind("\n", 0, self.start) + 1
        return tuple(  # type: ignore[return-value]
            each[begin:].partition("\n")[0].strip() for each in (text, self.apply(text))
        )


SWAPS = {
    "+": "-", "-": "+", "*": "/", "/": "*", "//": "/", "%": "*", "**": "*",
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==",
    "<<": ">>", ">>": "<<", "&": "|", "|": "&", "&&": "||", "||": "&&",
    "and": "or", "or": "and", "is": "is not", "is not": "is", "in": "not in", "not in": "in",
    "True": "False", "False": "True", "true": "false", "false": "true",
    "min": "max", "max": "min", "fmin": "fmax", "fmax": "fmin", "minimum": "maximum",
    "maximum": "minimum", "break": "continue", "continue": "break",
}  # fmt: skip


def numbers_instead(number: str) -> list[str]:
    """What stands in the place of a number, in Python and in C++."""
    digits = number.rstrip("uUlL" if "x" in number else "uUlLfF")
    suffix = number[len(digits) :]
    if set(digits) & set(".eE") and "x" not in digits:
        value = float(digits)
        others = {0.0: [1.0], 1.0: [0.0, 2.0]}.get(value, [2 * value])
        return [repr(each) + suffix for each in others]
    value = int(digits.replace("_", ""), 0)
    others = {0: [1]}.get(value, [value - 1, value + 1])
    return [(hex(each) if "x" in digits else str(each)) + suffix for each in others]
