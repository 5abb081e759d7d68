"""A member of a stack, prepared for training: its rows, its seed and its stopping rule."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Hashable
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from gpumlp.estimators import estimator_rows, stochastic
from gpumlp.estimators.fitted_network import GROUPS, draw
from gpumlp.estimators.hyperparameters import random_of
from gpumlp.estimators.stopping_rule import StoppingRule
from gpumlp.estimators.validation import Samples, Score, split_rows
from gpumlp.functions import activation
from gpumlp.functions.function import Function
from gpumlp.functions.schedule import Plateau
from gpumlp.model import arrays


class Member(NamedTuple):
    """An estimator that is to be fitted: it becomes what

        estimator.fit(X[rows][:, columns], y[rows], sample_weight[rows], X_val=X_val[:, columns])

    would make of it, by its own random_state and parameters; X_val is X[held_out] unless that is
    None.

    estimator: an MLPClassifier or MLPRegressor with n_models=None, of no other member.
    rows:      their numbers, in this order and as often as they stand there; None is all of X.
    columns:   the features that it sees; None is all of them.  Afterwards it takes all the features
               of X nevertheless: its weights coefs_[0] are 0 for those that it did not see.
    coding:    the fitted LabelBinarizer of all classes, where y[rows] may lack some; None: the
               classes are those of y[rows].
    held_out:  the numbers of the rows that early_stopping watches; None: it holds some of `rows`
               out, if there is no X_val.
    """

    estimator: Any
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    coding: Any = None
    held_out: np.ndarray | None = None


class MemberTask:
    """Prepares a member: draws and splits off what its fit alone would.

    rows, train, held_out: row numbers of X; held_out is None without early stopping, or with an
    X_val.
    weight: (len(train),) of the training loss where classes have weights, or None.
    targets: empty, in the shape and dtype of the targets as the network takes them.
    draws: see `share_orders`.
    """

    def __init__(
        self,
        place: int,
        member: Member,
        samples: Samples,
        all_rows: np.ndarray,
        has_validation: bool,
        target_cache: dict,
    ):
        """Raises ValueError for what the fit alone would refuse.

        Parameters
        ----------
        place : int
            The member's place among all.
        samples : Samples
            All rows of X.
        all_rows : ndarray
            0 .. rows - 1, shared by the members that take all of them.
        has_validation : bool
            Whether there is an X_val.
        target_cache : dict
            The targets of members prepared before, which may have the same rows; added to.
        """
        est, rows = member.estimator, member.rows
        self.place, self.est, self.columns = place, est, member.columns
        self.draws = place
        self.rows = all_rows if rows is None else np.asarray(rows)
        dtype, weight = samples.X.dtype, samples.weight
        y = self._targets(member, samples, target_cache)
        features = samples.X.shape[1] if self.columns is None else len(self.columns)
        self.spec, self.loss, self._follows = est._plan(
            features, dtype, self.targets, arrays.is_sparse(samples.X)
        )
        est._begin(self.spec)

        rng = random_of(est.random_state)
        seeded = isinstance(est.random_state, Integral)
        self._before = est.random_state if seeded else copy.deepcopy(rng)
        draw(self.spec.sizes, self._follows, rng)
        y = self._split(member, samples, y, has_validation, rng)
        self.batch_size = stochastic.batch_size_for(est, len(self.train))
        functions = [activation.find(f) for f in (*self.spec.hidden, self.spec.output)]
        self.seed = stochastic.draw_seed(est, functions, rng)
        weight = None if weight is None else weight[self.train]
        weight = est._training_weight(Samples(samples.X, y, None, weight))
        self._check_weights(weight)
        self.weight = weight if self.weighs_classes else None
        self.optimizer: Any = stochastic.make_optimizer(est)
        sizes = estimator_rows.batch_sizes(len(self.train), self.batch_size)
        self.rule = StoppingRule(est, sizes, est.learning_rate_init, rng)
        self.validated = has_validation or self.held_out is not None
        self.score: Any = Score(est) if self.validated else None
        self.X_val: Any = None  # where the score asks for it

    def _targets(self, member: Member, samples: Samples, cache: dict):
        """The targets of the member's rows, as scikit-learn has them; sets its classes."""
        est, dtype, coding = self.est, samples.X.dtype, member.coding
        key = id(member.rows), id(coding), type(est), _named(est.loss), dtype
        if key not in cache:
            if coding is not None:
                est._take_coding(coding)
            y, encoded = est._encoded(samples.y[self.rows], dtype, True, coding is not None)
            none = np.empty((0, *encoded.shape[1:]), encoded.dtype)
            cache[key] = y, none, vars(est).get("_binarizer")
        y, self.targets, coding = cache[key]
        if coding is not None:
            est._take_coding(coding)
        return y

    def _split(self, member: Member, samples: Samples, y, has_validation: bool, rng):
        """Hold rows out for early stopping; returns the targets of the rows to train on."""
        est = self.est
        train: Any = slice(None)
        self.held_out: Any = None
        self.y_val = self.weight_val = None
        if est.early_stopping and not has_validation:
            if member.held_out is None:
                train, validation = split_rows(est, y, rng)
                self.held_out, self.y_val = self.rows[validation], y[validation]
            else:
                self.held_out = np.asarray(member.held_out)
                self.y_val, _ = est._encoded_again(samples.y[self.held_out], samples.X.dtype)
            if samples.weight is not None:
                self.weight_val = samples.weight[self.held_out]
        self.train = self.rows[train]
        return y[train]

    def _check_weights(self, weight):
        for kind, values in (("", weight), ("validation ", self.weight_val)):
            if values is not None and not values.any():
                raise ValueError(f"{kind}sample_weight is 0 everywhere")

    def weights(self) -> dict[str, list]:
        """Draw the initial weights again: those of members that wait take no memory."""
        rng = random_of(copy.deepcopy(self._before))
        return dict(zip(GROUPS, draw(self.spec.sizes, self._follows, rng), strict=True))

    @property
    def weighs_classes(self) -> bool:
        return getattr(self.est, "class_weight", None) is not None

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return len(self.rule.sizes)

    @property
    def timed(self) -> bool:
        """Whether the learning rate depends on how many updates there will be."""
        schedule = self.est.schedule
        return schedule not in (None, "plateau") and not isinstance(schedule, Plateau)

    def key(self) -> tuple:
        """The key: members of equal keys can be trained in one stack."""
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
            _hashable(schedule),
            # A schedule has the same updates for all networks of a stack.
            (self.steps, est.max_iter) if self.timed else None,
            self.validated,
            self.columns is None,
        )


def share_orders(tasks: list[MemberTask]):
    """Let one task draw the orders of all whose generators are in the same state.

    `draws` is the place of the task that draws a task's orders.
    """
    shared = Counter(id(task.rule.random) for task in tasks)  # such as NumPy's own
    first: dict[Any, MemberTask] = {}
    for task in tasks:
        random, rows = task.rule.random, len(task.train)
        state = random.get_state(legacy=False)
        task.draws = task.place
        # Those of one numpy.random.Generator have its bits in common.
        common = isinstance(task.est.random_state, np.random.Generator) or shared[id(random)] > 1
        if state["bit_generator"] == "MT19937" and not common:
            key = state["state"]["key"].tobytes(), state["state"]["pos"], rows, task.est.shuffle
            leader = first.setdefault(key, task)
            task.draws, task.rule.random = leader.place, leader.rule.random


def _named(value) -> Any:
    """A key of an activation or a loss; copies of one object have the same."""
    if not isinstance(value, Function):
        return value
    forms = [v for k, v in sorted(vars(value).items()) if k not in ("name", "parameters")]
    return (value.name, tuple(value.parameters.items()), *map(_hashable, forms))


def _hashable(value) -> Any:
    """A hashable key, equal for equal values, or at least for the same object."""
    if isinstance(value, dict):
        return tuple((key, _hashable(item)) for key, item in sorted(value.items()))
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    return value if isinstance(value, Hashable) else id(value)
