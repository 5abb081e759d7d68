"""What can be wrong with a GPU: problems, memory that has run out, processes that were forked."""

from __future__ import annotations

import dataclasses
import os

# The CUDA runtime's number for "out of memory", and the driver's: of a stream, a graph, page-locked
# memory, a program.
OUT_OF_MEMORY = 2

_used_in: int | None = None  # the process that first reached for a GPU


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why no GPU can be used: what failed, what to do, and whether "auto" should say so."""

    what: str
    remedy: str
    broken: bool = False

    def __str__(self) -> str:
        return f"{self.what}. {self.remedy}"


def is_out_of_memory(error: Exception) -> bool:
    """Whether there was no room for something, on the device or the host; whoever says so."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    of_cuda = type(error).__name__ in ("CUDARuntimeError", "CUDADriverError")
    return of_cuda and getattr(error, "status", None) == OUT_OF_MEMORY


def note_use() -> None:
    """This process has reached for a GPU: no process that is forked from it can."""
    global _used_in
    _used_in = _used_in or os.getpid()


def is_forked() -> bool:
    """Whether this process was forked from one that had used a GPU."""
    return _used_in is not None and _used_in != os.getpid()


def forked() -> Problem:
    """Of such a process."""
    return Problem(
        "CUDA does not work in a process that was forked from one that had used it",
        'Start processes with multiprocessing\'s "spawn" method or with joblib\'s "loky" backend.',
        True,
    )


def refuse_after_fork() -> None:
    """Raises RuntimeError in a process that was forked from one that had used a GPU.

    CUDA does not work there: its calls fail at best, and at worst never return.
    """
    if is_forked():
        raise RuntimeError(f"{forked()}")
