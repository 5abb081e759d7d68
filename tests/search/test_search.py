"""The searches give scikit-learn's results, from networks that were trained in stacks."""

import numpy as np
import pytest
from scipy import sparse, stats
from sklearn import model_selection
from sklearn.metrics import make_scorer, mean_pinball_loss

import gpumlp
from gpumlp.estimators.stopping_rule import StoppingRule
from gpumlp.functions.schedule import schedules
from gpumlp.search import fit_queue
from tests.helpers.searching import DIABETES, IRIS, both, classifier, regressor, stacks

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

GROUPS = np.arange(len(IRIS[0])) % 7
WEIGHTS = np.random.default_rng(0).uniform(0.1, 3, len(IRIS[0]))
RATES = {"learning_rate_init": [0.003, 0.1]}


def best_alpha(results):
    return int(np.argmin([p["alpha"] for p in results["params"]]))


def own_scorer(estimator, X, y):
    return float(estimator.predict_proba(X)[:, 0].sum())


def several_scores(estimator, X, y):
    return {"a": estimator.score(X, y), "b": -estimator.score(X, y)}


# estimator, data, grid, options of the search, parameters of fit, networks of the stacks
CASES = {
    "numbers of one stack": (
        classifier(),
        IRIS,
        RATES | {"alpha": [1e-4, 1.0], "random_state": [1, 2]},
        {"cv": 3},
        {},
        [24],
    ),
    "sizes": (
        classifier(),
        IRIS,
        RATES | {"hidden_layer_sizes": [(4,), (3, 2)]},
        {"cv": 3},
        {},
        [6, 6],
    ),
    "activations": (
        classifier(),
        IRIS,
        RATES | {"activation": ["tanh", "gelu"], "dropout": [0.0, 0.3]},
        {"cv": 3},
        {},
        [12, 12],
    ),
    "batch sizes": (classifier(), IRIS, RATES | {"batch_size": [7, 20]}, {"cv": 3}, {}, [6, 6]),
    "solvers": (classifier(), IRIS, RATES | {"solver": ["adam", "sgd"]}, {"cv": 3}, {}, [6, 6]),
    "lbfgs is not stacked": (
        classifier(),
        IRIS,
        {"solver": ["lbfgs", "adam"]},
        {"cv": 3},
        {},
        [3],
    ),
    "a list of grids": (
        classifier(),
        IRIS,
        [RATES, {"solver": ["sgd"], "momentum": [0.1, 0.5], "max_iter": [3, 4]}],
        {"cv": 3},
        {},
        [6, 12],
    ),
    "early stopping": (
        classifier(early_stopping=True, max_iter=25, n_iter_no_change=2, validation_fraction=0.2),
        IRIS,
        RATES | {"tol": [0.0, 0.05]},
        {"cv": 3},
        {},
        [12],
    ),
    "class weights": (
        classifier(),
        IRIS,
        {"class_weight": [None, "balanced", {0: 5.0, 2: 0.1}]},
        {"cv": 3},
        {},
        [9],
    ),
    "sample weights": (classifier(), IRIS, RATES, {"cv": 3}, {"sample_weight": WEIGHTS}, [6]),
    "validation data": (
        classifier(early_stopping=True),
        IRIS,
        RATES,
        {"cv": 3},
        {"X_val": IRIS[0][:20] + 0.1, "y_val": IRIS[1][:20]},
        [6],
    ),
    "groups": (
        classifier(),
        IRIS,
        RATES,
        {"cv": model_selection.GroupKFold(4)},
        {"groups": GROUPS},
        [8],
    ),
    "ragged folds": (
        regressor(batch_size=20),
        DIABETES,
        RATES,
        {"cv": model_selection.TimeSeriesSplit(3)},
        {},
        [6],
    ),
    "an iterable of rows and masks": (
        regressor(),
        DIABETES,
        RATES,
        {"cv": [(list(range(50)), [60, 61, 62]), (np.arange(90) > 40, np.arange(90) < 20)]},
        {},
        [4],
    ),
    "several scores": (
        regressor(),
        DIABETES,
        RATES | {"alpha": [1e-4, 10.0]},
        {"cv": 3, "scoring": ["r2", "neg_mean_absolute_error"], "refit": "r2"},
        {},
        [12],
    ),
    "a dictionary of scores": (
        regressor(),
        DIABETES,
        RATES | {"alpha": [1e-4, 10.0]},
        {
            "cv": 3,
            "scoring": {"r2": "r2", "median": make_scorer(mean_pinball_loss)},
            "refit": best_alpha,
            "return_train_score": True,
        },
        {},
        [12],
    ),
    "a function that scores": (
        classifier(),
        IRIS,
        RATES,
        {"cv": 3, "scoring": own_scorer},
        {},
        [6],
    ),
    "a function of several scores": (
        classifier(),
        IRIS,
        RATES,
        {"cv": 3, "scoring": several_scores, "refit": "b"},
        {},
        [6],
    ),
    "training scores": (
        classifier(),
        IRIS,
        RATES,
        {"cv": 3, "return_train_score": True, "scoring": "roc_auc_ovr"},
        {},
        [6],
    ),
    "no refit": (classifier(), IRIS, RATES, {"cv": 3, "refit": False}, {}, [6]),
    "a quantile": (
        regressor(loss="quantile"),
        DIABETES,
        {"quantile": [0.1, 0.9]},
        {"cv": 3},
        {},
        [3, 3],
    ),
    "a schedule": (
        classifier(),
        IRIS,
        {"schedule": [None, schedules["cosine"]], "clip_norm": [None, 0.1]},
        {"cv": 3},
        {},
        [6, 6],
    ),
    "sparse samples": (
        classifier(),
        (sparse.csr_matrix(IRIS[0]), IRIS[1]),
        RATES,
        {"cv": 3},
        {},
        [6],
    ),
    "texts as classes": (
        classifier(),
        (IRIS[0], np.array(["a", "b", "c"])[IRIS[1]]),
        RATES,
        {"cv": 3},
        {},
        [6],
    ),
    "lists": (classifier(), tuple(p.tolist() for p in IRIS), RATES, {"cv": 3}, {}, [6]),
    "a class that a fold lacks": (
        classifier(),
        IRIS,
        RATES,
        {"cv": model_selection.KFold(3)},
        {},
        [2, 2, 2],
    ),
    "a generator": (
        classifier(random_state=np.random.RandomState(3)),
        IRIS,
        RATES,
        {"cv": model_selection.StratifiedKFold(3, shuffle=True, random_state=1)},
        {},
        [6],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_grid_gives_scikit_learns_results(name, monkeypatch):
    estimator, data, grid, options, fit, expected = CASES[name]
    sizes = stacks(monkeypatch)
    search = both("GridSearchCV", estimator, grid, data=data, fit=fit, **options)
    assert sizes == expected
    if "best_estimator_" in vars(search):
        assert search.predict(data[0]).shape[0] == len(data[1])


def test_devices(device):
    """The host's results: on a GPU in float32, unless it is asked for float64."""
    estimator = classifier(device=device, dtype="float64")
    grid = RATES | {"alpha": [0.0, 1.0]}
    search = both("GridSearchCV", estimator, grid, data=IRIS, cv=2, scoring="neg_log_loss")
    assert search.best_estimator_.device == device


def test_distributions(monkeypatch):
    sizes = stacks(monkeypatch)
    distributions = {"alpha": stats.loguniform(1e-5, 10), "learning_rate_init": stats.uniform(0, 1)}
    both(
        "RandomizedSearchCV",
        classifier(),
        distributions,
        data=IRIS,
        n_iter=5,
        random_state=3,
        cv=3,
    )
    assert sizes == [15]


def test_rows_that_are_trained_on_are_not_copied(monkeypatch):
    """scikit-learn gets them only where it scores them."""
    seen = []
    original = fit_queue.FitQueue.fit

    def watch(self, estimator, X, y, **params):
        seen.append(len(X))
        return original(self, estimator, X, y, **params)

    monkeypatch.setattr(fit_queue.FitQueue, "fit", watch)
    gpumlp.GridSearchCV(classifier(), RATES, cv=3, refit=False).fit(*IRIS)
    assert seen == [0] * 6


def test_random_splits_are_drawn_once():
    """A splitter without a seed draws other folds every time; scores are of those trained on."""
    drawn = []

    class Shuffled(model_selection.ShuffleSplit):
        def split(self, X, y=None, groups=None):
            for train, test in super().split(X, y, groups):
                drawn.append((train, test))
                yield train, test

    splitter = Shuffled(3, random_state=None)
    found = gpumlp.GridSearchCV(classifier(), RATES, cv=splitter, refit=False).fit(*IRIS)
    expected = model_selection.GridSearchCV(classifier(), RATES, cv=drawn[:], refit=False).fit(
        *IRIS
    )
    assert len(drawn) == 3
    for fold in range(3):
        name = f"split{fold}_test_score"
        np.testing.assert_array_equal(found.cv_results_[name], expected.cv_results_[name])


@pytest.mark.parametrize("seed, each", [(0, 1), (None, 6)])
def test_orders_that_are_the_same_are_drawn_once(seed, each, monkeypatch):
    """Of networks with equal seeds and as many rows; those without seeds have their own."""
    drawn = []
    next_order = StoppingRule.next_order

    def noted(self):
        drawn.append(next_order(self))
        return drawn[-1]

    monkeypatch.setattr(StoppingRule, "next_order", noted)
    estimator = classifier(max_iter=4, random_state=seed)
    gpumlp.GridSearchCV(estimator, RATES, cv=3, refit=False).fit(*IRIS)
    assert len(drawn) == 4 * each == len(np.unique(drawn, axis=0))


def test_the_curves_of_a_plateau_with_early_stopping():
    """Of every network in the search's stacks, and of its fit alone in scikit-learn's search."""
    curves = {}

    def scorer(estimator, X, y):
        rate, rows = estimator.learning_rate_init, X.tobytes()
        kept = (estimator.loss_curve_, estimator.validation_loss_curve_)
        curves.setdefault((rate, rows), []).append(kept)
        return estimator.score(X, y)

    model = regressor(schedule="plateau", early_stopping=True, max_iter=40, n_iter_no_change=40)
    grid = {"learning_rate_init": [0.3, 0.02, 0.1]}
    both("GridSearchCV", model, grid, data=DIABETES, cv=2, scoring=scorer, refit=False)
    assert len(curves) == 6
    for mine, its in curves.values():
        for found, expected in zip(mine, its, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-7)
