"""A pipeline with a grid search, whose networks train at once: gpumlp's GridSearchCV is
scikit-learn's with another import.

The scaler is fitted on each fold's training part only, because it is in the pipeline.
"""

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gpumlp import GridSearchCV, MLPClassifier

X, y = load_breast_cancer(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

pipeline = make_pipeline(
    StandardScaler(),
    MLPClassifier(
        (16,),
        learning_rate_init=0.01,
        max_iter=400,
        tol=1e-3,
        class_weight="balanced",
        random_state=0,
    ),
)
grid = {
    "mlpclassifier__activation": ["relu", "gelu"],
    "mlpclassifier__dropout": [0.0, 0.3],
    "mlpclassifier__alpha": [1e-4, 1.0],
}
search = GridSearchCV(pipeline, grid, cv=3, scoring="roc_auc")
search.fit(X_train, y_train)

results = search.cv_results_
print("rank   AUC     activation  dropout  alpha")
for row in results["rank_test_score"].argsort():
    chosen = [results["params"][row][name] for name in grid]
    rank, score = results["rank_test_score"][row], results["mean_test_score"][row]
    print(f"{rank:4}  {score:.4f}   {chosen[0]:10}  {chosen[1]:7}  {chosen[2]:g}")
print(f"test AUC of the best: {search.score(X_test, y_test):.4f}")
