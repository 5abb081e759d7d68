"""Mean and deviation, by which numbers are brought to one scale."""

import numpy as np

from gpumlp.cli.error import InputError


def moments(values: np.ndarray, what: str, one_scale: bool = False):
    """Mean and deviation of each column; a constant column has deviation 1.

    one_scale: every column gets the same deviation, the root of the mean variance, so that a pixel
    that is hardly ever inked is not blown up by a deviation of its own.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = values.mean(axis=0), values.std(axis=0)
        if one_scale:
            deviation = np.full_like(deviation, np.sqrt((deviation**2).mean()))
    if not (np.isfinite(mean).all() and np.isfinite(deviation).all()):
        raise InputError(f"the numbers in {what} are too large for their mean and deviation")
    # Rounding can leave a constant column a deviation that is tiny instead of 0.
    constant = deviation <= 1e-12 * np.abs(mean)
    return mean, np.where(constant, 1.0, deviation)
