"""Ctrl-C during a fit: the running update is finished first."""

from __future__ import annotations

import signal
import threading


class Interrupt:
    """Within the context, the first Ctrl-C only sets `asked`; a second one interrupts at once.

    Outside the main thread, where Python delivers no signals, nothing changes.
    """

    def __init__(self):
        self.asked = False

    def __enter__(self):
        self._old = None
        # Only Python's own handler is replaced: a program that has set its own keeps it.
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._old = signal.signal(signal.SIGINT, self._handle)
        return self

    def _handle(self, number, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *error):
        if self._old is not None:
            signal.signal(signal.SIGINT, self._old)
