"""64 candidates on 5 folds, 320 networks trained at once: validation curves, and the score over
two parameters, drawn into grid_search.png.

A number as argument is that of learning rates and of penalties: 8 are 64 candidates.
"""

import sys
import warnings

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from gpumlp import GridSearchCV, MLPClassifier

each = int(sys.argv[1]) if len(sys.argv) > 1 else 8
rates, penalties = np.geomspace(1e-4, 1e-1, each), np.geomspace(1e-5, 10, each)
X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)

warnings.simplefilter("ignore", ConvergenceWarning)  # 30 epochs tell enough
model = MLPClassifier((64,), max_iter=30, random_state=0)
grid = {"alpha": penalties, "learning_rate_init": rates}
search = GridSearchCV(model, grid, cv=5, return_train_score=True).fit(X, y)

results = search.cv_results_
seconds = 5 * results["mean_fit_time"].sum()
print(f"{5 * each**2} networks in {seconds:.1f} s")
for name, value in search.best_params_.items():
    print(f"best {name}: {value:.3g}")
print(f"accuracy of the best: {search.best_score_:.4f}")


def scores(name):
    """One row for each penalty, one column for each learning rate."""
    return results[name].reshape(each, each)


figure = Figure(figsize=(11, 4.2), layout="constrained")
curves, score_map = figure.subplots(1, 2)
row = search.best_index_ // each
for part, label in (("train", "training"), ("test", "validation")):
    mean, std = scores(f"mean_{part}_score")[row], scores(f"std_{part}_score")[row]
    curves.plot(rates, mean, marker="o", label=label)
    curves.fill_between(rates, mean - std, mean + std, alpha=0.2)
curves.set(xscale="log", xlabel="learning_rate_init", ylabel="accuracy")
curves.set_title(f"alpha = {penalties[row]:.3g}")
curves.legend()
shown = score_map.pcolormesh(rates, penalties, scores("mean_test_score"))
shown.set_clim(search.best_score_ - 0.1, search.best_score_)
score_map.plot(*(search.best_params_[name] for name in ("learning_rate_init", "alpha")), "r*")
score_map.set(xscale="log", yscale="log", xlabel="learning_rate_init", ylabel="alpha")
figure.colorbar(shown, ax=score_map, extend="min", label="validation accuracy")
figure.savefig("grid_search.png", dpi=120)
