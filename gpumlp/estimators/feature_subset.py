"""Extend a network that has seen some features to one that takes them all."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.backend.layout import Layout
from gpumlp.model.parameters import Parameters


def widened(state: dict[str, Any], columns, features: int) -> dict[str, Any]:
    """Extend the state of a `FittedNetwork` to so many features, of which it has seen `columns`.

    The first layer's weights, and their optimiser's state, are 0 for the other features.
    """
    spec, learned = state["spec"], tuple(state["slopes"])
    sizes = (features, *spec.sizes[1:])

    def wide(theta):
        """A row (1, P) in the larger layout."""
        narrow = Parameters(Layout(spec.sizes, learned, theta.itemsize, sparse=spec.sparse), theta)
        layout = Layout(sizes, learned, theta.itemsize, sparse=spec.sparse)
        extended = Parameters(layout, np.zeros((1, layout.size), theta.dtype))
        extended.W[1][:, :, columns] = narrow.W[1]
        for target, source in zip(extended.all()[1:], narrow.all()[1:], strict=True):
            target[...] = source
        return extended.buffer

    coefs = list(state["coefs"])
    coefs[0] = np.zeros((features, spec.sizes[1]), coefs[0].dtype)
    coefs[0][columns] = state["coefs"][0]
    optimizer = dict(state["optimizer"])
    optimizer["slots"] = {name: wide(slot) for name, slot in optimizer["slots"].items()}
    best = None if state["best"] is None else wide(state["best"])
    changed = {"spec": spec._replace(sizes=sizes), "coefs": coefs}
    return state | changed | {"optimizer": optimizer, "best": best}
