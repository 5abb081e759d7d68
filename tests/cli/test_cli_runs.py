"""What a run says of itself, what it leaves, and what it never touches."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import gpumlp
from tests.helpers.commandline import blobs, refused, run, train
from tests.helpers.optional import where_installed
from tests.helpers.waiting import HANGS, until

pandas = pytest.importorskip("pandas", reason="tables need pandas: pip install gpumlp[table]")
pytest.importorskip("pyarrow", reason="tables need pyarrow: pip install gpumlp[table]")

QUICK = ["--epochs", 2, "--hidden", 8]
FILES = {"model.safetensors", "config.json", "metrics.json", "history.jsonl", "predictions.csv"}
FILES |= set(where_installed("matplotlib", {"curves.png": 0}))


def adult(rows=300):
    """In the form of the census of 1994: '?' for missing, blanks after commas, a text target."""
    rng = np.random.default_rng(1)
    age = rng.integers(17, 90, rows)
    lines = ["age, workclass, education-num, capital-gain, native-country, income"]
    for each in age:
        work = rng.choice(["Private", "State-gov", "?"], p=[0.8, 0.15, 0.05])
        gain = rng.choice([0, 0, 0, 7688, 99999])
        country = rng.choice(["United-States", "Mexico", "?"], p=[0.9, 0.08, 0.02])
        income = ">50K" if each + rng.normal(0, 10) > 60 or gain else "<=50K"
        lines.append(f"{each}, {work}, {rng.integers(1, 17)}, {gain}, {country}, {income}")
    return "\n".join(lines)


def flights(rows=600):
    """In the form of the flights of New York: one in twelve is late, and little says which."""
    rng = np.random.default_rng(2)
    frame = pandas.DataFrame(
        {
            "time_hour": pandas.date_range("2013-01-01 05:00", periods=rows, freq="7h"),
            "carrier": rng.choice(["UA", "B6", "AA", "DL"], rows),
            "origin": rng.choice(["EWR", "LGA", "JFK"], rows),
            "distance": rng.integers(80, 5000, rows),
            "dep_time": rng.choice([*range(500, 2300, 7), np.nan], rows),
        }
    )
    late = rng.random(rows) < 0.02 + 0.15 * (frame["carrier"] == "B6")
    return frame.assign(late=np.where(late, "yes", "no"))


def diamonds(rows=300):
    rng = np.random.default_rng(3)
    carat = rng.uniform(0.2, 2.5, rows).round(2)
    cut = rng.choice(["Fair", "Good", "Ideal"], rows)
    price = (4000 * carat**1.5 * (1 + 0.1 * (cut == "Ideal"))).round().astype(int)
    return pandas.DataFrame({"carat": carat, "cut": cut, "x": 4 + 2 * carat, "price": price})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "adult.csv").write_text(adult())
    flights().to_parquet(folder / "flights.parquet", index=False)
    diamonds().to_csv(folder / "diamonds.csv", index=False)
    x, y = blobs()
    np.savez(folder / "blobs.npz", X=x, y=y)
    return folder


# ------------------------------------------------------------------ honesty


def test_a_run_leaves_what_there_is_to_know(folder, tmp_path, capsys):
    options = ["--target", "income", "--epochs", 6, "--hidden", 16]
    assert train(folder / "adult.csv", tmp_path / "run", *options) == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    printed = capsys.readouterr().out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    for name in ("accuracy", "baseline", "AUC", "log loss"):
        assert re.search(rf"^{name} +{metrics[name]:#.4g} on the held-out fifth", printed, re.M)
    assert f"the accuracy of the majority, {metrics['majority']}" in printed
    assert f"balanced  {metrics['balanced accuracy']:#.4g}" in printed
    counts = np.array(metrics["confusion"]["rows"])
    assert counts.sum() == 60 and np.trace(counts) == pytest.approx(60 * metrics["accuracy"])
    assert metrics["classes"][">50K"]["samples"] == counts[1].sum()
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["target"] == "income" and config["options"]["epochs"] == 6
    lines = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in lines]
    assert [each["epoch"] for each in epochs] == [1, 2, 3, 4, 5, 6]
    assert not {"loss", "val_loss"} & epochs[0].keys()  # labels are smoothed in those
    assert len(epochs[0]["val_loss_with_smoothed_labels"]) == 8
    with open(tmp_path / "run" / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    right = [row["actual"] == row["label"] for row in rows]
    assert np.mean(right) == pytest.approx(metrics["accuracy"])
    shares = np.array([[row["<=50K"], row[">50K"]] for row in rows], dtype=float)
    actual = np.array([row["actual"] for row in rows]) == ">50K"
    loss = -np.log(shares[np.arange(60), actual.astype(int)]).mean()
    assert loss == pytest.approx(metrics["log loss"], rel=1e-4)


def test_losses_without_smoothing_are_named_so(folder, tmp_path):
    options = ["--target", "price", *QUICK]
    assert train(folder / "diamonds.csv", tmp_path / "a", *options) == 0
    assert train(folder / "blobs.npz", tmp_path / "b", *QUICK, "--label-smoothing", 0) == 0
    for name in ("a", "b"):
        line = (tmp_path / name / "history.jsonl").read_text().splitlines()[0]
        assert {"loss", "val_loss", "lr", "seconds"} <= json.loads(line).keys()


def test_values_have_a_baseline(folder, tmp_path, capsys):
    options = ["--target", "price", "--epochs", 12, "--hidden", 32]
    assert train(folder / "diamonds.csv", tmp_path, *options) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["R²"] > 0.5 > 0.1 > metrics["baseline"]
    held = pandas.read_csv(tmp_path / "predictions.csv")
    rest = diamonds().drop(index=held["row"] - 1)["price"]
    errors = (held["actual"] - rest.mean()).abs()
    assert metrics["baseline MAE"] == pytest.approx(errors.mean(), rel=1e-6)
    assert metrics["MAE"] == pytest.approx((held["actual"] - held["value"]).abs().mean(), rel=1e-4)
    assert "baseline" in printed and "the R² of the training samples' mean" in printed
    assert re.search(r"^RMSE +[\d.e+]+ on the held-out fifth; baseline [\d.e+]+$", printed, re.M)


def test_a_model_that_says_one_class_only_is_pointed_out(folder, tmp_path, capsys):
    options = ["--target", "late", *QUICK]
    assert train(folder / "flights.parquet", tmp_path / "a", *options) == 0
    said = "The model says no for every sample: the classes are unbalanced; --class-weight balanced"
    assert said in capsys.readouterr().out
    assert train(folder / "flights.parquet", tmp_path / "b", *options,
                 "--class-weight", "balanced") == 0  # fmt: skip
    assert said not in capsys.readouterr().out
    metrics = [json.loads((tmp_path / n / "metrics.json").read_text()) for n in "ab"]
    assert metrics[0]["balanced accuracy"] == 0.5 < metrics[1]["balanced accuracy"]
    assert train(folder / "blobs.npz", tmp_path / "c", "--class-weight", "balanced", *QUICK) == 0


def test_files_to_test_and_to_validate_with(folder, tmp_path, capsys):
    frame = diamonds()
    for name, rows in {
        "train": slice(0, 200),
        "valid": slice(200, 240),
        "test": slice(240, 300),
    }.items():
        frame[rows].to_csv(tmp_path / f"{name}.csv", index=False)
    options = ["--target", "price", "--valid", tmp_path / "valid.csv", "--epochs", 4]
    options += ["--test", tmp_path / "test.csv", "--hidden", 16]
    assert train(tmp_path / "train.csv", tmp_path / "run", *options) == 0
    printed = capsys.readouterr().out
    assert "200 to train, 40 to validate, 60 held out" in printed
    assert f"on {tmp_path / 'test.csv'}" in printed
    held = pandas.read_csv(tmp_path / "run" / "predictions.csv")
    assert list(held["actual"]) == list(frame["price"][240:])
    model = gpumlp.TabularRegressor(hidden_layer_sizes=(16,), max_epochs=4, random_state=0,
                                    device="cpu")  # fmt: skip
    parts = [frame[:200], frame[200:240]]
    (x, y), (x_val, y_val) = [(part.drop(columns="price"), part["price"]) for part in parts]
    model.fit(x, y.astype(float), X_val=x_val, y_val=y_val.astype(float))
    expected = model.predict(frame[240:].drop(columns="price"))
    np.testing.assert_allclose(held["value"], expected, rtol=1e-4)


def test_arrays_have_such_files_too(folder, tmp_path, capsys):
    x, y = blobs(150)
    for name, rows in {
        "train": slice(0, 90),
        "valid": slice(90, 120),
        "test": slice(120, 150),
    }.items():
        np.savez(tmp_path / f"{name}.npz", X=x[rows], y=y[rows])
    options = ["--valid", tmp_path / "valid.npz", "--test", tmp_path / "test.npz", *QUICK]
    assert train(tmp_path / "train.npz", tmp_path / "run", *options) == 0
    assert "90 to train, 30 to validate, 30 held out" in capsys.readouterr().out
    assert run("evaluate", tmp_path / "run", tmp_path / "test.npz", "--device", "cpu") == 0
    accuracy = json.loads((tmp_path / "run" / "metrics.json").read_text())["accuracy"]
    assert f"accuracy  {accuracy:#.4g} on" in capsys.readouterr().out
    np.savez(tmp_path / "wide.npz", X=np.ones((9, 5)), y=np.arange(9) % 3)
    np.savez(tmp_path / "values.npz", X=x, y=y + 0.5)
    np.savez(tmp_path / "other.npz", X=x, y=y + 1)
    for name, says in [("wide", "has 5 features"), ("values", "holds numbers"), ("other", "3")]:
        said = refused(capsys, "train", tmp_path / "train.npz", "--test", tmp_path / f"{name}.npz")
        assert says in said and name in said


def test_cross_validation(folder, tmp_path, capsys):
    assert train(folder / "adult.csv", tmp_path, "--target", "income", "--cv", 3, *QUICK) == 0
    printed = capsys.readouterr().out
    assert "300 to train, in folds\n" in printed and "by 3-fold cross-validation" in printed
    held = pandas.read_csv(tmp_path / "predictions.csv")
    assert sorted(held["row"]) == list(range(1, 301))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx((held["actual"] == held["label"]).mean())
    assert metrics["of"] == "by 3-fold cross-validation"
    assert len(gpumlp.load(tmp_path / "model.safetensors", device="cpu").oof_prediction_) == 300


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["diamonds.csv", "--target", "price", "--label-smoothing", "0.1"], "is for classes"),
        (["diamonds.csv", "--target", "price", "--class-weight", "balanced"], "is for classes"),
        (["diamonds.csv", "--target", "price", "--optimizer", "sgd"], "sgd is for arrays"),
        (["diamonds.csv", "--target", "price", "--precision", "tf32"], "tf32 is for arrays"),
        (["diamonds.csv", "--target", "price", "--cv", "3", "--test", "x"], "--cv and --test"),
        (["diamonds.csv", "--target", "price", "--cv", "3", "--valid", "x"], "--cv and --valid"),
        (["diamonds.csv", "--target", "price", "--cv", "1"], "2 or more, not '1'"),
        (["diamonds.csv", "--target", "price", "--overwrite"], "--overwrite needs --out"),
        (["diamonds.csv", "--target", "Price"], "no column Price (near it: price)"),
        (["diamonds.csv", "--target", "price", "--test", "adult.csv"], "has no column price"),
        (["diamonds.csv", "--target", "price", "--test", "blobs.npz"], "is no table"),
        (["diamonds.csv", "--target", "price", "--target", "x"], "--target: there can be one only"),
        (["diabetes", "--label-smoothing", "0.1"], "is for classes"),
        (["blobs.npz", "--cv", "3"], "--cv is for tables"),
        (["blobs.npz", "--drop-missing-target"], "--drop-missing-target is for tables"),
        (["blobs.npz", "--hidden", "none", "--activation", "tanh"], "--hidden none leaves them"),
        (["flights.parquet", "--target", "late", "--sep", ";"], "--sep is for tables of text"),
    ],
)
def test_options_without_effect_are_refused(options, says, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert says in refused(capsys, "train", *options, "--device", "cpu")
    assert not Path("runs").exists()


# ------------------------------------------------------------------ safety


def test_a_run_has_a_folder_of_its_own(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = "train", folder / "diamonds.csv", "--target", "price", "--device", "cpu", *QUICK
    for number in ("", "-2", "-3"):
        assert run(*line) == 0
        assert f"model     runs/diamonds{number}/model.safetensors" in capsys.readouterr().out
    before = Path("runs/diamonds/model.safetensors").read_bytes()
    said = refused(capsys, *line, "--out", "runs/diamonds", "--seed", 4)
    assert "runs/diamonds holds a run already: --overwrite replaces it" in said
    assert Path("runs/diamonds/model.safetensors").read_bytes() == before
    assert run(*line, "--out", "runs/diamonds", "--seed", 4, "--overwrite") == 0
    assert Path("runs/diamonds/model.safetensors").read_bytes() != before
    # What is in a folder besides is no run.
    Path("other").mkdir()
    Path("other/notes.txt").write_text("mine")
    assert run(*line, "--out", "other") == 0
    assert Path("other/notes.txt").read_text() == "mine"


def ended(folder, out, name, code="", options=()):
    """A training of a table that gets the signal as code has it."""
    program = f"import os, signal, sys\nNAME = signal.{name}\n{textwrap.dedent(code)}\n"
    program += "from gpumlp.cli import main\nsys.exit(main(sys.argv[1:]))"
    line = ["train", folder / "diamonds.csv", "--target", "price", "--device", "cpu", *options]
    line += ["--out", out] if out else []
    command = [sys.executable, "-c", program, *map(str, [*line, *QUICK])]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=HANGS, cwd=folder, env=environment
    )


BEFORE = """
    from gpumlp.estimators.tabular import tabular_base
    prepared = tabular_base.BaseTabular._prepared
    def signalled(*arguments):
        os.kill(os.getpid(), NAME)
        return prepared(*arguments)
    tabular_base.BaseTabular._prepared = signalled
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_before_the_first_epoch_nothing_is_saved_and_nothing_touched(name, folder, tmp_path):
    assert train(folder / "diamonds.csv", tmp_path, "--target", "price", *QUICK) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = ended(folder, tmp_path, name, BEFORE, ["--overwrite"])
    assert done.returncode == 130 and done.stderr.endswith("gpumlp: interrupted\n")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    done = ended(folder, None, name, BEFORE)
    assert done.returncode == 130 and "Traceback" not in done.stderr
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("file", ["diamonds.csv", "blobs.npz"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_later_the_best_so_far_is_saved(file, name, folder, tmp_path):
    target = ["--target", "price"] if file.endswith("csv") else ["--patience", "1000000"]
    options = [*target, "--epochs", "1000000", "--hidden", "8", "--device", "cpu"]
    command = [sys.executable, "-m", "gpumlp", "train", folder / file, *options, "--out", tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(lambda: b"val_loss" in process.stderr.read1())
        process.send_signal(getattr(signal, name))
        printed, complaint = process.communicate(timeout=HANGS)
    assert process.returncode == 0, complaint.decode()
    assert b"the network trained so far is saved" in printed
    files = FILES | {"checkpoint.json", "checkpoint.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == files


# ------------------------------------------------------------------ output


@pytest.fixture(scope="module")
def model(folder):
    options = ["--target", "income", *QUICK]
    assert train(folder / "adult.csv", folder / "model", *options) == 0
    return folder / "model"


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("size", [1 << 22, 1])
def test_predictions_have_ids_and_named_probabilities(
    model, folder, tmp_path, suffix, size, monkeypatch
):
    """In one piece, or in many."""
    monkeypatch.setattr("gpumlp.cli.predict.PIECE", size)
    monkeypatch.setattr("gpumlp.cli.predict.ROWS", 7)
    frame = pandas.read_csv(folder / "adult.csv", skipinitialspace=True)
    frame.insert(0, "id", [f"{i:05}" for i in range(len(frame))])
    frame.to_csv(tmp_path / "new.csv", index=False)
    out = tmp_path / f"out.{suffix}"
    line = "predict", model, tmp_path / "new.csv", "--device", "cpu", "--out", out
    assert run(*line, "--keep", "id", "--keep", "income", "--proba") == 0
    read = {
        "csv": lambda path: pandas.read_csv(path, dtype={"id": str}),
        "parquet": pandas.read_parquet,
        "jsonl": lambda path: pandas.read_json(path, lines=True, dtype={"id": str}),
    }
    found = read[suffix](out)
    assert list(found) == ["id", "income", "label", "<=50K", ">50K"]
    assert list(found["id"]) == list(frame["id"]) and list(found["income"]) == list(frame["income"])
    np.testing.assert_allclose(found["<=50K"] + found[">50K"], 1, atol=1e-5)
    assert np.array_equal(found["label"] == ">50K", found[">50K"] > found["<=50K"])
    fitted = gpumlp.load(model / "model.safetensors", device="cpu")
    frame = pandas.read_csv(folder / "adult.csv", skipinitialspace=True, na_values="?")
    shares = fitted.predict_proba(frame.drop(columns="income"))
    np.testing.assert_allclose(found["<=50K"], shares[:, 0], atol=1e-5)


def test_a_column_to_keep_that_is_not_there(model, folder, capsys):
    said = refused(capsys, "predict", model, folder / "adult.csv", "--keep", "Age")
    assert "has no column Age (near it: age)" in said
    np.save(folder / "x.npy", blobs()[0])
    assert train(folder / "blobs.npz", folder / "arrays", *QUICK) == 0
    capsys.readouterr()
    said = refused(capsys, "predict", folder / "arrays", folder / "x.npy", "--keep", "a")
    assert "--keep is for tables" in said


def test_the_target_among_the_columns_is_not_looked_at(model, folder, capsys):
    assert run("predict", model, folder / "adult.csv", "--device", "cpu") == 0
    printed, said = capsys.readouterr()
    assert printed.splitlines()[0] == "label" and len(printed.splitlines()) == 301
    assert "column income of" in said and "is what the model predicts: it is not looked" in said


@pytest.mark.parametrize("of_table", [True, False])
def test_export(of_table, model, folder, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime", reason="it runs what is exported")
    pytest.importorskip("onnx", reason="it writes what is exported")
    out = tmp_path / "out.onnx"
    if of_table:
        assert run("export", model, out) == 0
        assert onnxruntime.InferenceSession(out).get_inputs()[0].name
        return
    x, _ = blobs()
    np.savez(tmp_path / "values.npz", X=x, y=np.stack([3 * x[:, 0] + 5, -x[:, 1]], axis=1))
    for name, data in (("labels", folder / "blobs.npz"), ("values", tmp_path / "values.npz")):
        assert train(data, tmp_path / name, "--epochs", 3, "--activation", "prelu") == 0
        assert run("export", tmp_path / name, out) == 0
        np.save(tmp_path / "x.npy", x)
        npz = tmp_path / "out.npz"
        proba = ["--proba"] if name == "labels" else []
        assert run("predict", tmp_path / name, tmp_path / "x.npy", "--out", npz, *proba) == 0
        expected = np.load(npz)["probability" if proba else "value"]
        (found,) = onnxruntime.InferenceSession(out).run(["y"], {"x": x})
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    capsys.readouterr()
    assert "must end in .onnx" in refused(capsys, "export", model, tmp_path / "out.txt")
