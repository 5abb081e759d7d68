"""Make an estimator that delegates its fit to a function."""

from __future__ import annotations

import functools

from sklearn.base import clone


def delegate(estimator, fit):
    """Copy an estimator, unfitted, so that `fit` of the copy, and of copies of it, calls
    fit(estimator, X, y, **params) with an ordinary estimator."""
    kind = type(estimator)

    @functools.wraps(kind.fit)
    def hand_over(self, X, y=None, **params):
        self.__class__ = kind
        return fit(self, X, y, **params)

    copy = clone(estimator)
    names = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    copy.__class__ = type(kind.__name__, (kind,), names | {"fit": hand_over})
    return copy
