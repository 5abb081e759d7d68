"""A member of a stack: an estimator on its way to be trained beside others."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from gpumlp import activation
from gpumlp.estimator import data, stochastic
from gpumlp.estimator.course import Course
from gpumlp.estimator.engine import draw
from gpumlp.estimator.validation import Samples, Score, split_rows
from gpumlp.function import Function
from gpumlp.schedule import Plateau


class Member(NamedTuple):
    """An estimator that is to be fitted: it becomes what

        estimator.fit(X[rows][:, columns], y[rows], sample_weight[rows], X_val=X_val[:, columns])

    would make of it, by its own random_state and parameters.

    estimator: an MLPClassifier or MLPRegressor with n_models=None, of no other member.
    rows:      their numbers, in this order and as often as they stand there; None is all of X.
    columns:   the features that it sees; None is all of them.  Afterwards it takes all the features
               of X nevertheless: its weights coefs_[0] are 0 for those that it did not see.
    coding:    the fitted LabelBinarizer of all classes, where y[rows] may lack some; None: the
               classes are those of y[rows].
    """

    estimator: Any
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    coding: Any = None


class Prepared:
    """A member, ready to be trained: what its fit alone would have drawn and split off.

    train, held: rows of X; held is None without early stopping, or where X_val is given.
    weight: (len(train),) of the training loss, or None;  encoded: (len(rows), ...) the targets.
    draws: see `share_orders`.
    """

    def __init__(self, place: int, member: Member, samples: Samples, given: bool):
        """place: among all members; samples: of all rows; given: whether there is an X_val.

        Raises ValueError for what its fit alone would refuse.
        """
        est, rows = member.estimator, member.rows
        self.place, self.est, self.columns = place, est, member.columns
        self.draws = place
        self.rows = np.arange(samples.rows) if rows is None else np.asarray(rows)
        y, weight = samples.y[self.rows], samples.weight
        dtype = samples.X.dtype
        vars(est).pop("_engine", None)
        if member.coding is not None:
            est._binarizer, est.classes_ = member.coding, member.coding.classes_
        y, self.encoded = est._encoded(y, dtype, True, member.coding is not None)
        features = samples.X.shape[1] if self.columns is None else len(self.columns)
        self.spec, self.loss, follows = est._plan(features, dtype, self.encoded)
        est._begin(self.spec)

        rng = check_random_state(est.random_state)
        self.coefs, self.intercepts = draw(self.spec.sizes, follows, rng)
        train: Any = slice(None)
        held = None
        if est.early_stopping and not given:
            train, held = split_rows(est, y, rng)
        self.train = self.rows[train]
        self.batch_size = stochastic.batch_size_for(est, len(self.train))
        functions = [activation.find(f) for f in (*self.spec.hidden, self.spec.output)]
        self.seed = stochastic.draw_seed(est, functions, rng)
        weight = None if weight is None else weight[self.train]
        self.weight = est._training_weight(Samples(samples.X, y[train], None, weight))
        self._take_held(samples, held, y)
        self.optimizer: Any = stochastic.make_optimizer(est)
        sizes = data.batch_sizes(len(self.train), self.batch_size)
        self.course = Course(est, sizes, est.learning_rate_init, rng)
        self.validated = given or held is not None
        self.score: Any = Score(est) if self.validated else None
        self.X_held: Any = None  # where the score asks for it

    def _take_held(self, samples: Samples, held, y):
        self.held: Any = None if held is None else self.rows[held]
        self.y_held: Any = None if held is None else y[held]
        self.weight_held = None
        if held is not None and samples.weight is not None:
            self.weight_held = samples.weight[self.held]
        for kind, weight in (("", self.weight), ("validation ", self.weight_held)):
            if weight is not None and not weight.any():
                raise ValueError(f"{kind}sample_weight is 0 everywhere")

    @property
    def steps(self) -> int:
        return len(self.course.sizes)

    @property
    def timed(self) -> bool:
        """Whether the learning rate depends on how many updates there will be."""
        schedule = self.est.schedule
        return schedule not in (None, "plateau") and not isinstance(schedule, Plateau)

    def key(self) -> tuple:
        """Members of equal keys can be trained in one stack."""
        est, spec = self.est, self.spec
        schedule = est.schedule
        return (
            type(est),
            spec.sizes,
            tuple(map(_named, (*spec.hidden, spec.output))),
            (spec.dtype, spec.precision),
            (_named(est.loss), getattr(est, "label_smoothing", 0), getattr(est, "quantile", 0)),
            tuple(est.classes_.tolist()) if hasattr(est, "classes_") else None,
            # Those that take all their rows at once may have any number of them.
            200 if est.batch_size == "auto" else est.batch_size,
            (est.solver, getattr(self.optimizer, "nesterov", False)),
            schedule,
            # A schedule has the same updates for all networks of a stack.
            (self.steps, est.max_iter) if self.timed else None,
            self.validated,
            self.columns is None,
        )


def share_orders(runs: list[Prepared]):
    """Those whose generators stand at the same point would all draw the same orders, which then one
    of them draws for all: `run.draws` says which these are."""
    shared = Counter(id(run.course.random) for run in runs)  # such as NumPy's own
    first: dict[Any, Prepared] = {}
    for run in runs:
        random, rows = run.course.random, len(run.train)
        state = random.get_state(legacy=False)
        run.draws = run.place
        if state["bit_generator"] == "MT19937" and shared[id(random)] == 1:
            key = state["state"]["key"].tobytes(), state["state"]["pos"], rows, run.est.shuffle
            leader = first.setdefault(key, run)
            run.draws, run.course.random = leader.place, leader.course.random


def _named(value) -> Any:
    """What tells activations and losses apart; copies of one object are alike."""
    if not isinstance(value, Function):
        return value
    forms = [v for k, v in sorted(vars(value).items()) if k not in ("name", "parameters")]
    return (value.name, tuple(value.parameters.items()), *map(_hashable, forms))


def _hashable(value) -> Any:
    return tuple(sorted(value.items())) if isinstance(value, dict) else value
