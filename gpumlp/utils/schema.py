"""Check the JSON of a file against a schema, before anything is made from it.

A schema says what a value read from JSON has to be:

    int, float, str, bool    that type; float takes integers, and no number takes a bool; those of
                             NumPy are numbers, too
    None                     null
    a tuple                  one of these schemas
    a frozenset              one of these values
    [schema]                 a list whose items are all so
    {str: schema}            an object of any names, whose values are all so
    {"name": schema, ...}    an object of these names alone; "name?" may be absent
    a function               whatever it calls good; the first line of its docstring names it
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from gpumlp.utils.checks import shown


class SchemaError(ValueError):
    """A value is not what its schema says; the message names its place."""


def anything(value) -> bool:
    """anything"""
    return True


def count(value) -> bool:
    """a whole number from 0 to 2^53"""
    return _is_int(value) and 0 <= value <= 1 << 53


def size(value) -> bool:
    """a whole number from 1 to 2^31 - 1"""
    return _is_int(value) and 1 <= value < 1 << 31


def seed(value) -> bool:
    """a whole number from 0 to 2^64 - 1"""
    return _is_int(value) and 0 <= value < 1 << 64


def finite(value) -> bool:
    """a finite number"""
    return _is_number(value) and math.isfinite(value)


def fraction(value) -> bool:
    """a number from 0 to 1"""
    return _is_number(value) and 0 <= value <= 1


def numbers(value) -> bool:
    """a number, or lists of numbers"""
    if isinstance(value, list):
        return all(map(numbers, value))
    return _is_number(value)


def _is_int(value) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def check(value: Any, schema: Any, place: str) -> None:
    """Raise SchemaError unless a value fits its schema; place: where it stands in the file."""
    if isinstance(schema, list) and isinstance(value, list):
        for i, item in enumerate(value):
            check(item, schema[0], f"{place}[{i}]")
    elif isinstance(schema, dict) and isinstance(value, dict):
        _check_object(value, schema, place)
    elif isinstance(schema, tuple):
        _check_one_of(value, schema, place)
    elif not _is(value, schema):
        raise SchemaError(f"{place} is {shown(value)}, not {_named(schema)}")


def _check_object(value: dict, schema: dict, place: str) -> None:
    for name, item in value.items():
        key = next((key for key in (name, f"{name}?", str) if key in schema), None)
        if key is None:
            raise SchemaError(f"{place} has an entry {shown(name)} that is not known")
        check(item, schema[key], f"{place}.{name}")
    for name in schema:
        if name is not str and not name.endswith("?") and name not in value:
            raise SchemaError(f"{place} lacks {name!r}")


def _check_one_of(value, schemas: tuple, place: str) -> None:
    """Check a value by the only schema of its kind, where there is one: its error says more."""
    same = []
    if isinstance(value, list | dict):
        same = [schema for schema in schemas if type(schema) is type(value)]
    if len(same) > 1:
        same = [schema for schema in same if _is_meant(value, schema)]
    if len(same) == 1:
        check(value, same[0], place)
    elif not any(_is(value, schema) for schema in schemas):
        raise SchemaError(f"{place} is {shown(value)}, not {_named(schemas)}")


def _is_meant(value, schema) -> bool:
    """Whether the object has the names and the constants that the schema's objects have."""
    needed = [name for name in schema if name is not str and not name.endswith("?")]
    constants = [name for name in needed if isinstance(schema[name], frozenset)]
    return all(name in value for name in needed) and all(
        _is(value[name], schema[name]) for name in constants
    )


def _is(value, schema) -> bool:
    if schema is None:
        return value is None
    if isinstance(schema, frozenset):
        return isinstance(value, str | int) and value in schema
    if schema is float:
        return _is_number(value)
    if schema is int:
        return _is_int(value)
    if isinstance(schema, type):
        return isinstance(value, schema)
    return callable(schema) and schema(value)


def _named(schema) -> str:
    if isinstance(schema, tuple):
        return " or ".join(dict.fromkeys(map(_named, schema)))
    if isinstance(schema, frozenset):
        return "one of " + ", ".join(sorted(map(repr, schema)))
    kinds = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if isinstance(schema, list | dict):
        return "a list" if isinstance(schema, list) else "an object"
    if schema is None:
        return "null"
    return kinds.get(schema) or schema.__doc__.partition("\n")[0]
