"""What the stand-in counts: launches, GEMMs, copies, allocations, synchronisations."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator


@dataclasses.dataclass
class Counters:
    """Work done by the simulated device, counted where it runs.

    What a graph records is counted when the graph is launched, not when it is recorded.
    """

    launches: int = 0  # hand-written kernels
    kernels: list[str] = dataclasses.field(default_factory=list)  # their names, in order
    gemms: int = 0
    graphs: int = 0  # launches of captured graphs
    elementwise: int = 0  # CuPy's own kernels: arithmetic, reductions, fill, take, astype, ...
    sorts: int = 0
    # Programs that were used, each a compilation where the cache is cold: those of RawModules, and
    # CuPy's own, one for each function, dtypes and layout of its arrays.
    programs: set[tuple] = dataclasses.field(default_factory=set)
    h2d: int = 0
    staged_bytes: int = 0  # of page-locked memory that asarray takes, which CuPy's pool keeps
    d2h: int = 0
    d2d: int = 0
    synchronisations: int = 0
    waits: int = 0  # of the host for an event, behind which the device may have more to do
    allocations: int = 0
    allocated_bytes: int = 0  # the sum over all allocations
    current_bytes: int = 0  # device memory in use now, on all devices
    peak_bytes: int = 0

    def reset(self) -> None:
        """Back to zero; memory in use stays in use, and is the new peak."""
        in_use = self.current_bytes
        self.__init__()
        self.current_bytes = self.peak_bytes = in_use

    def snapshot(self) -> Counters:
        """A copy that no longer counts."""
        return dataclasses.replace(self, kernels=list(self.kernels), programs=set(self.programs))


counters = Counters()
_counting = [counters]

# Threads may use the device side by side.  Reentrant: memory may be freed at any time.
lock = threading.RLock()


def record(**amounts: int) -> None:
    """Add to the named counters, in `counters` and in every `count()` that is open."""
    with lock:
        for each in _counting:
            for name, amount in amounts.items():
                setattr(each, name, getattr(each, name) + amount)
            each.peak_bytes = max(each.peak_bytes, each.current_bytes)


def record_launch(kernel: str) -> None:
    record(launches=1)
    for each in _counting:
        each.kernels.append(kernel)


def record_program(*key: object) -> None:
    with lock:
        for each in _counting:
            each.programs.add(key)


@contextlib.contextmanager
def count() -> Iterator[Counters]:
    """Count what happens inside the block alone: `with standin.count() as c: ...`."""
    inside = Counters(current_bytes=counters.current_bytes, peak_bytes=counters.current_bytes)
    _counting.append(inside)
    try:
        yield inside
    finally:
        # By identity: two sets of counters may well be equal.
        _counting[:] = [each for each in _counting if each is not inside]
