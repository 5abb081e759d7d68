"""Refusals that say which argument is to blame."""

from __future__ import annotations

import contextlib
import re

import numpy as np


@contextlib.contextmanager
def naming(argument: str):
    """What is refused within is refused by that name."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if re.search(rf"\b{argument}\b", str(error)):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{argument}: {error}") from error


def no_nan(outputs):
    """The outputs; NaN, which overflow leaves, is no answer."""
    if np.isnan(float(outputs.min())):  # min passes NaN on, and needs no memory
        raise ValueError(
            "the network's outputs are NaN: X holds numbers that are too large, or the weights are "
            "not finite"
        )
    return outputs
