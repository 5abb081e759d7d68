"""Classify handwritten digits: scikit-learn's program, with another import.

Runs on a GPU where there is one; device="cpu" or GPUMLP_DEVICE=cpu chooses.
"""

from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import train_test_split

from gpumlp import MLPClassifier  # instead of sklearn.neural_network

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16, y, test_size=0.25, stratify=y, random_state=0
)

model = MLPClassifier(
    hidden_layer_sizes=(128, 64),
    learning_rate_init=0.003,
    early_stopping=True,  # holds out a tenth, and goes back to the best weights
    random_state=0,
    # From here on, what scikit-learn does not have:
    dtype="float32",
    dropout=[0.2, 0.1],  # one for each hidden layer
    label_smoothing=0.05,
)
model.fit(X_train, y_train)

print(model.summary())
print(f"epochs: {model.n_iter_}, best validation accuracy: {model.best_validation_score_:.3f}")
print(f"test accuracy: {model.score(X_test, y_test):.3f}")
print(confusion_matrix(y_test, model.predict(X_test)))

# The three digits that the network is least sure of, and its two best guesses for each.
probability = model.predict_proba(X_test)
for row in probability.max(axis=1).argsort()[:3]:
    first, second = probability[row].argsort()[:-3:-1]
    print(
        f"a {y_test[row]}: {first} with {probability[row, first]:.0%}, "
        f"or {second} with {probability[row, second]:.0%}"
    )

# What the last hidden layer makes of an image can be features for something else.
print("features of the last hidden layer:", model.transform(X_test).shape)
