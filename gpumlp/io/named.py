"""Activations, losses and schedules in files: by name and constants, and found again by them."""

from __future__ import annotations

from gpumlp.functions import schedule
from gpumlp.io.errors import FileError


def find(table, custom, state, kind):
    """The built-in of that name with the stored constants, or the user's own."""
    name = state["name"]
    if state["own"] and name not in custom:
        hint = f"load(..., custom={{{name!r}: ...}})"
        raise FileError(f"the file uses your own {kind} {name!r}: {hint}")
    if not state["own"] and name not in table:
        raise FileError(f"there is no {kind} {name!r}; there are: {', '.join(table)}")
    found = custom[name] if state["own"] else table[name]
    made_by_class = isinstance(found, type) and not state["own"]
    return found(**state["parameters"]) if state["parameters"] or made_by_class else found


def function_state(function) -> dict:
    """Of an Activation or a Loss; own: it is the user's, whatever its name."""
    own = not function.built_in
    return {"name": function.name, "parameters": function.parameters, "own": own}


def schedule_state(value) -> dict | None:
    if value is None:
        return None
    for name, kind in schedule.schedules.items():
        if type(value) is kind:
            return {"name": name, "parameters": vars(value), "own": False}
    return {"name": getattr(value, "__name__", "schedule"), "parameters": {}, "own": True}


def make_schedule(state, custom):
    return None if state is None else find(schedule.schedules, custom, state, "schedule")
