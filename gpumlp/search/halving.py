"""Successive halving."""

from __future__ import annotations

from sklearn import model_selection
from sklearn.experimental import enable_halving_search_cv  # noqa: F401

from gpumlp.search.searches import StackedSearch


class HalvingGridSearchCV(StackedSearch, model_selection.HalvingGridSearchCV):
    """x"""


class HalvingRandomSearchCV(StackedSearch, model_selection.HalvingRandomSearchCV):
    """x"""
