"""The schemas of an estimator's entries, as gpumlp/io/codec.py reads them, and checks that shapes
agree with each other and with the weights.  `save` refuses what `load` would.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, is_classifier

from gpumlp.backend import device as devices
from gpumlp.estimators.by_hand import activation_name
from gpumlp.estimators.ensemble import Ensemble
from gpumlp.estimators.fitted_network import Spec
from gpumlp.functions.activation import Activation
from gpumlp.functions.optimizer import Optimizer
from gpumlp.io.errors import FileError
from gpumlp.io.estimator_parts import REQUESTS, with_own
from gpumlp.io.file_schema import HISTORY
from gpumlp.model.mlp import MLP
from gpumlp.utils.schema import anything, check, count, fraction, size


def labels(value) -> bool:
    """an array of labels"""
    if not isinstance(value, np.ndarray) or value.ndim != 1 or not value.size:
        return False
    return all(isinstance(label, str | int | float | np.generic) for label in value.tolist())


def names(value) -> bool:
    """an array of names"""
    return labels(value) and all(isinstance(name, str) for name in value.tolist())


def flags(value) -> bool:
    """an array of true and false"""
    return isinstance(value, np.ndarray) and value.dtype == bool and value.ndim == 1


def places(value) -> bool:
    """an array of whole numbers from 0"""
    if not isinstance(value, np.ndarray) or value.ndim != 1:
        return False
    return value.dtype.kind in "iu" and not (value < 0).any()


def finite(value) -> bool:
    """an array of finite numbers"""
    return _is_real(value) and bool(np.isfinite(value).all())


def _is_real(value) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "biuf"


def memory(value) -> bool:
    """an array of one number"""
    return _is_real(value) and value.shape == (1,) and not np.isnan(value).any()


def steps(value) -> bool:
    """an array of one whole number from 0"""
    return places(value) and value.shape == (1,)


def state_buffers(value) -> bool:
    """arrays of finite numbers, which are not below 0 where they are squares"""
    return (
        isinstance(value, dict)
        and all(finite(a) and a.ndim == 2 and len(a) == 1 for a in value.values())
        and not any((value[name] < 0).any() for name in ("second", "square") if name in value)
    )


def flag(value) -> bool:
    """true or false"""
    return isinstance(value, bool | np.bool_)


def function(value) -> bool:
    """an activation"""
    return isinstance(value, str | Activation)


def optimizer(value) -> bool:
    """an optimiser"""
    return isinstance(value, Optimizer)


def order(value) -> bool:
    """an order of samples"""
    return places(value) and np.array_equal(np.sort(value), np.arange(len(value)))


def generator(value) -> bool:
    """a generator of random numbers"""
    return isinstance(value, np.random.RandomState)


def network(value) -> bool:
    """sizes, activations, dtype, dropout, precision, and whether rows are sparse, of a network"""
    return (
        isinstance(value, tuple)
        and len(value) in (5, 6, 7)
        and type(Spec(*value).sparse) is bool
        and isinstance(value[0], tuple)
        and all(map(size, value[0]))
        and all(map(fraction, value[4] if isinstance(value[4], tuple) else value[4:5]))
    )


def callback_state(value) -> bool:
    """class, numbers and arrays of a callback"""
    kinds = (str, dict, dict)
    fits = isinstance(value, tuple) and len(value) == len(kinds)
    if not (fits and all(map(isinstance, value, kinds))):
        return False
    arrays = value[2]
    weights = "theta" not in arrays or finite(arrays["theta"])
    return weights and all(isinstance(array, np.ndarray) for array in arrays.values())


ATTRIBUTES = {
    "n_features_in_": size,
    "n_layers_": size,
    "n_outputs_": size,
    "n_iter_": count,
    "out_activation_": str,
    "feature_names_in_?": names,
    "t_?": count,
    "loss_?": float,
    "converged_?": flag,
    "best_loss_?": (None, float),
    "best_validation_score_?": (None, float),
    "loss_curve_?": [float],
    "validation_scores_?": (None, [float]),
    "validation_loss_curve_?": (None, [float]),
    # Of ensembles:
    "diverged_?": flags,
    "estimators_samples_?": [(None, places)],
    "estimators_features_?": [(None, places)],
    "estimators_held_out_?": [(None, places)],
    # Private, and needed to go on:
    "_output?": function,
    "_stalled?": count,
    "_sklearn_output_config?": {str: (None, str)},
}
OF_CLASSIFIERS = {"classes_": labels}

BINARIZER = {
    "neg_label": frozenset([0]),
    "pos_label": frozenset([1]),
    "sparse_output": frozenset([False]),
    "y_type_": frozenset(["binary", "multiclass", "multilabel-indicator"]),
    "sparse_input_": flag,
    "classes_": labels,
}

ENGINE = {
    "spec": network,
    "device": str,
    "coefs": [finite],
    "intercepts": [finite],
    "slopes": {str: float},
    "optimizer": (
        None,
        {
            "slots": state_buffers,
            "steps": steps,
            "optimizer": optimizer,
            "seed": count,
            "issued": count,
            "factors": {"best?": memory, "waited?": memory, "factor?": memory},
        },
    ),
    "best": (None, finite),
}

FIT = {
    "random_at_begin": generator,
    "random": generator,
    "order": order,
    "batch_size": size,
    "validated": flag,
    "diverged": flag,
    "seed": count,
    "epoch": count,
    "epochs_left": count,
    "stopping": flag,
    "total": (None, count),
    "history": HISTORY,
    "callbacks": [callback_state],
}

ENTRY = {
    "class": str,
    "parameters": {str: anything},
    "attributes": {str: anything},
    "binarizer": (None, BINARIZER),
    "requests": REQUESTS,
}
ENTRIES = (
    ENTRY | {"kind?": anything, "engine": ENGINE, "fit?": FIT},
    ENTRY | {"kind?": anything, "members": [{str: anything}]},
)


def check_entry(entry: dict[str, Any], kind: type) -> None:
    """Raise SchemaError or FileError for a wrong entry; kind: the estimator's class."""
    check(entry, ENTRIES["members" in entry], "the estimator")
    check(entry["attributes"], attributes_of(kind, entry["attributes"]), "attributes")
    if "engine" in entry:
        _check_network(entry["engine"])


def attributes_of(kind: type, names) -> dict[str, Any]:
    """The schema of a class's attributes; see `with_own`."""
    of_kind = OF_CLASSIFIERS if issubclass(kind, ClassifierMixin) else {}
    return with_own(ATTRIBUTES | of_kind, kind, names)


# ---------------------------------------------------------------- shapes
def _check_network(state: dict[str, Any]) -> None:
    """Check, before the network is made, that all weights are there, finite and of its shapes."""
    spec = Spec(*state["spec"])
    shapes = [[array.shape for array in state[name]] for name in ("coefs", "intercepts")]
    pairs = list(zip(spec.sizes[:-1], spec.sizes[1:], strict=True))
    if shapes != [pairs, [(n,) for _, n in pairs]]:
        raise FileError(f"coefs and intercepts have shapes {shapes}, and sizes are {spec.sizes}")
    devices.parse(state["device"])
    learned = _learned(spec)
    values = [*state["coefs"], *state["intercepts"], list(state["slopes"].values())]
    with np.errstate(over="ignore"):
        if not all(np.isfinite(np.asarray(array, spec.dtype)).all() for array in values):
            raise FileError(f"weights or slopes are not finite in {spec.dtype}")
    if not state["slopes"].keys() <= set(learned):
        raise FileError(f"slopes are of layers {list(state['slopes'])}, learned {learned}")
    if state["optimizer"] is not None:
        _check_optimizer(state["optimizer"])


@functools.lru_cache(maxsize=64)  # the members of an ensemble have the same
def _learned(spec: Spec) -> list[int]:
    """The layers with a learned slope; raises what MLP does for such a network."""
    ones = (1,) * len(spec.sizes)  # a network of such layers costs nothing
    net = MLP(
        ones,
        spec.hidden,
        spec.output,
        dtype=spec.dtype,
        device="cpu",
        init="zeros",
        dropout=spec.dropout,
        precision=spec.precision,
        sparse=spec.sparse,
    )
    return [k for k in range(1, net.K + 1) if net.f[k].learned]


def _check_optimizer(state: dict[str, Any]) -> None:
    optimizer, buffers, factors = (state[name] for name in ("optimizer", "slots", "factors"))
    used = {name for name, is_used in optimizer.state_buffers().items() if is_used}
    if buffers.keys() != used:
        raise FileError(
            f"{type(optimizer).__name__} has the state {sorted(used)}, not {sorted(buffers)}"
        )
    if np.ndim(optimizer.lr):
        raise FileError(f"the optimizer's lr = {optimizer.lr!r}, of a single network")
    if factors and len(factors) < 3:
        raise FileError(f"a plateau's memory has best, waited and factor, not {list(factors)}")


def check_agreement(estimator) -> None:
    """Raise FileError or ValueError where an attribute does not agree with the weights."""
    known, members = vars(estimator), _members(estimator)
    sizes = members[0]._engine.spec.sizes
    shape = known["n_features_in_"], known["n_layers_"], known["n_outputs_"]
    for member in members:
        spec = member._engine.spec
        if spec.sizes != sizes or (spec.sizes[0], len(sizes), spec.sizes[-1]) != shape:
            raise FileError(
                f"n_features_in_, n_layers_, n_outputs_ = {shape}, of weights of sizes {spec.sizes}"
            )
        if activation_name(spec.output) != known["out_activation_"]:
            raise FileError(f"out_activation_ = {known['out_activation_']!r}, not {spec.output!r}")
        if type(member) is not type(estimator):
            raise FileError(f"a {type(member).__name__} is in an ensemble of another class")
    if len(known.get("feature_names_in_", range(sizes[0]))) != sizes[0]:
        raise FileError(f"feature_names_in_ has {len(known['feature_names_in_'])} names")
    scores, losses = known.get("validation_scores_"), known.get("validation_loss_curve_")
    if (scores is None) != (losses is None) or len(scores or ()) != len(losses or ()):
        raise FileError("validation_scores_ and validation_loss_curve_ differ in length")
    _check_classes(estimator, members)


def _members(estimator) -> list:
    """The members of an ensemble, whose attributes are checked, or the estimator alone."""
    if not isinstance(estimator._engine, Ensemble):
        return [estimator]
    members, known = estimator._engine._estimators, vars(estimator)  # nobody is shown them
    diverged = known.get("diverged_")
    if diverged is None or len(diverged) != len(members) or diverged.all():
        raise FileError(f"diverged_ is {diverged!r}, of {len(members)} members")
    for name in ("estimators_samples_", "estimators_features_", "estimators_held_out_"):
        if len(known.get(name, ())) != len(members):
            raise FileError(f"{name} is not of {len(members)} members")
    for columns in known["estimators_features_"]:
        if columns is not None and (columns >= known["n_features_in_"]).any():
            raise FileError(f"estimators_features_ has {columns}")
    return members


def _check_classes(estimator, members: list) -> None:
    if not is_classifier(estimator):
        if vars(estimator).get("_binarizer") is not None:
            raise FileError("a binarizer is of a classifier")
        return
    for classifier in (estimator, *members):
        classes, binarizer = classifier.classes_, vars(classifier).get("_binarizer")
        if binarizer is None or not (
            np.array_equal(binarizer.classes_, classes)
            and np.array_equal(np.unique(classes), classes)
        ):
            raise FileError(f"classes_ = {classes!r} are not those of the binarizer, in order")
        several = binarizer.y_type_ == "multiclass"
        if several != (len(classes) > 2) and not binarizer.y_type_.startswith("multilabel"):
            raise FileError(f"the binarizer's y_type_ is {binarizer.y_type_!r}, of {classes!r}")
        classifier._know_classes(classifier.n_outputs_)
