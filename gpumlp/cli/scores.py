"""How good predictions are, beside those of a model that knows nothing: scikit-learn's measures."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

MOST_SHOWN = 20  # classes of which each is shown


def baseline_of(y: np.ndarray, classes: np.ndarray | None) -> Any:
    """What knows nothing: the class of most training samples, or the mean of their values."""
    if classes is None:
        return y.mean(axis=0)
    labels, counts = np.unique(y, return_counts=True)
    return labels[counts.argmax()]


def score(
    y: np.ndarray,
    predicted: np.ndarray,
    probability: np.ndarray | None,
    classes: np.ndarray | None,
    baseline: Any,
) -> dict[str, Any]:
    """The scores by name; those that are not finite are left out."""
    # Squares may be beyond float64; a class may be absent.
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if classes is None:
            found = _of_values(y.reshape(len(y), -1), predicted.reshape(len(y), -1), baseline)
        else:
            assert probability is not None, "classes have probabilities"
            found = _of_classes(y, predicted, probability, classes, baseline)
    keep = {
        name: value
        for name, value in found.items()
        if not isinstance(value, float) or np.isfinite(value)
    }
    return keep


def _of_values(y, predicted, baseline) -> dict[str, Any]:
    squares, spread = (predicted - y) ** 2, ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    by_mean = (y - baseline) ** 2
    varied = spread > 0  # a target that is constant here has no R²

    def r2(errors) -> float:
        return (
            float((1 - errors.sum(axis=0)[varied] / spread[varied]).mean())
            if any(varied)
            else np.nan
        )

    return {
        "R²": r2(squares),
        "RMSE": float(np.sqrt(squares.mean())),
        "MAE": float(np.abs(predicted - y).mean()),
        "baseline": r2(by_mean),
        "baseline RMSE": float(np.sqrt(by_mean.mean())),
        "baseline MAE": float(np.abs(y - baseline).mean()),
    }


def _of_classes(y, predicted, probability, classes, baseline) -> dict[str, Any]:
    from sklearn import metrics

    names = classes.astype(str).tolist()
    found: dict[str, Any] = {
        "accuracy": float(metrics.accuracy_score(y, predicted)),
        "baseline": float((y == baseline).mean()),
        "majority": str(baseline),
        "balanced accuracy": float(metrics.balanced_accuracy_score(y, predicted)),
    }
    shares = probability / probability.sum(axis=1, keepdims=True)
    codes = np.searchsorted(classes, y)
    try:
        if len(classes) == 2:
            found["AUC"] = float(metrics.roc_auc_score(codes, shares[:, 1]))
        else:
            numbers = np.arange(len(classes))
            options = {"multi_class": "ovr", "labels": numbers}
            found["AUC"] = float(metrics.roc_auc_score(codes, shares, **options))
    except ValueError:  # a class is not there
        pass
    chosen = shares[np.arange(len(y)), codes].astype(np.float64)
    found["log loss"] = float(-np.log(chosen.clip(np.finfo(shares.dtype).eps)).mean())
    report = metrics.precision_recall_fscore_support(y, predicted, labels=classes, zero_division=0)
    rows = zip(names, *(column.tolist() for column in report), strict=True)
    titles = ("precision", "recall", "f1", "samples")
    found["classes"] = {name: dict(zip(titles, values, strict=True)) for name, *values in rows}
    confusion = metrics.confusion_matrix(y, predicted, labels=classes)
    found["confusion"] = {"classes": names, "rows": confusion.tolist()}
    return found


def lines(found: dict[str, Any], where: str, weighted: bool = False) -> list[str]:
    """The scores as text; where: which samples they are of; weighted: whether classes were."""
    out = []

    def line(name: str, end: str = "") -> None:
        if name in found:
            out.append(f"{name:10}{found[name]:#.4g} {where}{end}")

    if "accuracy" not in found:
        line("R²")
        line("baseline", ", the R² of the training samples' mean")
        for name in ("RMSE", "MAE"):
            known = f"baseline {name}" in found
            line(name, f"; baseline {found[f'baseline {name}']:#.4g}" if known else "")
        return out
    line("accuracy")
    line("baseline", f", the accuracy of the majority, {found['majority']}")
    for name in ("AUC", "log loss"):
        line(name)
    out.insert(2, f"balanced  {found['balanced accuracy']:#.4g} {where}: the mean recall")
    if len(found["classes"]) <= MOST_SHOWN:
        out += _table(found)
    return out + _sentences(found, weighted)


def _table(found: dict[str, Any]) -> list[str]:
    """Each class, and the confusion matrix: a row for each class that is true."""
    width = max(5, *(len(name) for name in found["classes"]))
    cells = [str(n) for row in found["confusion"]["rows"] for n in row]
    wide = max(map(len, cells)) + 1
    out = [
        f"{'class':{width}} precision recall    f1 samples  predicted as each class in this order"
    ]
    pairs = zip(found["classes"].items(), found["confusion"]["rows"], strict=True)
    for (name, values), row in pairs:
        counts = "".join(f"{n:{wide}}" for n in row)
        out.append(
            f"{name:{width}} {values['precision']:9.3f} {values['recall']:6.3f} "
            f"{values['f1']:5.3f} {values['samples']:7} {counts}"
        )
    return out


def _sentences(found: dict[str, Any], weighted: bool) -> list[str]:
    """What should not be overlooked."""
    rows = np.array(found["confusion"]["rows"])
    hint = "; --class-weight balanced gives each class the same weight in training"
    hint = "." if weighted else f"{hint}."
    if (rows.sum(axis=0) > 0).sum() == 1:
        only = found["confusion"]["classes"][int(rows.sum(axis=0).argmax())]
        return [f"The model says {only} for every sample: the classes are unbalanced{hint}"]
    if found["accuracy"] <= found["baseline"]:
        return [f"The accuracy is no better than the baseline{hint}"]
    return []
