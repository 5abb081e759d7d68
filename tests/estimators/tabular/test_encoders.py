"""RobustSmoothScaler and PiecewiseLinearEncoder against formulas written out, number by number."""

import math

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from gpumlp.estimators.tabular.encoders import PiecewiseLinearEncoder, RobustSmoothScaler
from tests.helpers.estimator_checks import checks_of
from tests.helpers.optional import Package

pd = Package("pandas")

SIZES = [(1, 1), (2, 3), (3, 1), (37, 5), (1000, 2)]
LARGEST = np.finfo(np.float64).max


@checks_of([RobustSmoothScaler(), PiecewiseLinearEncoder(), PiecewiseLinearEncoder(n_bins=3)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


# ---------------------------------------------------------------- slow formulas
def quantile(values, q):
    """By linear interpolation between the sorted values."""
    values = sorted(values)
    place = q * (len(values) - 1)
    below = math.floor(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (place - below) * (values[above] - values[below])


def scaled(x, values):
    """x by the formula, with the statistics of the values."""
    values = [v for v in values if not math.isnan(v)]
    if not values:
        return math.nan if math.isnan(x) else 0.0
    scale = quantile(values, 0.75) - quantile(values, 0.25)
    if scale == 0:
        scale = (max(values) - min(values)) / 2
    if scale == 0:
        return math.nan if math.isnan(x) else 0.0
    s = (x - quantile(values, 0.5)) / scale
    return s / math.sqrt(1 + (s / 3) ** 2)


def edges_of(values, n_bins, max_distinct):
    values = [v for v in values if not math.isnan(v)]
    distinct = sorted(set(values))
    if 0 < len(distinct) <= max_distinct:
        return distinct
    edges = {quantile(values, t / n_bins) for t in range(n_bins + 1)} if values else set()
    lost = n_bins + 1 - len(edges)
    if lost and max_distinct:
        rest = [v for v in values if values.count(v) <= len(values) / n_bins]
        if len(rest) > 1:
            edges |= {quantile(rest, t / (lost + 1)) for t in range(lost + 2)}
    return sorted(edges)


def piecewise(x, edges):
    if len(edges) < 3:
        return []
    features = []
    for t in range(len(edges) - 1):
        p = 0.0 if math.isnan(x) else (x - edges[t]) / (edges[t + 1] - edges[t])
        low = -1.0 if t == 0 else 0.0
        high = 2.0 if t == len(edges) - 2 else 1.0
        features.append(min(max(p, low), high))
    return features


def numbers(shape, kind, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=shape) * 10.0 ** rng.integers(-3, 4, shape[1])
    if kind == "tied":
        X = np.where(rng.random(shape) < 0.4, 0.0, X)
    elif kind == "whole":
        X = np.round(rng.normal(size=shape) * 3)
    elif kind == "missing":
        X = np.where(rng.random(shape) < 0.3, np.nan, X)
    elif kind == "mostly one":
        X = np.where(rng.random(shape) < 0.9, 7.0, X)
    return X


KINDS = ["plain", "tied", "whole", "missing", "mostly one"]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SIZES)
def test_scaler_is_its_formula(shape, kind, dtype):
    X, other = (numbers(shape, kind, seed).astype(dtype) for seed in (0, 1))
    scaler = RobustSmoothScaler().fit(X)
    for rows in (X, 100 * other):
        expected = [[scaled(float(x), X[:, j].tolist()) for j, x in enumerate(row)] for row in rows]
        out = scaler.transform(rows)
        assert out.dtype == dtype
        tolerance = 1e-12 if dtype == np.float64 else 1e-5
        np.testing.assert_allclose(out, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_bins, max_distinct", [(16, 32), (5, 0), (3, 4), (8, 2)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SIZES)
def test_encoder_is_its_formula(shape, kind, n_bins, max_distinct, dtype):
    X, other = (numbers(shape, kind, seed).astype(dtype) for seed in (0, 1))
    encoder = PiecewiseLinearEncoder(n_bins, max_distinct).fit(X)
    edges = [edges_of(column.tolist(), n_bins, max_distinct) for column in X.T.astype(float)]
    for mine, expected in zip(encoder.edges_, edges, strict=True):
        assert len(mine) == len(expected)
        np.testing.assert_allclose(mine, expected, rtol=1e-6)
        assert (np.diff(mine) > 0).all()
    for rows in (X, other):
        expected = [
            [p for x, e in zip(row, encoder.edges_, strict=True) for p in piecewise(float(x), e)]
            for row in rows
        ]
        out = encoder.transform(rows)
        assert out.dtype == dtype and len(encoder.get_feature_names_out()) == out.shape[1]
        np.testing.assert_allclose(out, np.reshape(expected, out.shape), rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------- single properties
def test_scaled_numbers_keep_their_order_below_three():
    X = np.sort(np.random.default_rng(0).standard_cauchy(size=(500, 1)), axis=0)
    out = RobustSmoothScaler().fit_transform(X)
    assert (np.diff(out[:, 0]) > 0).all() and (np.abs(out) < 3).all()


def test_scale_without_interquartile_range_is_half_the_range():
    scaler = RobustSmoothScaler().fit([[0.0]] * 8 + [[6.0]])
    assert scaler.center_ == 0 and scaler.scale_ == 3


def test_constant_columns_give_zero_whatever_they_hold_later():
    scaler = RobustSmoothScaler().fit([[2.0, np.nan], [2.0, np.nan]])
    assert scaler.scale_.tolist() == [0, 0]
    out = scaler.transform([[5.0, 5.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(out, [[0, 0], [np.nan, np.nan]])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_extreme_numbers(dtype):
    """At the ends of the dtype, and as near to each other as it goes."""
    largest, tiny = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    X = np.array([[-largest, 0], [-1, tiny], [0, 2 * tiny], [1, 3 * tiny], [largest, 1]], dtype)
    out = RobustSmoothScaler().fit_transform(X)
    assert np.isfinite(out).all() and (np.diff(out, axis=0) >= 0).all()
    far = RobustSmoothScaler().fit([[0.0], [1.0]]).transform(np.array([[largest]], dtype))
    np.testing.assert_allclose(far, 3)
    for max_distinct in (0, 32):
        encoder = PiecewiseLinearEncoder(4, max_distinct).fit(X)
        assert all(np.isfinite(edges).all() for edges in encoder.edges_)
        assert np.isfinite(encoder.transform(X)).all()


def test_missing_numbers():
    X = [[0.0], [1.0], [2.0], [np.nan]]
    assert PiecewiseLinearEncoder().fit(X).edges_[0].tolist() == [0, 1, 2]
    assert PiecewiseLinearEncoder().fit_transform(X)[3].tolist() == [0, 0]
    assert np.isnan(RobustSmoothScaler().fit_transform(X)[3, 0])


def test_names():
    frame = pd.DataFrame({"a": [0.0, 1, 2], "b": [0.0, 0, 1], "c": [5.0, 6, 7]})
    encoder = PiecewiseLinearEncoder().fit(frame)
    assert encoder.get_feature_names_out().tolist() == ["a_bin0", "a_bin1", "c_bin0", "c_bin1"]
    assert RobustSmoothScaler().fit(frame).get_feature_names_out().tolist() == ["a", "b", "c"]
    out = make_pipeline(RobustSmoothScaler(), encoder).set_output(transform="pandas")
    assert list(out.fit_transform(frame).columns) == ["a_bin0", "a_bin1", "c_bin0", "c_bin1"]


def test_names_of_columns_without_names():
    encoder = PiecewiseLinearEncoder().fit([[0.0], [1.0], [2.0]])
    assert encoder.get_feature_names_out().tolist() == ["x0_bin0", "x0_bin1"]
    assert encoder.get_feature_names_out(["a"]).tolist() == ["a_bin0", "a_bin1"]
    with pytest.raises(ValueError, match="input_features"):
        encoder.get_feature_names_out(["a", "b"])


@pytest.mark.parametrize("argument", ["n_bins", "max_distinct"])
@pytest.mark.parametrize("value", [-1, 2.5, "many", None, True])
def test_parameters_are_checked(argument, value):
    with pytest.raises(ValueError, match=f"{argument} = .* must be a whole number"):
        PiecewiseLinearEncoder(**{argument: value}).fit([[1.0]])


def test_infinity_is_refused():
    for transformer in (RobustSmoothScaler(), PiecewiseLinearEncoder()):
        with pytest.raises(ValueError, match="infinity"):
            transformer.fit([[1.0], [np.inf]])


def test_transform_before_fit():
    for transformer in (RobustSmoothScaler(), PiecewiseLinearEncoder()):
        with pytest.raises(NotFittedError):
            transformer.transform([[1.0]])
