"""MLPRegressor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if

from gpumlp.estimators import array_io, contents
from gpumlp.estimators.base import BaseMLP, is_ensemble, is_stochastic
from gpumlp.estimators.constructed import keep, with_defaults
from gpumlp.estimators.input_checks import QUIET
from gpumlp.functions import loss as losses
from gpumlp.functions import sklearn_losses as reported

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import DTypeLike

    from gpumlp.estimators.validation import Samples
    from gpumlp.functions.loss import Loss
    from gpumlp.training.callback import Callback
    from gpumlp.utils.aliases import (
        ActivationLike,
        Array,
        Data,
        Features,
        LossLike,
        PerNetwork,
        RandomState,
        ScheduleLike,
        Scoring,
    )

# The output that fits a loss; others take any number.
OUTPUTS = {
    "poisson": "exp",
    "poisson_deviance": "exp",
    "binary_cross_entropy": "logistic",
    "cross_entropy": "softmax",
    "kl_divergence": "softmax",
    "focal": "softmax",
}


@with_defaults
class MLPRegressor(RegressorMixin, BaseMLP):
    """A multilayer perceptron predicts numbers, on a GPU where there is one.

    The class has the parameters, defaults, methods and attributes of
    sklearn.neural_network.MLPRegressor and, in float64 on the CPU, its numbers.

    Parameters
    ----------
    loss : str or Loss, default "squared_error"
        "squared_error", "poisson", a name of `gpumlp.losses`, or an object such as
        gpumlp.losses["huber"](delta=0.5).  Reported are ½ (ŷ - y)² as a mean over outputs,
        half the Poisson deviance and the others as a sum over outputs.
    hidden_layer_sizes : int or sequence of int, default (100,)
        Units of each hidden layer.
    activation : str, Activation, or a list of them, default "relu"
        Of the hidden layers: a name of `gpumlp.activations` or an object, or one for each
        of them.
    solver : {"adam", "sgd", "lbfgs"}, default "adam"
    alpha : float, default 1e-4
        The L2 penalty ½ alpha ‖W‖², divided by the batch's sum of sample weights.
    batch_size : int or "auto", default "auto"
        Samples of a minibatch; "auto" is min(200, n_samples).
    learning_rate : {"constant", "invscaling", "adaptive"}, default "constant"
        Of "sgd": "invscaling" is learning_rate_init / t^power_t after t samples; "adaptive"
        divides by 5 where else the fit would end.
    learning_rate_init : float, default 1e-3
        The initial learning rate.
    power_t : float, default 0.5
        The exponent of "invscaling".
    max_iter : int, default 200
        Epochs at most; of "lbfgs", iterations.
    shuffle : bool, default True
        Whether each epoch takes the samples in a new order.
    random_state : int, RandomState, Generator or None, default None
        Of initial weights, order, dropout and what is held out; a numpy.random.Generator or
        RandomState moves on.
    tol : float, default 1e-4
        The fit ends when the loss has not fallen, or with early_stopping the score has not
        risen, by tol for more than n_iter_no_change epochs.
    verbose : bool or int, default False
        True is a bar in a terminal or notebook, else a line for each epoch; 2, always
        lines.
    warm_start : bool, default False
        Whether `fit` begins with the weights that are there.
    momentum : float, default 0.9
        Of "sgd".
    nesterovs_momentum : bool, default True
        Of "sgd": whether the momentum is Nesterov's.
    early_stopping : bool, default False
        Whether to hold out samples, stop by their score, and go back to the weights of the
        best one.
    validation_fraction : float, default 0.1
        The share of the samples that early_stopping holds out.
    beta_1 : float, default 0.9
        Of "adam", β₁ of `gpumlp.Adam`.
    beta_2 : float, default 0.999
        Of "adam", β₂.
    epsilon : float, default 1e-8
        Of "adam", ε.
    n_iter_no_change : int or inf, default 10
        See `tol`.
    max_fun : int, default 15000
        Evaluations of the loss at most, of "lbfgs".
    quantile : float, default 0.5
        Which one loss="quantile" predicts, in (0, 1).
    device : str, default "auto"
        "cpu", "cuda", "cuda:1", ...; the environment variable GPUMLP_DEVICE says what
        "auto" is.
    dtype : {None, "float32", "float64"}, default None
        None: float32 data stay float32; float64 data are computed in float64 on the CPU,
        which gives scikit-learn's numbers, and in float32 on a GPU.
    precision : {"float32", "tf32", "bf16"}, default "float32"
        Of the matrix products on a GPU, see `gpumlp.MLP`; the last two are for float32,
        which is then the dtype.
    output_activation : str, Activation or None, default None
        None is what fits the loss.
    l1 : float, default 0
        The L1 penalty l1 ‖W‖₁, divided as alpha is.
    weight_decay : float, default 0
        Decoupled weight decay, with "adam".
    dropout : float or sequence of float, default 0
        The probability to drop a hidden unit, or one for each hidden layer.
    schedule : str, Schedule, Plateau, callable or None, default None
        A name or object of `gpumlp.schedules`, or a function of the updates' numbers.
    clip_norm : float or None, default None
        Gradients with a larger norm are shortened to it.
    scoring : str, callable or None, default None
        What early_stopping watches: None is R², "loss" the validation loss, else any metric
        of scikit-learn by name, or a function (estimator, X, y).
    callbacks : list of Callback or None, default None
        Such as gpumlp.EarlyStopping; they see the engine's trainer and history.
    keep_optimizer : bool, default False
        Whether, with warm_start, the optimiser's state goes on too.
    n_models : int or None, default None
        An ensemble of so many networks, trained in one pass and averaged in predictions.
        Member m has the seed random_state + m, early stopping of its own, and is the
        network that would be trained alone with it; learning_rate_init, alpha, l1,
        weight_decay and dropout may have a value for each (dropout as an array (n_models,)
        or (n_models, hidden layers); a list is for layers).
    bootstrap : bool, default False
        Whether each member trains on its own sample of the rows, drawn with replacement;
        the rows that early_stopping watches are held out before, so that none is on both
        sides.
    max_features : int, float or None, default None
        How many features, or which share of them, each member sees.

    Attributes
    ----------
    coefs_ : list of (N_{k-1}, N_k) arrays
        The weights of each layer; may be changed and set.
    intercepts_ : list of (N_k,) arrays
        The biases of each layer; may be changed and set.
    out_activation_ : str
        The output's activation; may be set.
    n_features_in_, n_outputs_, n_layers_ : int
        Features, outputs, and layers with the input.
    feature_names_in_ : (n_features_in_,) array of str
        Where all names of X's columns are strings.
    n_iter_ : int
        Epochs of the last fit.
    t_ : int
        Samples seen in training.
    loss_ : float
        The loss of the last epoch; of an ensemble, the members' mean.
    best_loss_ : float or None
        The lowest loss of an epoch; None with early_stopping.
    loss_curve_ : list of float
        The loss of each epoch.
    validation_scores_ : list of float or None
        The score of the validation set after each epoch.
    best_validation_score_ : float or None
        The highest of these.
    validation_loss_curve_ : list of float or None
        The loss of the validation set after each epoch, without penalties.
    converged_ : bool
        Whether the fit, or a row of partial_fits, has met its tolerance.
    estimators_ : list
        With n_models: the members as fitted estimators, which have the weights and curves.
    estimators_samples_, estimators_features_ : list of array or None
        With n_models: the rows and columns of each member, None for all.
    estimators_held_out_ : list of array or None
        With n_models: the rows held out beforehand, None without bootstrap.
    diverged_ : (n_models,) array of bool
        With n_models: those that have no say in the predictions.
    """

    _y_numeric = True
    _no_targets = contents.NO_VALUES

    def __init__(
        self,
        loss: LossLike = "squared_error",
        hidden_layer_sizes: int | Sequence[int] | np.ndarray = (100,),
        activation: ActivationLike | Sequence[ActivationLike] = "relu",
        *,
        solver: str = "adam",
        alpha: PerNetwork = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: PerNetwork = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: RandomState | None = None,
        tol: float = 1e-4,
        verbose: int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        quantile: float = 0.5,
        device: str = "auto",
        dtype: DTypeLike | None = None,
        precision: str = "float32",
        output_activation: ActivationLike | None = None,
        l1: PerNetwork = 0.0,
        weight_decay: PerNetwork = 0.0,
        dropout: PerNetwork = 0.0,
        schedule: ScheduleLike | None = None,
        clip_norm: float | None = None,
        scoring: Scoring | None = None,
        callbacks: Sequence[Callback] | None = None,
        keep_optimizer: bool = False,
        n_models: int | None = None,
        bootstrap: bool = False,
        max_features: float | None = None,
    ) -> None:
        keep(self, locals())

    def fit(
        self,
        X: Features,
        y: Data,
        sample_weight: Data | None = None,
        *,
        X_val: Features | None = None,
        y_val: Data | None = None,
        sample_weight_val: Data | None = None,
    ) -> MLPRegressor:
        """Train the network on samples X with targets y.

        Parameters
        ----------
        X : (n_samples, n_features) array-like or sparse matrix
            NumPy's, on the host, or on the GPU that trains; data frames too.
        y : (n_samples,) array-like, or (n_samples, n_outputs)
            Numbers.
        sample_weight : (n_samples,) array-like, optional
            The weight of each sample, 0 or more; None is 1.
        X_val, y_val, sample_weight_val : array-like, optional
            A validation set of your own, and its weights; early_stopping then holds nothing out.

        Returns
        -------
        MLPRegressor
            The fitted estimator itself.

        Raises
        ------
        ValueError
            For parameters and data that cannot be used, such as NaN, and where the loss or its
            gradient became NaN or infinite.
        """
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val), incremental=False)

    @available_if(is_stochastic)
    def partial_fit(
        self,
        X: Features,
        y: Data,
        sample_weight: Data | None = None,
        *,
        X_val: Features | None = None,
        y_val: Data | None = None,
        sample_weight_val: Data | None = None,
    ) -> MLPRegressor:
        """Train for one epoch, from the weights and the optimiser's state that are there.

        Parameters
        ----------
        X, y, sample_weight
            As of `fit`.
        X_val, y_val, sample_weight_val : array-like, optional
            A validation set; with early_stopping, `converged_` tells when its score no longer
            rises, and the best weights are back in place then.

        Returns
        -------
        MLPRegressor
            The estimator itself.
        """
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val), incremental=True)

    def _encoded(
        self, y: np.ndarray, dtype: DTypeLike, first: bool, incremental: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._encoded_again(y, dtype)

    def _encoded_again(self, y: np.ndarray, dtype: DTypeLike) -> tuple[np.ndarray, np.ndarray]:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        with QUIET():
            return y, y.astype(dtype).reshape(len(y), -1)

    def _outputs_of(self, encoded: np.ndarray) -> int:
        return encoded.shape[1]

    def _training_weight(self, samples: Samples) -> np.ndarray | None:
        return samples.weight

    def _loss_and_output(self, dtype: DTypeLike) -> tuple[Loss, Any]:
        loss = losses.find(self.loss)
        if self.loss == "squared_error":
            loss = reported.squared_error(self.n_outputs_)
        elif self.loss == "poisson":
            loss = reported.poisson()
        elif self.loss == "quantile":
            loss = loss(q=self.quantile)
        output = self.output_activation
        return loss, OUTPUTS.get(loss.name, "identity") if output is None else output

    def predict(self, X: Features) -> Array:
        """Predict the numbers of each sample.

        Parameters
        ----------
        X : (n_samples, n_features) array-like or sparse matrix

        Returns
        -------
        (n_samples,) array, or (n_samples, n_outputs) for several
            On the side that X is on.
        """
        return array_io.back(self._from_outputs(self._outputs(X)), X)

    @available_if(is_ensemble)
    def predict_std(self, X: Features) -> Array:
        """Return the standard deviation of the members' predictions, with n_models.

        Returns
        -------
        (n_samples,) array, or (n_samples, n_outputs)
            As `predict`.
        """
        return self._over_members(X, lambda outputs: self._from_outputs(outputs.std(axis=0)))

    @available_if(is_ensemble)
    def predict_quantiles(self, X: Features, q: float | Sequence[float]) -> Array:
        """Return quantiles of the members' predictions, with n_models.

        Parameters
        ----------
        X : (n_samples, n_features) array-like or sparse matrix
        q : float or sequence of float
            In [0, 1].

        Returns
        -------
        array
            As `predict`; for several q with one more axis for them, the last.
        """
        return self._quantiles(X, q, self._from_outputs)

    def score(self, X: Features, y: Data, sample_weight: Data | None = None) -> float:
        """Return R², the coefficient of determination, of `predict` on samples X with targets y."""
        y, predicted, weight = map(array_io.host, (y, self.predict(X), sample_weight))
        return r2_score(y, predicted, sample_weight=weight)

    def _from_outputs(self, outputs: Array) -> Array:
        return outputs.ravel() if self.n_outputs_ == 1 else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
