"""The outputs of a layer as features, and as frames with named columns (set_output)."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from gpumlp.estimators import array_io
from gpumlp.estimators.input_checks import no_nan

if TYPE_CHECKING:
    from gpumlp.utils.aliases import Array, Data, Features


class Layers(ClassNamePrefixFeaturesOutMixin):
    """Makes the estimators transformers, which return the outputs of a layer.

    scikit-learn wraps the `transform` of a class that has TransformerMixin itself, and gives every
    result the names of get_feature_names_out.  This class has it not: a layer of the user's choice
    has other columns.
    """

    n_layers_: int
    _engine: Any
    _checked: Any
    _ready: Any

    def transform(self, X: Features, layer: int | None = None) -> Any:
        """Compute the outputs n^(k) of a layer.

        Parameters
        ----------
        X : (n_samples, n_features) array-like or sparse matrix
        layer : int, optional
            k: 1 is the first hidden layer, n_layers_ - 1 the output; negative numbers count from
            the end.  None is the last hidden layer.

        Returns
        -------
        (n_samples, N_k) array, or a frame after set_output
            Of an ensemble, the outputs of all members side by side.

        Raises
        ------
        ValueError
            For a layer that there is not.
        """
        self._ready()
        K = self.n_layers_ - 1
        k = self._last_hidden if layer is None else layer
        if not isinstance(k, Integral) or not 1 <= abs(k) <= K:
            raise ValueError(f"layer = {layer!r}; it is 1 .. {K}, or -{K} .. -1")
        k = K + 1 + k if k < 0 else k
        values = no_nan(self._engine.hidden(self._checked(X, k), k))
        return self._framed(values, X)

    def fit_transform(self, X: Features, y: Data | None = None, **fit_params: Any) -> Any:
        """Fit, then transform: a pipeline can take the last hidden layer as features."""
        return self.fit(X, y, **fit_params).transform(X)  # type: ignore[attr-defined]

    @property
    def _last_hidden(self) -> int:
        return max(self.n_layers_ - 2, 1)

    @property
    def _n_features_out(self) -> int:
        """The number of columns of `transform`, for get_feature_names_out."""
        engine = self._ready()
        return engine.count * engine.spec.sizes[self._last_hidden]

    def _framed(self, values: Array, X: Features) -> Any:
        """The values on X's side, or in the frame that was asked for."""
        chosen = getattr(self, "_sklearn_output_config", {}).get("transform")
        if (chosen or sklearn.get_config()["transform_output"]) == "default":
            return array_io.back(values, X)
        prefix = type(self).__name__.lower()
        names = [f"{prefix}{i}" for i in range(values.shape[1])]
        return _NamedValues(array_io.host(values), names).set_output(transform=chosen).transform(X)


class _NamedValues(TransformerMixin, BaseEstimator):
    """A transformer that returns these values with these names: scikit-learn makes the frame."""

    def __init__(self, values: np.ndarray, names: list[str]) -> None:
        self.values, self.names = values, names

    def transform(self, X: Features) -> np.ndarray:
        return self.values

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        return np.asarray(self.names, dtype=object)
