"""Checks of inputs and outputs whose messages name the argument."""

from __future__ import annotations

import contextlib
import functools
import re
from numbers import Real

import numpy as np
from sklearn.utils import check_array

from gpumlp.estimators import array_io, contents
from gpumlp.model import memory
from gpumlp.utils import checks

# Numbers that float32 cannot hold become infinite, and are then refused as such.
QUIET = functools.partial(np.errstate, over="ignore", invalid="ignore")


@contextlib.contextmanager
def naming(argument: str):
    """A context in which errors are raised with the argument's name in front."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if re.search(rf"\b{argument}\b", str(error)):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{argument}: {error}") from error


def plain_features(X, estimator, dtype) -> np.ndarray | None:
    """X as the network takes it, where scikit-learn's checks would take it and find nothing to say;
    None where they have to look.  For few rows they take longer than the network.

    dtype: of the result; of several, X keeps its own if that is one of them, else it is the first.
    """
    known = vars(estimator)
    if type(X) is not np.ndarray or X.ndim != 2 or "feature_names_in_" in known:
        return None
    if X.dtype.kind not in "fiub" or len(X) == 0 or X.shape[1] != known.get("n_features_in_"):
        return None
    dtypes = dtype if isinstance(dtype, tuple) else (dtype,)
    if X.dtype not in dtypes:
        with QUIET():
            X = X.astype(dtypes[0])
    return X if _finite(X) else None


def plain_targets(y) -> bool:
    """Whether y is an array of numbers in which the checks of targets would find nothing."""
    if type(y) is not np.ndarray or y.ndim not in (1, 2) or y.size == 0 or not y.dtype.isnative:
        return False
    return y.dtype.kind in "iub" or (y.dtype.kind == "f" and _finite(y))


def _finite(array: np.ndarray) -> bool:
    """Whether all numbers are finite; False also where their sum is not."""
    with QUIET():
        return bool(np.isfinite(array.sum()))  # NaN and infinity stay in a sum


def too_many_rows(X, name: str, row_bytes: int, copied: bool) -> None:
    """Raise MemoryError, before values are read, for dense rows that do not fit into memory.

    row_bytes: of each, besides its features; copied: these too, where they are not contiguous.
    """
    if not isinstance(X, np.ndarray) or X.ndim != 2:
        return
    if copied and not X.flags.c_contiguous:
        row_bytes += X.shape[1] * np.dtype(np.float32).itemsize
    needed = len(X) * row_bytes
    if short := memory.shortage(None, needed):
        raise MemoryError(
            f"out of memory: {name} has {len(X)} rows, for which about {memory.text(needed)} are "
            f"needed, and {short}; give fewer rows at once"
        )


def no_nan(outputs):
    """The outputs; raises ValueError for NaN, which an overflow leaves."""
    if np.isnan(float(outputs.min())):  # min passes NaN on, and needs no memory
        raise ValueError(
            "the network's outputs are NaN: X holds numbers that are too large, or the weights are "
            "not finite"
        )
    return outputs


def sample_weights(weight, count: int, dtype, name: str = "sample_weight") -> np.ndarray | None:
    """Check sample weights, a number or (n_samples,); returns them (count,), or None for None."""
    if weight is None:
        return None
    weight = array_io.host(weight)
    if isinstance(weight, Real):
        weight = np.full(count, checks.number(weight, name, checks.NONNEGATIVE))
    contents.refuse(weight, name, contents.NO_WEIGHTS)
    with naming(name), QUIET():
        weight = check_array(weight, ensure_2d=False, dtype=dtype, input_name=name)
    if weight.shape != (count,):
        raise ValueError(f"{name} has shape {weight.shape}; there are {count} samples")
    if weight.min() < 0:
        raise ValueError(f"{name} holds negative weights")
    if not weight.any():
        raise ValueError(f"every {name} is zero")
    with QUIET(divide="ignore"):
        total = weight.sum()
        if not (np.isfinite(total) and np.isfinite(1 / total)):
            raise ValueError(f"the sum of {name} is {total}: too large or too small for {dtype}")
    return weight
