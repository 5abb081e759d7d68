"""Faults of a GPU: why it cannot be used, memory that has run out, processes that were forked."""

from __future__ import annotations

import dataclasses
import os

# The CUDA runtime's number for "out of memory", and the driver's: of a stream, a graph, page-locked
# memory, a program.
OUT_OF_MEMORY = 2

_used_in: int | None = None  # the process that first used CUDA


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why a GPU cannot be used: the cause, the remedy, and whether "auto" should warn of it."""

    cause: str
    remedy: str
    broken: bool = False

    def __str__(self) -> str:
        return f"{self.cause}. {self.remedy}"


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of Python, NumPy, CuPy or CUDA means that memory has run out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    of_cuda = type(error).__name__ in ("CUDARuntimeError", "CUDADriverError")
    return of_cuda and getattr(error, "status", None) == OUT_OF_MEMORY


def note_use() -> None:
    """Remember that this process has used CUDA: a process forked from it cannot."""
    global _used_in
    _used_in = _used_in or os.getpid()


def is_forked() -> bool:
    """Whether this process was forked from one that had used a GPU."""
    return _used_in is not None and _used_in != os.getpid()


def forked() -> Problem:
    """The problem of a process that was forked from one that had used a GPU."""
    return Problem(
        "CUDA does not work in a process that was forked from one that had used it",
        'Start processes with multiprocessing\'s "spawn" method or with joblib\'s "loky" backend.',
        True,
    )


def refuse_after_fork() -> None:
    """Raise RuntimeError in a process that was forked from one that had used a GPU.

    CUDA does not work there: its calls fail at best, and at worst never return.
    """
    if is_forked():
        raise RuntimeError(f"{forked()}")
