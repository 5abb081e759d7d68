"""The messages of a fit: its progress (verbose), and warnings."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import joblib
import sklearn

from gpumlp.training import progress as bars

# Frames in these folders pass on a call of the user's.
INSIDE = tuple(
    str(folder) + os.sep
    for folder in (Path(__file__).parents[1], *(Path(m.__file__).parent for m in (sklearn, joblib)))
)


def warn(text: str, category=UserWarning) -> None:
    """Warn, pointing at the line that called the estimator."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(INSIDE):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)


class Progress:
    """Shows the progress of a fit on the standard output.

    verbose = False: nothing; True: a bar where somebody watches, in a terminal or a notebook, else
    scikit-learn's line for each epoch, for logs; 2 or more: always the lines.
    """

    def __init__(self, verbose: bool | int, epochs: int):
        self.shown = bool(verbose)
        terminal = sys.stdout is not None and sys.stdout.isatty()
        watched = terminal or hasattr(sys, "ps1") or "ipykernel" in sys.modules
        self._lines = self.shown and (int(verbose) > 1 or not watched)
        self._bar = None
        if self.shown and not self._lines:
            self._bar = bars.bar(epochs, shown=True)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._bar is not None:
            self._bar.close()

    def epoch(self, number: int, loss: float, score: float | None = None):
        """Show the figures of an epoch: its number from 1, its loss, and its validation score."""
        figures = {"loss": loss}
        if score is not None:
            figures["validation score"] = score
        if self._bar is not None:
            text = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update()
        if self._lines:
            print(f"Iteration {number}, loss = {loss:.8f}")
            if score is not None:
                print(f"Validation score: {score:.6f}")

    def say(self, text: str):
        """Print a line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.write(text)
        if self._lines:
            print(text)
