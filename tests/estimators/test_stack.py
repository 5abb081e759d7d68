"""Members of a stack: each becomes what its fit alone would have made of it."""

import tracemalloc
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn import datasets
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.estimators import stack_fitter, stack_trainer
from gpumlp.estimators.stack_fitter import Member, fit_members
from tests import standin

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

DIGITS = [part[:150] for part in datasets.load_digits(return_X_y=True)]
DIGITS[0] = DIGITS[0][:, 10:30] / 16
TWO = DIGITS[0], np.where(DIGITS[1] > 4, "high", "low")
DIABETES = [scale(part[:130]) for part in datasets.load_diabetes(return_X_y=True)]
LABELS = datasets.make_multilabel_classification(90, 8, n_classes=3, random_state=0)
TOLERANCE = 1e-9


def classifier(**arguments):
    return MLPClassifier(**({"hidden_layer_sizes": (7, 5), "max_iter": 6} | arguments))


def regressor(**arguments):
    return MLPRegressor(**({"hidden_layer_sizes": (7, 5), "max_iter": 6} | arguments))


def each(name, *values):
    return [{name: value} for value in values]


RATES = each("learning_rate_init", 1e-3, 0.1, 0.02)
# Some networks' validation loss stands still for the 10 epochs that lower the rate, others' never.
PLATEAU = {"max_iter": 45, "n_iter_no_change": 45}
# data, the parameters of all, and those of each member
CASES = {
    "rates and seeds": (DIGITS, classifier(), RATES),
    "sgd": (
        DIGITS,
        classifier(solver="sgd", learning_rate_init=0.1),
        [{"momentum": 0.9, "alpha": 1.0}, {"momentum": 0.3, "l1": 0.01}, {"momentum": 0.5}],
    ),
    "without momentum": (
        DIGITS,
        classifier(solver="sgd", nesterovs_momentum=False, learning_rate="invscaling"),
        each("momentum", 0.0, 0.9),
    ),
    "adam's numbers": (
        DIABETES,
        regressor(),
        [{"beta_1": 0.5, "epsilon": 1e-4}, {"beta_2": 0.9}, {"weight_decay": 0.1}],
    ),
    "adaptive": (
        DIGITS,
        classifier(solver="sgd", learning_rate="adaptive", max_iter=30, n_iter_no_change=2),
        [{"tol": 0.5}, {"tol": 0.01}, {"tol": 10.0, "n_iter_no_change": 1}],
    ),
    "early stopping": (
        DIGITS,
        classifier(early_stopping=True, max_iter=25, n_iter_no_change=3, learning_rate_init=0.01),
        each("validation_fraction", 0.1, 0.3, 0.2),
    ),
    "early stopping by R²": (
        DIABETES,
        regressor(early_stopping=True, max_iter=25, n_iter_no_change=3),
        RATES,
    ),
    "early stopping of two classes": (TWO, classifier(early_stopping=True), RATES),
    "early stopping by another score": (
        TWO,
        classifier(early_stopping=True, max_iter=9),
        each("scoring", "neg_log_loss", "loss", None, "roc_auc"),
    ),
    "several labels": (LABELS, classifier(early_stopping=True), RATES),
    "max_iter": (DIABETES, regressor(), each("max_iter", 2, 9, 4, 1, 12)),
    "dropout": (
        DIGITS,
        classifier(),
        each("dropout", 0.0, 0.3, [0.1, 0.5]),
    ),
    "drawn slopes": (DIGITS, classifier(activation=["rrelu", "prelu"]), RATES),
    "clipping": (DIABETES, regressor(), each("clip_norm", None, 0.1, 1.0)),
    "class weights": (
        DIGITS,
        classifier(early_stopping=True),
        each("class_weight", None, "balanced", {0: 5.0, 3: 0.0}),
    ),
    "a schedule": (DIABETES, regressor(schedule="cosine"), each("max_iter", 3, 6, 3)),
    "a plateau": (
        DIABETES,
        regressor(
            schedule=gpumlp.schedules["plateau"](patience=1, delta=0.1), solver="sgd", max_iter=12
        ),
        each("max_iter", 12, 5, 9),
    ),
    "a plateau of the validation loss": (
        DIABETES,
        regressor(schedule="plateau", early_stopping=True, **PLATEAU),
        RATES,
    ),
    "as they stand": (DIGITS, classifier(), each("shuffle", False, True)),
    "another loss": (
        DIABETES,
        regressor(loss=gpumlp.losses["huber"](delta=0.5)),
        RATES,
    ),
    "small batches": (DIGITS, classifier(batch_size=16), RATES),
    "no hidden layer": (DIGITS, classifier(hidden_layer_sizes=()), RATES),
    "poisson": ((DIABETES[0], np.exp(DIABETES[1])), regressor(loss="poisson"), RATES),
}


def members_of(base, own, **more):
    return [clone(base).set_params(**{"random_state": m, **each}) for m, each in enumerate(own)]


def folds(count, members, seed=0):
    """Rows of different numbers, in any order."""
    rng = np.random.RandomState(seed)
    return [rng.permutation(count)[: count - 7 * m - 20] for m in range(members)]


def assert_same(found, expected, tolerance=TOLERANCE):
    for name in ("coefs_", "intercepts_"):
        for mine, its in zip(getattr(found, name), getattr(expected, name), strict=True):
            np.testing.assert_allclose(mine, its, rtol=0, atol=tolerance, err_msg=name)
    for name in ("loss_curve_", "validation_scores_", "validation_loss_curve_"):
        mine, its = getattr(found, name), getattr(expected, name)
        assert (mine is None) == (its is None)
        if mine is not None:
            np.testing.assert_allclose(mine, its, rtol=tolerance, atol=tolerance, err_msg=name)
    for name in ("n_iter_", "t_", "converged_", "n_features_in_", "n_outputs_", "n_layers_"):
        assert getattr(found, name) == getattr(expected, name), name
    for name in ("loss_", "best_loss_", "best_validation_score_"):
        mine, its = getattr(found, name), getattr(expected, name)
        assert mine == its or mine == pytest.approx(its, rel=1e-7), name
    if hasattr(expected, "classes_"):
        np.testing.assert_array_equal(found.classes_, expected.classes_)


def compare(estimators, rows, X, y, weight=None, tolerance=TOLERANCE, **validation):
    """Each member of the stack, and its fit alone."""
    alone = [clone(estimator) for estimator in estimators]
    members = [Member(e, part) for e, part in zip(estimators, rows, strict=True)]
    given = tuple(validation.get(name) for name in ("X_val", "y_val", "sample_weight_val"))
    assert fit_members(members, X, y, weight, given) == [None] * len(members)
    for found, expected, part in zip(estimators, alone, rows, strict=True):
        part = slice(None) if part is None else part
        expected.fit(X[part], y[part], None if weight is None else weight[part], **validation)
        assert_same(found, expected, tolerance)
    return estimators


@pytest.fixture
def no_other_way(monkeypatch):
    """Nothing is fitted alone in the place of a stack."""

    def refuse(self, member):
        raise AssertionError("a member was fitted alone")

    monkeypatch.setattr(stack_fitter.StackFitter, "_fit_alone", refuse)


@pytest.mark.parametrize("case", CASES)
def test_members_equal_their_fits_alone(case, no_other_way):
    (X, y), base, own = CASES[case]
    compare(members_of(base, own), folds(len(X), len(own)), X, y)


@pytest.mark.parametrize("case", ["sgd", "early stopping", "dropout", "class weights", "max_iter"])
def test_on_each_device(case, device, no_other_way):
    (X, y), base, own = CASES[case]
    base.set_params(device=device, dtype="float64", max_iter=3)
    rows = [part[:40] for part in folds(len(X), len(own))]
    found = compare(members_of(base, own), rows, X, y, tolerance=1e-8)
    assert all(each._engine.awake().device.startswith(device) for each in found)


def test_plateaus_are_those_of_the_validation_loss():
    """In the case above some rates are lowered, and not when the training loss would have it."""
    (X, y), base, own = CASES["a plateau of the validation loss"]
    curves = []
    for schedule in ("plateau", gpumlp.schedules["plateau"](monitor="loss"), None):
        members = members_of(clone(base).set_params(schedule=schedule), own)
        fit_members([Member(member) for member in members], X, y)
        curves.append([member.loss_curve_ for member in members])
    lowered = [[mine != its for mine, its in zip(curves[0], other, strict=True)]
               for other in curves[1:]]  # fmt: skip
    assert any(lowered[0]) and any(lowered[1]) and not all(lowered[1])


def test_members_go_on_by_themselves():
    X, y = DIABETES
    for solver, schedule in (("adam", None), ("sgd", None), ("sgd", "exponential")):
        numbers = [{"momentum": 0.9}, {"momentum": 0.5, "dropout": 0.3}]
        members = members_of(regressor(solver=solver, schedule=schedule), numbers)
        alone = [clone(member).fit(X, y) for member in members]
        fit_members([Member(member) for member in members], X, y)
        for mine, its in zip(members, alone, strict=True):
            for _ in range(2):
                mine.partial_fit(X, y)
                its.partial_fit(X, y)
            assert_same(mine, its)
            assert_same(clone(mine).fit(X, y), clone(its).fit(X, y))


def test_weights_and_a_validation_set_of_the_users(no_other_way):
    X, y = DIGITS
    weight = np.linspace(0, 2, len(X))
    given = {"X_val": X[::3], "y_val": y[::3], "sample_weight_val": weight[::3] + 1}
    base = classifier(early_stopping=True, n_iter_no_change=2, max_iter=12)
    compare(members_of(base, RATES), folds(len(X), 3), X, y, weight, **given)
    compare(members_of(classifier(class_weight="balanced"), RATES), [None] * 3, X, y, weight)
    base = regressor(early_stopping=True)
    given = {"X_val": DIABETES[0][::2], "y_val": DIABETES[1][::2]}
    compare(members_of(base, RATES), folds(130, 3), *DIABETES, **given)


def test_members_that_were_fitted_before(no_other_way):
    """Of that fit nothing stays: neither its classes, scores and names nor what was set by hand."""
    X, y = DIGITS
    members = members_of(classifier(early_stopping=True, max_iter=3), RATES)
    for member in members:
        member.fit(X[:60], y[:60] % 3)
        member.feature_names_in_ = np.array([f"x{i}" for i in range(X.shape[1])], object)
        member.set_params(early_stopping=False)
    for member in compare(members, folds(len(X), 3), X, y):
        assert vars(member).keys() == vars(clone(member).fit(X, y)).keys()
    members[0].set_params(early_stopping=True)
    compare(members[:1], [None], X, y)


def test_rows_that_come_again(no_other_way):
    X, y = DIGITS
    rng = np.random.RandomState(0)
    rows = [rng.randint(0, len(X), size) for size in (150, 130, 60)]
    compare(members_of(classifier(batch_size=32), RATES), rows, X, y)


def test_more_rows_than_there_are():
    X, y = DIGITS
    rows = np.random.RandomState(0).randint(0, len(X), 330)
    compare(members_of(classifier(), RATES), [rows, None, rows[:300]], X, y)


def test_folds_that_lack_a_class(no_other_way):
    X, y = DIGITS
    rows = [np.flatnonzero(y != 3), np.flatnonzero(y != 4), np.arange(len(y))]
    found = compare(members_of(classifier(), RATES), rows, X, y)
    assert [each.n_outputs_ for each in found] == [9, 9, 10]


def test_sparse_rows(no_other_way):
    X = sparse.csr_array(DIGITS[0] * (DIGITS[0] > 0.3))
    compare(members_of(classifier(), RATES), folds(150, 3), X, DIGITS[1])


def test_what_no_stack_has_a_place_for():
    X, y = DIABETES
    scored = regressor(early_stopping=True, scoring=lambda e, X, y: -np.abs(e.predict(X) - y).max())
    members = [
        regressor(random_state=0, solver="lbfgs"),
        regressor(random_state=1),
        regressor(random_state=2, callbacks=[gpumlp.EarlyStopping(2)]),
        clone(scored).set_params(random_state=3),
    ]
    alone = [clone(member).fit(X, y) for member in members]
    assert fit_members([Member(each) for each in members], X, y) == [None] * 4
    for mine, its in zip(members, alone, strict=True):
        np.testing.assert_allclose(mine.predict(X), its.predict(X), rtol=0, atol=1e-10)


def test_large_sparse_rows(monkeypatch):
    from gpumlp.estimators import estimator_rows

    monkeypatch.setattr(estimator_rows, "DENSE_BYTES", 0)
    X, y = DIGITS
    compare(members_of(classifier(), RATES[:2]), folds(150, 2), sparse.csr_array(X), y)


# ---------------------------------------------------------------- features
@pytest.mark.parametrize("early_stopping", [False, True])
def test_members_that_see_some_features(early_stopping, device, no_other_way):
    X, y = DIABETES
    base = regressor(device=device, dtype="float64", early_stopping=early_stopping, max_iter=4)
    columns = [np.array([0, 3, 8]), np.array([1, 2, 9]), np.array([7, 6, 5])]
    rows = [part[:60] for part in folds(len(X), 3)]
    members = members_of(base, RATES)
    chosen = [Member(*parts) for parts in zip(members, rows, columns, strict=True)]
    assert fit_members(chosen, X, y) == [None] * 3
    for member, index, seen in chosen_of(chosen):
        alone = clone(member).fit(X[index][:, seen], y[index])
        unseen = np.setdiff1d(np.arange(10), seen)
        np.testing.assert_allclose(member.coefs_[0][seen], alone.coefs_[0], rtol=0, atol=1e-9)
        assert not member.coefs_[0][unseen].any()
        np.testing.assert_allclose(member.loss_curve_, alone.loss_curve_, rtol=1e-9)
        expected = alone.predict(X[:, seen])
        np.testing.assert_allclose(member.predict(X), expected, rtol=0, atol=1e-8)
        assert member.n_features_in_ == 10
        # Where what it has not seen is 0, it trains on as that network does.
        blind = X.copy()
        blind[:, unseen] = 0
        for _ in range(2):
            member.partial_fit(blind, y, X_val=blind, y_val=y)
            alone.partial_fit(X[:, seen], y, X_val=X[:, seen], y_val=y)
        np.testing.assert_allclose(member.coefs_[0][seen], alone.coefs_[0], rtol=0, atol=1e-8)


def chosen_of(members):
    return [(member.estimator, member.rows, member.columns) for member in members]


def test_columns_of_those_that_go_alone():
    X, y = DIABETES
    own = members_of(regressor(callbacks=[gpumlp.EarlyStopping(99)]), RATES)
    seen = np.array([2, 5])
    assert fit_members([Member(own[0], None, seen)], X, y) == [None]
    alone = clone(own[0]).fit(X[:, seen], y)
    np.testing.assert_allclose(own[0].predict(X), alone.predict(X[:, seen]), rtol=0, atol=1e-10)


# ---------------------------------------------------------------- what goes wrong
def test_a_member_that_diverges_is_frozen_and_the_others_go_on(device, no_other_way):
    X, y = DIABETES
    rates = each("learning_rate_init", 0.01, 1e300, 0.02)
    base = regressor(solver="sgd", device=device, dtype="float64", max_iter=3)
    members = members_of(base, rates)
    errors = fit_members([Member(member) for member in members], X, y)
    assert [error is None for error in errors] == [True, False, True]
    assert "non-finite parameter weights: the loss" in str(errors[1])
    with pytest.raises(ValueError) as alone:
        clone(members[1]).fit(X, y)
    assert str(alone.value) == str(errors[1])
    for m in (0, 2):
        assert_same(members[m], clone(members[m]).fit(X, y), 1e-8)
    assert all(np.isfinite(coef).all() for coef in members[1].coefs_)
    assert len(members[1].loss_curve_) == members[1].n_iter_ < 3


def test_a_member_that_diverges_has_its_best_weights():
    X, y = DIABETES
    rates = each("learning_rate_init", 1e300, 0.02)
    members = members_of(regressor(solver="sgd", early_stopping=True), rates)
    with pytest.warns(ConvergenceWarning, match="in 1 of 2 networks"):
        assert fit_members([Member(member) for member in members], X, y) == [None, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(members[0], clone(members[0]).fit(X, y))


def test_errors_are_the_members_own():
    X, y = DIGITS
    members = members_of(classifier(), [*RATES, {"alpha": -1.0}, {"activation": ["relu"]},
                                         {"dropout": [0.1]}])  # fmt: skip
    rows = [None, np.array([1]), None, None, None, None]
    members[1].set_params(early_stopping=True)
    errors = fit_members([Member(*each) for each in zip(members, rows, strict=True)], X, y)
    assert [error is None for error in errors] == [True, False, True, False, False, False]
    for i, word in ((1, "validation"), (3, "alpha"), (4, "activation"), (5, "dropout")):
        assert isinstance(errors[i], ValueError) and word in str(errors[i])
    errors = fit_members([Member(each) for each in members[:3:2]], np.full_like(X, np.nan), y)
    assert all("NaN" in str(error) for error in errors)
    weight = np.r_[np.zeros(50), np.ones(100)]
    member = Member(classifier(), np.arange(40))
    assert "sample_weight is 0" in str(fit_members([member], X, y, weight)[0])


def test_weights_for_other_samples_are_refused():
    X, y = DIGITS
    for rows in (np.arange(50), None):
        errors = fit_members([Member(classifier(), rows)], X, y, np.ones(len(y) + 9))
        assert isinstance(errors[0], ValueError) and "sample_weight has" in str(errors[0])


def test_a_score_that_fails_ends_its_own_member_alone():
    X, y = DIGITS
    base = classifier(early_stopping=True, random_state=0)
    settings = each("scoring", "accuracy", "roc_auc", "loss")  # roc_auc is for two classes
    for places in ([0, 1, 2], [1, 1]):
        members = [clone(base).set_params(**settings[i]) for i in places]
        errors = fit_members([Member(member) for member in members], X, y)
        for i, member, error in zip(places, members, errors, strict=True):
            if i == 1:
                assert isinstance(error, ValueError) and "scoring: multi_class" in str(error)
            else:
                assert error is None
                assert_same(member, clone(member).fit(X, y))


def test_targets_that_a_loss_refuses_end_those_alone_that_train_on_them():
    X, y = DIABETES[0], np.exp(DIABETES[1])
    y[0] = -1
    members = members_of(regressor(loss="poisson"), [{"random_state": 0}, {"random_state": 1}])
    rows = [np.arange(60), np.arange(1, 60)]
    errors = fit_members([Member(*each) for each in zip(members, rows, strict=True)], X, y)
    assert "y" in str(errors[0]) and errors[1] is None
    assert_same(members[1], clone(members[1]).fit(X[1:60], y[1:60]))


def test_rows_that_are_held_out_for_a_member(no_other_way):
    X, y = DIGITS
    held = np.arange(120, 150)
    members = members_of(classifier(early_stopping=True, class_weight="balanced"), RATES)
    weight = np.linspace(1, 2, len(y))
    rows = [np.arange(120), np.arange(0, 120, 2), np.r_[0:60, 0:60]]
    chosen = [Member(m, own, held_out=held) for m, own in zip(members, rows, strict=True)]
    assert fit_members(chosen, X, y, weight) == [None] * 3
    for member, own in zip(members, rows, strict=True):
        given = {"X_val": X[held], "y_val": y[held], "sample_weight_val": weight[held]}
        assert_same(member, clone(member).fit(X[own], y[own], weight[own], **given))


def test_members_that_wait_take_little_memory():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(4000, 5)), rng.normal(size=(4000, 10))
    members = [Member(regressor(hidden_layer_sizes=(200, 200))) for _ in range(20)]
    stack_fitter.StackFitter(members[:1], X, y)
    tracemalloc.start()
    try:
        waiting = stack_fitter.StackFitter(members, X, y)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(next(iter(waiting._groups.values()))) == 20
    assert held < X.nbytes + y.nbytes + 20 * 10_000  # their generators'; weights would take 7 MB


def test_those_that_have_not_converged_are_warned_of_once():
    members = members_of(classifier(tol=0.0), RATES)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fit_members([Member(member) for member in members], *DIGITS)
    assert [str(each.message) for each in told] == [
        "3 of 3 fits have not converged within max_iter epochs"
    ]
    assert told[0].category is ConvergenceWarning and told[0].filename == __file__


def test_ctrl_c_leaves_what_they_have_come_to(monkeypatch):
    X, y = DIABETES
    members, epochs = members_of(regressor(), RATES), []
    train = stack_trainer.StackTrainer.train

    def interrupted(self, interrupt):
        epochs.append(1)
        interrupt.asked = len(epochs) == 3
        return train(self, interrupt)

    monkeypatch.setattr(stack_trainer.StackTrainer, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_members([Member(member) for member in members], X, y)
    assert [member.n_iter_ for member in members] == [2, 2, 2]
    assert all(np.isfinite(member.predict(X)).all() for member in members)


# ---------------------------------------------------------------- one stack, or several
def stacks_made(monkeypatch):
    """The sizes of the stacks that are made from now on."""
    made: list[int] = []
    make = stack_trainer.StackTrainer.__init__

    def noted(self, runs, *arguments):
        made.append(len(runs))
        make(self, runs, *arguments)

    monkeypatch.setattr(stack_trainer.StackTrainer, "__init__", noted)
    return made


def test_what_makes_groups(monkeypatch):
    X, y = DIGITS
    own = [
        {"alpha": 0.1}, {"batch_size": 10}, {"activation": "tanh"}, {"solver": "sgd"},
        {"hidden_layer_sizes": (7, 4)}, {"early_stopping": True}, {"beta_1": 0.5},
        {"loss": "focal"}, {"label_smoothing": 0.1}, {"dtype": "float32"}, {"batch_size": 300},
        {"loss": gpumlp.losses["focal"]()}, {"batch_size": 301},
    ]  # fmt: skip
    made = stacks_made(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of batches that are larger than the data
        compare(members_of(classifier(), own), [None] * len(own), X, y, tolerance=1e-5)
    assert sorted(made) == [1] * 11 + [2]


def test_copies_of_an_object_do_not_make_groups(monkeypatch):
    X, y = DIABETES
    cube = gpumlp.Activation("cube", lambda z, p: z**3, lambda z, n, p: 3 * z**2)
    base = regressor(
        activation=cube, loss=gpumlp.losses["huber"](delta=0.5), hidden_layer_sizes=[7, 5]
    )
    made = stacks_made(monkeypatch)
    fit_members([Member(each) for each in members_of(base, RATES)], X, y)
    assert made == [3]


def test_chunks_where_memory_is_short(monkeypatch):
    X, y = DIGITS
    base, own = classifier(early_stopping=True), each("max_iter", 2, 5, 3, 4, 2)
    foreseen, needed, made = stack_fitter.bytes_needed, {}, stacks_made(monkeypatch)

    def noted(*given):
        needed[given[-1]] = foreseen(*given)[1]
        return foreseen(*given)

    monkeypatch.setattr(stack_fitter, "bytes_needed", noted)
    monkeypatch.setattr(stack_fitter, "CPU_BYTES", 0)
    compare(members_of(base, own), [None] * 5, X, y)
    assert made == [1] * 5
    del made[:]
    monkeypatch.setattr(stack_fitter, "CPU_BYTES", stack_fitter.MOVING * needed[2])
    compare(members_of(base, own), [None] * 5, X, y)
    assert made == [2, 2, 1]
    assert 0 < needed[2] < needed[3] < needed[5] < 3 * needed[2]


MEMORY = {
    "adam": {},
    "sgd": {"solver": "sgd"},
    "early stopping": {"early_stopping": True, "validation_fraction": 0.5, "batch_size": 30},
    "class weights": {"class_weight": "balanced"},
    "float64": {"dtype": "float64"},
}


@pytest.mark.parametrize("case", MEMORY)
def test_memory_is_foreseen(case, monkeypatch, cuda, counters):
    from gpumlp.training import persistent

    # Not for networks that are trained in shared memory, which need less.
    monkeypatch.setattr(persistent, "plan", lambda *arguments: None)
    rng, used = np.random.RandomState(0), standin.machine.used
    X, y = rng.normal(size=(300, 40)).astype(np.float32), rng.randint(0, 10, 300)
    most, foreseen, shared = [0], stack_fitter.bytes_needed, []

    class Watched(dict):
        def __setitem__(self, device, size):
            super().__setitem__(device, size)
            most[0] = max(most[0], size)

    monkeypatch.setattr(standin.machine, "used", Watched(used))
    monkeypatch.setattr(
        stack_fitter, "bytes_needed", lambda *given: shared.append(foreseen(*given)) or shared[-1]
    )
    before = used.get(0, 0)
    base = MLPClassifier((70, 50), device=cuda, batch_size=100, max_iter=2)
    members = members_of(base, [MEMORY[case]] * 8)
    assert fit_members([Member(member) for member in members], X, y) == [None] * 8
    assert sum(shared[0]) == pytest.approx(most[0] - before, rel=0.1)


def test_chunks_on_a_small_gpu(monkeypatch, cuda, counters):
    X, y = DIGITS
    members = members_of(classifier(device=cuda, dtype="float64", max_iter=2), [{}] * 24)
    made = stacks_made(monkeypatch)
    monkeypatch.setattr(standin.machine, "memory", 1 << 20)
    errors = fit_members([Member(member) for member in members], X, y)
    assert errors == [None] * 24 and sum(made) == 24 and 1 < len(made) < 24


def test_they_leave_the_stack_when_half_have_ended(monkeypatch):
    X, y = DIABETES
    sizes = []
    train = stack_trainer.StackTrainer.train

    def noted(self, interrupt):
        done = train(self, interrupt)
        sizes.append(self.net.models)
        return done

    monkeypatch.setattr(stack_trainer.StackTrainer, "train", noted)
    for early_stopping in (False, True):
        sizes.clear()
        members = members_of(regressor(), each("max_iter", 1, 5, 2, 3, 5))
        for member in members:
            member.set_params(early_stopping=early_stopping, n_iter_no_change=99)
        compare(members, folds(130, 5), X, y)
        assert sizes == [5, 5, 5, 2, 2]


def test_best_weights_are_copied_for_all_members_at_once(monkeypatch, cuda, counters):
    X, y = DIGITS
    copies, apply_rules = [], stack_trainer.StackTrainer._apply_rules

    def counted(self):
        with counters.count() as c:
            apply_rules(self)
        copies.append((sum(task.rule.improved for _, task in self._going), c.d2d))

    monkeypatch.setattr(stack_trainer.StackTrainer, "_apply_rules", counted)
    members = members_of(classifier(device=cuda, early_stopping=True, max_iter=4), RATES)
    assert fit_members([Member(member) for member in members], X, y) == [None] * 3
    assert max(improved for improved, _ in copies) > 1
    # At the end they are stopped, too.
    assert all(d2d == (improved > 0) for improved, d2d in copies[:-1])
