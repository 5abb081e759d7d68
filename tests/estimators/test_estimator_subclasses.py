"""Subclasses with a constructor of their own, which lists only some of the parameters."""

import pickle

import numpy as np
import pytest
from sklearn import model_selection, neural_network
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from tests.helpers.estimators import BOTH, data, same_weights
from tests.helpers.searching import both, stacks

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

FIXED = {"max_iter": 4, "random_state": 0, "learning_rate_init": 0.02}


class WideRegressor(MLPRegressor):
    def __init__(self, n1=5, members=None):
        super().__init__(hidden_layer_sizes=(n1, 3), n_models=members, **FIXED)
        self.n1, self.members = n1, members


class WideClassifier(MLPClassifier):
    def __init__(self, n1=5, members=None):
        super().__init__(hidden_layer_sizes=(n1, 3), n_models=members, **FIXED)
        self.n1, self.members = n1, members


class BareRegressor(MLPRegressor):
    """Keeps scikit-learn's convention without the base constructor."""

    def __init__(self, max_iter=4, alpha=0.5, random_state=0):
        self.max_iter, self.alpha, self.random_state = max_iter, alpha, random_state


class BareClassifier(MLPClassifier):
    def __init__(self, max_iter=4, alpha=0.5, random_state=0):
        self.max_iter, self.alpha, self.random_state = max_iter, alpha, random_state


WIDE = {MLPClassifier: WideClassifier, MLPRegressor: WideRegressor}
BARE = {MLPClassifier: BareClassifier, MLPRegressor: BareRegressor}


def equal_networks(model, other, X):
    assert type(model) is type(other)
    np.testing.assert_array_equal(model.predict(X), other.predict(X))


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_it_is_fitted_as_the_base_is(cls, solver):
    X, y = data(cls)
    model = WIDE[cls](n1=4)
    model.solver = solver
    same_weights(model.fit(X, y), cls(hidden_layer_sizes=(4, 3), solver=solver, **FIXED).fit(X, y))
    model = BARE[cls]()
    model.solver = solver
    same_weights(
        model.fit(X, y), cls(max_iter=4, alpha=0.5, random_state=0, solver=solver).fit(X, y)
    )


@pytest.mark.parametrize("cls", BOTH)
def test_parameters_that_are_not_listed_are_checked_too(cls):
    model = WIDE[cls]()
    model.beta_1 = 2
    with pytest.raises(ValueError, match=r"beta_1 = 2 must be a number in \[0, 1\)"):
        model.fit(*data(cls))


@pytest.mark.parametrize("cls", BOTH)
def test_its_copies_and_looks(cls):
    X, y = data(cls)
    model = WIDE[cls](n1=4)
    assert model.get_params() == {"n1": 4, "members": None}
    assert repr(model) == f"{type(model).__name__}(n1=4)"
    assert repr(BARE[cls](alpha=0.25)) == f"{BARE[cls].__name__}(alpha=0.25)"
    model.fit(X, y)
    shown = model._repr_mimebundle_()["text/html"]
    assert type(model).__name__ in shown and model.summary().count("-> 4") == 1
    for other in (pickle.loads(pickle.dumps(model)), clone(model).fit(X, y)):
        equal_networks(other, model, X)
    model.partial_fit(X, y)
    bare = BARE[cls]().fit(X, y)
    equal_networks(pickle.loads(pickle.dumps(bare)), bare, X)


@pytest.mark.parametrize("cls", BOTH)
def test_what_its_constructor_derives_follows_set_params(cls):
    X, y = data(cls)
    model = WIDE[cls]()
    model.alpha = 0.3
    model.set_params(n1=7)
    assert (model.n1, model.hidden_layer_sizes, model.alpha) == (7, (7, 3), 0.3)
    model.set_params(members=2).fit(X, y)
    assert [each.coefs_[0].shape[1] for each in model.estimators_] == [7, 7]
    with pytest.raises(ValueError, match="Invalid parameter 'alpha'"):
        model.set_params(alpha=1.0)


@pytest.mark.parametrize("cls", BOTH)
def test_an_ensemble_of_it(cls):
    X, y = data(cls)
    model = WIDE[cls](n1=4, members=3).fit(X, y)
    expected = cls(hidden_layer_sizes=(4, 3), n_models=3, **FIXED).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    assert {type(each) for each in model.estimators_} == {WIDE[cls]}
    for mine, its in zip(model.estimators_, expected.estimators_, strict=True):
        same_weights(mine, its)
    equal_networks(pickle.loads(pickle.dumps(model)), model, X)


@pytest.mark.parametrize("piped", [False, True], ids=["alone", "in a pipeline"])
@pytest.mark.parametrize("kind", ["GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV"])
@pytest.mark.parametrize("cls", BOTH)
def test_searches_over_its_own_parameters(cls, kind, piped):
    """Theirs and ours; each candidate is the network that its constructor makes of it."""
    X, y = data(cls)
    grid = {"n1": [2, 4, 6]}
    model = WIDE[cls]()
    if piped:
        grid = {f"{type(model).__name__.lower()}__n1": grid["n1"]}
        model = make_pipeline(StandardScaler(), model)
    options = {"cv": 2}
    if kind != "GridSearchCV":
        options["random_state"] = 0
    if kind == "RandomizedSearchCV":
        options["n_iter"] = 2
    search = both(kind, model, grid, data=(X, y), **options)
    best = search.best_estimator_[-1] if piped else search.best_estimator_
    assert best.coefs_[0].shape[1] == best.n1
    assert len(set(search.cv_results_["mean_test_score"])) > 1


@pytest.mark.parametrize("cls", BOTH)
def test_a_search_over_what_it_lists_of_the_base(cls, monkeypatch):
    sizes = stacks(monkeypatch)
    both("GridSearchCV", BARE[cls](), {"alpha": [0.1, 30.0]}, data=data(cls), cv=2)
    assert sizes == [4]
    both(
        "HalvingGridSearchCV",
        BARE[cls](),
        {"alpha": [0.1, 30.0]},
        data=data(cls),
        cv=2,
        resource="max_iter",
        max_resources=6,
        min_resources=2,
    )


@pytest.mark.parametrize("cls", BOTH)
def test_cross_validation(cls):
    X, y = data(cls)
    scores = [
        model_selection.cross_val_score(model, X, y, cv=2)
        for model in (WIDE[cls](n1=4), cls(hidden_layer_sizes=(4, 3), **FIXED))
    ]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("cls", BOTH)
def test_its_files(cls, members, tmp_path):
    X, y = data(cls)
    model, path = WIDE[cls](n1=4, members=members).fit(X, y), tmp_path / "model"
    name = type(model).__name__
    gpumlp.save(model, path)
    loaded = gpumlp.load(path, custom={name: type(model)})
    equal_networks(loaded, model, X)
    assert loaded._all_params() == model._all_params()
    with pytest.raises(gpumlp.FileError, match=rf"your own '{name}'.*custom="):
        gpumlp.load(path)
    with pytest.raises(gpumlp.FileError, match=f"is a {name}, which <class 'int'> is not"):
        gpumlp.load(path, custom={name: int})


@pytest.mark.parametrize("cls", BOTH)
def test_its_checkpoints(cls, tmp_path):
    X, y = data(cls)
    expected = WIDE[cls]().fit(X, y)

    class Stop(gpumlp.Callback):
        def on_epoch_end(self, trainer, history):
            if trainer.epoch == 2:
                raise RuntimeError("killed")

    model = WIDE[cls]()
    model.callbacks = [gpumlp.Checkpoint(tmp_path), Stop()]
    custom = {each.__name__: each for each in (type(model), Stop)}
    model.callbacks.reverse()
    with pytest.raises(RuntimeError, match="killed"):
        model.fit(X, y)
    custom["Stop"] = gpumlp.Callback()
    resumed = gpumlp.resume(tmp_path, custom=custom)
    same_weights(resumed.fit(X, y), expected)


@pytest.mark.parametrize("cls", BOTH)
def test_from_and_to_scikit_learns(cls):
    X, y = data(cls)
    its = getattr(neural_network, cls.__name__)(hidden_layer_sizes=(6,), **FIXED).fit(X, y)
    model = WIDE[cls].from_sklearn(its)
    equal_networks(model, WIDE[cls].from_sklearn(its), X)
    np.testing.assert_allclose(model.predict(X), its.predict(X), atol=1e-12)
    np.testing.assert_allclose(gpumlp.to_sklearn(model).predict(X), its.predict(X), atol=1e-12)
    model.partial_fit(X, y)


@pytest.mark.parametrize("cls", BOTH)
def test_from_a_subclass_of_scikit_learns(cls):
    theirs = getattr(neural_network, cls.__name__)

    class Narrow(theirs):
        def __init__(self, n1=5):
            super().__init__(hidden_layer_sizes=(n1,), activation="tanh", **FIXED)
            self.n1 = n1

    X, y = data(cls)
    its = Narrow(4).fit(X, y)
    model = cls.from_sklearn(its)
    assert (model.hidden_layer_sizes, model.activation) == ((4,), "tanh")
    np.testing.assert_allclose(model.predict(X), its.predict(X), atol=1e-12)
