"""The rules for the constructor's parameters, checked when a fit begins, as scikit-learn does."""

from __future__ import annotations

import functools
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from gpumlp.backend import device as devices
from gpumlp.functions import activation, loss, schedule
from gpumlp.model.arguments import PRECISIONS
from gpumlp.training.callback import Callback
from gpumlp.utils import checks
from gpumlp.utils.checks import Interval, ParameterError


class Rule(NamedTuple):
    """A test of a value, and what it wants in words."""

    holds: Callable[[Any], bool]
    wanted: str


def _number(interval: Interval) -> Rule:
    """The rule for a Python or NumPy scalar in an interval."""
    kind: Any = Integral if interval.whole else Real

    def holds(value):
        numbers = checks.reals(value)
        return isinstance(value, kind) and numbers is not None and interval.holds(numbers)

    return Rule(holds, str(interval))


def _one_of(*values) -> Rule:
    return Rule(
        lambda value: isinstance(value, str) and value in values,
        "one of " + ", ".join(map(repr, values)),
    )


def _either(*rules: Rule) -> Rule:
    return Rule(
        lambda value: any(rule.holds(value) for rule in rules),
        ", or ".join(rule.wanted for rule in rules),
    )


def _accepts(function) -> Callable[[Any], bool]:
    """Whether function(value) raises nothing."""

    def holds(value):
        try:
            function(value)
        except (ValueError, TypeError):
            return False
        return True

    return holds


def _accepted(function, *arguments):
    """The function's result, or None for arguments that it refuses."""
    try:
        return function(*arguments)
    except (ValueError, TypeError):
        return None


def _accepts_by(rule: Rule, value) -> bool:
    """Whether the rule holds; values that cannot even be compared break it."""
    try:
        return rule.holds(value)
    except (ValueError, TypeError):
        return False


@functools.lru_cache(maxsize=4096, typed=True)
def _accepts_plain(key: str, value) -> bool:
    """Whether the parameter's rule holds for a value of PLAIN, looked up in the next fits."""
    return _accepts_by(RULES[key], value)


def _sizes(value) -> bool:
    sizes = np.atleast_1d(np.asarray(value, dtype=object))
    return sizes.ndim == 1 and all(UNITS.holds(s) for s in sizes)


def _activations(value) -> bool:
    several = isinstance(value, list | tuple)
    return all(_accepts(activation.find)(one) for one in (value if several else [value]))


def _dropout(value) -> bool:
    rates = value if isinstance(value, list | tuple) else [value]
    return all(FRACTION.holds(rate) for rate in rates)


def _max_features(value) -> bool:
    share = isinstance(value, Real) and not isinstance(value, Integral)
    return bool(0 < value <= 1) if share else UNITS.holds(value)


def _dtype(value) -> bool:
    return _accepts(np.dtype)(value) and np.dtype(value) in (np.float32, np.float64)


NONE = Rule(lambda value: value is None, "None")
FLAG = Rule(lambda value: isinstance(value, bool | np.bool_), "True or False")
UNITS = _number(Interval(1, 2**31, "[)", whole=True))
COUNT = _number(checks.COUNT)
AT_LEAST_0 = _number(checks.NONNEGATIVE)
ABOVE_0 = _number(checks.POSITIVE)
FRACTION = _number(checks.FRACTION)
SEED = _number(Interval(0, 2**32, "[)", whole=True))

RULES = {
    "hidden_layer_sizes": Rule(_sizes, f"the units of each hidden layer, each {UNITS.wanted}"),
    "activation": Rule(
        _activations,
        f"an activation, or one for each hidden layer: {', '.join(activation.activations)}",
    ),
    "solver": _one_of("lbfgs", "sgd", "adam"),
    "alpha": AT_LEAST_0,
    "batch_size": _either(_one_of("auto"), COUNT),
    "learning_rate": _one_of("constant", "invscaling", "adaptive"),
    "learning_rate_init": ABOVE_0,
    "power_t": AT_LEAST_0,
    "max_iter": COUNT,
    "shuffle": FLAG,
    "random_state": Rule(
        lambda value: (
            value is None
            or isinstance(value, np.random.RandomState | np.random.Generator)
            or SEED.holds(value)
        ),
        "None, an integer in [0, 2**32), or a numpy.random.Generator or RandomState",
    ),
    "tol": AT_LEAST_0,
    "verbose": _either(FLAG, _number(checks.NATURAL)),
    "warm_start": FLAG,
    "momentum": _number(Interval(0, 1)),
    "nesterovs_momentum": FLAG,
    "early_stopping": FLAG,
    "validation_fraction": FRACTION,
    "beta_1": FRACTION,
    "beta_2": FRACTION,
    "epsilon": _number(Interval(1e-30, np.inf, "[)")),
    "n_iter_no_change": _either(COUNT, Rule(lambda value: value == np.inf, "infinity")),
    "max_fun": COUNT,
    # Beyond scikit-learn's
    "loss": Rule(
        lambda value: value == "log_loss" or _accepts(loss.find)(value),
        f"a loss: {', '.join(loss.losses)}, or a gpumlp.Loss",
    ),
    "output_activation": _either(
        NONE,
        Rule(
            _accepts(activation.find),
            f"an activation: {', '.join(activation.activations)}",
        ),
    ),
    "device": Rule(_accepts(devices.parse), f"a device: {devices.VALID}"),
    "dtype": _either(NONE, Rule(_dtype, "'float32' or 'float64'")),
    "precision": _one_of(*PRECISIONS),
    "l1": AT_LEAST_0,
    "weight_decay": AT_LEAST_0,
    "dropout": Rule(_dropout, "a probability in [0, 1), or one for each hidden layer"),
    "schedule": _either(
        NONE,
        Rule(_accepts(schedule.find), f"a schedule: {', '.join(schedule.schedules)}, or your own"),
    ),
    "clip_norm": _either(NONE, ABOVE_0),
    "scoring": _either(
        NONE,
        Rule(
            lambda value: isinstance(value, str) or callable(value),
            "'loss', the name of a metric of scikit-learn, or a function (estimator, X, y)",
        ),
    ),
    "callbacks": _either(
        NONE,
        Rule(
            lambda value: (
                isinstance(value, list | tuple)
                and all(isinstance(each, Callback) for each in value)
            ),
            "a list of gpumlp.Callback",
        ),
    ),
    "keep_optimizer": FLAG,
    "label_smoothing": FRACTION,
    "class_weight": _either(
        NONE,
        _one_of("balanced"),
        Rule(lambda value: isinstance(value, dict | list), "a dictionary class -> weight"),
    ),
    "quantile": _number(checks.SHARE),
    "n_models": _either(NONE, UNITS),
    "bootstrap": FLAG,
    "max_features": _either(
        NONE,
        Rule(_max_features, "how many features each member sees, or their share in (0, 1]"),
    ),
}

PLAIN = (int, float, bool, type(None))  # types whose values a rule always takes alike

# Parameters that may have a value for each of n_models members.
PER_MEMBER = ("learning_rate_init", "alpha", "l1", "weight_decay", "dropout")
# Numbers that the network's dtype has to hold.
OF_OPTIMIZER = ("learning_rate_init", "alpha", "l1", "weight_decay", "epsilon", "clip_norm")
# Parameters without a meaning for n_models, and those for n_models alone: their values when unused.
SINGLE_ONLY = {"warm_start": False, "callbacks": None}
ENSEMBLE_ONLY = {"bootstrap": False, "max_features": None}

# Parameters without a meaning where there are no minibatches: their values when unused.
STOCHASTIC_ONLY = {
    "precision": "float32",
    "l1": 0,
    "weight_decay": 0,
    "dropout": 0,
    "schedule": None,
    "clip_norm": None,
    "callbacks": None,
}


def check_each(estimator) -> None:
    """Raise ParameterError for the first parameter that breaks its rule."""
    name = type(estimator).__name__
    known = sorted(estimator._defaults)
    parameters = {
        key: getattr(estimator, key) for key in ["n_models", *known]
    }  # others depend on it
    for key, value in parameters.items():
        rule, values, wanted = RULES[key], [value], RULES[key].wanted
        if key in PER_MEMBER and parameters["n_models"] is not None:
            wanted += f", or one for each of n_models = {parameters['n_models']}"
            if _is_of_each(key, value):
                values = _accepted(of_each, estimator, key) or [None]
        if not all(
            _accepts_plain(key, one) if type(one) in PLAIN else _accepts_by(rule, one)
            for one in values
        ):
            raise ParameterError(f"{name}: {key} = {checks.shown(value)} must be {wanted}")


def check(estimator) -> None:
    """Raise ParameterError for the first parameter that breaks its rule, or excludes another."""
    check_each(estimator)
    name = type(estimator).__name__
    _check_ensemble(estimator, name)
    if estimator.solver == "lbfgs":
        for key, unused in STOCHASTIC_ONLY.items():
            value = getattr(estimator, key)
            if value != unused and np.any(value):
                raise ParameterError(
                    f"{name}: solver='lbfgs' has no {key} = {checks.shown(value)}, use 'adam' or "
                    "'sgd'"
                )
    if estimator.precision != "float32" and estimator.dtype not in (None, "float32", np.float32):
        raise ParameterError(
            f"{name}: precision = {estimator.precision!r} is for dtype='float32', not "
            f"{np.dtype(estimator.dtype)}"
        )
    if np.any(estimator.weight_decay) and estimator.solver != "adam":
        value = checks.shown(estimator.weight_decay)
        raise ParameterError(
            f"{name}: weight_decay = {value} needs solver='adam', not 'sgd'; or use alpha"
        )
    if estimator.schedule is not None and estimator.learning_rate != "constant":
        raise ParameterError(
            f"{name}: schedule = {checks.shown(estimator.schedule)} goes without learning_rate = "
            f"{estimator.learning_rate!r}: give one of them"
        )


def check_range(estimator, dtype: np.dtype) -> None:
    """Raise ParameterError for a number of the optimiser that the network's dtype cannot hold."""
    if estimator.solver == "lbfgs":
        return
    for key in OF_OPTIMIZER:
        if key != "epsilon" or estimator.solver == "adam":
            name = f"{type(estimator).__name__}: {key}"
            checks.within(getattr(estimator, key), name, dtype)


def _check_ensemble(estimator, name: str) -> None:
    """Raise ParameterError where n_models excludes another parameter, or another one needs it."""
    if estimator.n_models is None:
        for key, unused in ENSEMBLE_ONLY.items():
            if getattr(estimator, key) != unused:
                value = checks.shown(getattr(estimator, key))
                raise ParameterError(f"{name}: {key} = {value} is for ensembles: give n_models too")
        return
    if estimator.solver == "lbfgs":
        raise ParameterError(f"{name}: n_models needs solver='adam' or 'sgd', not 'lbfgs'")
    for key, unused in SINGLE_ONLY.items():
        if getattr(estimator, key) not in (unused, []):
            why = {
                "warm_start": "an ensemble is always fitted anew",
                "callbacks": "they see one network; each member has early_stopping of its own",
            }[key]
            value = checks.shown(getattr(estimator, key))
            raise ParameterError(f"{name}: n_models goes without {key} = {value}: {why}")


def of_each(estimator, name: str) -> list:
    """The values of a parameter for n_models members, which may have one in common or one each.

    dropout, whose lists are for layers, has one each in an array (n_models,) or (n_models, hidden
    layers).
    """
    value, count = getattr(estimator, name), estimator.n_models
    if not _is_of_each(name, value):
        return [value] * count
    values = np.asarray(value)
    if values.ndim not in ((1, 2) if name == "dropout" else (1,)) or len(values) != count:
        raise ValueError(f"{name} has shape {values.shape} for {count} members")
    return [tuple(item) if isinstance(item, list) else item for item in values.tolist()]


def _is_of_each(name: str, value) -> bool:
    return isinstance(value, np.ndarray if name == "dropout" else np.ndarray | list | tuple)


def layer_sizes(estimator) -> list[int]:
    """The units of the hidden layers."""
    return [int(size) for size in np.atleast_1d(np.asarray(estimator.hidden_layer_sizes))]


def random_of(random_state) -> np.random.RandomState:
    """The generator that a fit draws from; it shares the bits of a numpy.random.Generator, so that
    both go on together."""
    if isinstance(random_state, np.random.Generator):
        return np.random.RandomState(random_state.bit_generator)
    return check_random_state(random_state)
