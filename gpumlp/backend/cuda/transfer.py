"""Copies to the device beside the computing: from page-locked memory, on a stream of their own."""

from __future__ import annotations

import cupy as cp
import numpy as np


class Transfer:
    """As many bytes on the host, `host`, as on the device, `array`, to which `send` copies them.

    The computing is what the current stream does.
    """

    def __init__(self, size: int, stream):
        self.host = np.frombuffer(cp.cuda.alloc_pinned_memory(size), np.uint8, size)
        self.array = cp.empty(size, np.uint8)
        self._stream = stream
        self._sent = cp.cuda.Event(disable_timing=True)
        self._used = cp.cuda.Event(disable_timing=True)
        self.release()  # the memory was another's, whose work may not be done

    def wait(self):
        """Until the host may write to `host`: it has been read by the last copy."""
        self._sent.synchronize()

    def send(self):
        """Copy once the computing needs `array` no more; its work from now on waits for that."""
        self._stream.wait_event(self._used)
        self.array.set(self.host, stream=self._stream)
        self._sent.record(self._stream)
        cp.cuda.get_current_stream().wait_event(self._sent)

    def release(self):
        """What was submitted before this is the last that needs `array` as it is."""
        self._used.record()


def pair(size: int) -> tuple[Transfer, Transfer]:
    """Two of so many bytes, on one stream."""
    stream = cp.cuda.Stream(non_blocking=True)
    return Transfer(size, stream), Transfer(size, stream)
