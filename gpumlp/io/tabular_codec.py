"""TabularClassifier and TabularRegressor in files: what `gpumlp.save` writes, and what
`gpumlp.load` makes of it.

The entry "tabular" of a file is {class, parameters, attributes, requests, preparation, stacks}.
stacks is plain JSON: of each stack its network as gpumlp/io/network_codec.py describes it, the
device that it was on, and the history of its training; its arrays are stacks.0.W.1, stacks.0.b.1,
....  The others are values as gpumlp/io/codec.py writes them, with arrays named after their place,
such as attributes.oof_prediction_ and preparation.edges; preparation is `Preparation.state()`.  A
subclass of the user's own is also named in "kind"; `load` is given it, as all that is a user's.
What each of them may be stands in gpumlp/io/tabular_schema.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from gpumlp.backend import device as devices
from gpumlp.estimators.fitted_network import device_or_cpu
from gpumlp.estimators.tabular.stored_stack import StoredStack
from gpumlp.estimators.tabular.table_preparation import Preparation
from gpumlp.estimators.tabular.tabular_base import BaseTabular
from gpumlp.estimators.tabular.tabular_classifier import TabularClassifier
from gpumlp.estimators.tabular.tabular_regressor import TabularRegressor
from gpumlp.io import network_codec
from gpumlp.io.codec import Reader, Writer
from gpumlp.io.estimator_parts import kind_of, of_fit, requests_of, take_requests, warn_of_others
from gpumlp.io.tabular_schema import DERIVED, attributes_of, check_agreement, check_entry
from gpumlp.io.trainer_codec import check_history
from gpumlp.training import history

CLASSES: dict[str, type] = {cls.__name__: cls for cls in (TabularClassifier, TabularRegressor)}


def describe(est: BaseTabular) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description and the arrays of a fitted estimator.  Raises ValueError for what `restore`
    would refuse."""
    check_is_fitted(est)
    stacks, arrays = _stacks(est)
    entry: dict[str, Any] = {
        "parameters": est.get_params(deep=False),
        "attributes": _attributes(est),
        "requests": requests_of(est),
        "preparation": est.preparation_.state(),
    }
    if type(est) not in CLASSES.values():
        entry["kind"] = type(est)
    plain = {"class": type(est).__name__, "stacks": stacks}
    check_entry(entry | plain, type(est))
    check_agreement(est)
    writer = Writer()
    written = {name: writer.write(value, name) for name, value in entry.items()}
    return {"tabular": written | plain}, writer.arrays | arrays


def _stacks(est: BaseTabular) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    stacks = []
    arrays: dict[str, np.ndarray] = {}
    for i, (stack, its_history) in enumerate(zip(est._stacks, est.histories_, strict=True)):
        network, its_arrays = network_codec.describe(stack.net, f"stacks.{i}.")
        arrays |= its_arrays
        state = its_history.state()
        stacks.append({"network": network, "device": stack.net.device, "history": state})
    return stacks, arrays


def _attributes(est: BaseTabular) -> dict[str, Any]:
    """Those that a file may hold."""
    fitted = of_fit(est) - DERIVED
    known = {name.rstrip("?") for name in attributes_of(type(est), fitted)}
    warn_of_others(est, fitted - known)
    return {name: value for name, value in vars(est).items() if name in known}


def restore(
    entry: dict[str, Any], arrays: dict[str, np.ndarray], device: str, custom: dict[str, Any]
) -> BaseTabular:
    """The estimator that was described.

    Raises FileError, or one of `files.WRONG` for what `describe` has not written.
    """
    reader = Reader(arrays, custom)
    plain = {"class", "stacks"}
    read = {name: value if name in plain else reader.read(value) for name, value in entry.items()}
    kind = kind_of(read, CLASSES)
    check_entry(read, kind)
    parameters = read["parameters"]
    if parameters.keys() != set(kind._get_param_names()):
        raise KeyError(f"the parameters of {read['class']}")
    est = kind(**parameters)
    vars(est).update(parameters | read["attributes"])
    preparation = Preparation.from_state(read["preparation"])
    preparation.owner = type(est).__name__
    est.preparation_ = preparation
    est.n_features_in_ = preparation.n_features_in_
    if hasattr(preparation, "feature_names_in_"):
        est.feature_names_in_ = preparation.feature_names_in_
    take_requests(est, read["requests"])
    est._stacks, est.histories_ = [], []
    for i, stack in enumerate(read["stacks"]):
        where = device_or_cpu(stack["device"]) if device == "auto" else devices.resolve(device)
        net = network_codec.restore(stack["network"], arrays, where, custom, f"stacks.{i}.")
        check_history(stack["history"], net)
        est._stacks.append(StoredStack(net))
        est.histories_.append(history.from_state(stack["history"]))
    if device != "auto":
        est.device = device
    check_agreement(est)
    return est
