"""For the tests of the estimators' input: odd forms of good arrays, and bad ones."""

import re

import numpy as np
import pytest
from scipy import sparse

from gpumlp import MLPClassifier
from tests.helpers.optional import Package, where_installed

pd = Package("pandas")

ROWS, FEATURES = 9, 3


def small(cls, **arguments):
    return cls(**({"hidden_layer_sizes": (3,), "max_iter": 3, "random_state": 0} | arguments))


def is_classifier(cls):
    return issubclass(cls, MLPClassifier)


def features(rng, rows=ROWS, columns=FEATURES):
    """Halves in [-4, 4], which every float holds exactly."""
    return rng.integers(-8, 9, (rows, columns)) / 2


def targets(cls, rng, rows=ROWS):
    """Three classes, all present where there are three rows, or halves."""
    return np.arange(rows) % 3 if is_classifier(cls) else rng.integers(-8, 9, rows) / 2


# ---------------------------------------------------------------- odd forms of good input
def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def with_gaps(array):
    """A view into a larger array, contiguous along no axis."""
    for axis in range(array.ndim):
        array = np.repeat(array, 2, axis)
    return array[(slice(None, None, 2),) * array.ndim]


def backwards(array):
    """The same values at negative strides."""
    turned = (slice(None, None, -1),) * array.ndim
    return np.ascontiguousarray(array[turned])[turned]


NUMBERS = {
    "list": lambda a: a.tolist(),
    "float64": lambda a: a,
    "float32": lambda a: a.astype(np.float32),
    "float16": lambda a: a.astype(np.float16),
    "longdouble": lambda a: a.astype(np.longdouble),
    "int8": lambda a: a.astype(np.int8),
    "uint64": lambda a: np.abs(a).astype(np.uint64),
    "booleans": lambda a: a > 0,
    "objects": lambda a: a.astype(object),
    "objects of all kinds": lambda a: np.where(a > 0, a, a.astype(int).astype(object)),
    "big-endian": lambda a: a.astype(">f8"),
    "read-only": read_only,
    "with gaps": with_gaps,
    "backwards": backwards,
}
FRAMES = {
    "frame": lambda X: pd.DataFrame(X, columns=[f"column {j}" for j in range(X.shape[1])]),
    "frame of nullable": lambda X: pd.DataFrame(X.astype(int)).astype("Int64"),
}
MATRICES = NUMBERS | {
    "numbers as text": lambda X: X.astype(str),
    "fortran": np.asfortranarray,
    "csr": sparse.csr_matrix,
    "csc array": sparse.csc_array,
    "coo": sparse.coo_matrix,
    "lil of float32": lambda X: sparse.lil_matrix(X.astype(np.float32)),
    **where_installed("pandas", FRAMES),
}
CONTENTS = {
    "random": lambda X: X,
    "constant": lambda X: np.full_like(X, 2),
    "a constant column": lambda X: np.hstack([X[:, :1], np.full_like(X[:, 1:], -1.5)]),
    "zeros": np.zeros_like,
    "the same row": lambda X: np.tile(X[:1], (len(X), 1)),
    "large": lambda X: X * 1e4,
    "tiny": lambda X: X * 1e-300,
    "subnormal": lambda X: X * 1e-323,
}
PAIRS = NUMBERS | {
    "fortran": np.asfortranarray,
    **where_installed("pandas", {"frame": FRAMES["frame"]}),
}
VECTORS = NUMBERS | {
    "column": lambda y: y[:, None],
    **where_installed("pandas", {"series": lambda y: pd.Series(y)}),
}
CATEGORIES = {
    "categories": lambda c: pd.Series(np.array(["ant", "bee", "cow"])[c], dtype="category"),
}
CLASSES = {
    "numbers": lambda c: c,
    "list": lambda c: c.tolist(),
    "one class": lambda c: np.zeros_like(c),
    "a class each": lambda c: np.arange(len(c)),
    "two": lambda c: c == 1,
    "floats": lambda c: c.astype(np.float16),
    "text": lambda c: np.array(["ant", "bee", "cow"])[c],
    "objects": lambda c: np.array(["ant", "bee", "cow"], dtype=object)[c],
    "very long labels": lambda c: np.array(["a" * 20_000, "a" * 19_999 + "b", "c"])[c],
    "labels with spaces": lambda c: np.array(["", " ", "\n"])[c],
    "huge": lambda c: c.astype(np.uint64) + np.uint64(2**63),
    "negative": lambda c: c - 2**62,
    "big-endian": lambda c: c.astype(">i2"),
    "days": lambda c: np.datetime64("2000-01-01") + c,
    "column": lambda c: c[:, None],
    "with gaps": with_gaps,
    "read-only": read_only,
    **where_installed("pandas", CATEGORIES),
}
LABELS = {
    "labels": lambda c: np.eye(3, dtype=int)[c],
    "labels, sparse": lambda c: sparse.csr_matrix(np.eye(3, dtype=int)[c]),
    "labels that all have": lambda c: np.ones((len(c), 3), dtype=int),
    "labels that none has": lambda c: np.zeros((len(c), 2), dtype=int),
}


def plain(array):
    """float64 in C order; but float32 stays, as it does in a fit."""
    array = array.toarray() if sparse.issparse(array) else np.asarray(array)
    dtype = np.float32 if array.dtype == np.float32 else np.float64
    return np.ascontiguousarray(array.astype(dtype))


# ---------------------------------------------------------------- bad input
def with_one(value):
    """The array with that value in one place."""

    def spoilt(array):
        array = np.array(array, dtype=np.result_type(array, np.asarray(value)))
        array.flat[array.size // 2] = value
        return array

    return spoilt


NO_NUMBERS = {
    "a word": lambda a: "word",
    "bytes": lambda a: b"bytes",
    "a dictionary": lambda a: {"a": 1},
    "a set": lambda a: {1, 2},
    "a function": lambda a: len,
    "a generator": lambda a: (row for row in a),
    "ragged": lambda a: [[1.0], [1.0, 2.0]] * len(a),
    "complex": lambda a: a + 1j,
    "records": lambda a: np.zeros(len(a), dtype=[("a", float), ("b", float)]),
}
NOT_FINITE = {
    "NaN": with_one(np.nan),
    "infinity": with_one(np.inf),
    "minus infinity": with_one(-np.inf),
    "objects with None": lambda a: with_one(None)(a.astype(object)),
}
BAD_FRAMES = {
    "a frame with text": lambda X: pd.DataFrame(X).assign(name="a"),
    "a frame with NA": lambda X: pd.DataFrame(X.astype(int)).astype("Int64").shift(),
}
BAD_X = (
    NO_NUMBERS
    | NOT_FINITE
    | where_installed("pandas", BAD_FRAMES)
    | {
        "None": lambda X: None,
        "a number": lambda X: 3.0,
        "0-d": lambda X: np.array(3.0),
        "1-d": lambda X: X[:, 0],
        "3-d": lambda X: X[None],
        "no rows": lambda X: X[:0],
        "no columns": lambda X: X[:, :0],
        "text": lambda X: np.full(X.shape, "a"),
        "objects with text": lambda X: with_one("a")(X.astype(object)),
        "sparse with NaN": lambda X: sparse.csr_matrix(with_one(np.nan)(X)),
        "sparse complex": lambda X: sparse.csr_matrix(X + 1j),
    }
)
BAD_Y = NOT_FINITE | {
    "a word": NO_NUMBERS["a word"],
    "a dictionary": NO_NUMBERS["a dictionary"],
    "a set": NO_NUMBERS["a set"],
    "ragged": NO_NUMBERS["ragged"],
    "complex": NO_NUMBERS["complex"],
    "None": lambda y: None,
    "0-d": lambda y: np.array(1),
    "3-d": lambda y: y.reshape(-1, 1, 1),
    "no columns": lambda y: np.zeros((len(y), 0)),
    "no rows": lambda y: y[:0],
    "too short": lambda y: y[:-1],
    "too long": lambda y: np.append(y, y),
    "a sparse column": lambda y: sparse.csr_matrix(y[:, None]),
}
BAD_CLASSES = BAD_Y | {
    "no classes": lambda y: y + 0.5,
    "bytes": lambda y: y.astype("S1"),
    "mixed": lambda y: np.array([1, "a", None] * len(y), dtype=object)[: len(y)],
    "objects with NaN": lambda y: np.array(["a", np.nan] * len(y), dtype=object)[: len(y)],
    "several numbers each": lambda y: np.stack([y, y, y], axis=1),
}
BAD_VALUES = BAD_Y | {
    "text": lambda y: np.full(len(y), "a"),
    "objects with text": lambda y: with_one("a")(y.astype(object)),
}
BAD_WEIGHT = (
    NO_NUMBERS
    | NOT_FINITE
    | {
        "negative": lambda w: -w,
        "one negative": with_one(-1e-9),
        "zeros": np.zeros_like,
        "zero": lambda w: 0,
        "0-d": lambda w: np.array(2.0),
        "a column": lambda w: w[:, None],
        "3-d": lambda w: w[None, None],
        "empty": lambda w: [],
        "too short": lambda w: w[:-1],
        "text": lambda w: np.full(len(w), "a"),
        "sparse": lambda w: sparse.csr_matrix(w),
        "the sum overflows": lambda w: np.full(len(w), 1e308),
        "too small to divide by": lambda w: np.full(len(w), 5e-324),
    }
)


def ways_to_spoil(cls, argument):
    if argument.startswith("X"):
        return BAD_X
    if argument.startswith("y"):
        return BAD_CLASSES if is_classifier(cls) else BAD_VALUES
    return BAD_WEIGHT


# ---------------------------------------------------------------- what comes of it
def refuses(names, call):
    """It raises ValueError or TypeError, and says which of the arguments is to blame."""
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    said = str(caught.value)
    assert any(re.search(rf"\b{name}\b", said) for name in names), said
