"""A table that cannot be used ends the command line with one clear sentence and exit code 2."""

import importlib
import io
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import gpumlp
from tests import written
from tests.helpers.commandline import refused, run, train, without_notes

pandas = pytest.importorskip("pandas", reason="tables need pandas: pip install gpumlp[table]")
pyarrow = pytest.importorskip("pyarrow", reason="tables need pyarrow: pip install gpumlp[table]")


def lines(rows=30, **cells):
    """A table as text; each cell named like y3 replaces that of row 3, counted from 1."""
    table = ["a,word,y,label"]
    for row in range(1, rows + 1):
        odd = row % 2
        usual = {
            "a": row * row % 17,
            "word": "uv"[odd],
            "y": row + 0.5,
            "label": ("no", "yes")[odd],
        }
        table.append(
            ",".join(str(cells.get(f"{name}{row}", value)) for name, value in usual.items())
        )
    return "\n".join(table) + "\n"


def replaced(old, new):
    return lines().replace(old, new)


BAD_TABLES = {
    "no such column": (lines(), ["z"], "has no column z; it has a, word, y, label"),
    "a column without a name": (
        replaced("a,word", ",word"),
        [""],
        "argument --target: expected a name, not ''",
    ),
    "blanks for a name": (lines(), [" "], "argument --target: expected a name, not ' '"),
    "no column without a name to drop": (
        lines(),
        ["y", "--drop", ""],
        "has no column without a name; it has a, word, y, label",
    ),
    "no target": (lines(), None, r"--target says which column to predict \(a, word, y, label\)"),
    "nothing to drop": (lines(), ["y", "--drop", "z"], "has no column z"),
    "target dropped": (lines(), ["y", "--drop", "y"], "both --target and --drop"),
    "no value": (lines(y4=""), ["y"], "column y .*, the target, has no value in row 4 "),
    "NaN": (lines(y4="NaN", y9="nan"), ["y"], "has no value in row 4 and 1 more"),
    "no label": (lines(label30=""), ["label"], "column label .* no value in row 30"),
    "infinity": (lines(y2="-inf"), ["y"], "row 2 of column y .*, the target, is infinite"),
    "text in numbers": (lines(y7='"12,5"'), ["y"], "holds numbers, but '12,5' in row 7"),
    "text to regress": (
        lines(),
        ["label", "--task", "regression"],
        "row 1 of column label .*, the target, is 'yes': regression needs numbers",
    ),
    "dates": (
        re.sub(r"(\d+)\.5", "2020-01-01", lines()),
        ["y"],
        "column y .*, the target, holds dates",
    ),
    "classes of one": (
        lines(),
        ["y", "--task", "classification"],
        "column y of bad.csv has 30 classes in 30 samples, .* too many .*--task regression",
    ),
    "a class of one": (
        lines(label5="perhaps"),
        ["label"],
        "class perhaps of column label of bad.csv has a single sample; .* leave that sample out",
    ),
    "a near name": (lines(), ["Labels"], r"has no column Labels \(near it: label\); it has a,"),
    "constant text": (replaced("yes", "no"), ["label"], "a single class, no"),
    "constant": (re.sub(r"\d+\.5", "2.5", lines()), ["y"], "the same number in every sample"),
    "digits in the target": (lines(y3="9" * 400), ["y"], "row 3 of column y .* is infinite"),
    "few rows": (lines(9), ["y"], "has 9 samples; at least 10"),
    "no rows": (lines(0), ["y"], "has no rows"),
    "empty": ("", ["y"], "is empty"),
    "blank": ("\n\n", ["y"], "cannot be read"),
    "only the target": ("y\n" + "1.5\n2\n" * 9, ["y"], "no column to learn from besides y"),
    "all but it dropped": (
        lines(),
        ["y", "--drop", "a", "--drop", "word", "--drop", "label"],
        "no column to learn from besides y",
    ),
    "nothing to use": (
        "x,y\n" + ",1.5\n,2\n" * 9,
        ["y"],
        "bad: has no column to learn from: 1 without values .*--drop",
    ),
    "a long line": (lines(y9="1.5,2"), ["y"], "cannot be read .* line 10, saw 5"),
    "a short header": (replaced("a,word,", "a,"), ["y"], "first line names fewer columns"),
    "an open quote": (lines(word3='"u'), ["y"], "cannot be read .* EOF inside string"),
    "another encoding": (
        lines(word3="é").encode("latin-1"),
        ["y", "--encoding", "utf-8"],
        "cannot be read .* can't decode .* --encoding says which one",
    ),
    "binary": (b"PAR1\x15\x04\0\0" * 9, ["y"], "is not a text file"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """table.csv and table.parquet, and a model trained on them in table/; arrays and theirs."""
    folder = tmp_path_factory.mktemp("tables")
    (folder / "table.csv").write_text(lines())
    pandas.read_csv(folder / "table.csv").to_parquet(folder / "table.parquet")
    options = ["--epochs", 1, "--hidden", 4]
    assert train(folder / "table.csv", folder / "table", "--target", "y", *options) == 0
    np.savez(folder / "arrays.npz", X=np.random.default_rng(0).normal(size=(30, 2)), y=[0, 1] * 15)
    assert train(folder / "arrays.npz", folder / "arrays", *options) == 0
    return folder


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables_are_one_sentence(case, tmp_path, capsys, monkeypatch):
    content, options, says = BAD_TABLES[case]
    monkeypatch.chdir(tmp_path)
    content = content if isinstance(content, bytes) else content.encode()
    Path("bad.csv").write_bytes(content)
    target = ["--target", *options] if options else []
    assert re.search(says, refused(capsys, "train", "bad.csv", *target))


@pytest.mark.parametrize("name", ["bad.csv", "bad.tsv", "bad.csv.gz", "bad.parquet", "bad.pq"])
@pytest.mark.parametrize("content", [None, b"", b"\x00\x01", b"PAR1", b"PAR1 and no more PAR1"])
@pytest.mark.parametrize("command", ["train", "predict"])
def test_bad_files_are_one_sentence(command, content, name, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    arguments = [folder / "table/model.safetensors", name]
    if command == "train":
        arguments = [name, "--target", "y"]
    assert name in refused(capsys, command, *arguments)


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_damaged_files_are_one_sentence_or_read(name, folder, tmp_path, capsys):
    rng = np.random.default_rng(5)
    whole = np.frombuffer((folder / name).read_bytes(), np.uint8)
    outcomes = set()
    for _ in range(40):
        damaged = whole[: rng.integers(1, len(whole))] if rng.random() < 0.3 else whole.copy()
        places = rng.integers(0, len(damaged), 3)
        damaged = damaged.copy()
        damaged[places] = rng.integers(0, 256, 3)
        (tmp_path / name).write_bytes(damaged.tobytes())
        code = run("predict", folder / "table/model.safetensors", tmp_path / name)
        complaint = without_notes(capsys.readouterr().err)
        assert re.fullmatch(r"gpumlp: [^\n]+\n" if code else "", complaint)
        outcomes.add(code)
    assert outcomes <= {0, 2}
    assert 2 in outcomes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,y\n1,2\n", "lacks columns that the model was trained on: word, label"),
        ("x\n1\n", "trained on: a, word, label"),
        ("a,word,label\nmany,u,no\n", "row 1 of column a of new.csv is 'many', which is no number"),
        ("a,word,label\n", "has no rows"),
        ("a,word,label\n1,u,no\n1,u,no,2\n", "cannot be read"),
    ],
)
def test_bad_tables_to_predict_are_one_sentence(text, says, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("new.csv").write_text(text)
    assert says in refused(capsys, "predict", folder / "table/model.safetensors", "new.csv")


def test_dates_are_wanted_where_there_were_dates(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    days = pandas.date_range("2020-01-01", periods=30)
    frame = pandas.DataFrame({"day": days, "y": np.arange(30) + 0.5})
    frame.to_csv("days.csv", index=False)
    assert train("days.csv", "days", "--target", "y", "--epochs", 1) == 0
    capsys.readouterr()
    for text in ("soon", "17", "2020-13-01"):
        Path("new.csv").write_text(f"day\n{text}\n{text}\n")
        said = refused(capsys, "predict", "days/model.safetensors", "new.csv")
        assert f"row 1 of column day of new.csv is {text!r}, which is no date" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "arrays.npz", "--target", "y"], "--target is for tables"),
        (["train", "iris", "--target", "y"], "--target is for tables"),
        (["train", "iris", "--task", "regression"], "--task is for tables"),
        (["train", "iris", "--drop", "x"], "--drop is for tables"),
        (["train", "table.csv", "--target", "y", "--task", "ranking"], "invalid choice: 'ranking'"),
        (["predict", "arrays/model.safetensors", "table.csv"], "was trained on arrays"),
        (["predict", "table/model.safetensors", "arrays.npz"], "is no table"),
        (["predict", "table/model.safetensors", "table.csv", "--proba"], "predicts values"),
    ],
)
def test_tables_and_arrays_are_told_apart(arguments, says, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert says in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"columns": [1]}, "cannot be read"),
        ({"columns": {}}, "does not fit"),
        ({"columns": []}, "does not fit"),
        ({"columns": [{"name": "a", "kind": "number"}]}, "cannot be read"),
        ({"kind": "date"}, "which is no date"),
        ({"kind": "picture"}, "cannot be read"),
        ({"kind": ["number"]}, "cannot be read"),
        ({"name": 3}, "cannot be read"),
        ({"name": "bark"}, "cannot be read"),
        ({"missing": 1}, "cannot be read"),
        ({"missing": True}, "does not fit"),
        ({"texts": "uv"}, "cannot be read"),
        ({"texts": [["u"]]}, "cannot be read"),
        ({"kind": "text", "texts": ["u", "u"]}, "cannot be read"),
        ({"kind": "text", "texts": ["u", "v"]}, "does not fit"),
    ],
)
def test_a_preparation_that_makes_no_sense_is_refused(change, says, tmp_path, capsys):
    net = gpumlp.load(written.FOLDER / "cli_table.safetensors", device="cpu")
    stored = net.metadata["preparation"]
    if "columns" in change:
        stored["columns"] = change["columns"]
    else:
        stored["columns"][0] |= change
    gpumlp.save(net, tmp_path / "model.safetensors", net.metadata)
    file = written.FOLDER / "cli_table.csv"
    assert says in refused(capsys, "predict", tmp_path / "model.safetensors", file)


def without(package, *arguments):
    """Runs a command in a fresh process that cannot import the package."""
    program = textwrap.dedent(f"""
        import sys
        class Without:
            def find_spec(self, name, path=None, target=None):
                if name == {package!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}")
        sys.meta_path.insert(0, Without())
        from gpumlp.cli import main
        sys.exit(main(sys.argv[1:]))
    """)
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("package", "file"), [("pandas", "table.csv"), ("pyarrow", "table.parquet")]
)
def test_without_pandas_or_pyarrow_the_extra_is_named(package, file, folder):
    done = without(package, "train", folder / file, "--target", "y", "--device", "cpu")
    assert done.returncode == 2
    start = f'gpumlp: tables need {package}, which is missing here: pip install "gpumlp[table]"'
    assert done.stderr.startswith(start)
    assert done.stderr.count("\n") == 1


def test_csv_needs_no_pyarrow(folder, tmp_path):
    options = ["--target", "label", "--epochs", "1", "--device", "cpu", "--out", tmp_path]
    done = without("pyarrow", "train", folder / "table.csv", *options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model.safetensors").is_file()


def test_a_duplicate_name_in_parquet_is_renamed(tmp_path, capsys):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    arrays = [pyarrow.array(np.arange(12.0) + 0.5)] * 3
    parquet.write_table(pyarrow.table(arrays, names=["a", "a", "y"]), tmp_path / "bad.parquet")
    options = ["--target", "y", "--epochs", 1, "--hidden", 4]
    assert train(tmp_path / "bad.parquet", tmp_path, *options) == 0
    assert "note: another column a is called a.1" in capsys.readouterr().err


def test_a_pickle_is_refused(folder, tmp_path, capsys):
    """A pickle is no table, whatever its name."""
    stream = io.BytesIO()
    pandas.DataFrame({"a": [1.0]}).to_pickle(stream)
    for name in ("bad.csv", "bad.parquet", "bad.pkl"):
        (tmp_path / name).write_bytes(stream.getvalue())
        said = refused(capsys, "predict", folder / "table/model.safetensors", tmp_path / name)
        assert name in said


@pytest.mark.parametrize("name", ["label", "word"])
def test_text_that_is_none_in_parquet_is_one_sentence(name, tmp_path, capsys):
    """Arrow reads it, but neither pandas nor print takes it."""
    columns = {"a": np.arange(30.0), "word": ["uu", "vv"] * 15, "label": ["no", "si"] * 15}
    spoilt = pyarrow.array([b"\xc3\x28", *map(str.encode, columns[name][1:])], pyarrow.binary())
    buffers = pyarrow.Array.from_buffers(pyarrow.string(), 30, spoilt.buffers())
    table = pyarrow.table(columns | {name: buffers})
    importlib.import_module("pyarrow.parquet").write_table(table, tmp_path / "bad.parquet")
    said = refused(capsys, "train", tmp_path / "bad.parquet", "--target", "label")
    assert f"{tmp_path / 'bad.parquet'} cannot be read as a Parquet file" in said
