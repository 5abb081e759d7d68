"""Checks of what is to be learned, whatever kind of file it comes from."""

import numpy as np

from gpumlp.cli.error import InputError


def check_values(y: np.ndarray, what: str) -> None:
    """Refuses targets (samples, targets) of which one never changes."""
    if (y == y[0]).all(axis=0).any():
        raise InputError(f"{what} is the same number in every sample: nothing to learn")


def check_classes(classes: np.ndarray, counts: np.ndarray, what: str, otherwise: str) -> None:
    """Refuses classes, with so many samples each, that cannot be told apart and tested.

    otherwise: what to do if the labels are meant as numbers.
    """
    if len(classes) < 2:
        raise InputError(f"{what} has a single class, {classes[0]}; at least 2 are needed")
    if counts.min() < 2:
        rare = classes[counts.argmin()]
        raise InputError(
            f"class {rare} of {what} has a single sample; each class needs 2 or more ({otherwise})"
        )
