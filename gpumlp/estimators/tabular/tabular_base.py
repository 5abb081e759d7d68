"""What TabularClassifier and TabularRegressor share: preparation, folds, training, prediction."""

from __future__ import annotations

import copy
import time
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.validation import check_is_fitted

from gpumlp.backend import device as devices
from gpumlp.estimators import array_io, contents, hyperparameters
from gpumlp.estimators.input_checks import naming, sample_weights
from gpumlp.estimators.messages import warn
from gpumlp.estimators.tabular import tabular_parameters
from gpumlp.estimators.tabular.fold_rows import fold_rows
from gpumlp.estimators.tabular.preset import NetworkParams
from gpumlp.estimators.tabular.stored_stack import StoredStack
from gpumlp.estimators.tabular.table_preparation import Preparation
from gpumlp.estimators.tabular.table_reader import TableReader
from gpumlp.estimators.tabular.tabular_fit import TabularFit, parameters_of
from gpumlp.estimators.tabular.train_stacks import StackTask, TableSamples, train_stacks
from gpumlp.model import memory
from gpumlp.training.history import History
from gpumlp.utils.checks import ParameterError

FOLD_BYTES = 24  # of a row's number in the folds of a network, while they are made
HELD_OUT_ROWS = 4096  # of each network that are predicted at once after a fit

# What a fit leaves, beside the attributes that end with an underscore.
OF_FITS = ("_stacks", "_centre", "_scale", "_range", "_levels", "_unfinished", "_resuming")


class HeldOut(NamedTuple):
    """What a network says of rows that it did not see: outputs of each stack, (1, rows, N_K).

    member: the network's number.
    weight, loss_weight: of rows in the score, and as training had them; None: all are equal.
    """

    member: int
    outputs: list[np.ndarray]
    y: np.ndarray
    weight: np.ndarray | None
    loss_weight: np.ndarray | None


class BaseTabular(BaseEstimator):
    """See TabularClassifier and TabularRegressor, which add how targets are coded, what is trained
    on them, and what is predicted."""

    # The constructor's parameters.
    n_models: int
    hidden_layer_sizes: Any
    max_epochs: Any
    batch_size: Any
    learning_rate: float
    categorical_features: Any
    time_limit: float | None
    callbacks: Any
    device: str
    dtype: Any
    random_state: Any
    verbose: bool
    network_params: dict[str, Any] | None
    # What a fit leaves.
    preparation_: Preparation
    histories_: list[History]
    best_epochs_: np.ndarray
    validation_scores_: np.ndarray
    oof_prediction_: np.ndarray
    n_features_in_: int
    _stacks: list[StoredStack]
    _unfinished: TabularFit  # that a checkpoint was written in
    _resuming = False  # whether the next fit is to go on with that one

    _preset: NetworkParams
    _classes = False
    _no_targets: dict[str, str]

    # ------------------------------------------------------------ of classes and of values
    def _learn_coding(self, y: np.ndarray, weight: np.ndarray | None) -> None:
        """Learn how the networks are to take targets (rows,), with these weights of rows."""
        raise NotImplementedError

    def _coded(self, y: np.ndarray, name: str) -> np.ndarray:
        """Targets (rows,) as the networks take them."""
        raise NotImplementedError

    def _losses(self, params: NetworkParams) -> list[Any]:
        """Of each stack that is to be trained."""
        raise NotImplementedError

    @property
    def _outputs(self) -> tuple[int, str]:
        """Units of the last layer, and its activation."""
        raise NotImplementedError

    def _weights(self, y: np.ndarray, weight: np.ndarray | None) -> np.ndarray | None:
        """Of the training loss, for coded targets."""
        return weight

    def _pooled(self, outputs: list[np.ndarray]) -> np.ndarray:
        """What is predicted, (rows,) or (rows, columns), for the outputs (M, rows, N_K) of each
        stack."""
        raise NotImplementedError

    def _fold_score(self, y: np.ndarray, predicted: np.ndarray, weight: Any) -> float:
        """Of what is predicted for coded targets."""
        raise NotImplementedError

    def _calibrate(self, parts: list[HeldOut]) -> None:
        """Learn how sure the networks may be, by what they say of rows that they did not see."""

    # ------------------------------------------------------------ fitting
    def _fit(self, X: Any, y: Any, sample_weight: Any, validation: tuple[Any, Any, Any]) -> None:
        begin = time.monotonic()
        tabular_parameters.check(self)
        fitted = copy.copy(self)  # a fit that fails, or is interrupted, leaves this one as it was
        fitted._forget()
        if self._resuming:
            if not self._unfinished.resumable:
                raise ValueError(
                    "the resumed fit was cut short again, and its networks are no longer those of "
                    "the checkpoint: read the newest one, by gpumlp.resume, and fit that"
                )
            fit = self._unfinished.going_on(fitted, begin)
        else:
            seed = hyperparameters.random_of(self.random_state).randint(0, 2**31, size=4)
            fit = TabularFit(fitted, parameters_of(self), begin, seed)
        fitted._learn(X, y, sample_weight, validation, fit)
        self._forget()
        self.__dict__.update(vars(fitted))

    def _forget(self) -> None:
        """Drop all that an earlier fit has left."""
        for name in list(vars(self)):
            if name in OF_FITS or (name.endswith("_") and not name.startswith("_")):
                del self.__dict__[name]

    def _learn(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        validation: tuple[Any, Any, Any],
        fit: TabularFit,
    ) -> None:
        params = self._preset._replace(**(self.network_params or {}))
        device = devices.resolve(self.device)
        # What is wrong with targets shows before the table is prepared, which may take a while.
        X = array_io.host(X)
        y, weight = self._checked(X, y, sample_weight, "")
        with naming("y"):
            self._learn_coding(y, weight)
        y = self._coded(y, "y")
        loss_weight = self._weights(y, weight)
        X_val, y_val, weight_val = validation
        with_validation = self._has_validation(X_val, y_val, weight_val)
        if with_validation:
            X_val = array_io.host(X_val)
            y_val, weight_val = self._checked(X_val, y_val, weight_val, "_val")
            y_val = self._coded(y_val, "y_val")
        self._prepare(X)
        train = TableSamples(self._prepared(X, "X"), y, weight)
        fit.take(len(y), self.preparation_.names, with_validation, device)
        rng = np.random.default_rng(fit.seed)
        validation_set = folds = None
        if with_validation:
            validation_set = TableSamples(self._prepared(X_val, "X_val"), y_val, weight_val)
        else:
            folds = self._folds(y, loss_weight, rng)
        if fit.rng is None:
            fit.rng = rng
        task = StackTask(params, train, loss_weight, validation_set, folds, device)
        train_stacks(self, task, fit)
        self._stacks, self.histories_ = fit.stacks, fit.histories
        best = fit.best_epochs
        self.best_epochs_ = np.array(best if len(best) > 1 else best[0])
        if not len(self._sound):
            raise ValueError(
                "no network has a finite validation loss: lower the learning_rate, or look for "
                "extreme targets or sample weights"
            )
        if self.histories_[-1].interrupted:
            warn("training was interrupted: each network is the best so far")
        parts = self._held_out(task)
        self._calibrate(parts)
        self.validation_scores_ = np.full(self.n_models, np.nan)
        for part in parts:
            predicted = self._pooled(part.outputs)
            self.validation_scores_[part.member] = self._fold_score(part.y, predicted, part.weight)
        if folds is not None:
            self.oof_prediction_ = self._out_of_fold(task, parts)

    def _checked(
        self, X: Any, y: Any, weight: Any, suffix: str
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Targets (rows,) that are there and of a kind that can be one, and weights.

        suffix: of the arguments' names.
        """
        name = f"y{suffix}"
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        y = array_io.host(y)
        contents.refuse(y, name, self._no_targets)
        contents.refuse_missing(y, name, "leave these rows out")
        with naming(name):
            y = contents.without_extension(y)
            y = check_array(y, ensure_2d=False, dtype=None, input_name=name, estimator=self)
            y = contents.native(column_or_1d(y, warn=True))
        with naming(f"X{suffix}"):
            rows = TableReader(X).rows
        if len(y) != rows:
            raise ValueError(
                f"X{suffix} has {rows} samples and {name} {len(y)}: inconsistent numbers of samples"
            )
        dtype = np.dtype(self.dtype)
        return y, sample_weights(weight, rows, dtype, f"sample_weight{suffix}")

    def _to_file(self, fit: bool) -> tuple[Any, Any]:
        """For `gpumlp.save`: the estimator, and its running fit (see `TabularFit`)."""
        return self, None

    def _has_validation(self, X: Any, y: Any, weight: Any) -> bool:
        """Whether there is a validation set of the user's."""
        if X is None and y is None and weight is None:
            return False
        if X is None or y is None:
            raise ValueError("X_val and y_val belong together")
        return True

    def _prepare(self, X: Any) -> None:
        """Learn what becomes of the columns."""
        preparation = Preparation().fit(X, self.categorical_features)
        preparation.owner = type(self).__name__
        self.preparation_, self.n_features_in_ = preparation, preparation.n_features_in_
        if hasattr(preparation, "feature_names_in_"):
            self.feature_names_in_ = preparation.feature_names_in_

    def _prepared(self, X: Any, name: str) -> np.ndarray:
        """The features of the networks, (rows, D)."""
        preparation, dtype = self.preparation_, np.dtype(self.dtype)
        with naming(name):
            rows = TableReader(X).rows
            one = dtype.itemsize + (0 if dtype == np.float32 else np.dtype(np.float32).itemsize)
            needed = rows * len(preparation.names) * one
            if short := memory.shortage(None, needed):
                raise MemoryError(
                    f"out of memory: {name} has {rows} rows, whose {len(preparation.names)} "
                    f"prepared features take {memory.text(needed)}, and {short}; give fewer rows"
                )
            return preparation.transform(X).astype(dtype, copy=False)

    def _folds(
        self, y: np.ndarray, weight: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows that each network trains on and holds out, of those that have a weight.

        Raises MemoryError where their numbers take more than there is.
        """
        weighty = np.arange(len(y)) if weight is None else np.flatnonzero(weight)
        if not len(weighty):
            raise ValueError("every row has a weight of 0, by sample_weight and class_weight")
        needed = self.n_models * len(weighty) * FOLD_BYTES
        if short := memory.shortage(None, needed):
            raise MemoryError(
                f"out of memory: the folds of n_models = {self.n_models} networks on "
                f"{len(weighty)} rows take {memory.text(needed)}, and {short}; lower n_models"
            )
        training, held_out = fold_rows(y[weighty], self.n_models, self._classes, rng)
        return weighty[training], weighty[held_out]

    # ------------------------------------------------------------ what it computes
    @property
    def _sound(self) -> np.ndarray:
        """The numbers of the networks that have a say: those with a best epoch, in all stacks."""
        return np.flatnonzero((np.atleast_2d(self.best_epochs_) > 0).all(axis=0))

    def _members(self, X: Any) -> list[np.ndarray]:
        """The outputs (M, rows, N_K) of each stack, of the networks that have a say."""
        check_is_fitted(self)
        sound, chunks = self._sound, []
        for chunk in self.preparation_.chunks(array_io.host(X)):
            x = chunk.astype(self._stacks[0].net.dtype, copy=False)
            chunks.append([stack.outputs(x)[sound] for stack in self._stacks])
        return [np.concatenate(parts, axis=1) for parts in zip(*chunks, strict=True)]

    def _held_out(self, task: StackTask) -> list[HeldOut]:
        """Of each network that has a say, what it says of the rows that it did not see."""
        train, folds, validation_set = task.train, task.folds, task.validation_set
        if validation_set is not None:
            outputs = [stack.outputs(validation_set.x) for stack in self._stacks]
            targets = [
                (validation_set.y, validation_set.weight, validation_set.weight)
            ] * self.n_models
        else:
            held_out = folds[1]
            count = held_out.shape[1]
            chunks = np.array_split(held_out, -(-count // HELD_OUT_ROWS), axis=1)
            outputs = [
                np.concatenate([stack.outputs(train.x[rows]) for rows in chunks], axis=1)
                for stack in self._stacks
            ]
            targets = [
                (train.y[rows], _of_rows(train.weight, rows), _of_rows(task.weight, rows))
                for rows in held_out
            ]
        return [
            HeldOut(m, [of_stack[m : m + 1] for of_stack in outputs], *targets[m])
            for m in self._sound
        ]

    def _out_of_fold(self, task: StackTask, parts: list[HeldOut]) -> np.ndarray:
        """The prediction of each row by the networks that did not see it; NaN where all did."""
        x, held_out = task.train.x, task.folds[1]
        first = self._pooled(parts[0].outputs)
        total, times = np.zeros((len(x), *first.shape[1:])), np.zeros(len(x))
        for part in parts:
            rows, places = np.unique(held_out[part.member], return_index=True)  # some are twice
            total[rows] += self._pooled(part.outputs)[places]
            times[rows] += 1
        unseen = np.zeros(0, int) if task.weight is None else np.flatnonzero(task.weight == 0)
        if len(unseen):
            outputs = [stack.outputs(x[unseen])[self._sound] for stack in self._stacks]
            total[unseen], times[unseen] = self._pooled(outputs), 1
        with np.errstate(invalid="ignore"):
            return (total.T / times).T

    def _quantiles(self, q: Any, values: np.ndarray) -> np.ndarray:
        """The quantiles q over the first axis of values, those of several as the last axis."""
        levels = np.asarray(q)
        shaped = levels.dtype.kind in "iuf" and levels.ndim <= 1 and levels.size
        if not (shaped and np.all((0 <= levels) & (levels <= 1))):
            raise ParameterError(f"q = {q!r} must be a number in [0, 1], or several")
        quantiles = np.quantile(values, levels, axis=0)
        return np.moveaxis(quantiles, 0, -1) if levels.ndim else quantiles

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


def _of_rows(weight: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if weight is None else weight[rows]
