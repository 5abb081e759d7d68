"""Labels and missing values that are refused, and what is said of them; a single class."""

import numpy as np
import pytest

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from tests.helpers.estimators import IRIS, objects, small
from tests.helpers.optional import Package

pd, pl, pa = Package("pandas"), Package("polars"), Package("pyarrow")

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


# ---------------------------------------------------------------- labels and missing values
MISSING = {
    "text": lambda: objects(["a", None, "b", "a"] * 15),
    "NaN in text": lambda: objects(["a", np.nan, "b", np.float32("nan")] * 15),
    "pandas' text": lambda: pd.Series(["a", None, "b", "a"] * 15),
    "strings": lambda: pd.Series(["a", None, "b", "a"] * 15, dtype="string"),
    "integers": lambda: pd.Series([1, None, 2, 1] * 15, dtype="Int64"),
    "booleans": lambda: pd.Series([True, None, False, True] * 15, dtype="boolean"),
    "categories": lambda: pd.Series(["a", None, "b", "a"] * 15, dtype="category"),
    "polars": lambda: pl.Series(["a", None, "b", "a"] * 15),
    "polars' integers": lambda: pl.Series([1, None, 2, 1] * 15),
    "pyarrow": lambda: pa.array([1, None, 2, 1] * 15),
    "floats": lambda: np.array([1.0, np.nan, 2.0, 1.0] * 15),
}


@pytest.mark.parametrize("kind", MISSING)
def test_missing_labels_are_counted(kind):
    y = MISSING[kind]()
    X = np.linspace(-1, 1, 60)[:, None]
    count = 30 if kind == "NaN in text" else 15
    said = rf"^y has missing values in {count} of 60 places: leave these rows out, or give them a c"
    for model in (small(MLPClassifier), small(MLPClassifier, n_models=2)):
        with pytest.raises(ValueError, match=said):
            model.fit(X, y)
    with pytest.raises(ValueError, match=said):
        small(MLPClassifier).partial_fit(X, y, classes=["a", "b"])
    with pytest.raises(ValueError, match=said.replace("y has", "y_val has")):
        labels = np.array(["a", "b"] * 30)
        small(MLPClassifier).fit(X, labels, X_val=X, y_val=y)


@pytest.mark.parametrize("kind", ["integers", "polars' integers", "pyarrow", "floats"])
def test_missing_values_are_counted(kind):
    X = np.linspace(-1, 1, 60)[:, None]
    with pytest.raises(ValueError, match=r"^y has missing values in 15 of 60 places: leave these"):
        small(MLPRegressor).fit(X, MISSING[kind]())


@pytest.mark.parametrize("y, message", [
    (objects([0, 1, 2] * 20), r"int, in an array of dtype object; pass y.*\.astype\(int\)"),
    (objects([0, True, 2] * 20), r"bool, int, in .* pass y.*\.astype\(int\)"),
    (objects([True, False] * 30), r"bool, in .* pass y.*\.astype\(bool\)"),
    (objects([0, 1.5] * 30), r"float, int, in .* pass y.*\.astype\(float\)"),
    (objects([np.int8(0), np.float32(1)] * 30), r"float32, int8, in .*astype\(float\)"),
    (objects(["a", 1] * 30), r"int, str, mixed; make all of them text, \[str\("),
    (objects(["a", True, 1.5] * 20), "bool, float, str, mixed; make all of them text"),
    (objects([(1, 2), (3,)] * 30), "tuple; labels are numbers, booleans or text"),
    (np.linspace(0, 1, 60), "continuous; .*use MLPRegressor"),
    (np.arange(180).reshape(60, 3) % 7, "multiclass-multioutput; .*MultiOutputClassifier"),
    (np.linspace(0, 1, 180).reshape(60, 3), "continuous-multioutput; .*use MLPRegressor"),
])  # fmt: skip
def test_labels_that_are_refused_say_what_to_do(y, message):
    X = np.linspace(-1, 1, 60)[:, None]
    for model in (small(MLPClassifier), small(MLPClassifier, n_models=2)):
        with pytest.raises(ValueError, match=f"^y: Unknown label type: {message}"):
            model.fit(X, y)
    with pytest.raises(ValueError, match=f"^y_val: Unknown label type: {message}"):
        small(MLPClassifier).fit(X, np.arange(60) % 3, X_val=X, y_val=y)


@pytest.mark.parametrize("model", [
    small(MLPClassifier), small(MLPClassifier, n_models=2),
    gpumlp.GridSearchCV(small(MLPClassifier), {}, error_score="raise"),
])  # fmt: skip
def test_class_weight_as_a_list(model):
    X, y = IRIS
    names = np.array(["ant", "bee", "cow"])[y]
    estimator = getattr(model, "estimator", model)
    estimator.class_weight = [1.0, 2.0, 3.0]
    said = (
        r"class_weight = \[1.0, 2.0, 3.0\] is a list.*dictionary of classes, {'ant': 1.0, 'bee': "
    )
    with pytest.raises(ValueError, match=said):
        model.fit(X, names)


@pytest.mark.parametrize("labels", [[False, True], ["no", "yes"], [-5, 7]])
@pytest.mark.parametrize("arguments", [{}, {"n_models": 2}, {"n_models": 2, "bootstrap": True}])
def test_a_rare_class_is_told_by_its_label(labels, arguments):
    y = np.array(labels)[(np.arange(60) == 3).astype(int)]
    X = np.linspace(-1, 1, 60)[:, None]
    said = rf"early_stopping holds out samples of each class.*, and y has one of {labels[1]!r}"
    with pytest.raises(ValueError, match=said):
        small(MLPClassifier, early_stopping=True, **arguments).fit(X, y)
    small(MLPClassifier, early_stopping=True, **arguments).fit(X, y, X_val=X, y_val=y)


def test_other_labels_in_messages_are_the_users():
    X, y = IRIS
    names = np.array(["ant", "bee", "cow"])[y]
    model = small(MLPClassifier).fit(X, names)
    with pytest.raises(ValueError, match=r"classes \['dog'\]; those of this fit are \['ant' 'bee'"):
        model.partial_fit(X, np.where(y == 1, "dog", names))
    with pytest.raises(ValueError, match=r"y_val has classes \['dog'\] that y has not"):
        small(MLPClassifier).fit(X, names, X_val=X, y_val=np.where(y == 1, "dog", names))
    with pytest.raises(ValueError, match=r"they were \['ant' 'bee' 'cow'\], y has \['bee' 'cow'"):
        model.set_params(warm_start=True).fit(X[50:], names[50:])
    with pytest.raises(ValueError, match=r"'ant', 'bee', 'cow'.* class_weight"):
        small(MLPClassifier, class_weight={"dog": 2.0}).fit(X, names)


# ---------------------------------------------------------------- a single class
def ones(values, count=20):
    np.testing.assert_array_equal(values, np.ones((count, 1)))


@pytest.mark.parametrize("arguments", [
    {}, {"loss": "binary_cross_entropy"}, {"output_activation": "hard_sigmoid", "loss": "focal"},
    {"solver": "lbfgs"}, {"n_models": 3}, {"n_models": 2, "bootstrap": True},
    {"early_stopping": True, "validation_fraction": 0.3}, {"label_smoothing": 0.2},
])  # fmt: skip
def test_the_only_class_has_probability_1(arguments, device):
    X, y = IRIS[0][:20], np.full(20, "only")
    model = small(MLPClassifier, device=device, **arguments)
    try:
        model.fit(X, y)
    except ValueError as error:  # a loss without that pair
        assert "output" in str(error)
        return
    ones(model.predict_proba(X))
    np.testing.assert_array_equal(model.predict_log_proba(X), np.zeros((20, 1)))
    assert list(model.predict(X)) == ["only"] * 20 and model.score(X, y) == 1
    if "n_models" in arguments:
        np.testing.assert_array_equal(model.predict_std(X), np.zeros((20, 1)))
        ones(model.predict_quantiles(X, 0.3))
        for each in model.estimators_:
            ones(each.predict_proba(X))
    elif arguments.get("early_stopping"):
        assert model.validation_scores_ == [1.0] * len(model.validation_scores_)


@pytest.mark.parametrize("random_state", range(4))
def test_the_only_class_scores_1_while_outputs_are_above_the_middle(random_state):
    """An untrained network's sigmoid is on either side of 0.5; predict knows of one class only."""
    X, y = IRIS[0][:20], np.full(20, "only")
    model = small(
        MLPClassifier, random_state=random_state, early_stopping=True, learning_rate_init=1e-12
    ).fit(X, y, X_val=X, y_val=y)
    assert model.score(X, y) == 1
    assert model.validation_scores_ == [1.0] * len(model.validation_scores_)


def test_the_only_class_elsewhere(cuda):
    """After partial_fit, on arrays of the GPU, from scikit-learn's, in searches."""
    import cupy
    from sklearn import neural_network

    X, y = IRIS[0][:20], np.full(20, 4)
    ones(small(MLPClassifier).partial_fit(X, y, classes=[4]).predict_proba(X))
    model = small(MLPClassifier, device=cuda).fit(cupy.asarray(X), cupy.asarray(y))
    probability = model.predict_proba(cupy.asarray(X))
    assert isinstance(probability, cupy.ndarray)
    ones(cupy.asnumpy(probability))
    its = neural_network.MLPClassifier((5,), max_iter=3).fit(X, y)
    ones(MLPClassifier.from_sklearn(its).predict_proba(X))
    search = gpumlp.GridSearchCV(
        small(MLPClassifier, early_stopping=True, validation_fraction=0.3),
        {"alpha": [0.1, 1.0]},
        cv=2,
    ).fit(X, y)
    assert search.best_score_ == 1
    ones(search.predict_proba(X))
