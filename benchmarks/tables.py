"""Tables as text."""

from __future__ import annotations


def table(title: str, heads: list[str], rows: list[list[str]], notes: list[str] = ()) -> str:
    """Aligned columns under their heads; the first one to the left, the others to the right."""
    lines = [heads, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    text = [title]
    for line in lines:
        cells = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        text.append("  ".join(["  " + line[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join([*text, *(f"  {note}" for note in notes)])


def ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.3g} ms"


def last_line(text: str) -> str:
    """What a traceback ends with."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
