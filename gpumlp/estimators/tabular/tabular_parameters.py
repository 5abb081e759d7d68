"""What the constructor's parameters of the estimators for tables may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn

from gpumlp.estimators.hyperparameters import ABOVE_0, COUNT, FLAG, NONE, RULES, UNITS, Rule
from gpumlp.estimators.tabular.preset import NetworkParams
from gpumlp.utils import checks
from gpumlp.utils.checks import ParameterError


def _either(*rules: Rule) -> Rule:
    wanted = ", or ".join(rule.wanted for rule in rules)
    return Rule(lambda value: any(rule.holds(value) for rule in rules), wanted)


def _network_params(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() <= set(NetworkParams._fields)


def _quantiles(value: Any) -> bool:
    levels = checks.reals(value)
    shaped = levels is not None and levels.ndim <= 1 and levels.size
    return bool(shaped) and checks.SHARE.holds(levels)


def _columns(value: Any) -> bool:
    listed = isinstance(value, list | tuple | np.ndarray)
    return listed and all(isinstance(v, str | int | bool | np.integer | np.bool_) for v in value)


AUTO = Rule(lambda value: isinstance(value, str) and value == "auto", "'auto'")

TABULAR_RULES = {
    "n_models": UNITS,
    "hidden_layer_sizes": _either(AUTO, RULES["hidden_layer_sizes"]),
    "max_epochs": _either(AUTO, COUNT),
    "batch_size": _either(AUTO, COUNT),
    "learning_rate": ABOVE_0,
    "categorical_features": _either(
        NONE,
        Rule(lambda value: isinstance(value, str) and value == "from_dtype", "'from_dtype'"),
        Rule(_columns, "a list of column names, of column numbers, or a mask"),
    ),
    "time_limit": _either(NONE, ABOVE_0),
    "class_weight": RULES["class_weight"],
    "quantile": _either(NONE, Rule(_quantiles, "a number in (0, 1), or several")),
    "callbacks": RULES["callbacks"],
    "device": RULES["device"],
    "dtype": Rule(RULES["dtype"].holds, "'float32' or 'float64'"),
    "random_state": RULES["random_state"],
    "verbose": FLAG,
    "network_params": _either(
        NONE, Rule(_network_params, f"a dictionary of {', '.join(NetworkParams._fields)}")
    ),
}


def check(estimator: Any) -> None:
    """Raises ParameterError for the first parameter that breaks its rule."""
    if sklearn.get_config()["skip_parameter_validation"]:
        return
    for key, value in estimator.get_params(deep=False).items():
        rule = TABULAR_RULES.get(key)
        if rule is None:  # of a subclass of the user's own
            continue
        try:
            holds = rule.holds(value)
        except (ValueError, TypeError):
            holds = False
        if not holds:
            name = type(estimator).__name__
            raise ParameterError(f"{name}: {key} = {checks.shown(value)} must be {rule.wanted}")
