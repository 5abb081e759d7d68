"""The progress bar of a fit, in a terminal or a notebook."""

from __future__ import annotations

import functools
import os
import threading
from typing import Any

import numpy as np


class Hidden:
    """A bar that is not shown."""

    n = total = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        pass

    def update(self, epochs: int = 1) -> None:
        pass


def bar(epochs: int | None, shown: bool):
    """A bar over epochs; `Hidden` unless it is shown."""
    if not shown:
        return Hidden()
    from tqdm.auto import tqdm

    return _of_this_process(tqdm)(total=epochs, unit="epoch")


@functools.cache
def _of_this_process(tqdm):
    """tqdm's class with a lock of this process.

    tqdm's is shared with every process that is forked: one that is killed while it holds the lock
    leaves all others waiting for it, for ever.
    """

    shown = {name: _or_hidden(getattr(tqdm, name)) for name in ("display", "close")}
    kind: Any = type("Bar", (tqdm,), {"_lock": threading.RLock(), **shown})

    def renew():
        kind._lock = threading.RLock()  # another thread may have held it in the parent

    os.register_at_fork(after_in_child=renew)
    return kind


def _or_hidden(method):
    """Wrap a method of a bar: an OSError, as on a full disk, hides the bar and ends no fit."""

    @functools.wraps(method)
    def call(bar, *arguments, **options):
        try:
            return method(bar, *arguments, **options)
        except OSError:
            bar.disable = True

    return call


def line(history) -> str:
    """The newest figures as a line of text; of a stack the best."""
    figures = []
    for name, best in (("loss", np.nanmin), ("val_loss", np.nanmin), ("val_accuracy", np.nanmax)):
        values = getattr(history, name)
        if values:
            value = np.asarray(values[-1])
            known = value.ndim == 0 or np.isfinite(value).any()
            newest = float(value if value.ndim == 0 else best(value)) if known else np.nan
            figures.append(f"{name} {newest:.4f}")
    return ", ".join(figures)
