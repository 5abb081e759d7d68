"""Activations, losses and schedules in files: written by name and constants, and found by them."""

from __future__ import annotations

from gpumlp.functions import schedule
from gpumlp.io.errors import FileError


def find(table, custom, state, kind):
    """Find the function of an entry: a built-in of the table, or one of the user's own."""
    name = state["name"]
    if state["own"] and name not in custom:
        hint = f"load(..., custom={{{name!r}: ...}})"
        raise FileError(f"the file uses your own {kind} {name!r}: {hint}")
    if not state["own"] and name not in table:
        raise FileError(f"there is no {kind} {name!r}; there are: {', '.join(table)}")
    entry = custom[name] if state["own"] else table[name]
    made_by_class = isinstance(entry, type) and not state["own"]
    return entry(**state["parameters"]) if state["parameters"] or made_by_class else entry


def function_state(function) -> dict:
    """The entry of an Activation or a Loss; "own" says that it is the user's, whatever its name."""
    is_custom = not function.built_in
    return {"name": function.name, "parameters": function.parameters, "own": is_custom}


def schedule_state(value) -> dict | None:
    """The entry of a schedule."""
    if value is None:
        return None
    for name, kind in schedule.schedules.items():
        if type(value) is kind:
            return {"name": name, "parameters": vars(value), "own": False}
    return {"name": getattr(value, "__name__", "schedule"), "parameters": {}, "own": True}


def make_schedule(state, custom):
    """The schedule of an entry."""
    return None if state is None else find(schedule.schedules, custom, state, "schedule")
