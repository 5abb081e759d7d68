"""scikit-learn's sets of data, which the commands know by name."""

DATASETS = ("digits", "breast_cancer", "wine", "iris", "diabetes")
