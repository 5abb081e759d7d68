"""`gpumlp predict` with an estimator that was saved in Python."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpumlp
from tests.helpers.commandline import refused, run
from tests.helpers.optional import Package
from tests.helpers.waiting import HANGS

pandas, pyarrow = Package("pandas"), Package("pyarrow")

NAMES = ["height", "age", "alive"]
X = np.random.default_rng(0).normal(size=(40, 3)) * [10, 1, 0.1]
X[:, 2] = X[:, 2] > 0
LABELS = np.array(["no", "yes", "maybe"], dtype=object)[(np.argsort(np.argsort(X[:, 0])) // 14)]
OPTIONS = {"hidden_layer_sizes": (5,), "max_iter": 3, "device": "cpu", "random_state": 1}
MODELS = {
    "labels": lambda: gpumlp.MLPClassifier(**OPTIONS).fit(X, LABELS),
    "numbers": lambda: gpumlp.MLPClassifier(**OPTIONS).fit(X, np.arange(40) % 2 * 7),
    "several labels": lambda: gpumlp.MLPClassifier(**OPTIONS).fit(X, (X[:, :2] > 0) * 1),
    "one class": lambda: gpumlp.MLPClassifier(**OPTIONS).fit(X, np.ones(40, int)),
    "values": lambda: gpumlp.MLPRegressor(**OPTIONS).fit(X, X[:, 0]),
    "two values": lambda: gpumlp.MLPRegressor(**OPTIONS).fit(X, X[:, :2]),
    "ensemble": lambda: gpumlp.MLPClassifier(n_models=3, **OPTIONS).fit(X, LABELS),
    "ensemble of values": lambda: gpumlp.MLPRegressor(n_models=3, **OPTIONS).fit(X, X[:, 0]),
}
pytestmark = pytest.mark.filterwarnings("ignore:.*not converged")


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", X=X)
    return tmp_path


@pytest.mark.parametrize("name", MODELS)
def test_it_predicts_what_it_does_in_python(there, capsys, name):
    estimator = MODELS[name]()
    gpumlp.save(estimator, "model")
    for out in ("out.npy", "out.npz", "out.csv"):
        assert run("predict", "model", "x.npz", "--out", out, "--device", "cpu") == 0
    expected = estimator.predict(X)
    whole = expected if expected.ndim == 2 or hasattr(estimator, "classes_") else expected[:, None]
    np.testing.assert_array_equal(np.load("out.npy"), whole)  # no pickle is needed
    with np.load("out.npz") as file:
        assert len(file.files) == 1
    with open("out.csv") as file:
        rows = list(csv.reader(file))
    written = np.array(rows[1:]).reshape(whole.shape)
    if whole.dtype.kind == "f":
        np.testing.assert_allclose(written.astype(float), whole, rtol=1e-6)
    else:
        np.testing.assert_array_equal(written, whole.astype(str))


@pytest.mark.parametrize("name", [name for name in MODELS if "values" not in name])
def test_probabilities(there, capsys, name):
    estimator = MODELS[name]()
    gpumlp.save(estimator, "model")
    options = "--proba", "--device", "cpu"
    assert run("predict", "model", "x.npz", "--out", "out.npz", *options) == 0
    expected = estimator.predict_proba(X)
    with np.load("out.npz") as found:
        np.testing.assert_allclose(found["probability"], expected, rtol=1e-6)
        np.testing.assert_array_equal(found["classes"], estimator.classes_)
    capsys.readouterr()
    assert run("predict", "model", "x.npz", *options) == 0
    header, *rows = csv.reader(capsys.readouterr().out.splitlines())
    count = expected.shape[1]
    assert header[-count:] == [str(each) for each in estimator.classes_]
    written = np.array([row[-count:] for row in rows], dtype=float)
    np.testing.assert_allclose(written, expected, atol=1e-5)


def test_probabilities_of_values_are_one_sentence(there, capsys):
    gpumlp.save(MODELS["values"](), "model")
    assert "predicts values" in refused(capsys, "predict", "model", "x.npz", "--proba")


def test_more_features_are_one_sentence(there, capsys):
    gpumlp.save(MODELS["values"](), "model")
    np.save("wide.npy", np.ones((3, 5)))
    said = refused(capsys, "predict", "model", "wide.npy")
    assert "wide.npy has 5 features; the model takes 3" in said


def test_numbers_that_are_too_large_are_one_sentence(there, capsys):
    gpumlp.save(gpumlp.MLPRegressor(dtype="float32", **OPTIONS).fit(X, X[:, 0]), "model")
    np.save("far.npy", np.full((2, 3), 1e300))
    assert "far.npy" in refused(capsys, "predict", "model", "far.npy")


def test_a_stack_is_no_model(there, capsys):
    net = gpumlp.MLP((3, 2), models=2, device="cpu")
    gpumlp.save(net, "model", metadata={"preparation": {"mean": [0, 0, 0]}})
    assert "was not saved by" in refused(capsys, "predict", "model", "x.npz")


def test_what_loading_warns_of_is_a_sentence(there):
    options = OPTIONS | {"callbacks": [gpumlp.Checkpoint(there / "checkpoints")]}
    gpumlp.save(gpumlp.MLPRegressor(**options).fit(X, X[:, 0]), "model")
    command = [sys.executable, "-m", "gpumlp", "predict", "model", "x.npz"]
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=HANGS)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("gpumlp: warning: the file's Checkpoint(")


# ------------------------------------------------------------------ tables


def frame(**columns):
    return pandas.DataFrame(dict(zip(NAMES, X.T, strict=True)) | {"alive": X[:, 2] > 0} | columns)


def written(table, name):
    table.to_csv(name, index=False) if name.endswith("csv") else table.to_parquet(name)
    return name


@pytest.mark.parametrize("file", ["new.csv", "new.parquet"])
@pytest.mark.parametrize("n_models", [None, 2])
def test_columns_are_matched_by_name(there, file, n_models):
    if file.endswith("parquet"):
        pyarrow.table  # noqa: B018 - else the test is skipped
    fitted = gpumlp.MLPRegressor(n_models=n_models, **OPTIONS).fit(frame(), X[:, 0])
    gpumlp.save(fitted, "model")
    other = frame(more="text")[["alive", "more", "height", "age"]]
    assert run("predict", "model", written(other, file), "--out", "o.npy", "--device", "cpu") == 0
    np.testing.assert_allclose(np.load("o.npy")[:, 0], fitted.predict(frame()), rtol=1e-6)
    # An array has no names: its columns are taken as they come.
    assert run("predict", "model", "x.npz", "--out", "o.npy", "--device", "cpu") == 0
    np.testing.assert_allclose(np.load("o.npy")[:, 0], fitted.predict(frame()), rtol=1e-6)


def test_without_names_a_table_of_so_many_columns_is_taken(there):
    fitted = MODELS["labels"]()
    gpumlp.save(fitted, "model")
    frame().to_csv("new.csv")  # with an index that has no name
    assert run("predict", "model", "new.csv", "--out", "o.npy", "--device", "cpu") == 0
    np.testing.assert_array_equal(np.load("o.npy"), fitted.predict(X))


TABLES = {
    "a column more": (lambda: frame(more=1.0), "has 4 columns, and the model was fitted to 3"),
    "text": (lambda: frame(age="old"), "row 1 of column age of new.csv is 'old', which is no num"),
    "dates": (lambda: frame(age=pandas.Timestamp(0)), "column age of new.csv is '1970-01-01'"),
    "no value": (lambda: frame().replace({"alive": {True: None}}), "of column alive .* no value"),
    "infinity": (lambda: frame(age=np.inf), "row 1 of column age of new.csv is infinite"),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_that_are_not_numbers_are_one_sentence(there, capsys, case):
    table, says = TABLES[case]
    gpumlp.save(MODELS["values"](), "model")
    written(table(), "new.csv")
    said = refused(capsys, "predict", "model", "new.csv")
    assert re.search(says, said)


def test_a_column_that_is_missing_is_one_sentence(there, capsys):
    gpumlp.save(gpumlp.MLPRegressor(**OPTIONS).fit(frame(), X[:, 0]), "model")
    written(frame().drop(columns="age"), "new.csv")
    said = refused(capsys, "predict", "model", "new.csv")
    assert "lacks columns that the model was trained on: age" in said
