"""scikit-learn's interface: MLPClassifier and MLPRegressor."""

from gpumlp.estimators.classifier import MLPClassifier
from gpumlp.estimators.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
