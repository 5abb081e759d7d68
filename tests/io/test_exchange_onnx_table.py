"""Estimators for tables as ONNX files: onnxruntime makes of raw columns what `predict` does."""

import datetime
import json
import sys

import numpy as np
import pytest
import sklearn

import gpumlp
from gpumlp import TabularClassifier, TabularRegressor
from gpumlp.estimators.tabular.table_preparation import Preparation
from gpumlp.io import onnx_file
from gpumlp.io.onnx_functions import Graph
from gpumlp.io.onnx_network import Exported, Tensor
from gpumlp.io.onnx_preparation import add_preparation, inputs_of
from tests.helpers.optional import Package
from tests.helpers.tabular import BOTH, QUICK, every_kind, fitted

onnx = pytest.importorskip("onnx", reason="onnx, which writes the files, is not installed")
onnxruntime = Package("onnxruntime")
pd = Package("pandas")

pytestmark = pytest.mark.filterwarnings("ignore:X. nearly every row has a text of its own")

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
NO_DATE = np.iinfo(np.int64).min


def text(value):
    """A category as levels have it; missing ""."""
    if value is None or value != value:
        return ""
    whole = isinstance(value, float) and value == int(value)
    return str(int(value) if whole else value)


def seconds(value):
    if isinstance(value, datetime.time):
        return value.hour * 3600.0 + value.minute * 60 + value.second
    return value.total_seconds() if isinstance(value, datetime.timedelta) else float(value)


COLUMNS = {
    "tensor(string)": lambda column: np.array([text(v) for v in column], object),
    "tensor(int64)": lambda column: column.to_numpy().astype("M8[ns]").view(np.int64),
    "tensor(double)": lambda column: np.array([seconds(v) for v in column]),
}


def run_onnx(path, frame):
    """The outputs by name, of the frame's columns in the order of the inputs."""
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {}
    for each in session.get_inputs():
        assert each.shape == ["B", 1]
        name = each.name if isinstance(frame.columns[0], str) else int(each.name[1:])
        feed[each.name] = COLUMNS[each.type](frame[name])[:, np.newaxis]
    names = [each.name for each in session.get_outputs()]
    values = session.run(names, feed)
    for each, value in zip(session.get_outputs(), values, strict=True):
        assert value.shape == (len(frame), *each.shape[1:])
    return dict(zip(names, values, strict=True))


def check_onnx(model, path, frame, **arguments):
    """onnxruntime's results against the model's, of many rows and of one."""
    gpumlp.export_onnx(model, path, **arguments)
    tolerance = TOLERANCE[str(np.dtype(model.dtype))]
    for some in (frame, frame[:1]):
        found, expected = run_onnx(path, some), model.predict(some)
        if isinstance(model, TabularRegressor):
            values = found["variable"]
            assert values.dtype == expected.dtype == np.float64
            spread = model._range[1] - model._range[0]
            np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance * (1 + spread))
            continue
        probability = model.predict_proba(some)
        assert found["probabilities"].dtype == probability.dtype
        np.testing.assert_allclose(found["probabilities"], probability, rtol=0, atol=tolerance)
        clear = np.ones(len(some), bool)
        if probability.shape[1] > 1:
            clear = np.diff(np.sort(probability, axis=1)[:, -2:], axis=1)[:, 0] > 1e-4
        assert clear.mean() > 0.8
        assert found["label"].dtype == (object if expected.dtype.kind in "OU" else np.int64)
        np.testing.assert_array_equal(found["label"][clear], expected[clear])


def check_preparation(preparation, path, frame):
    """The features alone, to the last digit of float32 or nearly so."""
    inputs = inputs_of(preparation)
    names = [each.name for each in inputs]
    graph = Graph(np.float64, 17, names)
    x = add_preparation(graph, preparation, names)
    output = Tensor(x, np.float32, ("B", len(preparation.names)))
    onnx_file._write(Exported(graph, inputs, [output], {}), {}, path)
    expected = preparation.transform(frame)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(run_onnx(path, frame)[x], expected, rtol=3e-7, atol=1e-12)


# ---------------------------------------------------------------- the preparation
@pytest.mark.parametrize("seed", range(16))
def test_random_tables_are_prepared_alike(seed, tmp_path):
    """Of any columns, any number of rows; the rows of another table have unseen levels."""
    rng = np.random.default_rng(seed)
    frame, other = every_kind(int(rng.integers(3, 400)), seed), every_kind(311, seed + 100)
    chosen = rng.permutation(frame.columns)[: rng.integers(3, 16)]
    other.loc[::5, ["town", "sex", "rare", "text"]] = "unseen"
    other.loc[::9, "number"] = -np.inf
    if {*chosen} <= {"constant", "empty", "text"}:
        chosen = [*chosen, "count"]
    preparation = Preparation().fit(frame[chosen], bins=[None, "auto", 3][seed % 3])
    check_preparation(preparation, tmp_path / "x.onnx", other[chosen])
    check_preparation(preparation, tmp_path / "x.onnx", frame[chosen])


def dates(nanoseconds):
    return pd.DataFrame({"date": pd.Series(np.asarray(nanoseconds, np.int64).view("M8[ns]"))})


def test_every_day_that_nanoseconds_can_say(tmp_path):
    """1677 to 2262, of which 1900 and 2100 are no leap years."""
    days = np.arange(-106_751, 106_752)
    rng = np.random.default_rng(0)
    inner = days[1:-1] * 86_400 * 10**9 + rng.integers(0, 86_400 * 10**9, len(days) - 2)
    preparation = Preparation().fit(dates(inner[rng.permutation(len(inner))[:5000]]), bins=None)
    assert len(preparation.columns[0].parts) == 9
    check_preparation(preparation, tmp_path / "x.onnx", dates(inner))
    ends = [-(2**63) + 1, 2**63 - 1, NO_DATE, 0, -1, -999, -1000, -1001, 86_400 * 10**9 - 1]
    check_preparation(preparation, tmp_path / "x.onnx", dates(ends))


def test_a_missing_date_is_the_least_number(tmp_path):
    frame = dates([NO_DATE, 0, 10**15, NO_DATE, -(10**17)])
    assert frame.date.isna().sum() == 2
    check_preparation(Preparation().fit(frame), tmp_path / "x.onnx", frame)


def test_numbers_near_the_ends_of_the_floats(tmp_path):
    ends = [1e308, -1e308, 1e-320, 0.0, -0.0, 1e200, -1e200, np.inf, np.nan, 5e-324, 1.7e308]
    frame = pd.DataFrame({"a": ends, "b": ends[::-1], "c": [1.0, *range(10)]})
    for bins in (None, 4, "auto"):
        preparation = Preparation().fit(frame, bins=bins)
        check_preparation(preparation, tmp_path / "x.onnx", frame)
    preparation = Preparation().fit(pd.DataFrame({"a": [1.0, 2, 3, 4, 9], "b": [0.0, 0, 0, 0, 1]}))
    frame = pd.DataFrame({"a": [*ends, 1e16], "b": [1e17, *ends]})
    check_preparation(preparation, tmp_path / "x.onnx", frame)


LEVELS = {
    "two": (["a", "b"], ["a", "b", "c", None]),
    "two and missing": (["a", "b", None], ["a", "b", "c", None]),
    "one and missing": (["a", None], ["a", "b", None]),
    "three": (["x", "y", "z"], ["x", "z", "?", None, "X", " x"]),
    "infrequent": (["x"] * 300 + ["rare"], ["x", "rare", "never", None]),
    "infrequent and missing": (
        ["x"] * 300 + ["y"] * 300 + ["rare", None],
        ["x", "y", "rare", None, "<missing>", "<infrequent>"],
    ),
    "odd texts": (["é", "日本", "a b", "\t", "€"], ["é", "日本", "a b", "\t", "€", "\n"]),
}


@pytest.mark.parametrize("levels", LEVELS)
def test_levels_that_are_missing_unknown_or_infrequent(levels, tmp_path):
    frames = [pd.DataFrame({"level": np.array(each, object)}) for each in LEVELS[levels]]
    preparation = Preparation().fit(frames[0], categorical_features=["level"])
    for each in frames:
        check_preparation(preparation, tmp_path / "x.onnx", each)


# ---------------------------------------------------------------- the whole
@pytest.fixture(scope="module")
def tables():
    return every_kind(150), every_kind(97, 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (TabularClassifier, {}),
        (TabularRegressor, {}),
        (TabularRegressor, {"quantile": 0.2}),
        (TabularRegressor, {"quantile": [0.9, 0.1, 0.5, 0.1]}),
        (TabularRegressor, {"quantile": [0.5]}),
        (TabularRegressor, {"network_params": {"activation": "prelu"}}),
        (TabularClassifier, {"network_params": {"activation": "tanh", "scale_rate": 0.0}}),
    ],
)
def test_raw_columns_to_predictions(cls, options, dtype, tables, tmp_path):
    frame, other = tables
    model = fitted(cls, frame, dtype=dtype, **options)
    check_onnx(model, tmp_path / "table.onnx", other)
    found = gpumlp.load(save(model, tmp_path))
    check_onnx(found, tmp_path / "table.onnx", frame)


def save(model, folder):
    gpumlp.save(model, folder / "model")
    return folder / "model"


@pytest.mark.parametrize("opset", [13, 14, 18, 21])
@pytest.mark.parametrize("cls", BOTH)
def test_other_operator_sets(cls, opset, tables, tmp_path):
    options = {"quantile": [0.3, 0.7]} if cls is TabularRegressor else {}
    model = fitted(cls, tables[0], **options)
    check_onnx(model, tmp_path / "table.onnx", tables[1], opset=opset)
    used = {each.domain: each.version for each in onnx.load(tmp_path / "table.onnx").opset_import}
    assert used == {"": opset, "ai.onnx.ml": 2}


def test_from_a_device(device, tables, tmp_path):
    model = fitted(TabularRegressor, tables[0], device=device, quantile=[0.3, 0.7])
    check_onnx(model, tmp_path / "table.onnx", tables[1])


@pytest.mark.parametrize("labels", [
    ["only"],
    ["b", "a"],
    [True, False],
    [3, -7, 2**40],
    [0, 1, 2],
])  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_labels(labels, dtype, tables, tmp_path):
    frame, other = tables
    y = np.array(labels)[np.arange(len(frame)) % len(labels)]
    check_onnx(fitted(TabularClassifier, frame, y, dtype=dtype), tmp_path / "t.onnx", other)


@pytest.mark.parametrize("labels", [
    np.array([-1.0, 2.0]),
    np.array([1, 2**63], dtype=np.uint64),
])  # fmt: skip
def test_labels_of_other_numbers(labels, tables, tmp_path):
    frame, other = tables
    model = fitted(TabularClassifier, frame, labels[np.arange(150) % 2])
    gpumlp.export_onnx(model, tmp_path / "t.onnx")
    found = run_onnx(tmp_path / "t.onnx", other)["label"]
    assert found.dtype == labels.dtype
    np.testing.assert_array_equal(found, model.predict(other))


@pytest.mark.parametrize("seed", range(16))
def test_random_shapes(seed, tmp_path):
    """Of columns without names, networks, rows and classes."""
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(2, 60), rng.integers(1, 7)
    x = rng.normal(size=(rows, columns)) * 10.0 ** rng.integers(-3, 4, columns)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[0], x[1] = -1, 1  # no column says nothing
    dtype = ["float32", "float64"][seed % 2]
    sizes = tuple(int(n) for n in rng.integers(1, 12, rng.integers(1, 4)))
    options = QUICK | {
        "n_models": int(rng.integers(2, 5)), "hidden_layer_sizes": sizes, "dtype": dtype
    }  # fmt: skip
    other = pd.DataFrame(np.where(rng.random((23, columns)) < 0.1, np.nan, 3.0) * x[:1])
    if seed % 4 < 2:
        y = rng.integers(0, rng.integers(1, 5), rows)
        model = TabularClassifier(**options).fit(x, y)
    else:
        y = rng.normal(size=rows) * 1e3
        model = TabularRegressor(**options, quantile=[None, [0.8, 0.2]][seed % 3 > 0]).fit(x, y)
    gpumlp.export_onnx(model, tmp_path / "t.onnx")
    assert run_names(tmp_path / "t.onnx") == [f"x{j}" for j in range(columns)]
    check = {
        TabularClassifier: ("probabilities", "predict_proba", 1.0),
        TabularRegressor: ("variable", "predict", 1e4),
    }
    name, method, scale = check[type(model)]
    found = run_onnx(tmp_path / "t.onnx", other)[name]
    expected = getattr(model, method)(other.to_numpy())
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[dtype] * scale)


def run_names(path):
    return [each.name for each in onnx.load(path).graph.input]


@pytest.mark.parametrize("cls", BOTH)
def test_networks_that_never_were_sound_have_no_say(cls, tables, tmp_path):
    model = fitted(cls, tables[0], n_models=4)
    model.best_epochs_[[0, 2]] = 0
    check_onnx(model, tmp_path / "t.onnx", tables[1])
    [W] = [each for each in onnx.load(tmp_path / "t.onnx").graph.initializer if each.name == "W_2"]
    assert W.dims == [2, 7, 5]


def test_quantiles_never_cross_and_values_stay_within_those_that_were_seen(tmp_path):
    x = np.linspace(0, 1, 60)[:, None]
    levels = [0.9, 0.1, 0.5]
    model = TabularRegressor(**QUICK | {"max_epochs": 1, "quantile": levels}).fit(x, x[:, 0])
    frame = pd.DataFrame(np.linspace(-1e4, 1e4, 99)[:, None])
    gpumlp.export_onnx(model, tmp_path / "t.onnx")
    found = run_onnx(tmp_path / "t.onnx", frame)["variable"]
    np.testing.assert_allclose(found, model.predict(frame.to_numpy()), atol=1e-6)
    assert (np.diff(found[:, [1, 2, 0]], axis=1) >= 0).all()
    assert found.min() >= 0
    assert found.max() <= 1


# ---------------------------------------------------------------- names
def test_columns_of_names_that_the_graph_has_too(tmp_path):
    rng = np.random.default_rng(0)
    names = ["label", "probabilities", "outputs", "W_1", "z_1", "n_1", "number_Concat_0_out", "x0"]
    names += ["prepared_Concat_20_out", "classes_labels", "", "a b/ç"]
    frame = pd.DataFrame(rng.normal(size=(40, len(names))), columns=names)
    model = fitted(TabularClassifier, frame, rng.integers(0, 3, 40))
    gpumlp.export_onnx(model, tmp_path / "t.onnx")
    assert run_names(tmp_path / "t.onnx") == [name or "x10" for name in names]
    found = run_onnx(tmp_path / "t.onnx", frame.rename(columns={"": "x10"}))
    assert list(found) == ["label_", "probabilities_"]
    np.testing.assert_allclose(found["probabilities_"], model.predict_proba(frame), atol=1e-5)


def test_the_file_says_what_it_is(tables, tmp_path):
    path, model = tmp_path / "t.onnx", fitted(TabularClassifier, tables[0])
    gpumlp.export_onnx(model, path)
    kept = {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}
    assert kept == {"classes": ["high", "low", "middle"], "features": [*tables[0].columns]}
    assert run_names(path) == [
        name for name in tables[0].columns if name not in ("text", "constant", "empty")
    ]
    gpumlp.export_onnx(model, path, metadata={"of": "a test"})
    [entry] = onnx.load(path).metadata_props
    assert (entry.key, entry.value) == ("of", "a test")


def test_weights_in_a_file_of_their_own(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "ONE_FILE_BYTES", 1000)
    model = fitted(TabularClassifier, tables[0], hidden_layer_sizes=(50, 50))
    check_onnx(model, tmp_path / "t.onnx", tables[1])
    assert (tmp_path / "t.onnx.data").stat().st_size > 2 * 4 * 50 * 50


# ---------------------------------------------------------------- refused
def test_what_cannot_be_exported(tables, tmp_path, monkeypatch):
    path = tmp_path / "t.onnx"
    with pytest.raises(sklearn.exceptions.NotFittedError):
        gpumlp.export_onnx(TabularRegressor(), path)
    own = gpumlp.Activation("cube", lambda z, p: z, lambda z, n, p: z**0)
    model = fitted(TabularRegressor, tables[0], network_params={"activation": own, "dropout": 0.0})
    with pytest.raises(ValueError, match="'cube' has no ONNX operator"):
        gpumlp.export_onnx(model, path)
    with pytest.raises(ValueError, match=r"opset = 12 must be a whole number"):
        gpumlp.export_onnx(model, path, opset=12)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "gpumlp\[onnx\]"'):
        gpumlp.export_onnx(model, path)
    assert not path.exists()
