"""What MLPClassifier and MLPRegressor share: how a fit runs, weights, prediction, pickling."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import sklearn
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_array, metadata_routing
from sklearn.utils.validation import validate_data

from gpumlp import backend
from gpumlp.backend import device as devices
from gpumlp.estimators import (
    array_io,
    bagging,
    contents,
    estimator_rows,
    from_sklearn,
    hyperparameters,
    lbfgs,
    stochastic,
)
from gpumlp.estimators.by_hand import ByHand, activation_name
from gpumlp.estimators.constructed import Constructed
from gpumlp.estimators.display import Display
from gpumlp.estimators.ensemble import Ensemble, pooled
from gpumlp.estimators.fitted_network import FittedNetwork, Spec, draw
from gpumlp.estimators.input_checks import (
    QUIET,
    naming,
    no_nan,
    plain_features,
    plain_targets,
    sample_weights,
    too_many_rows,
)
from gpumlp.estimators.layer_outputs import Layers
from gpumlp.estimators.validation import Samples
from gpumlp.model import arrays
from gpumlp.utils.checks import ParameterError

if TYPE_CHECKING:
    from gpumlp.functions.loss import Loss
    from gpumlp.model.mlp import MLP
    from gpumlp.utils.aliases import Array, Data, Features

E = TypeVar("E", bound="BaseMLP")

SPARSE = ["csr", "csc"]
ORDER_BYTES = 8  # of each row: its place in an epoch
# What a fit leaves, beside the attributes that end with an underscore.
OF_FITS = ("_engine", "_binarizer", "_output", "_stalled", "_unfinished", "_resuming")


def is_ensemble(estimator: Any) -> bool:
    """For available_if: what only several networks can tell."""
    if estimator.n_models is None:
        raise AttributeError("this is of ensembles: give n_models")
    return True


def is_stochastic(estimator: Any) -> bool:
    """For available_if: partial_fit is an epoch of one network, which "lbfgs" has not."""
    if estimator.n_models is not None:
        raise AttributeError("an ensemble has no partial_fit; its estimators_ have")
    if estimator.solver == "lbfgs":
        raise AttributeError("partial_fit needs solver='adam' or 'sgd'; 'lbfgs' has no epochs")
    return True


class ModelPlan(NamedTuple):
    """What a fit trains: a network and a loss; follows: the activation that each layer's initial
    weights are drawn for."""

    spec: Spec
    loss: Loss
    follows: list[Any]


class BaseMLP(Constructed, ByHand, Display, Layers, TransformerMixin, BaseEstimator):
    """See MLPClassifier and MLPRegressor, which add how targets are coded and what is predicted."""

    # The constructor's parameters, and what a fit leaves.
    device: str
    dtype: Any
    solver: str
    n_models: Any
    activation: Any
    dropout: Any
    random_state: Any
    warm_start: bool
    n_outputs_: int
    n_layers_: int
    n_iter_: int
    t_: int
    loss_curve_: list[float]
    best_loss_: Any
    best_validation_score_: Any
    validation_scores_: Any
    validation_loss_curve_: Any
    _y_numeric: bool
    _no_targets: dict[str, str]  # what y may not hold, and what to do
    _for_missing = "leave these rows out"
    _engine: FittedNetwork
    _trusted: Any
    _stalled: int
    _unfinished: dict[str, Any]  # the fit that a checkpoint was written in
    _coding: Any = None  # of classes that are known before a fit
    _resuming = False  # whether the next fit is to go on with that one

    # Layer numbers are no metadata to be routed.
    __metadata_request__transform = {"layer": metadata_routing.UNUSED}  # noqa: RUF012

    # ------------------------------------------------------------ fitting
    def _fit(
        self: E,
        X: Features,
        y: Data,
        sample_weight: Data | None,
        validation: tuple[Features | None, Data | None, Data | None],
        incremental: bool,
    ) -> E:
        """fit, and partial_fit if incremental; validation: X_val, y_val, their weights."""
        if not sklearn.get_config()["skip_parameter_validation"]:
            hyperparameters.check(self)
        goes_on = incremental or (self.warm_start and self.n_models is None) or self._resuming
        if not (goes_on and self._has_weights):
            self._leave_output()
        if self.n_models is not None:
            bagging.fit(self, X, y, sample_weight, validation)
            return self
        if isinstance(vars(self).get("_engine"), Ensemble):  # of a fit that had n_models
            self._forget()
        unfinished = vars(self).get("_unfinished") if self._resuming and not incremental else None
        goes_on = incremental or unfinished is not None
        first = not self._has_weights or not (self.warm_start or goes_on)
        device = devices.resolve(self.device)
        samples = self._samples(X, y, sample_weight, device, first, goes_on)
        user_set = self._given(validation, device, samples)
        all_samples = [samples] if user_set is None else [samples, user_set]
        sparse = any(arrays.is_sparse(part.X) for part in all_samples)
        spec, loss, follows = self._plan(
            samples.X.shape[1], samples.X.dtype, samples.encoded, sparse
        )
        rng = hyperparameters.random_of(self.random_state)
        if first:
            self._begin(spec)
            if "_engine" not in vars(self):
                self._engine = FittedNetwork()
            self._engine.build(spec, device, weights=draw(spec.sizes, follows, rng))
        else:
            self._go_on(spec, device, samples.X)
        engine = self._engine
        if self.solver == "lbfgs":
            self._fit_lbfgs(engine, spec, samples, loss)
        else:
            with engine.training(in_place=incremental):
                stochastic.fit(self, engine, samples, user_set, loss, rng, incremental, unfinished)
        for name in ("_unfinished", "_resuming"):
            self.__dict__.pop(name, None)
        return self

    def _forget(self) -> None:
        """Drop all that an earlier fit has left."""
        for name in list(vars(self)):
            if name.endswith("_") or name in OF_FITS:
                del self.__dict__[name]

    def _plan(self, features: int, dtype: np.dtype, encoded: np.ndarray, sparse: bool) -> ModelPlan:
        """What is to be trained on so many features, of sparse rows or others, and these targets,
        as `_encoded` codes them."""
        hyperparameters.check_range(self, dtype)
        self.n_outputs_ = self._outputs_of(encoded)
        loss, output = self._loss_and_output(dtype)
        sizes = (features, *hyperparameters.layer_sizes(self), self.n_outputs_)
        hidden, follows = self._activations(len(sizes) - 1)
        output = self._output_for(output)
        self.__dict__["out_activation_"] = activation_name(output)
        dropout = self._dropout()
        if isinstance(dropout, tuple) and len(dropout) != len(hidden):
            raise ParameterError(
                f"{type(self).__name__}: dropout = {self.dropout!r} for {len(hidden)} hidden layers"
            )
        spec = Spec(sizes, hidden, output, str(dtype), dropout, self.precision, sparse)
        return ModelPlan(spec, loss, follows)

    def _begin(self, spec: Spec) -> None:
        """Curves and counters anew."""
        self.n_iter_ = self.t_ = 0
        self.n_layers_ = len(spec.sizes)
        for name in ("loss_curve_", "validation_scores_", "validation_loss_curve_"):
            self.__dict__.pop(name, None)
        if self.solver != "lbfgs":
            self._begin_curves()

    def _begin_curves(self) -> None:
        self.loss_curve_ = []
        self._stalled = 0
        self.validation_scores_ = self.validation_loss_curve_ = None
        self.best_validation_score_ = self.best_loss_ = None

    def _go_on(self, spec: Spec, device: str, X: Any) -> None:
        """With the weights that are there."""
        engine = self._engine
        if engine.spec is not None and engine.spec.sizes != spec.sizes:
            raise ValueError(
                f"the fitted network has sizes {engine.spec.sizes}; these parameters and data make "
                f"{spec.sizes}: use fit with warm_start=False"
            )
        if engine.spec is not None and engine.spec.sparse and not spec.sparse:
            # It takes dense rows too, and changes back only for what is rather full.
            spec = spec._replace(sparse=not estimator_rows.rather_full(X))
        engine.build(spec, device)
        self.n_layers_ = len(spec.sizes)
        self._fill_in()

    def _fit_lbfgs(self, engine: FittedNetwork, spec: Spec, samples: Samples, loss: Loss) -> None:
        """In float64 on the CPU whatever the dtype: line searches need the digits."""
        if engine.net.device == "cpu":
            engine.build(spec._replace(dtype="float64"), "cpu")
        engine.trainer = None
        with engine.training(in_place=False):
            lbfgs.minimize(self, engine.net, samples, loss, self._training_weight(samples))
        engine.build(spec, engine.net.device)

    # ------------------------------------------------------------ what is given
    def _working_dtype(self, device: str) -> Any:
        """The dtypes that validation leaves as they are; all else becomes the first."""
        if self.dtype is not None:
            return np.dtype(self.dtype)
        if self.precision != "float32":
            return np.dtype(np.float32)
        return (np.float64, np.float32) if device == "cpu" else np.dtype(np.float32)

    def _samples(
        self,
        X: Features,
        y: Data,
        sample_weight: Data | None,
        device: str,
        first: bool,
        incremental: bool,
    ) -> Samples:
        dtype = self._working_dtype(device)
        if not first and self._engine.spec is not None and self.dtype is None:
            dtype = np.dtype(self._engine.spec.dtype) if device == "cpu" else dtype
        X, y = self._validated(X, y, device, dtype, first, "")
        with naming("y"):
            y, encoded = self._encoded(y, X.dtype, first, incremental)
        return Samples(X, y, encoded, sample_weights(sample_weight, X.shape[0], X.dtype))

    def _given(
        self,
        validation: tuple[Features | None, Data | None, Data | None],
        device: str,
        trained: Samples,
    ) -> Samples | None:
        """The user's own validation set; trained: the samples that it goes with."""
        X, y, weight = validation
        if X is None and y is None and weight is None:
            return None
        if X is None or y is None:
            raise ValueError("X_val and y_val belong together")
        if self.solver == "lbfgs":
            raise ValueError("X_val needs solver='adam' or 'sgd'; 'lbfgs' has no epochs")
        X, y = self._validated(X, y, device, self._working_dtype(device), False, "_val")
        with naming("y_val"):
            y, encoded = self._encoded_again(y, X.dtype)
            if encoded.shape[1:] != trained.encoded.shape[1:]:
                raise ValueError(f"y_val has shape {np.shape(y)}; it must be coded as y is")
        weight = sample_weights(weight, X.shape[0], X.dtype, "sample_weight_val")
        return estimator_rows.alike(Samples(X, y, encoded, weight), trained)

    def _validated(
        self, X: Features, y: Data, device: str, dtype: Any, reset: bool, suffix: str
    ) -> tuple[Array, np.ndarray]:
        """Features, left on the GPU if they are there, and targets, on the host.

        suffix: of the arguments' names.
        """
        with naming(f"X{suffix}"):
            name = f"X{suffix}"
            X = self._features(X, device, dtype, reset, name, ORDER_BYTES, device == "cpu")
            if arrays.is_sparse(X):
                with backend.get(device).on_device():
                    arrays.check_places(X, name)
                X = estimator_rows.dense_if_full(X)
        with naming(f"y{suffix}"):
            y = self._targets(array_io.host(y), f"y{suffix}")
        if y.shape[0] != X.shape[0]:
            raise ValueError(
                f"X{suffix} has {X.shape[0]} samples and y{suffix} {y.shape[0]}: inconsistent "
                "numbers"
            )
        return X, y

    def _targets(self, y: Data, name: str) -> Any:
        """As validate_data does it, which would also compare feature names that y has not."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        if plain_targets(y):
            return y
        contents.refuse(y, name, self._no_targets)
        contents.refuse_missing(y, name, self._for_missing)
        y = check_array(
            y, accept_sparse="csr", ensure_2d=False, dtype=None, input_name=name, estimator=self
        )
        y = y.astype(np.float64) if self._y_numeric and y.dtype.kind == "O" else y
        return contents.native(y)

    def _features(
        self,
        X: Features,
        device: str,
        dtype: Any,
        reset: bool,
        name: str = "X",
        row_bytes: int = 0,
        copied: bool = False,
    ) -> Any:
        """Checked features, left on the GPU if they are there; row_bytes, copied: see
        `too_many_rows`."""
        if array_io.on_gpu(X) and (device != "cpu" or not array_io.is_gpu_sparse(X)):
            return array_io.features(self, X, device, dtype, reset)
        with QUIET():
            X = array_io.host(X)
            too_many_rows(X, name, row_bytes, copied)
            if not reset and (plain := plain_features(X, self, dtype)) is not None:
                return plain
            X = contents.native(X)
            contents.refuse(X, name, contents.NO_FEATURES)
            return validate_data(self, X, accept_sparse=SPARSE, dtype=dtype, reset=reset)

    def _activations(self, K: int) -> tuple[tuple[Any, ...], list[Any]]:
        """Of the hidden layers; and the one that each layer's initial weights are drawn for."""
        f = self.activation
        if not isinstance(f, list | tuple):
            return (f,) * (K - 1), [f] * K
        if len(f) != K - 1:
            raise ParameterError(
                f"{type(self).__name__}: activation = {f!r} for {K - 1} hidden layers"
            )
        return tuple(f), [*f, f[-1] if f else "identity"]

    def _dropout(self) -> Any:
        return tuple(self.dropout) if isinstance(self.dropout, list | tuple) else self.dropout

    def _to_file(self, fit: bool) -> tuple[Any, dict[str, Any] | None]:
        """For `gpumlp.save`: the estimator, and the state of its running fit (see
        `stochastic.Fit`)."""
        return self, None

    def _as_network(self) -> tuple[MLP, dict[str, Any], str]:
        """For gpumlp/io: the network, what to say of it, and what is left to do with its
        outputs (see MLPClassifier)."""
        self._ready()
        self._refuse_ensemble()
        metadata = {}
        if "feature_names_in_" in vars(self):
            metadata["features"] = self.feature_names_in_.tolist()
        return self._engine.awake(), metadata, "nothing"

    def _overwriting(self) -> contextlib.AbstractContextManager[Any]:
        """For gpumlp/io: a context in which the network's parameters may be written."""
        self._ready()
        self._refuse_ensemble()
        return self._engine.training(in_place=True)

    def _refuse_ensemble(self) -> None:
        if isinstance(self._engine, Ensemble):
            raise ValueError("an ensemble is many networks; take one of its estimators_")

    @classmethod
    def from_sklearn(cls: type[E], fitted: Any, **parameters: Any) -> E:
        """Make an estimator of what scikit-learn has fitted, as if this class had.

        Parameters
        ----------
        fitted : sklearn.neural_network.MLPClassifier or MLPRegressor
            scikit-learn's class of the same name, fitted, or with weights that were set without a
            fit; a classifier has to have classes_ then.
        **parameters
            Of the constructor, such as device="cuda"; the others are those of `fitted`.

        Returns
        -------
        MLPClassifier or MLPRegressor
            With its weights, curves and classes; the optimiser's state begins anew.

        Raises
        ------
        TypeError
            For another kind of object.
        sklearn.exceptions.NotFittedError
            Before it is fitted.
        """
        return from_sklearn.convert(cls, fitted, parameters)

    # ------------------------------------------------------------ what it computes
    def _outputs(self, X: Features) -> Array:
        """n^(K) (n_samples, n_outputs), on the side that X is on."""
        if "_trusted" in vars(self) and X is self._trusted[0]:
            return self._trusted[1]
        outputs = self._computed(X)
        ops = self._engine.net.ops
        with ops.on_device():
            outputs = no_nan(outputs)
            if outputs.ndim == 3:
                xp = np if isinstance(outputs, np.ndarray) else ops.xp
                outputs = pooled(outputs, self._left_to_do, xp)
            return outputs

    # What makes probabilities of outputs, see MLPClassifier.
    _left_to_do = "nothing"

    def _computed(self, X: Features) -> Array:
        """n^(K), as the engine gives it: of all members, (M, n_samples, n_outputs)."""
        self._ready()
        return self._engine.outputs(self._checked(X))

    def _checked(self, X: Features, k: int = -1) -> Any:
        """X, of which the outputs of layer k are wanted."""
        if "_trusted" in vars(self) and X is self._trusted[0]:
            return X
        spec = self._engine.spec
        device = self._engine.awake().device if array_io.on_gpu(X) else "cpu"
        row_bytes = self._engine.count * spec.sizes[k] * np.dtype(spec.dtype).itemsize
        with naming("X"):
            return self._features(X, device, spec.dtype, reset=False, row_bytes=row_bytes)

    def _over_members(self, X: Features, function: Callable[[np.ndarray], np.ndarray]) -> Array:
        """function(outputs of all members (M, n_samples, n_outputs), on the host), on X's side."""
        self._ready()
        if not isinstance(self._engine, Ensemble):
            raise NotFittedError(
                f"this {type(self).__name__} was fitted without n_models: fit it again"
            )
        outputs = no_nan(array_io.host(self._computed(X)))
        return array_io.back(function(outputs), X)

    def _quantiles(self, X: Features, q: Any, values: Callable[[np.ndarray], np.ndarray]) -> Array:
        """The quantiles q over the members of values(outputs of one); for several q with one more
        axis for them, the last."""
        levels = np.asarray(q)
        if (
            levels.dtype.kind not in "iuf"
            or levels.ndim > 1
            or levels.size == 0
            or not np.all((0 <= levels) & (levels <= 1))
        ):
            raise ValueError(f"q = {q!r}; it is a number in [0, 1], or several")

        def quantiles(outputs: np.ndarray) -> np.ndarray:
            result = np.quantile([values(member) for member in outputs], levels, axis=0)
            return np.moveaxis(result, 0, -1) if levels.ndim else result

        return self._over_members(X, quantiles)

    @property
    def estimators_(self) -> list[Any]:
        """With n_models: the members, each a fitted estimator."""
        engine = vars(self).get("_engine")
        if not isinstance(engine, Ensemble):
            raise AttributeError(f"{type(self).__name__} has estimators_ after fit with n_models")
        return engine.estimators

    @contextlib.contextmanager
    def _trusting(self, X: Features, outputs: Array) -> Iterator[None]:
        """Within, this very X is not checked again: it was, and has lost its feature names; and its
        outputs are known."""
        self._trusted = X, outputs
        try:
            yield
        finally:
            del self._trusted

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
