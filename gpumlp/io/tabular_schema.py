"""What the file of a TabularClassifier or TabularRegressor may hold: the types of all its parts,
and that they agree with each other.  `save` refuses what `load` would.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.base import is_classifier

from gpumlp.estimators.tabular import tabular_parameters
from gpumlp.estimators.tabular.tabular_base import BaseTabular
from gpumlp.estimators.tabular.tabular_classifier import TabularClassifier
from gpumlp.estimators.tabular.tabular_fit import TabularFit
from gpumlp.io import file_schema
from gpumlp.io.errors import FileError
from gpumlp.io.estimator_parts import REQUESTS, with_own
from gpumlp.io.estimator_schema import labels, places
from gpumlp.io.file_schema import HISTORY, NETWORK, TRAINER
from gpumlp.model.mlp import MLP
from gpumlp.utils import schema
from gpumlp.utils.schema import anything, check


def epochs(value) -> bool:
    """an array of numbers of epochs"""
    return isinstance(value, np.ndarray) and value.dtype == np.int64 and not (value < 0).any()


def reals(value) -> bool:
    """an array in float64"""
    return isinstance(value, np.ndarray) and value.dtype == np.float64 and value.ndim > 0


def positive(value) -> bool:
    """a finite number above 0"""
    return schema.finite(value) and value > 0


def at_least_0(value) -> bool:
    """a finite number, 0 or more"""
    return schema.finite(value) and value >= 0


def generator(value) -> bool:
    """a generator of random numbers"""
    return isinstance(value, np.random.Generator)


def share(value) -> bool:
    """a number in (0, 1)"""
    return schema.finite(value) and 0 < value < 1


def limits(value) -> bool:
    """the least and the greatest of finite numbers"""
    pair = isinstance(value, tuple) and len(value) == 2 and all(map(schema.finite, value))
    return pair and value[0] <= value[1]


ATTRIBUTES = {"best_epochs_": epochs, "validation_scores_": reals, "oof_prediction_?": reals}
OF_CLASSIFIERS = {"classes_": labels, "temperature_": positive}
OF_REGRESSORS = {
    "_centre": schema.finite,
    "_scale": positive,
    "_range": limits,
    "_levels": (None, share, [share]),
}
# Attributes of a fit that other parts of a file say.
DERIVED = {"preparation_", "histories_", "n_features_in_", "feature_names_in_"}

STACK = {
    "network": {name: each for name, each in NETWORK.items() if name != "metadata"},
    "device": str,
    "history": HISTORY,
}
# Of a `TabularFit`, in a checkpoint.
FIT = {
    "seconds": at_least_0,
    "seed": places,
    "rng": generator,
    "rows": schema.size,
    "classes": (None, labels),
    "features": [str],
    "validated": bool,
    "best_epochs": [epochs],
}
ESTIMATOR = {
    "class": str,
    "kind?": anything,
    "parameters": {str: anything},
    "requests": REQUESTS,
    "stacks": [STACK],
}
FITTED = ESTIMATOR | {"attributes": {str: anything}, "preparation": {str: anything}}
UNFINISHED = ESTIMATOR | {
    "fit": FIT,
    "trainer": {"network": STACK["network"], "trainer": TRAINER, "fit": file_schema.FIT},
}


def attributes_of(kind: type, names: Iterable[Any]) -> dict[str, Any]:
    """The schema of a class's attributes; see `with_own`."""
    own = OF_CLASSIFIERS if issubclass(kind, TabularClassifier) else OF_REGRESSORS
    names = [name for name in names if name not in DERIVED]
    return with_own(ATTRIBUTES | own, kind, names)


def check_entry(entry: dict[str, Any], kind: type) -> None:
    """Raises SchemaError for what is not of its type; kind: the estimator's class."""
    check(entry, UNFINISHED if "fit" in entry else FITTED, "the estimator")
    if "fit" not in entry:
        check(entry["attributes"], attributes_of(kind, entry["attributes"]), "attributes")


def check_unfinished(est: BaseTabular, fit: TabularFit) -> None:
    """Raises FileError or ValueError where parameters, networks and the rest of a checkpoint are
    not of one fit."""
    tabular_parameters.check(est)
    assert fit.trainer is not None
    nets = [*(stack.net for stack in fit.stacks), fit.trainer.net]
    outputs, activation, wanted = 1, "identity", 1
    if is_classifier(est) != (fit.classes is not None):
        raise FileError(f"{type(est).__name__} has classes = {fit.classes!r}")
    if fit.classes is not None:
        outputs, activation = max(2, len(fit.classes)), "softmax"
    elif est.quantile is not None:
        wanted = np.size(est.quantile)
    if len(nets) > wanted or len(fit.best_epochs) != len(fit.stacks):
        raise FileError(f"{len(fit.best_epochs)} of {wanted} stacks are trained, not {len(nets)}")
    for net in nets:
        _check_network(net, len(fit.features), outputs, activation)
        if net.models != est.n_models:
            raise FileError(f"a stack has {net.models} networks, and n_models = {est.n_models}")
    if any(best.shape != (est.n_models,) for best in fit.best_epochs):
        raise FileError(f"best_epochs is {fit.best_epochs}, of {est.n_models} networks")


def check_agreement(est: BaseTabular) -> None:
    """Raises FileError or ValueError where parameters, preparation, attributes and networks are not
    of one fit."""
    tabular_parameters.check(est)
    nets = [stack.net for stack in est._stacks]
    columns: tuple[int, ...]
    if is_classifier(est):
        wanted, outputs, columns = 1, max(2, len(est.classes_)), (len(est.classes_),)
        if not np.array_equal(np.unique(est.classes_), est.classes_):
            raise FileError(f"classes_ = {est.classes_!r} are not in order")
    else:
        levels = est._levels or 0
        wanted, outputs, columns = np.size(levels), 1, np.shape(levels)
    if len(nets) != wanted:
        raise FileError(f"there are {len(nets)} stacks of networks, and {wanted} are needed")
    activation = est._outputs[1]
    for net in nets:
        _check_network(net, len(est.preparation_.names), outputs, activation)
    _check_members(est, nets)
    oof = getattr(est, "oof_prediction_", None)
    if oof is not None and oof.shape != (*oof.shape[:1], *columns):
        raise FileError(f"oof_prediction_ has shape {oof.shape}, of rows of shape {columns}")


def _check_network(net: MLP, inputs: int, outputs: int, activation: str) -> None:
    if (net.sizes[0], net.sizes[-1]) != (inputs, outputs):
        raise FileError(
            f"a network has {net.sizes[0]} inputs and {net.sizes[-1]} outputs; {inputs} are "
            f"prepared, and {outputs} are needed"
        )
    last = net.f[net.K]
    if last.name != activation or not last.built_in:
        raise FileError(f"a network's last activation is {last.name!r}, not {activation!r}")


def _check_members(est: BaseTabular, nets: list[MLP]) -> None:
    """That the stacks are of as many networks as there are best epochs and scores, and in each of
    them one has been trained."""
    M = nets[0].models
    if M is None or any(net.models != M for net in nets):
        raise FileError(f"there are stacks of {[net.models for net in nets]} networks")
    shape = (M,) if len(nets) == 1 else (len(nets), M)
    best = est.best_epochs_
    if best.shape != shape or not len(est._sound):
        raise FileError(f"best_epochs_ is {best.tolist()}, of {shape} networks")
    if est.validation_scores_.shape != (M,):
        raise FileError(
            f"validation_scores_ is of {est.validation_scores_.shape}, not {M} networks"
        )
