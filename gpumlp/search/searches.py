"""GridSearchCV and RandomizedSearchCV."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import joblib
import numpy as np
import sklearn
from sklearn import model_selection
from sklearn.base import is_classifier
from sklearn.utils.metadata_routing import process_routing

from gpumlp.estimators import contents
from gpumlp.estimators.hyperparameters import random_of
from gpumlp.search.delegate import delegate
from gpumlp.search.fit_queue import FitQueue
from gpumlp.search.fit_task import is_stackable

if TYPE_CHECKING:
    from gpumlp.utils.aliases import Data, Features

S = TypeVar("S", bound="StackedSearch")


class StackedSearch:
    """Comes before a search of scikit-learn, which then asks `FitQueue` for its fits.

    Of what scikit-learn does not promise to keep, this needs `_run_search`, which it documents for
    searches of one's own, and that the fits are asked for in the order of the candidates, and for
    each in that of the folds.
    """

    estimator: Any
    cv: Any
    random_state: Any
    return_train_score: bool
    _fits: FitQueue | None = None  # during a fit

    def fit(self: S, X: Features, y: Data | None = None, **params: Any) -> S:
        """Evaluate all candidates by cross-validation, and fit the best one to all samples.

        Parameters
        ----------
        X : (n_samples, n_features) array-like or sparse matrix
        y : (n_samples,) array-like, or (n_samples, n_outputs)
        **params
            Of the estimator's `fit`, such as sample_weight, and of the splitter.

        Returns
        -------
        GridSearchCV, RandomizedSearchCV or of halving
            The search itself.

        Raises
        ------
        Exception
            Of a candidate's fit, if error_score is "raise"; else there is a warning.
        """
        X, y = contents.native(X), contents.native(y)  # pandas takes no rows of another byte order
        if not isinstance(vars(self).get("random_state"), np.random.Generator):
            return self._fit(X, y, params)
        random_state = self.random_state
        self.random_state = random_of(random_state)  # scikit-learn's searches take no Generator
        try:
            return self._fit(X, y, params)
        finally:
            self.random_state = random_state

    def _fit(self: S, X: Features, y: Data | None, params: dict[str, Any]) -> S:
        estimator, cv = self.estimator, self.cv
        if not is_stackable(estimator):
            return super().fit(X, y, **params)  # type: ignore[misc]
        self._fits = FitQueue(estimator, self._params_of_fits(params), self.return_train_score)
        self.estimator = standing = delegate(estimator, self._fits.fit)
        self.cv = model_selection.check_cv(cv, y, classifier=is_classifier(estimator))
        try:
            # All is trained in this process: the fits are only handed out.
            with joblib.parallel_config(backend="sequential"):
                return super().fit(X, y, **params)  # type: ignore[misc]
        finally:
            self.estimator, self.cv = estimator, cv
            standing.__class__ = type(estimator)  # scikit-learn's scorer keeps it
            del self._fits

    def _params_of_fits(self, params: dict[str, Any]) -> dict[str, Any]:
        """What of it the estimator's fit gets."""
        if sklearn.get_config()["enable_metadata_routing"]:
            return dict(process_routing(self, "fit", **params).estimator.fit)
        return {name: value for name, value in params.items() if name != "groups"}

    def _run_search(
        self, evaluate_candidates: Callable[..., Any], *, callback_ctx: Any = None
    ) -> None:
        fits = self._fits
        # scikit-learn has callbacks, and tells of them, since 1.9.
        context = {} if callback_ctx is None else {"callback_ctx": callback_ctx}
        if fits is None:
            super()._run_search(evaluate_candidates, **context)  # type: ignore[misc]
            return

        def evaluate(
            candidates: Any, cv: Any = None, more_results: Any = None, **others: Any
        ) -> dict[str, Any]:
            candidates = list(candidates)
            splits = fits.expect(candidates, cv or self.cv)
            try:
                results = evaluate_candidates(
                    candidates, splits, more_results=more_results, **others
                )
            finally:
                if fits.failure is not None:
                    raise fits.failure from None
            results.update(fits.times())
            return results

        super()._run_search(evaluate, **context)  # type: ignore[misc]
        fits.forget()


class GridSearchCV(StackedSearch, model_selection.GridSearchCV):
    """A grid search trains the networks of all candidates and folds at once.

    The class is scikit-learn's GridSearchCV, with its parameters, methods, attributes and results,
    around an MLPClassifier or MLPRegressor of gpumlp, or a Pipeline that ends with one.

    Candidates and folds of equal sizes, activations, loss, batch size, solver, dtype and device
    make one stack, which has the data once: each network takes its rows from there.  Learning
    rates, momentum, betas, penalties, dropout, seeds, class weights, early stopping and the number
    of epochs may differ within it.  A network that diverges stands still and gets error_score, the
    others train on.  As many are trained at once as memory has room for.

    Notes
    -----
    Of a pipeline, the steps before the network are fitted once for each fold and each choice of
    their own parameters, rather than again for every candidate; where they give data frames, each
    fold is a stack of its own.  Pipelines with parameters for `fit`, and all other estimators, are
    evaluated as scikit-learn does it.

    n_jobs and pre_dispatch have no effect on a search with stacked fits, which uses the device and
    all threads; fits that cannot be stacked are then made one after another.
    mean_fit_time is a network's share of its stack's time.  With random_state=None all networks
    draw from NumPy's generator, though not in scikit-learn's order.

    Examples
    --------
    >>> from gpumlp import GridSearchCV, MLPClassifier
    >>> search = GridSearchCV(MLPClassifier(random_state=0), {"alpha": [1e-4, 1e-2, 1.0]})
    >>> search.fit(X, y).best_params_
    """


class RandomizedSearchCV(StackedSearch, model_selection.RandomizedSearchCV):
    """A randomised search trains the networks of all candidates and folds at once.

    The class is scikit-learn's RandomizedSearchCV, as `GridSearchCV` here is its GridSearchCV.
    """
