"""Tables as text for the terminal, and as Markdown for README.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """Columns under their heads; notes below."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def text(self) -> str:
        """Aligned: the first column to the left, the others to the right."""
        lines = [self.heads, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.heads))]
        text = [self.title]
        for line in lines:
            cells = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
            text.append("  ".join(["  " + line[0].ljust(widths[0]), *cells]).rstrip())
        return "\n".join([*text, *(f"  {note}" for note in self.notes)])

    def markdown(self) -> str:
        def line(cells):
            return f"| {' | '.join(cells)} |"

        ruler = "|---|" + "---:|" * (len(self.heads) - 1)
        parts = [f"**{self.title}**", "", line(self.heads), ruler, *map(line, self.rows)]
        return "\n".join([*parts, *(f"\n{note}" for note in self.notes)])


def ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def seconds(value: float | None) -> str:
    if value is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def last_line(text: str) -> str:
    """What a traceback ends with."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
