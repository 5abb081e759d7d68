"""Pipelines: scikit-learn's results, with the steps before the network fitted once for each fold
and each choice of their parameters."""

import numpy as np
import pytest
from scipy import sparse
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import gpumlp
from tests.helpers.searching import DIABETES, IRIS, both, classifier, regressor, stacks

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RATES = {"net__learning_rate_init": [0.003, 0.1]}


class Counted(StandardScaler):
    """Counts its fits."""

    fits = 0

    def fit_transform(self, X, y=None, **params):
        type(self).fits += 1
        return super().fit_transform(X, y, **params)


class Failing(StandardScaler):
    def fit(self, X, y=None, sample_weight=None):
        if not self.with_mean:
            raise ValueError("no mean, no scale")
        return super().fit(X, y)


def pipeline(*steps, net=None):
    return Pipeline([*steps, ("net", net or classifier())])


CASES = {
    "a scaler": (pipeline(("scale", StandardScaler())), IRIS, RATES, [6]),
    "its parameters": (
        pipeline(("scale", StandardScaler()), ("pca", PCA(2, svd_solver="full"))),
        IRIS,
        RATES | {"scale__with_std": [True, False], "pca__whiten": [False, True]},
        [6, 6, 6, 6],
    ),
    "numbers of features": (
        pipeline(("pca", PCA(svd_solver="full"))),
        IRIS,
        RATES | {"pca__n_components": [2, 3]},
        [6, 6],
    ),
    "features that differ by fold": (
        pipeline(("encode", OneHotEncoder(handle_unknown="ignore"))),
        (np.round(IRIS[0]), IRIS[1]),
        RATES,
        None,
    ),
    "steps": (
        pipeline(("scale", StandardScaler())),
        IRIS,
        RATES | {"scale": ["passthrough", StandardScaler(with_mean=False), None]},
        [6, 6, 6],
    ),
    "networks": (
        pipeline(("scale", StandardScaler())),
        IRIS,
        [
            {"net": [classifier(), LogisticRegression()]},
            {"net": [classifier(alpha=1.0)], "net__learning_rate_init": [0.1, 0.01]},
        ],
        [9],
    ),
    "regression": (
        pipeline(("scale", StandardScaler()), net=regressor(early_stopping=True)),
        DIABETES,
        RATES,
        [6],
    ),
    "a step that fails": (
        pipeline(("scale", Failing())),
        IRIS,
        RATES | {"scale__with_mean": [True, False]},
        [6],
    ),
    "nothing before the network": (pipeline(), IRIS, RATES, []),
}


@pytest.mark.parametrize("name", CASES)
def test_a_pipeline_gives_scikit_learns_results(name, monkeypatch):
    estimator, data, grid, expected = CASES[name]
    sizes = stacks(monkeypatch)
    search = both("GridSearchCV", estimator, grid, data=data, cv=3, return_train_score=True)
    assert type(search.best_estimator_) is Pipeline
    assert expected is None or sizes == expected


def test_steps_are_fitted_once_for_each_fold():
    grid = {
        "mlpclassifier__learning_rate_init": [0.003, 0.1],
        "mlpclassifier__alpha": [0.0, 1.0],
        "counted__with_std": [True, False],
    }
    search = gpumlp.GridSearchCV(make_pipeline(Counted(), classifier()), grid, cv=3, refit=False)
    search.fit(*IRIS)
    assert Counted.fits == 2 * 3
    assert (search.cv_results_["mean_fit_time"] > 0).all()


def test_parameters_of_fit_are_scikit_learns_affair(monkeypatch):
    sizes = stacks(monkeypatch)
    fit = {"net__sample_weight": np.linspace(0.1, 1, len(IRIS[1]))}
    estimator = pipeline(("scale", StandardScaler()))
    both("GridSearchCV", estimator, RATES, data=IRIS, fit=fit, cv=3)
    assert sizes == []


def test_sparse_labels(monkeypatch):
    X, y = datasets.make_multilabel_classification(60, 8, n_classes=3, random_state=0)
    sizes = stacks(monkeypatch)
    estimator = pipeline(("scale", StandardScaler()))
    both("GridSearchCV", estimator, RATES, data=(X, sparse.csr_array(y)), cv=3)
    assert sizes == [6]


def test_data_frames_keep_their_names(monkeypatch):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(IRIS[0], columns=list("abcd"))
    estimator = pipeline(("scale", StandardScaler())).set_output(transform="pandas")
    sizes = stacks(monkeypatch)
    search = both("GridSearchCV", estimator, RATES, data=(frame, IRIS[1]), cv=3)
    assert search.best_estimator_[-1].feature_names_in_.tolist() == list("abcd")
    assert sizes == [2, 2, 2]
