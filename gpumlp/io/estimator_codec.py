"""Convert estimators to the entries and arrays of a file, and back.

The entry "estimator" of a file is {class, parameters, attributes, binarizer, requests, engine}, its
values as gpumlp/io/codec.py writes them, in a checkpoint also "fit"
(gpumlp/estimators/resuming.py); arrays are named after their place, such as attributes.classes_,
engine.coefs.0 and engine.optimizer.slots.first.  Of an ensemble there is, instead of engine,
members: a list of such.
A subclass of the user's own is also named in "kind"; `load` gets it in `custom`, as all that is the
user's own.  gpumlp/io/estimator_schema.py says what each entry may be.
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
    """The entry of one estimator; of an ensemble, with those of its members."""
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
        return entry | {"members": [_entry(member) for member in est.estimators_]}
    return entry | {"engine": _engine_state(est._engine)}


def _attributes(est) -> dict[str, Any]:
    """The attributes that a file may hold; warns of others."""
    fitted = of_fit(est)
    known = {name.rstrip("?") for name in attributes_of(type(est), fitted)}
    warn_of_others(est, fitted - known)
    return {name: value for name, value in vars(est).items() if name in known}


def _check(entry: dict[str, Any], est) -> None:
    """Raise ValueError for entries of the wrong type, or that do not agree, as `load` would."""
    check_entry(entry, type(est))
    members = getattr(est, "estimators_", ())
    for member_entry, member in zip(entry.get("members", ()), members, strict=True):
        _check(member_entry, member)
    hyperparameters.check_each(est)
    check_agreement(est)


def restore(
    entry,
    arrays,
    device: str,
    custom: dict[str, Any],
    make_checkpoint: Callable[[dict[str, Any]], Callback] | None,
):
    """Make the estimator that was described; make_checkpoint: see `files.read`.

    Raises FileError, or one of `files.WRONG` for what `describe` has not written.
    """
    reader = Reader(arrays, custom, make_checkpoint)
    est = _make({name: reader.read(value) for name, value in entry.items()})
    if device != "auto":
        est.device = device
        est._engine.move(devices.resolve(device))
    return est


def _make(read: dict[str, Any]):
    """Make an estimator, or an ensemble's member, of its entry."""
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
        est._engine = Ensemble([_make(member) for member in read["members"]], est.diverged_)
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
    weights = {name: [_numbers(array, engine) for array in state[name]] for name in GROUPS}
    return state | weights | {"spec": tuple(state["spec"])}


def _numbers(value, engine: FittedNetwork) -> np.ndarray:
    """An array of a list, in which users may have put anything that the network would take."""
    array = np.asarray(value)
    return array if array.dtype.kind in "biuf" else np.asarray(value, engine.spec.dtype)
