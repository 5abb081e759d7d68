"""The benchmark on tables, with a table that is made up instead of those that are downloaded."""

import json
import sys

import numpy as np
import pytest

from benchmarks import tabular, tabular_data
from tests.helpers.optional import Package

pandas = Package("pandas")


def made_up(rows, classes, seed=0):
    rng = np.random.default_rng(seed)
    table = pandas.DataFrame({"x": rng.normal(size=rows), "c": rng.choice(["u", "v", None], rows)})
    y = table["x"].to_numpy() + (table["c"] == "u") + 0.1 * rng.normal(size=rows)
    table["c"] = table["c"].astype("category")
    table["target"] = np.where(y > 0.5, "yes", "no") if classes else y
    return table


@pytest.fixture
def tables(monkeypatch):
    found = {
        "kinds": (True, "target", lambda: made_up(400, True)),
        "sizes": (False, "target", lambda: made_up(400, False)),
    }
    monkeypatch.setattr(tabular_data, "TABLES", found)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["tabular", *map(str, arguments)])
    tabular.main()


def test_all_contenders_are_measured_and_compared(tables, monkeypatch, tmp_path, capsys):
    record = tmp_path / "run.jsonl"
    options = json.dumps({"n_models": 2, "hidden_layer_sizes": 16, "max_epochs": 10})
    arguments = ["--peers", "hgb", "sklearn", "--rows", 200, "--seeds", 0, 1, "--record", record]
    run(monkeypatch, *arguments, "--tables", "kinds", "sizes", "--options", options)
    shown = capsys.readouterr().out
    runs = [json.loads(line) for line in record.read_text().splitlines()]
    assert len(runs) == 3 * 2 * 2
    for one in runs:
        assert one["error"] < (0.4 if one["classes"] else 0.9)
        assert ("log loss" in one) == one["classes"]
    kinds = [r["error"] for r in runs if (r["table"], r["contender"]) == ("kinds", "gpumlp")]
    assert f"| kinds | {np.mean(kinds):.4g} |" in shown
    assert "hgb: better than hgb on 0 of 2; geometric mean of the error 1.000" in shown
    run(monkeypatch, *arguments, "--tables", "kinds", "sizes", "--options", options)
    assert len(record.read_text().splitlines()) == 12  # none was made again


def test_test_rows_are_none_of_those_that_are_trained_on(tables):
    _, (X, y, X_test, y_test) = tabular_data.split("sizes", 3, 200)
    assert len(X) == len(y) == 200
    assert len(X_test) == len(y_test) == 80
    assert not set(X["x"]) & set(X_test["x"])
    _, (other, *_) = tabular_data.split("sizes", 4, 200)
    assert set(other["x"]) != set(X["x"])


def test_figures_are_those_of_scikit_learn():
    from sklearn.metrics import log_loss, roc_auc_score

    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 90)
    y = rng.integers(0, 3, 90)
    found = tabular.figures(True, y, p)
    assert found["log loss"] == pytest.approx(log_loss(y, p))
    assert found["1 - AUC"] == pytest.approx(1 - roc_auc_score(y, p, multi_class="ovr"))
    assert found["error"] == pytest.approx(np.mean(p.argmax(axis=1) != y))
    assert tabular.figures(False, np.array([1.0, 3.0]), np.array([2.0, 3.0]))["error"] == 0.5**0.5
