"""A preparation as JSON values and arrays, and back to the bit; damaged ones are refused."""

import copy
import json

import numpy as np
import pytest

from gpumlp.estimators.tabular.table_preparation import Preparation
from tests.helpers.tables import FRAMES, mixed, objects


def states() -> list:
    """Preparations with and without names, numbers, categories, and edges."""
    X = objects(mixed())
    return [
        Preparation().fit(X),
        Preparation().fit(X, bins=None),
        Preparation().fit(X[:, [0]]),
        Preparation().fit(X[:, [2, 3]]),
        Preparation().fit([["a"], [None], ["b"]] + [[f"level {i}"] for i in range(120)] * 2),
    ]


def json_and_arrays(state: dict) -> tuple[str, dict]:
    arrays = {name: each for name, each in state.items() if isinstance(each, np.ndarray)}
    return json.dumps({name: state[name] for name in state if name not in arrays}), arrays


@pytest.mark.parametrize("case", range(5))
def test_state_comes_back_to_the_bit(case):
    preparation = states()[case]
    text, arrays = json_and_arrays(preparation.state())
    assert all(each.dtype == np.float64 for each in arrays.values())
    again = Preparation.from_state({**json.loads(text), **arrays})
    assert again.columns == preparation.columns and again.names == preparation.names
    assert again.n_features_in_ == preparation.n_features_in_
    X = objects(mixed(500, seed=3))
    X = X[:, [[*range(7)], [*range(7)], [0], [2, 3], [4]][case]]
    np.testing.assert_array_equal(again.transform(X), preparation.transform(X))
    assert json_and_arrays(again.state())[0] == text


@pytest.mark.parametrize("kind", FRAMES)
def test_state_of_a_frame(kind):
    frame = FRAMES[kind](mixed())
    preparation = Preparation().fit(frame)
    again = Preparation.from_state(preparation.state())
    assert again.feature_names_in_.tolist() == list(mixed())
    np.testing.assert_array_equal(again.transform(frame), preparation.transform(frame))


def test_state_shares_no_memory():
    preparation = Preparation().fit(objects(mixed()))
    state = preparation.state()
    again = Preparation.from_state(state)
    for each in json_and_arrays(state)[1].values():
        each[...] = 0
    expected = preparation.transform(objects(mixed()))
    np.testing.assert_array_equal(again.transform(objects(mixed())), expected)


def damage(state: dict, *path, value) -> dict:
    """A copy with another value at that place."""
    state = copy.deepcopy(state)
    place = state
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return state


DAMAGES = [
    (("format",), 2),
    (("named",), True),
    (("named",), 1),
    (("columns",), []),
    (("columns",), None),
    (("columns", 0, "label"), 1),
    (("columns", 0, "label"), -1),
    (("columns", 0, "label"), "width"),
    (("columns", 0, "kind"), "text"),
    (("columns", 0, "kind"), "date"),
    (("columns", 0, "kind"), "category"),
    (("columns", 0, "dropped"), "unlucky"),
    (("columns", 0, "dropped"), "constant"),
    (("columns", 0, "missing"), 0),
    (("columns", 0, "parts"), ["elapsed"]),
    (("columns", 0, "levels"), ["a"]),
    (("columns", 0, "infrequent"), True),
    (("columns", 0, "more"), True),
    (("columns", 2, "levels"), ["b", "a"]),
    (("columns", 2, "levels"), ["a", "a"]),
    (("columns", 2, "levels"), ["", "a"]),
    (("columns", 2, "levels"), ["a"]),
    (("columns", 2, "levels"), [1, 2]),
    (("columns", 2, "parts"), ["elapsed"]),
    (("columns", 5, "parts"), []),
    (("columns", 5, "parts"), ["year", "elapsed"]),
    (("columns", 5, "parts"), ["elapsed", "era"]),
    (("columns", 5, "parts"), ["elapsed", "year"]),
    (("columns", 6, "dropped"), ""),
    (("columns", 6, "levels"), ["a"]),
    (("columns", 6, "parts"), ["elapsed"]),
    (("medians",), np.zeros(8)),
    (("medians",), np.full(9, np.nan)),
    (("center",), np.zeros(9, np.float32)),
    (("center",), np.zeros((9, 1))),
    (("center",), [0.0] * 9),
    (("scale",), np.full(9, -1.0)),
    (("scale",), np.full(9, np.inf)),
    (("edges",), np.zeros(3)),
    (("edge_counts",), [0] * 9),
    (("edge_counts",), [-1] * 9),
    (("edge_counts",), "many"),
    (("more",), 1),
]


@pytest.mark.parametrize("path, value", DAMAGES)
def test_damaged_states_are_refused(path, value):
    state = Preparation().fit(objects(mixed())).state()
    with pytest.raises(ValueError, match=r"^the preparation"):
        Preparation.from_state(damage(state, *path, value=value))


def test_states_that_lack_something_are_refused():
    state = Preparation().fit(objects(mixed())).state()
    for name in state:
        with pytest.raises(ValueError, match=f"the preparation lacks '{name}'"):
            Preparation.from_state({key: each for key, each in state.items() if key != name})
    for other in (None, [], "state"):
        with pytest.raises(ValueError, match="the preparation is"):
            Preparation.from_state(other)
    with pytest.raises(ValueError, match="edges are not in ascending order"):
        Preparation.from_state({**state, "edges": np.zeros_like(state["edges"])})
    twice = damage({**state, "named": True}, "columns", 0, "label", value="a")
    with pytest.raises(ValueError, match="neither different names nor positions"):
        Preparation.from_state(twice)
