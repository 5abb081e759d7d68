"""What the constructor's parameters of the estimators for tables may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn

from gpumlp.estimators.hyperparameters import (
    ABOVE_0,
    AT_LEAST_0,
    COUNT,
    FLAG,
    FRACTION,
    NONE,
    RULES,
    UNITS,
    Rule,
)
from gpumlp.functions.activation import activations
from gpumlp.utils import checks
from gpumlp.utils.checks import ParameterError


def _either(*rules: Rule) -> Rule:
    wanted = ", or ".join(rule.wanted for rule in rules)
    return Rule(lambda value: any(rule.holds(value) for rule in rules), wanted)


def _network_params(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() <= NETWORK_RULES.keys()


def _quantiles(value: Any) -> bool:
    levels = checks.reals(value)
    shaped = levels is not None and levels.ndim <= 1 and levels.size
    return bool(shaped) and checks.SHARE.holds(levels)


def _columns(value: Any) -> bool:
    columns = checks.items(value)
    kinds = str | int | np.integer | np.bool_
    return columns is not None and all(isinstance(column, kinds) for column in columns)


# Of network_params.
NETWORK_RULES = {
    "activation": Rule(
        lambda value: not isinstance(value, list | tuple) and RULES["activation"].holds(value),
        "an activation: " + ", ".join(activations),
    ),
    "dropout": FRACTION,
    "weight_decay": AT_LEAST_0,
    "beta2": FRACTION,
    "label_smoothing": FRACTION,
    "schedule": RULES["schedule"],
    "scale_rate": AT_LEAST_0,
    "bias_rate": AT_LEAST_0,
    "schedule_decay": FLAG,
}

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
        NONE, Rule(_network_params, f"a dictionary of {', '.join(NETWORK_RULES)}")
    ),
}


def check(estimator: Any) -> None:
    """Raises ParameterError for the first parameter that breaks its rule."""
    if sklearn.get_config()["skip_parameter_validation"]:
        return
    name = type(estimator).__name__
    for key, value in estimator.get_params(deep=False).items():
        if key in TABULAR_RULES:  # a subclass of the user's own may have others
            _check(TABULAR_RULES[key], value, f"{name}: {key}")
    for key, value in (estimator.network_params or {}).items():
        _check(NETWORK_RULES[key], value, f"{name}: network_params[{key!r}]")


def _check(rule: Rule, value: Any, place: str) -> None:
    try:
        holds = rule.holds(value)
    except (ValueError, TypeError):  # values that cannot even be compared
        holds = False
    if not holds:
        raise ParameterError(f"{place} = {checks.shown(value)} must be {rule.wanted}")
