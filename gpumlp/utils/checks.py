"""Check public arguments: numbers, flags, choices, paths.

Every message names the argument, shows its value or its shape, and says what is wanted.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

STORABLE = "what JSON can hold (numbers, text, None, lists and dictionaries of them)"
SHOWN = 60  # characters of a wrong value in a message


class ParameterError(ValueError, TypeError):
    """An argument is of the wrong type or out of range."""


@dataclass(frozen=True)
class Interval:
    """The numbers between low and high, all of them or the whole ones.

    ends: as in mathematics, "[)" has low but not high.
    """

    low: float
    high: float
    ends: str = "[]"
    whole: bool = False

    def holds(self, numbers) -> bool:
        """Whether all of an array's numbers lie in it; NaN does not."""
        numbers = np.asarray(numbers)
        above = numbers >= self.low if self.ends[0] == "[" else numbers > self.low
        below = numbers <= self.high if self.ends[1] == "]" else numbers < self.high
        fit = above & below
        return bool(np.all(fit & (numbers == np.floor(numbers)) if self.whole else fit))

    def __str__(self):
        noun = "a whole number" if self.whole else "a number"
        high = "2**64" if self.high == 2**64 else f"{self.high:.12g}"
        return f"{noun} in {self.ends[0]}{self.low:.12g}, {high}{self.ends[1]}"


def finite(low: float = -np.inf, high: float = np.inf) -> Interval:
    """The numbers from low to high but infinity."""
    return Interval(low, high, "(["[math.isfinite(low)] + ")]"[math.isfinite(high)])


NONNEGATIVE = Interval(0, np.inf, "[)")
POSITIVE = Interval(0, np.inf, "()")
FRACTION = Interval(0, 1, "[)")
SHARE = Interval(0, 1, "()")
NATURAL = Interval(0, np.inf, "[)", whole=True)
COUNT = Interval(1, np.inf, "[)", whole=True)
SEED = Interval(0, 2**64, "[)", whole=True)


def number(value, name: str, interval: Interval, none: bool = False) -> Any:
    """Check a number, also a 0-d array; returns Python's int or float.  none: None is taken, too.

    Raises ParameterError for anything else: text, True, masked values, longer arrays.
    """
    if none and value is None:
        return None
    array = reals(value)
    if array is None or array.ndim or not interval.holds(array):
        raise ParameterError(f"{name} = {shown(value)} must be {'None or ' * none}{interval}")
    return int(array.item()) if interval.whole else float(array.item())


def per_network(value, name: str, interval: Interval, models: int | None = None):
    """Check a number, or one for each network; returns a float64 array () or (M,).

    models: M, where it is known.
    """
    array = reals(value)
    count = array.size if models is None and array is not None and array.size else models
    if array is None or array.shape not in ((), (count,)) or not interval.holds(array):
        networks = "network" if models is None else f"of {models} networks"
        wanted = f"{interval}, or one for each {networks}"
        raise ParameterError(f"{name} = {shown(value)} must be {wanted}")
    return array.astype(np.float64)


def within(value, name: str, dtype: np.dtype) -> None:
    """Raise ParameterError for finite numbers that are beyond the floats of that dtype."""
    numbers = reals(value)
    if numbers is None:
        return
    numbers, largest = numbers.astype(np.float64), float(np.finfo(dtype).max)
    if np.any(np.isfinite(numbers) & (np.abs(numbers) > largest)):
        wanted = f"at most {largest:.6g}, the largest number of {dtype}"
        raise ParameterError(f"{name} = {shown(value)} must be {wanted}")


def flag(value, name: str) -> bool:
    """Check a flag: True or False, and nothing else."""
    if not isinstance(value, bool | np.bool_):
        raise ParameterError(f"{name} = {shown(value)} must be True or False")
    return bool(value)


def choice(value, name: str, options: Collection[Any]):
    """Check that a value is one of the options, names and perhaps None; returns it."""
    if not (value is None or isinstance(value, str)) or value not in options:
        *others, last = map(repr, options)
        raise ParameterError(
            f"{name} = {shown(value)} must be {', '.join(others)}{' or ' if others else ''}{last}"
        )
    return value


def storable(value, name: str, default: Callable | None = None) -> Any:
    """Check that JSON can hold a value; returns it.  default: as json.dumps takes it.

    Raises ParameterError with the place and the type of what it cannot.
    """
    try:
        json.dumps(value, default=default)
    except TypeError:
        raise ParameterError(_not_storable(value, name, default)) from None
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"{name} = {shown(value)} must be {STORABLE}: {error}") from None
    return value


def _not_storable(value, name: str, default) -> str:
    """A message on the first part that JSON cannot hold."""
    keyed = isinstance(value, dict)
    parts = value.items() if keyed else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, part in parts:
        place = f"{name}[{shown(key)}]"
        if keyed and not isinstance(key, str | float | int | None):
            return f"{place}: the key of type {type(key).__name__} must be text"
        try:
            json.dumps(part, default=default)
        except TypeError:
            return _not_storable(part, place, default)
    return f"{name} = {shown(value)} of type {type(value).__name__} must be {STORABLE}"


def path(value, name: str) -> Path:
    """Check a path, a text or an os.PathLike; returns a Path."""
    try:
        text = os.fsdecode(value)
    except TypeError:
        text = "\0"
    if "\0" in text or not text:
        raise ParameterError(f"{name} = {shown(value)} must be a path")
    return Path(text)


def items(value) -> list | None:
    """The items of a list, a tuple, an array or the like; None for anything else."""
    if isinstance(value, str | bytes | dict | set | frozenset | type):
        return None
    try:
        return list(value)
    except TypeError:
        return None


def reals(value) -> np.ndarray | None:
    """The real numbers of a scalar, a list or an array; None where anything else is among them."""
    if np.ma.is_masked(value) or value is np.ma.masked:
        return None
    if isinstance(value, list | tuple) and any(isinstance(item, bool | np.bool_) for item in value):
        return None
    try:
        array = np.asarray(value)
        if array.dtype == np.float64 and isinstance(value, list | tuple):
            exact = np.asarray(value, dtype=object)
            if all(isinstance(item, Integral) for item in exact.flat):
                array = exact  # of integers of 64 bits beside small ones NumPy makes floats
        if array.dtype.kind == "O" and all(isinstance(item, Real) for item in array.flat):
            # Fractions, and integers beyond 64 bits
            floats = array.astype(np.float64)
            return array if all(isinstance(item, Integral) for item in array.flat) else floats
    except (ValueError, TypeError, OverflowError):
        return None
    return array if array.dtype.kind in "iuf" else None


def shown(value) -> str:
    """The text of a wrong value for a message, cut where it is long; of a long array, its shape."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # an integer of too many digits, or an object of the user's own
        text = f"<{type(value).__name__}>"
    if len(text) <= SHOWN:
        return text
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return f"{text[:SHOWN]}..." if shape is None else f"{kind} of shape {tuple(shape)}"
