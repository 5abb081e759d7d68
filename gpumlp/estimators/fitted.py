"""The attributes that scikit-learn's estimators and gpumlp's have after a fit."""

from __future__ import annotations

import numpy as np

# Beside the weights.
FITTED = """
    n_features_in_ feature_names_in_ n_iter_ t_ loss_ loss_curve_ best_loss_ validation_scores_
    best_validation_score_
""".split()


def labels(classes: np.ndarray) -> list:
    """The classes as a list; items of object arrays may be NumPy scalars, which JSON does not
    hold."""
    return [label.item() if isinstance(label, np.generic) else label for label in classes.tolist()]


def check_sizes(coefs, intercepts) -> list[int]:
    """The sizes N_0 .. N_K of coefs_ and intercepts_; raises ValueError where they do not agree."""
    if len(coefs) != len(intercepts) or not coefs:
        raise ValueError(
            f"coefs_ has {len(coefs)} arrays and intercepts_ {len(intercepts)}; there is one of "
            "each for every layer"
        )
    for k, coef in enumerate(coefs):
        if coef.ndim != 2 or 0 in coef.shape:
            raise ValueError(f"coefs_[{k}] has shape {coef.shape}; it is (fan_in, fan_out)")
    sizes = [coefs[0].shape[0], *(coef.shape[1] for coef in coefs)]
    for k, (coef, intercept) in enumerate(zip(coefs, intercepts, strict=True)):
        if coef.shape[0] != sizes[k] or intercept.shape != (sizes[k + 1],):
            raise ValueError(
                f"coefs_[{k}] is {coef.shape} and intercepts_[{k}] {intercept.shape}; after a layer"
                f" of {sizes[k]} units they are ({sizes[k]}, N) and (N,)"
            )
    return sizes
