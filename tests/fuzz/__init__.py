"""Random input for what takes it from outside: files, calls, and the command line.

    python -m tests.fuzz [--minutes 10] [--seed N] [--part files|calls|commands]
    python -m tests.fuzz --part files --seed 7 --case 123       one case, with its traceback

A part is a module of this package with

    prepare(folder: Path) -> Any          what its cases share, made once in each process; folder:
                                          an empty one of the process's own, for whatever it likes
    one(random: Generator, shared) -> str runs one case, which `random` alone decides, and says what
                                          came of it: ACCEPTED, or refused(error)
    LIMIT: float                          the seconds that a case may take
    MEMORY: int | None                    the bytes that it may take beyond those after `prepare`

Whatever else `one` raises is a finding: a Fault, whose kind it names ("silent NaN", "unclear
message"), or an exception that is foreign to the part.  A case that kills its process, or takes too
long, is one, too: see tests/fuzz/running.py.
"""

from __future__ import annotations

PARTS = ("files", "calls", "commands")
ACCEPTED = "accepted"


class Fault(Exception):
    """What is wrong with a case that raised nothing foreign; kind: a few words, for the summary."""

    def __init__(self, kind: str, said: str):
        super().__init__(said)
        self.kind = kind


def refused(error: BaseException) -> str:
    """For an exception that is the part's own way to refuse."""
    return f"refused: {type(error).__name__}"
