"""What the cells of a table's columns are: numbers, dates or text, whoever wrote them."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from gpumlp.cli.error import InputError, complain
from gpumlp.cli.table import decimal_of
from gpumlp.estimators.tabular.column_values import as_number, is_missing

NUMBER, DATE, TEXT = "number", "date", "category"  # as the estimators for tables call them

# What pandas calls the values of a column of objects.
NUMERIC = ("boolean", "decimal", "floating", "integer", "mixed-integer-float")
MOSTLY = 0.9  # of the cells that are numbers make numbers of the column; the others are missing
PARTLY = 0.5  # from which on it is said that a column is text
SAMPLE = 1000  # different texts that are looked at before all are
SHOWN = 3  # cells that a note shows
THOUSANDS = " '\u00a0\u202f"  # marks of them, besides the point or the comma
# The order of day and month is told only where one of them has all the dates.
UNAMBIGUOUS = ("ISO8601", "%Y/%m/%d", "%d.%m.%Y")
FORMATS = (*UNAMBIGUOUS, "%m/%d/%Y", "%d/%m/%Y")
LIKE_A_DATE = r"\d{4}[-/]\d\d?[-/]\d\d?([T ]\d\d:\d\d.*)?|\d\d?[./]\d\d?[./]\d{4}"


def kind_of(dtype) -> str:
    """By the dtype of a column that `tidy` has seen."""
    types = importlib.import_module("pandas.api.types")
    if types.is_datetime64_any_dtype(dtype):
        return DATE
    numeric = types.is_numeric_dtype(dtype) or types.is_timedelta64_dtype(dtype)
    return NUMBER if numeric else TEXT


def is_text(series) -> bool:
    """Whether a column is of strings, or of objects of any kind."""
    types = importlib.import_module("pandas.api.types")
    return types.is_object_dtype(series.dtype) or isinstance(
        series.dtype, importlib.import_module("pandas").StringDtype
    )


def tidy(frame, path: str):
    """The frame with text that spells numbers or dates as such, and without what is neither
    numbers, dates nor text; says what it makes of cells that do not fit."""
    pandas = importlib.import_module("pandas")
    replaced: dict[str, Any] = {}
    left_out = []
    decimal = decimal_of(frame)
    for name in [name for name, dtype in frame.dtypes.items() if not _plain(dtype)]:
        series = frame[name]
        held = pandas.api.types.infer_dtype(series, skipna=True)
        if held in ("mixed", "bytes", "complex"):
            left_out.append(name)
            complain(f"note: column {name} is left out: it holds neither numbers, dates nor text")
        elif held in NUMERIC:
            replaced[name] = _as_floats(series)
        elif held == "date":
            replaced[name] = pandas.to_datetime(series)
        elif held in ("string", "mixed-integer"):
            recognised = _recognised(series, name, path, decimal)
            if recognised is not None:
                replaced[name] = recognised
    if replaced:
        frame = pandas.DataFrame({name: replaced.get(name, frame[name]) for name in frame.columns})
    return frame.drop(columns=left_out) if left_out else frame


def _plain(dtype) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind in "biufmM"


def _as_floats(series):
    """A column of numbers as objects, or with missing values of its own kind; times are seconds."""
    pandas = importlib.import_module("pandas")
    if pandas.api.types.is_numeric_dtype(series.dtype):
        values = series.to_numpy(np.float64, na_value=np.nan)
    else:
        values = np.array([None if is_missing(cell) else as_number(cell) for cell in series], float)
    return pandas.Series(values, series.index)


def _recognised(series, name: str, path: str, decimal: str):
    """A column of text as numbers or dates; None if it is text."""
    codes, texts = _coded(series)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    total = counts.sum()
    if not total:
        return None
    for kind in (NUMBER, DATE):
        values, fits = _parsed(texts, kind, decimal)
        fitting = counts[fits].sum()
        if fitting >= MOSTLY * total:
            note_misfits(name, path, kind, texts[~fits], int(counts[~fits].sum()))
            return _spread(series, values, codes)
        if kind == NUMBER and fitting > PARTLY * total:
            misfits = ", ".join(map(repr, texts[~fits][:SHOWN]))
            complain(
                f"note: column {name} of {path} is taken as text: {total - fitting} "
                f"of its {total} values are no numbers, such as {misfits}"
            )
    return None


def _parsed(texts: np.ndarray, kind: str, decimal: str) -> tuple[np.ndarray, np.ndarray]:
    return parsed_numbers(texts, decimal) if kind == NUMBER else parsed_dates(texts)


def note_misfits(name: str, path: str, kind: str, texts, count: int) -> None:
    """Say how many cells are taken as missing, and shows some of their texts."""
    if count:
        some = ", ".join(map(repr, texts[:SHOWN])) + (", ..." if len(texts) > SHOWN else "")
        cells = f"1 cell that is no {kind}" if count == 1 else f"{count} cells that are no {kind}s"
        verb = "is" if count == 1 else "are"
        complain(f"note: column {name} of {path}: {cells} ({some}) {verb} taken as missing")


def _coded(series) -> tuple[np.ndarray, np.ndarray]:
    """Which of the different texts each row has, -1 for none; and these texts."""
    pandas = importlib.import_module("pandas")
    codes, values = pandas.factorize(series)
    texts = np.array([str(value).strip() for value in values], dtype=object)
    return np.where((codes >= 0) & np.append(texts != "", False)[codes], codes, -1), texts


def _spread(series, values, codes: np.ndarray):
    """The values of all rows, of those of the different texts."""
    pandas = importlib.import_module("pandas")
    missing = np.array("NaT", values.dtype) if values.dtype.kind == "M" else np.nan
    return pandas.Series(np.append(values, missing)[codes], series.index)


def parsed_numbers(texts: np.ndarray, decimal: str = ".") -> tuple[np.ndarray, np.ndarray]:
    """float64 of texts (T,), and which of them are numbers: with those marks that most have, of
    equals those of that decimal mark."""
    pandas = importlib.import_module("pandas")
    plain = pandas.Series(texts, dtype=object)
    strings = plain.astype("str")
    numbers, parsed = np.full(len(texts), np.nan), np.zeros(len(texts), bool)
    if decimal == ".":
        try:
            numbers = pandas.to_numeric(plain, errors="coerce").to_numpy(np.float64, copy=True)
        except OverflowError:
            numbers = np.array([as_number(text) for text in plain], float)
        parsed = ~np.isnan(numbers)
    for mark in (".", ",") if decimal == "." else (",", "."):
        if parsed.all():
            break
        thousands = f"[{THOUSANDS}{',.'.replace(mark, '')}]"
        whole = rf"\d+|[1-9]\d{{0,2}}({thousands}\d{{3}})+"
        pattern = rf"[+-]?({whole})?(\{mark}\d*)?"
        if not strings[:SAMPLE].str.fullmatch(pattern).any():
            continue
        fits = strings.str.fullmatch(pattern).to_numpy(bool)
        fits = fits & strings.str.contains(r"\d").to_numpy(bool)
        if fits.sum() > parsed.sum():
            marked = strings[fits].str.replace(thousands, "", regex=True)
            numbers = np.full(len(texts), np.nan)
            numbers[fits] = pandas.to_numeric(marked.str.replace(mark, ".")).to_numpy(np.float64)
            parsed = fits
    return numbers, parsed


def parsed_dates(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """datetime64 of texts (T,), in UTC, and which of them are dates."""
    pandas = importlib.import_module("pandas")
    dates, parsed = np.full(len(texts), np.datetime64("NaT", "us")), np.zeros(len(texts), bool)
    strings = pandas.Series(texts, dtype=object).astype("str")
    like = strings.str.fullmatch(LIKE_A_DATE).to_numpy(bool)
    if not like.any():
        return dates, parsed
    by_format = {}
    for form in FORMATS:
        series = pandas.to_datetime(strings[like], format=form, utc=True, errors="coerce")
        by_format[form] = series.dt.tz_localize(None).to_numpy().astype("M8[us]")
        if not np.isnat(by_format[form]).any() and form in UNAMBIGUOUS:
            break  # none of the others can fit more
    fits = {form: int((~np.isnat(values)).sum()) for form, values in by_format.items()}
    form = max(fits, key=fits.__getitem__)
    if form not in UNAMBIGUOUS and fits["%m/%d/%Y"] == fits["%d/%m/%Y"]:
        return dates, parsed  # nobody knows which is the month
    dates[like] = by_format[form]
    return dates, ~np.isnat(dates)


# ---------------------------------------------------------------- as it was in training
class Conformer:
    """Make the columns of further tables of the kinds that they had in training, {name: kind}.

    Cells that are none of that kind are missing, if they are few, and counted: `say` says so.
    """

    def __init__(self, kinds: dict[str, str], path: str):
        self.kinds, self.path = kinds, path
        self._misfits: dict[str, tuple[list, int]] = {}

    def frame(self, frame, start: int = 0):
        """These columns, in their order; start: the first row's place in the file."""
        pandas = importlib.import_module("pandas")
        self._decimal = decimal_of(frame)
        columns = {
            name: self._column(frame[name], name, kind, start) for name, kind in self.kinds.items()
        }
        return pandas.DataFrame(columns)

    def _column(self, series, name: str, kind: str, start: int):
        if kind == TEXT:
            return series
        if is_text(series) or isinstance(
            series.dtype, importlib.import_module("pandas").CategoricalDtype
        ):
            held = importlib.import_module("pandas.api.types").infer_dtype(series, skipna=True)
            if kind == NUMBER and held in (*NUMERIC, "time"):
                return _as_floats(series)
            codes, texts = _coded(series)
            values, fits = _parsed(texts, kind, self._decimal)
            wrong = (codes >= 0) & ~np.append(fits, True)[codes]
            total = int((codes >= 0).sum())
            if total - wrong.sum() < MOSTLY * total:
                self._refuse(series, wrong, name, kind, start)
            if wrong.any():
                texts_so_far, count = self._misfits.get(name, ([], 0))
                more = dict.fromkeys([*texts_so_far, *texts[np.unique(codes[wrong])]])
                self._misfits[name] = list(more)[: SHOWN + 1], count + int(wrong.sum())
            return _spread(series, values, codes)
        if kind_of(series.dtype) != kind:
            present = series.notna().to_numpy()
            if present.any():
                self._refuse(series, present, name, kind, start)
            return series.astype("float64" if kind == NUMBER else "datetime64[us]")
        return series

    def _refuse(self, series, wrong: np.ndarray, name: str, kind: str, start: int):
        i = int(wrong.argmax())
        raise InputError(
            f"row {start + i + 1} of column {name} of {self.path} is {str(series.iloc[i])!r}, "
            f"which is no {kind}, as it was in training: correct it, or leave it empty"
        )

    def say(self) -> None:
        for name, (texts, count) in self._misfits.items():
            note_misfits(name, self.path, self.kinds[name], texts, count)
