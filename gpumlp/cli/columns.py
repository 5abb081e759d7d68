"""How the columns of a table become a network's inputs.

A number is standardised; a boolean is the number 0 or 1, a date its days since 1970.  Any other
column is text: it has one input for each value of the training part, 1 where it has that value, and
zeros for a value that the training part lacked.  A missing number becomes the mean, a missing text
zeros; where the training part has missing values, one more input is 1 where the value is missing.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from gpumlp.cli.error import InputError
from gpumlp.cli.scale import moments
from gpumlp.cli.table import Table
from gpumlp.cli.values import KINDS, NUMBER, TEXT, dates, kind_of, numbers, odd_text, texts

MOST_TEXTS = 100  # a column's inputs; its more frequent values get them
FEW_TEXTS = 20  # so many are kept even if nearly every row has its own


@dataclasses.dataclass(frozen=True)
class Column:
    """A column: its kind, the texts that have an input, and whether missing values have one."""

    name: str
    kind: str
    missing: bool
    texts: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """How many inputs it has."""
        return (len(self.texts) if self.kind == TEXT else 1) + self.missing

    def fill(self, table: Table, mean, deviation, out: np.ndarray) -> None:
        """Its inputs (rows, width) into `out`, which holds zeros."""
        if self.kind == TEXT:
            known = {text: i for i, text in enumerate(self.texts)}
            codes, found = texts(table.column(self.name))
            # The last place is for code -1, a missing value.
            places = np.array([*(known.get(text, -1) for text in found), -1])[codes]
            rows = np.flatnonzero(places >= 0)
            out[rows, places[rows]] = 1
            absent = codes < 0
        else:
            values = measured(table, self.name, self.kind)
            absent = np.isnan(values)
            with np.errstate(over="ignore"):
                out[:, 0] = (values - mean[0]) / deviation[0]
            out[absent, 0] = 0
            far = np.flatnonzero(~np.isfinite(out[:, 0]))
            if len(far):
                raise InputError(
                    f"{table.where(self.name, far[0])} is too far from the training part's "
                    f"numbers for {out.dtype}"
                )
        if self.missing:
            out[:, -1] = absent


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns that a network takes, in the order of its inputs.

    notes: sentences for the user about columns that are left out or shortened.
    """

    each: tuple[Column, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(cls, table: Table) -> tuple[Columns, np.ndarray, np.ndarray]:
        """The columns of the training part; mean and deviation of their inputs, 0 and 1 of those
        that are not numbers."""
        columns, notes = [], []
        means, deviations = [], []
        for name in table.names:
            column, note = _described(table, name)
            notes += [note] if note else []
            if column is None:
                continue
            columns.append(column)
            mean, deviation = np.zeros(column.width), np.ones(column.width)
            if column.kind != TEXT:
                values = measured(table, name, column.kind)
                mean[:1], deviation[:1] = moments(
                    values[~np.isnan(values), np.newaxis], table.where(name)
                )
            means.append(mean)
            deviations.append(deviation)
        if not columns:
            raise InputError(f"no column of {table.path} can be learned from: {'; '.join(notes)}")
        return cls(tuple(columns), tuple(notes)), np.concatenate(means), np.concatenate(deviations)

    def __str__(self) -> str:
        counts = []
        for kind, (one, many) in KINDS.items():
            count = sum(column.kind == kind for column in self.each)
            counts += [f"{count} {one if count == 1 else many}"] * (count > 0)
        return f"{', '.join(counts)}: {self.width} inputs"

    @property
    def width(self) -> int:
        return sum(column.width for column in self.each)

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.each]

    @property
    def of_text(self) -> list[str]:
        return [column.name for column in self.each if column.kind == TEXT]

    def inputs(self, table: Table, mean, deviation, dtype: str) -> np.ndarray:
        """The network's input (rows, width): one column at a time, so that no copy is made."""
        out = np.zeros((len(table), self.width), dtype)
        start = 0
        for column in self.each:
            part = slice(start, start + column.width)
            column.fill(table, mean[part], deviation[part], out[:, part])
            start += column.width
        return out

    def metadata(self) -> list[dict]:
        """This as JSON values."""
        return [vars(column) | {"texts": list(column.texts)} for column in self.each]

    @classmethod
    def from_metadata(cls, stored: list[dict[str, Any]]) -> Columns:
        """What metadata() stored; KeyError, TypeError or ValueError if it is something else."""
        columns = []
        for each in stored:
            name, kind, missing, known = (each[key] for key in ("name", "kind", "missing", "texts"))
            words = [name, *known]
            if not (
                isinstance(missing, bool)
                and isinstance(known, list)
                and kind in KINDS
                and all(isinstance(word, str) for word in words)
                and len(set(known)) == len(known)
            ):
                raise ValueError(f"column {name!r}")
            columns.append(Column(name, kind, missing, tuple(known)))
        if len({column.name for column in columns}) < len(columns):
            raise ValueError("a column twice")
        return cls(tuple(columns))


def measured(table: Table, name: str, kind: str) -> np.ndarray:
    """A column of numbers or dates as float64, NaN where a value is missing."""
    values, bad = (numbers if kind == NUMBER else dates)(table.column(name))
    if bad is not None:
        index, text = bad
        raise InputError(f"{table.where(name, index)} is {text!r}, which is no {kind}")
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        raise InputError(f"{table.where(name, infinite[0])} is infinite")
    return values


def _described(table: Table, name: str) -> tuple[Column | None, str | None]:
    """A column as the training part has it, or None; and a sentence if there is one to say."""
    # What it holds is told from all rows: a date must not turn into text in the part held out.
    kind = kind_of(table.frame[name])
    series = table.column(name)
    missing = bool(series.isna().any())
    if kind is None:
        return None, f"column {name} is left out: it holds neither numbers, dates nor text"
    if missing and series.isna().all():
        return None, f"column {name} is left out: it has no values"
    if kind != TEXT:
        return Column(name, kind, missing), None
    codes, found = texts(series)
    counts = np.bincount(codes[codes >= 0], minlength=len(found))
    odd = odd_text(found, counts)
    reason = f", such as {odd!r} among numbers" if odd else ""
    if len(found) > max(FEW_TEXTS, counts.sum() / 2):
        note = f"column {name} is left out: nearly every row has a text of its own{reason}"
        return None, note
    # The most frequent first, and of equals the first in the alphabet.
    ranked = sorted(range(len(found)), key=lambda i: (-counts[i], found[i]))
    column = Column(name, TEXT, missing, tuple(sorted(found[i] for i in ranked[:MOST_TEXTS])))
    if len(found) <= MOST_TEXTS:
        return column, None
    note = (
        f"column {name} has {len(found)} different texts{reason}; the {MOST_TEXTS} most frequent "
        "are told apart, the others are taken as unknown"
    )
    return column, note
