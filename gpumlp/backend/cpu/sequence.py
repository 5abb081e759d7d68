"""Join calls of compiled functions to one, shared among threads by kernels/cpu/sequence.cpp."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple


class Compiled(NamedTuple):
    """A call: function(arguments, piece, pieces) for each piece; arguments: a `struct`."""

    function: Any
    arguments: Any
    pieces: int = 1

    def __call__(self) -> None:
        for piece in range(self.pieces):
            self.function(self.arguments, piece, self.pieces)


def struct(values: Iterable[int], kept: Any) -> Any:
    """A struct of 8-byte values for a compiled function; kept: the arrays that they point to."""
    values = tuple(values)
    array: Any = (ctypes.c_int64 * len(values))(*values)
    array.kept = kept
    return array


# `run` is the function of that name in sequence.cpp, or None where that cannot be compiled.


def joined(calls: list[Any], run) -> list[Any]:
    """Join neighbouring compiled calls, whose pieces threads share; others stay as they are."""
    if run is None:
        return calls
    result: list[Any] = []
    for compiled, group in itertools.groupby(calls, lambda call: isinstance(call, Compiled)):
        same = list(group)
        result += [_one(same, run)] if compiled else same
    return result


def _one(calls: list[Compiled], run) -> Compiled:
    rows = (
        (ctypes.cast(call.function, ctypes.c_void_p).value or 0, _at(call.arguments), call.pieces)
        for call in calls
    )
    table = struct(itertools.chain.from_iterable(rows), calls)
    return Compiled(run, struct((_at(table), len(calls)), table))


def _at(array) -> int:
    return ctypes.addressof(array)


def in_parallel(sequences: list[list[Any]], run) -> list[Any]:
    """Join sequences to calls that run each sequence in order, on a thread of its own.

    Where some need Python, which has one thread at a time, all run one after another.
    """
    calls = list(itertools.chain(*sequences))
    if run is None or not all(isinstance(call, Compiled) for call in calls):
        return calls
    structs = [_one(sequence, run).arguments for sequence in sequences]
    return [Compiled(run, struct(itertools.chain(*structs), structs), len(structs))]
