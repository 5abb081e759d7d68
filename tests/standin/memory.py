"""Simulated device memory: poisoned when fresh, limited, and found again by its address."""

from __future__ import annotations

import bisect
import ctypes
import math
import weakref

import numpy as np

from . import errors, pool
from .counting import lock, record
from .hardware import Device, machine
from .ordering import Copy
from .streams import allocated, refuse_while_capturing

ALIGNMENT = 512  # bytes, as of CuPy's memory pool
POISON = 0xFF  # NaN as a floating-point number, -1 as an integer

# The blocks in use: their addresses in ascending order, and what is there.
_addresses: list[int] = []
_live: dict[int, weakref.ref[Memory]] = {}


def bytes_spanned(shape: tuple[int, ...], itemsize: int, strides: tuple[int, ...] | None) -> int:
    """From the first byte of an array to behind its last one; strides None is C order."""
    if 0 in shape:
        return 0
    if strides is None:
        return math.prod(shape) * itemsize
    return itemsize + sum(step * (n - 1) for step, n in zip(strides, shape, strict=True))


def host_view(address: int, shape, dtype, strides=None, keep: object = None) -> np.ndarray:
    """The bytes at an address as a NumPy array, which keeps `keep` alive."""
    size = bytes_spanned(shape, np.dtype(dtype).itemsize, strides)
    raw = (ctypes.c_char * max(size, 1)).from_address(address)
    raw.keep = keep
    return np.ndarray(shape, dtype, buffer=raw, strides=strides)


class Memory:
    """A block of memory on one device. It is in use for as long as this object lives."""

    def __init__(self, size: int, device: int, address: int, keep: object):
        self.size, self.device, self.address = size, device, address
        self._keep = keep  # what the host memory underneath belongs to
        self.coming: list[Copy] = []  # that may not have landed
        self.used: dict[int, int] = {}  # stream -> its last operation here
        with lock:
            bisect.insort(_addresses, address)
            _live[address] = weakref.ref(self)
        weakref.finalize(self, _forget, address).atexit = False

    def holds(self, address: int, size: int) -> bool:
        return self.address <= address and address + size <= self.address + self.size

    def host(self, shape: tuple[int, ...], dtype: np.dtype, order: str) -> np.ndarray:
        """The block from its first byte on, as a NumPy array.

        It may outlive this block, in a recorded graph, and then keeps the bytes alone.
        """
        if order not in ("C", "F"):
            raise ValueError(f"order must be 'C' or 'F', not {order!r}")
        if order == "F":
            return host_view(self.address, shape[::-1], dtype, keep=self._keep).T
        return host_view(self.address, shape, dtype, keep=self._keep)


class MemoryPointer:
    def __init__(self, memory: Memory, address: int):
        self._memory, self._address = memory, address

    @property
    def ptr(self) -> int:
        return self._address

    @property
    def device_id(self) -> int:
        return self._memory.device

    @property
    def device(self) -> Device:
        return Device(self._memory.device)


def allocate(size: int) -> Memory:
    """`size` poisoned bytes on the current device."""
    machine.require_device()
    refuse_while_capturing("an allocation")
    device = machine.current_device
    with lock:
        part = pool.allocate(size)
        machine.used[device] = machine.used.get(device, 0) + size
    buffer = np.full(size + ALIGNMENT, POISON, np.uint8)
    memory = Memory(size, device, -(-buffer.ctypes.data // ALIGNMENT) * ALIGNMENT, buffer)
    record(allocations=1, allocated_bytes=size, current_bytes=size)
    weakref.finalize(memory, _free, machine.used, device, size, part).atexit = False
    allocated(memory)
    return memory


def _free(used: dict[int, int], device: int, size: int, part: pool.Part) -> None:
    with lock:
        used[device] -= size
        pool.free(part)
    if used is machine.used:  # else the block is not of the machine that is installed now
        record(current_bytes=-size)


def _forget(address: int) -> None:
    with lock:
        del _addresses[bisect.bisect_left(_addresses, address)]
        del _live[address]


def _block_below(address: int) -> Memory | None:
    """The live block that begins at or before an address."""
    with lock:
        position = bisect.bisect_right(_addresses, address)
        return _live[_addresses[position - 1]]() if position else None


def find(address: int, size: int) -> Memory:
    """The live block of the current device that holds these bytes, all of them.

    A kernel that is given anything else reads or writes memory that is not its own: on a
    device, at best an error, at worst a wrong number.
    """
    block = _block_below(address)
    if block is None or not block.holds(address, size):
        detail = f"{size} bytes at {address:#x} are not inside one live allocation"
        raise errors.runtime_error(errors.ILLEGAL_ADDRESS, detail)
    if block.device != machine.current_device:
        detail = f"{address:#x} is on device {block.device}, not on the current one"
        raise errors.runtime_error(errors.ILLEGAL_ADDRESS, detail)
    return block


def is_device_address(address: int) -> bool:
    block = _block_below(address)
    return block is not None and block.holds(address, 1)


def adopt(address: int, size: int, owner: object) -> Memory:
    """The block at an address that another library shares; `owner` keeps it alive."""
    block = _block_below(address)
    if block is not None and block.holds(address, size):
        return block
    return Memory(size, machine.current_device, address, owner)


class _Pinned:
    """What makes a ctypes array, which NumPy takes for a buffer, CuPy's PinnedMemoryPointer."""

    @property
    def ptr(self) -> int:
        return ctypes.addressof(self)

    @property
    def size(self) -> int:
        return len(self)


def alloc_pinned_memory(size: int):
    """`size` poisoned bytes on the host, from which copies are asynchronous."""
    machine.require_device()
    pointer = type("PinnedMemoryPointer", (ctypes.c_ubyte * size, _Pinned), {})()
    ctypes.memset(pointer, POISON, size)
    with lock:
        _pinned.append(weakref.ref(pointer, _pinned.remove))
    return pointer


_pinned: list[weakref.ref] = []


def is_memory_pinned(data: int) -> bool:
    machine.require_device()
    return is_pinned(data, 1)


def is_pinned(address: int, size: int) -> bool:
    with lock:
        blocks = [reference() for reference in _pinned]
    return any(
        block is not None and block.ptr <= address and address + size <= block.ptr + block.size
        for block in blocks
    )
