"""Finish the running update of a fit before Ctrl-C takes effect."""

from __future__ import annotations

import signal
import threading
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # what asks a process to end


class Interrupt:
    """A context in which the first Ctrl-C only sets `asked`; a second one interrupts at once.

    An inner one is the outer one.  Outside the main thread, where Python delivers no
    signals, nothing changes.
    """

    def __init__(self):
        self.asked = False
        self._old: dict[signal.Signals, Any] = {}
        self._waiting: list[int] = []

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, Interrupt):
                return outer
            # Only Python's own handler is replaced: a program that has set its own keeps it.
            if handler is signal.default_int_handler:
                self._replace(signal.SIGINT, self._handle)
        return self

    def hold(self) -> None:
        """Let Ctrl-C, SIGTERM and SIGHUP wait for the context's end; there they take effect, unless
        an error ends it."""
        if threading.current_thread() is threading.main_thread():
            usual = (signal.SIG_DFL, signal.default_int_handler, self._handle)
            for number in ENDING:
                if signal.getsignal(number) in usual:
                    self._replace(number, self._wait)

    def _replace(self, number: signal.Signals, handler) -> None:
        self._old.setdefault(number, signal.getsignal(number))
        signal.signal(number, handler)

    def _handle(self, number, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def _wait(self, number, frame):
        self._waiting.append(number)

    def __exit__(self, kind, error, traceback):
        for number, handler in self._old.items():
            signal.signal(number, handler)
        if error is None:
            for waiting in self._waiting:
                signal.raise_signal(waiting)
