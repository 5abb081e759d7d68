"""TabularRegressor."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import mean_pinball_loss, r2_score
from sklearn.utils.validation import check_is_fitted

from gpumlp.estimators import contents
from gpumlp.estimators.tabular import preset
from gpumlp.estimators.tabular.preset import NetworkParams
from gpumlp.estimators.tabular.tabular_base import BaseTabular
from gpumlp.functions.loss import losses


def ranks(levels: Any) -> np.ndarray:
    """The place of each level in ascending order."""
    return np.argsort(np.argsort(levels, kind="stable"), kind="stable")


class TabularRegressor(RegressorMixin, BaseTabular):
    """Predicts a number for each row of a table, which may hold numbers, categories, text, dates
    and missing values, by an ensemble of multilayer perceptrons.

    X is a pandas or polars data frame or an array, as it is: see `gpumlp.estimators.tabular` for
    what becomes of its columns.  The networks are the members of one stack; each holds another fold
    of a cross-validation out, and is kept as it was after the epoch in which it was best there.
    Targets are standardised, and what the networks say is averaged and kept within the range of the
    targets that were seen.

    Parameters
    ----------
    quantile : None, float or sequence of float, default=None
        None: the mean is predicted, by the squared error.  A number in (0, 1): that quantile of the
        targets, by the pinball loss.  Several: each of them, by a stack of networks each, in an
        order that never crosses; `predict` has then one column for each.
    n_models, hidden_layer_sizes, max_epochs, batch_size, learning_rate, categorical_features, \
time_limit, callbacks, device, dtype, random_state, verbose, network_params
        See `TabularClassifier`.

    Attributes
    ----------
    n_features_in_, feature_names_in_, preparation_
        See `TabularClassifier`.
    histories_ : list of History
        Losses, epoch by epoch, of each stack: one, or one for each quantile.
    best_epochs_ : ndarray of shape (n_models,), or (n_quantiles, n_models)
        The epoch that each network is of.
    validation_scores_ : ndarray of shape (n_models,)
        R² of each network on the rows that it did not see; with `quantile` the negative mean
        pinball loss.
    oof_prediction_ : ndarray of shape (n_samples,), or (n_samples, n_quantiles)
        The prediction of each training row by the network that did not see it; without X_val.  With
        n_models=1 those of an eighth of the rows, and NaN.

    Examples
    --------
    >>> model = gpumlp.TabularRegressor(quantile=[0.1, 0.5, 0.9]).fit(frame, price)
    >>> low, median, high = model.predict(new_frame).T
    """

    _preset = preset.VALUES
    _no_targets = contents.NO_VALUES | {
        "text": "convert it to numbers, by .astype(float), or use TabularClassifier"
    }
    _levels: Any
    _centre: float
    _scale: float
    _range: tuple[float, float]

    def __init__(
        self,
        *,
        quantile=None,
        n_models=8,
        hidden_layer_sizes="auto",
        max_epochs="auto",
        batch_size="auto",
        learning_rate=0.0025,
        categorical_features="from_dtype",
        time_limit=None,
        callbacks=None,
        device="auto",
        dtype="float32",
        random_state=None,
        verbose=False,
        network_params=None,
    ):
        self.quantile = quantile
        self.n_models = n_models
        self.hidden_layer_sizes = hidden_layer_sizes
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.categorical_features = categorical_features
        self.time_limit = time_limit
        self.callbacks = callbacks
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose
        self.network_params = network_params

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> TabularRegressor:
        """Train on a table and the value of each row.

        Parameters
        ----------
        X : data frame or array of shape (n_samples, n_columns)
            Columns of any kind.
        y : array-like of shape (n_samples,)
            Numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows in the loss.
        X_val, y_val, sample_weight_val : default=None
            A validation set, instead of folds.

        Returns
        -------
        TabularRegressor
            This estimator.
        """
        self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val))
        return self

    def _learn_coding(self, y: np.ndarray, weight: np.ndarray | None) -> None:
        y = y.astype(np.float64)
        seen = y if weight is None else y[weight > 0]
        unit = float(np.abs(seen).max()) or 1.0  # squares of very large or small numbers are none
        mean = np.average(y / unit, weights=weight)
        variance = np.average((y / unit - mean) ** 2, weights=weight)
        self._centre, self._scale = float(mean * unit), float(np.sqrt(variance) * unit) or 1.0
        self._range = float(seen.min()), float(seen.max())
        levels = None if self.quantile is None else np.asarray(self.quantile, np.float64)
        self._levels = None if levels is None else levels.tolist()

    def _coded(self, y: np.ndarray, name: str) -> np.ndarray:
        y = y.astype(np.float64)
        return (y / self._scale - self._centre / self._scale).astype(self.dtype)

    def _losses(self, params: NetworkParams) -> list[Any]:
        if self._levels is None:
            return [losses["squared_error"]]
        return [losses["quantile"](q=level) for level in np.atleast_1d(self._levels).tolist()]

    @property
    def _outputs(self) -> tuple[int, str]:
        return 1, "identity"

    def _values(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs (…, 1) as targets are."""
        with np.errstate(over="ignore"):
            values = outputs[..., 0].astype(np.float64) * self._scale + self._centre
        return values.clip(*self._range)

    def _pooled(self, outputs: list[np.ndarray]) -> np.ndarray:
        values = [self._values(of_stack).mean(axis=0) for of_stack in outputs]
        if np.ndim(self._levels or 0) == 0:
            return values[0]
        # A higher quantile is nowhere below a lower one.
        return np.sort(np.stack(values, axis=-1), axis=-1)[..., ranks(self._levels)]

    def _fold_score(self, y: np.ndarray, predicted: np.ndarray, weight: Any) -> float:
        # R² is that of standardised values, whose squares are numbers.
        if self._levels is None:
            predicted = self._coded(predicted, "y")
            return float(r2_score(y, predicted, sample_weight=weight)) if len(y) > 1 else np.nan
        return self._pinball_score(self._values(y[:, None]), predicted, weight)

    def _pinball_score(self, y: np.ndarray, predicted: np.ndarray, weight: Any) -> float:
        """The negative mean pinball loss, over all quantiles."""
        pairs = zip(np.atleast_1d(self._levels), predicted.reshape(len(y), -1).T, strict=True)
        losses = [mean_pinball_loss(y, p, alpha=q, sample_weight=weight) for q, p in pairs]
        return -float(np.mean(losses))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R² of the predictions; with `quantile` the negative mean pinball loss, over all of them.

        Parameters
        ----------
        X : data frame or array of shape (n_samples, n_columns)
            Rows with the columns of `fit`.
        y : array-like of shape (n_samples,)
            Their values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows.

        Returns
        -------
        float
            The greater the better.
        """
        check_is_fitted(self)
        if self._levels is None:
            return super().score(X, y, sample_weight)
        return self._pinball_score(np.asarray(y, np.float64), self.predict(X), sample_weight)

    # ------------------------------------------------------------ predicting
    def predict(self, X: Any) -> np.ndarray:
        """The value of each row, (n_samples,); of several quantiles (n_samples, n_quantiles)."""
        return self._pooled(self._members(X))

    def predict_std(self, X: Any) -> np.ndarray:
        """The standard deviation of the members' values, in the shape of `predict`."""
        return self._of_members(X).std(axis=0)

    def predict_quantiles(self, X: Any, q: Any) -> np.ndarray:
        """The quantiles q, in [0, 1], of the members' values: how far the networks agree, not what
        targets may be (see the parameter `quantile`).  Of a number in the shape of `predict`; of
        several with one more axis, the last."""
        return self._quantiles(q, self._of_members(X))

    def _of_members(self, X: Any) -> np.ndarray:
        values = [self._values(outputs) for outputs in self._members(X)]
        return values[0] if np.ndim(self._levels or 0) == 0 else np.stack(values, axis=-1)
