"""A member of a stack: an estimator on its way to be trained beside others."""

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


class Member(NamedTuple):
    """An estimator that is to be fitted: it becomes what

        estimator.fit(X[rows][:, columns], y[rows], sample_weight[rows], X_val=X_val[:, columns])

    would make of it, by its own random_state and parameters; X_val is X[held], where that is given.

    estimator: an MLPClassifier or MLPRegressor with n_models=None, of no other member.
    rows:      their numbers, in this order and as often as they stand there; None is all of X.
    columns:   the features that it sees; None is all of them.  Afterwards it takes all the features
               of X nevertheless: its weights coefs_[0] are 0 for those that it did not see.
    coding:    the fitted LabelBinarizer of all classes, where y[rows] may lack some; None: the
               classes are those of y[rows].
    held:      the numbers of the rows that early_stopping watches; None: it holds some of `rows`
               out, if there is no X_val.
    """

    estimator: Any
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    coding: Any = None
    held: np.ndarray | None = None


class MemberTask:
    """A member, ready to be trained: what its fit alone would have drawn and split off.

    rows, train, held: of X; held is None without early stopping, or where X_val is given.
    weight: (len(train),) of the training loss where that is not everybody's, or None.
    targets: none, as the engine takes them: their shape and dtype.
    draws: see `share_orders`.
    """

    def __init__(
        self, place: int, member: Member, samples: Samples, everybody, given: bool, known: dict
    ):
        """place: among all members; samples: of all rows; everybody: their numbers; given: whether
        there is an X_val; known: the targets of those before, which may have the same rows.

        Raises ValueError for what its fit alone would refuse.
        """
        est, rows = member.estimator, member.rows
        self.place, self.est, self.columns = place, est, member.columns
        self.draws = place
        self.rows = everybody if rows is None else np.asarray(rows)
        dtype, weight = samples.X.dtype, samples.weight
        y = self._targets(member, samples, known)
        features = samples.X.shape[1] if self.columns is None else len(self.columns)
        self.spec, self.loss, self._follows = est._plan(features, dtype, self.targets)
        est._begin(self.spec)

        rng = random_of(est.random_state)
        seeded = isinstance(est.random_state, Integral)
        self._before = est.random_state if seeded else copy.deepcopy(rng)
        draw(self.spec.sizes, self._follows, rng)
        train: Any = slice(None)
        held, y_held = None, None
        if est.early_stopping and not given:
            if member.held is None:
                train, own = split_rows(est, y, rng)
                held, y_held = self.rows[own], y[own]
            else:
                held = np.asarray(member.held)
                y_held, _ = est._encoded_again(samples.y[held], dtype)
        self.train = self.rows[train]
        self.batch_size = stochastic.batch_size_for(est, len(self.train))
        functions = [activation.find(f) for f in (*self.spec.hidden, self.spec.output)]
        self.seed = stochastic.draw_seed(est, functions, rng)
        weight = None if weight is None else weight[self.train]
        weight = est._training_weight(Samples(samples.X, y[train], None, weight))
        self._take_held(samples, held, y_held)
        self._refuse_nothing(weight)
        self.weight = weight if self.weighs_classes else None
        self.optimizer: Any = stochastic.make_optimizer(est)
        sizes = estimator_rows.batch_sizes(len(self.train), self.batch_size)
        self.course = StoppingRule(est, sizes, est.learning_rate_init, rng)
        self.validated = given or held is not None
        self.score: Any = Score(est) if self.validated else None
        self.X_held: Any = None  # where the score asks for it

    def _targets(self, member: Member, samples: Samples, known: dict):
        """Those of its rows, as scikit-learn has them; its classes are then known."""
        est, dtype, coding = self.est, samples.X.dtype, member.coding
        key = id(member.rows), id(coding), type(est), _named(est.loss), dtype
        if key not in known:
            if coding is not None:
                est._take_coding(coding)
            y, encoded = est._encoded(samples.y[self.rows], dtype, True, coding is not None)
            none = np.empty((0, *encoded.shape[1:]), encoded.dtype)
            known[key] = y, none, vars(est).get("_binarizer")
        y, self.targets, coding = known[key]
        if coding is not None:
            est._take_coding(coding)
        return y

    def _take_held(self, samples: Samples, held, y_held):
        self.held, self.y_held = held, y_held
        self.weight_held = None
        if held is not None and samples.weight is not None:
            self.weight_held = samples.weight[held]

    def _refuse_nothing(self, weight):
        for kind, each in (("", weight), ("validation ", self.weight_held)):
            if each is not None and not each.any():
                raise ValueError(f"{kind}sample_weight is 0 everywhere")

    def weights(self) -> dict[str, list]:
        """The initial ones, drawn again: those of members that wait take no room."""
        rng = random_of(copy.deepcopy(self._before))
        return dict(zip(GROUPS, draw(self.spec.sizes, self._follows, rng), strict=True))

    @property
    def weighs_classes(self) -> bool:
        return getattr(self.est, "class_weight", None) is not None

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
            _hashable(schedule),
            # A schedule has the same updates for all networks of a stack.
            (self.steps, est.max_iter) if self.timed else None,
            self.validated,
            self.columns is None,
        )


def share_orders(runs: list[MemberTask]):
    """Those whose generators stand at the same point would all draw the same orders, which then one
    of them draws for all: `run.draws` says which these are."""
    shared = Counter(id(run.course.random) for run in runs)  # such as NumPy's own
    first: dict[Any, MemberTask] = {}
    for run in runs:
        random, rows = run.course.random, len(run.train)
        state = random.get_state(legacy=False)
        run.draws = run.place
        # Those of one numpy.random.Generator have its bits in common.
        common = isinstance(run.est.random_state, np.random.Generator) or shared[id(random)] > 1
        if state["bit_generator"] == "MT19937" and not common:
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
    """Equal for equal values, or at least for the same object."""
    if isinstance(value, dict):
        return tuple((key, _hashable(each)) for key, each in sorted(value.items()))
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    return value if isinstance(value, Hashable) else id(value)
