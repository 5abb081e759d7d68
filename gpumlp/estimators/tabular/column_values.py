"""A column's values, whatever held them: as numbers, as dates or as texts.

A value is missing where it is None, NaN, NaT, NA or the empty text; an infinite number is missing,
too, and a date that is over 292,000 years from 1970.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Callable, Collection, Iterable
from decimal import Decimal
from numbers import Complex, Real
from typing import Any, NamedTuple, cast

import numpy as np

from gpumlp.utils.checks import ParameterError, shown

NUMBER, DATE, CATEGORY = "number", "date", "category"

BOOLEANS = (bool, np.bool_)
# np.timedelta64 is a Real; time spans and times of the day are their seconds.
NUMBERS = (*BOOLEANS, Real, Decimal, datetime.timedelta, datetime.time)
DATES = (datetime.date, np.datetime64)
BYTES = (bytes, bytearray, memoryview, np.void)
NESTED = (list, tuple, dict, set, frozenset, np.ndarray)
SECOND, MICROSECONDS = np.timedelta64(1, "s"), np.dtype("datetime64[us]")
# Three years within its 64 bits: NumPy subtracts one of a coarser unit before it divides.
FIRST, LAST = (np.datetime64(sign * (2**63 - 10**14), "us") for sign in (-1, 1))
FINER = {"ns": 10**3, "ps": 10**6, "fs": 10**9, "as": 10**12}  # of them in a microsecond


class Place(NamedTuple):
    """A column, by its name or its position, and the row at which its values start."""

    label: str | int
    start: int = 0

    def __str__(self) -> str:
        return f"X: column {self.label!r}"

    def misfit(self, row: int, value: Any, wanted: str) -> ValueError:
        return ValueError(
            f"{self}, row {self.start + row}: {shown(value)} is not a {wanted}; in fit the column "
            f"held {wanted}s: correct the value, make it missing (None), or fit again with the "
            "column as it is now"
        )


@dataclasses.dataclass(frozen=True)
class ArrayColumn:
    """values (R,): integers, booleans or floats (NaN missing), or datetime64[us] (NaT missing)."""

    values: np.ndarray
    declared: bool = False

    @property
    def kind(self) -> str:
        return DATE if self.values.dtype.kind == "M" else NUMBER

    def numbers(self, place: Place) -> np.ndarray:
        """(R,) float64, NaN where a number is missing; a ValueError that names the first value that
        is none."""
        if self.kind == DATE:
            self._refuse_other(~np.isnat(self.values), place, NUMBER)
            return np.full(len(self.values), np.nan)
        return without_infinities(self.values.astype(np.float64))

    def dates(self, place: Place) -> np.ndarray:
        """(R,) datetime64[us], NaT where a date is missing; a ValueError as that of numbers."""
        if self.kind == DATE:
            return self.values
        self._refuse_other(np.isfinite(self.values.astype(np.float64)), place, DATE)
        return np.full(len(self.values), "NaT", MICROSECONDS)

    def texts(self) -> tuple[np.ndarray, list[str]]:
        """(R,) which of the texts, -1 where the value is missing; and the texts, all of them
        different."""
        values, codes = np.unique(self.values, return_inverse=True)
        return CodedColumn(codes.ravel(), list(values)).texts()

    def _refuse_other(self, present: np.ndarray, place: Place, wanted: str) -> None:
        if present.any():
            row = int(present.argmax())
            raise place.misfit(row, str(self.values[row]), wanted)


@dataclasses.dataclass(frozen=True)
class CodedColumn:
    """codes (R,): which of the objects a row holds, -1 where it is missing, as objects may be, too.

    declared: as a category, by its dtype.
    """

    codes: np.ndarray
    objects: list[Any]
    declared: bool = False

    @property
    def kind(self) -> str:
        types = {type(value) for value in self.objects if not is_missing(value)}
        if all(issubclass(kind, NUMBERS) for kind in types):
            return NUMBER
        return DATE if all(issubclass(kind, DATES) for kind in types) else CATEGORY

    def numbers(self, place: Place) -> np.ndarray:
        """As ArrayColumn's; text that spells a number is one."""
        return without_infinities(self._converted(as_number, NUMBER, place, np.float64))

    def dates(self, place: Place) -> np.ndarray:
        """As ArrayColumn's; text that spells a date as ISO 8601 is one."""
        return self._converted(as_date, DATE, place, MICROSECONDS)

    def texts(self) -> tuple[np.ndarray, list[str]]:
        """As ArrayColumn's."""
        places: dict[str, int] = {}
        texts = map(as_text, self.objects)
        codes = [-1 if text is None else places.setdefault(text, len(places)) for text in texts]
        by_object = np.array([*codes, -1], dtype=np.intp)
        return by_object[self.codes], list(places)

    def taken(self, codes: np.ndarray, declared: bool) -> CodedColumn:
        """The column whose rows hold these of its rows, -1 for a missing value."""
        return CodedColumn(np.append(self.codes, -1)[codes], self.objects, declared)

    def _converted(
        self, convert: Callable[[Any], Any], wanted: str, place: Place, dtype: Any
    ) -> np.ndarray:
        values = np.full(len(self.objects) + 1, "NaT" if wanted == DATE else np.nan, dtype)
        for i, value in enumerate(self.objects):
            if is_missing(value):
                continue
            values[i] = converted = convert(value)
            if converted is None and i in self.codes:
                raise place.misfit(int((self.codes == i).argmax()), value, wanted)
        return values[self.codes]


Column = ArrayColumn | CodedColumn


def coded(values: Collection[Any], place: Place) -> CodedColumn:
    """The column of these objects; a TypeError for a kind that is no feature."""
    types = set(map(type, values))
    for kind in types:
        refuse_type(kind, values, place)
    keys: Iterable[Any] = values
    if any(issubclass(kind, BOOLEANS) for kind in types) and len(types) > 1:
        keys = [(isinstance(value, BOOLEANS), value) for value in values]  # True equals 1
    try:
        places = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    except TypeError:
        raise TypeError(f"{place} holds objects of types that are no values: {types}") from None
    codes = np.fromiter(map(places.__getitem__, keys), np.intp, len(values))
    objects = list(places)
    return CodedColumn(codes, objects if keys is values else [value for _, value in objects])


def refuse_type(kind: type, values: Collection[Any], place: Place) -> None:
    """A TypeError for what is no feature; values: of the column, for the message."""
    if issubclass(kind, BYTES):
        raise bytes_error(place)
    if issubclass(kind, Complex) and not issubclass(kind, Real):
        raise complex_error(place)
    if issubclass(kind, NESTED):
        row = place.start + next(i for i, value in enumerate(values) if type(value) is kind)
        raise nested_error(f"{place}, row {row}:", kind.__name__)


def bytes_error(place: Place) -> TypeError:
    return TypeError(f'{place} holds bytes: decode them, as by .str.decode("utf-8")')


def nested_error(where: str, kind: str) -> TypeError:
    # In the words that scikit-learn has for it.
    return TypeError(
        f"{where} a value is a {kind}, and each argument must be a string, a number or a date; "
        "make a column of each of its parts"
    )


def complex_error(place: Place) -> ParameterError:
    # scikit-learn has a ValueError for it.
    return ParameterError(
        f"{place}: Complex data not supported; make columns of their real and imaginary parts"
    )


def without_infinities(values: np.ndarray) -> np.ndarray:
    """The same floats, with NaN for infinity, in place."""
    values[np.isinf(values)] = np.nan
    return values


def is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return not value
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, Decimal):
        return value.is_nan()
    return isinstance(value, Real | np.datetime64) and bool(value != value)


def as_number(value: Any) -> float | None:
    """A value that is not missing as a number, None if it is none."""
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, np.timedelta64):
        return float(value / SECOND)
    if isinstance(value, datetime.time):
        return 3600 * value.hour + 60 * value.minute + value.second + value.microsecond / 1e6
    if not isinstance(value, (str, *NUMBERS)) or (isinstance(value, str) and "_" in value):
        return None
    try:
        return float(cast(Any, value))
    except ValueError:
        return None
    except OverflowError:  # an integer beyond the floats
        return math.inf


def in_microseconds(dates: np.ndarray) -> np.ndarray:
    """Dates of any unit, rounded down; NaT beyond what 64 bits of microseconds can say."""
    unit, count = np.datetime_data(dates.dtype)
    if unit == "generic":  # NaT alone
        return np.full(dates.shape, "NaT", MICROSECONDS)
    if count < FINER.get(unit, 0):
        # To round down, NumPy subtracts up to a microsecond before it divides.
        least = np.array(FINER[unit] - 2**63).astype(dates.dtype)
        return np.maximum(dates, least).astype(MICROSECONDS)
    within = (dates > FIRST.astype(dates.dtype)) & (dates < LAST.astype(dates.dtype))
    return np.where(within, dates, np.array("NaT", dates.dtype)).astype(MICROSECONDS)


def as_date(value: Any) -> np.datetime64 | None:
    """A value that is not missing as a date, in UTC if it has a time zone; None if it is none."""
    if isinstance(value, np.datetime64):
        return cast(np.datetime64, in_microseconds(np.asarray(value))[()])
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    return np.datetime64(value, "us") if isinstance(value, datetime.date) else None


def as_text(value: Any) -> str | None:
    """A value as a category is named, None if it is missing: 3 and 3.0 alike."""
    if is_missing(value):
        return None
    if isinstance(value, BOOLEANS):
        return str(bool(value))
    if isinstance(value, DATES):
        date = cast(np.datetime64, as_date(value))
        return None if np.isnat(date) else str(date)
    if isinstance(value, Real | Decimal) and not isinstance(value, np.timedelta64):
        number: Any = value
        if math.isinf(number):
            return None
        return str(int(number)) if number == int(number) else str(float(number))
    return str(value)
