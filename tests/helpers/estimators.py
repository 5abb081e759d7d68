"""Small estimators and data for the tests of gpumlp/estimators."""

import numpy as np
from sklearn import datasets
from sklearn.preprocessing import scale

from gpumlp import MLPClassifier, MLPRegressor

BOTH = [MLPClassifier, MLPRegressor]
IRIS = scale(datasets.load_iris().data), datasets.load_iris().target
DIABETES = scale(datasets.load_diabetes().data), scale(datasets.load_diabetes().target)


def data(cls):
    return IRIS if issubclass(cls, MLPClassifier) else DIABETES


def small(cls, **arguments):
    return cls(**({"hidden_layer_sizes": (5,), "max_iter": 5, "random_state": 0} | arguments))


def fitted(cls, **arguments):
    return small(cls, **arguments).fit(*data(cls))


def objects(values):
    """An array of dtype object, of one axis whatever the values are."""
    array = np.empty(len(values), object)
    array[:] = list(values)
    return array


def same_weights(a, b):
    for name in ("coefs_", "intercepts_"):
        for mine, its in zip(getattr(a, name), getattr(b, name), strict=True):
            np.testing.assert_array_equal(mine, its)
