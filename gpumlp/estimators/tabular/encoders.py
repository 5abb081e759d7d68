"""Transformers of numbers for networks: a robust scaling with smooth clipping, and the piecewise
linear encoding."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from gpumlp.utils import checks

LIMIT = 3.0  # of what RobustSmoothScaler gives
FARTHEST = 1e300  # scaled numbers beyond it count as this one, as infinity would make NaN
FLOATS = (np.float64, np.float32)


class _NumberTransformer(TransformerMixin, BaseEstimator):
    """Takes float32 and float64, in which NaN is a missing number, and keeps the dtype."""

    n_features_in_: int

    def _check(self, X: Any, *, reset: bool) -> np.ndarray:
        return validate_data(self, X, reset=reset, dtype=FLOATS, ensure_all_finite="allow-nan")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class RobustSmoothScaler(OneToOneFeatureMixin, _NumberTransformer):
    """Scale numbers by median and interquartile range, and clip them smoothly to (-3, 3).

    With s = (x - median) / IQR,

        x -> s / sqrt(1 + (s / 3)^2)

    so that outliers are near 3 or -3, in their order, and the rest hardly moves.  Where the
    interquartile range is 0, half the range takes its place.  A constant column gives 0, whatever
    it holds later.

    NaN counts as missing: `fit` leaves it out, `transform` passes it on; a column that was NaN
    throughout gives 0 where it has a number.  float32 stays float32; the arithmetic is in float64.

    Attributes
    ----------
    center_ : ndarray of shape (n_features,)
        The median of each column; 0 where there are no numbers.
    scale_ : ndarray of shape (n_features,)
        What numbers are divided by: the interquartile range, or (max - min) / 2 where that is 0.  0
        marks a constant column.
    n_features_in_ : int
        The number of columns.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        The names of the columns, where they have names that are text.

    References
    ----------
    D. Holzmüller, L. Grinsztajn, I. Steinwart, Better by Default: Strong Pre-Tuned MLPs and Boosted
    Trees on Tabular Data, NeurIPS 2024.

    Examples
    --------
    >>> from gpumlp import RobustSmoothScaler
    >>> scaler = RobustSmoothScaler().fit([[1.0], [2.0], [3.0], [1000.0]])
    >>> scaler.transform([[1.0], [2.5], [1000.0], [1e9]]).round(2).ravel().tolist()
    [-0.01, 0.0, 2.4, 3.0]
    """

    center_: np.ndarray
    scale_: np.ndarray

    def fit(self, X: Any, y: Any = None) -> RobustSmoothScaler:
        """Take the median and the scale of each column.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Numbers, NaN where one is missing.
        y : None
            Ignored.

        Returns
        -------
        self : RobustSmoothScaler
        """
        X = self._check(X, reset=True).astype(np.float64, copy=False)
        with warnings.catch_warnings(), np.errstate(over="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)  # columns without a number
            q1, median, q3 = np.nanquantile(X, [0.25, 0.5, 0.75], axis=0)
            half = np.nanmax(X, axis=0) / 2 - np.nanmin(X, axis=0) / 2
            scale = np.where(q3 > q1, q3 - q1, half)
        self.center_ = np.nan_to_num(median)
        self.scale_ = np.nan_to_num(scale)  # a range beyond the floats is the largest of them
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Scale numbers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Numbers, NaN where one is missing.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            In (-3, 3), or NaN.
        """
        check_is_fitted(self)
        X = self._check(X, reset=False)
        out = np.empty(X.shape, X.dtype)
        write_scaled(X, self.center_, self.scale_, out)
        return out


class PiecewiseLinearEncoder(_NumberTransformer):
    """Encode each number by how far it reaches into each bin of its column.

    With edges e_0 < e_1 < ... < e_T a number x becomes the T features

        p_t = (x - e_t) / (e_{t+1} - e_t), clipped to [0, 1]

    but the first is clipped to [-1, 1] and the last to [0, 2], so that numbers a little outside of
    the edges are told from them.  A linear layer on top is a piecewise linear function of x.

    The edges are quantiles; equal ones count once, and where they fall together, as a value takes
    more than its bin, quantiles of the rest of the column take the place of those lost.  A column
    of few distinct values has an edge at each of them.  A column with fewer than 3 edges gives no
    features, as its number says as much.

    NaN counts as missing: `fit` leaves it out, `transform` makes zeros of it.  float32 stays
    float32; the arithmetic is in float64.

    Parameters
    ----------
    n_bins : int, default=16
        How many bins quantiles make.
    max_distinct : int, default=32
        Columns of at most so many distinct values have an edge at each.  0: all edges are plain
        quantiles, and those that fall together are not replaced.

    Attributes
    ----------
    edges_ : list of n_features arrays
        The edges of each column in ascending order.
    n_features_in_ : int
        The number of columns.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        The names of the columns, where they have names that are text.

    References
    ----------
    Y. Gorishniy, I. Rubachev, A. Babenko, On Embeddings for Numerical Features in Tabular Deep
    Learning, NeurIPS 2022.

    Examples
    --------
    >>> from gpumlp import PiecewiseLinearEncoder
    >>> encoder = PiecewiseLinearEncoder().fit([[1.0], [2.0], [4.0]])
    >>> encoder.transform([[0.5], [3.0], [9.0]]).tolist()
    [[-0.5, 0.0], [1.0, 0.5], [1.0, 2.0]]
    """

    edges_: list[np.ndarray]

    def __init__(self, n_bins: int = 16, max_distinct: int = 32) -> None:
        self.n_bins = n_bins
        self.max_distinct = max_distinct

    def fit(self, X: Any, y: Any = None) -> PiecewiseLinearEncoder:
        """Find the edges of each column.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Numbers, NaN where one is missing.
        y : None
            Ignored.

        Returns
        -------
        self : PiecewiseLinearEncoder

        Raises
        ------
        ValueError
            If n_bins or max_distinct are no such numbers.
        """
        n_bins = checks.number(self.n_bins, "n_bins", checks.COUNT)
        max_distinct = checks.number(self.max_distinct, "max_distinct", checks.NATURAL)
        X = self._check(X, reset=True)
        self.edges_ = [_edges(column, n_bins, max_distinct) for column in X.T]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Encode numbers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Numbers, NaN where one is missing.

        Returns
        -------
        ndarray of shape (n_samples, n_bins of all columns)
            The columns' features, one column after the other.
        """
        check_is_fitted(self)
        X = self._check(X, reset=False)
        out = np.empty((len(X), sum(map(bin_count, self.edges_))), X.dtype)
        write_piecewise(X, self.edges_, out)
        return out

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Name the features: the column's name, and which of its bins.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            The columns' names; by default those of `fit`, or x0, x1, ...

        Returns
        -------
        ndarray of str objects
        """
        check_is_fitted(self)
        names = OneToOneFeatureMixin.get_feature_names_out(self, input_features)
        return np.array(piecewise_names(names, self.edges_), dtype=object)


def _edges(column: np.ndarray, n_bins: int, max_distinct: int) -> np.ndarray:
    """The edges of a column, ascending; none where there are no numbers."""
    column = column[~np.isnan(column)].astype(np.float64)
    if not len(column):
        return column
    edges = _quantiles(column, n_bins + 1)
    if not max_distinct:
        return edges
    values, counts = np.unique(column, return_counts=True)
    if len(values) <= max_distinct:
        return values
    lost = n_bins + 1 - len(edges)
    if lost:
        rest = column[np.isin(column, values[counts > len(column) / n_bins], invert=True)]
        if len(rest) > 1:
            edges = np.union1d(edges, _quantiles(rest, lost + 2))  # so many beside its ends
    return edges


def _quantiles(column: np.ndarray, count: int) -> np.ndarray:
    """So many from the least to the greatest, the distinct ones of them."""
    with np.errstate(over="ignore", invalid="ignore"):  # a range beyond the floats
        quantiles = np.quantile(column, np.linspace(0, 1, count))
    return np.unique(quantiles[np.isfinite(quantiles)])


def bin_count(edges: np.ndarray) -> int:
    """How many features a column with these edges has."""
    return len(edges) - 1 if len(edges) > 2 else 0


def piecewise_names(names: Any, edges: list[np.ndarray]) -> list[str]:
    """The names of the features of columns with these names and edges."""
    pairs = zip(names, edges, strict=True)
    return [f"{name}_bin{t}" for name, column in pairs for t in range(bin_count(column))]


def write_scaled(X: np.ndarray, center: np.ndarray, scale: np.ndarray, out: np.ndarray) -> None:
    """out (R, n) <- s / sqrt(1 + (s / 3)^2), s = (X - center) / scale; 0 where scale is 0."""
    varies = scale > 0
    with np.errstate(over="ignore"):
        s = np.subtract(X, center, dtype=np.float64)
        np.divide(s, scale, out=s, where=varies)
    np.clip(s, -FARTHEST, FARTHEST, out=s)
    s *= varies
    s /= np.hypot(1.0, s / LIMIT)
    out[...] = s


def write_piecewise(X: np.ndarray, edges: list[np.ndarray], out: np.ndarray) -> None:
    """out (R, bins of all columns) <- the piecewise linear encoding of X (R, n)."""
    end = 0
    for x, e in zip(X.T, edges, strict=True):
        start, end = end, end + bin_count(e)
        if start == end:
            continue
        low, high = np.zeros(end - start), np.ones(end - start)
        low[0], high[-1] = -1, 2
        with np.errstate(over="ignore", invalid="ignore"):
            p = np.subtract(x[:, np.newaxis], e[:-1], dtype=np.float64)
            p /= np.diff(e)
        np.clip(p, low, high, out=p)
        missing = np.isnan(p)
        if missing.any():
            p[missing] = 0
        out[:, start:end] = p
