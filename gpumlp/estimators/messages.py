"""What a fit says: while it runs (verbose), and in warnings."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import joblib
import sklearn

from gpumlp.training import progress as bars

# Whoever is in there only passes on what its user has called.
INSIDE = tuple(
    str(folder) + os.sep
    for folder in (Path(__file__).parents[1], *(Path(m.__file__).parent for m in (sklearn, joblib)))
)


def warn(text: str, category=UserWarning) -> None:
    """A warning that points at the line that called the estimator."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(INSIDE):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)


class Progress:
    """verbose = False: nothing; True: a bar where somebody watches, in a terminal or a notebook,
    else scikit-learn's line for each epoch, for logs; 2 or more: always the lines."""

    def __init__(self, estimator, epochs: int):
        self._est = estimator
        terminal = sys.stdout is not None and sys.stdout.isatty()
        watched = terminal or hasattr(sys, "ps1") or "ipykernel" in sys.modules
        self._lines = bool(estimator.verbose) and (int(estimator.verbose) > 1 or not watched)
        self._bar = None
        if estimator.verbose and not self._lines:
            self._bar = bars.bar(epochs, shown=True)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._bar is not None:
            self._bar.close()

    def epoch(self):
        """The newest figures."""
        est = self._est
        figures = {"loss": est.loss_}
        if est.validation_scores_:
            figures["validation score"] = est.validation_scores_[-1]
        if self._bar is not None:
            shown = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update()
        if self._lines:
            print(f"Iteration {est.n_iter_}, loss = {est.loss_:.8f}")
            if "validation score" in figures:
                print(f"Validation score: {figures['validation score']:.6f}")

    def say(self, text: str):
        if self._bar is not None:
            self._bar.write(text)
        if self._lines:
            print(text)
