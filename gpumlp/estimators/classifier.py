"""MLPClassifier."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from sklearn.utils.metaestimators import available_if

from gpumlp.estimators import array_io, contents
from gpumlp.estimators.base import BaseMLP, is_ensemble, is_stochastic
from gpumlp.estimators.classes import Classes
from gpumlp.estimators.constructed import keep, with_defaults
from gpumlp.estimators.fitted import labels
from gpumlp.estimators.input_checks import naming
from gpumlp.functions import activation
from gpumlp.functions import loss as losses
from gpumlp.functions import sklearn_losses as reported
from gpumlp.utils.checks import ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike

    from gpumlp.estimators.validation import Samples
    from gpumlp.functions.loss import Loss
    from gpumlp.model.mlp import MLP
    from gpumlp.training.callback import Callback
    from gpumlp.utils.aliases import (
        ActivationLike,
        Array,
        ClassWeight,
        Data,
        Features,
        LossLike,
        PerNetwork,
        RandomState,
        ScheduleLike,
        Scoring,
    )

PROBABILITIES = ("softmax", "log_softmax", "sigmoid", "hard_sigmoid")


def _gives_probabilities(estimator: Any) -> bool:
    """Whether the outputs are probabilities; else there is no predict_proba."""
    output = estimator._output_for(estimator.output_activation)
    if output is not None:
        return activation.find(output).name in PROBABILITIES
    return not estimator._is_margin


def _gives_margins(estimator: Any) -> bool:
    return not _gives_probabilities(estimator)


@with_defaults
class MLPClassifier(Classes, ClassifierMixin, BaseMLP):
    """A multilayer perceptron classifies samples, on a GPU where there is one.

    The class has the parameters, defaults, methods and attributes of
    sklearn.neural_network.MLPClassifier and, in float64 on the CPU, its numbers.

    Parameters
    ----------
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
    loss : str or Loss, default "log_loss"
        "log_loss", a name of `gpumlp.losses`, or an object.
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
    label_smoothing : float, default 0
        s takes s from each target and spreads it over the classes.
    class_weight : dict, list of dict, "balanced" or None, default None
        {class: weight}, for several labels a list with one for each; multiplies
        sample_weight in the loss.
    scoring : str, callable or None, default None
        What early_stopping watches: None is the accuracy, "loss" the validation loss, else
        any metric of scikit-learn by name, or a function (estimator, X, y).
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
    classes_ : (n_classes,) array
        The labels, in ascending order; may be set, after a fit or instead of one.
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

    Examples
    --------
    >>> from gpumlp import MLPClassifier
    >>> X, y = [[0.0, 0.0], [1.0, 1.0]] * 20, [0, 1] * 20
    >>> model = MLPClassifier((8,), random_state=0, learning_rate_init=0.1, device="cpu").fit(X, y)
    >>> model.predict([[0.1, 0.0], [0.9, 1.0]]).tolist()
    [0, 1]
    """

    _y_numeric = False
    _no_targets = contents.NO_LABELS
    _for_missing = "leave these rows out, or give them a class of their own"

    def __init__(
        self,
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
        loss: LossLike = "log_loss",
        device: str = "auto",
        dtype: DTypeLike | None = None,
        precision: str = "float32",
        output_activation: ActivationLike | None = None,
        l1: PerNetwork = 0.0,
        weight_decay: PerNetwork = 0.0,
        dropout: PerNetwork = 0.0,
        schedule: ScheduleLike | None = None,
        clip_norm: float | None = None,
        label_smoothing: float = 0.0,
        class_weight: ClassWeight | None = None,
        scoring: Scoring | None = None,
        callbacks: Sequence[Callback] | None = None,
        keep_optimizer: bool = False,
        n_models: int | None = None,
        bootstrap: bool = False,
        max_features: float | None = None,
    ) -> None:
        keep(self, locals())

    # ------------------------------------------------------------ fitting
    def fit(
        self,
        X: Features,
        y: Data,
        sample_weight: Data | None = None,
        *,
        X_val: Features | None = None,
        y_val: Data | None = None,
        sample_weight_val: Data | None = None,
    ) -> MLPClassifier:
        """Train the network on samples X with targets y.

        Parameters
        ----------
        X : (n_samples, n_features) array-like or sparse matrix
            NumPy's, on the host, or on the GPU that trains; data frames too.
        y : (n_samples,) array-like, or (n_samples, n_labels)
            Classes of any kind; or 0 and 1 for each of several labels at once.
        sample_weight : (n_samples,) array-like, optional
            The weight of each sample, 0 or more; None is 1.
        X_val, y_val, sample_weight_val : array-like, optional
            A validation set of your own, and its weights; early_stopping then holds nothing out.

        Returns
        -------
        MLPClassifier
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
        classes: Data | None = None,
        *,
        X_val: Features | None = None,
        y_val: Data | None = None,
        sample_weight_val: Data | None = None,
    ) -> MLPClassifier:
        """Train for one epoch, from the weights and the optimiser's state that are there.

        Parameters
        ----------
        X, y, sample_weight
            As of `fit`.
        classes : (n_classes,) array-like, optional
            All there will ever be, needed in the first call; but not for several labels, whose
            number shows in y.
        X_val, y_val, sample_weight_val : array-like, optional
            A validation set; with early_stopping, `converged_` tells when its score no longer
            rises, and the best weights are back in place then.

        Returns
        -------
        MLPClassifier
            The estimator itself.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                'class_weight="balanced" needs all samples at once; for partial_fit give '
                "{class: weight}, e.g. from sklearn.utils.class_weight.compute_class_weight"
            )
        self._first_classes(array_io.host(y), array_io.host(classes))
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val), incremental=True)

    def _outputs_of(self, encoded: np.ndarray) -> int:
        return len(self.classes_) if self._several else encoded.shape[1]

    def _training_weight(self, samples: Samples) -> np.ndarray | None:
        if self.class_weight is None:
            return samples.weight
        y = samples.y.toarray() if hasattr(samples.y, "toarray") else samples.y
        if isinstance(self.class_weight, list) and y.ndim == 1:
            example = ", ".join(f"{label!r}: 1.0" for label in labels(self.classes_[:2]))
            raise ValueError(
                f"class_weight = {self.class_weight!r} is a list, which is for several labels: "
                f"give a dictionary of classes, {{{example}}}"
            )
        with naming("class_weight"):
            try:
                if isinstance(self.class_weight, dict) and y.ndim == 1:
                    # Of all classes, since a batch may lack some; one that is not named weighs 1.
                    weights = compute_class_weight(
                        self.class_weight, classes=self.classes_, y=self.classes_
                    )
                    weight = weights[np.searchsorted(self.classes_, y)]
                else:
                    weight = compute_sample_weight(self.class_weight, y)
                weight = weight.astype(samples.X.dtype)
            except IndexError:
                raise ValueError(
                    "a list of dictionaries has one for each of several labels"
                ) from None
            if not np.isfinite(weight).all() or weight.min() < 0:
                raise ValueError("weights are finite, and at least 0")
        return weight if samples.weight is None else weight * samples.weight

    # ------------------------------------------------------------ loss and output
    @property
    def _is_margin(self) -> bool:
        """Whether the loss takes classes as -1 and +1."""
        return self.loss != "log_loss" and losses.find(self.loss).coding == (2.0, -1.0)

    def _loss_and_output(self, dtype: DTypeLike) -> tuple[Loss, Any]:
        loss = self._loss(dtype)
        output = self.output_activation
        if output is None:
            one_hot = self._several and loss.name != "binary_cross_entropy"
            output = "softmax" if one_hot else "logistic"
            if self._is_margin:
                output = "identity"
        elif not self._several and activation.find(output).rows:
            raise ParameterError(
                f"MLPClassifier: output_activation = {output!r} compares classes; for two classes "
                "or several labels there is an output for each by itself: use 'logistic'"
            )
        return loss, output

    def _loss(self, dtype: DTypeLike) -> Loss:
        smoothing = float(self.label_smoothing)
        if self.loss == "log_loss":
            kind = reported.log_loss if self._several else reported.binary_log_loss
            return kind(dtype, smoothing)
        loss = losses.find(self.loss)
        # Of a single output these are the same, but the engine knows only one by that name.
        if loss.name in ("cross_entropy", "kl_divergence") and not self._several:
            loss = losses.losses["binary_cross_entropy"]
        if not smoothing:
            return loss
        if loss.name == "cross_entropy":
            return loss(label_smoothing=smoothing)
        if loss.name == "binary_cross_entropy":
            return replace(loss, coding=(1 - smoothing, smoothing / 2))
        raise ParameterError(f"MLPClassifier: label_smoothing has no meaning for loss {loss.name}")

    # ------------------------------------------------------------ predicting
    def predict(self, X: Features) -> Array:
        """Predict the class of each sample.

        Parameters
        ----------
        X : (n_samples, n_features) array-like or sparse matrix

        Returns
        -------
        (n_samples,) array, or (n_samples, n_labels)
            Classes, on the side that X is on if they are numbers; of several labels 0 or 1 each.
        """
        return array_io.back(self._from_outputs(array_io.host(self._outputs(X))), X)

    def score(self, X: Features, y: Data, sample_weight: Data | None = None) -> float:
        """Return the accuracy of `predict` on samples X with classes y."""
        y, predicted, weight = map(array_io.host, (y, self.predict(X), sample_weight))
        return accuracy_score(y, predicted, sample_weight=weight)

    def _from_outputs(self, outputs: np.ndarray) -> np.ndarray:
        binarizer = self._binarizer
        several = binarizer.y_type_ == "multiclass" and not binarizer.sparse_input_
        if several and outputs.shape[1] == len(binarizer.classes_):
            return binarizer.classes_[outputs.argmax(axis=1)]  # as the binarizer, in less time
        outputs = outputs.ravel() if self.n_outputs_ == 1 else outputs
        middle = 0.5 if _gives_probabilities(self) else 0.0
        return binarizer.inverse_transform(outputs, middle)

    @available_if(_gives_probabilities)
    def predict_proba(self, X: Features) -> Array:
        """Predict the probability of each class, or of each label by itself.

        Parameters
        ----------
        X : (n_samples, n_features) array-like or sparse matrix

        Returns
        -------
        (n_samples, n_classes) array
            In the order of classes_, on the side that X is on.
        """
        return array_io.back(self._probabilities(array_io.host(self._outputs(X))), X)

    @property
    def _from_outputs_to_probabilities(self) -> str:
        """What is left to do: "nothing", "exp", "both" (1 - n, then n), "one" (1, of the
        only class), or "shares" (n / Σ n)."""
        output = activation.find(self.out_activation_).name
        if output == "log_softmax":
            return "exp"
        if self.n_outputs_ == 1:
            return "both" if len(self.classes_) > 1 else "one"
        return "shares" if self._several and output != "softmax" else "nothing"

    def _probabilities(self, outputs: np.ndarray) -> np.ndarray:
        match self._from_outputs_to_probabilities:
            case "exp":
                return np.exp(outputs)
            case "both":
                return np.hstack([1 - outputs, outputs])
            case "one":
                return np.ones_like(outputs)
            case "shares":
                return outputs / outputs.sum(axis=1, keepdims=True)
        return outputs

    @property
    def _left_to_do(self) -> str:  # type: ignore[override]
        return self._from_outputs_to_probabilities if _gives_probabilities(self) else "nothing"

    def _as_network(self) -> tuple[MLP, dict[str, Any], str]:
        net, metadata, _ = super()._as_network()
        return net, {"classes": labels(self.classes_), **metadata}, self._left_to_do

    @available_if(_gives_probabilities)
    def predict_log_proba(self, X: Features) -> Array:
        """Return the logarithm of `predict_proba`."""
        probability = self._probabilities(array_io.host(self._outputs(X)))
        with np.errstate(divide="ignore"):
            return array_io.back(np.log(probability), X)

    @available_if(lambda self: is_ensemble(self) and _gives_probabilities(self))
    def predict_std(self, X: Features) -> Array:
        """Return the standard deviation of the members' probabilities, with n_models.

        Returns
        -------
        (n_samples, n_classes) array
            As `predict_proba`.
        """

        def deviation(outputs: np.ndarray) -> np.ndarray:
            return np.std([self._probabilities(member) for member in outputs], axis=0)

        return self._over_members(X, deviation)

    @available_if(lambda self: is_ensemble(self) and _gives_probabilities(self))
    def predict_quantiles(self, X: Features, q: float | Sequence[float]) -> Array:
        """Return quantiles of the members' probabilities, with n_models.

        Parameters
        ----------
        X : (n_samples, n_features) array-like or sparse matrix
        q : float or sequence of float
            In [0, 1].

        Returns
        -------
        (n_samples, n_classes) array, or (n_samples, n_classes, len(q))
        """
        return self._quantiles(X, q, self._probabilities)

    @available_if(_gives_margins)
    def decision_function(self, X: Features) -> Array:
        """Return the outputs, which are no probabilities.

        Returns
        -------
        (n_samples, n_outputs) array, or (n_samples,) for two classes
            Of two classes, above 0 for the second one.
        """
        outputs = self._outputs(X)
        return outputs.ravel() if self.n_outputs_ == 1 else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
