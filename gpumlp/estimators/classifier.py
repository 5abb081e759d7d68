"""MLPClassifier."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sklearn.base import ClassifierMixin
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

PROBABILITIES = ("softmax", "log_softmax", "sigmoid", "hard_sigmoid")


def _gives_probabilities(estimator) -> bool:
    """Whether the outputs are probabilities; else there is no predict_proba."""
    output = estimator._output_for(estimator.output_activation)
    if output is not None:
        return activation.find(output).name in PROBABILITIES
    return not estimator._is_margin


def _gives_margins(estimator) -> bool:
    return not _gives_probabilities(estimator)


@with_defaults
class MLPClassifier(Classes, ClassifierMixin, BaseMLP):
    """A multilayer perceptron that classifies; scikit-learn's class of that name, on a GPU where
    there is one.

    dtype=None: float32 data stay float32; float64 data are computed in float64 on the CPU, which
    gives scikit-learn's numbers, and in float32 on a GPU.  dtype="float32" or "float64" chooses.

    Parameters
    ----------
    Those of sklearn.neural_network.MLPClassifier, with its defaults and meaning:

    hidden_layer_sizes : units of each hidden layer.
    activation : of the hidden layers, one name or object of `gpumlp.activations`, or a list with
        one for each of them.
    solver : "adam", "sgd" or "lbfgs".
    alpha : the L2 penalty ½ alpha ‖W‖², divided by the batch's sum of sample weights.
    batch_size : "auto" is min(200, n_samples).
    learning_rate, power_t : of "sgd": "constant"; "invscaling", learning_rate_init divided by
        t^power_t after t samples; "adaptive", divided by 5 where else the fit would end.
    learning_rate_init, max_iter, shuffle, warm_start : as the names say.
    random_state : None, a number, or a numpy.random.Generator or RandomState, which moves on.
    tol, n_iter_no_change : the fit ends when the loss has not fallen, or with early_stopping the
        score has not risen, by tol for more than n_iter_no_change epochs.
    verbose : True is a bar in a terminal or notebook, else a line for each epoch; 2, always lines.
    momentum, nesterovs_momentum : of "sgd".
    early_stopping, validation_fraction : hold out samples, stop by their score, and go back to the
        weights of the best one.
    beta_1, beta_2, epsilon : of "adam".
    max_fun : of "lbfgs".

    And beyond:

    loss : "log_loss", a name of `gpumlp.losses`, or a `gpumlp.Loss`.
    device : "auto", "cpu", "cuda", "cuda:1"; GPUMLP_DEVICE says what "auto" is.
    dtype : see above.
    precision : "float32", "tf32" or "bf16": of the products on a GPU, see gpumlp.MLP; the last two
        are for float32, which is then the dtype.
    output_activation : None is what fits the loss.
    l1 : the L1 penalty, l1 ‖W‖₁, divided as alpha is.
    weight_decay : decoupled decay, with "adam".
    dropout : the probability to drop a hidden unit, or one for each hidden layer.
    schedule : a name or object of `gpumlp.schedules`, or a function of the update's number.
    clip_norm : longer gradients are shortened to it.
    label_smoothing : s takes s from each target and spreads it over the classes.
    class_weight : None, "balanced", or {class: weight}; multiplies sample_weight in the loss.
    scoring : what early_stopping watches: None is the accuracy, "loss" the validation loss, else
        any metric of scikit-learn by name, or a function (estimator, X, y).
    callbacks : objects such as gpumlp.EarlyStopping; they see the engine's trainer and history.
    keep_optimizer : with warm_start, the optimiser's state goes on too.
    n_models : an ensemble of so many networks, trained in one pass and averaged in predictions.
        Member m has the seed random_state + m, early stopping of its own, and is the network that
        would be trained alone with it; learning_rate_init, alpha, l1, weight_decay and dropout may
        have a value for each (dropout as an array (n_models,) or (n_models, hidden layers); a list
        is for layers).
    bootstrap : each member trains on its own sample of the rows, drawn with replacement; the rows
        that early_stopping watches are held out before, so that none is on both sides.
    max_features : how many features, or which share of them, each member sees.

    Attributes
    ----------
    Those of scikit-learn's: classes_, coefs_, intercepts_, n_features_in_, feature_names_in_,
    n_iter_, n_layers_, n_outputs_, out_activation_, t_, loss_, and after "sgd" and "adam"
    best_loss_, loss_curve_, validation_scores_, best_validation_score_.  classes_, coefs_,
    intercepts_ and out_activation_ may be set, after a fit or instead of one.  And

    validation_loss_curve_ : the loss of the validation set after each epoch, without penalties.
    converged_ : whether the fit, or a row of partial_fits, has met its tolerance.

    With n_models: estimators_, the members as fitted estimators, which have the weights and curves;
    estimators_samples_ and estimators_features_, the rows and columns of each, None for all;
    estimators_held_out_, the rows held out beforehand, None without bootstrap; and diverged_
    (n_models,), those that have no say in the predictions.
    """

    _y_numeric = False
    _no_targets = contents.NO_LABELS
    _for_missing = "leave these rows out, or give them a class of their own"

    def __init__(
        self,
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver="adam",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        max_fun=15000,
        loss="log_loss",
        device="auto",
        dtype=None,
        precision="float32",
        output_activation=None,
        l1=0.0,
        weight_decay=0.0,
        dropout=0.0,
        schedule=None,
        clip_norm=None,
        label_smoothing=0.0,
        class_weight=None,
        scoring=None,
        callbacks=None,
        keep_optimizer=False,
        n_models=None,
        bootstrap=False,
        max_features=None,
    ):
        keep(self, locals())

    # ------------------------------------------------------------ fitting
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None):
        """Train on X (n_samples, n_features), dense or sparse, and y: (n_samples,) classes of any
        kind, or (n_samples, n_labels) of 0 and 1 for several labels at once.

        X_val, y_val: the validation set; early_stopping then holds nothing out.
        """
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val), incremental=False)

    @available_if(is_stochastic)
    def partial_fit(
        self,
        X,
        y,
        sample_weight=None,
        classes=None,
        *,
        X_val=None,
        y_val=None,
        sample_weight_val=None,
    ):
        """One epoch over these samples, from the weights and the optimiser's state that are there.

        classes: all there will ever be, needed in the first call; but not for several labels,
        whose number shows in y.  X_val, y_val: see `fit`; with early_stopping, `converged_` tells
        when the score no longer rises, and the best weights are back in place then.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                'class_weight="balanced" needs all samples at once; for partial_fit give '
                "{class: weight}, e.g. from sklearn.utils.class_weight.compute_class_weight"
            )
        self._first_classes(array_io.host(y), array_io.host(classes))
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val), incremental=True)

    def _outputs_of(self, encoded) -> int:
        return len(self.classes_) if self._several else encoded.shape[1]

    def _training_weight(self, samples):
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
                    each = compute_class_weight(
                        self.class_weight, classes=self.classes_, y=self.classes_
                    )
                    weight = each[np.searchsorted(self.classes_, y)]
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

    def _loss_and_output(self, dtype):
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

    def _loss(self, dtype):
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
    def predict(self, X):
        """The class of each sample, or for several labels 0 or 1 each, (n_samples, n_labels)."""
        return array_io.back(self._from_outputs(array_io.host(self._outputs(X))), X)

    def score(self, X, y, sample_weight=None):
        """The accuracy."""
        return super().score(*map(array_io.host, (X, y, sample_weight)))

    def _from_outputs(self, outputs):
        outputs = outputs.ravel() if self.n_outputs_ == 1 else outputs
        middle = 0.5 if _gives_probabilities(self) else 0.0
        return self._binarizer.inverse_transform(outputs, middle)

    @available_if(_gives_probabilities)
    def predict_proba(self, X):
        """The probability of each class, (n_samples, n_classes); of each label by itself."""
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

    def _probabilities(self, outputs):
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

    def _as_network(self):
        net, about, _ = super()._as_network()
        return net, {"classes": labels(self.classes_), **about}, self._left_to_do

    @available_if(_gives_probabilities)
    def predict_log_proba(self, X):
        """The logarithm of predict_proba."""
        probability = self._probabilities(array_io.host(self._outputs(X)))
        with np.errstate(divide="ignore"):
            return array_io.back(np.log(probability), X)

    @available_if(lambda self: is_ensemble(self) and _gives_probabilities(self))
    def predict_std(self, X):
        """With n_models: the standard deviation of the members' probabilities, in the shape of
        predict_proba."""

        def deviation(outputs):
            return np.std([self._probabilities(each) for each in outputs], axis=0)

        return self._over_members(X, deviation)

    @available_if(lambda self: is_ensemble(self) and _gives_probabilities(self))
    def predict_quantiles(self, X, q):
        """With n_models: the quantiles q, in [0, 1], of the members' probabilities: for a number in
        the shape of predict_proba, for several with one more axis for them, the last."""
        return self._quantiles(X, q, self._probabilities)

    @available_if(_gives_margins)
    def decision_function(self, X):
        """The outputs, (n_samples,) for two classes: above 0 for the second one."""
        outputs = self._outputs(X)
        return outputs.ravel() if self.n_outputs_ == 1 else outputs

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
