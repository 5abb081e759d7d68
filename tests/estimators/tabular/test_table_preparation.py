"""A network's inputs of a table, at fit and later."""

import datetime

import numpy as np
import pytest

from gpumlp.estimators.tabular import table_preparation
from gpumlp.estimators.tabular.encoders import PiecewiseLinearEncoder, RobustSmoothScaler
from gpumlp.estimators.tabular.table_preparation import Preparation
from tests.helpers.optional import Package
from tests.helpers.tables import FRAMES, mixed, objects

pd = Package("pandas")


# ---------------------------------------------------------------- what comes out
def test_blocks_are_the_encoders_and_one_hot_codes():
    """By scikit-learn's way of writing it: one block after the other."""
    data = mixed()
    preparation = Preparation().fit(objects(data))
    out = preparation.transform(objects(data))
    height = np.array(data["height"], dtype=float)
    missing = np.isnan(height)
    hours = [(each - datetime.datetime(1970, 1, 1)).total_seconds() for each in data["bought"]]
    numbers = [data["width"], np.where(missing, np.nanmedian(height), height)]
    numbers.append(np.array(hours) / 86400)
    for part in ("year", "month", "day", "weekday", "yearday", "hour"):
        of = {"weekday": lambda each: each.weekday(), "yearday": lambda each: each.timetuple()[7]}
        get = of.get(part, lambda each, part=part: getattr(each, part))
        numbers.append([get(each) for each in data["bought"]])
    numbers = np.array(numbers, dtype=np.float64).T
    encoder = PiecewiseLinearEncoder(8, 32)
    colour = np.array(data["colour"])[:, np.newaxis] == ["blue", "green", "red"]
    sex = np.where(np.array(data["sex"]) == "m", 1, -1)[:, np.newaxis]
    levels = [*(f"city {i}" for i in range(6)), None]
    city = [[each == level for level in levels] for each in data["city"]]
    expected = [
        RobustSmoothScaler().fit_transform(numbers),
        missing[:, np.newaxis],
        encoder.fit_transform(numbers),
        colour,
        sex,
        city,
    ]
    assert out.dtype == np.float32 and out.flags.c_contiguous
    np.testing.assert_allclose(out, np.hstack(expected), rtol=1e-6, atol=1e-6)
    assert len(preparation.names) == len(set(preparation.names)) == out.shape[1]


def test_attributes_that_an_exporter_needs():
    preparation = Preparation().fit(objects(mixed()))
    n = len(preparation.number_names)
    assert n == 9 and preparation.number_names[:3] == ["x0", "x1", "x5_elapsed"]
    for each in (preparation.medians, preparation.center, preparation.scale):
        assert each.shape == (n,) and each.dtype == np.float64
    assert preparation.indicated.tolist() == [False, True] + 7 * [False]
    assert len(preparation.edges) == n and preparation.n_features_in_ == 7
    assert preparation.dropped == {6: "constant"}
    assert [j for j, _ in preparation.number_columns] == [0, 1, 5]
    assert [j for j, _ in preparation.category_columns] == [2, 3, 4]
    assert not hasattr(preparation, "feature_names_in_")


@pytest.mark.parametrize("kind", FRAMES)
def test_every_frame_gives_what_the_array_gives(kind):
    data = mixed()
    preparation = Preparation().fit(FRAMES[kind](data))
    expected = Preparation().fit(objects(data))
    np.testing.assert_array_equal(
        preparation.transform(FRAMES[kind](data)), expected.transform(objects(data))
    )
    assert preparation.feature_names_in_.tolist() == list(data)
    assert preparation.names[0] == "width" and preparation.names[-1] == "city_<missing>"


@pytest.mark.parametrize("other", FRAMES)
@pytest.mark.parametrize("kind", FRAMES)
def test_one_kind_of_frame_for_fit_and_another_later(kind, other):
    preparation = Preparation().fit(FRAMES[kind](mixed()))
    later = mixed(37, seed=1)
    expected = preparation.transform(FRAMES[kind](later))
    np.testing.assert_array_equal(preparation.transform(FRAMES[other](later)), expected)


def test_dates_have_one_indicator():
    dates = [None, *(datetime.datetime(2024, 1, 1 + i, i) for i in range(9))]
    preparation = Preparation().fit([[each] for each in dates])
    assert [name for name in preparation.names if "missing" in name] == ["x0_missing"]
    assert np.isfinite(preparation.transform([[None]])).all()


@pytest.mark.parametrize(
    "rows, columns, bins, expected",
    [
        (200, 20, "auto", 8),
        (200, 21, "auto", 4),
        (5000, 2, "auto", 24),
        (5000, 21, "auto", 4),
        (200, 2, 5, 5),
        (200, 2, None, 0),
    ],
)
def test_bins(rows, columns, bins, expected):
    X = np.random.default_rng(0).normal(size=(rows, columns))
    preparation = Preparation().fit(X, bins=bins)
    assert preparation.transform(X[:3]).shape == (3, columns * (1 + expected))


def test_many_columns_have_no_edges_at_single_values():
    X = np.random.default_rng(0).normal(size=(200, 21))
    X[:, 0] = np.arange(200) % 10
    assert len(Preparation().fit(X).edges[0]) == 5
    assert len(Preparation().fit(X[:, :20]).edges[0]) == 10


@pytest.mark.parametrize("bins", [0, -1, 2.5, "many"])
def test_refused_bins(bins):
    with pytest.raises(ValueError, match="bins"):
        Preparation().fit(np.eye(3), bins=bins)


@pytest.mark.parametrize("kind", [*FRAMES, "array"])
def test_chunks_are_the_whole(kind, monkeypatch):
    data = mixed(3000)
    X = objects(data) if kind == "array" else FRAMES[kind](data)
    preparation = Preparation().fit(X)
    whole = preparation.transform(X)
    monkeypatch.setattr(table_preparation, "CHUNK", 7)
    np.testing.assert_array_equal(preparation.transform(X), whole)
    monkeypatch.setattr(table_preparation, "MIN_ROWS", 37)
    np.testing.assert_array_equal(preparation.transform(X), whole)


def test_large_tables_are_sampled(monkeypatch):
    X = np.random.default_rng(0).normal(size=(4000, 2))
    X[:, 1] = 0
    X[1234, 1] = 5  # all but one are equal, and that is no constant
    exact = Preparation().fit(X)
    monkeypatch.setattr(table_preparation, "SAMPLE", 1000)
    first, second = Preparation().fit(X), Preparation().fit(X)
    np.testing.assert_array_equal(first.transform(X), second.transform(X))
    np.testing.assert_allclose(first.medians, exact.medians, atol=0.1)
    assert first.medians[0] != exact.medians[0]
    assert first.scale[1] == exact.scale[1] == 2.5
    assert first.edges[0][0] == X[:, 0].min() and first.edges[0][-1] == X[:, 0].max()


def test_a_sample_may_miss_every_number(monkeypatch):
    monkeypatch.setattr(table_preparation, "SAMPLE", 3)
    X = np.full((500, 1), np.nan)
    X[[7, 99], 0] = 1, 2
    preparation = Preparation().fit(X)
    assert preparation.medians == 1.5 and preparation.dropped == {}


# ---------------------------------------------------------------- other rows
def test_newly_missing_numbers_are_imputed_without_an_indicator():
    X = np.array([[0.0], [1.0], [4.0]])
    preparation = Preparation().fit(X)
    expected = preparation.transform([[1.0]])
    for value in (np.nan, np.inf, -np.inf, None):
        np.testing.assert_array_equal(preparation.transform([[value]]), expected)


@pytest.mark.parametrize("kind", FRAMES)
def test_text_that_spells_numbers_is_read_as_numbers(kind):
    preparation = Preparation().fit(FRAMES[kind]({"age": [1.0, 2.0, 40.0]}))
    texts = FRAMES[kind]({"age": ["1", " 2.0 ", "4e1", "", None, "nan"]})
    numbers = FRAMES[kind]({"age": [1.0, 2.0, 40.0, None, None, None]})
    np.testing.assert_array_equal(preparation.transform(texts), preparation.transform(numbers))


@pytest.mark.parametrize("kind", FRAMES)
def test_numbers_in_a_column_of_categories_are_read_as_text(kind):
    preparation = Preparation().fit(FRAMES[kind]({"zip": ["1", "20", "3"]}))
    texts = FRAMES[kind]({"zip": ["3", "1", None, "5"]})
    for numbers in ([3, 1, None, 5], [3.0, 1.0, None, 5.0]):
        out = preparation.transform(FRAMES[kind]({"zip": numbers}))
        np.testing.assert_array_equal(out, preparation.transform(texts))


@pytest.mark.parametrize("kind", FRAMES)
def test_text_that_spells_dates_is_read_as_dates(kind):
    dates = [datetime.datetime(2024, 1, 1 + i, 3 * i) for i in range(4)]
    preparation = Preparation().fit(FRAMES[kind]({"at": dates}))
    texts = FRAMES[kind]({"at": [each.isoformat() for each in dates]})
    expected = preparation.transform(FRAMES[kind]({"at": dates}))
    np.testing.assert_array_equal(preparation.transform(texts), expected)


DATE = datetime.datetime(2024, 1, 2)


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize(
    "fitted, later, message",
    [
        ([1.0, 2], ["1", "2", "x", "abc"], "row 2: 'x' is not a number; in fit"),
        ([1.0, 2], ["1_0"], "row 0: '1_0' is not a number"),
        ([1.0, 2], [None, DATE], "row 1: '2024-01-02T00:00:00.000000' is not a number"),
        ([DATE, DATE.replace(day=3)], [None, "today"], "row 1: 'today' is not a date; in fit"),
        ([DATE, DATE.replace(day=3)], [None, 7], "row 1: '7(.0)?' is not a date"),
    ],
)
def test_values_of_another_kind_are_refused(kind, fitted, later, message):
    preparation = Preparation().fit(FRAMES[kind]({"age": fitted}))
    with pytest.raises(ValueError, match=f"X: column 'age', {message}.*fit again"):
        preparation.transform(FRAMES[kind]({"age": later}))


def test_the_row_of_a_refused_value_is_that_of_the_table(monkeypatch):
    monkeypatch.setattr(table_preparation, "CHUNK", 1)
    monkeypatch.setattr(table_preparation, "MIN_ROWS", 10)
    preparation = Preparation().fit([[1.0], [2.0]])
    rows = [[0]] * 25 + [["oops"]] + [[0]] * 9
    with pytest.raises(ValueError, match="column 0, row 25: 'oops'"):
        preparation.transform(rows)
    with pytest.raises(TypeError, match="column 0, row 25: a value is a dict"):
        preparation.transform([*rows[:25], [{}]])


def test_missing_columns_of_any_kind_are_imputed():
    data = mixed()
    preparation = Preparation().fit(FRAMES["pandas"](data))
    for kind in FRAMES:
        nothing = FRAMES[kind]({name: [None, None] for name in data})
        out = preparation.transform(nothing)
        assert np.isfinite(out).all() and (out[0] == out[1]).all()


def test_dates_that_are_all_missing_may_stand_for_numbers():
    preparation = Preparation().fit(np.array([[0.0], [1.0], [4.0]]))
    out = preparation.transform(np.array([["NaT"]], "M8[ns]"))
    np.testing.assert_array_equal(out, preparation.transform([[np.nan]]))


# ---------------------------------------------------------------- other columns
def test_other_names_are_refused():
    preparation = Preparation().fit(pd.DataFrame({"width": [1, 2], "height": [3, 4]}))
    begin = "The feature names should match those that were passed during fit.\n"
    for columns, message in (
        (
            ["width", "heigth"],
            "Feature names unseen at fit time:\n- heigth\n"
            "Feature names seen at fit time, yet now missing:\n- height\n"
            "'height'; near it: 'heigth'\n",
        ),
        (["width"], "Feature names seen at fit time, yet now missing:\n- height\n"),
        (["height", "width"], "Feature names must be in the same order as they were in fit.\n"),
        (list("wh"), "- h\n- w\nFeature names seen at fit time, yet now missing:\n- height\n"),
        ([f"c{i}" for i in range(9)], "- c4\n- ...\nFeature names seen"),
    ):
        frame = pd.DataFrame([[0] * len(columns)], columns=columns)
        with pytest.raises(ValueError) as error:
            preparation.transform(frame)
        assert str(error.value).startswith(begin) and message in str(error.value)


def test_other_counts_of_columns_are_refused():
    preparation = Preparation().fit(np.eye(3))
    preparation.owner = "TabularClassifier"
    message = "X has 2 features, but TabularClassifier is expecting 3 features as input"
    with pytest.raises(ValueError, match=message):
        preparation.transform(np.eye(2))


def test_names_on_one_side_only_are_warned_of():
    frame = pd.DataFrame(np.eye(3), columns=list("abc"))
    named, unnamed = Preparation().fit(frame), Preparation().fit(np.eye(3))
    expected = named.transform(frame)
    with pytest.warns(UserWarning, match="X does not have valid feature names, but this model"):
        np.testing.assert_array_equal(named.transform(np.eye(3)), expected)
    with pytest.warns(UserWarning, match="X has feature names, but this model was fitted without"):
        np.testing.assert_array_equal(unnamed.transform(frame), expected)


def test_names_that_are_no_text_are_positions():
    frame = pd.DataFrame(np.eye(3), columns=[7, 8, 9])
    preparation = Preparation().fit(frame, categorical_features=[1])
    assert not hasattr(preparation, "feature_names_in_")
    assert [each.label for each in preparation.columns] == [0, 1, 2]


def test_a_second_fit_forgets_the_first():
    preparation = Preparation().fit(pd.DataFrame(np.eye(3), columns=list("abc")))
    preparation.fit(np.eye(2))
    assert not hasattr(preparation, "feature_names_in_") and preparation.n_features_in_ == 2
