"""A fitted Preparation as JSON values and arrays, and back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from gpumlp.estimators.tabular.column_values import CATEGORY, DATE, NUMBER
from gpumlp.estimators.tabular.table_columns import ELAPSED, PARTS, REASONS, TableColumn
from gpumlp.utils import schema

FORMAT = 1
ARRAYS = ("medians", "center", "scale")
PLACE = "the preparation"


def vector(value: Any) -> bool:
    """a vector of finite numbers in float64"""
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.float64
        and value.ndim == 1
        and bool(np.isfinite(value).all())
    )


COLUMN = {
    "label": (str, schema.count),
    "kind": frozenset({NUMBER, DATE, CATEGORY}),
    "dropped": frozenset({"", *REASONS}),
    "missing": bool,
    "parts": [frozenset(PARTS)],
    "levels": [str],
    "infrequent": bool,
}
STATE = {
    "format": frozenset({FORMAT}),
    "named": bool,
    "columns": [COLUMN],
    **dict.fromkeys(ARRAYS, vector),
    "edges": vector,
    "edge_counts": [schema.count],
}


def describe(
    named: bool,
    columns: list[TableColumn],
    arrays: dict[str, np.ndarray],
    edges: list[np.ndarray],
) -> dict[str, Any]:
    """The state.  named: whether the columns' labels are names."""
    described = [
        dataclasses.asdict(column) | {"parts": list(column.parts), "levels": list(column.levels)}
        for column in columns
    ]
    return {
        "format": FORMAT,
        "named": named,
        "columns": described,
        **{name: array.copy() for name, array in arrays.items()},
        "edges": np.concatenate([np.empty(0), *edges]),
        "edge_counts": [len(part) for part in edges],
    }


def restore(
    state: Any,
) -> tuple[bool, list[TableColumn], dict[str, np.ndarray], list[np.ndarray]]:
    """What describe was given; a SchemaError, which is a ValueError, for anything else."""
    schema.check(state, STATE, PLACE)
    columns = [
        TableColumn(
            **{**column, "parts": tuple(column["parts"]), "levels": tuple(column["levels"])}
        )
        for column in state["columns"]
    ]
    labels = [column.label for column in columns]
    positions = list(range(len(labels)))
    if state["named"]:
        good = all(isinstance(label, str) for label in labels) and len({*labels}) == len(labels)
    else:
        good = labels == positions
    _demand(good, "the columns' labels are neither different names nor positions")
    for column in columns:
        _demand(_is_whole(column), f"column {column.label!r} is not as fit leaves one")
    _demand(not all(column.dropped for column in columns), "no column has inputs")

    kept = [column for column in columns if column.kind != CATEGORY and not column.dropped]
    n = sum(len(column.names) for column in kept)
    arrays = {name: state[name].copy() for name in ARRAYS}
    for name, array in arrays.items():
        _demand(len(array) == n, f"{name} has {len(array)} numbers; the columns have {n}")
    _demand(bool((arrays["scale"] >= 0).all()), "scale has negative numbers")
    return state["named"], columns, arrays, _edges(state["edges"], state["edge_counts"], n)


def _edges(edges: np.ndarray, counts: list[int], n: int) -> list[np.ndarray]:
    good = len(counts) == n and sum(counts) == len(edges)
    _demand(good, f"edge_counts is not how many of {len(edges)} edges {n} numbers have")
    split = np.split(edges.copy(), np.cumsum(counts)[:-1]) if n else []
    _demand(all((np.diff(part) > 0).all() for part in split), "edges are not in ascending order")
    return split


def _is_whole(column: TableColumn) -> bool:
    """Whether the fields agree, as they do after fit."""
    category, date = column.kind == CATEGORY, column.kind == DATE
    levels, parts = list(column.levels), list(column.parts)
    if not category and (levels or column.infrequent):
        return False
    if column.dropped:
        return not levels and not parts
    if category:
        return not parts and len(column.codes) > 1 and levels == sorted({*levels} - {""})
    ordered = [part for part in PARTS if part in parts]
    return parts == ordered and (parts[:1] == [ELAPSED]) == date


def _demand(good: bool, complaint: str) -> None:
    if not good:
        raise schema.SchemaError(f"{PLACE}: {complaint}")
