"""TabularClassifier and TabularRegressor: interface, results, and what they refuse."""

import pickle
import signal

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.ensemble import StackingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.metrics import accuracy_score, log_loss, mean_pinball_loss, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_predict

import gpumlp
from gpumlp import TabularClassifier, TabularRegressor
from gpumlp.estimators.tabular import table_preparation, tabular_base
from gpumlp.utils.checks import ParameterError
from tests.helpers.estimator_checks import checks_of
from tests.helpers.optional import Package

pandas = Package("pandas")
polars = Package("polars")
pyarrow = Package("pyarrow")

QUICK = {"n_models": 2, "hidden_layer_sizes": 8, "max_epochs": 3, "random_state": 0}
SMALL = {"n_models": 3, "hidden_layer_sizes": (16, 16), "max_epochs": 20, "random_state": 0}


def expected_failures(estimator):
    """Weights of rows are weights of the loss: folds and batches count rows."""
    reason = "a row of weight 2 is in one fold and one batch, two rows may be in several"
    names = "check_sample_weight_equivalence_on_dense_data", "check_sample_weights_invariance"
    return dict.fromkeys(names, reason)


@checks_of(
    [
        TabularClassifier(**QUICK | {"max_epochs": 30, "dtype": "float64"}),
        TabularRegressor(**QUICK | {"max_epochs": 50, "dtype": "float64"}),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def columns(rows, seed=0):
    """Columns of several kinds, and their noise-free sum."""
    rng = np.random.default_rng(seed)
    town = rng.choice(["Ulm", "Rom", "Ur", None], rows, p=[0.4, 0.3, 0.2, 0.1])
    age = rng.normal(40, 10, rows)
    day = np.datetime64("2024-01-01") + rng.integers(0, 300, rows).astype("timedelta64[D]")
    effect = {"Ulm": -1.0, "Rom": 0.5, "Ur": 2.0, None: 0.0}
    signal = np.array([effect[t] for t in town]) + (age - 40) / 10
    signal += (day - np.datetime64("2024-01-01")).astype(int) / 150
    age[rng.random(rows) < 0.05] = np.nan
    return {"town": town, "age": age, "day": day, "flag": rng.random(rows) < 0.5}, signal


def frame(rows, seed=0, kind="pandas"):
    made, signal = columns(rows, seed)
    if kind == "polars":
        return polars.DataFrame(
            {k: v.tolist() if k == "town" else v for k, v in made.items()}
        ), signal
    return pandas.DataFrame(made), signal


# ---------------------------------------------------------------- results
@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_a_table_is_learned_as_it_is(kind):
    X, signal = frame(600, kind=kind)
    X_new, new = frame(300, 1, kind)
    y, y_new = np.where(signal > 1, "yes", "no"), np.where(new > 1, "yes", "no")
    classifier = TabularClassifier(**SMALL).fit(X, y)
    assert accuracy_score(y_new, classifier.predict(X_new)) > 0.93
    regressor = TabularRegressor(**SMALL).fit(X, signal)
    assert r2_score(new, regressor.predict(X_new)) > 0.93
    assert regressor.feature_names_in_.tolist() == ["town", "age", "day", "flag"]


def test_pandas_and_polars_give_the_same():
    (X, signal), (P, _) = frame(200), frame(200, kind="polars")
    found = TabularRegressor(**QUICK).fit(P, signal).predict(P)
    np.testing.assert_array_equal(found, TabularRegressor(**QUICK).fit(X, signal).predict(X))


def test_same_seed_same_numbers():
    X, signal = frame(150)
    first, second = (TabularRegressor(**QUICK).fit(X, signal).predict(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    other = TabularRegressor(**QUICK | {"random_state": 1}).fit(X, signal).predict(X)
    assert not np.array_equal(first, other)
    generator = np.random.default_rng(3)
    drawn = TabularRegressor(**QUICK | {"random_state": generator})
    assert not np.array_equal(drawn.fit(X, signal).predict(X), drawn.fit(X, signal).predict(X))


def test_on_the_gpu_the_numbers_are_nearly_the_same(cuda):
    X, signal = frame(150)
    options = QUICK | {"dtype": "float64"}
    on_cpu = TabularRegressor(**options, device="cpu").fit(X, signal)
    on_gpu = TabularRegressor(**options, device="cuda").fit(X, signal)
    np.testing.assert_allclose(on_gpu.predict(X), on_cpu.predict(X), rtol=1e-9)
    again = pickle.loads(pickle.dumps(on_gpu))
    np.testing.assert_array_equal(again.predict(X), on_gpu.predict(X))


class TestFolds:
    def test_out_of_fold_predictions_are_those_of_the_network_that_did_not_see_the_row(self):
        X, signal = frame(120)
        y = np.digitize(signal, [0.0, 1.5])
        model = TabularClassifier(**SMALL | {"max_epochs": 4}).fit(X, y)
        members = model._of_members(X)
        found, taken = model.oof_prediction_, set()
        assert found.shape == (120, 3)
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
        for row, probability in enumerate(found):
            near = [m for m in range(3) if np.allclose(members[m, row], probability, rtol=1e-5)]
            assert near
            taken |= set(near)
        assert taken == {0, 1, 2}
        counts = [np.isclose(members[m], found, rtol=1e-5).all(axis=1).sum() for m in range(3)]
        np.testing.assert_allclose(counts, 40, atol=1)
        assert model.validation_scores_.shape == model.best_epochs_.shape == (3,)
        weighted = np.mean(model.validation_scores_)
        np.testing.assert_allclose(weighted, np.mean(found.argmax(axis=1) == y), atol=1e-9)

    def test_a_single_network_holds_an_eighth_out(self):
        X, signal = frame(120)
        for cls, y in ((TabularRegressor, signal), (TabularClassifier, signal > 1)):
            model = cls(**QUICK | {"n_models": 1}).fit(X, y)
            known = np.isfinite(model.oof_prediction_.reshape(120, -1)).all(axis=1)
            assert known.sum() == 15
            np.testing.assert_allclose(
                model._of_members(X)[0][known], model.oof_prediction_[known], rtol=1e-5
            )

    def test_more_networks_than_there_is_memory_for(self):
        x = np.random.default_rng(0).normal(size=(2000, 2))
        with pytest.raises(MemoryError, match="n_models = 2000000000 networks on 2000 rows take"):
            TabularRegressor(n_models=2_000_000_000).fit(x, x[:, 0])

    def test_each_network_is_that_of_its_best_epoch(self):
        X, signal = frame(120)
        model = TabularRegressor(**SMALL).fit(X, signal)
        curves = np.array(model.histories_[0].val_loss)
        np.testing.assert_array_equal(model.best_epochs_, curves.argmin(axis=0) + 1)

    def test_a_validation_set_of_ones_own(self):
        X, signal = frame(120)
        X_val, val = frame(60, 1)
        options = {"X_val": X_val, "y_val": val, "sample_weight_val": np.arange(1.0, 61)}
        model = TabularRegressor(**SMALL).fit(X, signal, **options)
        assert not hasattr(model, "oof_prediction_")
        scores = [
            r2_score(val, one, sample_weight=options["sample_weight_val"])
            for one in model._of_members(X_val)
        ]
        np.testing.assert_allclose(model.validation_scores_, scores, rtol=1e-6)
        with pytest.raises(ValueError, match="X_val and y_val belong together"):
            TabularRegressor(**QUICK).fit(X, signal, X_val=X)
        with pytest.raises(ValueError, match=r"y_val has classes \['c'\] that y has not"):
            y = np.where(signal > 1, "a", "b")
            TabularClassifier(**QUICK).fit(X, y, X_val=X[:1], y_val=["c"])


def test_spread_of_the_members():
    X, signal = frame(100)
    model = TabularRegressor(**SMALL | {"max_epochs": 3}).fit(X, signal)
    members = model._of_members(X)
    np.testing.assert_allclose(model.predict(X), members.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(model.predict_std(X), members.std(axis=0), rtol=1e-12)
    np.testing.assert_allclose(model.predict_quantiles(X, 0.5), np.median(members, axis=0))
    assert model.predict_quantiles(X, [0.1, 0.5, 0.9]).shape == (100, 3)
    with pytest.raises(ParameterError, match=r"q = 1.5 must be a number in \[0, 1\]"):
        model.predict_quantiles(X, 1.5)
    classifier = TabularClassifier(**QUICK).fit(X, signal > 1)
    assert classifier.predict_std(X).shape == (100, 2)
    assert classifier.predict_quantiles(X, [0.2, 0.8]).shape == (100, 2, 2)


class TestQuantiles:
    def test_several_at_once_never_cross(self):
        rng = np.random.default_rng(0)
        x = rng.uniform(-1, 1, (800, 1))
        y = 3 * x[:, 0] + rng.normal(size=800)
        levels = [0.9, 0.1, 0.5]
        model = TabularRegressor(quantile=levels, **SMALL | {"max_epochs": 30}).fit(x, y)
        predicted = model.predict(x)
        assert predicted.shape == model.oof_prediction_.shape == (800, 3)
        for level, column in zip(levels, predicted.T, strict=True):
            assert abs(np.mean(y <= column) - level) < 0.05
        assert (predicted[:, 0] >= predicted[:, 2]).all()
        assert (predicted[:, 2] >= predicted[:, 1]).all()
        assert model.best_epochs_.shape == (3, 3)
        assert model.predict_std(x).shape == (800, 3)

    def test_one_is_a_vector_and_scored_by_its_loss(self):
        X, signal = frame(100)
        model = TabularRegressor(quantile=0.3, **QUICK).fit(X, signal)
        assert model.predict(X).shape == (100,)
        loss = mean_pinball_loss(signal, model.oof_prediction_, alpha=0.3)
        np.testing.assert_allclose(-model.validation_scores_.mean(), loss, rtol=1e-6)


class TestTemperature:
    def test_log_loss_of_rows_that_were_not_seen_is_least(self):
        X, signal = frame(400)
        y = np.digitize(signal, [0.0, 1.5])
        model = TabularClassifier(**SMALL).fit(X, y)
        found = {}
        for factor in (0.8, 1.0, 1.25):
            p = model.oof_prediction_ ** (1 / factor)
            p /= p.sum(axis=1, keepdims=True)
            found[factor] = log_loss(y, p)
        assert found[1.0] < min(found[0.8], found[1.25])
        assert model.temperature_ < 0.9  # labels were smoothed

    def test_few_rows_change_little(self):
        x = np.array([[0.0], [0.1], [0.9], [1.0]])
        model = TabularClassifier(**QUICK | {"max_epochs": 200}).fit(x, [0, 0, 1, 1])
        assert 0.3 < model.temperature_ < 3


def test_values_stay_within_those_that_were_seen():
    x = np.linspace(0, 1, 200)[:, None]
    model = TabularRegressor(**SMALL).fit(x, x[:, 0])
    far = model.predict(np.array([[-1e4], [1e4]]))
    assert far.min() >= 0
    assert far.max() <= 1


# ---------------------------------------------------------------- weights
def test_class_weights_shift_what_is_predicted():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2))
    y = (x[:, 0] + rng.normal(size=600) > 2).astype(int)
    recall = {}
    for weight in (None, "balanced", {0: 1, 1: 9}):
        model = TabularClassifier(class_weight=weight, **SMALL).fit(x, y)
        recall[str(weight)] = model.predict(x)[y == 1].mean()
    assert recall["balanced"] > recall["None"] + 0.2
    assert recall[str({0: 1, 1: 9})] > recall["None"] + 0.2


def test_rows_of_weight_0_teach_nothing():
    X, signal = frame(300)
    wrong = np.where(np.arange(300) % 2, -10 * signal, signal)
    weight = (np.arange(300) % 2 == 0).astype(float)
    model = TabularRegressor(**SMALL | {"max_epochs": 50}).fit(X, wrong, weight)
    assert r2_score(signal[::2], model.predict(X)[::2]) > 0.8


# ---------------------------------------------------------------- odd data
def test_one_class_is_certain():
    model = TabularClassifier(**QUICK).fit(np.arange(6.0)[:, None], ["a"] * 6)
    np.testing.assert_array_equal(model.predict_proba([[1.0], [9.0]]), [[1.0], [1.0]])
    assert model.predict([[3.0]]).tolist() == ["a"]


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_few_rows(rows):
    x = np.arange(rows, dtype=float)[:, None]
    options = QUICK | {"n_models": 4}
    if rows > 1:
        assert np.isfinite(TabularRegressor(**options).fit(x, x[:, 0]).predict(x)).all()
        labels = TabularClassifier(**options).fit(x, np.arange(rows)).predict(x)
        assert set(labels) <= set(range(rows))


def test_constant_targets_are_predicted():
    model = TabularRegressor(**QUICK).fit(np.arange(9.0)[:, None], np.full(9, 7.5))
    np.testing.assert_array_equal(model.predict([[3.0]]), [7.5])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed, but the target y is None"),
        ([0.5, 1.5, 2.5, 3.5], "no classes: use TabularRegressor, or round them"),
        (["a", None, "b", "a"], "y has missing values in 1 of 4 places: leave these rows out"),
        ([1, 0, 1], "X has 4 samples and y 3: inconsistent numbers of samples"),
        ([b"a", b"b", b"a", b"b"], "y holds bytes"),
    ],
)
def test_targets_that_are_none_are_refused(y, message):
    with pytest.raises((ValueError, TypeError), match=message):
        TabularClassifier(**QUICK).fit(np.arange(4.0)[:, None], y)


def test_text_is_no_value():
    with pytest.raises(TypeError, match=r"y holds text .* use TabularClassifier"):
        TabularRegressor(**QUICK).fit(np.arange(4.0)[:, None], ["1", "2", "3", "4"])


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("n_models", 0, "a whole number in"),
        ("hidden_layer_sizes", (8, 0), "'auto', or the units"),
        ("max_epochs", 2.5, "'auto', or a whole number"),
        ("batch_size", "all", "'auto', or a whole number"),
        ("learning_rate", -1.0, r"a number in \(0, inf\)"),
        ("categorical_features", "all", "None, or 'from_dtype', or a list of column names"),
        ("time_limit", 0, r"None, or a number in \(0, inf\)"),
        ("quantile", 1.0, r"None, or a number in \(0, 1\), or several"),
        ("quantile", [], r"None, or a number in \(0, 1\), or several"),
        ("callbacks", [3], "None, or a list of gpumlp.Callback"),
        ("device", "gpu", "a device"),
        ("dtype", "float16", "'float32' or 'float64'"),
        ("random_state", -1, "None, an integer"),
        ("verbose", 1.5, "True or False"),
        ("network_params", {"dropot": 0.1}, "None, or a dictionary of activation, dropout"),
        ("network_params", 3, "None, or a dictionary of activation, dropout"),
    ],
)
def test_parameters_are_checked(name, value, wanted):
    with pytest.raises(ParameterError, match=rf"TabularRegressor: {name} = .* must be {wanted}"):
        TabularRegressor(**{name: value}).fit([[1.0], [2.0]], [1.0, 2.0])


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("activation", "no", "an activation: identity"),
        ("activation", ["relu"], "an activation: identity"),
        ("dropout", 2.0, r"a number in \[0, 1\)"),
        ("weight_decay", -1, r"a number in \[0, inf\)"),
        ("beta2", 1.0, r"a number in \[0, 1\)"),
        ("schedule", "no", "None, or a schedule"),
        ("scale_rate", -1, r"a number in \[0, inf\)"),
        ("bias_rate", "a", r"a number in \[0, inf\)"),
        ("schedule_decay", 1, "True or False"),
    ],
)
def test_network_params_are_checked(name, value, wanted):
    model = TabularRegressor(network_params={name: value}, **QUICK)
    place = rf"TabularRegressor: network_params\['{name}'\] = .* must be {wanted}"
    with pytest.raises(ParameterError, match=place):
        model.fit([[1.0], [2.0]], [1.0, 2.0])


# ---------------------------------------------------------------- with others
def test_copies_are_equal():
    X, signal = frame(100)
    model = TabularClassifier(**QUICK).fit(X, signal > 1)
    copy = pickle.loads(pickle.dumps(model))
    for same in (pickle.loads(pickle.dumps(copy)), copy):  # a copy's copy, before it is used
        np.testing.assert_array_equal(same.predict_proba(X), model.predict_proba(X))
    assert not hasattr(clone(model), "classes_")


def test_searches_and_metadata():
    X, signal = frame(90)
    weight = np.linspace(0.5, 2, 90)
    with sklearn.config_context(enable_metadata_routing=True):
        model = TabularRegressor(**QUICK).set_fit_request(sample_weight=True)
        model.set_score_request(sample_weight=True)
        grid = {"learning_rate": [1e-3, 1e-2]}
        search = GridSearchCV(model, grid, cv=2).fit(X, signal, sample_weight=weight)
    assert search.best_params_["learning_rate"] in (1e-3, 1e-2)
    assert cross_val_predict(TabularRegressor(**QUICK), X, signal, cv=2).shape == (90,)


def test_importance_and_stacking():
    X, signal = frame(300)
    model = TabularRegressor(**SMALL).fit(X, signal)
    importance = permutation_importance(model, X, signal, n_repeats=2, random_state=0)
    assert importance.importances_mean[3] < importance.importances_mean[:3].min()
    stack = StackingRegressor([("a", TabularRegressor(**QUICK))], cv=2).fit(X, signal)
    assert stack.predict(X).shape == (300,)


def test_callbacks_see_the_stack():
    seen = []

    class Watch(gpumlp.Callback):
        def on_epoch_end(self, trainer, history):
            seen.append((trainer.net.models, history.epochs))

    X, signal = frame(60)
    TabularRegressor(callbacks=[Watch()], **QUICK).fit(X, signal)
    assert seen == [(2, 1), (2, 2), (2, 3)]


class TestFitThatFails:
    """A model stays what it was, and one that was never fitted is none."""

    def fails(self, model, X, y, error, **options):
        with pytest.raises(error):
            model.fit(X, y, **options)

    def test_the_model_before_stays(self):
        X, signal = frame(90)
        model = TabularClassifier(**QUICK).fit(X, signal > 1)
        before, state = model.predict_proba(X), set(vars(model))
        other = X.assign(age=X["age"] * 1000 + 7)
        self.fails(model, other, (signal > 1)[:5], ValueError)
        self.fails(model, other, signal > 1, ValueError, X_val=X)
        model.set_params(callbacks=[Interrupts(1, KeyboardInterrupt)])
        self.fails(model, other, signal > 1, KeyboardInterrupt)
        np.testing.assert_array_equal(model.predict_proba(X), before)
        assert set(vars(model)) == state

    def test_the_first_leaves_nothing(self):
        X, signal = frame(90)
        for model in (TabularClassifier(**QUICK), TabularRegressor(**QUICK)):
            self.fails(model, X, signal[:5] > 1, ValueError)
            with pytest.raises(NotFittedError):
                model.predict(X)

    def test_ctrl_c_keeps_the_best_networks_so_far(self):
        X, signal = frame(90)
        model = TabularRegressor(**QUICK | {"max_epochs": 9}, callbacks=[Interrupts(4)])
        with pytest.warns(UserWarning, match="interrupted: each network is the best so far"):
            model.fit(X, signal)
        assert model.histories_[0].epochs == 4
        assert model.predict(X).shape == (90,)

    def test_ctrl_c_between_quantiles_is_no_model(self):
        X, signal = frame(90)
        model = TabularRegressor(quantile=[0.2, 0.8], callbacks=[Interrupts(2)], **QUICK)
        self.fails(model, X, signal, KeyboardInterrupt)
        with pytest.raises(NotFittedError):
            model.predict(X)


class Interrupts(gpumlp.Callback):
    """Ctrl-C at the end of an epoch, or an error there."""

    def __init__(self, epoch, error=None):
        self.epoch, self.error = epoch, error

    def on_epoch_end(self, trainer, history):
        if history.epochs == self.epoch:
            if self.error:
                raise self.error
            signal.raise_signal(signal.SIGINT)


class Spoils(gpumlp.Callback):
    """One network's weights become NaN."""

    def __init__(self, member):
        self.member = member

    def on_fit_begin(self, trainer, history):
        trainer.net.theta[self.member] = np.nan


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
class TestNetworkWithoutAnEpoch:
    """One that is never finite has no say, in predictions, scores and temperature."""

    def test_classifier(self):
        X, signal = frame(120)
        options = SMALL | {"max_epochs": 4}
        model = TabularClassifier(callbacks=[Spoils(1)], **options).fit(X, signal > 1)
        assert model.best_epochs_[1] == 0
        assert np.isnan(model.validation_scores_).tolist() == [False, True, False]
        assert np.isnan(model.oof_prediction_[:, 0]).sum() == 40
        assert np.isfinite(model.predict_proba(X)).all()
        sound = TabularClassifier(**options).fit(X, signal > 1)
        assert abs(np.log(model.temperature_ / sound.temperature_)) < 0.3
        assert model.predict_std(X).shape == (120, 2)

    def test_regressor_of_quantiles(self):
        X, signal = frame(120)
        options = SMALL | {"max_epochs": 4, "quantile": [0.2, 0.8]}
        model = TabularRegressor(callbacks=[Spoils(2)], **options).fit(X, signal)
        assert np.isfinite(model.predict(X)).all()
        assert np.isfinite(model.predict_std(X)).all()
        assert np.isnan(model.validation_scores_).tolist() == [False, False, True]


def test_early_stopping_of_ones_own_does_not_choose_the_weights():
    X, signal = frame(120)
    own = gpumlp.EarlyStopping(patience=100, monitor="loss")
    model = TabularRegressor(**SMALL, callbacks=[own]).fit(X, signal)
    np.testing.assert_array_equal(
        model.predict(X), TabularRegressor(**SMALL).fit(X, signal).predict(X)
    )


def test_score_of_quantiles_is_the_negative_pinball_loss():
    X, signal = frame(100)
    weight = np.linspace(0, 1, 100)
    model = TabularRegressor(quantile=[0.2, 0.8], **QUICK).fit(X, signal)
    losses = [
        mean_pinball_loss(signal, column, alpha=q, sample_weight=weight)
        for q, column in zip([0.2, 0.8], model.predict(X).T, strict=True)
    ]
    np.testing.assert_allclose(model.score(X, signal, weight), -np.mean(losses))
    grid = GridSearchCV(model, {"learning_rate": [1e-3, 1e-2]}, cv=2).fit(X, signal)
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all()
    one = TabularRegressor(**QUICK).fit(X, signal)
    np.testing.assert_allclose(one.score(X, signal), r2_score(signal, one.predict(X)))


def test_quantiles_are_those_of_the_fit():
    X, signal = frame(100)
    model = TabularRegressor(quantile=[0.2, 0.8], **QUICK).fit(X, signal)
    before = model.predict(X)
    np.testing.assert_array_equal(model.set_params(quantile=None).predict(X), before)
    np.testing.assert_array_equal(model.set_params(quantile=[0.8, 0.2]).predict(X), before)


@pytest.mark.parametrize("dtype", ["Int64", "UInt8", "boolean", "int64[pyarrow]"])
def test_nullable_labels_keep_their_kind(dtype):
    if "pyarrow" in dtype:
        assert pyarrow.int64() == dtype.partition("[")[0]
    X, signal = frame(60)
    labels = pandas.Series(np.where(signal > 1, 1, 0)).astype(dtype)
    model = TabularClassifier(**QUICK).fit(X, labels)
    assert model.classes_.dtype.kind == {"b": "b", "U": "u"}.get(dtype[0], "i")
    if dtype == "Int64":
        large = pandas.Series([2**60, 2**60 + 1] * 30, dtype=dtype)
        assert TabularClassifier(**QUICK).fit(X, large).classes_.tolist() == [2**60, 2**60 + 1]


class TestRowsOfWeight0:
    @pytest.mark.parametrize("cls", [TabularClassifier, TabularRegressor])
    def test_folds_are_of_the_others(self, cls):
        X, signal = frame(60)
        weight = np.zeros(60)
        weight[:6] = 1
        y = signal > 1 if cls is TabularClassifier else signal
        y[:2] = 0, 1
        model = cls(**QUICK | {"n_models": 4}).fit(X, y, weight)
        assert np.isfinite(model.validation_scores_).all()
        assert (model.best_epochs_ > 0).all()
        found = model.oof_prediction_
        assert np.isfinite(found).all()
        predicted = model.predict_proba(X) if cls is TabularClassifier else model.predict(X)
        np.testing.assert_allclose(found[6:], predicted[6:], rtol=1e-5)

    def test_a_class_of_weight_0(self):
        X, _ = frame(8)
        model = TabularClassifier(class_weight={"p": 0}, **QUICK | {"n_models": 4})
        model.fit(X, ["p"] * 6 + ["q"] * 2)
        assert (model.best_epochs_ > 0).all()
        with pytest.raises(ValueError, match="every row has a weight of 0"):
            TabularClassifier(class_weight={"p": 0, "q": 0}, **QUICK).fit(X, ["p", "q"] * 4)


@pytest.mark.parametrize("size", [1e-200, 1e-30, 1e30, 1e200])
def test_targets_of_any_size(size):
    X, signal = frame(200)
    model = TabularRegressor(**SMALL).fit(X, signal * size)
    usual = TabularRegressor(**SMALL).fit(X, signal)
    np.testing.assert_allclose(model.predict(X) / size, usual.predict(X), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(model.validation_scores_, usual.validation_scores_, atol=1e-3)


def test_what_is_wrong_with_targets_shows_before_the_table_is_prepared(monkeypatch):
    X, signal = frame(60)
    monkeypatch.setattr(tabular_base, "Preparation", None)
    for y, weight in ((signal[:5], None), (signal, np.ones(5)), (["a"] * 60, None)):
        with pytest.raises((ValueError, TypeError), match=r"y|sample_weight"):
            TabularRegressor(**QUICK).fit(X, y, weight)


def test_what_is_wrong_with_a_validation_set_is_said_of_it():
    X, signal = frame(60)
    bad = X.assign(age="old")
    with pytest.raises(ValueError, match=r"X_val.*column 'age', row 0: 'old' is not a number"):
        TabularRegressor(**QUICK).fit(X, signal, X_val=bad, y_val=signal)


def test_categorical_features_as_pandas_has_them():
    X, signal = frame(60)
    named = TabularRegressor(categorical_features=["flag"], **QUICK).fit(X, signal)
    for columns in (X.columns[3:], pandas.Series([False, False, False, True])):
        model = TabularRegressor(categorical_features=columns, **QUICK).fit(X, signal)
        np.testing.assert_array_equal(model.predict(X), named.predict(X))


def test_predictions_are_made_in_chunks(monkeypatch):
    X, signal = frame(150)
    model = TabularRegressor(**QUICK).fit(X, signal)
    expected = model.predict(X)
    monkeypatch.setattr(table_preparation, "CHUNK", 0)
    monkeypatch.setattr(table_preparation, "MIN_ROWS", 7)
    np.testing.assert_allclose(model.predict(X), expected, atol=1e-6)  # of numbers around 1


def test_time_limit_ends_a_fit():
    X, signal = frame(60)
    model = TabularRegressor(time_limit=1e-3, **QUICK | {"max_epochs": 1000}).fit(X, signal)
    assert model.histories_[0].epochs < 10


def test_without_folds_that_are_finite_there_is_no_model():
    x = np.random.default_rng(0).normal(size=(40, 3))
    options = {"learning_rate": 1e38, "network_params": {"schedule": None}}
    model = TabularRegressor(**QUICK | options)
    with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match="no network has a finite"):
        model.fit(x, x[:, 0])
