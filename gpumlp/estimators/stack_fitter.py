"""Fit many estimators at once: those of one shape in stacks of networks, over shared data."""

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
from gpumlp.estimators import array_io, hyperparameters
from gpumlp.estimators.ensemble import empty_stack
from gpumlp.estimators.feature_subset import widened
from gpumlp.estimators.fitted_network import FittedNetwork
from gpumlp.estimators.input_checks import sample_weights
from gpumlp.estimators.member_task import Member, MemberTask
from gpumlp.estimators.messages import warn
from gpumlp.estimators.stack_trainer import StackTrainer, dropouts
from gpumlp.estimators.stochastic import NON_FINITE
from gpumlp.estimators.validation import Samples
from gpumlp.model import arrays, memory
from gpumlp.model.mlp import MLP
from gpumlp.model.objective import Objective
from gpumlp.training import executors

# Bytes that a stack may take on the CPU, beside the data: larger ones are no faster, as networks
# are trained in blocks there.
CPU_BYTES = 1 << 30
DATA_SHARE = 0.5  # of a GPU's free memory that the shared data may take
# A stack that half of its networks leave lies for a moment beside the smaller one.
MOVING = 1.5


def fit_members(
    members: Sequence[Member], X, y, sample_weight=None, validation=(None, None, None)
) -> list[Exception | None]:
    """Fit every member's estimator, as `Member` says; those of equal sizes, activations, loss,
    batch size, solver, dtype and device in one stack, which has the data once.

    Within a stack may differ: random_state, learning_rate_init and how it moves, alpha, l1,
    weight_decay, momentum (of which 0 with Nesterov's is another update rule), betas, epsilon,
    clip_norm, dropout, class_weight, max_iter, tol, n_iter_no_change, early_stopping and what it
    watches, shuffle, and the rows.  A network that has ended or diverged stands still, the others
    go on.

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
    """Fits members in stacks, to their ends or, with pauses, some epochs at a time.

    errors: as `fit_members` returns them.
    paused: the places of members that `train_further` goes on with.
    """

    def __init__(self, members, X, y, sample_weight=None, validation=(None, None, None)):
        self._members, self._data = members, (X, y, sample_weight, validation)
        self._validated = any(value is not None for value in validation)
        self._samples: dict[tuple, tuple] = {}  # see `_checked`; and the numbers of all rows
        self._targets: dict[tuple, tuple] = {}  # see `MemberTask`
        # Prepared members by kind (see `_prepare`) and key; and the places of those fitted alone.
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
            samples, attributes = self._checked(est, device)
            all_rows = None if samples is None else np.arange(samples.rows)
            self._samples[kind] = samples, attributes, all_rows
        samples, attributes, all_rows = self._samples[kind]
        taken = 0 if member.rows is None else len(member.rows)
        # The networks of a stack share sparse rows with all their features.
        apart = samples is not None and arrays.is_sparse(samples.X) and member.columns is not None
        if samples is None or taken > samples.rows or apart:
            self._alone.append(place)
            return
        est._forget()
        vars(est).update(attributes)
        task = MemberTask(place, member, samples, all_rows, self._validated, self._targets)
        self._groups.setdefault((kind, task.key()), []).append(task)

    def _checked(self, est, device: str) -> tuple[Samples | None, dict[str, Any]]:
        """Check all rows, once for every member of est's kind; and the attributes that this sets.

        None for rows that are refused, so that each member raises the error for itself, or that
        cannot be shared.
        """
        X, y, sample_weight, _ = self._data
        dtype = est._working_dtype(device)
        try:
            X, y = est._validated(X, y, device, dtype, True, "")
            weight = sample_weights(sample_weight, X.shape[0], X.dtype)
        except (ValueError, TypeError):
            return None, {}
        free = backend.get(device).free_memory()
        if free is not None and memory.size_of(X) > DATA_SHARE * free:
            return None, {}
        names = ("n_features_in_", "feature_names_in_")
        attributes = {name: vars(est)[name] for name in names if name in vars(est)}
        return Samples(X, y, None, weight), attributes

    # ------------------------------------------------------------ the fits
    def run(self, epochs: int | None = None):
        """Train all members to their ends.

        epochs: no more than so many, and members that can be trained further then pause; the others
        (fitted by themselves, or with a schedule that ends with max_iter, or more than memory has
        room for at once) have them as their max_iter.
        """
        unfinished = 0
        for (kind, _), tasks in self._groups.items():
            try:
                self._fit_group(tasks, self._samples[kind][0], kind[1], epochs)
            except (ValueError, TypeError):
                # What one of them is refused for must not end the others.
                self._alone += [task.place for task in tasks if not task.est._has_weights]
            unfinished += sum(task.est._has_weights and task.rule.unfinished for task in tasks)
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
        """Train the paused members of these places until they have had so many epochs; the other
        paused members leave their stacks."""
        self._stacks = [stack for stack in self._stacks if stack.keep(places)]
        for stack in self._stacks:
            tasks = list(stack.tasks)
            stack.run(epochs)
            self._note_errors(tasks)
        self.paused &= set(places)
        for place in self.paused:
            self._members[place].estimator.max_iter = epochs

    def _fit_group(
        self, tasks: list[MemberTask], samples: Samples, device: str, epochs: int | None
    ):
        """Train the members of one key, as many at once as memory has room for."""
        val = None
        if self._validated:
            trained = samples._replace(encoded=tasks[0].targets)
            val = tasks[0].est._given(self._data[3], device, trained)
        parts = np.array_split(np.arange(len(tasks)), _stacks(tasks, samples, val, device))
        pauses = epochs is not None and len(parts) == 1 and not tasks[0].timed
        if epochs is not None and not pauses:
            for task in tasks:
                task.est.max_iter = epochs
        for part in parts:
            chosen = [tasks[i] for i in part]
            stack = StackTrainer(list(chosen), samples, val, device)
            stack.run(epochs)
            self._note_errors(chosen)
        if pauses:
            self._stacks.append(stack)
            for task in tasks:
                self.paused.add(task.place)
                task.est.max_iter = epochs

    def _note_errors(self, tasks: list[MemberTask]):
        for task in tasks:
            self.errors[task.place] = task.rule.error
        diverged = [task for task in tasks if task.rule.diverged]
        for task in diverged:
            if not (task.est.early_stopping or task.rule.error):
                self.errors[task.place] = ValueError(f"{NON_FINITE}: {task.rule.failure}")
        if any(task.est.early_stopping for task in diverged):
            warn(
                f"in {len(diverged)} of {len(tasks)} networks the loss or its gradient became NaN "
                "or infinite; the best weights before are kept",
                ConvergenceWarning,
            )

    def _fit_alone(self, member: Member):
        """Fit a member by its own `fit`; raises what that raises."""
        X, y, weight, (X_val, y_val, weight_val) = self._data
        est, rows, columns = member.estimator, member.rows, member.columns
        if weight is not None and not isinstance(weight, Real) and len(weight) != _count(X):
            raise ValueError(f"sample_weight has {len(weight)} weights for {_count(X)} samples")
        shared = weight is None or isinstance(weight, Real)
        if member.held_out is not None:
            X_val, y_val = _taken(X, member.held_out), _taken(y, member.held_out)
            weight_val = weight if shared else _taken(weight, member.held_out)
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
    """Whether the estimator has to be fitted by itself, see `fit_members`."""
    starts = est.warm_start and est._has_weights
    return est.solver == "lbfgs" or bool(est.callbacks) or callable(est.scoring) or starts


def _stacks(tasks: list[MemberTask], samples: Samples, val: Samples | None, device: str) -> int:
    """The number of stacks into which the members are divided, so that each fits into memory."""
    free = backend.get(device).free_memory()
    one = empty_stack(tasks[0].spec, device, 1)
    for stacks in range(1, len(tasks)):
        count = math.ceil(len(tasks) / stacks)
        shared, per_stack = bytes_needed(tasks, samples, val, one, count)
        if MOVING * per_stack <= (CPU_BYTES if free is None else memory.SHARE * free - shared):
            return stacks
    return len(tasks)


def bytes_needed(
    tasks: list[MemberTask], samples: Samples, val: Samples | None, one: MLP, count: int
) -> tuple[int, int]:
    """Bytes on the device for a stack of `count` of these members: shared by all, and the others.

    one: a stack of one such network;  val: the users' own validation set, or None.
    """
    task = tasks[0]
    drops = (False, *(bool(p.any()) for p in dropouts(tasks)), False)
    shape = replace(one.shape, M=count, drops=drops)
    validation_rows = 0
    if task.validated:
        held_out = (len(task.held_out) for task in tasks)
        validation_rows = val.rows if val is not None else max(held_out)
    positions = max(len(task.train) for task in tasks)
    batch = max(task.batch_size for task in tasks)
    executor = executors.choose(
        *(shape, one.ops, Objective(one, task.loss), task.optimizer),
        *(min(batch, positions), samples.X.dtype),
    )
    fit = memory.MemoryPlan(
        positions=positions,
        orders=count,
        validation_rows=validation_rows,
        validation_orders=1 if val is not None else count,
        passes=executor.bytes(shape, batch),
    )
    state_buffers = sum(task.optimizer.state_buffers().values())
    own_bytes = memory.predict(shape, batch, state_buffers, fit=fit)
    target = math.prod(task.targets.shape[1:]) * task.targets.itemsize
    shared = target * samples.rows + memory.size_of(samples.weight)
    features = memory.size_of(samples.X, *([] if val is None else [val.X]))
    per_member = 0
    if task.columns is None:
        shared += features
    else:
        per_member += features * len(task.columns) // samples.X.shape[1]
    if any(task.est.early_stopping for task in tasks):
        per_member += one.layout.size * one.dtype.itemsize
    if any(task.weighs_classes for task in tasks):
        per_member += samples.rows * one.dtype.itemsize
    return shared, own_bytes + count * per_member


def _count(X) -> int:
    return X.shape[0] if hasattr(X, "shape") else len(X)


def _taken(array, index, axis: int = 0):
    """Rows (axis 0) or columns (axis 1) of any kind of array that `fit` takes."""
    if not array_io.on_gpu(array):
        return _safe_indexing(array, index, axis=axis)
    import cupy

    if array_io.is_gpu_sparse(array):
        return array.tocsr()[index] if axis == 0 else array.tocsr()[:, index]
    return cupy.take(cupy.asarray(array), cupy.asarray(index), axis=axis)
