"""Estimators for tables in files: what comes back, and what is refused."""

import datetime
import pickle

import numpy as np
import pytest
import sklearn

import gpumlp
from gpumlp import TabularClassifier, TabularRegressor
from gpumlp.io.codec import Writer
from tests.helpers.optional import Package
from tests.helpers.saving import rewrite
from tests.helpers.spoiling import WAYS_TO_SPOIL
from tests.helpers.tabular import BOTH, QUICK, every_kind, fitted, targets

pd = Package("pandas")

pytestmark = pytest.mark.filterwarnings("ignore:X. nearly every row has a text of its own")

CUBE = gpumlp.Activation("cube", f=lambda z, p: 0.1 * z**3, df=lambda z, n, p: 0.3 * z**2)
CASES = {
    "classes": (TabularClassifier, {}),
    "classes in float64": (TabularClassifier, {"dtype": np.float64, "class_weight": "balanced"}),
    "a weight for each class": (
        TabularClassifier,
        {"class_weight": {"low": 2.0, "middle": 1.0, "high": np.float32(0.5)}},
    ),
    "values": (TabularRegressor, {"callbacks": [gpumlp.EarlyStopping(3)]}),
    "a quantile": (TabularRegressor, {"quantile": 0.3, "random_state": np.random.default_rng(2)}),
    "several quantiles": (TabularRegressor, {"quantile": [0.9, 0.1, 0.5]}),
    "one quantile in a list": (TabularRegressor, {"quantile": np.array([0.5])}),
    "a mask": (TabularRegressor, {"categorical_features": np.arange(15) == 2}),
    "network_params": (
        TabularClassifier,
        {
            "network_params": {
                "activation": gpumlp.activations["leaky_relu"](slope=0.2),
                "schedule": gpumlp.schedules["cosine"](total=9.0),
                "scale_rate": 0.0,
            }
        },
    ),
    "a learned slope": (TabularRegressor, {"network_params": {"activation": "prelu"}}),
}


def through_a_file(model, folder, **options):
    gpumlp.save(model, folder / "table.safetensors")
    return gpumlp.load(folder / "table.safetensors", **options)


def assert_same(a, b):
    """Everything that a fit leaves behind."""
    assert type(a) is type(b)
    assert vars(a).keys() == vars(b).keys()
    for name in sorted(vars(a).keys() - set(a._get_param_names())):
        left, right = getattr(a, name), getattr(b, name)
        if name == "histories_":
            assert [each.state() for each in left] == [each.state() for each in right]
        elif name == "preparation_":
            np.testing.assert_equal(left.state(), right.state())
            assert left.owner == right.owner
        elif name == "_stacks":
            for one, other in zip(left, right, strict=True):
                np.testing.assert_array_equal(one.net.theta, other.net.theta)
        elif name != "_metadata_request":
            np.testing.assert_equal(left, right)
            assert getattr(left, "dtype", None) == getattr(right, "dtype", None)


def assert_predicts_the_same(a, b, X):
    for method in ("predict", "predict_proba", "predict_std"):
        if hasattr(a, method):
            left, right = getattr(a, method)(X), getattr(b, method)(X)
            np.testing.assert_array_equal(left, right)
            assert left.dtype == right.dtype


@pytest.fixture(scope="module")
def frame():
    return every_kind(80)


# ---------------------------------------------------------------- what comes back
@pytest.mark.parametrize("case", CASES)
def test_a_fitted_estimator_comes_back(case, frame, tmp_path):
    cls, options = CASES[case]
    model = fitted(cls, frame, **options)
    found = through_a_file(model, tmp_path)
    assert_same(found, model)
    assert_predicts_the_same(found, model, every_kind(50, 1))
    assert_same(through_a_file(pickle.loads(pickle.dumps(found)), tmp_path), model)
    assert found.get_params().keys() == sklearn.clone(found).get_params().keys()
    assert repr(found.get_params()).replace("dtype('float64')", "<class 'numpy.float64'>") == (
        repr(model.get_params())
    ) or "at 0x" in repr(model.get_params())


def test_it_can_be_fitted_again(frame, tmp_path):
    model = fitted(TabularRegressor, frame)
    found = through_a_file(model, tmp_path)
    found.fit(frame, targets(frame))
    assert_predicts_the_same(found, model, frame)


@pytest.mark.parametrize("cls", BOTH)
def test_columns_without_names(cls, tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3))
    x[::7, 1] = np.nan
    y = (x[:, 0] > 0) + 0.0
    model = cls(**QUICK).fit(x, y, X_val=x[::2], y_val=y[::2])
    found = through_a_file(model, tmp_path)
    assert_same(found, model)
    assert not hasattr(found, "feature_names_in_")
    assert not hasattr(found, "oof_prediction_")
    assert_predicts_the_same(found, model, x)
    with pytest.raises(ValueError, match=f"but {cls.__name__} is expecting 3 features"):
        found.predict(x[:, :2])


@pytest.mark.parametrize("labels", [
    np.array(["setosa", "versicolor"]),
    np.array(["a", "ç"], dtype=object),
    np.array([True, False]),
    np.array([-3, 2**40]),
    np.array([0.0, 1.0], dtype=np.float32),
    np.array(["only"]),
])  # fmt: skip
def test_classes_of_any_kind(labels, tmp_path):
    x = np.arange(40.0)[:, None]
    model = TabularClassifier(**QUICK).fit(x, labels[np.arange(40) % len(labels)])
    found = through_a_file(model, tmp_path)
    assert_same(found, model)
    assert_predicts_the_same(found, model, x)


def test_networks_that_never_were_sound_come_back(frame, tmp_path):
    model = fitted(TabularRegressor, frame)
    model.best_epochs_[0] = 0
    found = through_a_file(model, tmp_path)
    assert_predicts_the_same(found, model, frame)
    model.best_epochs_[:] = 0
    with pytest.raises(ValueError, match=r"best_epochs_ is \[0, 0\]"):
        gpumlp.save(model, tmp_path / "none")


def test_metadata_requests_come_back(frame, tmp_path):
    with sklearn.config_context(enable_metadata_routing=True):
        model = TabularRegressor(**QUICK).set_fit_request(sample_weight=True, X_val="other")
        found = through_a_file(model.fit(frame, targets(frame)), tmp_path)
        for name in ("fit", "score"):
            asked = [getattr(each.get_metadata_routing(), name).requests for each in (found, model)]
            assert asked[0] == asked[1]


def test_from_device_to_device(device, frame, tmp_path):
    model = fitted(TabularClassifier, frame, device=device, dtype="float64")
    same = through_a_file(model, tmp_path)
    assert (same.device, same._stacks[0].net.device) == (device, model._stacks[0].net.device)
    assert_predicts_the_same(same, model, frame)
    other = through_a_file(model, tmp_path, device="cpu")
    assert other.device == other._stacks[0].net.device == "cpu"
    np.testing.assert_allclose(other.predict_proba(frame), model.predict_proba(frame), atol=1e-12)


def test_where_there_is_no_such_gpu_it_predicts_on_the_cpu(frame, tmp_path):
    model, path = fitted(TabularRegressor, frame), tmp_path / "file"
    gpumlp.save(model, path)

    def change(about, arrays):
        about["tabular"]["stacks"][0]["device"] = "cuda:7"

    rewrite(path, change)
    found = gpumlp.load(path)
    assert found._stacks[0].net.device == "cpu"
    assert_predicts_the_same(found, model, frame)


# ---------------------------------------------------------------- what is the user's
class Tempered(TabularClassifier):
    """A user's own, with a parameter and an attribute of its own."""

    def __init__(self, heat=1.0, *, n_models=2, hidden_layer_sizes=5, max_epochs=2):
        super().__init__(
            n_models=n_models, hidden_layer_sizes=hidden_layer_sizes, max_epochs=max_epochs
        )
        self.heat = heat

    def fit(self, X, y):
        super().fit(X, y)
        self.own_numbers_ = np.array([1.5, self.heat])
        return self

    def refit_(self):
        return self


def test_a_subclass_is_handed_in(frame, tmp_path):
    model, path = Tempered(2.0).fit(frame, targets(frame) > 3), tmp_path / "file"
    gpumlp.save(model, path)
    with pytest.raises(gpumlp.FileError, match="your own 'Tempered'"):
        gpumlp.load(path)
    with pytest.raises(gpumlp.FileError, match="is a Tempered, which"):
        gpumlp.load(path, custom={"Tempered": dict})
    found = gpumlp.load(path, custom={"Tempered": Tempered})
    assert_same(found, model)
    assert_predicts_the_same(found, model, frame)
    for name in ("refit_", "_stacks", "preparation_", "n_features_in_", "predict", "heat"):
        rewrite(path, give(name, 1))
        with pytest.raises(gpumlp.FileError, match=rf"an entry '{name}'"):
            gpumlp.load(path, custom={"Tempered": Tempered})
        gpumlp.save(model, path)


def test_what_is_ones_own_is_handed_in(frame, tmp_path):
    class Counter(gpumlp.Callback):
        pass

    def halving(step):
        return 0.5**step

    path, counter = tmp_path / "own", Counter()
    model = fitted(
        TabularRegressor,
        frame,
        callbacks=[counter],
        network_params={"activation": CUBE, "schedule": halving, "dropout": 0.0},
        learning_rate=1e-4,
    )
    gpumlp.save(model, path)
    custom = {"cube": CUBE, "halving": halving, "Counter": counter}
    found = gpumlp.load(path, custom=custom)
    assert found.callbacks == [counter]
    assert found.network_params["schedule"] is halving
    assert_predicts_the_same(found, model, frame)
    for name in custom:
        rest = {key: value for key, value in custom.items() if key != name}
        with pytest.raises(gpumlp.FileError, match=rf"your own '{name}'"):
            gpumlp.load(path, custom=rest)


# ---------------------------------------------------------------- refused
def test_what_cannot_be_saved(frame, tmp_path):
    path, model = tmp_path / "none", fitted(TabularRegressor, frame)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        gpumlp.save(TabularRegressor(), path)
    with pytest.raises(ValueError, match="metadata goes with a network"):
        gpumlp.save(model, path, metadata={})
    with pytest.raises(ValueError, match="there are 1 stacks of networks, and 2 are needed"):
        other = sklearn.base.copy.copy(model)
        other._levels = [0.1, 0.9]
        gpumlp.save(other, path)
    with pytest.raises(ValueError, match=r"n_models = 0 must be"):
        gpumlp.save(sklearn.base.copy.copy(model).set_params(n_models=0), path)
    days = np.datetime64("2020-01-01") + np.arange(80) % 2
    with pytest.raises(ValueError, match=r"attributes.classes_ is .*, not an array of labels"):
        gpumlp.save(fitted(TabularClassifier, frame, days), path)
    assert not path.exists()
    model._stacks[0].net.b[1][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"stacks.0.b.1 has 1 of 14 numbers that are NaN"):
        gpumlp.save(model, path)


def test_what_no_file_may_hold_is_left_out(frame, tmp_path):
    model = fitted(TabularRegressor, frame)
    model.note_ = datetime.date(2020, 1, 1)
    with pytest.warns(UserWarning, match="note_ is left out"):
        found = through_a_file(model, tmp_path)
    assert not hasattr(found, "note_")


@pytest.mark.parametrize("way", WAYS_TO_SPOIL)
def test_files_that_are_spoilt(way, frame, tmp_path):
    path = tmp_path / "file"
    gpumlp.save(fitted(TabularRegressor, frame), path)
    WAYS_TO_SPOIL[way](path)
    with pytest.raises((gpumlp.FileError, FileNotFoundError), match="file"):
        gpumlp.load(path)


def test_files_that_are_cut_or_altered(frame, tmp_path):
    path, broken = tmp_path / "whole", tmp_path / "broken"
    gpumlp.save(fitted(TabularClassifier, frame), path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.choice(len(content), 60, replace=False):
        altered = bytearray(content)
        altered[place] ^= 1 << int(rng.integers(8))
        for wrong in (bytes(altered), content[:place]):
            broken.write_bytes(wrong)
            with pytest.raises(gpumlp.FileError):
                gpumlp.load(broken)


def value_at(about, *path):
    """What stands at a place of the entry, whose dictionaries are two lists."""
    value = about["tabular"]
    for key in path:
        if isinstance(value, dict) and "dict" in value:
            names, values = value["dict"]
            value = values[names.index(key)]
        else:
            value = value[key]
    return value


def set_at(about, value, *path):
    container = value_at(about, *path[:-1])
    if isinstance(container, dict) and "dict" in container:
        names, values = container["dict"]
        if path[-1] not in names:
            names.append(path[-1])
            values.append(None)
        values[names.index(path[-1])] = value
    else:
        container[path[-1]] = value


def give(name, value):
    """A change of a description, that gives the estimator this attribute."""

    def change(about, arrays):
        writer = Writer()
        set_at(about, writer.write(value, f"given.{name}"), "attributes", name)
        arrays.update(writer.arrays)

    return change


def at(*path, value):
    return lambda about, arrays: set_at(about, value, *path)


def array(name, value):
    def change(about, arrays):
        arrays[name] = value(arrays[name])

    return change


def hurt(array):
    array.flat[0] = np.inf
    return array


WRONG = {
    "no such class": (at("class", value="Popen"), "KeyError"),
    "a parameter too few": (lambda a, _: drop_parameter(a), "the parameters of"),
    "a parameter of no such value": (at("parameters", "n_models", value=0), "n_models = 0 must be"),
    "no stacks": (at("stacks", value=[]), "there are 0 stacks"),
    "other sizes": (at("stacks", 0, "network", "sizes", 1, value=8), r"stacks\.0\.W\.1 is"),
    "very large sizes": (at("stacks", 0, "network", "sizes", 1, value=2**30), r"stacks\.0\.W\.1"),
    "another output": (
        at("stacks", 0, "network", "activations", 2, "name", value="tanh"),
        "last activation is 'tanh', not 'softmax'",
    ),
    "no stack": (at("stacks", 0, "network", "models", value=None), r"stacks\.0\.W\.1"),
    "metadata": (at("stacks", 0, "network", "metadata", value={}), "'metadata' that is not known"),
    "a device that is none": (at("stacks", 0, "device", value="tpu"), "tpu"),
    "a history of another stack": (
        at("stacks", 0, "history", "loss", 0, value=[0.5]),
        r"history\.loss has entries that are not of shape \(2,\)",
    ),
    "weights that are infinite": (array("stacks.0.W.2", hurt), "NaN or infinite"),
    "a scale that is infinite": (array("stacks.0.s.1", hurt), "NaN or infinite"),
    "weights of another type": (
        array("stacks.0.W.2", lambda a: a.astype("f8")),
        r"W\.2 is float64",
    ),
    "no such array": (
        lambda _, arrays: arrays.pop("stacks.0.W.1"),
        r"no array stacks\.0\.W\.1",
    ),
    "a column fewer": (
        lambda about, _: value_at(about, "preparation", "columns").pop(2),
        "the preparation",
    ),
    "a level fewer": (
        lambda about, _: value_at(about, "preparation", "columns", 8, "levels").pop(),
        "inputs and 3 outputs",
    ),
    "levels that are none": (
        at("preparation", "columns", 8, "levels", value=[1, 2]),
        r"columns\[8\]\.levels",
    ),
    "another format of the preparation": (at("preparation", "format", value=2), "the preparation"),
    "edges out of order": (array("preparation.edges", lambda a: a[::-1].copy()), "ascending"),
    "medians that are NaN": (array("preparation.medians", lambda a: a * np.nan), "finite"),
    "classes out of order": (give("classes_", np.array(["b", "a", "c"])), "not in order"),
    "classes of other networks": (give("classes_", np.array(["a", "b"])), "and 2 are needed"),
    "epochs of other networks": (give("best_epochs_", np.ones(3, np.int64)), "best_epochs_ is"),
    "no epochs": (give("best_epochs_", np.zeros(2, np.int64)), "best_epochs_ is"),
    "epochs below 0": (give("best_epochs_", np.array([1, -1])), "best_epochs_"),
    "scores of other networks": (give("validation_scores_", np.ones(3)), "validation_scores_"),
    "predictions of other classes": (give("oof_prediction_", np.ones((80, 2))), "oof_prediction_"),
    "an attribute that is none": (give("predict", 1), "an entry 'predict'"),
    "a regressor's attribute": (give("_centre", 1.0), "an entry '_centre'"),
    "requests that are none": (at("requests", value={"dict": [["fit"], [3]]}), "requests.fit"),
    "code": (at("preparation", value={"own": ["eval", ""]}), "your own 'eval'"),
}  # fmt: skip


def drop_parameter(about):
    names, values = value_at(about, "parameters")["dict"]
    names.pop(), values.pop()


@pytest.fixture(scope="module")
def classifier(frame):
    return fitted(TabularClassifier, frame)


@pytest.mark.parametrize("case", WRONG)
def test_descriptions_that_no_one_wrote(case, classifier, tmp_path):
    path, (change, said) = tmp_path / "file", WRONG[case]
    gpumlp.save(classifier, path)
    rewrite(path, change)
    with pytest.raises(gpumlp.FileError, match=said) as error:
        gpumlp.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_centre", np.inf),
        ("_scale", 0.0),
        ("_range", (1.0, 0.0)),
        ("_range", (0.0,)),
        ("_range", [0.0, 1.0]),
        ("_centre", "0"),
        ("oof_prediction_", np.ones((80, 1))),
        ("oof_prediction_", np.array(1.0)),
        ("oof_prediction_", [1.0]),
    ],
)
def test_numbers_of_regressors_are_checked(name, value, frame, tmp_path):
    path = tmp_path / "file"
    gpumlp.save(fitted(TabularRegressor, frame), path)
    rewrite(path, give(name, value))
    with pytest.raises(gpumlp.FileError, match=name):
        gpumlp.load(path)


def test_an_estimator_for_tables_holds_no_fit_to_go_on_with(classifier, tmp_path):
    path = tmp_path / "table.safetensors"
    gpumlp.save(classifier, path)
    with pytest.raises(gpumlp.FileError, match="holds no training to go on with"):
        gpumlp.resume(path)
