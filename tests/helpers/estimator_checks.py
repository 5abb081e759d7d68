"""scikit-learn's checks of an estimator as tests."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import parametrize_with_checks


def checks_of(estimators: Sequence[BaseEstimator], **options: object) -> pytest.MarkDecorator:
    """parametrize_with_checks with a list: scikit-learn before 1.8 hands pytest a generator, which
    pytest 9 warns of."""
    mark = parametrize_with_checks(list(estimators), **options).mark
    names, cases = mark.args
    return pytest.mark.parametrize(names, list(cases), **mark.kwargs)
