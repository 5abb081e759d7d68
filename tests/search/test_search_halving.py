"""Successive halving: scikit-learn's results, though networks run on rather than begin anew."""

import numpy as np
import pytest
from scipy import stats
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import gpumlp
from gpumlp import Trainer
from gpumlp.estimators import stack_fitter
from tests.helpers.searching import DIABETES, IRIS, both, classifier, regressor, stacks

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

GRID = {"learning_rate_init": [1e-3, 0.01, 0.1], "alpha": [1e-4, 0.1, 1.0]}
EPOCHS = {"resource": "max_iter", "min_resources": 3, "max_resources": 27, "cv": 3}
SPLIT = EPOCHS | {"random_state": 0, "return_train_score": True}


@pytest.fixture
def epochs(monkeypatch):
    """The networks of each epoch that is trained from now on."""
    trained: list[int] = []
    run_epoch = Trainer.run_epoch

    def counted(self, *arguments):
        trained.append(self.net.M)
        return run_epoch(self, *arguments)

    monkeypatch.setattr(Trainer, "run_epoch", counted)
    return trained


def test_losers_leave_the_stack_and_the_rest_run_on(epochs):
    search = gpumlp.HalvingGridSearchCV(classifier(), GRID, refit=False, **EPOCHS).fit(*IRIS)
    assert search.n_candidates_ == [9, 3, 1] and search.n_resources_ == [3, 9, 27]
    assert epochs == [27] * 3 + [9] * 6 + [3] * 18


CASES = {
    "classifier": (classifier(), IRIS, GRID, {}),
    "regressor": (regressor(), DIABETES, GRID, {"scoring": "neg_mean_absolute_error"}),
    "sizes": (classifier(), IRIS, GRID | {"hidden_layer_sizes": [(5,), (3, 2)]}, {"factor": 2}),
    "early stopping": (
        classifier(early_stopping=True, n_iter_no_change=2, validation_fraction=0.2),
        IRIS,
        GRID | {"tol": [0.0, 0.1]},
        {},
    ),
    "networks that converge": (classifier(n_iter_no_change=1, tol=0.02), IRIS, GRID, {}),
    "adaptive rates and dropout": (
        classifier(solver="sgd", learning_rate="adaptive", tol=0.05, n_iter_no_change=1),
        IRIS,
        {"dropout": [0.0, 0.2, 0.4], "learning_rate_init": [0.1, 0.3]},
        {"factor": 2},
    ),
    "a schedule that ends with max_iter": (classifier(schedule="cosine"), IRIS, GRID, {}),
    "a plateau": (classifier(schedule="plateau"), IRIS, GRID, {}),
    "lbfgs beside adam": (
        classifier(),
        IRIS,
        {"solver": ["lbfgs", "adam"], "alpha": [1e-3, 1.0]},
        {"factor": 2},
    ),
    "networks that diverge": (
        regressor(solver="sgd", activation="identity"),
        DIABETES,
        {"learning_rate_init": [0.01, 1e6, 0.02, 0.05]},
        {"factor": 2, "return_train_score": False},
    ),
    "candidates twice": (classifier(), IRIS, {"alpha": [0.1] * 4 + [1.0]}, {"factor": 2}),
    "aggressive elimination": (
        classifier(),
        IRIS,
        GRID,
        {"max_resources": 9, "aggressive_elimination": True},
    ),
    "rows": (
        classifier(),
        IRIS,
        GRID,
        {"resource": "n_samples", "min_resources": 25, "max_resources": 75},
    ),
    "another number": (
        classifier(),
        IRIS,
        {"alpha": [1e-3, 1.0, 10.0]},
        {"resource": "n_iter_no_change"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_results_are_scikit_learns(name):
    estimator, data, grid, options = CASES[name]
    search = both("HalvingGridSearchCV", estimator, grid, data=data, **(SPLIT | options))
    assert search.cv_results_["iter"].max() >= 1
    assert (search.cv_results_["mean_fit_time"] > 0).any()


def test_pipelines_run_on(epochs, monkeypatch):
    sizes = stacks(monkeypatch)
    pipeline = make_pipeline(StandardScaler(), classifier())
    grid = {f"mlpclassifier__{name}": values for name, values in GRID.items()}
    options = SPLIT | {"resource": "mlpclassifier__max_iter"}
    search = both("HalvingGridSearchCV", pipeline, grid, data=IRIS, **options)
    assert sizes == [27] and epochs[:27] == [27] * 3 + [9] * 6 + [3] * 18
    assert search.best_params_["mlpclassifier__max_iter"] == 27


def test_distributions(device):
    distributions = {"learning_rate_init": stats.loguniform(1e-3, 0.3), "alpha": [1e-3, 1.0]}
    options = SPLIT | {"n_candidates": 4, "factor": 2, "cv": 2, "min_resources": 2}
    estimator = classifier(device=device, dtype="float64")
    search = both(
        "HalvingRandomSearchCV",
        estimator,
        distributions,
        data=IRIS,
        **(options | {"max_resources": 8}),
    )
    assert search.n_candidates_ == [4, 2, 1]


def test_more_than_memory_has_room_for_are_fitted_anew(epochs, monkeypatch):
    monkeypatch.setattr(stack_fitter, "_stacks", lambda runs, *_: 1 + (len(runs) > 9))
    search = both("HalvingGridSearchCV", classifier(), GRID, data=IRIS, **SPLIT)
    assert epochs[:15] == [14] * 3 + [13] * 3 + [9] * 9
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
