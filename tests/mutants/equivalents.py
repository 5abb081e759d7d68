"""Changes that no test can notice, each with the reason.

A row is found by the file and by the text of the line, before and after: it outlives moves.  ANY in
the place of the line after stands for every change of that line.
"""

from typing import NamedTuple

ANY = "…"


class Equivalent(NamedTuple):
    file: str
    before: str
    after: str
    reason: str


EQUIVALENTS: list[Equivalent] = []


def reason(file: str, before: str, after: str) -> str | None:
    """Why the change makes no difference; None if it does."""
    for each in EQUIVALENTS:
        if (each.file, each.before) == (file, before) and each.after in (after, ANY):
            return each.reason
    return None
