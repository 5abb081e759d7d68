"""Every kind of column, on every kind of table."""

import datetime
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from gpumlp.estimators.tabular.column_values import Place
from gpumlp.estimators.tabular.table_preparation import Preparation
from gpumlp.estimators.tabular.table_reader import TableReader
from tests.helpers.optional import Package
from tests.helpers.tables import DAY, KINDS, LATER, ROWS, TABLES, UTC, column, objects, with_gaps

pd, pl, pa = Package("pandas"), Package("polars"), Package("pyarrow")


def prepared(X, **options):
    """The preparation of a table, and what it makes of it."""
    preparation = Preparation().fit(X, **options)
    return preparation, preparation.transform(X)


# ---------------------------------------------------------------- kinds
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("table", TABLES)
def test_column_is_what_it_is_in_an_array_of_objects(table, kind, gaps):
    values = column(kind)
    data = {"a": with_gaps(values) if gaps else values, "other": column("float")}
    preparation, out = prepared(TABLES[table](data))
    expected, same = prepared(objects(data))
    assert preparation.columns[0].kind == KINDS[kind]
    assert preparation.columns[0].missing == gaps
    np.testing.assert_array_equal(out, same)
    assert np.isfinite(out).all() and len(preparation.names) == out.shape[1]
    if table not in ("objects", "lists"):
        named = [name.replace("x0", "a").replace("x1", "other") for name in expected.names]
        assert preparation.names == named


def matrix(X, **options):
    """The columns as float64, before they are scaled."""
    preparation = Preparation().fit(X, **options)
    table = TableReader(X)
    parts = [
        each.encode(table.column(j), Place(each.label))
        for j, each in enumerate(preparation.columns)
        if not each.dropped
    ]
    return preparation, np.concatenate(parts, axis=1)


@pytest.mark.parametrize(
    "values, expected",
    [
        ([True, False, None], [1, 0, np.nan]),
        ([1, np.float32(2.5), Decimal("0.5"), Fraction(1, 4)], [1, 2.5, 0.5, 0.25]),
        ([1, np.inf, -np.inf, 10**400, float("nan")], [1] + 4 * [np.nan]),
        ([datetime.timedelta(minutes=2), np.timedelta64(1, "h"), None], [120, 3600, np.nan]),
        ([datetime.time(1, 2, 3), datetime.time(0)], [3723, 0]),
        ([0.5, Decimal("NaN"), np.timedelta64("NaT", "s")], [0.5, np.nan, np.nan]),
    ],
)
def test_numbers_of_objects(values, expected):
    X = objects({"a": [*values, 0.125]})
    _, out = matrix(X)
    np.testing.assert_array_equal(out[:-1, 0], expected)


@pytest.mark.parametrize("kind", ["int8", "uint64", "float16", "float32", ">f8", ">i4", "bool"])
def test_arrays_of_numbers(kind):
    X = np.array([[0, 5], [1, 6], [1, 9]]).astype(kind)
    _, out = matrix(X)
    np.testing.assert_array_equal(out, X[:, : out.shape[1]].astype(np.float64))


def test_array_of_texts_has_numbers_where_all_are():
    """NumPy makes text of the numbers beside a text."""
    X = np.array([["a", 1.5], ["b", ""], ["a", 3]])
    preparation, out = matrix(X)
    assert [each.kind for each in preparation.columns] == ["category", "number"]
    np.testing.assert_array_equal(out, [[0, 1.5], [1, np.nan], [0, 3]])
    preparation, _ = matrix(X, categorical_features=[1])
    assert preparation.columns[1].levels == ("1.5", "3")


def test_text_of_digits_in_a_table_is_text():
    for X in (objects({"a": ["01", "1", "1"]}), [["01"], ["1"], ["1"]]):
        preparation, out = matrix(X)
        assert preparation.columns[0].levels == ("01", "1") and out[:, 0].tolist() == [0, 1, 1]


def test_masked_values_are_missing():
    X = np.ma.MaskedArray([[1.0], [2.0], [3.0]], [[False], [True], [False]])
    _, out = matrix(X)
    np.testing.assert_array_equal(out, [[1], [np.nan], [3]])


def test_parts_of_dates():
    dates = ["1969-12-31T23:59:58", "1970-01-01T00:00:00.5", "2024-02-29T13:14:15", "NaT"]
    preparation, out = matrix(np.array(dates, "M8[ms]")[:, np.newaxis])
    assert preparation.number_names == [
        f"x0_{part}" for part in "elapsed year month day weekday yearday hour minute second".split()
    ]
    expected = [
        [-2 / 86400, 1969, 12, 31, 2, 365, 23, 59, 58],
        [0.5 / 86400, 1970, 1, 1, 3, 1, 0, 0, 0],
        [19782 + 47655 / 86400, 2024, 2, 29, 3, 60, 13, 14, 15],
        [np.nan] * 9,
    ]
    np.testing.assert_allclose(out, expected, rtol=1e-15)


def test_parts_of_dates_are_those_of_datetime():
    values = [DAY + i * LATER * 7 - 999 * LATER for i in range(500)]
    _, out = matrix(objects({"a": values}))
    for value, row in zip(values, out, strict=True):
        year, month, day, hour, minute, second, weekday, yearday, _ = value.timetuple()
        assert row[1:].tolist() == [year, month, day, weekday, yearday, hour, minute, second]


@pytest.mark.parametrize(
    "unit, form",
    [
        (unit, form)
        for unit in "Y M W D h m s ms us ns ps 7us 25s 4000ns".split()
        for form in ("array", "objects")
        if form == "array" or unit.isalpha()  # NumPy has no hash of others
    ],
)
def test_dates_at_the_ends_of_every_unit(unit, form):
    """Rounded down to microseconds where these can say them, missing where not."""
    size, count = np.datetime_data(np.dtype(f"M8[{unit}]"))
    numbers = [1 - 2**63, 2**63 - 1, -1, 0, 10**6, -(10**6) - 7]
    dates = np.array(numbers, np.int64).view(f"M8[{unit}]")
    X = dates[:, np.newaxis] if form == "array" else objects({"a": list(dates)})
    preparation, out = matrix(X)
    elapsed = out[:, preparation.columns[0].parts.index("elapsed")]
    in_us = {"ps": 1e-6, "ns": 1e-3, "us": 1, "ms": 1e3, "s": 1e6, "m": 6e7, "h": 3.6e9}
    day = 86_400_000_000
    in_us |= {"D": day, "W": 7 * day, "M": 365.2425 / 12 * day, "Y": 365.2425 * day}
    expected = np.array(numbers, float) * count * in_us[size] / day
    expected[np.abs(expected) > (2**63 - 10**14) / day] = np.nan
    slack = 62 if size in "YM" else 1e-9  # days: years and months differ
    np.testing.assert_allclose(elapsed, expected, rtol=1e-12, atol=slack)


def test_dates_of_numpy_among_objects():
    values = [np.datetime64("2024-01-02"), np.datetime64("NaT", "D"), datetime.date(2024, 1, 5)]
    _, out = matrix(objects({"a": values}))
    np.testing.assert_array_equal(out[:, 0], [19724, np.nan, 19727])


def test_parts_that_do_not_vary_are_left_out():
    days = [datetime.date(2024, 5, 1 + i) for i in range(3)]
    preparation, _ = prepared(objects({"a": days}))
    assert preparation.columns[0].parts == ("elapsed", "day", "weekday", "yearday")


@pytest.mark.parametrize("table", ["pandas", "polars", "pyarrow", "objects"])
def test_dates_with_a_time_zone_are_those_of_utc(table):
    zone = datetime.timezone(datetime.timedelta(hours=5))
    aware = [(DAY + i * LATER).replace(tzinfo=UTC) for i in range(9)]
    if table in ("pandas", "objects"):
        aware = [each.astimezone(zone) for each in aware]
    plain = [DAY + i * LATER for i in range(9)]
    _, out = prepared(TABLES[table]({"a": aware}))
    np.testing.assert_array_equal(out, prepared(TABLES["objects"]({"a": plain}))[1])


def test_periods_and_intervals_of_pandas():
    frame = pd.DataFrame({"month": pd.period_range("2024-01", periods=4, freq="M")})
    frame["range"] = pd.cut(pd.Series([1.0, 2, 3, 9]), 2)
    frame["sparse"] = pd.arrays.SparseArray([0.0, 0, 1, np.nan])
    preparation, out = matrix(frame)
    assert [each.kind for each in preparation.columns] == ["date", "category", "number"]
    assert out[:, preparation.number_names.index("month_month")].tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(out[:, -1], [0, 0, 1, np.nan])


# ---------------------------------------------------------------- categories
LEVELS = {
    "pandas": lambda values: pd.DataFrame({"a": pd.Categorical(values)}),
    "pandas arrow": lambda values: pd.DataFrame(
        {"a": pd.Series(values, dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string())))}
    ),
    "polars": lambda values: pl.DataFrame({"a": pl.Series(values, dtype=pl.Categorical)}),
    "polars enum": lambda values: pl.DataFrame(
        {"a": pl.Series(values, dtype=pl.Enum(["c", "b", "a", "unused"]))}
    ),
    "pyarrow": lambda values: pa.table({"a": pa.array(values).dictionary_encode()}),
}


@pytest.mark.parametrize("table", LEVELS)
def test_levels_are_sorted_as_texts_and_missing_is_one(table):
    preparation, out = prepared(LEVELS[table](["b", "a", None, "c", "a"]))
    assert preparation.names == ["a_a", "a_b", "a_c", "a_<missing>"]
    assert preparation.columns[0].levels == ("a", "b", "c")
    np.testing.assert_array_equal(out, np.eye(4)[[1, 0, 3, 2, 0]])


def test_two_levels_are_one_input():
    preparation, out = prepared(objects({"a": ["x", "y", "x"]}))
    assert preparation.names == ["x0_y"] and out[:, 0].tolist() == [-1, 1, -1]
    assert preparation.transform([["z"], [None], ["y"]])[:, 0].tolist() == [0, 0, 1]
    preparation, out = prepared(objects({"a": ["x", None, "x"]}))
    assert preparation.names == ["x0_<missing>"] and out[:, 0].tolist() == [-1, 1, -1]


def test_unknown_levels_and_newly_missing_ones_are_zeros():
    preparation, _ = prepared(objects({"a": list("abcabc")}))
    assert not preparation.transform([["d"], [None], [""], [5]]).any()


@pytest.mark.parametrize("table", ["pandas", "polars", "pyarrow", "objects"])
def test_numbers_named_as_categories(table):
    data = {"a": [3, 1, 20, 3], "b": [0.5, 1, 2, 3]}
    names = () if table == "objects" else (["a"], np.array(["a"]))
    for named in ([0], [True, False], np.array([0]), np.array([True, False]), *names):
        preparation, out = prepared(TABLES[table](data), categorical_features=named)
        assert preparation.columns[0].levels == ("1", "20", "3")  # as texts
        np.testing.assert_array_equal(out[:, -3:], np.eye(3)[[2, 0, 1, 2]])
    later = {"a": [3.0, None, 20.0, 1.0], "b": [0.5, 1, 2, 3]}
    np.testing.assert_array_equal(
        preparation.transform(TABLES[table](later))[:, -3:], np.eye(4)[[2, 3, 1, 0], :3]
    )


@pytest.mark.parametrize("table", TABLES)
def test_categories_of_integers_that_no_float_tells_apart(table):
    large = 2**53
    data = {"a": [large, large + 1, None, large], "b": column("float", 4)}
    if table in ("pandas", "pandas nullable"):
        data["a"] = pd.Series(data["a"], dtype="Int64")
    preparation, _ = prepared(TABLES[table](data), categorical_features=[0])
    assert preparation.columns[0].levels == (str(large), str(large + 1))


@pytest.mark.parametrize("table", ["pandas", "polars"])
def test_categories_by_dtype_and_not(table):
    levels = pd.Categorical([3, 1, 2]) if table == "pandas" else None
    X = pd.DataFrame({"a": levels}) if table == "pandas" else LEVELS["polars"](list("abc"))
    assert Preparation().fit(X).columns[0].kind == "category"
    kinds = [Preparation().fit(X, categorical_features=each).columns[0].kind for each in (None, [])]
    assert kinds == 2 * ["number" if table == "pandas" else "category"]


def test_mixed_objects_are_categories_by_their_text():
    values = [1, "1", 1.0, True, "True", None, 2.5, datetime.date(2024, 1, 2)]
    preparation, out = matrix(objects({"a": values}))
    assert preparation.columns[0].levels == ("1", "2.5", "2024-01-02T00:00:00.000000", "True")
    assert out[:, 0].tolist() == [0, 0, 0, 3, 3, 4, 1, 2]


def test_infrequent_levels_are_one():
    many = [f"level {i:03d}" for i in range(150) for _ in range(2)] + ["top"] * 5
    preparation, out = prepared(objects({"a": many}))
    column = preparation.columns[0]
    assert column.infrequent and len(column.levels) == 99 and "top" in column.levels
    assert out.shape[1] == 100 and (out.sum(axis=1) == 1).all()
    assert preparation.names[-1] == "x0_<infrequent>" and out[:, -1].sum() == 2 * (151 - 99)
    later = preparation.transform([["level 149"], ["unseen"], [None]])
    assert later[:, -1].tolist() == [1, 1, 0] and not later[:, :-1].any()


@pytest.mark.parametrize("rows, least", [(2000, 1), (6000, 3), (20_000, 10), (50_000, 10)])
def test_rare_levels_are_infrequent_in_large_columns(rows, least):
    values = ["rare"] * max(least - 1, 1) + ["enough"] * least
    values += ["often", "more"] * ((rows - len(values)) // 2)
    preparation, _ = prepared(objects({"a": values + ["more"] * (rows - len(values))}))
    column = preparation.columns[0]
    assert column.infrequent == (least > 1) and ("rare" in column.levels) == (least == 1)
    assert "enough" in column.levels


def test_objects_named_as_categories():
    """Dates by their ISO text, time spans by Python's; infinity is missing."""
    X = objects({"a": [DAY, None, DAY], "b": [LATER, LATER * 2, None], "c": [1.5, np.inf, 2]})
    preparation, out = matrix(X, categorical_features=[0, 1, 2])
    levels = [each.levels for each in preparation.columns]
    assert levels == [(f"{DAY.isoformat()}.000000",), (str(LATER), str(LATER * 2)), ("1.5", "2")]
    assert out.tolist() == [[0, 0, 0], [1, 1, 2], [0, 2, 1]]


# ---------------------------------------------------------------- columns that are left out
def test_constant_and_empty_columns_are_dropped():
    X = objects({"a": [1, 1], "b": [None, None], "c": ["x", "x"], "d": [1, 2]})
    preparation, out = prepared(X)
    assert preparation.dropped == {0: "constant", 1: "empty", 2: "constant"}
    assert preparation.names == ["x3"] and out.shape == (2, 1)
    later = objects({"a": ["text", 1], "b": [5, {}], "c": [b"", 1], "d": [1, 2]})
    np.testing.assert_array_equal(preparation.transform(later), out)


def test_columns_named_as_categories_may_be_empty():
    X = objects({"a": [None, np.nan, ""], "b": [1, 2, 3]})
    assert prepared(X, categorical_features=[0])[0].dropped == {0: "empty"}


def test_constant_with_gaps_is_an_indicator():
    preparation, out = prepared(objects({"a": [5, None, 5]}))
    assert preparation.names == ["x0", "x0_missing"]
    np.testing.assert_array_equal(out, [[0, 0], [0, 1], [0, 0]])


@pytest.mark.parametrize("table", ["pandas", "polars", "pyarrow", "objects"])
def test_texts_of_nearly_every_row_are_left_out_with_a_warning(table):
    names = [f"person {i}" for i in range(ROWS)]
    data = {"name": names, "note": with_gaps(names), "n": list(range(ROWS)), "t": column("text")}
    columns = "0, 1" if table == "objects" else "'name', 'note'"
    with pytest.warns(UserWarning, match=f"in columns {columns}, left out: .*Tfidf") as caught:
        preparation, _ = prepared(TABLES[table](data))
    assert len(caught) == 1 and caught[0].filename == __file__
    assert list(preparation.dropped.values()) == ["distinct", "distinct"]
    preparation, _ = prepared(TABLES[table](data), categorical_features=[0, 1])
    assert not preparation.dropped


def test_few_rows_or_repeated_texts_are_not_left_out():
    for distinct, rows in ((19, 19), (18, 20), (90, 100)):
        values = [f"text {min(i, distinct - 1)}" for i in range(rows)]
        assert not prepared(objects({"a": values}))[0].dropped


def test_declared_categories_are_not_left_out():
    X = LEVELS["pandas"]([f"text {i}" for i in range(30)])
    assert not prepared(X)[0].dropped
