"""Tables, as Markdown that is aligned for the terminal."""

from collections.abc import Sequence


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], notes=()) -> str:
    """Columns under their heads, the first to the left, the others to the right; notes below."""
    lines = [heads, *rows]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(heads))]

    def aligned(line):
        first, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        return f"| {' | '.join([line[0].ljust(len(first)), *others])} |"

    first, *others = ("-" * width for width in widths)
    ruler = f"| {' | '.join([first, *(dashes[1:] + ':' for dashes in others)])} |"
    parts = [f"**{title}**", "", aligned(heads), ruler, *map(aligned, rows)]
    return "\n".join([*parts, *(f"\n{note}" for note in notes)])


def ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def seconds(value: float | None) -> str:
    if value is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"
