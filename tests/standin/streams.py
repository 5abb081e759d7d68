"""Streams, events and captured graphs.

Work runs at once, in the order of the calls, or is recorded while its stream is capturing.  Only
copies from page-locked memory take their time, and with `machine.pageable_access` those from any
host memory: they land as late as they may, which is before the first work on their target that
comes after them: ordering.py.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import NamedTuple

from . import errors, ordering
from .counting import record
from .hardware import check_current, machine

_handles = itertools.count(0x1000, 0x10)
clock = time.perf_counter  # of events, in seconds


class Node(NamedTuple):
    """A recorded operation, and the memory that it will touch.

    CuPy's memory pool does not know of graphs: a block that is freed after the capture is
    given to somebody else, and the graph writes there. Hence the weak references.
    """

    run: Callable[[], None]
    memory: tuple[weakref.ref, ...]


class Graph:
    def __init__(self, *args: object, **kwargs: object):
        raise NotImplementedError(
            "currently this class cannot be initiated by the user and must be created via "
            "stream capture"
        )

    @classmethod
    def _from(cls, nodes: list[Node], device: int) -> Graph:
        graph = cls.__new__(cls)
        graph._nodes, graph._device = tuple(nodes), device
        return graph

    def launch(self, stream: Stream | None = None) -> None:
        stream = stream or get_current_stream()
        check_current(self._device)
        if stream.is_capturing():
            raise errors.runtime_error(errors.CAPTURE_UNSUPPORTED, "launch of a graph")
        for node in self._nodes:
            if any(reference() is None for reference in node.memory):
                detail = "the graph uses an array that has been freed: keep a reference"
                raise errors.runtime_error(errors.ILLEGAL_ADDRESS, detail)
        record(graphs=1)
        for node in self._nodes:
            ordering.use(stream, [reference() for reference in node.memory])
            node.run()

    def upload(self, stream: Stream | None = None) -> None:
        check_current(self._device)


class Stream:
    null: Stream  # the default stream, of every device

    def __init__(self, null: bool = False, non_blocking: bool = False):
        self._non_blocking = non_blocking
        self._recorded: list[Node] | None = None  # a list while capturing
        self._invalidated = False
        self._before: list[Stream] = []
        self._submitted = 0  # operations
        self._after: ordering.Past = {}  # what the next operation comes after, on other streams
        if null:
            self.ptr, self.device_id = 0, -1
        else:
            machine.require_device()
            self.ptr, self.device_id = next(_handles), machine.current_device
            _streams.add(self)

    @property
    def is_non_blocking(self) -> bool:
        return self._non_blocking

    def use(self) -> Stream:
        if self.device_id not in (-1, machine.current_device):
            raise RuntimeError(
                f"a stream of device {self.device_id} used on device {machine.current_device}"
            )
        _current[threading.get_ident(), machine.current_device] = self
        return self

    def __enter__(self) -> Stream:
        before = get_current_stream()
        self.use()
        self._before.append(before)
        return self

    def __exit__(self, *exception: object) -> None:
        self._before.pop().use()

    def synchronize(self) -> None:
        machine.require_device()
        if self.is_capturing():
            self._invalidated = True
            raise errors.CUDARuntimeError(errors.CAPTURE_UNSUPPORTED)
        record(synchronisations=1)
        ordering.host_waits(self._past())

    def _past(self) -> ordering.Past:
        """All that was submitted so far, and what that comes after."""
        return {**self._after, self.ptr: self._submitted}

    def _submit(self) -> None:
        """One more operation."""
        ordering.join(self._after, ordering.awaited)
        if self.ptr == 0:  # the default stream and those that are not non-blocking wait for another
            for other in [each for each in _streams if not each.is_non_blocking]:
                ordering.join(self._after, other._past())
        elif not self.is_non_blocking:
            ordering.join(self._after, Stream.null._past())
        self._submitted += 1

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        machine.require_device()
        ordering.join(self._after, event._past)

    def begin_capture(self, mode: int | None = None) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.is_capturing():
            raise errors.runtime_error(errors.ILLEGAL_STATE, "capturing already")
        self._recorded, self._invalidated = [], False

    def end_capture(self) -> Graph:
        if self._recorded is None:
            raise errors.runtime_error(errors.ILLEGAL_STATE, "the stream is not capturing")
        nodes, self._recorded = self._recorded, None
        if self._invalidated:
            raise errors.CUDARuntimeError(errors.CAPTURE_INVALIDATED)
        return Graph._from(nodes, self.device_id)

    def is_capturing(self) -> bool:
        return self._recorded is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return hash(self.ptr)


_streams: weakref.WeakSet[Stream] = weakref.WeakSet()  # but for the default one

Stream.null = Stream(null=True)
_current: dict[tuple[int, int], Stream] = {}  # (thread, device) -> stream, as in CUDA


def get_current_stream() -> Stream:
    machine.require_device()
    return _current.get((threading.get_ident(), machine.current_device), Stream.null)


class Event:
    def __init__(self, block: bool = False, disable_timing: bool = False):
        machine.require_device()
        self._timed = not disable_timing
        self._time: float | None = None
        self._past: ordering.Past = {}  # of the stream, when it was recorded

    def record(self, stream: Stream | None = None) -> None:
        self._time = clock()
        self._past = (stream or get_current_stream())._past()

    def synchronize(self) -> None:
        refuse_while_capturing("Event.synchronize")
        record(waits=1)
        ordering.host_waits(self._past)

    @property
    def done(self) -> bool:
        """True: whoever asks is given the time that it takes."""
        ordering.host_waits(self._past)
        return True


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds between two recorded events."""
    for event in (start_event, end_event):
        if event._time is None or not event._timed:
            raise errors.runtime_error(errors.INVALID_HANDLE, "the event was not recorded")
    return 1000 * (end_event._time - start_event._time)


def refuse_while_capturing(what: str) -> None:
    """For what the host would have to wait for, and for what a graph cannot hold."""
    if get_current_stream().is_capturing():
        raise RuntimeError(
            f"the current stream is capturing, so synchronous API calls are disallowed ({what})"
        )


def submit(run: Callable[[], None], memory: Iterable[object]) -> None:
    """Do `run` now or, while the current stream is capturing, whenever its graph is launched.

    `run` must not hold on to device arrays: `memory` says which blocks it touches.
    """
    stream = get_current_stream()
    if stream.is_capturing():
        stream._recorded.append(Node(run, tuple(weakref.ref(block) for block in memory)))
    else:
        ordering.use(stream, memory)
        run()


def read_by_host(memory: Iterable) -> None:
    """The host waits for the current stream's work on these blocks."""
    stream = get_current_stream()
    ordering.use(stream, memory)
    ordering.host_waits(stream._past())


def allocated(block) -> None:
    """CuPy's pool gives out memory whose last user may still be at work on the current stream."""
    stream = get_current_stream()
    block.used[stream.ptr] = stream._submitted
