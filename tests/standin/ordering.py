"""What comes after what, on several streams; and copies from the host, which take their time.

What comes after what is known as in CUDA: by the order in a stream, by events, and by what the host
has waited for.  Work on memory that another stream's copy is still coming to is refused, and so is
a copy into memory that another stream may still be using, or out of host memory that was
overwritten or freed while the copy might still have been reading it.  Nothing else that lacks a
wait between two streams is noticed.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterable

import numpy as np

from .hardware import machine

# Stream -> the number of its operations, by its handle.
Past = dict[int, int]

awaited: Past = {}  # what the host has waited for
copies: list[Copy] = []  # which the host has not waited for


class Copy:
    """A copy from host memory that was submitted, and perhaps has not landed.

    It does not keep the source, unless that is page-locked: CuPy's pool keeps such memory.
    """

    def __init__(self, stream, source: np.ndarray, pinned: bool, write: Callable[[bytes], None]):
        self.stream, self.number = stream.ptr, stream._submitted
        self._place = source.ctypes.data, source.nbytes
        self._sent = ctypes.string_at(*self._place)
        self._owner = weakref.ref(_owner(source))
        self._kept = source if pinned else None
        self._write: Callable[[bytes], None] | None = write

    def reads(self, source: np.ndarray) -> bool:
        (start, size), (other, its_size) = self._place, (source.ctypes.data, source.nbytes)
        return start < other + its_size and other < start + size

    def check(self) -> None:
        if self._owner() is None:
            self._tell("freed")
        if ctypes.string_at(*self._place) != self._sent:
            self._tell("overwritten")

    def _tell(self, what: str) -> None:
        copies[:] = [each for each in copies if each is not self]  # it is told once
        raise RuntimeError(f"host memory was {what} before the host waited for the copy from it")

    def land(self) -> None:
        if self._write is not None:
            self.check()
            self._write(self._sent)
            self._write = None


def _owner(array: np.ndarray) -> np.ndarray:
    """The array whose memory it is."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def join(into: Past, other: Past) -> None:
    for stream, number in other.items():
        into[stream] = max(into.get(stream, 0), number)


def use(stream, memory: Iterable) -> None:
    """The stream's next operation is on these blocks."""
    stream._submit()
    for block in memory:
        for copy in block.coming:
            if copy.stream != stream.ptr and stream._after.get(copy.stream, 0) < copy.number:
                raise RuntimeError(
                    f"work on stream {stream.ptr:#x} on memory that a copy on stream "
                    f"{copy.stream:#x} is coming to: wait for an event"
                )
            copy.land()
        block.coming.clear()
        block.used[stream.ptr] = stream._submitted


def send(stream, block, source: np.ndarray, pinned: bool, write: Callable[[bytes], None]) -> None:
    """A copy from the host, of bytes in a row that `write` puts into the block.

    From page-locked memory it takes its time, and from other memory if the device can read that.
    """
    stream._submit()
    for other, number in block.used.items():
        if other != stream.ptr and stream._after.get(other, 0) < number:
            raise RuntimeError(
                f"a copy on stream {stream.ptr:#x} into memory that stream {other:#x} may still "
                "be using: wait for an event"
            )
    for copy in block.coming:
        copy.land()
    block.coming.clear()
    block.used[stream.ptr] = stream._submitted
    if not (pinned or machine.pageable_access):
        write(source.tobytes("A"))
        return
    for copy in list(copies):
        if copy.reads(source):
            copy.check()
    copy = Copy(stream, source, pinned, write)
    block.coming.append(copy)
    copies.append(copy)


def host_waits(past: Past) -> None:
    """The host knows that all of this is done."""
    join(awaited, past)
    for copy in list(copies):
        if awaited.get(copy.stream, 0) >= copy.number:
            copy.check()
            copy.land()
            copies.remove(copy)
