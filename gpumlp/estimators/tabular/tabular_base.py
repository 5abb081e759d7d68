"""What TabularClassifier and TabularRegressor share: preparation, folds, training, prediction."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.validation import _num_samples, check_is_fitted

from gpumlp.backend import device as devices
from gpumlp.estimators import array_io, contents, hyperparameters
from gpumlp.estimators.input_checks import naming, sample_weights
from gpumlp.estimators.messages import warn
from gpumlp.estimators.tabular import preset, tabular_parameters
from gpumlp.estimators.tabular.fold_rows import fold_rows
from gpumlp.estimators.tabular.preset import NetworkParams
from gpumlp.estimators.tabular.stored_stack import StoredStack
from gpumlp.estimators.tabular.table_preparation import Preparation
from gpumlp.estimators.tabular.time_limit import TimeLimit
from gpumlp.model import memory
from gpumlp.model.mlp import MLP
from gpumlp.training.callback import Callback, EarlyStopping
from gpumlp.training.history import History
from gpumlp.utils.checks import ParameterError

FOLD_BYTES = 24  # of a row's number in the folds of a network, while they are made


class TableSamples(NamedTuple):
    """Prepared rows x (R, D), coded targets y (R,), and weights (R,) or None."""

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None


class StackTask(NamedTuple):
    """What the stacks of a fit are trained on.

    weight: (R,) of the training loss, or None.  held: a validation set of the user's, or None.
    folds: else what each network trains on and holds out, as `Trainer.fit` takes it.
    """

    params: NetworkParams
    train: TableSamples
    weight: np.ndarray | None
    held: TableSamples | None
    folds: Any
    device: str


class HeldOut(NamedTuple):
    """What a network says of rows that it did not see: outputs of each stack, (1, rows, N_K).

    weight, loss_weight: of rows in the score, and as training had them; None: all are equal.
    """

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

    _preset: NetworkParams
    _classes = False
    _no_targets: dict[str, str]

    # ------------------------------------------------------------ of classes and of values
    def _coded(self, y: np.ndarray, name: str, first: bool, weight: Any) -> np.ndarray:
        """Targets (rows,) as the networks take them; first: of a fit, whose coding is to be
        learned, with these weights of rows or None."""
        raise NotImplementedError

    def _losses(self, params: NetworkParams) -> list[Any]:
        """Of each stack that is to be trained."""
        raise NotImplementedError

    @property
    def _outputs(self) -> tuple[int, str]:
        """Units of the last layer, and its activation."""
        raise NotImplementedError

    def _weights(self, y: np.ndarray, weight: np.ndarray | None) -> np.ndarray | None:
        """Of the training loss."""
        return weight

    def _pooled(self, outputs: list[np.ndarray]) -> np.ndarray:
        """What is predicted, (rows,) or (rows, columns), for the outputs (M, rows, N_K) of each
        stack."""
        raise NotImplementedError

    def _fold_score(self, y: np.ndarray, predicted: np.ndarray, weight: Any) -> float:
        raise NotImplementedError

    def _calibrate(self, parts: list[HeldOut]) -> None:
        """Learn how sure the networks may be, by what they say of rows that they did not see."""

    # ------------------------------------------------------------ fitting
    def _fit(self, X: Any, y: Any, sample_weight: Any, validation: tuple[Any, Any, Any]) -> None:
        begin = time.monotonic()
        tabular_parameters.check(self)
        params = self._preset._replace(**(self.network_params or {}))
        device = devices.resolve(self.device)
        y = self._targets(y, "y")
        self._prepare(X)
        train = self._samples(X, y, sample_weight, "", True)
        held = self._validation_samples(validation)
        random = hyperparameters.random_of(self.random_state)
        rng = np.random.default_rng(random.randint(0, 2**31, size=4))
        folds = None
        if held is None:
            self._check_folds(len(train.x))
            folds = fold_rows(train.y, self.n_models, self._classes, rng)
        weight = self._weights(train.y, train.weight)
        task = StackTask(params, train, weight, held, folds, device)
        losses = self._losses(params)
        self._stacks, self.histories_ = [], []
        epochs = []
        for i, loss in enumerate(losses):
            limits: list[Callback] = []
            if self.time_limit is not None:
                now = time.monotonic()
                end = begin + self.time_limit * (i + 1) / len(losses)
                limits = [TimeLimit(end - now, now)]
            net, best = self._train(task, loss, rng, limits)
            epochs.append(best)
            self._stacks.append(StoredStack(net))
        self.best_epochs_ = np.array(epochs[0] if len(epochs) == 1 else epochs)
        parts = self._held_out(task)
        self._calibrate(parts)
        self.validation_scores_ = np.array(
            [self._fold_score(part.y, self._pooled(part.outputs), part.weight) for part in parts]
        )
        if folds is None:
            self.__dict__.pop("oof_prediction_", None)
        else:
            self.oof_prediction_ = self._out_of_fold(parts, folds[1], len(train.x))

    def _check_folds(self, rows: int) -> None:
        """Raises MemoryError where the numbers of the rows of all folds take more than there is."""
        needed = self.n_models * rows * FOLD_BYTES
        if short := memory.shortage(None, needed):
            raise MemoryError(
                f"out of memory: the folds of n_models = {self.n_models} networks on {rows} rows "
                f"take {memory.text(needed)}, and {short}; lower n_models"
            )

    def _prepare(self, X: Any) -> None:
        """What becomes of the columns."""
        self.preparation_ = Preparation().fit(X, self.categorical_features)
        self.preparation_.owner = type(self).__name__
        self.n_features_in_ = self.preparation_.n_features_in_
        self.__dict__.pop("feature_names_in_", None)
        if hasattr(self.preparation_, "feature_names_in_"):
            self.feature_names_in_ = self.preparation_.feature_names_in_

    def _targets(self, y: Any, name: str) -> np.ndarray:
        """Targets (n_samples,) that are there and of a kind that can be one."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        y = array_io.host(y)
        contents.refuse(y, name, self._no_targets)
        contents.refuse_missing(y, name, "leave these rows out")
        with naming(name):
            y = check_array(y, ensure_2d=False, dtype=None, input_name=name, estimator=self)
            return contents.native(column_or_1d(y, warn=True))

    def _samples(self, X: Any, y: Any, weight: Any, suffix: str, first: bool) -> TableSamples:
        """suffix: of the arguments' names."""
        x = self._prepared(X)
        if len(y) != len(x):
            raise ValueError(
                f"X{suffix} has {len(x)} samples and y{suffix} {len(y)}: inconsistent numbers of "
                "samples"
            )
        weight = sample_weights(weight, len(x), x.dtype, f"sample_weight{suffix}")
        with naming(f"y{suffix}"):
            coded = self._coded(y, f"y{suffix}", first, weight)
        return TableSamples(x, coded, weight)

    def _validation_samples(self, validation: tuple[Any, Any, Any]) -> TableSamples | None:
        X, y, weight = validation
        if X is None and y is None and weight is None:
            return None
        if X is None or y is None:
            raise ValueError("X_val and y_val belong together")
        return self._samples(X, self._targets(y, "y_val"), weight, "_val", False)

    def _prepared(self, X: Any) -> np.ndarray:
        """The features of the networks, (rows, D)."""
        preparation = self.preparation_
        rows = _num_samples(X)
        needed = rows * len(preparation.names) * np.dtype(self.dtype).itemsize
        if short := memory.shortage(None, needed):
            raise MemoryError(
                f"out of memory: X has {rows} rows, whose {len(preparation.names)} prepared "
                f"features take {memory.text(needed)}, and {short}; give fewer rows at once"
            )
        return preparation.transform(X).astype(self.dtype, copy=False)

    def _train(
        self, task: StackTask, loss: Any, rng: np.random.Generator, callbacks: list[Callback]
    ) -> tuple[MLP, np.ndarray]:
        """A trained stack, each network as it was after its best epoch; and these epochs."""
        params, (x, y, _), held, folds = task.params, task.train, task.held, task.folds
        rows = len(x) if folds is None else folds[0].shape[1]
        hidden = _or_auto(self.hidden_layer_sizes, preset.hidden_sizes_for, rows)
        epochs = _or_auto(self.max_epochs, preset.epochs_for, rows)
        batch = _or_auto(self.batch_size, preset.batch_size_for, rows)
        units = [int(size) for size in np.atleast_1d(np.asarray(hidden))]
        outputs, activation = self._outputs
        net = preset.make_network(
            params,
            (x.shape[1], *units, outputs),
            activation,
            self.n_models,
            dtype=str(np.dtype(self.dtype)),
            device=task.device,
            seed=int(rng.integers(2**32)),
        )
        preset.draw_weights(net, x, rng)
        trainer = preset.make_trainer(
            params, net, loss, self.learning_rate, batch, int(rng.integers(2**32))
        )
        decay = [preset.FallingDecay(params)] if params.schedule_decay else []
        stop = EarlyStopping(patience=epochs, monitor="val_loss")
        history = trainer.fit(
            *(x, y, epochs),
            validation=None if held is None else tuple(held[: 2 + (held.weight is not None)]),
            callbacks=[stop, *decay, *callbacks, *(self.callbacks or ())],
            progress=bool(self.verbose),
            sample_weight=task.weight,
            folds=folds,
        )
        self.histories_.append(history)
        if history.interrupted:
            warn("training was interrupted: each network is the best so far")
        best = np.asarray(stop.best_epoch)
        if not best.any():
            raise ValueError(
                "no network has a finite validation loss: lower the learning_rate, or look for "
                "extreme targets or sample weights"
            )
        return net, best

    # ------------------------------------------------------------ what it computes
    def _members(self, X: Any) -> list[np.ndarray]:
        """The outputs (M, rows, N_K) of each stack."""
        check_is_fitted(self)
        x = self._prepared(array_io.host(X))
        return [self._sound(stack.outputs(x), i) for i, stack in enumerate(self._stacks)]

    def _sound(self, outputs: np.ndarray, stack: int) -> np.ndarray:
        """Those of the networks that have ever been better than none."""
        epochs = self.best_epochs_ if self.best_epochs_.ndim == 1 else self.best_epochs_[stack]
        return outputs[epochs > 0] if not epochs.all() else outputs

    def _held_out(self, task: StackTask) -> list[HeldOut]:
        """Of each network."""
        train, held, folds = task.train, task.held, task.folds
        if held is not None:
            x = held.x
            targets = [(held.y, held.weight, held.weight)] * self.n_models
        else:
            x = train.x[folds[1]]
            targets = [
                (train.y[rows], _of_rows(train.weight, rows), _of_rows(task.weight, rows))
                for rows in folds[1]
            ]
        outputs = [stack.outputs(x) for stack in self._stacks]
        return [
            HeldOut([of_stack[m : m + 1] for of_stack in outputs], *targets[m])
            for m in range(self.n_models)
        ]

    def _out_of_fold(self, parts: list[HeldOut], held_out: np.ndarray, count: int) -> np.ndarray:
        """The prediction of each row, by the networks that did not see it."""
        predicted = [self._pooled(part.outputs) for part in parts]
        total, times = np.zeros((count, *predicted[0].shape[1:])), np.zeros(count)
        for rows, values in zip(held_out, predicted, strict=True):
            rows, first = np.unique(rows, return_index=True)  # one may be there twice
            total[rows] += values[first]
            times[rows] += 1
        with np.errstate(invalid="ignore"):
            return (total.T / times).T  # NaN where no network has held the row out

    def _quantiles(self, q: Any, values: np.ndarray) -> np.ndarray:
        """The quantiles q over the first axis of values, those of several as the last axis."""
        levels = np.asarray(q)
        shaped = levels.dtype.kind in "iuf" and levels.ndim <= 1 and levels.size
        if not (shaped and np.all((0 <= levels) & (levels <= 1))):
            raise ParameterError(f"q = {q!r} must be a number in [0, 1], or several")
        found = np.quantile(values, levels, axis=0)
        return np.moveaxis(found, 0, -1) if levels.ndim else found

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


def _of_rows(weight: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if weight is None else weight[rows]


def _or_auto(value: Any, by_rows: Callable[[int], Any], rows: int) -> Any:
    """The value; "auto" is what goes by the number of rows."""
    return by_rows(rows) if isinstance(value, str) else value
