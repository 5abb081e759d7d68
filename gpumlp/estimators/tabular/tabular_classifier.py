"""TabularClassifier."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import check_is_fitted

from gpumlp.estimators import contents
from gpumlp.estimators.tabular import preset
from gpumlp.estimators.tabular.preset import NetworkParams
from gpumlp.estimators.tabular.tabular_base import BaseTabular, HeldOut
from gpumlp.functions.loss import losses

CALIBRATION_ROWS = 50_000  # at most, by which the temperature is found
PRIOR_ROWS = 5.0  # so many rows' worth of belief in a temperature of 1
TINY = 1e-30


def tempered(p: np.ndarray, temperature: float) -> np.ndarray:
    """p^(1/T) / Σ p^(1/T) of probabilities (…, classes), in float64."""
    q = np.maximum(p.astype(np.float64), TINY) ** (1 / temperature)
    return q / q.sum(axis=-1, keepdims=True)


class TabularClassifier(ClassifierMixin, BaseTabular):
    """Classifies the rows of a table, which may hold numbers, categories, text, dates and missing
    values, by an ensemble of multilayer perceptrons.

    X is a pandas or polars data frame or an array, as it is: see `gpumlp.estimators.tabular` for
    what becomes of its columns.  The networks are the members of one stack; each holds another fold
    of a stratified cross-validation out, and is kept as it was after the epoch in which it was best
    there.  Their probabilities are averaged.

    Parameters
    ----------
    n_models : int, default=8
        Networks, and folds.
    hidden_layer_sizes : "auto", int or sequence of int, default="auto"
        Units of the hidden layers; "auto" is three layers of 128, of 10,000 rows or more of 256.
    max_epochs : "auto" or int, default="auto"
        Epochs of training, over which the learning rate's schedule extends; "auto" is a million
        divided by the number of rows, from 16 to 128.
    batch_size : "auto" or int, default="auto"
        Rows of a minibatch; "auto" is 64, 128 or 256, by the number of rows.
    learning_rate : float, default=0.0025
        Of AdamW.
    categorical_features : "from_dtype", None, or list, default="from_dtype"
        Columns that are categories.  Text is in any case; "from_dtype": so is what has a
        categorical dtype; a mask, positions or names: so are those columns, of numbers too; None:
        no others.
    time_limit : float, default=None
        Seconds that a fit may take, about: fewer epochs are made, as many as the first ones show to
        be possible.
    class_weight : None, "balanced" or dict, default=None
        Weights of classes in the training loss; multiplies sample_weight.
    callbacks : list of gpumlp.Callback, default=None
        They see the trainer of the stack, and its history; of a regressor with several quantiles
        those of one stack after the other.  A `gpumlp.Checkpoint` is what `gpumlp.resume` goes on
        from.
    device : str, default="auto"
        "auto", "cpu", "cuda" or "cuda:1".
    dtype : {"float32", "float64"}, default="float32"
        Of the networks.
    random_state : None, int, Generator or RandomState, default=None
        Of folds, weights, orders and dropout.
    verbose : bool, default=False
        Show a bar with the time that is left.
    network_params : dict, default=None
        Further numbers of the networks: activation, dropout, weight_decay, beta2, label_smoothing,
        schedule, scale_rate, bias_rate, schedule_decay; see
        gpumlp/estimators/tabular/preset.py.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels in ascending order.
    n_features_in_, feature_names_in_
        Of the columns of X.
    preparation_ : Preparation
        What becomes of the columns: `columns`, `dropped`, `names` of the features.
    histories_ : list of History
        Losses, epoch by epoch, of the one stack that was trained.
    temperature_ : float
        T of the probabilities p^(1/T) / Σ p^(1/T) of each network, by which the log loss on the
        rows that it did not see is least (Guo et al. 2017).
    best_epochs_ : ndarray of shape (n_models,)
        The epoch that each network is of.
    validation_scores_ : ndarray of shape (n_models,)
        Accuracy of each network on the rows that it did not see.
    oof_prediction_ : ndarray of shape (n_samples, n_classes)
        Probabilities of each training row by the network that did not see it; without X_val.  With
        n_models=1 those of an eighth of the rows, and NaN.

    Examples
    --------
    >>> model = gpumlp.TabularClassifier(random_state=0).fit(frame, frame.pop("income"))
    >>> model.predict_proba(new_frame)
    """

    _classes = True
    _preset = preset.CLASSES
    _no_targets = contents.NO_LABELS

    def __init__(
        self,
        *,
        n_models=8,
        hidden_layer_sizes="auto",
        max_epochs="auto",
        batch_size="auto",
        learning_rate=0.0025,
        categorical_features="from_dtype",
        time_limit=None,
        class_weight=None,
        callbacks=None,
        device="auto",
        dtype="float32",
        random_state=None,
        verbose=False,
        network_params=None,
    ):
        self.n_models = n_models
        self.hidden_layer_sizes = hidden_layer_sizes
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.categorical_features = categorical_features
        self.time_limit = time_limit
        self.class_weight = class_weight
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
    ) -> TabularClassifier:
        """Train on a table and the class of each row.

        Parameters
        ----------
        X : data frame or array of shape (n_samples, n_columns)
            Columns of any kind.
        y : array-like of shape (n_samples,)
            Labels: text, numbers or booleans.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows in the loss.
        X_val, y_val, sample_weight_val : default=None
            A validation set, instead of folds.

        Returns
        -------
        TabularClassifier
            This estimator.
        """
        self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val))
        return self

    def _learn_coding(self, y: np.ndarray, weight: np.ndarray | None) -> None:
        contents.refuse_labels(y, "y", "TabularRegressor")
        self.classes_ = np.unique(y)

    def _coded(self, y: np.ndarray, name: str) -> np.ndarray:
        contents.refuse_labels(y, name, "TabularRegressor")
        places = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        unknown = np.unique(y[self.classes_[places] != y])
        if len(unknown):
            raise ValueError(f"{name} has classes {unknown.tolist()} that y has not")
        return places.astype(np.int32)

    def _losses(self, params: NetworkParams) -> list[Any]:
        return [losses["cross_entropy"](label_smoothing=params.label_smoothing)]

    @property
    def _outputs(self) -> tuple[int, str]:
        return max(2, len(self.classes_)), "softmax"

    def _weights(self, y: np.ndarray, weight: np.ndarray | None) -> np.ndarray | None:
        if self.class_weight is None:
            return weight
        of_class = compute_class_weight(
            self.class_weight, classes=self.classes_, y=self.classes_[y]
        )
        of_row = of_class[y].astype(self.dtype)
        return of_row if weight is None else of_row * weight

    def _calibrate(self, parts: list[HeldOut]) -> None:
        # Label smoothing leaves networks less sure than they may be.
        y = np.concatenate([part.y for part in parts])
        some = slice(None, None, -(-len(y) // CALIBRATION_ROWS))
        y = y[some]
        p = np.concatenate([part.outputs[0][0] for part in parts])[some]
        weights = [part.loss_weight for part in parts if part.loss_weight is not None]
        weight = np.concatenate(weights)[some] if weights else np.ones(len(y))
        if not weight.any():
            weight = np.ones(len(y))
        logarithm = np.log(np.maximum(p.astype(np.float64), TINY))
        right = logarithm[np.arange(len(y)), y]

        def cost(log_temperature: float) -> float:
            T = math.exp(log_temperature)
            loss = np.average(logsumexp(logarithm / T, axis=1) - right / T, weights=weight)
            return float(loss + PRIOR_ROWS / len(y) * log_temperature**2)

        found = minimize_scalar(cost, bounds=(-3, 3), method="bounded")
        self.temperature_ = math.exp(found.x)

    def _pooled(self, outputs: list[np.ndarray]) -> np.ndarray:
        members = tempered(outputs[0], self.temperature_)
        probability = members.mean(axis=0)[:, : len(self.classes_)]
        probability /= probability.sum(axis=1, keepdims=True)
        return probability.astype(outputs[0].dtype)

    def _fold_score(self, y: np.ndarray, predicted: np.ndarray, weight: Any) -> float:
        return float(accuracy_score(y, predicted.argmax(axis=1), sample_weight=weight))

    # ------------------------------------------------------------ predicting
    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, (n_samples, n_classes), in the order of `classes_`."""
        return self._pooled(self._members(X))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row, (n_samples,)."""
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def predict_std(self, X: Any) -> np.ndarray:
        """The standard deviation of the members' probabilities, (n_samples, n_classes)."""
        return self._of_members(X).std(axis=0)

    def predict_quantiles(self, X: Any, q: Any) -> np.ndarray:
        """The quantiles q, in [0, 1], of the members' probabilities: of a number in the shape of
        `predict_proba`; of several with one more axis, the last."""
        return self._quantiles(q, self._of_members(X))

    def _of_members(self, X: Any) -> np.ndarray:
        (outputs,) = self._members(X)
        return np.array([self._pooled([one[None]]) for one in outputs])
