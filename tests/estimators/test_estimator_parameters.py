"""Any value of a constructor's parameter works, or is refused by the parameter's name."""

import re

import numpy as np
import pytest

from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.utils.checks import ParameterError
from tests.helpers.oddities import features, refuses, small, targets

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

JUNK = {
    "None": None,
    "0": 0,
    "-1": -1,
    "0.5": 0.5,
    "NaN": np.nan,
    "infinity": np.inf,
    "1e300": 1e300,
    "1e-320": 1e-320,
    "2**70": 2**70,
    "True": True,
    "empty": "",
    "a word": "word",
    "a list": [1, 2],
    "an empty list": [],
    "mixed": (1, "a"),
    "an array": np.array([0.5, 0.5]),
    "a dictionary": {},
    "a dictionary of words": {0: "a"},
    "complex": 1j,
    "an object": object(),
    "a type": int,
    "a function": lambda *a: None,
}
# A parameter that has an effect only where others let it.
SETTINGS = {
    "power_t": {"solver": "sgd", "learning_rate": "invscaling"},
    "momentum": {"solver": "sgd"},
    "nesterovs_momentum": {"solver": "sgd"},
    "max_fun": {"solver": "lbfgs"},
    "quantile": {"loss": "quantile"},
    "scoring": {"early_stopping": True, "validation_fraction": 0.4},
    "validation_fraction": {"early_stopping": True},
    "early_stopping": {"validation_fraction": 0.4},
    "keep_optimizer": {"warm_start": True},
    "bootstrap": {"n_models": 2},
    "max_features": {"n_models": 2},
}
# Right, but it takes so much time.
ENDLESS = {("max_iter", "2**70")}


@pytest.mark.filterwarnings("ignore:batch_size", "ignore::RuntimeWarning")
@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
def test_parameters_are_refused_or_work(cls, junk, capsys):
    rng = np.random.default_rng(0)
    X, y = features(rng), targets(cls, rng)
    wrong = {}
    for name in cls().get_params():
        if (name, junk) in ENDLESS:
            continue
        model = small(cls, **(SETTINGS.get(name, {}) | {name: JUNK[junk]}))
        try:
            model.fit(X, y)
        except (ValueError, TypeError, MemoryError) as error:
            if not re.search(rf"\b{name}\b|non-finite", str(error)):
                wrong[name] = error
        except Exception as error:
            wrong[name] = error
        else:
            networks = getattr(model, "estimators_", [model])
            weights = [coef for network in networks for coef in network.coefs_]
            if not all(np.isfinite(a).all() for a in (*weights, model.predict(X))):
                wrong[name] = "not finite"
    assert not wrong


@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("learning_rate_init", {}),
        ("learning_rate_init", {"solver": "sgd", "learning_rate": "invscaling"}),
        ("alpha", {}),
        ("l1", {}),
        ("weight_decay", {}),
        ("epsilon", {}),
        ("clip_norm", {}),
    ],
)
@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
def test_a_number_that_the_networks_dtype_cannot_hold(cls, name, settings, members):
    """It is refused under the parameter's name, not under that of the engine."""
    rng = np.random.default_rng(0)
    X, y = features(rng).astype(np.float32), targets(cls, rng)
    model = small(cls, n_models=members, **settings | {name: 1e300})
    said = rf"^{cls.__name__}: {name} = 1e\+300 must be at most 3.40282e\+38, .* of float32$"
    with pytest.raises(ParameterError, match=said):
        model.fit(X, y)
    if members:
        model.set_params(**{name: [1e-3, 1e300]})
        with pytest.raises(ParameterError, match=rf"{name} = \[0.001, 1e\+300\] must be"):
            model.fit(X, y)


@pytest.mark.parametrize(
    "settings",
    [{"solver": "lbfgs", "learning_rate_init": 1e300}, {"solver": "sgd", "epsilon": 1e300}],
)
def test_a_number_that_the_solver_does_not_use_may_have_any_size(settings):
    rng = np.random.default_rng(0)
    X, y = features(rng).astype(np.float32), targets(MLPRegressor, rng)
    assert np.isfinite(small(MLPRegressor, **settings).fit(X, y).predict(X)).all()


def test_a_changed_penalty_that_the_networks_dtype_cannot_hold():
    """The trainer of the calls before would refuse it as l2."""
    rng = np.random.default_rng(0)
    X, y = features(rng).astype(np.float32), targets(MLPRegressor, rng)
    model = small(MLPRegressor).partial_fit(X, y).set_params(alpha=1e300)
    with pytest.raises(ParameterError, match=r"^MLPRegressor: alpha = 1e\+300 must be at most"):
        model.partial_fit(X, y)


@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("layer", ["a", 1.5, 0, 3, -3, [1], 1j])
def test_layers_that_are_none_are_refused(cls, layer):
    rng = np.random.default_rng(0)
    X = features(rng)
    model = small(cls).fit(X, targets(cls, rng))
    refuses({"layer"}, lambda: model.transform(X, layer=layer))
