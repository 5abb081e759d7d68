"""What is to be learned: classes or values, and whether they can be."""

from __future__ import annotations

import importlib

import numpy as np

from gpumlp.cli.cells import is_text, parsed_dates, parsed_numbers
from gpumlp.cli.error import InputError

MOST_CLASSES = 20  # whole numbers with more different values are values, unless told otherwise
CLASSES_A_ROW = 1 / 2  # as many classes as this share of the rows are too many to learn
TRUTH = {"true": True, "false": False}


def target_of(series, where: str, task: str | None, decimal: str = ".") -> tuple[np.ndarray, bool]:
    """y (rows,) of a column without missing values, and whether it holds classes.

    where: what to call the column. decimal: the mark that its text has. Unless told by `task`, text
    and booleans are classes, and so are whole numbers with few different values; other numbers are
    values.
    """
    types = importlib.import_module("pandas.api.types")
    if types.is_datetime64_any_dtype(series.dtype):
        values, dates = series.astype(str).to_numpy(object).astype(str), True
    else:
        values = _typed(series, where, decimal)
        dates = values.dtype.kind == "U" and bool(parsed_dates(values.astype(object))[1].all())
    if dates and task != "classification":
        raise InputError(
            f"{where}, the target, holds dates: regression needs numbers, and --task "
            "classification takes each date as a label"
        )
    if values.dtype.kind in "biuf":
        if values.dtype.kind == "f":
            _refuse_infinite(values, where)
        if (task or _task_of(values)) == "regression":
            return values.astype(np.float64), False
        return _classes(values), True
    if task == "regression":
        raise InputError(_no_number(values, where))
    if task is None:
        _refuse_odd(values, where)
    return values, True


def _typed(series, where: str, decimal: str) -> np.ndarray:
    """Numbers, booleans, or text as a NumPy array of text."""
    types = importlib.import_module("pandas.api.types")
    if not is_text(series):
        if types.is_bool_dtype(series.dtype):
            return series.to_numpy(bool)
        if types.is_integer_dtype(series.dtype):
            unsigned = types.is_unsigned_integer_dtype(series.dtype)
            return series.to_numpy(np.uint64 if unsigned else np.int64)
        if types.is_numeric_dtype(series.dtype) and not types.is_complex_dtype(series.dtype):
            return series.to_numpy(np.float64)
    held = types.infer_dtype(series, skipna=True)
    if held in ("mixed", "bytes", "complex"):
        raise InputError(f"{where}, the target, holds neither numbers nor text")
    if held == "boolean":
        return series.to_numpy(bool)
    texts = series.astype(str).str.strip()
    truth = texts.str.lower().map(TRUTH)
    if truth.notna().all():
        return truth.to_numpy(bool)
    values, known = parsed_numbers(texts.to_numpy(object), decimal)
    if not known.all():
        return texts.to_numpy(object).astype(str)
    try:
        return np.array([int(text) for text in texts], np.int64)  # exactly
    except (ValueError, OverflowError):
        return values


def _refuse_odd(texts: np.ndarray, where: str) -> None:
    """Text among numbers is an error in the target, unless it is told to be a class."""
    _, known = parsed_numbers(texts.astype(object))
    if known.mean() > 0.5:
        row = int((~known).argmax())
        raise InputError(
            f"{where}, the target, holds numbers, but {str(texts[row])!r} in row {row + 1}; "
            "--task classification takes each as a label, and --na has texts that are no value"
        )


def _no_number(texts: np.ndarray, where: str) -> str:
    _, known = parsed_numbers(texts.astype(object))
    row = int((~known).argmax())
    return (
        f"row {row + 1} of {where}, the target, is {str(texts[row])!r}: regression needs numbers; "
        "--task classification predicts text"
    )


def _task_of(values: np.ndarray) -> str:
    if values.dtype.kind == "b":
        return "classification"
    whole = values.dtype.kind != "f" or (values == np.rint(values)).all()
    most = min(MOST_CLASSES, CLASSES_A_ROW * len(values))
    few = whole and len(np.unique(values)) <= most
    return "classification" if few else "regression"


def _classes(values: np.ndarray) -> np.ndarray:
    """Labels: whole numbers as integers, as long as float64 tells them from their neighbours."""
    whole = values.dtype.kind == "f" and (values == np.rint(values)).all()
    return values.astype(np.int64) if whole and np.abs(values).max() < 2**53 else values


def _refuse_infinite(values: np.ndarray, where: str) -> None:
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        raise InputError(f"row {infinite[0] + 1} of {where}, the target, is infinite")


def check_values(y: np.ndarray, what: str) -> None:
    """Refuse targets (samples,) or (samples, targets) of which one never changes."""
    if np.any((y == y[0]).all(axis=0)):
        raise InputError(f"{what} is the same number in every sample: nothing to learn")
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isfinite(y.std(axis=0)).all():
            raise InputError(f"the numbers in {what} are too large for their mean and deviation")


def check_classes(y: np.ndarray, what: str, otherwise: str) -> np.ndarray:
    """The classes of labels; refuses those that cannot be told apart and tested.

    otherwise: what to do if the labels are meant as numbers.
    """
    classes, counts = np.unique(y, return_counts=True)
    if len(classes) < 2:
        raise InputError(f"{what} has a single class, {classes[0]}; at least 2 are needed")
    if len(classes) > CLASSES_A_ROW * len(y):
        raise InputError(
            f"{what} has {len(classes)} classes in {len(y)} samples, which are too many to learn "
            f"({otherwise})"
        )
    if counts.min() < 2:
        rare = classes[counts.argmin()]
        raise InputError(
            f"class {rare} of {what} has a single sample; each class needs 2 or more: leave that "
            f"sample out ({otherwise})"
        )
    return classes
