"""A search over learning rates and penalties by scikit-learn's interface: gpumlp's, and
scikit-learn's own with two processes."""

import os
import warnings
from typing import NamedTuple

import numpy as np

from benchmarks.contenders import Contender
from benchmarks.networks import digits


class Search(NamedTuple):
    """As many candidates, a square, are as many learning rates times as many penalties."""

    candidates: int
    folds: int
    epochs: int

    @property
    def name(self) -> str:
        numbers = f"{self.candidates} candidates x {self.folds} folds, {self.epochs} epochs"
        return f"{numbers}, 64-64-10, digits"

    label = name

    def problem(self):
        return self

    def grid(self) -> dict[str, list[float]]:
        count = round(self.candidates**0.5)
        rates, penalties = np.geomspace(1e-3, 3e-2, count), np.geomspace(1e-6, 1e-1, count)
        return {"learning_rate_init": rates.tolist(), "alpha": penalties.tolist()}


SEARCH = Search(candidates=64, folds=5, epochs=30)


class Searching(Contender):
    """ours: gpumlp's MLPClassifier and GridSearchCV instead of scikit-learn's."""

    def __init__(self, search: Search, device: str, ours: bool = False):
        self.task, (self.x, self.y) = search, digits()
        # 30 epochs are far from convergence; also in other processes.
        os.environ["PYTHONWARNINGS"] = "ignore"
        warnings.simplefilter("ignore")
        if ours:
            from gpumlp import GridSearchCV, MLPClassifier
        else:
            from sklearn.model_selection import GridSearchCV
            from sklearn.neural_network import MLPClassifier
        self.classes = MLPClassifier, GridSearchCV
        self.options, self.processes = ({"device": device}, None) if ours else ({}, 2)

    def fit(self, grid, folds, epochs, x, y):
        network, search = self.classes
        # All train as long.
        self.options |= {"max_iter": epochs, "n_iter_no_change": epochs, "random_state": 0}
        estimator = network(hidden_layer_sizes=(64,), batch_size=200, **self.options)
        options = {"cv": folds, "n_jobs": self.processes, "error_score": "raise"}
        return search(estimator, grid, **options).fit(x, y)

    def search(self):
        task = self.task
        best = self.fit(task.grid(), task.folds, task.epochs, self.x, self.y).best_score_
        if not best > 0.2:
            raise ArithmeticError(f"the best of all candidates has a score of {best}")

    def answers(self):
        """Of a short search in float64: the score of every candidate on every fold."""
        grid = {name: values[::2][:2] for name, values in self.task.grid().items()}
        results = self.fit(grid, 3, 5, self.x[:600].astype(np.float64), self.y[:600]).cv_results_
        scores = [results[f"split{i}_test_score"] for i in range(3)]
        return {"losses": [], "arrays": [np.array(scores)]}
