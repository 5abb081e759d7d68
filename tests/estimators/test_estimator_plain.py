"""Arrays that are checked at a glance: the same results and errors as by scikit-learn's checks."""

import warnings

import numpy as np
import pytest

import gpumlp
from gpumlp.estimators import input_checks
from tests.helpers.optional import Package

pandas = Package("pandas")
ROWS, FEATURES = 37, 5


@pytest.fixture(params=["classes", "two classes", "values"])
def fitted(request):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((ROWS, FEATURES)).astype(np.float32)
    common = {"hidden_layer_sizes": (7,), "max_iter": 2, "random_state": 0, "device": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if request.param == "values":
            return gpumlp.MLPRegressor(**common).fit(X, X[:, 0])
        count = 3 if request.param == "classes" else 2
        return gpumlp.MLPClassifier(**common).fit(X, np.arange(ROWS) % count + 5)


def rows(kind):
    rng = np.random.default_rng(1)
    X = rng.integers(0, 4, (ROWS, 2 * FEATURES))
    return {
        "float64": X[:, :FEATURES] / 3,
        "float16": (X[:, :FEATURES] / 3).astype(np.float16),
        "int8": X[:, :FEATURES].astype(np.int8),
        "bool": X[:, :FEATURES] > 1,
        "foreign": (X[:, :FEATURES] / 3).astype(">f8"),
        "columns": np.asfortranarray(X[:, :FEATURES] / 3),
        "steps": (X / 3)[::-2, ::2],
        "one": X[:1, :FEATURES] / 3,
        "large": np.full((ROWS, FEATURES), 3e38),  # their sum is infinite in float32
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["float64", "float16", "int8", "bool", "foreign", "columns", "steps", "one", "large"],
)
def test_predictions_are_those_of_checked_rows(fitted, monkeypatch, kind):
    X = rows(kind)
    taken = input_checks.plain_features(X, fitted, np.dtype(np.float32))
    assert (taken is None) == (kind == "large")
    if kind == "large":
        fitted.coefs_[0][...] /= 1e20
    before = X.copy()
    results = [fitted.predict(X), fitted.transform(X)]
    monkeypatch.setattr("gpumlp.estimators.base.plain_features", lambda *_: None)
    for result, expected in zip(results, [fitted.predict(X), fitted.transform(X)], strict=True):
        np.testing.assert_array_equal(result, expected)
        assert result.dtype == expected.dtype
    np.testing.assert_array_equal(X, before)


def spoilt(value, dtype=np.float64):
    X = np.ones((3, FEATURES), dtype)
    X[1, 2] = value
    return X


@pytest.mark.parametrize(
    "X",
    [
        spoilt(np.nan),
        spoilt(-np.inf, np.float32),
        spoilt(1e39),
        np.ones((3, FEATURES + 1)),
        np.ones((0, FEATURES)),
        np.ones(FEATURES),
        np.ones((2, 3, FEATURES)),
        np.ones((3, FEATURES), complex),
        np.full((3, FEATURES), "2024-01-01", "M8[D]"),
        np.ma.masked_invalid(spoilt(np.nan)),
    ],
    ids=lambda X: f"{X.dtype}{X.shape}",
)
def test_errors_are_those_of_checked_rows(fitted, monkeypatch, X):
    def error():
        with pytest.raises((ValueError, TypeError)) as caught:
            fitted.predict(X)
        return type(caught.value), str(caught.value)

    found = error()
    monkeypatch.setattr("gpumlp.estimators.base.plain_features", lambda *_: None)
    assert found == error()


def test_names_of_features_are_compared(fitted):
    frame = pandas.DataFrame(rows("float64"), columns=list("abcde"))
    y = np.arange(ROWS) % 2 if hasattr(fitted, "classes_") else np.arange(ROWS) / 9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted.fit(frame, y)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        fitted.predict(rows("float64"))


# ------------------------------------------------------------------ labels of partial_fit


def partial_fits(y, classes, monkeypatch=None):
    """The weights after three calls, and the labels that are predicted."""
    if monkeypatch is not None:
        monkeypatch.setattr(gpumlp.MLPClassifier, "_known_codes", lambda *_: None)
    X = np.random.default_rng(2).standard_normal((len(y), 3))
    est = gpumlp.MLPClassifier((4,), random_state=1, device="cpu")
    for _ in range(3):
        est.partial_fit(X, y, classes=classes)
    return est.coefs_, est.predict(X)


@pytest.mark.parametrize("classes", [[4, 7], [-3, 4, 7, 90], [0, 1, 2]])
@pytest.mark.parametrize("dtype", [np.int64, np.int8, float, str, bool])
def test_known_labels_are_coded_as_checked_ones(monkeypatch, classes, dtype):
    classes = np.unique(np.array([dtype(label) for label in classes]))
    y = classes[np.arange(23) % len(classes)]
    coefs, labels = partial_fits(y, classes)
    expected, expected_labels = partial_fits(y, classes, monkeypatch)
    for W, other in zip(coefs, expected, strict=True):
        np.testing.assert_array_equal(W, other)
    np.testing.assert_array_equal(labels, expected_labels)
    assert labels.dtype == expected_labels.dtype == classes.dtype


@pytest.mark.parametrize("label", [3, 6, 8])  # below the known ones, between and above
def test_unknown_labels_are_refused(label):
    est = gpumlp.MLPClassifier((4,), device="cpu")
    X, y = np.ones((6, 2)), np.array([4, 7, 4, 7, 4, 7])
    est.partial_fit(X, y, classes=[4, 7])
    y[2] = label
    with pytest.raises(ValueError, match=rf"y has classes \[{label}\]"):
        est.partial_fit(X, y)


@pytest.mark.parametrize("y", [spoilt(np.nan)[:, 2], spoilt(np.inf)[:, 2]])
def test_targets_that_are_not_finite_are_refused(y):
    est = gpumlp.MLPRegressor(device="cpu").partial_fit(np.ones((3, 2)), np.arange(3.0))
    with pytest.raises(ValueError, match="y"):
        est.partial_fit(np.ones((3, 2)), y)
