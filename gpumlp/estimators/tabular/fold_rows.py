"""Folds of a cross-validation, one for each network of a stack."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold

FOLDS_OF_ONE = 8  # of which a single network holds one out


def fold_rows(
    y: np.ndarray, models: int, classes: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that each network trains on (M, L), and those that are held out (M, L').

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        Numbers of classes, or values.
    models : int
        M; network m holds fold m out, of as many folds as there are networks, or rows.  A single
        network holds an eighth out.
    classes : bool
        Whether folds have the classes in equal shares.
    rng : Generator
        Which rows are in which fold.

    Notes
    -----
    Folds differ in length by one row.  A network leaves out one of its training rows where others
    have fewer, and sees one held-out row twice where others have more.  A single row is both.
    """
    rows = len(y)
    folds = min(models if models > 1 else FOLDS_OF_ONE, rows)
    if folds < 2:
        alone = np.zeros((models, 1), np.int64)
        return alone, alone
    stratified = classes and np.bincount(y).max() >= folds
    kind = StratifiedKFold if stratified else KFold
    state = int(rng.integers(2**32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class of fewer rows than folds is no harm
        pairs = list(kind(folds, shuffle=True, random_state=state).split(y, y))
    pairs = [pairs[m % folds] for m in range(models)]
    fewest = min(len(training) for training, _ in pairs)
    most = max(len(held_out) for _, held_out in pairs)
    training = [rng.permutation(rows)[:fewest] for rows, _ in pairs]
    held_out = [np.resize(rows, most) for _, rows in pairs]
    return np.array(training), np.array(held_out)
