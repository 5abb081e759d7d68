"""Whether two contenders give the same answers."""

import numpy as np

# Largest relative difference.  Below float32, Adam's first step turns a rounding error of a
# gradient near 0 into a part of a whole step.
TOLERANCE = {"float32": 1e-4, "tf32": 2e-2, "bf16": 1e-1}

# Of each array the worst hundredth may differ more: where a z is within rounding of ReLU's kink,
# the sample belongs to the unit's gradient for one and not for the other.
COUNTED = 0.99


def difference(answers, reference) -> float:
    """The largest relative difference of losses, and of each array's elements but the worst."""
    losses = [
        abs(value - expected) / abs(expected)
        for value, expected in zip(answers["losses"], reference["losses"], strict=True)
    ]
    arrays = [
        np.quantile(np.abs(array - expected), COUNTED) / np.abs(expected).max()
        for array, expected in zip(answers["arrays"], reference["arrays"], strict=True)
    ]
    return float(max(*losses, *arrays, 0.0))
