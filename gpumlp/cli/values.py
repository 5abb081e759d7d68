"""What a column of a table holds (numbers, dates or text), and its values as arrays."""

from __future__ import annotations

import importlib
import math

import numpy as np

NUMBER, DATE, TEXT = "number", "date", "text"
# One of a kind, and many.
KINDS = {NUMBER: ("number", "numbers"), DATE: ("date", "dates"), TEXT: ("text", "texts")}

# What pandas.api.types.infer_dtype calls the values of a column of Python objects.
OF_OBJECTS = {
    "boolean": NUMBER,
    "integer": NUMBER,
    "floating": NUMBER,
    "mixed-integer-float": NUMBER,
    "decimal": NUMBER,
    "timedelta": NUMBER,
    "empty": NUMBER,
    "date": DATE,
    "datetime": DATE,
    "datetime64": DATE,
    "string": TEXT,
    "time": TEXT,
    "categorical": TEXT,
    "mixed-integer": TEXT,
}
ISO_DATE = r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?"

Bad = tuple[int, str] | None
"""The first row that holds something else, and what it holds."""


def kind_of(series) -> str | None:
    """Number, date or text; None for lists, bytes, complex numbers and the like."""
    types = importlib.import_module("pandas.api.types")
    dtype = series.dtype
    if types.is_bool_dtype(dtype) or types.is_timedelta64_dtype(dtype):
        return NUMBER
    if types.is_numeric_dtype(dtype):
        return None if types.is_complex_dtype(dtype) else NUMBER
    if types.is_datetime64_any_dtype(dtype):
        return DATE
    found = OF_OBJECTS.get(types.infer_dtype(series, skipna=True))
    if found == TEXT and not isinstance(dtype, importlib.import_module("pandas").CategoricalDtype):
        return DATE if _are_dates(series) else TEXT
    return found


def is_boolean(series) -> bool:
    types = importlib.import_module("pandas.api.types")
    return types.infer_dtype(series, skipna=True) == "boolean"


def numbers(series) -> tuple[np.ndarray, Bad]:
    """float64, NaN where a value is missing: booleans as 0 and 1, durations as days."""
    pandas = importlib.import_module("pandas")
    types = pandas.api.types
    if types.is_timedelta64_dtype(series.dtype):
        return series.to_numpy() / np.timedelta64(1, "D"), None
    if types.is_numeric_dtype(series.dtype):
        return series.to_numpy(dtype=np.float64, na_value=np.nan), None
    if types.is_datetime64_any_dtype(series.dtype):
        return _none_of(series)
    objects = series.astype(object)
    try:
        found = pandas.to_numeric(objects, errors="coerce")
    except OverflowError:
        found = pandas.to_numeric(objects.map(_float_sized), errors="coerce")
    return _checked(series, found.to_numpy(dtype=np.float64, na_value=np.nan))


def dates(series) -> tuple[np.ndarray, Bad]:
    """Days since 1970 (in UTC, where there is a time zone), NaN where a value is missing."""
    pandas = importlib.import_module("pandas")
    types = pandas.api.types
    if types.is_numeric_dtype(series.dtype):
        return _none_of(series)
    if not types.is_datetime64_any_dtype(series.dtype):
        parsed = pandas.to_datetime(series, format="ISO8601", utc=True, errors="coerce")
    else:
        parsed = pandas.to_datetime(series, utc=True)
    # By NumPy: pandas would count nanoseconds, of which 64 bits reach only to the year 2262.
    since = parsed.dt.tz_localize(None).to_numpy() - np.datetime64(0, "s")
    return _checked(series, since / np.timedelta64(1, "D"))


def texts(series) -> tuple[np.ndarray, list[str]]:
    """Which of the different texts each row has, -1 where it is missing; and those texts, sorted.

    What is not text, as the numbers of a categorical column, is taken as it is printed.
    """
    pandas = importlib.import_module("pandas")
    codes, values = pandas.factorize(series)
    printed = [str(value) for value in values]
    found = sorted(set(printed))
    place = {text: i for i, text in enumerate(found)}
    # The last place is for code -1, a missing value.
    return np.array([*(place[text] for text in printed), -1])[codes], found


def odd_text(found: list[str], counts: np.ndarray) -> str | None:
    """The first of different texts that is no number, where most of the rows hold numbers."""
    pandas = importlib.import_module("pandas")
    values, bad = numbers(pandas.Series(found, dtype=object))
    mostly = counts[np.isfinite(values)].sum() > counts.sum() / 2
    return bad[1] if bad is not None and mostly else None


def _float_sized(value):
    """An integer that is beyond all floats as infinity."""
    try:
        return float(value) if isinstance(value, int) else value
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _checked(series, values: np.ndarray) -> tuple[np.ndarray, Bad]:
    """The values, and the first that is NaN although it is not missing."""
    bad = np.flatnonzero(np.isnan(values) & series.notna().to_numpy())
    return values, (int(bad[0]), str(series.iloc[bad[0]])) if len(bad) else None


def _none_of(series) -> tuple[np.ndarray, Bad]:
    """No value at all: the first that is not missing is bad."""
    return _checked(series, np.full(len(series), np.nan))


def _are_dates(series) -> bool:
    """Whether all text is dates, year first: the order of others cannot be told."""
    pandas = importlib.import_module("pandas")
    found = pandas.Series(series.dropna().unique()).astype(str)
    if not len(found) or not found.str.fullmatch(ISO_DATE).all():
        return False
    parsed = pandas.to_datetime(found, format="ISO8601", utc=True, errors="coerce")
    return bool(parsed.notna().all())
