"""The columns of a table as numbers: what each was in fit, and one float64 matrix of those that say
something.

A number is itself.  A date is the days since 1970 and its parts, of which those are taken that vary
in fit.  A category is the number of its level: levels are sorted as texts, then come the infrequent
ones, together, and the missing value; what is none of them is NaN.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from gpumlp.estimators.messages import warn
from gpumlp.estimators.tabular.column_names import nearest
from gpumlp.estimators.tabular.column_values import CATEGORY, DATE, NUMBER, Column, Place
from gpumlp.estimators.tabular.table_reader import TableReader
from gpumlp.utils.checks import ParameterError, items, shown

MOST_LEVELS = 100  # of a column, the infrequent ones together being one
RARE_ROWS, RARE_SHARE = 10, 1 / 2000  # a level of fewer rows than both is infrequent
DISTINCT_SHARE, DISTINCT_ROWS = 0.9, 20  # beyond which a column of texts is left out

# Why columns are left out, as a message has it.
CONSTANT, EMPTY, DISTINCT = "constant", "empty", "distinct"
REASONS = {
    CONSTANT: "constant",
    EMPTY: "without values",
    DISTINCT: "with a text of its own in nearly every row",
}

DAY = np.timedelta64(1, "D")
EPOCH = np.datetime64(0, "D")


def _since(dates: np.ndarray, unit: Any, of: str, first: int = 0) -> np.ndarray:
    """The number of the unit that runs, counted from `first` where the last `of` began."""
    begun = dates.astype(f"M8[{of}]").astype(f"M8[{unit}]") - np.timedelta64(first, unit)
    return dates.astype(f"M8[{unit}]") - begun


# From datetime64[us]; elapsed are days since 1970.
PARTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "elapsed": lambda dates: (dates - EPOCH) / DAY,
    "year": lambda dates: dates.astype("M8[Y]") - np.datetime64(-1970, "Y"),
    "month": lambda dates: _since(dates, "M", "Y", 1),
    "day": lambda dates: _since(dates, "D", "M", 1),
    "weekday": lambda dates: (
        (dates.astype("M8[D]") - np.datetime64(-3, "D")) % np.timedelta64(7, "D")
    ),
    "yearday": lambda dates: _since(dates, "D", "Y", 1),
    "hour": lambda dates: _since(dates, "h", "D"),
    "minute": lambda dates: _since(dates, "m", "h"),
    "second": lambda dates: _since(dates, "s", "m"),
}
ELAPSED, *CALENDAR = PARTS


def _part(name: str, dates: np.ndarray) -> np.ndarray:
    """A part as float64, NaN for NaT."""
    values = PARTS[name](dates)
    if values.dtype.kind == "f":
        return values
    return np.where(np.isnat(values), np.nan, values.astype(np.int64))


@dataclasses.dataclass(frozen=True)
class TableColumn:
    """What a column was in fit.

    Parameters
    ----------
    label : str or int
        The column's name, or its position in a table without names.
    kind : {"number", "date", "category"}
        Time spans and times of the day are numbers, their seconds.
    dropped : {"", "constant", "empty", "distinct"}
        Why it has no features; "" if it has some.
    missing : bool
        Whether values were missing.
    parts : tuple of str
        Of a date: the features, keys of PARTS.
    levels : tuple of str
        Of a category: the levels that are told apart, in ascending order.
    infrequent : bool
        Of a category: whether there were further levels; what is no level counts as one of them.
    """

    label: str | int
    kind: str
    dropped: str = ""
    missing: bool = False
    parts: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    infrequent: bool = False

    @property
    def name(self) -> str:
        return self.label if isinstance(self.label, str) else f"x{self.label}"

    @property
    def codes(self) -> tuple[str, ...]:
        """Of a category: what the codes 0, 1, ... stand for."""
        infrequent = ("<infrequent>",) * self.infrequent
        return (*self.levels, *infrequent, *("<missing>",) * self.missing)

    @property
    def names(self) -> list[str]:
        """Of the columns of the matrix that it becomes."""
        if self.kind == DATE:
            return [f"{self.name}_{part}" for part in self.parts]
        return [self.name]

    @property
    def input_names(self) -> list[str]:
        """Of a category: of the inputs, which are one for two codes, else one for each."""
        codes = self.codes
        return [f"{self.name}_{code}" for code in (codes[1:] if len(codes) == 2 else codes)]

    def encode(self, column: Column, place: Place) -> np.ndarray:
        """(R, columns of the matrix) float64, NaN for a missing number and an unknown level."""
        if self.kind == CATEGORY:
            return self._codes(*column.texts())[:, np.newaxis]
        if self.kind == NUMBER:
            return column.numbers(place)[:, np.newaxis]
        dates = column.dates(place)
        return np.stack([_part(part, dates) for part in self.parts], axis=1)

    def _codes(self, codes: np.ndarray, texts: list[str]) -> np.ndarray:
        known = {level: float(i) for i, level in enumerate(self.levels)}
        infrequent = float(len(known)) if self.infrequent else np.nan
        missing = len(known) + self.infrequent if self.missing else np.nan
        return np.array([*(known.get(text, infrequent) for text in texts), missing])[codes]


def _fit_numbers(column: Column, place: Place) -> tuple[TableColumn, np.ndarray]:
    """A column of numbers, and what it becomes."""
    values = column.numbers(place)[:, np.newaxis]
    return TableColumn(place.label, NUMBER, *_dropped(values)), values


def _fit_dates(column: Column, place: Place) -> tuple[TableColumn, np.ndarray]:
    """The same of dates."""
    dates = column.dates(place)
    elapsed = _part(ELAPSED, dates)
    dropped, missing = _dropped(elapsed)
    parts, values = [ELAPSED], [elapsed]
    for name in CALENDAR if not dropped else ():
        part = _part(name, dates)
        if np.nanmin(part) < np.nanmax(part):
            parts.append(name)
            values.append(part)
    fitted = TableColumn(place.label, DATE, dropped, missing, () if dropped else tuple(parts))
    return fitted, np.stack(values, axis=1)


def _dropped(values: np.ndarray) -> tuple[str, bool]:
    """Why numbers say nothing, "" if they do; and whether some are missing."""
    missing = np.isnan(values)
    if missing.all():
        return EMPTY, True
    if missing.any():
        return "", True
    return "" if values.min() < values.max() else CONSTANT, False


def _fit_category(column: Column, place: Place, kept: bool) -> TableColumn:
    """kept: however many texts there are."""
    codes, texts = column.texts()
    counts = np.bincount(codes + 1, minlength=len(texts) + 1)
    missing, counts = bool(counts[0]), counts[1:]
    rows = int(counts.sum())
    texts = [text for text, count in zip(texts, counts, strict=True) if count]
    counts = counts[counts > 0]
    if not rows:
        return TableColumn(place.label, CATEGORY, EMPTY, missing)
    if not kept and rows >= DISTINCT_ROWS and len(texts) > DISTINCT_SHARE * rows:
        return TableColumn(place.label, CATEGORY, DISTINCT, missing)
    frequent = counts >= min(RARE_ROWS, RARE_SHARE * len(codes))
    infrequent = not frequent.all() or len(texts) > MOST_LEVELS
    if infrequent:
        # The most frequent, and of equals the first in order.
        ranked = sorted(np.flatnonzero(frequent), key=lambda i: (-counts[i], texts[i]))
        texts = [texts[i] for i in ranked[: MOST_LEVELS - 1]]
    levels = tuple(sorted(texts))
    if len(levels) + infrequent + missing < 2:
        return TableColumn(place.label, CATEGORY, CONSTANT)
    return TableColumn(place.label, CATEGORY, "", missing, (), levels, infrequent)


def fit_columns(
    table: TableReader, categorical_features: Any, rows: np.ndarray | None
) -> tuple[list[TableColumn], np.ndarray]:
    """The columns of a table, and the numbers and parts of dates of some rows (all if None), to
    which the least and the greatest of each are added where they are not all.

    Warns of columns that are left out for their many texts; a ValueError if there are no features.
    """
    named = _named(categorical_features, table)
    fitted, samples = [], []
    for j, label in enumerate(table.labels):
        place = Place(label)
        column = table.column(j, exact=j in named)
        kind = column.kind
        declared = column.declared and _by_dtype(categorical_features)
        if kind == CATEGORY or declared or j in named:
            fitted.append(_fit_category(column, place, declared or j in named))
            continue
        one, values = (_fit_dates if kind == DATE else _fit_numbers)(column, place)
        fitted.append(one)
        if not one.dropped:
            samples.append(_sample(values, rows))
    _warn_of_texts(fitted)
    if all(column.dropped for column in fitted):
        raise ValueError(
            f"X has no column to learn from: {_reasons(fitted)} (n_samples = {table.rows})"
        )
    count = table.rows if rows is None else len(rows) + 2
    return fitted, np.concatenate([np.empty((count, 0)), *samples], axis=1)


def _sample(values: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    if rows is None:
        return values
    return np.concatenate([values[rows], [np.nanmin(values, 0), np.nanmax(values, 0)]])


def _reasons(columns: list[TableColumn]) -> str:
    counts = Counter(column.dropped for column in columns)
    return ", ".join(
        f"{counts[reason]} {words}" for reason, words in REASONS.items() if counts[reason]
    )


def _warn_of_texts(columns: list[TableColumn]) -> None:
    names = [repr(column.label) for column in columns if column.dropped == DISTINCT]
    if names:
        warn(
            f"X: nearly every row has a text of its own in column{'s' * (len(names) > 1)} "
            f"{', '.join(names)}, left out: to take the more frequent ones as categories, name "
            "such a column in categorical_features; to learn from their words, make numbers of "
            "them by sklearn.feature_extraction.text.TfidfVectorizer; if they are numbers, "
            "convert them"
        )


# ---------------------------------------------------------------- categorical_features
def _by_dtype(categorical_features: Any) -> bool:
    return isinstance(categorical_features, str) and categorical_features == "from_dtype"


def _named(categorical_features: Any, table: TableReader) -> frozenset[int]:
    """The positions of the columns that categorical_features names."""
    if categorical_features is None or _by_dtype(categorical_features):
        return frozenset()
    wanted = f'categorical_features = {shown(categorical_features)} must be "from_dtype", None, a '
    wanted += "mask, or a list of positions or names"
    listed = items(categorical_features)
    if listed is None:
        raise ParameterError(wanted)
    count = len(table.labels)
    if listed and all(isinstance(item, bool | np.bool_) for item in listed):
        if len(listed) != count:
            raise ParameterError(
                f"categorical_features is a mask of {len(listed)}; X has {count} columns"
            )
        return frozenset(j for j, item in enumerate(listed) if item)
    if all(isinstance(item, str) for item in listed):
        unknown = [item for item in listed if item not in (table.names or ())]
        if unknown and table.names is None:
            raise ParameterError(f"{wanted}; X has no names of columns")
        if unknown:
            near = nearest(unknown[0], table.names or [])
            raise ParameterError(f"categorical_features: X has no column {unknown[0]!r}{near}")
        return frozenset(table.labels.index(item) for item in listed)
    if not all(
        isinstance(item, int | np.integer) and not isinstance(item, bool) for item in listed
    ):
        raise ParameterError(wanted)
    beyond = [item for item in listed if not 0 <= item < count]
    if beyond:
        raise ParameterError(f"categorical_features names column {beyond[0]}; X has {count}")
    return frozenset(map(int, listed))
