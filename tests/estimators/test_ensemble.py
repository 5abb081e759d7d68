"""n_models: an ensemble of networks in one estimator."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn import datasets
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import check_estimator

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.estimators import bagging
from gpumlp.estimators import estimator_rows as estimator_data
from tests.helpers.estimators import BOTH, DIABETES, IRIS, data

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

LABELS = datasets.make_multilabel_classification(90, 8, n_classes=3, random_state=0)
M = 3


def small(cls, **arguments):
    defaults = {
        "hidden_layer_sizes": (6, 4),
        "max_iter": 6,
        "random_state": 5,
        "learning_rate_init": 0.02,
        "n_models": M,
    }
    return cls(**(defaults | arguments))


def alone(ensemble, m, X, y, weight=None, **options):
    """Member m, fitted by itself on what it has seen."""
    rows, columns = ensemble.estimators_samples_[m], ensemble.estimators_features_[m]
    rows = slice(None) if rows is None else rows
    X = X if columns is None else X[:, columns]
    held = ensemble.estimators_held_out_[m]
    if held is not None:
        options = {"X_val": X[held], "y_val": y[held]} | options
        options["sample_weight_val"] = None if weight is None else weight[held]
    model = clone(ensemble.estimators_[m])
    return model.fit(X[rows], y[rows], None if weight is None else weight[rows], **options)


def assert_members_alone(ensemble, X, y, weight=None, tolerance=1e-9, **options):
    for m, member in enumerate(ensemble.estimators_):
        single = alone(ensemble, m, X, y, weight, **options)
        columns = ensemble.estimators_features_[m]
        found, unseen = member.coefs_[0], np.zeros(0)
        if columns is not None:
            unseen = np.delete(found, columns, axis=0)
            found = found[columns]
        np.testing.assert_allclose(found, single.coefs_[0], rtol=0, atol=tolerance)
        assert not unseen.any()
        for mine, its in zip(member.coefs_[1:], single.coefs_[1:], strict=True):
            np.testing.assert_allclose(mine, its, rtol=0, atol=tolerance)
        for name in ("loss_curve_", "validation_loss_curve_", "validation_scores_"):
            mine, its = (getattr(each, name) for each in (member, single))
            assert (mine is None) == (its is None), name
            if its is not None:
                np.testing.assert_allclose(mine, its, rtol=1e-7, err_msg=name)
        assert member.n_iter_ == single.n_iter_ and member.t_ == single.t_


CASES = {
    "seeds": {},
    "sgd": {"solver": "sgd", "learning_rate": "adaptive", "max_iter": 20, "tol": 0.1},
    "bootstrap": {"bootstrap": True},
    "features": {"max_features": 0.5},
    "both": {"bootstrap": True, "max_features": 2, "early_stopping": True},
    "early stopping": {"early_stopping": True, "max_iter": 20, "n_iter_no_change": 2},
    "numbers": {
        "learning_rate_init": [1e-3, 0.1, 0.02],
        "alpha": np.array([0, 0.1, 1.0]),
        "l1": (0.01, 0.0, 0.1),
        "weight_decay": [0.0, 0.2, 0.1],
        "dropout": np.array([0.0, 0.3, 0.5]),
    },
    "dropout of layers": {"dropout": [0.1, 0.4]},
    "dropout of layers and members": {"dropout": np.array([[0.1, 0.4], [0, 0], [0.2, 0.5]])},
    "a schedule": {"schedule": "cosine"},
    "a plateau": {
        "schedule": "plateau",
        "early_stopping": True,
        "max_iter": 40,
        "n_iter_no_change": 40,
        "learning_rate_init": [0.3, 0.02, 0.1],
    },
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cls", BOTH)
def test_members_are_the_networks_trained_alone(cls, case):
    X, y = data(cls)
    ensemble = small(cls, **CASES[case]).fit(X, y)
    assert [member.random_state for member in ensemble.estimators_] == [5, 6, 7]
    assert_members_alone(ensemble, X, y)


@pytest.mark.parametrize("cls", BOTH)
def test_on_each_device(cls, device):
    X, y = (part[::3] for part in data(cls))
    more = {"bootstrap": True, "max_features": 0.5, "early_stopping": True, "max_iter": 3}
    model = small(cls, device=device, dtype="float64", **more).fit(X, y)
    assert_members_alone(model, X, y, tolerance=1e-8)
    reference = small(cls, device="cpu", **more).fit(X, y)
    np.testing.assert_allclose(model.predict_std(X), reference.predict_std(X), atol=1e-8)
    np.testing.assert_allclose(model.transform(X), reference.transform(X), atol=1e-8)
    if device == "cuda":
        import cupy

        for method in ("predict", "predict_std", "transform"):
            found = getattr(model, method)(cupy.asarray(X))
            assert isinstance(found, cupy.ndarray)
            np.testing.assert_array_equal(cupy.asnumpy(found), getattr(model, method)(X))
        assert_members_alone(small(cls, device=device, **more).fit(cupy.asarray(X), y), X, y)


def test_weights_and_a_validation_set():
    X, y = IRIS
    weight = np.linspace(0, 2, len(y))
    model = small(MLPClassifier, class_weight="balanced", bootstrap=True)
    assert_members_alone(model.fit(X, y, weight), X, y, weight)
    given = {"X_val": X[::3], "y_val": y[::3]}
    model = small(MLPClassifier, early_stopping=True, max_iter=15)
    assert_members_alone(model.fit(X, y, weight, **given), X, y, weight, **given)
    model.set_params(max_features=2).fit(X, y, **given)
    assert all(len(each.validation_scores_) == each.n_iter_ for each in model.estimators_)


def test_seeds():
    X, y = IRIS
    first = small(MLPClassifier).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(small(MLPClassifier).fit(X, y).predict_proba(X), first)
    drawn = [
        small(MLPClassifier, random_state=np.random.RandomState(0)).fit(X, y) for _ in range(2)
    ]
    seeds = [[each.random_state for each in model.estimators_] for model in drawn]
    assert seeds[0] == seeds[1] and len(set(seeds[0])) == M
    generator = np.random.RandomState(0)
    again = [small(MLPClassifier, random_state=generator).fit(X, y) for _ in range(2)]
    assert again[0].estimators_[0].random_state != again[1].estimators_[0].random_state
    last = small(MLPClassifier, random_state=2**32 - 1).fit(X, y)
    assert [each.random_state for each in last.estimators_] == [2**32 - 1, 0, 1]
    more = small(MLPClassifier, n_models=5, bootstrap=True, max_features=3).fit(X, y)
    less = small(MLPClassifier, n_models=2, bootstrap=True, max_features=3).fit(X, y)
    for m in range(2):
        np.testing.assert_array_equal(more.estimators_samples_[m], less.estimators_samples_[m])
        np.testing.assert_array_equal(more.estimators_features_[m], less.estimators_features_[m])
    assert any((a != b).any() for a, b in zip(*more.estimators_samples_[:2], strict=False))


# ---------------------------------------------------------------- predictions
OUTPUTS = {
    "classes": (IRIS, {}),
    "two classes": ((IRIS[0], IRIS[1] == 1), {}),
    "names": ((IRIS[0], np.array(["a", "b", "c"])[IRIS[1]]), {}),
    "labels": (LABELS, {}),
    "log_softmax": (IRIS, {"output_activation": "log_softmax"}),
    "sigmoids": (IRIS, {"loss": "binary_cross_entropy"}),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_classifiers_average_their_probabilities(case):
    (X, y), arguments = OUTPUTS[case]
    model = small(MLPClassifier, **arguments).fit(X, y)
    each = np.array([member.predict_proba(X) for member in model.estimators_])
    np.testing.assert_allclose(model.predict_proba(X), each.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(model.predict_log_proba(X), np.log(each.mean(axis=0)), rtol=1e-9)
    np.testing.assert_allclose(model.predict_std(X), each.std(axis=0), atol=1e-12)
    if case == "labels":
        np.testing.assert_array_equal(model.predict(X), each.mean(axis=0) > 0.5)
    else:
        expected = model.classes_[each.mean(axis=0).argmax(axis=1)]
        np.testing.assert_array_equal(model.predict(X), expected)
    assert model.score(X, y) == np.mean(np.all(np.c_[model.predict(X) == y], axis=1))
    levels = [0.1, 0.5, 1.0]
    expected = np.moveaxis(np.quantile(each, levels, axis=0), 0, -1)
    np.testing.assert_allclose(model.predict_quantiles(X, levels), expected, atol=1e-12)
    median = model.predict_quantiles(X, 0.5)
    np.testing.assert_allclose(median, np.median(each, axis=0), atol=1e-12)


def test_margins_are_averaged():
    X, y = IRIS
    for target in (y, y == 1):
        model = small(MLPClassifier, loss="hinge").fit(X, target)
        each = [member.decision_function(X) for member in model.estimators_]
        np.testing.assert_allclose(model.decision_function(X), np.mean(each, axis=0), atol=1e-12)
        for name in ("predict_proba", "predict_std", "predict_quantiles"):
            assert not hasattr(model, name)
        assert model.predict(X).shape == y.shape


@pytest.mark.parametrize("outputs", [1, 2])
def test_regressors_average_and_tell_the_spread(outputs):
    X, y = DIABETES
    y = y if outputs == 1 else np.c_[y, -y]
    model = small(MLPRegressor, n_models=7).fit(X, y)
    each = np.array([member.predict(X) for member in model.estimators_])
    np.testing.assert_allclose(model.predict(X), each.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(model.predict_std(X), each.std(axis=0), atol=1e-12)
    levels = [0.1, 0.5, 1.0]
    found = model.predict_quantiles(X, levels)
    assert found.shape == (*y.shape, 3)
    expected = np.moveaxis(np.quantile(each, levels, axis=0), 0, -1)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(model.predict_quantiles(X, 0.5), np.median(each, axis=0), atol=1e-12)
    for q in (1.1, -0.1, [0.5, np.nan], "a", None, [[0.5]], []):
        with pytest.raises(ValueError, match="q = "):
            model.predict_quantiles(X, q)


@pytest.mark.parametrize("cls", BOTH)
def test_layers_and_sparse_rows(cls):
    X, y = data(cls)
    model = small(cls).fit(X, y)
    expected = np.hstack([member.transform(X) for member in model.estimators_])
    np.testing.assert_allclose(model.transform(X), expected, atol=1e-12)
    assert len(model.get_feature_names_out()) == 4 * M
    assert model.transform(X, layer=1).shape == (len(X), 6 * M)
    rows = sparse.csr_array(X)
    np.testing.assert_allclose(model.predict_std(rows), model.predict_std(X), atol=1e-12)
    other = small(cls).fit(rows, y)
    np.testing.assert_allclose(other.predict_std(X), model.predict_std(X), atol=1e-12)


@pytest.mark.parametrize("cls", BOTH)
def test_frames(cls):
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    X, y = data(cls)
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
    model = small(cls, max_features=0.5, early_stopping=True)
    model.fit(frame, y, X_val=frame[:50], y_val=y[:50])
    reference = small(cls, max_features=0.5, early_stopping=True)
    reference.fit(X, y, X_val=X[:50], y_val=y[:50])
    np.testing.assert_array_equal(model.predict(frame), reference.predict(X))
    np.testing.assert_array_equal(model.feature_names_in_, frame.columns)
    np.testing.assert_array_equal(model.estimators_[0].feature_names_in_, frame.columns)
    model.estimators_[0].predict(frame)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("of", [np.asarray, sparse.csr_array])
def test_a_bootstrap_sample_that_lacks_a_class(of, early_stopping, monkeypatch):
    monkeypatch.setattr(estimator_data, "DENSE_BYTES", 0)  # sparse rows are fitted one by one
    X, y = of(IRIS[0]), IRIS[1].copy()
    y[:2] = 7  # rare
    arguments = {"bootstrap": True, "n_models": 12, "early_stopping": early_stopping}
    model = small(MLPClassifier, **arguments).fit(X, y)
    missing = [7 not in y[rows] for rows in model.estimators_samples_]
    assert any(missing) and not all(missing)
    assert model.predict_proba(X).shape == (150, 4)
    for member in model.estimators_:
        np.testing.assert_array_equal(member.classes_, [0, 1, 2, 7])


@pytest.mark.parametrize("cls", BOTH)
def test_no_row_is_trained_on_and_held_out(cls):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 20)), rng.integers(0, 2, 300)
    arguments = {"learning_rate_init": 0.01, "max_iter": 100, "n_iter_no_change": 20}
    model = small(cls, bootstrap=True, early_stopping=True, hidden_layer_sizes=(64,), **arguments)
    model.set_params(n_models=4).fit(X, y)
    for rows, held in zip(model.estimators_samples_, model.estimators_held_out_, strict=True):
        assert len(held) == 30 and len(rows) == 270 and len(np.unique(rows)) < 200
        assert not np.isin(rows, held).any()
    # Nothing can be learned; of rows that were trained on it would be.
    best = np.mean([member.best_validation_score_ for member in model.estimators_])
    assert best < (0.7 if cls is MLPClassifier else 0.1)
    given = model.fit(X, y, X_val=X[:50], y_val=y[:50])
    assert given.estimators_held_out_ == [None] * 4


# ---------------------------------------------------------------- what is left
@pytest.mark.parametrize("cls", BOTH)
def test_attributes(cls):
    X, y = data(cls)
    model = small(cls, early_stopping=True, n_iter_no_change=1, max_iter=30).fit(X, y)
    assert model.n_iter_ == max(each.n_iter_ for each in model.estimators_)
    assert model.loss_ == pytest.approx(np.mean([each.loss_ for each in model.estimators_]))
    assert model.n_layers_ == 4 and model.n_features_in_ == X.shape[1]
    assert model.converged_ == all(each.converged_ for each in model.estimators_)
    assert model.diverged_.tolist() == [False] * M
    assert model.out_activation_ == model.estimators_[0].out_activation_
    assert f"{M} networks of" in model.summary()
    for name in ("coefs_", "intercepts_", "loss_curve_", "partial_fit"):
        assert not hasattr(model, name)
    with pytest.raises(AttributeError, match="see its estimators_"):
        model.coefs_ = []
    with pytest.raises(ValueError, match="plot its estimators_"):
        model.plot()
    with pytest.raises(ValueError, match="take one of its estimators_"):
        gpumlp.to_sklearn(model)
    gpumlp.to_sklearn(model.estimators_[0])
    single = small(cls, n_models=None).fit(X, y)
    for name in ("estimators_", "predict_std", "predict_quantiles"):
        assert not hasattr(single, name)


@pytest.mark.parametrize("cls", BOTH)
def test_what_is_changed_in_a_member_counts(cls):
    X, y = data(cls)
    model = small(cls).fit(X, y)
    before = model.predict_std(X)
    for member in model.estimators_:
        member.coefs_[-1][:] = 0
        member.intercepts_[-1][:] = 0
    assert before.max() > 0
    np.testing.assert_allclose(model.predict_std(X), 0, atol=1e-15)


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("how", ["pickle", "copy", "file"])
def test_copies_and_files(cls, how, tmp_path):
    X, y = data(cls)
    arguments = {"activation": ["prelu", "tanh"], "bootstrap": True, "max_features": 2}
    numbers = {"alpha": [0.0, 0.1, 0.2], "dropout": np.array([0.0, 0.1, 0.2])}
    model = small(cls, early_stopping=True, **arguments, **numbers).fit(X, y)
    if how == "file":
        gpumlp.save(model, tmp_path / "model.safetensors")
        other = gpumlp.load(tmp_path / "model.safetensors")
        moved = gpumlp.load(tmp_path / "model.safetensors", device="cpu")
        assert moved.device == "cpu"
        np.testing.assert_array_equal(moved.predict(X), model.predict(X))
    else:
        other = pickle.loads(pickle.dumps(model)) if how == "pickle" else copy.deepcopy(model)
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    np.testing.assert_array_equal(other.predict_std(X), model.predict_std(X))
    assert str(other.get_params()) == str(model.get_params())
    for mine, its in zip(other.estimators_, model.estimators_, strict=True):
        assert mine.loss_curve_ == its.loss_curve_ and mine.get_params() == its.get_params()
        for each in (mine, its):
            each.partial_fit(X, y, X_val=X, y_val=y)
        np.testing.assert_array_equal(mine.predict(X), its.predict(X))
    again = clone(other).fit(X, y)
    np.testing.assert_array_equal(again.predict(X), clone(model).fit(X, y).predict(X))


@pytest.mark.parametrize("cls", BOTH)
def test_from_one_to_many_and_back(cls):
    X, y = data(cls)
    model = small(cls, n_models=None).fit(X, y)
    alone = model.predict(X)
    model.set_params(n_models=M).fit(X, y)
    assert len(model.estimators_) == M
    assert not {"loss_curve_", "best_loss_", "t_", "validation_scores_"} & vars(model).keys()
    model.set_params(n_models=None, warm_start=True).fit(X, y)
    assert not {"diverged_", "estimators_samples_", "estimators_features_"} & vars(model).keys()
    np.testing.assert_array_equal(model.predict(X), alone)
    model.set_params(n_models=1, warm_start=False).fit(X, y)
    np.testing.assert_allclose(model.predict_std(X), 0)
    model.set_params(n_models=None).partial_fit(X, y)
    assert model.n_iter_ == 1


@pytest.mark.parametrize("cls", BOTH)
def test_only_what_was_fitted_as_an_ensemble_tells_a_spread(cls):
    X, y = data(cls)
    model = small(cls, n_models=None).fit(X, y).set_params(n_models=M)
    for ask in (lambda: model.predict_std(X), lambda: model.predict_quantiles(X, 0.5)):
        with pytest.raises(NotFittedError, match="fitted without n_models"):
            ask()


def test_another_fit_may_have_other_classes():
    X, y = IRIS
    model = small(MLPClassifier).fit(X, y)
    model.set_params(n_models=None, warm_start=True).fit(X, y == 1)
    assert model.classes_.tolist() == [False, True]


@pytest.mark.parametrize("cls", BOTH)
def test_check_estimator(cls):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks fit in a few iterations, and warn of their own
        results = check_estimator(cls(max_iter=60, n_models=2), on_fail=None)
    wrong = [r for r in results if r["status"] not in ("passed", "skipped")]
    assert not wrong, "\n".join(f"{r['check_name']}: {r['exception']!r}" for r in wrong)
    assert len(results) > 50


def test_cross_validation():
    X, y = IRIS
    model = small(MLPClassifier, max_iter=40)
    assert cross_val_score(model, X, y, n_jobs=2).mean() > 0.9
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_verbose(capsys):
    model = small(MLPRegressor, verbose=2).fit(*DIABETES)
    shown = capsys.readouterr().out
    assert "Iteration 6, loss = " in shown
    assert shown.count("3 of 3 networks go on.") == model.n_iter_ - 1
    assert shown.count("0 of 3 networks go on.") == 1


# ---------------------------------------------------------------- what goes wrong
@pytest.mark.parametrize("cls", BOTH)
def test_a_network_that_diverges_has_no_say(cls):
    X, y = data(cls)
    rates = [0.01, 1e300, 0.02]
    with pytest.warns(ConvergenceWarning, match="1 of 3 networks have no say in the predictions"):
        model = small(cls, solver="sgd", learning_rate_init=rates).fit(X, y)
    assert model.diverged_.tolist() == [False, True, False]
    reference = small(cls, solver="sgd", learning_rate_init=0.01, n_models=1).fit(X, y)
    each = [reference, model.estimators_[2]]
    assert model.transform(X).shape[1] == len(model.get_feature_names_out()) == 2 * 4
    if cls is MLPRegressor:
        expected = np.mean([member.predict(X) for member in each], axis=0)
        np.testing.assert_allclose(model.predict(X), expected, atol=1e-12)
    with pytest.raises(ValueError, match="non-finite parameter weights"):
        small(cls, solver="sgd", learning_rate_init=1e300).fit(X, y)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"n_models": 0}, "n_models = 0 must be"),
        ({"n_models": 2.5}, "n_models = 2.5 must be"),
        ({"n_models": True}, "n_models = True must be"),
        ({"solver": "lbfgs"}, "n_models needs solver='adam' or 'sgd'"),
        ({"warm_start": True}, "warm_start = True: an ensemble is always fitted anew"),
        ({"callbacks": [gpumlp.EarlyStopping()]}, r"callbacks = \[.*: they see one network"),
        ({"n_models": None, "bootstrap": True}, "bootstrap = True is for ensembles"),
        ({"n_models": None, "max_features": 0.5}, "max_features = 0.5 is for ensembles"),
        ({"bootstrap": 2}, "bootstrap = 2 must be"),
        ({"max_features": 0}, "max_features = 0 must be"),
        ({"max_features": 1.5}, "max_features = 1.5 must be"),
        ({"max_features": True}, "max_features = True must be"),
        ({"max_features": 99}, "max_features = 99 of"),
        ({"alpha": [0.1, 0.2]}, r"alpha = \[0.1, 0.2\] must be .* one for each of n_models = 3"),
        ({"alpha": [0.1, 0.2, -1]}, "alpha = "),
        ({"alpha": [0.1, 0.2, "a"]}, "alpha = "),
        ({"n_models": None, "alpha": [0.1, 0.2]}, "alpha = "),
        ({"learning_rate_init": np.ones((3, 1))}, "learning_rate_init = "),
        ({"learning_rate_init": np.zeros(3)}, "learning_rate_init = "),
        ({"dropout": np.array([0.1, 0.2])}, "dropout = "),
        ({"dropout": np.array([0.1, 0.2, 1.0])}, "dropout = "),
        ({"dropout": [0.1, 0.2, 0.3]}, "dropout"),
        ({"beta_1": [0.1, 0.2, 0.3]}, "beta_1 = "),
    ],
)
def test_what_is_refused(arguments, message):
    arguments = {"n_models": M} | arguments
    with pytest.raises(ValueError, match=message):
        small(MLPClassifier, **arguments).fit(*IRIS)


def test_ctrl_c(monkeypatch):
    from gpumlp.estimators import stack_trainer

    X, y = DIABETES
    train, epochs = stack_trainer.StackTrainer.train, []

    def interrupted(self, interrupt):
        epochs.append(1)
        interrupt.asked = len(epochs) == 3
        return train(self, interrupt)

    monkeypatch.setattr(stack_trainer.StackTrainer, "train", interrupted)
    with pytest.warns(UserWarning, match="training was interrupted"):
        model = small(MLPRegressor).fit(X, y)
    assert model.n_iter_ == 2 and np.isfinite(model.predict(X)).all()

    def none_begun(members, *rest):
        raise KeyboardInterrupt

    monkeypatch.setattr(bagging, "fit_members", none_begun)
    with pytest.raises(KeyboardInterrupt):
        small(MLPRegressor).fit(X, y)
