"""What the estimators refuse, and what they warn of."""

import re

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from gpumlp import MLPClassifier, MLPRegressor
from tests.helpers.estimators import BOTH, DIABETES, IRIS, data, fitted, small
from tests.helpers.oddities import (
    FEATURES,
    ROWS,
    features,
    is_classifier,
    refuses,
    targets,
    with_one,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


# ---------------------------------------------------------------- errors and warnings
@pytest.mark.parametrize("name, value", [
    ("hidden_layer_sizes", (3, 0)), ("hidden_layer_sizes", -1), ("hidden_layer_sizes", (2.5,)),
    ("hidden_layer_sizes", "wide"), ("activation", "cosine"), ("activation", ["relu", "tanh"]),
    ("solver", "newton"), ("alpha", -1), ("alpha", "much"), ("alpha", np.nan), ("batch_size", 0),
    ("batch_size", 1.5), ("learning_rate", "fast"), ("learning_rate_init", 0), ("power_t", -1),
    ("max_iter", 0), ("shuffle", "yes"), ("random_state", "seed"), ("random_state", -1),
    ("tol", -1),
    ("verbose", "loud"), ("warm_start", None), ("momentum", 1.1), ("nesterovs_momentum", 2),
    ("early_stopping", "no"), ("validation_fraction", 1), ("beta_1", 1), ("beta_2", -0.1),
    ("epsilon", 0), ("n_iter_no_change", 0), ("max_fun", 0), ("loss", "zero_one"),
    ("device", "tpu"), ("dtype", "float16"), ("output_activation", "cosine"), ("l1", -1),
    ("weight_decay", -1), ("dropout", 1), ("dropout", [0.1, 0.2]), ("schedule", "never"),
    ("clip_norm", 0), ("scoring", 3), ("callbacks", "all"), ("keep_optimizer", 1),
])  # fmt: skip
@pytest.mark.parametrize("cls", BOTH)
def test_parameters_out_of_range(cls, name, value):
    model = small(cls).set_params(**{name: value})
    with pytest.raises(ValueError, match=name if name != "scoring" else "scoring"):
        model.fit(*data(cls))


@pytest.mark.parametrize("arguments, message", [
    ({"label_smoothing": 1}, "label_smoothing"),
    ({"label_smoothing": 0.1, "loss": "hinge"}, "label_smoothing has no meaning"),
    ({"class_weight": "fair"}, "class_weight"),
    ({"class_weight": {0: 1, 7: 2}}, "class"),
    ({"output_activation": "tanh"}, "needs output"),
    ({"solver": "lbfgs", "dropout": 0.1}, "lbfgs"),
    ({"solver": "lbfgs", "l1": 0.1}, "lbfgs"),
    ({"solver": "sgd", "weight_decay": 0.1}, "weight_decay = 0.1 needs solver='adam'"),
    ({"schedule": "cosine", "learning_rate": "adaptive"}, "give one of them"),
])  # fmt: skip
def test_parameters_that_do_not_go_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(MLPClassifier, **arguments).fit(*IRIS)


@pytest.mark.parametrize("cls", BOTH)
def test_data_that_cannot_be_used(cls):
    X, y = data(cls)
    for bad in (np.nan, np.inf):
        broken = X.copy()
        broken[3, 1] = bad
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            small(cls).fit(broken, y)
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            fitted(cls).predict(broken)
    with pytest.raises(ValueError, match="infinity or a value too large"):
        small(cls, dtype="float32").fit(X * 1e300, y)
    for weight, message in [
        (np.ones(3), "shape"),
        (-np.ones(len(X)), "negative"),
        (np.zeros(len(X)), "zero"),
        (np.full(len(X), np.nan), "NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            small(cls).fit(X, y, weight)
    with pytest.raises(ValueError, match="validation set is too small"):
        small(cls, early_stopping=True, validation_fraction=0.3).fit(X[:2], y[:2])
    with pytest.raises(NotFittedError):
        cls().predict(X)


def test_targets_that_cannot_be_used():
    X, y = DIABETES
    with pytest.raises(ValueError, match="continuous"):
        small(MLPClassifier).fit(X, y)
    with pytest.raises(ValueError, match=r"poisson_deviance takes \[0, inf\]"):
        small(MLPRegressor, loss="poisson").fit(X, y)
    with pytest.raises(ValueError, match=r"too large|infinity"):
        small(MLPRegressor, dtype="float32").fit(X, y * 1e300)


def test_a_diverging_fit_ends_with_an_error():
    X, y = DIABETES
    model = small(MLPRegressor, solver="sgd", learning_rate_init=1e3, activation="identity")
    with pytest.raises(ValueError, match=r"non-finite.*learning_rate_init"):
        model.set_params(max_iter=200).fit(X, 1e3 * y)


def test_a_diverging_fit_with_early_stopping_keeps_the_best_weights():
    X, y = DIABETES
    model = small(
        MLPRegressor,
        solver="sgd",
        learning_rate_init=1e3,
        activation="identity",
        early_stopping=True,
        max_iter=200,
    )
    with pytest.warns(ConvergenceWarning, match="NaN or infinite"):
        model.fit(X, 1e3 * y)
    assert np.isnan(model.validation_scores_[-1]) and isinstance(
        model.validation_scores_[-1], float
    )
    assert np.isfinite(model.predict(X)).all()


@pytest.mark.filterwarnings("default")
def test_warnings():
    X, y = IRIS
    for solver in ("adam", "lbfgs"):
        with pytest.warns(ConvergenceWarning, match="has not converged") as seen:
            small(MLPClassifier, solver=solver, max_iter=2).fit(X, y)
        assert {warning.filename for warning in seen} == {__file__}
    with pytest.warns(UserWarning, match="batch_size = 1000"):
        small(MLPClassifier, batch_size=1000).fit(X, y)


# ---------------------------------------------------------------- huge numbers
@pytest.mark.parametrize("cls", BOTH)
def test_numbers_too_large_for_float32_are_refused(cls):
    rng = np.random.default_rng(0)
    X, y, w = features(rng), targets(cls, rng), np.ones(ROWS)
    fit = small(cls, dtype="float32").fit
    refuses({"X"}, lambda: fit(with_one(1e39)(X), y))
    refuses({"sample_weight"}, lambda: fit(X, y, sample_weight=with_one(1e39)(w)))
    if not is_classifier(cls):
        refuses({"y"}, lambda: fit(X, with_one(1e39)(y)))
    model = fit(X, y)
    refuses({"X"}, lambda: model.predict(with_one(1e39)(X)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cls", BOTH)
def test_outputs_that_overflow_are_no_silent_nan(cls, dtype):
    rng = np.random.default_rng(0)
    model = small(cls, dtype=dtype, hidden_layer_sizes=(20,)).fit(features(rng), targets(cls, rng))
    largest = np.finfo(dtype).max * np.sign(rng.normal(size=(20, FEATURES)))
    for method in ("predict", "predict_proba", "transform"):
        if hasattr(model, method):
            try:
                assert not np.isnan(getattr(model, method)(largest)).any()
            except ValueError as error:
                assert re.search("X", str(error))
