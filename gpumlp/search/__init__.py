"""scikit-learn's searches over parameters, with the networks of all candidates and folds trained at
once."""

from gpumlp.search.halving import HalvingGridSearchCV, HalvingRandomSearchCV
from gpumlp.search.searches import GridSearchCV, RandomizedSearchCV

__all__ = ["GridSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV", "RandomizedSearchCV"]
