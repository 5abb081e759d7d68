"""Copy to the device while it computes: from page-locked memory, on a stream of its own."""

from __future__ import annotations

import cupy as cp
import numpy as np


class Transfer:
    """Copies `host` to `array`, which is on the device, while the current stream computes."""

    def __init__(self, size: int, stream):
        self.host = np.frombuffer(cp.cuda.alloc_pinned_memory(size), np.uint8, size)
        self.array = cp.empty(size, np.uint8)
        self._stream = stream
        self._sent = cp.cuda.Event(disable_timing=True)
        self._used = cp.cuda.Event(disable_timing=True)
        self.release()  # the memory was another's, whose work may not be done

    def wait(self):
        """Wait until the last copy has read `host`, which may then be written to."""
        self._sent.synchronize()

    def send(self):
        """Copy when the current stream has done what it did before `release`; its later work waits
        for the copy."""
        self._stream.wait_event(self._used)
        self.array.set(self.host, stream=self._stream)
        self._sent.record(self._stream)
        cp.cuda.get_current_stream().wait_event(self._sent)

    def release(self):
        """Say that all work that reads `array` as it is has been submitted."""
        self._used.record()


def pair(size: int) -> tuple[Transfer, Transfer]:
    """Two transfers of so many bytes, on one stream."""
    stream = cp.cuda.Stream(non_blocking=True)
    return Transfer(size, stream), Transfer(size, stream)
