"""Tables that are refused, and what the messages say."""

import numpy as np
import pytest
from scipy import sparse

from gpumlp.estimators.tabular.table_preparation import Preparation
from tests.helpers.optional import Package
from tests.helpers.tables import TABLES, objects

pd, pl = Package("pandas"), Package("polars")

REFUSED = {
    "bytes": ([b"a", b"b"], TypeError, "holds bytes: decode them"),
    "lists": ([[1], [2]], TypeError, "row 0: a value is a list.* a string, a number or a date"),
    "dictionaries": ([1, {"a": 2}], TypeError, "row 1: a value is a dict"),
    "complex": ([1j, 2], TypeError, "Complex data not supported"),
    "objects": ([type("T", (), {"__hash__": None})(), 1], TypeError, "no values"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_objects(kind):
    values, error, message = REFUSED[kind]
    array = np.empty((2, 2), dtype=object)
    array[:, 0] = [1.5, 2.5]
    for i, value in enumerate(values):
        array[i, 1] = value
    with pytest.raises(error, match=f"X: column 1.*{message}"):
        Preparation().fit(array)
    frame = pd.DataFrame({"n": [1.5, 2.5], "bad": values})
    with pytest.raises(error, match=f"X: column 'bad'.*{message}"):
        Preparation().fit(frame)


@pytest.mark.parametrize("table", ["polars", "pyarrow", "pandas arrow"])
@pytest.mark.parametrize(
    "values, message",
    [
        ([b"a", b"b"], "holds bytes"),
        ([[1], [2, 3]], "a value is a list"),
        ([{"a": 1}, {"a": 2}], "a value is a struct"),
    ],
)
def test_refused_columns(table, values, message):
    with pytest.raises(TypeError, match=f"X: column 'bad'.*{message}"):
        Preparation().fit(TABLES[table]({"n": [1.5, 2.5], "bad": values}))


def test_refused_arrays():
    with pytest.raises(ValueError, match="Complex data not supported"):
        Preparation().fit(np.ones((3, 2), dtype=complex))
    with pytest.raises(TypeError, match="column 0 holds bytes"):
        Preparation().fit(np.array([[b"a"], [b"b"]]))
    with pytest.raises(TypeError, match=r"sparse matrix.*use MLPClassifier or"):
        Preparation().fit(sparse.csr_matrix(np.eye(3)))
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        Preparation().fit([1.0, 2.0])
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        Preparation().fit(["a", "b"])
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        Preparation().fit([[1.0, 2.0], [3.0]])
    with pytest.raises(ValueError, match="dim 3"):
        Preparation().fit(np.ones((2, 2, 2)))


def test_refused_frames():
    with pytest.raises(ValueError, match="2-dimensional container"):
        Preparation().fit(pd.Series([1.0, 2.0]))
    with pytest.raises(ValueError, match="more than one column of the name 'a'"):
        Preparation().fit(pd.DataFrame([[1, 2, 3]], columns=["a", "b", "a"]))
    with pytest.raises(TypeError, match="only supported if all input features have string names"):
        Preparation().fit(pd.DataFrame([[1, 2]], columns=["a", 5]))
    with pytest.raises(TypeError, match=r"LazyFrame: pass X.collect\(\)"):
        Preparation().fit(pl.LazyFrame({"a": [1]}))


@pytest.mark.parametrize("table", ["pandas", "polars", "pyarrow"])
def test_no_rows_and_no_columns(table):
    with pytest.raises(ValueError, match=r"0 sample\(s\) .shape=.0, 1.. while a minimum of 1"):
        Preparation().fit(TABLES[table]({"a": []}))
    if table == "pandas":
        with pytest.raises(ValueError, match=r"0 feature\(s\) .shape=.3, 0.. while"):
            Preparation().fit(pd.DataFrame(index=range(3)))


def test_no_rows_and_no_columns_of_an_array():
    for shape, words in (((0, 2), "0 sample"), ((2, 0), "0 feature")):
        with pytest.raises(ValueError, match=words):
            Preparation().fit(np.empty(shape))


def test_no_column_that_can_be_learned_from():
    X = objects({"a": [1, 1], "b": [None, None], "c": ["x", "x"]})
    with pytest.raises(
        ValueError, match=r"no column to learn from: 2 constant, 1 without values .n_samples = 2."
    ):
        Preparation().fit(X)


@pytest.mark.parametrize(
    "value, message",
    [
        ("auto", 'must be "from_dtype", None, a mask'),
        (3, 'must be "from_dtype", None'),
        ([True], "a mask of 1; X has 2 columns"),
        ([2], "names column 2; X has 2"),
        ([-1], "names column -1; X has 2"),
        ([0.5], 'must be "from_dtype"'),
        (["a", 0], 'must be "from_dtype"'),
        (["hieght"], "no column 'hieght'; near it: 'height'"),
        (["zzz"], "no column 'zzz'$"),
    ],
)
def test_refused_categorical_features(value, message):
    frame = pd.DataFrame({"height": [1.0, 2.0], "b": [1.0, 2.0]})
    with pytest.raises(ValueError, match=message):
        Preparation().fit(frame, categorical_features=value)


def test_names_of_columns_that_have_none():
    with pytest.raises(ValueError, match="X has no names of columns"):
        Preparation().fit(np.eye(2), categorical_features=["a"])
