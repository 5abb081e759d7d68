"""What comes after what, on several streams; and copies from the host, which take their time.

What comes after what is known as in CUDA: by the order in a stream, by events, and by what the host
has waited for.  Work on memory that another stream's copy is still coming to is refused, and so is
a copy into memory that another stream may still be using, or out of page-locked memory that was
overwritten while the copy might still have been reading it.  Nothing else that lacks a wait between
two streams is noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

# Stream -> the number of its operations, by its handle.
Past = dict[int, int]

awaited: Past = {}  # what the host has waited for
copies: list[Copy] = []  # which the host has not waited for


class Copy:
    """A copy from page-locked memory that was submitted, and perhaps has not landed."""

    def __init__(self, stream, source: np.ndarray, run: Callable[[], None]):
        self.stream, self.number, self.source = stream.ptr, stream._submitted, source
        self._sent = source.tobytes()
        self._run: Callable[[], None] | None = run

    def check(self) -> None:
        if self.source.tobytes() != self._sent:
            copies[:] = [each for each in copies if each is not self]  # it is told once
            raise RuntimeError(
                "page-locked memory was overwritten before the host waited for its copy"
            )

    def land(self) -> None:
        if self._run is not None:
            self.check()
            self._run()
            self._run = None


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


def send(stream, block, source: np.ndarray, pinned: bool, run: Callable[[], None]) -> None:
    """A copy from the host; from page-locked memory it takes its time."""
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
    if not pinned:
        run()
        return
    for copy in copies:
        if np.may_share_memory(copy.source, source):
            copy.check()
    copy = Copy(stream, source, run)
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
