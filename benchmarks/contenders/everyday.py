"""What users of scikit-learn's interface do every day: small fits, sparse rows, few rows a call."""

import warnings
from typing import Any, NamedTuple

import numpy as np

from benchmarks.contenders import Contender

OURS, PEER = "gpumlp's estimators", "scikit-learn's estimators"
WRITTEN = "PyTorch, written out"


class Everyday(NamedTuple):
    """goal: scikit-learn's time over gpumlp's, on a quiet machine.  Rows are sparse where `filled`,
    the share of numbers that are not 0, is given; targets are values where there are no classes.
    called: the rows of a call of predict; 0: all.  loaded: others compute on every core."""

    name: str
    work: str
    goal: float
    rows: int
    features: int
    classes: int
    parameters: tuple[tuple[str, Any], ...] = ()
    filled: float = 0
    called: int = 0
    dtype: str = "float32"
    loaded: bool = False

    @property
    def label(self) -> str:
        return self.name

    def problem(self):
        return self

    def small(self) -> "Everyday":
        """The same kind of work on a few rows."""
        kept = [pair for pair in self.parameters if pair[0] in ("solver", "early_stopping")]
        name = f"{self.work}{', sparse' * bool(self.filled)}"
        return self._replace(
            **{"name": name, "goal": 0, "loaded": False, "filled": self.filled and 0.2},
            **{"rows": 60, "features": 20, "classes": min(3, self.classes), "called": 1},
            parameters=net(8, 2, **dict(kept)),
        )

    def data(self) -> tuple[Any, np.ndarray]:
        """Features (rows, features), and targets that a layer of random weights makes of them."""
        rng = np.random.default_rng(0)
        if self.filled:
            from scipy import sparse

            shape = self.rows, self.features
            X = sparse.random(*shape, self.filled, "csr", self.dtype, random_state=rng)
        else:
            X = rng.standard_normal((self.rows, self.features)).astype(self.dtype)
        z = X @ rng.standard_normal((self.features, self.classes or 1)).astype(self.dtype)
        y = z.argmax(axis=1) if self.classes else z[:, 0]
        y[: self.classes] = np.arange(self.classes)  # every class has a row
        return X, y


def net(width, epochs: int, **parameters) -> tuple[tuple[str, Any], ...]:
    hidden = width if isinstance(width, tuple) else (width,)
    return tuple({"hidden_layer_sizes": hidden, "max_iter": epochs, **parameters}.items())


TASKS = [
    Everyday("1 row, 30-100-3", "predict", 1.2, 500, 30, 3, net(100, 1), called=1),
    Everyday(
        *("1 row, 784-2048-2048-10", "predict", 1.2, 500, 784, 10, net((2048, 2048), 1)),
        called=1,
    ),
    Everyday(
        "16 rows, 784-512-512-10", "predict", 1.2, 500, 784, 10, net((512, 512), 1), called=16
    ),
    Everyday("200 rows, 50-64-5", "partial_fit", 2, 200, 50, 5, net(64, 1)),
    Everyday("4,000 x 10,000, 0.2 % filled", "fit", 3, 4000, 10_000, 10, net(64, 5), filled=0.002),
    Everyday("2,000 x 80,000, 0.1 %", "predict", 1.5, 2000, 80_000, 10, net(100, 1), filled=0.001),
    Everyday("2,000 x 5,000", "fit", 1.8, 2000, 5000, 10, net(100, 5)),
    Everyday("1,000 classes, 64-128-1000", "fit", 3, 5000, 64, 1000, net(128, 5)),
    Everyday("150 x 4, 100 epochs", "fit", 5, 150, 4, 3, net(100, 100)),
    Everyday("5 folds of 2,000 x 30", "cross_val_score", 4, 2000, 30, 3, net(64, 20)),
    Everyday("20,000 x 50", "fit", 5, 20_000, 50, 5, net(100, 10)),
    Everyday("20,000 x 50, float64", "fit", 4, 20_000, 50, 5, net(100, 10), dtype="float64"),
    Everyday("lbfgs, 2,000 x 30", "fit", 3.9, 2000, 30, 0, net(100, 50, solver="lbfgs")),
    Everyday("8 x 64, 5,000 x 30", "fit", 3.1, 5000, 30, 5, net(8 * (64,), 10)),
    Everyday(
        "early stopping, 5,000 x 20", "fit", 3.6, 5000, 20, 0, net(100, 10, early_stopping=True)
    ),
    Everyday("batches of 32, 5,000 x 30", "fit", 11, 5000, 30, 5, net(64, 5, batch_size=32)),
    Everyday("batches of 1, 1,000 x 30", "fit", 23, 1000, 30, 5, net(64, 2, batch_size=1)),
]
LOADED = [task._replace(name=f"{task.name}, loaded", goal=1, loaded=True) for task in TASKS]


class Estimators(Contender):
    """ours: gpumlp's MLPClassifier and MLPRegressor, on the device, instead of scikit-learn's."""

    def __init__(self, task: Everyday, device: str, ours: bool = False):
        warnings.simplefilter("ignore")  # few epochs are far from convergence
        if ours:
            import gpumlp as package
        else:
            from sklearn import neural_network as package
        self.task, (self.X, self.y) = task, task.data()
        self._class = package.MLPClassifier if task.classes else package.MLPRegressor
        self._options = {"device": device} if ours else {}
        self._fitted = None if task.work in ("fit", "cross_val_score") else self.fit()
        self._called = self.X[: task.called] if task.called else self.X

    def estimator(self, **more):
        # All train as long.
        parameters = dict(self.task.parameters) | self._options | more
        common = {"random_state": 0, "n_iter_no_change": parameters["max_iter"]}
        return self._class(**common, **parameters)

    def fit(self):
        return self.estimator().fit(self.X, self.y)

    def predict(self):
        return self._fitted.predict(self._called)

    def partial_fit(self):
        self._fitted.partial_fit(self.X, self.y)

    def cross_val_score(self):
        from sklearn.model_selection import cross_val_score

        cross_val_score(self.estimator(), self.X, self.y, cv=5)

    def answers(self):
        """What two epochs on some of the rows make of the weights, in float64."""
        some = slice(max(300, self.task.classes))
        fitted = self.estimator(max_iter=2).fit(self.X[some].astype(np.float64), self.y[some])
        return {"losses": [fitted.loss_], "arrays": [*fitted.coefs_, *fitted.intercepts_]}
