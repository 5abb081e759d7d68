"""Tables as people have them: separators, marks, encodings, names, odd cells, and other files."""

import cProfile
import datetime
import gzip
import re
from decimal import Decimal

import numpy as np
import pytest

import gpumlp
from gpumlp.cli import cells, data, table
from gpumlp.cli.options import parser
from gpumlp.cli.table import Reading
from tests.helpers.commandline import refused, run, train

pandas = pytest.importorskip("pandas", reason="tables need pandas: pip install gpumlp[table]")
pytest.importorskip("pyarrow", reason="tables need pyarrow: pip install gpumlp[table]")

QUICK = ["--epochs", 2, "--hidden", 8]
ROWS = 40


def frame():
    rng = np.random.default_rng(0)
    return pandas.DataFrame(
        {
            "size": rng.normal(1500, 400, ROWS).round(2),
            "city": rng.choice(["Köln", "Graz", "Zürich"], ROWS),
            "day": pandas.date_range("2020-01-30", periods=ROWS).astype(str),
            "price": rng.normal(300_000, 50_000, ROWS).round(2),
        }
    )


def loaded(file, target, *options):
    line = ["train", file, "--target", target, *options]
    return data.load(parser().parse_args([str(each) for each in line]))


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.csv.xz", "t.data", "T.CSV"])
def test_text_in_several_forms(name, tmp_path):
    separator = "\t" if "tsv" in name else ","
    file = tmp_path / name
    frame().to_csv(file, index=False, sep=separator, encoding="utf-8-sig")
    samples = loaded(file, "price")
    assert samples.name.lower() == "t"
    assert list(samples.x) == ["size", "city", "day"]
    np.testing.assert_array_equal(samples.x["size"], frame()["size"])


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("thousands", ["", " ", "'", "other"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_marks_and_encodings_are_recognised(sep, decimal, thousands, encoding, tmp_path):
    expected, thousands = frame(), ",.".replace(decimal, "") if thousands == "other" else thousands
    written = expected.copy()
    for name in ("size", "price"):
        texts = [f"{value:,.2f}".replace(",", "T").replace(".", "D") for value in expected[name]]
        written[name] = [each.replace("T", thousands).replace("D", decimal) for each in texts]
    written.to_csv(tmp_path / "t.csv", index=False, sep=sep, encoding=encoding)
    samples = loaded(tmp_path / "t.csv", "price")
    np.testing.assert_array_equal(samples.x["size"], expected["size"])
    np.testing.assert_array_equal(samples.y, expected["price"])
    assert list(samples.x["city"]) == list(expected["city"])
    assert samples.kinds == {"size": cells.NUMBER, "city": cells.TEXT, "day": cells.DATE}


def test_marks_and_encodings_may_be_given(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("a:b:y\n" + "1,5:ж:1\n2,5:я:2\n" * 10, encoding="koi8-r")
    options = ["--sep", ":", "--decimal", ",", "--encoding", "koi8-r"]
    samples = loaded(tmp_path / "t.csv", "y", *options)
    assert set(samples.x["a"]) == {1.5, 2.5} and set(samples.x["b"]) == {"ж", "я"}
    options = ["--target", "y", "--sep", "::", "--device", "cpu"]
    assert "expected one character" in refused(capsys, "train", tmp_path / "t.csv", *options)
    options = ["--target", "y", "--encoding", "utf-9", "--device", "cpu"]
    assert "such as utf-8 or cp1252" in refused(capsys, "train", tmp_path / "t.csv", *options)
    np.savez(tmp_path / "a.npz", X=np.ones((20, 2)), y=[0, 1] * 10)
    said = refused(capsys, "train", tmp_path / "a.npz", "--sep", ";")
    assert "--sep is for tables of text" in said


def test_an_encoding_that_is_guessed_is_said(tmp_path, capsys):
    frame().to_csv(tmp_path / "t.csv", index=False, encoding="latin-1")
    loaded(tmp_path / "t.csv", "price")
    assert "is no UTF-8: it is read as cp1252 (--encoding" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["parquet", "feather", "jsonl", "jsonl.gz", "csv.gz", "xlsx"])
def test_other_files_are_the_same_table(suffix, tmp_path):
    file = tmp_path / f"t.{suffix}"
    if suffix == "xlsx":
        pytest.importorskip("openpyxl", reason="Excel files need openpyxl")
        frame().to_excel(file, index=False)
    elif "json" in suffix:
        frame().to_json(file, orient="records", lines=True)
    elif "csv" in suffix:
        frame().to_csv(file, index=False)
    else:
        getattr(frame(), f"to_{suffix}")(file)
    samples = loaded(file, "price")
    expected = cells.tidy(frame().drop(columns="price"), "t")
    pandas.testing.assert_frame_equal(samples.x, expected, check_dtype=False)
    np.testing.assert_array_equal(samples.y, frame()["price"])


def test_excel_without_openpyxl_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04")
    said = refused(capsys, "train", tmp_path / "t.xlsx", "--target", "y")
    assert 'Excel files need openpyxl, which is missing here: pip install "gpumlp[excel]"' in said


def test_names_are_stripped_and_made_unique(tmp_path, capsys):
    lines = [" a , a,y ,a.1", *["1,2,3.5,4", "2,3,4.5,6"] * 6]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    samples = loaded(tmp_path / "t.csv", " y ", "--drop", " a.1 ")
    assert "another column a is called a.2" in capsys.readouterr().err
    assert list(samples.x) == ["a", "a.2"]
    assert list(samples.x.iloc[0]) == [1, 2]


def test_a_file_without_header(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("1.5,u,no\n2.5,v,yes\n" * 8)
    options = ["--target", 3, "--no-header"]
    samples = loaded(tmp_path / "t.csv", *options[1:])
    assert list(samples.x) == ["1", "2"] and len(samples) == 16
    assert train(tmp_path / "t.csv", tmp_path, *options, *QUICK) == 0
    line = "predict", tmp_path, tmp_path / "t.csv", "--device", "cpu"
    capsys.readouterr()
    assert run(*line, "--no-header") == 0
    assert len(capsys.readouterr().out.splitlines()) == 17


def test_spaces_after_commas_and_question_marks(tmp_path):
    lines = ["size, word, y", *["1, a, no", "?, ?, yes", "3, b, yes"] * 4]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    samples = loaded(tmp_path / "t.csv", "y")
    assert list(samples.x) == ["size", "word"]
    assert list(samples.classes) == ["no", "yes"]
    assert samples.x["size"].isna().sum() == 4
    assert samples.x["word"].isna().sum() == 4


def test_further_texts_are_no_value(tmp_path):
    lines = ["size,word,y", *["-9,a,no", "2,none,yes", "3,b,yes"] * 4]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    samples = loaded(tmp_path / "t.csv", "y", "--na", "-9, none")
    assert samples.x["size"].isna().sum() == samples.x["word"].isna().sum() == 4


def test_a_few_odd_cells_are_missing_numbers(tmp_path, capsys):
    values = [str(value) for value in range(60)]
    values[3] = values[40] = "-"
    values[9], values[20] = "unknown", "size"  # a header that is repeated
    lines = ["size,y", *(f"{each},{i % 2}" for i, each in enumerate(values))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    samples = loaded(tmp_path / "t.csv", "y")
    assert samples.x["size"].dtype == np.float64
    assert list(np.flatnonzero(samples.x["size"].isna())) == [3, 9, 20, 40]
    assert re.search(
        r"note: column size of \S+: 4 cells that are no numbers \('-', 'unknown', 'size'\) are "
        "taken as missing",
        capsys.readouterr().err,
    )


def test_a_repeated_header_has_no_target(tmp_path, capsys):
    lines = ["size,y", *["1.5,no", "2.5,yes"] * 12, "size,y", "3.5,no"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    said = refused(capsys, "train", tmp_path / "t.csv", "--target", "y")
    assert "the target, has no value in row 25 (" in said
    assert "--drop-missing-target leaves these rows out" in said
    samples = loaded(tmp_path / "t.csv", "y", "--drop-missing-target")
    assert len(samples) == 25 and samples.rows[-1] == 26


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["2020-02-01", "2020-02-29T12:00", "2021-01-01 06:00:00Z"], "2020-02-01"),
        (["2020/02/01", "2020/02/29", "2021/01/13"], "2020-02-01"),
        (["01.02.2020", "29.02.2020", "3.1.2021"], "2020-02-01"),
        (["02/01/2020", "02/29/2020", "1/3/2021"], "2020-02-01"),
        (["01/02/2020", "29/02/2020", "3/1/2021"], "2020-02-01"),
        (["1700-01-01", "9999-12-31", "2021-01-03"], "1700-01-01"),
        (["01/02/2020", "05/02/2020", "3/1/2021"], None),
        (["2020-02-30", "2020-02-31", "2021-01-03"], None),
        (["17", "18", "2021-01-03"], None),
    ],
)
def test_dates_are_recognised(texts, expected):
    found = cells.tidy(pandas.DataFrame({"day": texts * 4}), "t")["day"]
    if expected is None:
        assert list(found) == texts * 4
    else:
        assert found.dtype.kind == "M" and str(found[0])[:10] == expected


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1", "2.5", "-3e2"], [1, 2.5, -300]),
        (["1,234", "12,345", "1,234,567"], [1234, 12345, 1234567]),
        (["1,5", "2,25", "-3,125"], [1.5, 2.25, -3.125]),
        (["1.234,5", "2.345.678,25", "7"], [1234.5, 2345678.25, 7]),
        (["1'234.5", "7", "-2'000"], [1234.5, 7, -2000]),
        (["1 234,5", "7", "-2 000"], [1234.5, 7, -2000]),
        (["9" * 400, "7", "-" + "9" * 400], [np.inf, 7, -np.inf]),
    ],
)
def test_numbers_have_marks(texts, expected):
    values, known = cells.parsed_numbers(np.array(texts, dtype=object))
    assert known.all()
    np.testing.assert_array_equal(values, expected)


def test_the_work_of_a_wide_file_grows_as_its_columns(tmp_path):
    """Counted in calls of functions, which no load changes."""
    calls = {}
    for columns in 500, 1000, 2000:
        wide = np.random.default_rng(0).normal(size=(7, columns)).round(3)
        header = ",".join(f"g{i}" for i in range(columns))
        path = tmp_path / f"{columns}.csv"
        np.savetxt(path, wide, "%.3f", ",", header=header, comments="")
        profile = cProfile.Profile()
        read = profile.runcall(lambda path: cells.tidy(table.read(path, Reading()), "t"), str(path))
        np.testing.assert_array_equal(read, pandas.read_csv(path))
        calls[columns] = sum(entry.callcount for entry in profile.getstats())
    assert calls[2000] - calls[1000] < 2.2 * (calls[1000] - calls[500])


def test_notes_on_what_training_lacked(tmp_path, capsys):
    frame().to_csv(tmp_path / "t.csv", index=False)
    assert train(tmp_path / "t.csv", tmp_path, "--target", "price", *QUICK) == 0
    new = frame().drop(columns="price").astype({"size": object})
    new.loc[3, "size"], new.loc[5, "size"], new.loc[[7, 8], "city"] = "-", None, "Bern"
    new.to_csv(tmp_path / "new.csv", index=False)
    capsys.readouterr()
    line = "predict", tmp_path, tmp_path / "new.csv", "--device", "cpu"
    assert run(*line, "--out", tmp_path / "out.npy") == 0
    said = capsys.readouterr().err
    assert "column size of" in said and "1 cell that is no number ('-') is taken as miss" in said
    assert "has 2 missing values, of which training had none" in said
    assert "has categories that training lacked, in 2 rows ('Bern')" in said
    assert np.isfinite(np.load(tmp_path / "out.npy")).all()
    for column, value, says in [
        ("size", "big", "row 1 of column size of .* is 'big', which is no number, as it was in"),
        ("day", 17, "row 1 of column day of .* is '17', which is no date, as it was in training"),
    ]:
        frame().assign(**{column: value}).to_csv(tmp_path / "new.csv", index=False)
        assert re.search(says, refused(capsys, *line).splitlines()[-1])


def test_a_missing_column_is_named_with_those_that_are_near(tmp_path, capsys):
    frame().to_csv(tmp_path / "t.csv", index=False)
    assert train(tmp_path / "t.csv", tmp_path, "--target", "price", *QUICK) == 0
    frame().rename(columns={"city": "City "}).to_csv(tmp_path / "new.csv", index=False)
    capsys.readouterr()
    said = refused(capsys, "predict", tmp_path, tmp_path / "new.csv")
    assert "lacks columns that the model was trained on: city (near it: City); give them" in said


def test_a_text_target_for_values_and_values_for_classes(tmp_path, capsys):
    frame().to_csv(tmp_path / "t.csv", index=False)
    line = "train", tmp_path / "t.csv", "--target", "city", "--task", "regression"
    said = refused(capsys, *line)
    assert re.search("row 1 of column city .* regression needs numbers; --task class", said)
    line = "train", tmp_path / "t.csv", "--target", "price", "--task", "classification"
    assert "has 40 classes in 40 samples, which are too many" in refused(capsys, *line)


def test_a_column_of_the_model_that_was_left_out_may_lack(tmp_path):
    frame().assign(note="").to_csv(tmp_path / "t.csv", index=False)
    assert train(tmp_path / "t.csv", tmp_path, "--target", "price", *QUICK) == 0
    assert "note" in gpumlp.load(tmp_path / "model.safetensors", device="cpu").feature_names_in_
    frame().to_csv(tmp_path / "new.csv", index=False)
    out = tmp_path / "out.npy"
    assert run("predict", tmp_path, tmp_path / "new.csv", "--out", out, "--device", "cpu") == 0


def test_what_is_compressed_is_recognised_too(tmp_path):
    text = frame().to_csv(index=False, sep=";", decimal=",")
    with gzip.open(tmp_path / "t.csv.gz", "wt", encoding="cp1252") as file:
        file.write(text)
    samples = loaded(tmp_path / "t.csv.gz", "price")
    np.testing.assert_array_equal(samples.y, frame()["price"])
    assert list(samples.x["city"]) == list(frame()["city"])


def test_objects_of_parquet_predict_as_they_train(tmp_path):
    rows = range(40)
    made = pandas.DataFrame(
        {
            "clock": [datetime.time(i % 24) for i in rows],
            "span": pandas.to_timedelta(list(rows), unit="h"),
            "flag": pandas.array([None if i == 3 else i % 2 == 0 for i in rows], "boolean"),
            "whole": pandas.array([None if i == 5 else i for i in rows], "Int64"),
            "cost": [Decimal(i) / 4 for i in rows],
            "kind": pandas.Categorical(["a", "b"] * 20),
            "y": np.arange(40) + 0.5,
        }
    )
    made.to_parquet(tmp_path / "t.parquet")
    options = ["--target", "y", *QUICK, "--test", tmp_path / "t.parquet"]
    assert train(tmp_path / "t.parquet", tmp_path / "run", *options) == 0
    out = tmp_path / "out.npy"
    line = "predict", tmp_path / "run", tmp_path / "t.parquet", "--out", out, "--device", "cpu"
    assert run(*line) == 0
    model = gpumlp.load(tmp_path / "run" / "model.safetensors", device="cpu")
    kinds = {each.label: each.kind for each in model.preparation_.columns}
    assert kinds == dict.fromkeys(list(made)[:5], "number") | {"kind": "category"}
    np.testing.assert_allclose(np.load(out)[:, 0], model.predict(made.drop(columns="y")), rtol=1e-5)
