"""Convert estimators that scikit-learn has fitted to gpumlp's."""

from __future__ import annotations

import copy

import numpy as np
from sklearn import neural_network
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from gpumlp.estimators.fitted import FITTED
from gpumlp.estimators.fitted_network import GROUPS


def convert(cls, fitted, parameters):
    """Convert a fitted estimator to class cls, see `BaseMLP.from_sklearn`.

    Attributes of a fit that it lacks, as one from an old pickle does, follow from its weights.
    """
    est = cls(**parameters)
    kind = neural_network.MLPClassifier if is_classifier(est) else neural_network.MLPRegressor
    if not isinstance(fitted, kind):
        raise TypeError(
            f"{cls.__name__}.from_sklearn takes a fitted {kind.__name__} of scikit-learn, not "
            f"{type(fitted).__name__}; of a pipeline or a search, the MLP in it"
        )
    check_is_fitted(fitted)
    # Those too that a constructor does not list: of a subclass, on either side.
    theirs = [name for name in kind._get_param_names() if hasattr(fitted, name)]
    vars(est).update({n: getattr(fitted, n) for n in theirs if n not in parameters})

    for name in GROUPS:
        if hasattr(fitted, f"{name}_"):
            setattr(est, f"{name}_", [np.array(array) for array in getattr(fitted, f"{name}_")])
    names = [*FITTED, "n_layers_", "n_outputs_", "out_activation_"]
    if hasattr(fitted, "_label_binarizer"):
        est._take_coding(copy.deepcopy(fitted._label_binarizer))
    else:
        names.append("classes_")
    for name in names:
        if hasattr(fitted, name):
            setattr(est, name, copy.deepcopy(getattr(fitted, name)))
    if est.solver != "lbfgs":
        est._stalled = getattr(fitted, "_no_improvement_count", 0)
    est._ready().lists = dict.fromkeys(GROUPS)  # nobody has asked for them
    return est
