"""Both estimators on odd input, which gives the right answer, and on bad input, which is refused by
a ValueError or TypeError that names the argument; never a crash, a hang or a silent NaN.

What is right: odd forms of the same numbers give what plain arrays give, to the bit, and plain
arrays give what scikit-learn's estimators give.
"""

import functools
import re

import numpy as np
import pytest
from scipy import sparse
from sklearn import neural_network

from gpumlp import MLPClassifier, MLPRegressor
from tests.helpers.oddities import (
    CLASSES,
    CONTENTS,
    LABELS,
    MATRICES,
    NUMBERS,
    PAIRS,
    ROWS,
    VECTORS,
    features,
    is_classifier,
    plain,
    refuses,
    small,
    targets,
    ways_to_spoil,
)

hypothesis = pytest.importorskip(
    "hypothesis", reason="hypothesis, which draws the input, is not installed"
)
HealthCheck, given, settings = hypothesis.HealthCheck, hypothesis.given, hypothesis.settings
st = hypothesis.strategies

BOTH = st.sampled_from([MLPClassifier, MLPRegressor])
SOLVERS = st.sampled_from(["adam", "sgd", "lbfgs"])
SEEDS = st.integers(0, 2**16)

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning"),
]


def examples(count):
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


# ---------------------------------------------------------------- odd forms of good input
@st.composite
def odd_input(draw):
    """An estimator's class and solver; X, y and weights, in odd forms and plain; the classes."""
    cls, solver, rng = draw(BOTH), draw(SOLVERS), np.random.default_rng(draw(SEEDS))
    rows = draw(st.sampled_from([1, 2, ROWS]))
    content = CONTENTS[draw(st.sampled_from(sorted(CONTENTS)))]
    X = content(features(rng, rows, draw(st.integers(1, 4))))
    form = draw(st.sampled_from(sorted(MATRICES)))
    with np.errstate(over="ignore"):
        X = MATRICES[form](np.clip(X, -100, 100) if form in ("float16", "int8") else X)

    classes = None
    if not is_classifier(cls):
        y = targets(cls, rng, rows)
        if solver != "lbfgs" and draw(st.booleans()):  # scikit-learn's differs: #8349
            y = np.stack([y, -y], axis=1)
        forms = PAIRS if y.ndim == 2 else VECTORS
        y = forms[draw(st.sampled_from(sorted(forms)))](y)
        plain_y = plain(y).astype(np.float64)
    else:
        y = targets(cls, rng, rows)
        if draw(st.integers(0, 4)) == 0:
            y = LABELS[draw(st.sampled_from(sorted(LABELS)))](y)
            plain_y = plain(y).astype(int)
        else:
            y = CLASSES[draw(st.sampled_from(sorted(CLASSES)))](y)
            classes, plain_y = np.unique(np.asarray(y), return_inverse=True)
            plain_y = plain_y.ravel()

    weight = plain_weight = None
    if draw(st.booleans()):
        weight = rng.integers(0, 3, rows) / 1.0
        weight[rng.integers(rows)] = 2  # with the others 0, a single sample counts
        weight = NUMBERS[draw(st.sampled_from(sorted(NUMBERS)))](weight)
        plain_weight = plain(weight).astype(np.float64)
    return cls, solver, (X, y, weight), (plain(X), plain_y, plain_weight), classes


@examples(150)
@given(odd_input(), st.sampled_from(["fit", "partial_fit"]))
def test_odd_input_gives_the_right_answer(case, method):
    cls, solver, odd, ordinary, classes = case
    method = "fit" if solver == "lbfgs" else method

    def trained(kind, X, y, weight, every_class):
        # As much as needed for the oddest numbers to show, and with a step that they survive.
        model = small(kind, solver=solver, learning_rate_init=1e-4)
        if method == "fit":
            return model.fit(X, y, sample_weight=weight)
        known = {} if every_class is None else {"classes": every_class}
        for _ in range(2):
            model.partial_fit(X, y, sample_weight=weight, **known)
        return model

    model = trained(cls, *odd, classes)
    mine = trained(cls, *ordinary, None if classes is None else np.arange(len(classes)))
    for a, b in zip(model.coefs_ + model.intercepts_, mine.coefs_ + mine.intercepts_, strict=True):
        np.testing.assert_array_equal(a, b)
    predicted, expected = model.predict(odd[0]), mine.predict(ordinary[0])
    if sparse.issparse(predicted):
        predicted = predicted.toarray()
    np.testing.assert_array_equal(predicted, expected if classes is None else classes[expected])
    if not is_classifier(cls):
        assert np.isfinite(predicted).all()

    several_labels = is_classifier(cls) and classes is None  # not by its partial_fit: #12505
    if ordinary[0].dtype == np.float64 and not (several_labels and method == "partial_fit"):
        theirs = trained(
            getattr(neural_network, cls.__name__),
            *ordinary,
            None if classes is None else np.arange(len(classes)),
        )
        for a, b in zip(
            mine.coefs_ + mine.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(mine.loss_, theirs.loss_, rtol=1e-6)


# ---------------------------------------------------------------- bad input
@st.composite
def bad_input(draw, *names):
    """(class, good arguments, arguments of which some are bad, the names of those)."""
    cls, rng = draw(BOTH), np.random.default_rng(draw(SEEDS))
    X, y, w = features(rng), targets(cls, rng), np.ones(ROWS)
    good = {"X": X, "y": y, "sample_weight": w}
    good |= {"X_val": X, "y_val": y, "sample_weight_val": w}
    good = {name: good[name] for name in names}
    spoilt = draw(st.sets(st.sampled_from(names), min_size=1, max_size=2))
    given = dict(good)
    for name in sorted(spoilt):
        ways = ways_to_spoil(cls, name)
        given[name] = ways[draw(st.sampled_from(sorted(ways)))](good[name])
    return cls, good, given, spoilt


@examples(250)
@given(bad_input("X", "y", "sample_weight"), SOLVERS)
def test_a_fit_refuses_bad_input(case, solver):
    cls, _, given, spoilt = case
    refuses(spoilt, functools.partial(small(cls, solver=solver).fit, **given))


@examples(200)
@given(bad_input("X_val", "y_val", "sample_weight_val"))
def test_a_fit_refuses_a_bad_validation_set(case):
    cls, good, given, spoilt = case
    X, y = good["X_val"], good["y_val"]
    refuses(spoilt, functools.partial(small(cls, early_stopping=True).fit, X, y, **given))


@examples(150)
@given(bad_input("X", "y", "sample_weight"))
def test_partial_fit_refuses_bad_input_and_stays_as_it_was(case):
    cls, good, given, spoilt = case
    X = good["X"]
    model = small(cls).fit(**good)
    before = model.predict(X)
    refuses(spoilt, functools.partial(model.partial_fit, **given))
    np.testing.assert_array_equal(model.predict(X), before)
    model.partial_fit(**good)


@examples(150)
@given(bad_input("X"), st.sampled_from(["predict", "predict_proba", "transform", "score"]))
def test_predictions_refuse_bad_input(case, method):
    cls, good, given, spoilt = case
    X, y = good["X"], targets(cls, np.random.default_rng(0))
    model = small(cls).fit(X, y)
    others = [y] if method == "score" else []
    if hasattr(model, method):
        refuses(spoilt, functools.partial(getattr(model, method), given["X"], *others))
        refuses({"X", "features"}, functools.partial(getattr(model, method), X[:, 1:], *others))


# ---------------------------------------------------------------- huge numbers
EXPONENTS = st.integers(0, 308)


@examples(150)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(BOTH, SOLVERS, EXPONENTS, st.sampled_from(["X", "y", "sample_weight", "at predict"]), SEEDS)
def test_huge_numbers_are_finite_or_refused(cls, solver, exponent, where, seed):
    rng = np.random.default_rng(seed)
    model = small(cls, solver=solver)
    given = {"X": features(rng), "y": targets(cls, rng), "sample_weight": np.ones(ROWS)}
    X = given["X"]
    if where in given and not (where == "y" and is_classifier(cls)):
        given[where] = given[where] * 10.0**exponent
    if where == "at predict":
        X = X / 4 * 10.0**exponent
    try:
        model.fit(**given)
        model.transform(X)
        outputs = [model.predict(X)]
        if is_classifier(cls):
            outputs += [model.predict_proba(X)]
            np.testing.assert_allclose(outputs[1].sum(axis=1), 1)
    except ValueError as error:
        assert exponent > 15, error
        assert re.search("not? finite|non-finite|infinit|too large|overflow", str(error)), error
        return
    assert np.isfinite(model.loss_)
    for array in (*model.coefs_, *model.intercepts_):
        assert np.isfinite(array).all()
    for output in outputs:
        assert not np.isnan(output).any()
