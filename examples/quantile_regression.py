"""Predict a median and the band that holds 80 % of the values: regression with quantiles.

The noise grows with x, so no single width of the band would do.
"""

import numpy as np
from sklearn.model_selection import train_test_split

from gpumlp import MLPRegressor

rng = np.random.default_rng(0)
x = rng.uniform(0, 3, size=(4000, 1))
y = np.sin(2 * x[:, 0]) + (0.1 + 0.3 * x[:, 0]) * rng.normal(size=len(x))
x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0)

QUANTILES = (0.1, 0.5, 0.9)
low, median, high = (
    MLPRegressor(
        loss="quantile",
        quantile=quantile,
        hidden_layer_sizes=(32, 32),
        activation="tanh",
        learning_rate_init=0.01,
        early_stopping=True,
        scoring="loss",  # else R², which is about means
        n_iter_no_change=30,
        tol=0.0,
        random_state=0,
    )
    .fit(x_train, y_train)
    .predict
    for quantile in QUANTILES
)

for quantile, predict in zip(QUANTILES, (low, median, high), strict=True):
    below = np.mean(y_test < predict(x_test))
    print(f"quantile {quantile}: {below:.1%} of the test values are below it")
inside = np.mean((low(x_test) <= y_test) & (y_test <= high(x_test)))
print(f"in the band: {inside:.1%} (80 % expected)")

print("\n   x    10 %  median    90 %")
for value in (0.5, 1.5, 2.5):
    at = [[value]]
    print(f"{value:4}  {low(at)[0]:6.2f}  {median(at)[0]:6.2f}  {high(at)[0]:6.2f}")
