"""The column of a table that is to be predicted: classes or values."""

from __future__ import annotations

import numpy as np

from gpumlp.cli.answers import check_classes, check_values
from gpumlp.cli.error import InputError
from gpumlp.cli.table import Table
from gpumlp.cli.values import DATE, NUMBER, TEXT, is_boolean, kind_of, numbers, odd_text, texts

MOST_CLASSES = 20  # whole numbers with more different values are values, unless told otherwise


def target_of(table: Table, name: str, task: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """y and the classes, or None for regression, as Data has them.

    Unless told by `task`, text and booleans are classes, and so are whole numbers with few
    different values; other numbers are values.
    """
    series, what = table.column(name), table.where(name)
    absent = np.flatnonzero(series.isna())
    if len(absent):
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise InputError(
            f"{what}, the target, has no value in row {absent[0] + 1}{more} "
            "(in text, NA, None and ? are no values)"
        )
    kind = kind_of(series)
    if kind == NUMBER:
        values, boolean = _finite(table, name), is_boolean(series)
        if (task or _task_of(values, boolean)) == "regression":
            return _changing(values, what), None
        return _classes(*_numbered(values, boolean), what)
    if kind == TEXT:
        codes, found = texts(series)
        if task == "regression":
            return _changing(_finite(table, name), what), None
        odd = odd_text(found, np.bincount(codes))
        if odd is not None and task is None:
            row = np.flatnonzero(codes == found.index(odd))[0] + 1
            raise InputError(
                f"{what}, the target, holds numbers, but {odd!r} in row {row}; "
                "--task classification takes each as a label"
            )
        return _classes(codes, np.array(found), what)
    if kind == DATE and task == "classification":
        codes, found = texts(series)
        return _classes(codes, np.array(found), what)
    held = "dates" if kind == DATE else "neither numbers nor text"
    raise InputError(f"{what}, the target, holds {held}; it must hold numbers, text or booleans")


def _task_of(values: np.ndarray, boolean: bool) -> str:
    if boolean:
        return "classification"
    whole = (values == np.rint(values)).all()
    few = whole and len(np.unique(values)) <= MOST_CLASSES
    return "classification" if few else "regression"


def _numbered(values: np.ndarray, boolean: bool) -> tuple[np.ndarray, np.ndarray]:
    """The class number of each row, and the classes: booleans, whole numbers or numbers."""
    classes, numbers = np.unique(values, return_inverse=True)
    if boolean:
        return numbers, classes.astype(bool)
    if (classes == np.rint(classes)).all() and np.abs(classes).max() < 2**53:
        return numbers, classes.astype(np.int64)
    return numbers, classes


def _classes(numbers: np.ndarray, classes: np.ndarray, what: str):
    check_classes(classes, np.bincount(numbers), what, "--task regression predicts numbers")
    return numbers, classes


def _changing(values: np.ndarray, what: str) -> np.ndarray:
    y = values[:, np.newaxis]
    check_values(y, what)
    return y


def _finite(table: Table, name: str) -> np.ndarray:
    """The column as numbers, without infinity."""
    values, bad = numbers(table.column(name))
    if bad is not None:
        index, text = bad
        raise InputError(
            f"{table.where(name, index)}, the target, is {text!r}: regression needs numbers"
        )
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        raise InputError(f"{table.where(name, infinite[0])}, the target, is infinite")
    return values
