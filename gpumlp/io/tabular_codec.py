"""TabularClassifier and TabularRegressor in files: what `gpumlp.save` writes, and what
`gpumlp.load` makes of it.

The entry "tabular" of a file is {class, parameters, attributes, requests, preparation, stacks}.
stacks is plain JSON: of each stack its network as gpumlp/io/network_codec.py describes it, the
device that it was on, and the history of its training; its arrays are stacks.0.W.1, stacks.0.b.1,
....  The others are values as gpumlp/io/codec.py writes them, with arrays named after their place,
such as attributes.oof_prediction_ and preparation.edges; preparation is `Preparation.state()`.  A
subclass of the user's own is also named in "kind"; `load` is given it, as all that is a user's.

In a checkpoint, stacks are those that are trained so far, and instead of attributes and
preparation there are "fit", with parts of a `TabularFit`, and "trainer", plain JSON: the entries
network, trainer and fit of a trainer's checkpoint, whose arrays are named as there.
What each of them may be stands in gpumlp/io/tabular_schema.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from gpumlp.backend import device as devices
from gpumlp.estimators.fitted_network import device_or_cpu
from gpumlp.estimators.tabular.stored_stack import StoredStack
from gpumlp.estimators.tabular.table_preparation import Preparation
from gpumlp.estimators.tabular.tabular_base import BaseTabular
from gpumlp.estimators.tabular.tabular_classifier import TabularClassifier
from gpumlp.estimators.tabular.tabular_fit import TabularFit, parameters_of
from gpumlp.estimators.tabular.tabular_regressor import TabularRegressor
from gpumlp.io import network_codec, trainer_codec
from gpumlp.io.codec import Reader, Writer
from gpumlp.io.errors import FileError
from gpumlp.io.estimator_parts import kind_of, of_fit, requests_of, take_requests, warn_of_others
from gpumlp.io.tabular_schema import (
    DERIVED,
    FIT,
    attributes_of,
    check_agreement,
    check_entry,
    check_unfinished,
)
from gpumlp.io.trainer_codec import check_history
from gpumlp.training import history
from gpumlp.training.callback import Callback
from gpumlp.training.history import History

CLASSES: dict[str, type] = {cls.__name__: cls for cls in (TabularClassifier, TabularRegressor)}


def describe(
    est: BaseTabular, fit: TabularFit | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description and the arrays of a fitted estimator, or of one whose fit is under way.
    Raises ValueError for what `restore` would refuse."""
    entry: dict[str, Any] = {
        "parameters": est.get_params(deep=False),
        "requests": requests_of(est),
    }
    if type(est) not in CLASSES.values():
        entry["kind"] = type(est)
    plain: dict[str, Any] = {"class": type(est).__name__}
    if fit is None:
        check_is_fitted(est)
        entry |= {"attributes": _attributes(est), "preparation": est.preparation_.state()}
        plain["stacks"], arrays = _stacks(est._stacks, est.histories_)
    else:
        entry["fit"] = {name: getattr(fit, name) for name in FIT}
        plain["stacks"], arrays = _stacks(fit.stacks, fit.histories)
        plain["trainer"], of_trainer = _trainer(fit.trainer)
        arrays |= of_trainer
    check_entry(entry | plain, type(est))
    if fit is None:
        check_agreement(est)
    writer = Writer()
    written = {name: writer.write(value, name) for name, value in entry.items()}
    return {"tabular": written | plain}, writer.arrays | arrays


def _stacks(
    stacks: list[StoredStack], histories: list[History]
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    entries = []
    arrays: dict[str, np.ndarray] = {}
    for i, (stack, its_history) in enumerate(zip(stacks, histories, strict=True)):
        network, its_arrays = network_codec.describe(stack.net, f"stacks.{i}.")
        arrays |= its_arrays
        state = its_history.state()
        entries.append({"network": network, "device": stack.net.device, "history": state})
    return entries, arrays


def _trainer(trainer: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A trainer whose fit is under way."""
    network, arrays = network_codec.describe(trainer.net)
    entries, its_arrays = trainer_codec.describe(trainer, fit=True)
    as_read = json.loads(json.dumps(entries | {"network": network}))  # tuples are lists in files
    return as_read, arrays | its_arrays


def _attributes(est: BaseTabular) -> dict[str, Any]:
    """Those that a file may hold."""
    fitted = of_fit(est) - DERIVED
    known = {name.rstrip("?") for name in attributes_of(type(est), fitted)}
    warn_of_others(est, fitted - known)
    return {name: value for name, value in vars(est).items() if name in known}


def restore(
    entry: dict[str, Any],
    arrays: dict[str, np.ndarray],
    device: str,
    custom: dict[str, Any],
    make_checkpoint: Callable[[dict[str, Any]], Callback] | None,
) -> BaseTabular:
    """The estimator that was described; make_checkpoint: see `files.read`.

    Raises FileError, or one of `files.WRONG` for what `describe` has not written.
    """
    if "fit" in entry and make_checkpoint is None:
        raise FileError(
            "is a checkpoint of an estimator that is not fitted yet: gpumlp.resume goes on with it"
        )
    reader = Reader(arrays, custom, make_checkpoint)
    plain = {"class", "stacks", "trainer"}
    read = {name: value if name in plain else reader.read(value) for name, value in entry.items()}
    kind = kind_of(read, CLASSES)
    check_entry(read, kind)
    parameters = read["parameters"]
    if parameters.keys() != set(kind._get_param_names()):
        raise KeyError(f"the parameters of {read['class']}")
    est = kind(**parameters)
    vars(est).update(parameters)
    take_requests(est, read["requests"])
    stacks, histories = _restored_stacks(read["stacks"], arrays, device, custom)
    if device != "auto":
        est.device = device
    if "fit" in read:
        _take_fit(est, read, stacks, histories, arrays, custom)
        return est
    vars(est).update(read["attributes"])
    preparation = Preparation.from_state(read["preparation"])
    preparation.owner = type(est).__name__
    est.preparation_ = preparation
    est.n_features_in_ = preparation.n_features_in_
    if hasattr(preparation, "feature_names_in_"):
        est.feature_names_in_ = preparation.feature_names_in_
    est._stacks, est.histories_ = stacks, histories
    check_agreement(est)
    return est


def _restored_stacks(
    entries: list[dict[str, Any]], arrays, device: str, custom: dict[str, Any]
) -> tuple[list[StoredStack], list[History]]:
    stacks, histories = [], []
    for i, entry in enumerate(entries):
        where = device_or_cpu(entry["device"]) if device == "auto" else devices.resolve(device)
        net = network_codec.restore(entry["network"], arrays, where, custom, f"stacks.{i}.")
        check_history(entry["history"], net)
        stacks.append(StoredStack(net))
        histories.append(history.from_state(entry["history"]))
    return stacks, histories


def _take_fit(
    est: BaseTabular,
    read: dict[str, Any],
    stacks: list[StoredStack],
    histories: list[History],
    arrays: dict[str, np.ndarray],
    custom: dict[str, Any],
) -> None:
    """Give an estimator the fit that a checkpoint was written in."""
    parts, trainer = read["fit"], read["trainer"]
    net = network_codec.restore(trainer["network"], arrays, est.device, custom)
    fit = TabularFit(
        est,
        parameters_of(est),
        begin=-parts.pop("seconds"),
        stacks=stacks,
        histories=histories,
        trainer=trainer_codec.restore(trainer, arrays, net, custom),
        **parts,
    )
    check_unfinished(est, fit)
    est._unfinished = fit
