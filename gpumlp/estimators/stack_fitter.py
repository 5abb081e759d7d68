"""Many estimators fitted at once: those of one shape in stacks of networks, over shared data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import _safe_indexing

from gpumlp import backend
from gpumlp.backend import device as devices
from gpumlp.estimators import array_io, estimator_rows, hyperparameters
from gpumlp.estimators.ensemble import empty_stack
from gpumlp.estimators.feature_subset import widened
from gpumlp.estimators.fitted_network import FittedNetwork
from gpumlp.estimators.input_checks import sample_weights
from gpumlp.estimators.member_task import Member, MemberTask
from gpumlp.estimators.messages import warn
from gpumlp.estimators.stack_trainer import StackTrainer, dropouts
from gpumlp.estimators.stochastic import NON_FINITE
from gpumlp.estimators.validation import Samples
from gpumlp.model import memory
from gpumlp.model.mlp import MLP
from gpumlp.model.objective import Objective
from gpumlp.training import executors

# That a stack may take on the CPU, beside the data: larger ones are no faster, as networks are
# trained in blocks there.
CPU_BYTES = 1 << 30
DATA_SHARE = 0.5  # of a GPU's free memory that the shared data may take
# A stack that half of its networks leave is for a moment there beside the smaller one.
MOVING = 1.5


def fit_members(
    members: Sequence[Member], X, y, sample_weight=None, validation=(None, None, None)
) -> list[Exception | None]:
    """Fit every member's estimator, as `Member` says; those of equal sizes, activations, loss,
    batch size, solver, dtype and device in one stack, which has the data once.

    Within a stack may differ: random_state, learning_rate_init and how it moves, alpha, l1,
    weight_decay, momentum (of which 0 with Nesterov's is another law), betas, epsilon, clip_norm,
    dropout, class_weight, max_iter, tol, n_iter_no_change, early_stopping and what it watches,
    shuffle, and the rows.  A network that has ended or diverged stands still, the others go on.

    Fitted by themselves, one after another, are those that have callbacks, a scoring function of
    the user's, solver="lbfgs", or weights to start from; and all of them on sparse rows that would
    take too much memory as dense ones, or on rows that are too many for a GPU.  As many are trained
    at once as memory has room for, worked out beforehand.

    X, y, sample_weight, validation (X_val, y_val, sample_weight_val): as `fit` takes them.

    Returns for each member None, or the error that its fit alone would have raised; one that has
    diverged has then the last good weights.  Warns once for all that have not converged.  Ctrl-C
    raises KeyboardInterrupt; the members of the running stack are then what they had come to, and
    others may have no weights.
    """
    fitting = StackFitter(members, X, y, sample_weight, validation)
    fitting.run()
    return fitting.errors


class StackFitter:
    """One call of `fit_members`; or, with pauses, as many as it takes.

    errors: as `fit_members` returns them.
    paused: the places of members that `train_further` goes on with.
    """

    def __init__(self, members, X, y, sample_weight=None, validation=(None, None, None)):
        self._members, self._given = members, (X, y, sample_weight, validation)
        self._validated = any(each is not None for each in validation)
        self._samples: dict[tuple, tuple] = {}  # see `_checked`; and the numbers of all rows
        self._targets: dict[tuple, tuple] = {}  # see `MemberTask`
        # The prepared members that one stack can hold, by device and key; places of the others.
        self._groups: dict[tuple, list[MemberTask]] = {}
        self._alone: list[int] = []
        self._stacks: list[StackTrainer] = []  # with members that pause
        self.errors: list[Exception | None] = [None] * len(members)
        self.paused: set[int] = set()
        for place, member in enumerate(members):
            try:
                self._prepare(place, member)
            except Exception as error:
                self.errors[place] = error
        self._targets.clear()

    # ------------------------------------------------------------ beforehand
    def _prepare(self, place: int, member: Member):
        est = member.estimator
        hyperparameters.check(est)
        if _goes_alone(est):
            self._alone.append(place)
            return
        device = devices.resolve(est.device)
        kind = type(est), device, str(est.dtype), est.precision
        if kind not in self._samples:
            samples, about = self._checked(est, device)
            everybody = None if samples is None else np.arange(samples.rows)
            self._samples[kind] = samples, about, everybody
        samples, about, everybody = self._samples[kind]
        taken = 0 if member.rows is None else len(member.rows)
        if samples is None or taken > samples.rows:
            self._alone.append(place)
            return
        est._forget()
        vars(est).update(about)
        run = MemberTask(place, member, samples, everybody, self._validated, self._targets)
        self._groups.setdefault((kind, run.key()), []).append(run)

    def _checked(self, est, device: str) -> tuple[Samples | None, dict[str, Any]]:
        """All rows, checked once for every member of that kind, and what est then knows of them.

        None where they are refused, so that each member finds that out for itself; or where they
        cannot be shared.
        """
        X, y, sample_weight, _ = self._given
        dtype = est._working_dtype(device)
        try:
            X, y = est._validated(X, y, device, dtype, True, "")
            weight = sample_weights(sample_weight, X.shape[0], X.dtype)
        except (ValueError, TypeError):
            return None, {}
        X = estimator_rows.dense_if_small(X, X.dtype)
        free = backend.get(device).free_memory()
        if estimator_rows.is_sparse(X) or (
            free is not None and memory.size_of(X) > DATA_SHARE * free
        ):
            return None, {}
        names = ("n_features_in_", "feature_names_in_")
        about = {name: vars(est)[name] for name in names if name in vars(est)}
        return Samples(X, y, None, weight), about

    # ------------------------------------------------------------ the fits
    def run(self, epochs: int | None = None):
        """Train all to their ends.

        epochs: no more than so many, and those that can be trained further then pause; the others
        (fitted by themselves, or with a schedule that ends with max_iter, or more than memory has
        room for at once) have them as their max_iter.
        """
        unfinished = 0
        for (kind, _), runs in self._groups.items():
            try:
                self._fit_group(runs, self._samples[kind][0], kind[1], epochs)
            except (ValueError, TypeError):
                # What one of them is refused for must not end the others.
                self._alone += [run.place for run in runs if not run.est._has_weights]
            unfinished += sum(run.est._has_weights and run.course.unfinished for run in runs)
        if unfinished:
            warn(
                f"{unfinished} of {len(self._members)} fits have not converged within max_iter "
                "epochs",
                ConvergenceWarning,
            )
        for place in self._alone:
            if epochs is not None:
                self._members[place].estimator.max_iter = epochs
            try:
                self._fit_alone(self._members[place])
            except Exception as error:
                self.errors[place] = error

    def train_further(self, places, epochs: int):
        """Train those that pause and have these places until they have had so many epochs; the
        others leave their stacks."""
        self._stacks = [stacked for stacked in self._stacks if stacked.keep(places)]
        for stacked in self._stacks:
            runs = list(stacked.runs)
            stacked.run(epochs)
            self._note_failed(runs)
        self.paused &= set(places)
        for place in self.paused:
            self._members[place].estimator.max_iter = epochs

    def _fit_group(self, runs: list[MemberTask], samples: Samples, device: str, epochs: int | None):
        """The members of equal keys, as many at once as there is room for."""
        given = None
        if self._validated:
            given = runs[0].est._given(self._given[3], device, runs[0].targets)
            given = given._replace(X=estimator_rows.dense_if_small(given.X, given.X.dtype))
        parts = np.array_split(np.arange(len(runs)), _stacks(runs, samples, given, device))
        pauses = epochs is not None and len(parts) == 1 and not runs[0].timed
        if epochs is not None and not pauses:
            for run in runs:
                run.est.max_iter = epochs
        for part in parts:
            chosen = [runs[i] for i in part]
            stacked = StackTrainer(list(chosen), samples, given, device)
            stacked.run(epochs)
            self._note_failed(chosen)
        if pauses:
            self._stacks.append(stacked)
            for run in runs:
                self.paused.add(run.place)
                run.est.max_iter = epochs

    def _note_failed(self, runs: list[MemberTask]):
        for run in runs:
            self.errors[run.place] = run.course.error
        diverged = [run for run in runs if run.course.diverged]
        for run in diverged:
            if not (run.est.early_stopping or run.course.error):
                self.errors[run.place] = ValueError(f"{NON_FINITE}: {run.course.failure}")
        if any(run.est.early_stopping for run in diverged):
            warn(
                f"in {len(diverged)} of {len(runs)} networks the loss or its gradient became NaN "
                "or infinite; the best weights before are kept",
                ConvergenceWarning,
            )

    def _fit_alone(self, member: Member):
        X, y, weight, (X_val, y_val, weight_val) = self._given
        est, rows, columns = member.estimator, member.rows, member.columns
        if weight is not None and not isinstance(weight, Real) and len(weight) != _count(X):
            raise ValueError(f"sample_weight has {len(weight)} weights for {_count(X)} samples")
        shared = weight is None or isinstance(weight, Real)
        if member.held is not None:
            X_val, y_val = _taken(X, member.held), _taken(y, member.held)
            weight_val = weight if shared else _taken(weight, member.held)
        if rows is not None:
            X, y = _taken(X, rows), _taken(y, rows)
            weight = weight if shared else _taken(weight, rows)
        if columns is not None:
            features = X.shape[1] if hasattr(X, "shape") else len(X[0])
            X = _taken(X, columns, axis=1)
            X_val = None if X_val is None else _taken(X_val, columns, axis=1)
        est._coding = member.coding
        try:
            est.fit(X, y, weight, X_val=X_val, y_val=y_val, sample_weight_val=weight_val)
        finally:
            del est._coding
        if columns is not None:
            state = est._engine.__getstate__()
            est._engine = FittedNetwork()
            est._engine.__setstate__(widened(state, columns, features))
            est.n_features_in_ = features


def _goes_alone(est) -> bool:
    """Whether the stack has no place for what the estimator asks for."""
    starts = est.warm_start and est._has_weights
    return est.solver == "lbfgs" or bool(est.callbacks) or callable(est.scoring) or starts


def _stacks(runs: list[MemberTask], samples: Samples, given: Samples | None, device: str) -> int:
    """How many stacks the members make, so that each has room."""
    free = backend.get(device).free_memory()
    one = empty_stack(runs[0].spec, device, 1)
    for stacks in range(1, len(runs)):
        shared, own = bytes_needed(runs, samples, given, one, math.ceil(len(runs) / stacks))
        if MOVING * own <= (CPU_BYTES if free is None else memory.SHARE * free - shared):
            return stacks
    return len(runs)


def bytes_needed(
    runs: list[MemberTask], samples: Samples, given: Samples | None, one: MLP, count: int
) -> tuple[int, int]:
    """Bytes on the device for a stack of so many of these members, of which `one` is a stack of
    one: the data that they share, and what grows with them."""
    run = runs[0]
    drops = (False, *(bool(p.any()) for p in dropouts(runs)), False)
    shape = replace(one.shape, M=count, drops=drops)
    held = 0
    if run.validated:
        held = given.rows if given is not None else max(len(run.held) for run in runs)
    positions = max(len(run.train) for run in runs)
    batch = max(run.batch_size for run in runs)
    executor = executors.choose(
        *(shape, one.ops, Objective(one, run.loss), run.optimizer),
        *(min(batch, positions), samples.X.dtype),
    )
    fit = memory.MemoryPlan(
        positions=positions,
        orders=count,
        held=held,
        held_orders=1 if given is not None else count,
        passes=executor.bytes(shape, batch),
    )
    state_buffers = sum(run.optimizer.state_buffers().values())
    own = memory.predict(shape, batch, state_buffers, fit=fit)
    target = math.prod(run.targets.shape[1:]) * run.targets.itemsize
    shared = target * samples.rows + memory.size_of(samples.weight)
    features = memory.size_of(samples.X, *([] if given is None else [given.X]))
    each = 0
    if run.columns is None:
        shared += features
    else:
        each += features * len(run.columns) // samples.X.shape[1]
    if any(run.est.early_stopping for run in runs):
        each += one.layout.size * one.dtype.itemsize
    if any(run.weighs_classes for run in runs):
        each += samples.rows * one.dtype.itemsize
    return shared, own + count * each


def _count(X) -> int:
    return X.shape[0] if hasattr(X, "shape") else len(X)


def _taken(array, index, axis: int = 0):
    """Rows or columns of whatever `fit` takes."""
    if not array_io.on_gpu(array):
        return _safe_indexing(array, index, axis=axis)
    import cupy

    return cupy.take(cupy.asarray(array), cupy.asarray(index), axis=axis)
