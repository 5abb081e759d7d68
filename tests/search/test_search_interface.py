"""The searches are scikit-learn's in what they print, refuse, warn of, route and keep."""

import pickle
import re
import warnings

import numpy as np
import pytest
import sklearn
from sklearn import model_selection
from sklearn.base import clone
from sklearn.datasets import make_regression
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.metadata_routing import get_routing_for_object

import gpumlp
from gpumlp.estimators import stack_fitter
from tests.helpers.searching import DIABETES, IRIS, both, classifier, regressor, stacks

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RATES = {"learning_rate_init": [0.003, 0.1]}
SEARCHES = {
    "GridSearchCV": {"param_grid": RATES},
    "RandomizedSearchCV": {"param_distributions": RATES, "n_iter": 2},
    "HalvingGridSearchCV": {"param_grid": RATES},
    "HalvingRandomSearchCV": {"param_distributions": RATES, "n_candidates": 2},
}
DIVERGING = {"learning_rate_init": [0.01, 1e6]}
UNSTABLE = {"solver": "sgd", "activation": "identity", "max_iter": 20}


# ---------------------------------------------------------------- fits that fail
@pytest.mark.parametrize("error_score", [np.nan, -7.0])
def test_a_network_that_diverges_gets_error_score(error_score):
    estimator = regressor(**UNSTABLE)
    options = {"cv": 3, "error_score": error_score, "return_train_score": True}
    search = both("GridSearchCV", estimator, DIVERGING, data=DIABETES, **options)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores[0])
    np.testing.assert_array_equal(scores[1], error_score)
    with (
        warnings.catch_warnings(),
        pytest.warns(FitFailedWarning, match=r"3 fits failed out of a total of 6(.|\n)*lower"),
    ):
        warnings.filterwarnings("ignore", "One or more of the")
        gpumlp.GridSearchCV(estimator, DIVERGING, **options).fit(*DIABETES)


def test_a_failed_fit_may_raise():
    search = gpumlp.GridSearchCV(regressor(**UNSTABLE), DIVERGING, cv=3, error_score="raise")
    with pytest.raises(ValueError, match=r"non-finite parameter weights.*lower learning_rate_init"):
        search.fit(*DIABETES)


def test_parameters_that_a_fit_refuses():
    grid = {"alpha": [1.0, -1.0]}
    search = both("GridSearchCV", classifier(), grid, data=IRIS, cv=3)
    np.testing.assert_array_equal(np.isnan(search.cv_results_["mean_test_score"]), [False, True])


def test_parameters_that_do_not_exist():
    search = gpumlp.GridSearchCV(classifier(), {"rate": [1.0]})
    with pytest.raises(ValueError, match="Invalid parameter 'rate'"):
        search.fit(*IRIS)


def test_samples_that_all_fits_refuse():
    X = np.where(np.arange(4) == 2, np.nan, IRIS[0])
    with pytest.raises(ValueError, match=r"All the 10 fits failed(.|\n)*contains NaN"):
        gpumlp.GridSearchCV(classifier(), RATES).fit(X, IRIS[1])


def test_an_error_that_fits_share_is_told_once():
    """scikit-learn counts how many have failed alike, by their tracebacks."""
    X = np.where(np.arange(4) == 2, np.nan, IRIS[0])
    with sklearn.config_context(assume_finite=True):  # so that the stack finds it
        search = gpumlp.GridSearchCV(classifier(), RATES)
        with pytest.raises(ValueError, match=r"\n10 fits failed with(.|\n)*NaN or infinity"):
            search.fit(X, IRIS[1])


def test_samples_of_no_rows_and_columns():
    search = gpumlp.GridSearchCV(classifier(), RATES, error_score="raise")
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array instead"):
        search.fit(IRIS[0][:, 0], IRIS[1])


def test_an_error_of_the_training_itself_is_raised(monkeypatch):
    def break_down(*arguments):
        raise MemoryError("no room")

    monkeypatch.setattr(stack_fitter, "StackTrainer", break_down)
    with pytest.raises(MemoryError, match="no room"):
        gpumlp.GridSearchCV(classifier(), RATES).fit(*IRIS)


def test_a_fit_that_fails_by_its_own_spoils_no_other():
    estimator = classifier(early_stopping=True)
    grid = {"scoring": ["accuracy", "roc_auc"]}  # which is for two classes
    search = both("GridSearchCV", estimator, grid, data=IRIS, cv=3)
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False, True]


def test_parameters_without_a_hash_make_no_difference(monkeypatch):
    cube = gpumlp.Activation(
        "cube", lambda z, p: z**3, lambda z, n, p: 3 * z**2, cuda=["z * z * z", "3 * z * z"]
    )
    sizes = stacks(monkeypatch)
    both("GridSearchCV", classifier(activation=cube), RATES, data=IRIS, cv=3)
    assert sizes == [6]


def test_warnings_point_at_the_caller():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        gpumlp.GridSearchCV(classifier(), RATES, cv=2).fit(*IRIS)
    assert len(told) == 2  # of the stack, and of the refit
    assert {each.filename for each in told} == {__file__}


def test_scores_that_fail():
    def refuse(estimator, X, y):
        raise RuntimeError("no score")

    search = gpumlp.GridSearchCV(classifier(), RATES, scoring=refuse, refit=False)
    with pytest.warns(UserWarning) as told:
        search.fit(*IRIS)
    assert sum("no score" in str(warning.message) for warning in told) == 10
    assert np.isnan(search.cv_results_["mean_test_score"]).all()


# ---------------------------------------------------------------- what else scikit-learn does
@pytest.mark.parametrize("verbose", [1, 3, 10])
def test_it_says_what_scikit_learns_says(verbose, capsys):
    told = []
    for home in (gpumlp, model_selection):
        search = home.GridSearchCV(classifier(), RATES, cv=3, verbose=verbose)
        search.fit(*IRIS)
        told.append(re.sub(r"\.\.+| total time= *[\d.]+s", " ", capsys.readouterr().out))
    assert told[0] == told[1] and told[0].startswith("Fitting 3 folds for each of 2 candidates")


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_is_an_estimator(name):
    kind = getattr(gpumlp, name)
    search = kind(classifier(), **SEARCHES[name], n_jobs=2)
    theirs = getattr(model_selection, name)(classifier(), **SEARCHES[name])
    assert search.get_params().keys() == theirs.get_params().keys()
    copy = clone(search).set_params(estimator__alpha=0.5, cv=3)
    assert copy.estimator.alpha == 0.5
    assert vars(copy.fit(*IRIS)).keys() == vars(theirs.set_params(cv=3).fit(*IRIS)).keys()
    assert copy.estimator.alpha == 0.5 and copy.n_jobs == 2 and not copy.estimator._has_weights
    again = pickle.loads(pickle.dumps(copy))
    np.testing.assert_array_equal(again.predict_proba(IRIS[0]), copy.predict_proba(IRIS[0]))
    assert type(again.best_estimator_) is gpumlp.MLPClassifier
    assert again.score(*IRIS) == copy.best_estimator_.score(*IRIS)


def test_times_are_shares_of_the_stack():
    grid = {"hidden_layer_sizes": [(3,), (200, 200)], "max_iter": [1, 30]}
    search = gpumlp.GridSearchCV(classifier(), grid, cv=3).fit(*IRIS)
    times = search.cv_results_["mean_fit_time"]
    assert (times > 0).all() and times[0] == times[1] < times[2] == times[3]


def test_others_estimators_are_searched_as_ever(monkeypatch):
    sizes = stacks(monkeypatch)
    both("GridSearchCV", LogisticRegression(), {"C": [0.1, 10.0]}, data=IRIS, cv=3)
    both("GridSearchCV", classifier(n_models=2), RATES, data=IRIS, cv=2)
    assert sizes[:4] == [2] * 4


def test_a_subclass_of_the_users_is_fitted_by_its_own_fit():
    class Own(gpumlp.MLPClassifier):
        def fit(self, X, y):
            return super().fit(-X, y)

    estimator = Own((5,), max_iter=6, random_state=0)
    both("GridSearchCV", estimator, RATES, data=IRIS, cv=3)


def test_metadata_are_routed(monkeypatch):
    sizes = stacks(monkeypatch)
    fit = {"sample_weight": np.linspace(0.1, 2, len(IRIS[1])), "groups": np.arange(75) % 5}
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = classifier().set_fit_request(sample_weight=True)
        estimator.set_score_request(sample_weight=False)
        cv = model_selection.GroupKFold(3)
        search = both("GridSearchCV", estimator, RATES, data=IRIS, fit=fit, cv=cv)
        routing = get_routing_for_object(search.best_estimator_)
        assert routing.fit.requests["sample_weight"] is True
    assert sizes == [6]


def test_names_of_features_are_kept():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(IRIS[0], columns=list("abcd"))
    search = both("GridSearchCV", classifier(), RATES, data=(frame, IRIS[1]), cv=3)
    assert search.feature_names_in_.tolist() == list("abcd")
    series = pandas.Series(IRIS[1], index=np.arange(75) + 7)
    both("GridSearchCV", classifier(), RATES, data=(frame, series), cv=3, return_train_score=True)


def test_several_outputs_and_labels():
    X, y = make_regression(60, 5, n_targets=2, random_state=0)
    both("GridSearchCV", regressor(), RATES, data=(X, y / 50), cv=3)
    both("GridSearchCV", classifier(), RATES, data=(X, (y > 0).astype(int)), cv=3)
