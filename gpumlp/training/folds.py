"""The rows that each network of a stack trains on, and those that it is validated on."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.utils import checks

WANTED = "(training (M, L), held_out (M, L')), the numbers of rows of x for each network"


def checked(folds: Any, models: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays as int32.

    Parameters
    ----------
    folds : tuple
        See `gpumlp.Trainer.fit`.
    models : int
        M.
    count : int
        Rows of x.

    Raises
    ------
    ParameterError
        For anything else than two arrays (M, L) of whole numbers from 0 to count - 1.
    """
    both = checks.items(folds)
    if both is None or len(both) != 2:
        raise checks.ParameterError(f"folds = {checks.shown(folds)} must be {WANTED}")
    training, held_out = (
        _numbers(array, f"folds[{i}]", models, count) for i, array in enumerate(both)
    )
    return training, held_out


def _numbers(array: Any, name: str, models: int, count: int) -> np.ndarray:
    numbers = checks.reals(array)
    if (
        numbers is None
        or numbers.dtype.kind not in "iu"
        or numbers.ndim != 2
        or len(numbers) != models
        or not numbers.size
    ):
        raise checks.ParameterError(f"{name} = {checks.shown(array)} must be of {WANTED}")
    if numbers.min() < 0 or numbers.max() >= count:
        raise checks.ParameterError(
            f"{name} holds numbers from {numbers.min()} to {numbers.max()}; the {count} rows of x "
            f"have the numbers 0 to {count - 1}"
        )
    return numbers.astype(np.int32)
