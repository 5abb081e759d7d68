"""The progress bar of a fit, in a terminal or a notebook."""

from __future__ import annotations

import numpy as np


def bar(epochs: int | None, shown: bool):
    """A bar over epochs; it shows nothing if not asked to."""
    from tqdm.auto import tqdm

    return tqdm(total=epochs, unit="epoch", disable=not shown)


def line(history) -> str:
    """The newest figures; of a stack the best, by name."""
    figures = []
    for name, best in (("loss", np.nanmin), ("val_loss", np.nanmin), ("val_accuracy", np.nanmax)):
        values = getattr(history, name)
        if values:
            value = np.asarray(values[-1])
            known = value.ndim == 0 or np.isfinite(value).any()
            newest = float(value if value.ndim == 0 else best(value)) if known else np.nan
            figures.append(f"{name} {newest:.4f}")
    return ", ".join(figures)
