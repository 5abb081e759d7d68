"""Refuse contents of X, y and weights that are no numbers, and labels that are no classes.

NumPy makes numbers of dates, time spans, bytes and digits without a warning; here they are refused,
by the name of the column.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.multiclass import type_of_target


class Kind(NamedTuple):
    """A kind of contents; dtypes: a pattern of their names in lower case; types: of objects."""

    dtypes: str
    types: tuple[type, ...]


# The first that matches.
KINDS = {
    "time spans": Kind("timedelta|duration", (datetime.timedelta, np.timedelta64)),
    "dates": Kind("date|time|period", (datetime.date, datetime.time, np.datetime64)),
    "bytes": Kind(r"bytes|binary|^\|s\d", (bytes, bytearray)),
    "text": Kind(r"string|utf8|^str$|^[<>]u\d|categorical|enum", (str,)),
}

# What an argument may not hold, and what to do.
NO_FEATURES = {
    "time spans": "make numbers of them, such as seconds",
    "dates": "make numbers of them, such as the days since 1970",
    "bytes": "decode them, and make numbers of them",
}
NO_WEIGHTS = {**NO_FEATURES, "text": "convert it to numbers, by .astype(float)"}
NO_VALUES = {
    **NO_FEATURES,
    "text": "convert it to numbers, by .astype(float), or use MLPClassifier",
}
NO_LABELS = {"bytes": "make text of them, each by .decode()"}

# What scikit-learn calls targets that are no classes, and what to do.
UNKNOWN = {
    "unknown": "labels are numbers, booleans or text",
    "continuous": "numbers with fractions are no classes: use {regressor}, or round them",
    "continuous-multioutput": "numbers with fractions are no classes: use {regressor}",
    "multiclass-multioutput": "several classes for each sample: put a classifier for each column "
    "into sklearn.multioutput.MultiOutputClassifier, or give 0 and 1 for each label",
}


def without_extension(y):
    """A series of pandas' nullable or Arrow numbers, none missing, in the dtype of NumPy: else its
    integers would become floats."""
    dtype = getattr(getattr(y, "dtype", None), "numpy_dtype", None)
    return y.to_numpy(dtype) if isinstance(dtype, np.dtype) and dtype.kind in "biuf" else y


def native(array):
    """Convert an array, a sparse matrix or a frame of pandas to the machine's byte order."""
    if hasattr(array, "columns") and hasattr(array, "dtypes"):
        foreign = {j: _native(dtype) for j, dtype in zip(array.columns, array.dtypes, strict=True)}
        foreign = {j: dtype for j, dtype in foreign.items() if dtype is not None}
        return array.astype(foreign) if foreign else array
    dtype = _native(getattr(array, "dtype", None))
    return array if dtype is None else array.astype(dtype)


def _native(dtype) -> np.dtype | None:
    """The dtype in the machine's byte order; None if it is that already."""
    foreign = isinstance(dtype, np.dtype) and not dtype.isnative
    return dtype.newbyteorder("=") if foreign else None


def refuse(array, name: str, kinds: dict[str, str]) -> None:
    """Raise TypeError for a column of one of these kinds; kinds: kind -> advice.  What NumPy cannot
    take is left to scikit-learn's checks."""
    for place, dtype, values in _columns(array, name):
        kind = _kind(dtype, values)
        if kind in kinds:
            raise TypeError(f"{place} holds {kind} (dtype {dtype}): {kinds[kind]}")


def _columns(array, name: str) -> Iterator[tuple[str, Any, Any]]:
    """(place, dtype, values) of each column; values is empty unless they are objects."""
    if hasattr(array, "columns") and hasattr(array, "dtypes"):  # pandas, polars
        for j, (label, dtype) in enumerate(zip(array.columns, array.dtypes, strict=True)):
            objects = str(dtype) == "object"
            yield f"{name}: column {label!r}", dtype, array.iloc[:, j] if objects else ()
        return
    schema: Any = getattr(array, "schema", None)
    if hasattr(schema, "types"):  # pyarrow
        for label, dtype in zip(schema.names, schema.types, strict=True):
            yield f"{name}: column {label!r}", dtype, ()
        return
    dtype = getattr(array, "dtype", getattr(array, "type", None))
    if dtype is None:
        try:
            array = np.asarray(array)
        except (ValueError, TypeError):
            return
        dtype = array.dtype
    if str(dtype) != "object":
        yield name, dtype, ()
    elif np.ndim(array) == 2:
        for j, column in enumerate(np.asarray(array).T):
            yield f"{name}: column {j}", dtype, column
    else:
        yield name, dtype, np.ravel(np.asarray(array))


def _kind(dtype, values) -> str | None:
    """The kind among KINDS of a column, or None; values: of a column of objects, else empty."""
    if isinstance(dtype, np.dtype) and dtype.kind in "iufbc":
        return None
    categories: Any = getattr(dtype, "categories", None)
    if hasattr(categories, "dtype"):
        dtype, values = categories.dtype, categories
    text = str(dtype).lower()
    types = tuple(set(map(type, values)))
    for name, kind in KINDS.items():
        if re.search(kind.dtypes, text) or any(issubclass(t, kind.types) for t in types):
            return name
    return None


def refuse_missing(y, name: str, advice: str) -> None:
    """Raise ValueError, with the count, for missing values in text, nullable columns or numbers."""
    try:
        values = np.asarray(y)
    except (ValueError, TypeError):
        return
    if values.dtype.kind == "f":
        missing = int(np.isnan(values).sum())
    elif values.dtype == object:
        missing = sum(map(_is_missing, values.ravel()))
    else:
        return
    if missing:
        raise ValueError(
            f"{name} has missing values in {missing} of {values.size} places: {advice}"
        )


def _is_missing(value) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, Real) and value != value


def refuse_labels(y, name: str, regressor: str = "MLPRegressor") -> None:
    """Raise ValueError for labels that are no classes; regressor: what to use instead."""
    if y.dtype == object:
        _refuse_objects(y, name)
    kind = type_of_target(y, input_name=name)
    if kind in UNKNOWN:
        example = ""
        if kind.startswith("continuous"):
            with np.errstate(invalid="ignore"):
                example = f" ({name} holds {y[y != y.astype(np.int64)].flat[0]:g})"
        advice = UNKNOWN[kind].format(regressor=regressor)
        raise ValueError(f"{name}: Unknown label type: {kind}; {advice}{example}")


def _refuse_objects(y, name: str) -> None:
    """Raise ValueError for an array of objects that are not all text."""
    types = set(map(type, y.ravel()))
    text = {t for t in types if issubclass(t, str)}
    if types == text:
        return
    names = ", ".join(sorted(t.__name__ for t in types))
    unknown = f"{name}: Unknown label type: {names}"
    if text:
        raise ValueError(
            f"{unknown}, mixed; make all of them text, [str(label) for label in {name}]"
        )
    for dtype, kind in (("bool", (bool, np.bool_)), ("int", Integral), ("float", Real)):
        if all(issubclass(t, kind) for t in types):
            raise ValueError(f"{unknown}, in an array of dtype object; pass {name}.astype({dtype})")
    raise ValueError(f"{unknown}; {UNKNOWN['unknown']}")
