"""A search of gpumlp beside scikit-learn's, around the same estimator."""

import warnings

import numpy as np
from sklearn import datasets, model_selection
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.preprocessing import scale

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.estimators import stack_fitter

IRIS = datasets.load_iris(return_X_y=True)
IRIS = scale(IRIS[0])[::2], IRIS[1][::2]
DIABETES = tuple(scale(part[:90]) for part in datasets.load_diabetes(return_X_y=True))
TOLERANCE = 1e-9


def classifier(**arguments):
    defaults = {"hidden_layer_sizes": (5,), "max_iter": 6, "random_state": 0}
    return MLPClassifier(**(defaults | {"learning_rate_init": 0.02} | arguments))


def regressor(**arguments):
    defaults = {"hidden_layer_sizes": (5,), "max_iter": 6, "random_state": 0}
    return MLPRegressor(**(defaults | {"learning_rate_init": 0.02} | arguments))


def both(kind: str, *arguments, data, fit=None, **options):
    """The two searches, fitted.

    kind: the class's name;  fit: parameters of `fit`.
    """
    searches = []
    for home in (gpumlp, model_selection):
        search = getattr(home, kind)(*arguments, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            searches.append(search.fit(*data, **(fit or {})))
    same(*searches, data[0])
    return searches[0]


def same(ours, theirs, X):
    assert list(ours.cv_results_) == list(theirs.cv_results_)
    for name, values in theirs.cv_results_.items():
        mine = ours.cv_results_[name]
        assert type(mine) is type(values), name
        if name.endswith("_time"):
            assert mine.shape == values.shape and (mine >= 0).all()
        elif name.startswith("param_"):
            assert mine.dtype == values.dtype
            np.testing.assert_array_equal(mine.mask, values.mask)
            assert mine.tolist() == values.tolist()
        elif name == "params":
            assert mine == values
        elif name.startswith("rank_"):
            np.testing.assert_array_equal(mine, values)
        else:
            np.testing.assert_allclose(mine, values, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)
    assert vars(ours).keys() == vars(theirs).keys()
    for name in ("best_params_", "best_index_", "n_splits_", "multimetric_"):
        if name in vars(theirs):
            assert getattr(ours, name) == getattr(theirs, name), name
    if "best_score_" in vars(theirs):
        assert abs(ours.best_score_ - theirs.best_score_) < TOLERANCE or (
            np.isnan(ours.best_score_) and np.isnan(theirs.best_score_)
        )
    if "best_estimator_" in vars(theirs):
        assert type(ours.best_estimator_) is type(theirs.best_estimator_)
        np.testing.assert_array_equal(predicted(ours, X), predicted(theirs, X))


def predicted(search, X):
    """By the best estimator, in numbers where it has them."""
    best = search.best_estimator_
    return best.predict_proba(X) if hasattr(best, "predict_proba") else best.predict(X)


def stacks(monkeypatch) -> list[int]:
    """The networks of each stack that is trained from now on."""
    sizes: list[int] = []

    class Counted(stack_fitter.StackTrainer):
        def __init__(self, runs, *others):
            sizes.append(len(runs))
            super().__init__(runs, *others)

    monkeypatch.setattr(stack_fitter, "StackTrainer", Counted)
    return sizes
