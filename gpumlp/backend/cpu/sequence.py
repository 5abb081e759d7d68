"""Calls of compiled functions: many as one, and shared among threads (kernels/cpu/sequence.cpp)."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple


class Compiled(NamedTuple):
    """function(arguments, piece, pieces) for each piece; arguments: a `struct`."""

    function: Any
    arguments: Any
    pieces: int = 1

    def __call__(self) -> None:
        for piece in range(self.pieces):
            self.function(self.arguments, piece, self.pieces)


def struct(values: Iterable[int], kept: Any) -> Any:
    """8-byte values, as a compiled function takes them; kept: what they point to, kept alive."""
    values = tuple(values)
    made: Any = (ctypes.c_int64 * len(values))(*values)
    made.kept = kept
    return made


# `run` is the function of that name in sequence.cpp, or None where that cannot be compiled.


def joined(calls: list[Any], run) -> list[Any]:
    """The same calls, those that need no Python between them as one, and their pieces shared."""
    if run is None:
        return calls
    made: list[Any] = []
    for compiled, group in itertools.groupby(calls, lambda call: isinstance(call, Compiled)):
        same = list(group)
        made += [_one(same, run)] if compiled else same
    return made


def _one(calls: list[Compiled], run) -> Compiled:
    rows = (
        (ctypes.cast(call.function, ctypes.c_void_p).value or 0, _at(call.arguments), call.pieces)
        for call in calls
    )
    table = struct(itertools.chain.from_iterable(rows), calls)
    return Compiled(run, struct((_at(table), len(calls)), table))


def _at(made) -> int:
    return ctypes.addressof(made)


def in_parallel(sequences: list[list[Any]], run) -> list[Any]:
    """The calls of several sequences, each in order, and each on a thread of its own.

    Where some need Python, which has one thread at a time, they are made one after another.
    """
    calls = list(itertools.chain(*sequences))
    if run is None or not all(isinstance(call, Compiled) for call in calls):
        return calls
    structs = [_one(own, run).arguments for own in sequences]
    return [Compiled(run, struct(itertools.chain(*structs), structs), len(structs))]
