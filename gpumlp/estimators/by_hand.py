"""The attributes that users may set after a fit, or instead of one."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from gpumlp.backend import device as devices
from gpumlp.estimators import contents, hyperparameters
from gpumlp.estimators.ensemble import Ensemble
from gpumlp.estimators.fitted import check_sizes
from gpumlp.estimators.fitted_network import GROUPS, FittedNetwork, Spec, device_or_cpu
from gpumlp.estimators.messages import warn
from gpumlp.functions import activation


class ByHand:
    """Adds coefs_, intercepts_ and out_activation_, which may be set and which the network follows.

    n_layers_, n_outputs_ and n_features_in_ follow from the weights: other values are refused.
    """

    activation: Any
    device: str
    dtype: Any
    precision: str
    solver: str
    output_activation: Any
    _engine: Any
    _activations: Any
    _dropout: Any
    _loss_and_output: Any

    @property
    def coefs_(self) -> list[np.ndarray]:
        """The weights of each layer, (fan_in, fan_out); may be changed and set."""
        return self._made("coefs_").handed_out("coefs")

    @coefs_.setter
    def coefs_(self, values):
        self._set("coefs", values)

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """The biases of each layer, (fan_out,); may be changed and set."""
        return self._made("intercepts_").handed_out("intercepts")

    @intercepts_.setter
    def intercepts_(self, values):
        self._set("intercepts", values)

    def _made(self, name: str) -> FittedNetwork:
        if "_engine" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no {name} before fit")
        return self._engine

    def _set(self, name: str, values):
        if "_engine" not in vars(self):
            self._engine = FittedNetwork()
        self._engine.take(name, values)

    @property
    def out_activation_(self) -> str:
        """The output's activation; may be set, and is then what partial_fit goes on with."""
        engine = vars(self).get("_engine")
        if isinstance(engine, Ensemble):
            return activation_name(engine.spec.output)
        if "out_activation_" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no out_activation_ before fit")
        return vars(self)["out_activation_"]

    @out_activation_.setter
    def out_activation_(self, output):
        engine = vars(self).get("_engine")
        if isinstance(engine, Ensemble):
            raise ValueError(
                "out_activation_ cannot be set for an ensemble, which has many networks: set that "
                "of its estimators_, or output_activation before fit"
            )
        try:
            name = activation.find(output).name
        except (ValueError, TypeError) as error:
            raise ValueError(f"out_activation_ = {output!r}: {error}") from None
        if engine is not None and engine.spec is not None:
            if name == activation.find(engine.spec.output).name:
                return
            spec = engine.spec._replace(output=output)
            engine.build(spec, device_or_cpu(engine.device))
        vars(self)["_output"] = output
        vars(self)["out_activation_"] = activation_name(output)

    def _output_for(self, default):
        """The output's activation: what was set by hand, or else the default."""
        return vars(self).get("_output", default)

    def _leave_output(self):
        """Drop an out_activation_ that was set, as a fit begins anew; warn if it is another."""
        output = vars(self).pop("_output", None)
        if output is not None and output != self.output_activation:
            warn(
                f"out_activation_ = {activation_name(output)!r} was set by hand, and this fit sets "
                f"it anew: give {type(self).__name__}(output_activation=...)"
            )

    # ------------------------------------------------------------ is there a network?
    @property
    def _has_weights(self) -> bool:
        return "_engine" in vars(self) and self._engine.has_weights

    def __sklearn_is_fitted__(self) -> bool:
        return self._has_weights

    def _ready(self):
        """The `FittedNetwork`, or the `Ensemble`, of an estimator that was fitted or whose weights
        were set; else raises NotFittedError."""
        engine: Any = vars(self).get("_engine")
        if isinstance(engine, Ensemble):
            return engine
        missing = [f"{n}_" for n in GROUPS if engine is None or engine.lists[n] is None]
        if len(missing) == 1 and not self._has_weights:
            raise NotFittedError(
                f"{type(self).__name__} has no {missing[0]}: set both coefs_ and intercepts_, or "
                "call fit"
            )
        check_is_fitted(self)
        with engine.lock:  # several threads may predict
            if engine.spec is None:
                self._build_by_hand()
        sizes = engine.spec.sizes
        known = {"n_layers_": len(sizes), "n_outputs_": sizes[-1], "n_features_in_": sizes[0]}
        for name, value in known.items():
            if vars(self).setdefault(name, value) != value:
                raise ValueError(
                    f"{name} = {vars(self)[name]!r}, but coefs_ and intercepts_ make it {value}"
                )
        return engine

    def _build_by_hand(self):
        """Make the network of weights that were set instead of a fit."""
        hyperparameters.check(self)
        engine = self._engine
        coefs, intercepts = (_arrays(f"{name}_", engine.lists[name]) for name in GROUPS)
        sizes = tuple(check_sizes(coefs, intercepts))
        device = devices.resolve(self.device)
        dtype = np.dtype(self.dtype or self._dtype_of(coefs[0], device))
        self._know_classes(sizes[-1])
        vars(self).setdefault("n_outputs_", sizes[-1])
        _, output = self._loss_and_output(dtype)
        if activation.find(output).name == activation.find(self._output_for(output)).name:
            vars(self).pop("_output", None)
        output = self._output_for(output)
        hidden, _ = self._activations(len(sizes) - 1)
        spec = Spec(sizes, hidden, output, str(dtype), self._dropout(), self.precision)
        engine.build(spec, device)
        vars(self).setdefault("out_activation_", activation_name(output))
        self._fill_in()

    def _know_classes(self, outputs: int):
        """Check a classifier's classes against so many outputs; overridden in `Classes`."""

    def _dtype_of(self, weights, device: str):
        """The network's dtype where the parameter dtype is None."""
        if device != "cpu" or self.precision != "float32" or weights.dtype == np.float32:
            return np.float32
        return np.float64

    def _fill_in(self):
        """Set counters and curves, where they are missing, to those of no epoch."""
        known = vars(self)
        for name in ("n_iter_", "t_"):
            known.setdefault(name, 0)
        if self.solver == "lbfgs":
            return
        known.setdefault("_stalled", 0)
        known.setdefault("loss_curve_", [])
        for name in ("validation_scores_", "best_validation_score_", "best_loss_"):
            known.setdefault(name, None)
        scores = known["validation_scores_"]
        losses = None if scores is None else [np.nan] * len(scores)
        known.setdefault("validation_loss_curve_", losses)


def activation_name(output) -> str:
    """The name of an activation, which may be a name already."""
    return output if isinstance(output, str) else output.name


def _arrays(name: str, values) -> list[np.ndarray]:
    """Check one list, of weights or biases: arrays of numbers, one for each layer."""
    arrays = [contents.native(np.asarray(value)) for value in values]
    for k, array in enumerate(arrays):
        if array.dtype.kind not in "iuf":
            raise TypeError(f"{name}[{k}] has dtype {array.dtype}; it must hold real numbers")
    return arrays
