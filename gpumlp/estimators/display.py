"""The display of a fitted estimator: a table, curves, and in notebooks."""

from __future__ import annotations

import html
import os
from typing import TYPE_CHECKING, Any

from gpumlp.training.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Display:
    """Adds `summary` and `plot` to the estimators."""

    solver: str
    loss_curve_: list[float]
    validation_scores_: Any
    validation_loss_curve_: Any
    _engine: Any
    _ready: Any

    def summary(self) -> str:
        """Return the network as a table: layers, shapes, activations, parameters, dtype, device."""
        self._ready()
        return self._engine.awake().summary()

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the curves of the fit: the loss, and the score if there was a validation set.

        Parameters
        ----------
        path : str or os.PathLike, optional
            Where the figure is written to as a PNG file.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            Without matplotlib: pip install "gpumlp[plot]".
        ValueError
            For solver="lbfgs", which has no epochs, and for an ensemble.
        """
        from gpumlp.training import plot

        self._ready()
        if self.solver == "lbfgs":
            raise ValueError("solver='lbfgs' has no epochs, and so no curves")
        if hasattr(self, "estimators_"):
            raise ValueError("an ensemble has the curves of many networks: plot its estimators_")
        curves = History(
            self.loss_curve_, self.validation_loss_curve_ or [], self.validation_scores_ or []
        )
        drawn = plot.figure(curves, score="validation score")
        if path is not None:
            drawn.savefig(path, format="png", dpi=120)
        return drawn

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """In notebooks: scikit-learn's display, and after a fit the network's table."""
        shown = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]
        if "text/html" in shown and getattr(self, "_engine", None) and self._engine.spec:
            shown["text/html"] += f"<pre>{html.escape(self.summary())}</pre>"
        return shown
