"""Whether a table has the columns that another had."""

from __future__ import annotations

import difflib

from gpumlp.estimators.messages import warn
from gpumlp.estimators.tabular.table_reader import TableReader

MOST_NAMES = 5  # in a message, as scikit-learn has it


def check_names(table: TableReader, names: list[str] | None, count: int, owner: str) -> None:
    """A ValueError unless the table has the columns of fit, in scikit-learn's words, with names
    that are near; a warning where only one of them has names.  owner: what was fitted."""
    if names is not None and table.names is not None and names != table.names:
        raise ValueError(_other_names(table.names, names))
    if (names is None) != (table.names is None):
        warn(
            f"X has feature names, but {owner} was fitted without feature names"
            if names is None
            else f"X does not have valid feature names, but {owner} was fitted with feature names"
        )
    if len(table.labels) != count:
        raise ValueError(
            f"X has {len(table.labels)} features, but {owner} is expecting {count} features as "
            "input"
        )


def _other_names(names: list[str], fitted: list[str]) -> str:
    text = "The feature names should match those that were passed during fit.\n"
    unseen, lacking = sorted({*names} - {*fitted}), sorted({*fitted} - {*names})
    for title, several in (
        ("Feature names unseen at fit time:\n", unseen),
        ("Feature names seen at fit time, yet now missing:\n", lacking),
    ):
        if several:
            shortened = several[:MOST_NAMES] + ["..."] * (len(several) > MOST_NAMES)
            text += title + "".join(f"- {name}\n" for name in shortened)
    if not unseen and not lacking:
        text += "Feature names must be in the same order as they were in fit.\n"
    for name in lacking[:MOST_NAMES]:
        near = nearest(name, unseen)
        text += f"{name!r}{near}\n" if near else ""
    return text


def nearest(name: str, others: list[str]) -> str:
    """The end of a message: which of the others are near the name, if any are."""
    near = difflib.get_close_matches(name, others, n=3)
    return f"; near it: {', '.join(map(repr, near))}" if near else ""
