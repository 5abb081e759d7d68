"""Reads a table's columns: of NumPy, lists, pandas, polars and pyarrow, none of which but NumPy is
imported, as whoever has such a table has imported it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import check_array

from gpumlp.estimators.tabular.column_values import (
    SECOND,
    ArrayColumn,
    Column,
    Place,
    as_number,
    bytes_error,
    coded,
    complex_error,
    in_microseconds,
    is_missing,
    nested_error,
)

ALL = slice(None)


class TableReader:
    """A table of so many `rows` and `columns`.

    names: of its columns, None if it has none or if they are no texts; labels: names or positions.
    """

    def __init__(self, X: Any) -> None:
        self._table, names, self._read, self.rows = _opened(X)
        self.names = _checked_names(names)
        self.labels: list[Any] = self.names or list(range(len(names)))
        self.columns = len(names)
        for count, noun in ((self.rows, "sample(s)"), (len(names), "feature(s)")):
            if not count:  # in scikit-learn's words
                shape = (self.rows, len(names))
                raise ValueError(
                    f"X: Found a table with 0 {noun} (shape={shape}) while a minimum of 1 is "
                    "required."
                )

    def column(self, j: int, rows: slice = ALL, exact: bool = False) -> Column:
        """The values of a column in some rows; exact: as they are, for categories, where else
        integers beside missing values become floats."""
        place = Place(self.labels[j], rows.start or 0)
        return self._read(self._table, j, rows, exact, place)


Reader = Callable[[Any, int, slice, bool, Place], Column]


def _opened(X: Any) -> tuple[Any, list[Any], Reader, int]:
    """What to read from, its columns' names or positions, what reads it, and its rows' number."""
    if sparse.issparse(X):
        raise TypeError(
            "X is a sparse matrix, which is no table of columns: use MLPClassifier or "
            "MLPRegressor, which take it, or pass X.toarray()"
        )
    if hasattr(X, "iloc") and hasattr(X, "columns"):
        return X, list(X.columns), _of_pandas, len(X)
    if hasattr(X, "get_columns"):
        return X, list(X.columns), _of_polars, len(X)
    if hasattr(X, "collect") and hasattr(X, "collect_schema"):
        raise TypeError("X is a polars LazyFrame: pass X.collect()")
    if hasattr(X, "column_names") and hasattr(X, "combine_chunks"):
        return X, list(X.column_names), _of_arrow, len(X)
    array = check_array(_as_array(X), dtype=None, ensure_all_finite=False, input_name="X")
    return array, list(range(array.shape[1])), _of_numpy, len(array)


def _as_array(X: Any) -> Any:
    """Lists as arrays of numbers or of objects, never of texts."""
    if np.ma.isMaskedArray(X):
        return np.ma.filled(X.astype(np.float64), np.nan)
    if not isinstance(X, list | tuple):
        return X
    try:
        array = np.asarray(X)
    except ValueError:
        array = None
    return array if array is not None and array.dtype.kind in "biufc" else np.array(X, dtype=object)


def _checked_names(names: list[Any]) -> list[str] | None:
    types = {type(name).__name__ for name in names if not isinstance(name, str)}
    if types:
        if any(isinstance(name, str) for name in names):  # in scikit-learn's words
            raise TypeError(
                "Feature names are only supported if all input features have string names, but "
                f"your input has {sorted({*types, 'str'})} as feature name / column name types: "
                "use X.columns = X.columns.astype(str)"
            )
        return None
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"X has more than one column of the name {', '.join(map(repr, twice))}")
    return [str(name) for name in names]


def _of_numpy(array: np.ndarray, j: int, rows: slice, exact: bool, place: Place) -> Column:
    return _of_array(array[rows, j], exact, place)


def _of_array(array: np.ndarray, exact: bool, place: Place) -> Column:
    """A column of NumPy's; exact: its texts are no numbers, whatever they spell."""
    kind = array.dtype.kind
    if kind in "biuf":
        return ArrayColumn(array)
    if kind == "M":
        return ArrayColumn(in_microseconds(array))
    if kind == "m":
        return ArrayColumn(array / SECOND)
    if kind == "c":
        raise complex_error(place)
    if kind in "SV":
        raise bytes_error(place)
    column = coded(array.tolist(), place)
    if kind in "UT" and not exact:  # its other columns may have made text of its numbers
        numbers = [as_number(text) for text in column.objects if not is_missing(text)]
        if numbers and None not in numbers:
            return ArrayColumn(column.numbers(place))
    return column


def _of_pandas(frame: Any, j: int, rows: slice, exact: bool, place: Place) -> Column:
    series = frame.iloc[rows, j]
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return _of_array(series.to_numpy(), exact, place)
    if hasattr(dtype, "pyarrow_dtype"):
        return _of_arrow_array(series.array.__arrow_array__(), exact, place)
    declared = hasattr(dtype, "categories")
    if hasattr(dtype, "freq"):  # periods
        series = series.dt.to_timestamp()
    elif getattr(dtype, "tz", None) is not None:
        series = series.dt.tz_convert(None)
    elif not declared and not exact and dtype.kind in "biuf":
        return ArrayColumn(series.to_numpy(dtype=np.float64, na_value=np.nan))
    if isinstance(series.dtype, np.dtype):
        return _of_array(series.to_numpy(), exact, place)
    codes, values = series.factorize()
    return coded(values.tolist(), place).taken(codes, declared)


def _of_polars(frame: Any, j: int, rows: slice, exact: bool, place: Place) -> Column:
    series = frame.to_series(j)[rows]
    dtype = series.dtype
    name = type(dtype).__name__ if not isinstance(dtype, type) else dtype.__name__
    if dtype.is_nested():
        raise nested_error(f"{place}:", name.lower())
    if name == "Binary":
        raise bytes_error(place)
    if name in ("Date", "Datetime", "Duration"):
        return _of_array(series.to_numpy(), exact, place)  # in UTC
    if not exact and (dtype.is_numeric() or name in ("Boolean", "Null")):
        return ArrayColumn(series.cast(float).to_numpy())
    declared = name in ("Categorical", "Enum")
    return dataclasses.replace(coded(series.to_list(), place), declared=declared)


def _of_arrow(table: Any, j: int, rows: slice, exact: bool, place: Place) -> Column:
    start, stop, _ = rows.indices(len(table))
    return _of_arrow_array(table.column(j).slice(start, stop - start), exact, place)


def _of_arrow_array(array: Any, exact: bool, place: Place) -> Column:
    """A column of pyarrow's, a ChunkedArray."""
    name = str(array.type)
    if "<" in name and not name.startswith("dictionary"):
        raise nested_error(f"{place}:", name.partition("<")[0])
    if "binary" in name and not name.startswith("dictionary"):
        raise bytes_error(place)
    if name.startswith(("timestamp", "date", "duration")):
        return _of_array(array.to_numpy(), exact, place)  # in UTC
    if name.startswith("time"):
        return coded(array.to_pylist(), place)
    numeric = name.startswith(("bool", "int", "uint", "half", "float", "double", "decimal", "null"))
    if numeric and not exact:
        return ArrayColumn(array.cast("float64", safe=False).to_numpy())
    declared = name.startswith("dictionary")
    if declared:
        array = array.cast(array.type.value_type)
    encoded = array.dictionary_encode().combine_chunks()
    codes = encoded.indices.fill_null(-1).to_numpy()
    return coded(encoded.dictionary.to_pylist(), place).taken(codes, declared)
