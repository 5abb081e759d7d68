"""One fit of a search: a candidate on a fold."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sklearn.base import clone
from sklearn.pipeline import Pipeline

from gpumlp.estimator import MLPClassifier, MLPRegressor
from gpumlp.estimator.member import Member
from gpumlp.estimator.stack import fit_members


class Fit:
    """estimator: with the candidate's parameters, in the end fitted, unless there is an
    error: what its fit has raised;  seconds: that it took.

    parameters: the candidate;  fold: its number.
    """

    def __init__(self, base, parameters: dict[str, Any], fold: int):
        self.parameters, self.fold = parameters, fold
        self.estimator = clone(base)
        self.error: Exception | None = None
        self.seconds = 0.0
        try:
            self.estimator.set_params(**clone(parameters, safe=False))
        except Exception as error:  # scikit-learn meets it too, before it asks for this fit
            self.error = error

    @property
    def network(self):
        return last_step(self.estimator)

    def cost(self) -> str:
        """Networks that differ in it are never in one stack, and take different times."""
        est = self.network
        return repr((est.hidden_layer_sizes, est.activation, est.batch_size, est.solver))


def last_step(estimator):
    """Of a pipeline; else the estimator itself."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator


def is_stackable(estimator) -> bool:
    """An estimator of gpumlp, or a pipeline of scikit-learn that ends with one."""
    if isinstance(estimator, Pipeline) and (
        type(estimator) is not Pipeline or len(estimator.steps) < 2
    ):
        return False
    network = last_step(estimator)
    ours = getattr(type(network), "fit", None) in (MLPClassifier.fit, MLPRegressor.fit)
    return ours and network.n_models is None


def grouped(items, key: Callable) -> list[list]:
    """Those of equal keys, together."""
    groups: dict[Any, list] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def fit_networks(
    fits: list[Fit], rows: list, X, y, sample_weight=None, validation=(None, None, None)
):
    """Train the networks of these fits, each on its rows of X."""
    begin = time.perf_counter()
    members = [Member(fit.network, own) for fit, own in zip(fits, rows, strict=True)]
    errors = fit_members(members, X, y, sample_weight, validation)
    share = (time.perf_counter() - begin) / len(fits)
    for fit, error in zip(fits, errors, strict=True):
        fit.error = error
        fit.seconds += share
