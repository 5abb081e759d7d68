"""HalvingGridSearchCV and HalvingRandomSearchCV."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn import model_selection
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.pipeline import Pipeline

from gpumlp.search.searches import StackedSearch


class StackedHalving(StackedSearch):
    """Networks go on from one iteration to the next, where the resource is max_iter."""

    resource: str
    max_resources_: int

    def _run_search(
        self, evaluate_candidates: Callable[..., Any], *, callback_ctx: Any = None
    ) -> None:
        est, epochs = self.estimator, "max_iter"
        if isinstance(est, Pipeline):
            epochs = f"{est.steps[-1][0]}__max_iter"
        if self._fits is not None and self.resource == epochs:
            self._fits.go_on_by(epochs, self.max_resources_)
        super()._run_search(evaluate_candidates, callback_ctx=callback_ctx)


class HalvingGridSearchCV(StackedHalving, model_selection.HalvingGridSearchCV):
    """A halving grid search trains the networks of all candidates and folds at once.

    The class is scikit-learn's HalvingGridSearchCV, with its parameters, methods, attributes and
    results, trained in stacks as gpumlp's `GridSearchCV` is.

    With resource="max_iter" (of a pipeline, "mlpclassifier__max_iter") the networks that lose leave
    the stack, and the rest run on from where they are, where scikit-learn fits all candidates of an
    iteration anew; mean_fit_time is that of the iteration alone.  As epochs are the same whatever
    comes after them, the results are scikit-learn's, if random_state is a number: with None, it
    would draw other networks each time.  Networks that cannot run on are fitted anew here too:
    those that cannot be stacked, that have a schedule which ends with max_iter, or that are more
    than memory has room for at once.

    Notes
    -----
    It is no experimental feature here that had to be enabled first; importing it enables
    scikit-learn's.
    """


class HalvingRandomSearchCV(StackedHalving, model_selection.HalvingRandomSearchCV):
    """A halving random search trains the networks of all candidates and folds at once.

    The class is scikit-learn's HalvingRandomSearchCV, as `HalvingGridSearchCV` here is its
    HalvingGridSearchCV.
    """
