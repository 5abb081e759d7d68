"""CuPy's memory pool, as far as it says how much memory there is: freed blocks stay with it.

A block that is freed is given to later arrays, whole or in parts; only one of which no part is in
use goes back to the device.  So free parts may be of no use to a large array.  That is book-keeping
alone: the bytes themselves are elsewhere, and are gone with their array (memory.py).
"""

from __future__ import annotations

import dataclasses
import gc

from . import errors
from .counting import lock
from .hardware import machine

UNIT = 512  # bytes: what is left of a block is cut off from there on


@dataclasses.dataclass(eq=False)
class Part:
    """Of a block, which is the list of its parts."""

    block: list[Part]
    size: int
    free: bool = False


def allocate(size: int) -> Part:
    """The smallest free part that is large enough, or a block from the device."""
    if size == 0:
        return Part([], 0)  # of no block
    with lock:
        blocks = _blocks()
        fitting = [part for block in blocks for part in block if part.free and part.size >= size]
        if fitting:
            return _cut(min(fitting, key=lambda part: part.size), size)
        if _taken(blocks) + size > machine.memory:
            free_all_blocks()
        if _taken(blocks) + size > machine.memory:
            raise errors.OutOfMemoryError(size, _taken(blocks))
        part = Part([], size)
        part.block.append(part)
        blocks.append(part.block)
        return part


def _cut(part: Part, size: int) -> Part:
    part.free = False
    if part.size - size >= UNIT:
        rest = Part(part.block, part.size - size, free=True)
        part.size = size
        part.block.insert(part.block.index(part) + 1, rest)
    return part


def free(part: Part) -> None:
    """Back to the pool, as one with free neighbours."""
    with lock:
        part.free = True
        joined: list[Part] = []
        for each in part.block:
            if joined and joined[-1].free and each.free:
                joined[-1].size += each.size
            else:
                joined.append(each)
        part.block[:] = joined


def free_all_blocks() -> None:
    with lock:
        blocks = _blocks()
        blocks[:] = [block for block in blocks if not (len(block) == 1 and block[0].free)]


def leave(monkeypatch, free: int) -> None:
    """A device with so many bytes left, and a pool that holds none for later."""
    gc.collect()  # what earlier tests left must not be freed in between
    with lock:
        blocks = _blocks()
        for block in blocks:
            block[:] = [part for part in block if not part.free]
        monkeypatch.setattr(machine, "memory", _taken(blocks) + free)


def taken() -> int:
    """Bytes of the current device that the pool has, in use or not."""
    return _taken(_blocks())


def _blocks() -> list[list[Part]]:
    return machine.blocks.setdefault(machine.current_device, [])


def _taken(blocks: list[list[Part]]) -> int:
    return sum(part.size for block in blocks for part in block)


class MemoryPool:
    def used_bytes(self) -> int:
        return self.total_bytes() - self.free_bytes()

    def total_bytes(self) -> int:
        return taken()

    def free_bytes(self) -> int:
        return sum(part.size for block in _blocks() for part in block if part.free)

    def free_all_blocks(self) -> None:
        free_all_blocks()


_pool = MemoryPool()


def get_default_memory_pool() -> MemoryPool:
    return _pool
