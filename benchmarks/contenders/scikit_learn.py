"""scikit-learn's MLPClassifier and MLPRegressor, on the CPU whatever the device."""

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier, MLPRegressor

from benchmarks.contenders import Contender, Declined
from benchmarks.networks import ADAM

ACTIVATIONS = {"relu": "relu", "tanh": "tanh", "sigmoid": "logistic"}
MOST = 1 << 38  # multiplications of a step; beyond, one would take seconds


class ScikitLearn(Contender):
    """An epoch is one `partial_fit` of all rows, a step one of the first batch; the search for NaN
    in the data, which others do not make at every epoch, is switched off."""

    def __init__(self, problem, device):
        super().__init__(problem, device)
        network = self.network
        self.classifies = network.loss == "cross_entropy"
        if network.models is not None:
            raise Declined("it trains one network")
        if network.hidden not in ACTIVATIONS:
            raise Declined(f"it has no {network.hidden}")
        if network.precision != "float32":
            raise Declined("it computes in float32 or float64")
        if 3 * network.batch * network.count > MOST:
            raise Declined("a step would take seconds")

    def load(self):
        network, problem = self.network, self.problem
        self.model = (MLPClassifier if self.classifies else MLPRegressor)(
            hidden_layer_sizes=network.sizes[1:-1],
            activation=ACTIVATIONS[network.hidden],
            batch_size=network.batch,
            alpha=0.0,
            learning_rate_init=ADAM["lr"],
            beta_1=ADAM["beta1"],
            beta_2=ADAM["beta2"],
            # It does not scale eps by the correction of the second moment: equal in the first step.
            epsilon=ADAM["eps"] * np.sqrt(1 - ADAM["beta2"]),
            random_state=0,
        )
        first = {"classes": np.arange(network.sizes[-1])} if self.classifies else {}
        batch = slice(0, network.batch)
        self.model.partial_fit(problem.x[batch], problem.y[batch], **first)  # makes the arrays
        for k in range(1, len(network.sizes)):
            self.model.coefs_[k - 1][...] = problem.W[k].T
            self.model.intercepts_[k - 1][...] = problem.b[k]
        del self.model._optimizer  # the next call makes a fresh one

    def step(self, rows=None):
        rows = slice(0, rows or self.network.batch)
        with sklearn.config_context(assume_finite=True):
            self.model.partial_fit(self.problem.x[rows], self.problem.y[rows])
        # Its squared error is a mean over the outputs, ours a sum.
        return self.model.loss_ * (1 if self.classifies else self.network.sizes[-1])

    def epoch(self):
        return float(self.step(self.network.rows))

    def parameters(self):
        pairs = zip(self.model.coefs_, self.model.intercepts_, strict=True)
        return [array.copy() for coef, intercept in pairs for array in (coef.T, intercept)]
