"""MLPClassifier and MLPRegressor against scikit-learn's, number by number: float64 on the CPU."""

import numpy as np
import pytest
from sklearn import datasets, neural_network
from sklearn.preprocessing import scale

import gpumlp

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

TOLERANCE = 1e-9
EPOCHS = 20
ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
PAIRS = {
    "classifier": (gpumlp.MLPClassifier, neural_network.MLPClassifier),
    "regressor": (gpumlp.MLPRegressor, neural_network.MLPRegressor),
}
SGD = {"solver": "sgd", "learning_rate_init": 0.05}
SOLVERS = {
    "constant": SGD | {"momentum": 0},
    "momentum": SGD | {"nesterovs_momentum": False},
    "nesterov": SGD,
    "invscaling": SGD | {"learning_rate": "invscaling", "power_t": 0.3},
    # The loss has to fall by more than it does in an epoch or two: the rate is divided again and
    # again.
    "adaptive": SGD | {"learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 1},
    "adam": {"solver": "adam", "learning_rate_init": 0.01},
    "lbfgs": {"solver": "lbfgs"},
}


def load(name):
    """One of scikit-learn's data sets, scaled: without, some runs are so chaotic that the last bit
    of a sum decides the fourth digit of the result; scikit-learn's own results then change as much
    when its data change by a rounding error."""
    if name == "linnerud":
        X, y = datasets.load_linnerud(return_X_y=True)
        return scale(X), scale(y)
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    if name == "digits":
        return X[:600] / 16, y[:600]
    return scale(X), scale(y) if name == "diabetes" else y


def make(kind, **arguments):
    """Ours and theirs, with the same arguments."""
    arguments = {"hidden_layer_sizes": (7,), "max_iter": EPOCHS, "random_state": 5} | arguments
    return [estimator(**arguments) for estimator in PAIRS[kind]]


def check_equal(ours, theirs):
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(ours, name) == getattr(theirs, name), name
    names = ["loss_"]
    if ours.solver != "lbfgs":
        names += ["best_loss_", "loss_curve_", "validation_scores_", "best_validation_score_"]
    for name in names:
        close(getattr(ours, name), getattr(theirs, name), name)
    for name in ("coefs_", "intercepts_"):
        for k, (mine, its) in enumerate(
            zip(getattr(ours, name), getattr(theirs, name), strict=True)
        ):
            assert mine.dtype == its.dtype
            close(mine, its, f"{name}[{k}]")


def close(mine, its, name):
    if its is None:
        assert mine is None, name
    else:
        np.testing.assert_allclose(mine, its, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


def weights(rows):
    return np.random.RandomState(0).uniform(0.1, 3, rows)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("data", ["digits", "iris", "breast_cancer", "diabetes"])
def test_fit(data, solver, activation):
    X, y = load(data)
    kind = "regressor" if data == "diabetes" else "classifier"
    ours, theirs = make(kind, activation=activation, **SOLVERS[solver])
    check_equal(ours.fit(X, y), theirs.fit(X, y))
    close(ours.predict(X), theirs.predict(X), "predict")
    close(ours.score(X, y), theirs.score(X, y), "score")
    if kind == "classifier":
        close(ours.predict_proba(X), theirs.predict_proba(X), "predict_proba")
        with np.errstate(divide="ignore"):  # scikit-learn warns of log 0
            close(ours.predict_log_proba(X), theirs.predict_log_proba(X), "predict_log_proba")


@pytest.mark.parametrize("solver", ["invscaling", "adaptive"])
def test_the_learning_rate_really_changes(solver):
    X, y = load("iris")
    ours, theirs = make("classifier", **SOLVERS[solver])
    rate = theirs.fit(X, y)._optimizer.learning_rate
    assert rate < theirs.learning_rate_init / 4
    ours.fit(X, y)
    assert ours._engine.trainer.optimizer.lr == pytest.approx(rate, rel=1e-12)


def test_an_adaptive_rate_that_is_too_small_ends_the_fit():
    X, y = load("iris")
    hasty = {"tol": 10, "n_iter_no_change": 1, "max_iter": 60}
    ours, theirs = make("classifier", **(SOLVERS["adaptive"] | hasty))
    check_equal(ours.fit(X, y), theirs.fit(X, y))
    assert ours.n_iter_ < 60 and ours.converged_


@pytest.mark.parametrize("solver", ["nesterov", "adaptive", "adam"])
@pytest.mark.parametrize("data", ["digits", "iris", "breast_cancer", "diabetes"])
def test_early_stopping(data, solver):
    X, y = load(data)
    kind = "regressor" if data == "diabetes" else "classifier"
    patience = {"early_stopping": True, "n_iter_no_change": 3, "validation_fraction": 0.25}
    ours, theirs = make(kind, **(SOLVERS[solver] | patience))
    check_equal(ours.fit(X, y), theirs.fit(X, y))
    assert len(ours.validation_loss_curve_) == ours.n_iter_


@pytest.mark.parametrize("solver", ["nesterov", "adam"])
def test_stopping_by_the_training_loss(solver):
    X, y = load("iris")
    ours, theirs = make("classifier", **SOLVERS[solver], tol=0.02, n_iter_no_change=2, max_iter=200)
    check_equal(ours.fit(X, y), theirs.fit(X, y))
    assert EPOCHS < ours.n_iter_ < 200 and ours.converged_


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("data", ["digits", "breast_cancer", "diabetes"])
def test_sample_weights(data, solver, early_stopping):
    X, y = load(data)
    kind = "regressor" if data == "diabetes" else "classifier"
    ours, theirs = make(kind, **SOLVERS[solver], early_stopping=early_stopping, alpha=0.1)
    check_equal(ours.fit(X, y, weights(len(X))), theirs.fit(X, y, weights(len(X))))


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 7},
        {"batch_size": 1, "max_iter": 3},
        {"shuffle": False},
        {"alpha": 0},
        {"alpha": 3.0},
        {"hidden_layer_sizes": ()},
        {"hidden_layer_sizes": (), "activation": "logistic"},
        {"hidden_layer_sizes": 4},
        {"hidden_layer_sizes": [6, 5, 4]},
        {"beta_1": 0.5, "beta_2": 0.7, "epsilon": 1e-3},
        {"random_state": np.random.RandomState(1).randint(2**31)},
    ],
)
def test_arguments(arguments):
    X, y = load("iris")
    ours, theirs = make("classifier", **arguments)
    check_equal(ours.fit(X, y), theirs.fit(X, y))


def test_the_random_state_is_left_where_scikit_learn_leaves_it():
    X, y = load("iris")
    states = []
    for estimator in make("classifier"):
        state = np.random.RandomState(2)
        estimator.set_params(random_state=state, early_stopping=True).fit(X, y)
        states.append(state.uniform())
    assert states[0] == states[1]


@pytest.mark.parametrize("solver", ["nesterov", "adam"])
@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_several_outputs(solver, loss, early_stopping):
    X, y = load("linnerud")
    y = np.exp(y) if loss == "poisson" else y
    arguments = SOLVERS[solver] | {"learning_rate_init": 0.01}
    ours, theirs = make("regressor", loss=loss, **arguments, early_stopping=early_stopping)
    check_equal(ours.fit(X, y, weights(len(X))), theirs.fit(X, y, weights(len(X))))
    close(ours.predict(X), theirs.predict(X), "predict")


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("weighted", [False, True])
def test_poisson(solver, weighted):
    X, y = load("diabetes")
    y = np.exp(y)
    w = weights(len(X)) if weighted else None
    arguments = SOLVERS[solver] | {"learning_rate_init": 0.01}
    ours, theirs = make("regressor", loss="poisson", **arguments)
    check_equal(ours.fit(X, y, w), theirs.fit(X, y, w))


@pytest.mark.parametrize("solver", SOLVERS)
def test_several_labels(solver):
    X, y = datasets.make_multilabel_classification(150, 12, n_classes=4, random_state=0)
    ours, theirs = make("classifier", **SOLVERS[solver])
    check_equal(ours.fit(scale(X), y), theirs.fit(scale(X), y))
    np.testing.assert_array_equal(ours.predict(scale(X)), theirs.predict(scale(X)))
    close(ours.predict_proba(scale(X)), theirs.predict_proba(scale(X)), "predict_proba")


def test_several_labels_with_early_stopping():
    X, y = datasets.make_multilabel_classification(150, 12, n_classes=4, random_state=0)
    ours, theirs = make("classifier", early_stopping=True, learning_rate_init=0.05)
    check_equal(ours.fit(scale(X), y), theirs.fit(scale(X), y))


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("data", ["digits", "diabetes"])
def test_warm_start(data, solver, early_stopping):
    X, y = load(data)
    kind = "regressor" if data == "diabetes" else "classifier"
    arguments = SOLVERS[solver] | {"warm_start": True, "max_iter": 7}
    ours, theirs = make(kind, **arguments, early_stopping=early_stopping)
    for _ in range(3):
        check_equal(ours.fit(X, y), theirs.fit(X, y))


@pytest.mark.parametrize("solver", ["constant", "nesterov", "invscaling", "adaptive", "adam"])
@pytest.mark.parametrize("data", ["digits", "breast_cancer", "diabetes"])
def test_partial_fit(data, solver):
    X, y = load(data)
    kind = "regressor" if data == "diabetes" else "classifier"
    ours, theirs = make(kind, **SOLVERS[solver])
    extra = {} if kind == "regressor" else {"classes": np.unique(y)}
    parts = [(X[start::4], y[start::4], weights(len(X))[start::4]) for start in range(4)]
    for part in parts * 5:
        check_equal(ours.partial_fit(*part, **extra), theirs.partial_fit(*part, **extra))


def test_partial_fit_after_fit_and_fit_after_partial_fit():
    X, y = load("iris")
    ours, theirs = make("classifier", max_iter=4)
    for call in ("fit", "partial_fit", "partial_fit", "fit", "partial_fit"):
        check_equal(getattr(ours, call)(X, y), getattr(theirs, call)(X, y))


def test_weights_that_are_set_are_where_partial_fit_goes_on():
    X, y = load("iris")
    ours, theirs = make("classifier", solver="sgd", max_iter=4)
    for estimator in (ours.fit(X, y), theirs.fit(X, y)):
        estimator.coefs_ = [0.5 * coef for coef in estimator.coefs_]
        estimator.coefs_[0][:, 1] = 0.25
        estimator.intercepts_[1] = np.arange(3.0)
        estimator.partial_fit(X, y)
    check_equal(ours, theirs)


@pytest.mark.parametrize("data", ["breast_cancer", "iris"])
def test_unscaled_data(data):
    """Probabilities so small that scikit-learn's loss does not count them in full."""
    X, y = getattr(datasets, f"load_{data}")(return_X_y=True)
    ours, theirs = make("classifier", learning_rate_init=0.01)
    check_equal(ours.fit(X, y), theirs.fit(X, y))


def test_sparse_data():
    from scipy import sparse

    X, y = load("digits")
    for kind in (sparse.csr_matrix, sparse.csc_array):
        ours, theirs = make("classifier")
        check_equal(ours.fit(kind(X), y), theirs.fit(kind(X), y))
        close(ours.predict_proba(kind(X)), theirs.predict_proba(kind(X)), "predict_proba")


def test_lbfgs_with_several_outputs_finds_a_minimum_of_what_it_reports():
    """scikit-learn's gradient is not the derivative of its loss there (its issue 8349)."""
    X, y = load("linnerud")
    ours, theirs = make("regressor", solver="lbfgs", activation="tanh", max_iter=500, alpha=0.1)
    ours.fit(X, y), theirs.fit(X, y)
    assert ours.loss_ < theirs.loss_ - 1e-3
    penalty = 0.05 * sum((coef**2).sum() for coef in ours.coefs_) / len(X)
    error = 0.5 * ((ours.predict(X) - y) ** 2).mean()
    close(ours.loss_, error + penalty, "loss_")
    best = ours.loss_
    for coef in ours.coefs_:
        for shift in (-0.01, 0.01):
            coef += shift
            error = 0.5 * ((ours.predict(X) - y) ** 2).mean()
            penalty = 0.05 * sum((coef**2).sum() for coef in ours.coefs_) / len(X)
            assert error + penalty > best
            coef -= shift
