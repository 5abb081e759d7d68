"""MLPRegressor."""

from __future__ import annotations

from sklearn.base import RegressorMixin
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if

from gpumlp.estimators import array_io, contents
from gpumlp.estimators.base import BaseMLP, is_ensemble, is_stochastic
from gpumlp.estimators.constructed import keep, with_defaults
from gpumlp.estimators.input_checks import QUIET
from gpumlp.functions import loss as losses
from gpumlp.functions import sklearn_losses as reported

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
    """A multilayer perceptron that predicts numbers; scikit-learn's class of that name, on a GPU
    where there is one.

    dtype=None: float32 data stay float32; float64 data are computed in float64 on the CPU, which
    gives scikit-learn's numbers, and in float32 on a GPU.  dtype="float32" or "float64" chooses.

    Parameters
    ----------
    Those of sklearn.neural_network.MLPRegressor, in its order; see MLPClassifier, and

    loss : "squared_error", "poisson", a name of `gpumlp.losses`, or a `gpumlp.Loss` such as
        gpumlp.losses["huber"](delta=0.5).  Reported are ½ (ŷ - y)² as a mean over outputs, half
        the Poisson deviance and the others as a sum over outputs.
    quantile : which one loss="quantile" predicts.

    Beyond scikit-learn's there are device, dtype, precision, output_activation, l1, weight_decay,
    dropout, schedule, clip_norm, scoring (None is R²), callbacks, keep_optimizer, and for ensembles
    n_models, bootstrap and max_features, as in MLPClassifier.

    Attributes
    ----------
    Those of MLPClassifier, without classes_.
    """

    _y_numeric = True
    _no_targets = contents.NO_VALUES

    def __init__(
        self,
        loss="squared_error",
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
        quantile=0.5,
        device="auto",
        dtype=None,
        precision="float32",
        output_activation=None,
        l1=0.0,
        weight_decay=0.0,
        dropout=0.0,
        schedule=None,
        clip_norm=None,
        scoring=None,
        callbacks=None,
        keep_optimizer=False,
        n_models=None,
        bootstrap=False,
        max_features=None,
    ):
        keep(self, locals())

    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None):
        """Train on X (n_samples, n_features), dense or sparse, and y (n_samples[, n_outputs]).

        X_val, y_val: the validation set; early_stopping then holds nothing out.
        """
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val), incremental=False)

    @available_if(is_stochastic)
    def partial_fit(
        self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None
    ):
        """One epoch over these samples, from the weights and the optimiser's state that are there.

        X_val, y_val: see `fit`; with early_stopping, `converged_` tells when the score no longer
        rises, and the best weights are back in place then.
        """
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val), incremental=True)

    def _encoded(self, y, dtype, first, incremental):
        return self._encoded_again(y, dtype)

    def _encoded_again(self, y, dtype):
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        with QUIET():
            return y, y.astype(dtype).reshape(len(y), -1)

    def _outputs_of(self, encoded) -> int:
        return encoded.shape[1]

    def _training_weight(self, samples):
        return samples.weight

    def _loss_and_output(self, dtype):
        loss = losses.find(self.loss)
        if self.loss == "squared_error":
            loss = reported.squared_error(self.n_outputs_)
        elif self.loss == "poisson":
            loss = reported.poisson()
        elif self.loss == "quantile":
            loss = loss(q=self.quantile)
        output = self.output_activation
        return loss, OUTPUTS.get(loss.name, "identity") if output is None else output

    def predict(self, X):
        """(n_samples,), or (n_samples, n_outputs) for several."""
        return array_io.back(self._from_outputs(self._outputs(X)), X)

    @available_if(is_ensemble)
    def predict_std(self, X):
        """With n_models: the standard deviation of the members' predictions, in the shape of
        `predict`."""
        return self._over_members(X, lambda outputs: self._from_outputs(outputs.std(axis=0)))

    @available_if(is_ensemble)
    def predict_quantiles(self, X, q):
        """With n_models: the quantiles q, in [0, 1], of the members' predictions: for a number in
        the shape of `predict`, for several with one more axis for them, the last."""
        return self._quantiles(X, q, self._from_outputs)

    def score(self, X, y, sample_weight=None):
        """R²."""
        return super().score(*map(array_io.host, (X, y, sample_weight)))

    def _from_outputs(self, outputs):
        return outputs.ravel() if self.n_outputs_ == 1 else outputs

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
