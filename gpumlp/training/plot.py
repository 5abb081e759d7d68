"""Draw the curves of a training: loss and accuracy against epochs."""

import io
import warnings
from pathlib import Path

import numpy as np

from gpumlp.utils import atomic, checks

COLORS = {"training": "tab:blue", "validation": "tab:orange"}


def curves(history, path, title: str = "", best=None) -> Path:
    """Draw a History into a PNG file, in one piece or not at all; returns the path.

    best: see `figure`.
    """
    path, drawn = checks.path(path, "path"), io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # of letters that the font lacks
        figure(history, title, best=best).savefig(drawn, format="png", dpi=120)
    atomic.write(path, drawn.getvalue())
    return path


def figure(history, title: str = "", score: str = "accuracy", best=None):
    """Draw a History as a matplotlib figure: its losses and, where there is one, its score.

    best: the epoch that is marked, from 1, or of a stack one for each network; 0 for none.
    A stack of networks gets one line a network. Raises ImportError, with what to install, where
    matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        message = f'drawing curves needs matplotlib ({error}): pip install "gpumlp[plot]"'
        raise ImportError(message) from error

    panels = [("loss", {"training": history.loss, "validation": history.val_loss})]
    if history.val_accuracy:
        panels.append((score, {"validation": history.val_accuracy}))

    # A Figure of its own, not pyplot: no window, no global state.
    drawn = Figure(figsize=(5.5 * len(panels), 4), layout="constrained")
    row = drawn.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, lines) in zip(row, panels, strict=True):
        _panel(axes, name, lines, np.atleast_1d([] if best is None else best))
    if title:
        # As it is: no mathematics, and no letters that there are not.
        text = title.encode(errors="backslashreplace").decode()
        drawn.suptitle(text, parse_math=False)
    return drawn


def _panel(axes, name: str, lines: dict, best: np.ndarray) -> None:
    from matplotlib.ticker import MaxNLocator

    for part, values in lines.items():
        if not values:
            continue
        epochs = range(1, len(values) + 1)
        drawn = axes.plot(epochs, values, color=COLORS[part], marker="." if len(values) < 3 else "")
        drawn[0].set_label(part)
        networks = np.reshape(values, (len(values), -1))
        if part == "validation" and len(best) == networks.shape[1]:
            m = np.flatnonzero((best > 0) & (best <= len(values)))
            marks = axes.plot(best[m], networks[best[m] - 1, m], "o", color=COLORS[part])
            marks[0].set_label("best epoch")
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
