"""Estimators in files: what comes back, and how it goes on."""

import copy
import pickle

import numpy as np
import pytest
import sklearn

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.io import estimator_schema as descriptions
from gpumlp.io.codec import Reader, Writer
from tests.helpers.estimators import BOTH, DIABETES, IRIS, data, fitted, same_weights, small
from tests.helpers.optional import Package
from tests.helpers.saving import rewrite

pd = Package("pandas")

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

CUBE = gpumlp.Activation("cube", f=lambda z, p: z**3, df=lambda z, n, p: 3 * z**2)
KINDS = {
    "adam": {},
    "sgd": {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 1},
    "lbfgs": {"solver": "lbfgs"},
    "early stopping": {"early_stopping": True, "validation_fraction": 0.2},
    "layers": {
        "hidden_layer_sizes": [5, 4],
        "activation": ["prelu", gpumlp.activations["leaky_relu"](slope=0.2)],
        "dropout": (0.1, 0.2),
    },
    "float32": {"dtype": np.float32, "weight_decay": 0.1, "keep_optimizer": True},
    "schedule": {"schedule": gpumlp.schedules["cosine"](total=9.0), "clip_norm": 0.5},
    "plateau": {"schedule": "plateau", "random_state": np.random.RandomState(3)},
}


def through_a_file(estimator, folder, **options):
    path = folder / "estimator.safetensors"
    gpumlp.save(estimator, path)
    return gpumlp.load(path, **options)


def assert_same(a, b):
    """Everything that a fit leaves behind."""
    assert type(a) is type(b)
    left, others = (
        {name for name in vars(each) if name.endswith("_") and not name.startswith("_")}
        for each in (a, b)
    )
    assert left == others
    for name in left:
        mine, its = getattr(a, name), getattr(b, name)
        assert type(mine) is type(its), name
        np.testing.assert_array_equal(mine, its, err_msg=name)
        assert getattr(mine, "dtype", None) == getattr(its, "dtype", None), name
    same_weights(a, b)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cls", BOTH)
def test_a_fitted_estimator_comes_back(cls, kind, tmp_path):
    X = data(cls)[0]
    model = fitted(cls, **copy.deepcopy(KINDS[kind]))
    found = through_a_file(model, tmp_path)
    assert_same(found, model)
    np.testing.assert_array_equal(found.predict(X), model.predict(X))
    if cls is MLPClassifier:
        np.testing.assert_array_equal(found.predict_proba(X), model.predict_proba(X))
    assert repr(sklearn.clone(found)).split("RandomState")[0] == (
        repr(sklearn.clone(model)).split("RandomState")[0].replace("<class 'numpy.float32'>",
                                                                   "dtype('float32')")
    )  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("lbfgs",)])
@pytest.mark.parametrize("cls", BOTH)
def test_it_goes_on_as_a_pickled_one_does(cls, kind, tmp_path):
    X, y = data(cls)
    model = fitted(cls, **copy.deepcopy(KINDS[kind]))
    given = {"X_val": X[::5], "y_val": y[::5]} if model.early_stopping else {}
    found, pickled = through_a_file(model, tmp_path), pickle.loads(pickle.dumps(model))
    before = model.coefs_[0].copy()
    for each in (found, pickled):
        each.partial_fit(X, y, **given)
        each.set_params(warm_start=True).fit(X, y, **given)
    assert_same(found, pickled)
    assert not np.array_equal(found.coefs_[0], before)


@pytest.mark.parametrize("names", [
    np.array(["setosa", "versicolor", "virginica"]),
    np.array(["a", "b", "ç"], dtype=object),
    np.array([True, False, True]),
    np.array([-3, 7, 2**40]),
    np.array([0.0, 1.0, 2.0], dtype=np.float32),
])  # fmt: skip
def test_classes_of_any_kind(names, tmp_path):
    X, y = IRIS
    model = small(MLPClassifier).fit(X, names[y])
    found = through_a_file(model, tmp_path)
    assert_same(found, model)
    assert found.predict(X).dtype == model.predict(X).dtype
    np.testing.assert_array_equal(found.predict(X), model.predict(X))


def test_several_labels_several_outputs_and_feature_names(tmp_path):
    X, y = IRIS
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    labels = np.eye(3, dtype=int)[y] | np.eye(3, dtype=int)[(y + 1) % 3]
    found = through_a_file(small(MLPClassifier).fit(frame, labels), tmp_path)
    assert found.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(found.predict(frame).shape, labels.shape)
    with pytest.raises(ValueError, match="feature names"):
        found.predict(frame[["b", "a", "c", "d"]])
    model = small(MLPRegressor).fit(frame, np.column_stack([y, -y]))
    assert_same(through_a_file(model, tmp_path), model)


def test_what_is_ones_own_is_handed_in(tmp_path):
    class Counter(gpumlp.Callback):
        pass

    def halving(step):
        return 0.5**step

    def score(estimator, X, y):
        return estimator.score(X, y)

    path, counter = tmp_path / "own.safetensors", Counter()
    model = fitted(
        MLPClassifier,
        activation=CUBE,
        schedule=halving,
        scoring=score,
        early_stopping=True,
        callbacks=[counter, gpumlp.EarlyStopping(7)],
    )
    gpumlp.save(model, path)
    custom = {"cube": CUBE, "halving": halving, "score": score, "Counter": counter}
    found = gpumlp.load(path, custom=custom)
    assert (found.activation, found.schedule, found.scoring) == (CUBE, halving, score)
    assert found.callbacks[0] is counter and found.callbacks[1].patience == 7
    np.testing.assert_array_equal(found.predict(IRIS[0]), model.predict(IRIS[0]))
    for name in custom:
        rest = {key: value for key, value in custom.items() if key != name}
        with pytest.raises(gpumlp.FileError, match=rf"your own '{name}'"):
            gpumlp.load(path, custom=rest)


def test_two_of_ones_own_need_two_names(tmp_path):
    model = fitted(MLPRegressor, schedule=lambda step: 0.5**step)
    model.set_params(scoring=lambda estimator, X, y: 0.0)
    with pytest.raises(ValueError, match="two objects of your own named '<lambda>'"):
        gpumlp.save(model, tmp_path / "two")


def test_weights_that_were_set_are_those_in_the_file(tmp_path):
    model = fitted(MLPRegressor)
    model.coefs_[0][:] = 1
    model.intercepts_ = [[0.5] * len(b) for b in model.intercepts_]
    found = through_a_file(model, tmp_path)
    np.testing.assert_array_equal(found.predict(DIABETES[0]), model.predict(DIABETES[0]))
    np.testing.assert_array_equal(found.coefs_[0], np.ones_like(found.coefs_[0]))


def test_metadata_requests_come_back(tmp_path):
    with sklearn.config_context(enable_metadata_routing=True):
        model = small(MLPClassifier).set_fit_request(sample_weight=True).fit(*IRIS)
        found = through_a_file(model, tmp_path)
        for name in ("fit", "score", "predict"):
            asked = [getattr(each.get_metadata_routing(), name).requests for each in (found, model)]
            assert asked[0] == asked[1]


def test_from_device_to_device(device, tmp_path):
    X, y = IRIS[0][::6], IRIS[1][::6]
    model = small(MLPClassifier, device=device, dtype="float64", max_iter=2).fit(X, y)
    same = through_a_file(model, tmp_path)
    np.testing.assert_array_equal(same.predict_proba(X), model.predict_proba(X))
    assert same.device == device
    other = through_a_file(model, tmp_path, device="cpu")
    assert other.device == "cpu"
    np.testing.assert_allclose(other.predict_proba(X), model.predict_proba(X), atol=1e-12)
    back = through_a_file(other.partial_fit(X, y), tmp_path, device=device)
    same.partial_fit(X, y)
    back.partial_fit(X, y), same.partial_fit(X, y)
    np.testing.assert_allclose(back.predict_proba(X), same.predict_proba(X), atol=1e-12)


# ---------------------------------------------------------------- refused
def test_what_cannot_be_saved(tmp_path):
    path = tmp_path / "none"
    with pytest.raises(sklearn.exceptions.NotFittedError):
        gpumlp.save(MLPClassifier(), path)
    with pytest.raises(ValueError, match="metadata"):
        gpumlp.save(fitted(MLPClassifier), path, metadata={})
    with pytest.raises(TypeError, match="a fitted MLPClassifier"):
        gpumlp.save(sklearn.linear_model.LinearRegression(), path)
    assert not path.exists()


def test_files_that_are_cut_or_altered(tmp_path):
    path, broken = tmp_path / "whole", tmp_path / "broken"
    gpumlp.save(fitted(MLPClassifier), path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.choice(len(content), 60, replace=False):
        altered = bytearray(content)
        altered[place] ^= 1 << int(rng.integers(8))
        for wrong in (bytes(altered), content[:place]):
            broken.write_bytes(wrong)
            with pytest.raises(gpumlp.FileError):
                gpumlp.load(broken)


@pytest.mark.parametrize("place, value", [
    (["class"], "Popen"),
    (["parameters"], {"dict": [["alpha"], [1.0]]}),
    (["engine"], None),
    (["engine", "dict", 1, 0, "tuple", 0, "tuple", 1], 6),
    (["attributes"], {"array": "no such"}),
    (["attributes"], {"bytes": ["engine.coefs.0", "|O8", [10]]}),
    (["attributes"], {"unheard of": 1}),
    (["attributes"], {"optimizer": ["eval", {}]}),
    (["binarizer"], {"tuple": 3}),
])  # fmt: skip
def test_descriptions_that_no_one_wrote(place, value, tmp_path):
    path = tmp_path / "file"
    gpumlp.save(fitted(MLPClassifier), path)

    def change(about, arrays):
        inner = about["estimator"]
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]]  # it is there
        inner[place[-1]] = value

    rewrite(path, change)
    with pytest.raises(gpumlp.FileError, match=str(path)):
        gpumlp.load(path)


def test_newer_versions(tmp_path):
    path = tmp_path / "file"
    gpumlp.save(fitted(MLPClassifier), path)
    rewrite(path, lambda about, arrays: about.update(version=99))
    with pytest.raises(gpumlp.FileError, match="newer"):
        gpumlp.load(path)


# ---------------------------------------------------------------- what a file may hold
class Tempered(MLPClassifier):
    """A user's own, with an attribute of its own from its fit."""

    def fit(self, X, y):
        super().fit(X, y)
        self.temperature_, self.steps_ = np.array([1.5, 2.0]), {"a": 1}
        return self

    def refit_(self):
        return self


def give(name, value):
    """A change of a description, that gives an estimator this attribute."""

    def change(about, arrays):
        names, values = about["estimator"]["attributes"]["dict"]
        if isinstance(value, np.ndarray):
            arrays["given"] = value
            return give(name, {"array": "given"})(about, arrays)
        if name in names:
            values[names.index(name)] = value
        else:
            names.append(name)
            values.append(value)

    return change


ENSEMBLE = {"n_models": 2, "bootstrap": True, "max_features": 2}
NAMES = [name.rstrip("?") for name in [*descriptions.ATTRIBUTES, *descriptions.OF_CLASSIFIERS]]
# No attribute is such.
WRONG = [{"tuple": []}, [[{"dict": [[], []]}]], {"optimizer": ["SGD", gpumlp.SGD().state()]}]


@pytest.mark.parametrize("value", WRONG, ids=["a tuple", "lists", "an optimiser"])
@pytest.mark.parametrize("name", NAMES)
def test_every_attribute_has_a_type(name, value, tmp_path):
    path = tmp_path / "file"
    gpumlp.save(fitted(MLPClassifier, **ENSEMBLE), path)
    rewrite(path, give(name, value))
    with pytest.raises(gpumlp.FileError, match=rf"attributes\.{name}"):
        gpumlp.load(path)


@pytest.mark.parametrize("name", ["predict", "_engine", "coefs_", "device", "alpha", "x_", "_x", 3])
def test_only_known_attributes_are_set(name, tmp_path):
    path = tmp_path / "file"
    gpumlp.save(fitted(MLPRegressor), path)
    rewrite(path, give(name, 1))
    with pytest.raises(gpumlp.FileError, match=rf"attributes has an entry {name!r}"):
        gpumlp.load(path)


def test_a_subclass_has_attributes_of_its_own(tmp_path):
    path, custom = tmp_path / "file", {"Tempered": Tempered}
    gpumlp.save(small(Tempered).fit(*IRIS), path)
    found = gpumlp.load(path, custom=custom)
    assert found.temperature_.tolist() == [1.5, 2.0] and found.steps_ == {"a": 1}
    for name in ("refit_", "coefs_", "_engine", "predict", "temperature"):
        rewrite(path, give(name, 1))
        with pytest.raises(gpumlp.FileError, match=rf"an entry '{name}'"):
            gpumlp.load(path, custom=custom)
        gpumlp.save(small(Tempered).fit(*IRIS), path)


def test_what_no_file_may_hold_is_left_out(tmp_path):
    model = fitted(MLPRegressor)
    model.note_ = "mine"
    with pytest.warns(UserWarning, match="note_ is left out"):
        gpumlp.save(model, tmp_path / "file")
    assert not hasattr(gpumlp.load(tmp_path / "file"), "note_")


# What agrees with the weights no longer, and what the message says.
DISAGREEING = {
    "n_features_in_": (5, "n_features_in_"),
    "n_layers_": (4, "n_layers_"),
    "n_outputs_": (2, "n_outputs_"),
    "out_activation_": ("identity", "out_activation_"),
    "feature_names_in_": ({"objects": [[3], ["a", "b", "c"]]}, "feature_names_in_"),
    "classes_": ({"objects": [[3], ["a", "b", "c"]]}, "classes_"),
    "validation_scores_": ([1.0], "validation_scores_"),
    "diverged_": (np.array([True, True]), "diverged_"),
    "estimators_features_": ([None, None, None], "estimators_features_"),
    "estimators_samples_": ([], "estimators_samples_"),
}


@pytest.mark.parametrize("name", DISAGREEING)
def test_attributes_that_are_of_another_network(name, tmp_path):
    value, said = DISAGREEING[name]
    path = tmp_path / "file"
    gpumlp.save(fitted(MLPClassifier, **ENSEMBLE), path)
    rewrite(path, give(name, value))
    with pytest.raises(gpumlp.FileError, match=said):
        gpumlp.load(path)
    if name in ("n_layers_", "n_features_in_", "feature_names_in_", "validation_scores_"):
        model = fitted(MLPClassifier)
        vars(model)[name] = Reader({}, {}).read(value)
        with pytest.raises(ValueError, match=said):  # and is not written
            gpumlp.save(model, tmp_path / "other")


# Of one network, and of a member of an ensemble.
HURT = {
    "weights": ("engine.coefs.0", np.nan, "finite"),
    "biases": ("engine.intercepts.1", -np.inf, "finite"),
    "first moments": ("engine.optimizer.slots.first", np.inf, "finite"),
    "second moments": ("engine.optimizer.slots.second", -1.0, "below 0"),
}


@pytest.mark.parametrize("options, prefix", [({}, ""), ({"n_models": 2}, "members.1.")])
@pytest.mark.parametrize("what", HURT)
def test_weights_and_moments_are_numbers(what, options, prefix, tmp_path):
    name, value, said = HURT[what]
    path = tmp_path / "file"
    gpumlp.save(fitted(MLPRegressor, **options), path)

    def change(about, arrays):
        if f"{prefix}{name}" not in arrays:
            pytest.skip("members have no optimiser after a fit")
        arrays[f"{prefix}{name}"].flat[0] = value

    rewrite(path, change)
    with pytest.raises(gpumlp.FileError, match=said if said != "finite" else "NaN or infinite"):
        gpumlp.load(path)


def test_parameters_keep_to_their_rules(tmp_path):
    path = tmp_path / "file"
    gpumlp.save(fitted(MLPRegressor), path)

    def change(about, arrays):
        names, values = about["estimator"]["parameters"]["dict"]
        values[names.index("alpha")] = -1.0

    rewrite(path, change)
    with pytest.raises(gpumlp.FileError, match=r"alpha = -1\.0"):
        gpumlp.load(path)
    with pytest.raises(ValueError, match=r"alpha = -1\.0"):
        gpumlp.save(fitted(MLPRegressor).set_params(alpha=-1.0), path)


def test_keys_that_are_written_alike_keep_their_arrays():
    value = {1: np.array([1.0]), "1": np.array([2.0]), "1'": np.array([3.0])}
    writer = Writer()
    described = writer.write(value, "x")
    found = Reader(writer.arrays, {}).read(described)
    assert {key: each.tolist() for key, each in found.items()} == {1: [1.0], "1": [2.0], "1'": [3]}
    with pytest.raises(KeyError):  # a small file is not to become many large arrays
        Reader(writer.arrays, {}).read([{"array": "x.1"}] * 2)


def test_a_plateau_after_a_fit_without_one():
    X, y = DIABETES
    model = fitted(MLPRegressor, warm_start=True, keep_optimizer=True)
    model = pickle.loads(pickle.dumps(model)).set_params(schedule="plateau")
    assert len(model.fit(X, y).loss_curve_) == 10


def test_scalars_of_numpy_stay_scalars(tmp_path):
    """scikit-learn's losses, taken over, are such."""
    model = MLPRegressor(max_iter=2, hidden_layer_sizes=(3,)).fit(np.ones((20, 2)), np.ones(20))
    model.loss_, model.best_loss_ = np.float64(0.25), np.float32(0.5)
    gpumlp.save(model, tmp_path / "model")
    loaded = gpumlp.load(tmp_path / "model")
    for name in ("loss_", "best_loss_"):
        written, read = getattr(model, name), getattr(loaded, name)
        assert np.ndim(read) == 0 and (type(read), read) == (type(written), written)


@pytest.mark.parametrize("dropout", [False, True, (0.1, False), "0", None, -0.1, 1.5, np.nan])
def test_dropout_of_a_file_is_a_fraction(dropout):
    """False equals 0, so that whoever looks it up may find what is known of 0."""
    spec = (4, 3, 2), ("relu",), "identity", "float32"
    assert descriptions.network((*spec, 0.0))
    assert descriptions.network((*spec, (0, 0.5)))
    assert not descriptions.network((*spec, dropout))
