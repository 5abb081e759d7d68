"""scikit-learn's interface: MLPClassifier and MLPRegressor."""

from gpumlp.estimator.classifier import MLPClassifier
from gpumlp.estimator.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
