"""A search over learning rates and penalties by scikit-learn's interface: gpumlp's, and
scikit-learn's own with two processes."""

from __future__ import annotations

import os
import warnings
from typing import Any, NamedTuple

import numpy as np

from benchmarks.contenders import LIBRARY, SCIKIT_LEARN_SEARCH, Declined, Entry
from benchmarks.networks import digits

ENTRIES = (
    Entry(LIBRARY, "gpumlp", "searches", "Library"),
    Entry(SCIKIT_LEARN_SEARCH, "sklearn", "searches", "ScikitLearn"),
)

HIDDEN, BATCH, PROCESSES = 64, 200, 2


class Search(NamedTuple):
    """As many candidates, a square, are as many learning rates times as many penalties."""

    candidates: int
    folds: int
    epochs: int

    @property
    def name(self) -> str:
        return (
            f"{self.candidates} candidates x {self.folds} folds, 64-{HIDDEN}-10, digits, "
            f"{self.epochs} epochs"
        )

    def problem(self) -> Problem:
        return Problem(self)


class Problem:
    def __init__(self, search: Search):
        self.search = search
        self.x, self.y = digits()
        each = round(search.candidates**0.5)
        self.grid = {
            "learning_rate_init": np.geomspace(1e-3, 3e-2, each).tolist(),
            "alpha": np.geomspace(1e-6, 1e-1, each).tolist(),
        }


class Searching:
    """estimator, search_cv: classes; processes: None is this one."""

    estimator: Any
    search_cv: Any
    processes: int | None = None

    def __init__(self, problem: Problem, device: str):
        self.problem, self._device = problem, device
        # 30 epochs are far from convergence; also in other processes.
        os.environ["PYTHONWARNINGS"] = "ignore"
        warnings.simplefilter("ignore")

    def settings(self) -> dict:
        epochs = self.problem.search.epochs
        return {
            "hidden_layer_sizes": (HIDDEN,),
            "batch_size": BATCH,
            "max_iter": epochs,
            "n_iter_no_change": epochs,  # so that all train as long
            "random_state": 0,
        }

    def _fit(self, x, y, grid, folds, **changes):
        network = self.estimator(**self.settings() | changes)
        search = self.search_cv(network, grid, cv=folds, n_jobs=self.processes, error_score="raise")
        return search.fit(x, y)

    def search(self):
        problem = self.problem
        found = self._fit(problem.x, problem.y, problem.grid, problem.search.folds)
        if not found.best_score_ > 0.2:
            raise ArithmeticError(f"the best of all candidates has a score of {found.best_score_}")

    def answers(self):
        """Of a short search in float64: the score of every candidate on every fold."""
        problem = self.problem
        grid = {name: values[::2][:2] for name, values in problem.grid.items()}
        x = problem.x[:600].astype(np.float64)
        found = self._fit(x, problem.y[:600], grid, 3, max_iter=5)
        scores = [found.cv_results_[f"split{i}_test_score"] for i in range(3)]
        return {"losses": [], "arrays": [np.array(scores)]}

    def work(self, what: str):
        return getattr(self, what)

    def wait(self):
        pass


class Library(Searching):
    def __init__(self, problem, device):
        super().__init__(problem, device)
        import gpumlp

        try:
            self.estimator, self.search_cv = gpumlp.MLPClassifier, gpumlp.GridSearchCV
        except (AttributeError, ImportError) as error:
            raise Declined(f"gpumlp has no GridSearchCV: {error}") from error

    def settings(self):
        return super().settings() | {"device": self._device}


class ScikitLearn(Searching):
    processes = PROCESSES

    def __init__(self, problem, device):
        super().__init__(problem, device)
        from sklearn.model_selection import GridSearchCV
        from sklearn.neural_network import MLPClassifier

        self.estimator, self.search_cv = MLPClassifier, GridSearchCV
