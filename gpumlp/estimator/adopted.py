"""Estimators that scikit-learn has fitted, made into gpumlp's."""

from __future__ import annotations

import copy

import numpy as np
from sklearn import neural_network
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from gpumlp import device as devices
from gpumlp.estimator.engine import Engine, Spec
from gpumlp.exchange.scikit_learn import FITTED, check_sizes


def adopt(cls, fitted, parameters):
    """An estimator of class cls, see `BaseMLP.from_sklearn`."""
    est = cls(**parameters)
    kind = neural_network.MLPClassifier if is_classifier(est) else neural_network.MLPRegressor
    if not isinstance(fitted, kind):
        raise TypeError(
            f"{cls.__name__}.from_sklearn takes a fitted {kind.__name__} of scikit-learn, not "
            f"{type(fitted).__name__}; of a pipeline or a search, the MLP in it"
        )
    check_is_fitted(fitted)
    known = est.get_params(deep=False)
    theirs = fitted.get_params(deep=False).items()
    est.set_params(**{k: v for k, v in theirs if k in known and k not in parameters})

    coefs = [np.array(coef) for coef in fitted.coefs_]
    intercepts = [np.array(intercept) for intercept in fitted.intercepts_]
    sizes = tuple(check_sizes(coefs, intercepts))
    device = devices.resolve(est.device)
    dtype = est.dtype
    if dtype is None:
        exact = device == "cpu" and est.precision == "float32"
        dtype = coefs[0].dtype if exact else np.float32
    hidden = (est.activation,) * (len(sizes) - 2)
    output, dropout = fitted.out_activation_, est._dropout()
    spec = Spec(sizes, hidden, output, str(np.dtype(dtype)), dropout, est.precision)

    for name in [*FITTED, "n_layers_", "n_outputs_", "out_activation_", "classes_"]:
        if hasattr(fitted, name):
            setattr(est, name, copy.deepcopy(getattr(fitted, name)))
    if hasattr(fitted, "_label_binarizer"):
        est._binarizer = copy.deepcopy(fitted._label_binarizer)
    if est.solver != "lbfgs":
        est._stalled = getattr(fitted, "_no_improvement_count", 0)
        scores = est.validation_scores_
        # scikit-learn keeps no such losses.
        est.validation_loss_curve_ = None if scores is None else [np.nan] * len(scores)
    est._engine = Engine()
    est._engine.build(spec, device, weights=(coefs, intercepts))
    return est
