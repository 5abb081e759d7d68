"""Estimators in files: what `gpumlp.save` writes of one, and what `gpumlp.load` makes of it.

The entry "estimator" of a file is {class, parameters, attributes, binarizer, requests, engine}, its
values as gpumlp/io/codec.py writes them, in a checkpoint also "fit"
(gpumlp/estimators/resuming.py); arrays are named after their place, such as attributes.classes_,
engine.coefs.0 and engine.optimizer.slots.first.  Of an ensemble there is, instead of engine,
members: a list of such.
A subclass of the user's own is also named in "kind"; `load` is given it, as all that is a user's.
What each of them may be stands in gpumlp/io/estimator_schema.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.preprocessing import LabelBinarizer

from gpumlp.backend import device as devices
from gpumlp.estimators import hyperparameters
from gpumlp.estimators.classifier import MLPClassifier
from gpumlp.estimators.ensemble import Ensemble
from gpumlp.estimators.fitted_network import GROUPS, FittedNetwork, Spec
from gpumlp.estimators.regressor import MLPRegressor
from gpumlp.io.codec import Reader, Writer
from gpumlp.io.estimator_parts import kind_of, of_fit, requests_of, take_requests, warn_of_others
from gpumlp.io.estimator_schema import BINARIZER, attributes_of, check_agreement, check_entry
from gpumlp.training.callback import Callback


def describe(estimator, fit: dict | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description and the arrays of a fitted estimator; fit: the state of its running fit."""
    est, writer = estimator, Writer()
    est._ready()
    entry = _entry(est)
    if fit is not None:
        entry["fit"] = fit
    _check(entry, est)
    kind = entry.pop("class")
    entry = {name: writer.write(value, name) for name, value in entry.items()}
    entry["class"] = kind
    return {"estimator": entry}, writer.arrays


def _entry(est) -> dict[str, Any]:
    """What is to be written of one estimator; of an ensemble, of all its members."""
    binarizer = vars(est).get("_binarizer")
    entry = {
        "class": type(est).__name__,
        "parameters": est._all_params(),
        "attributes": _attributes(est),
        "binarizer": binarizer and {name: vars(binarizer)[name] for name in BINARIZER},
        "requests": requests_of(est),
    }
    if type(est) not in _classes().values():
        entry["kind"] = type(est)
    if isinstance(est._engine, Ensemble):
        return entry | {"members": [_entry(each) for each in est.estimators_]}
    return entry | {"engine": _engine_state(est._engine)}


def _attributes(est) -> dict[str, Any]:
    """Those that a file may hold."""
    fitted = of_fit(est)
    known = {name.rstrip("?") for name in attributes_of(type(est), fitted)}
    warn_of_others(est, fitted - known)
    return {name: value for name, value in vars(est).items() if name in known}


def _check(entry: dict[str, Any], est) -> None:
    """Raises ValueError for what is of the wrong type, or does not agree: `save` and `load` refuse
    the same."""
    check_entry(entry, type(est))
    for each, member in zip(entry.get("members", ()), getattr(est, "estimators_", ()), strict=True):
        _check(each, member)
    hyperparameters.check_each(est)
    check_agreement(est)


def restore(
    entry,
    arrays,
    device: str,
    custom: dict[str, Any],
    make_checkpoint: Callable[[dict[str, Any]], Callback] | None,
):
    """The estimator that was described; make_checkpoint: see `files.read`.

    Raises FileError, or one of `files.WRONG` for what `describe` has not written.
    """
    reader = Reader(arrays, custom, make_checkpoint)
    est = _made({name: reader.read(value) for name, value in entry.items()})
    if device != "auto":
        est.device = device
        est._engine.move(devices.resolve(device))
    return est


def _made(read: dict[str, Any]):
    kind = kind_of(read, _classes())
    check_entry(read, kind)
    listed = {name: read["parameters"][name] for name in kind._get_param_names()}
    est = kind(**listed)
    if read["parameters"].keys() != est._all_params().keys():
        raise KeyError(f"the parameters of {read['class']}")
    vars(est).update(read["parameters"] | read["attributes"])
    hyperparameters.check_each(est)
    if read["binarizer"] is not None:
        est._binarizer = LabelBinarizer()
        vars(est._binarizer).update(read["binarizer"])
    take_requests(est, read["requests"])
    if "members" in read:
        est._engine = Ensemble([_made(each) for each in read["members"]], est.diverged_)
    else:
        est._engine = FittedNetwork()
        est._engine.__setstate__(read["engine"] | {"spec": Spec(*read["engine"]["spec"])})
        est._ready()
    check_agreement(est)
    if "fit" in read:
        est._unfinished = read["fit"]
    return est


def _classes() -> dict[str, type]:
    return {cls.__name__: cls for cls in (MLPClassifier, MLPRegressor)}


# ---------------------------------------------------------------- weights and optimiser
def _engine_state(engine: FittedNetwork) -> dict[str, Any]:
    state = engine.__getstate__()
    weights = {name: [_numbers(each, engine) for each in state[name]] for name in GROUPS}
    return state | weights | {"spec": tuple(state["spec"])}


def _numbers(value, engine: FittedNetwork) -> np.ndarray:
    """An item of a list that may be the user's: anything that the network would take."""
    array = np.asarray(value)
    return array if array.dtype.kind in "biuf" else np.asarray(value, engine.spec.dtype)
