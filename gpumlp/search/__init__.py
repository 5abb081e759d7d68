"""scikit-learn's searches over parameters, which train all candidates and folds at once."""

from gpumlp.search.halving import HalvingGridSearchCV, HalvingRandomSearchCV
from gpumlp.search.searches import GridSearchCV, RandomizedSearchCV

__all__ = ["GridSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV", "RandomizedSearchCV"]
