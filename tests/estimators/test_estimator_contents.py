"""What X, y and weights may hold: numbers of any byte order; but no dates, time spans, bytes, or
text where numbers are wanted."""

import datetime

import numpy as np
import pytest
from scipy import sparse

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.estimators import contents
from tests.helpers.estimators import BOTH, IRIS, data, objects, same_weights, small
from tests.helpers.optional import Package

pd, pl, pa = Package("pandas"), Package("polars"), Package("pyarrow")

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


# ---------------------------------------------------------------- byte order
def swapped(array):
    return array.astype(array.dtype.newbyteorder("S"))


def frame(X):
    """A column each, which keep their byte order."""
    made = pd.DataFrame({f"column {j}": X[:, j] for j in range(X.shape[1])})
    assert all(dtype == X.dtype for dtype in made.dtypes)
    return made


def arrow(values, kind):
    """A column of pandas whose values pyarrow holds."""
    pa.array([])  # skips the test where it is missing
    return pd.Series(values).astype(f"{kind}[pyarrow]")


def csr(X):
    """SciPy itself makes none of another byte order, but has those of pickles."""
    matrix = sparse.csr_matrix(contents.native(X))
    matrix.data = X[X != 0]
    assert matrix.dtype == X.dtype
    return matrix


def column(values):
    return pd.Series(values)


FEATURES = {"array": lambda X: X, "frame": frame, "csr": csr}
VECTORS = {"array": lambda y: y, "series": column}


@pytest.mark.parametrize("dtype", ["float64", "float32", "int32", "int16", "uint64"])
@pytest.mark.parametrize("kind", FEATURES)
@pytest.mark.parametrize("cls", BOTH)
def test_any_byte_order(cls, kind, dtype, device):
    """X, y, weights and the validation set: what the native order gives, to the bit."""
    X, y = data(cls)
    X = np.abs(np.round(4 * X)).astype(dtype)
    y = y.astype("int32") if cls is MLPClassifier else y.astype("float32")
    weight = np.linspace(0.5, 2, len(X))
    other, vector = FEATURES[kind], VECTORS["series" if kind == "frame" else "array"]

    def fitted(swap):
        rows, values, weights = map(swap, (X, y, weight))
        model = small(cls, device=device).fit(
            other(rows),
            vector(values),
            vector(weights),
            X_val=other(rows[:50]),
            y_val=vector(values[:50]),
            sample_weight_val=vector(weights[:50]),
        )
        model.partial_fit(other(rows), vector(values), vector(weights))
        return model, other(rows)

    expected, rows = fitted(lambda array: array)
    model, swapped_rows = fitted(swapped)
    same_weights(model, expected)
    assert model.validation_loss_curve_ == expected.validation_loss_curve_
    np.testing.assert_array_equal(model.predict(swapped_rows), expected.predict(rows))
    np.testing.assert_array_equal(model.transform(swapped_rows), expected.transform(rows))
    if cls is MLPClassifier:
        assert model.classes_.dtype == expected.classes_.dtype and model.classes_.dtype.isnative


@pytest.mark.parametrize("members", [None, 2])
def test_byte_orders_in_ensembles_searches_and_partial_fit(members):
    X, y = IRIS
    models = []
    for rows, labels in ((X, y), (frame(swapped(X)), column(swapped(y)))):
        model = small(MLPClassifier, n_models=members, early_stopping=True)
        search = gpumlp.GridSearchCV(model, {"alpha": [0.1, 1.0]}, cv=2).fit(rows, labels)
        part = small(MLPClassifier).partial_fit(rows, labels, classes=np.unique(labels))
        models.append([each.predict_proba(rows) for each in (search, part)])
    for mine, its in zip(*models, strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("labels", ["<U3", ">U3"])
def test_text_of_any_byte_order(labels, tmp_path):
    y = np.array(["ant", "bee", "cow"], labels)[IRIS[1]]
    model = small(MLPClassifier).fit(IRIS[0], y)
    gpumlp.save(model, tmp_path / "model")
    for each in (model, gpumlp.load(tmp_path / "model")):
        assert each.classes_.dtype.isnative and set(each.predict(IRIS[0])) <= set(y)


@pytest.mark.parametrize("cls", BOTH)
def test_weights_of_another_byte_order(cls, tmp_path):
    """Set by hand, in pickles of scikit-learn's from another machine, and in files."""
    from sklearn import neural_network

    X, y = data(cls)
    its = getattr(neural_network, cls.__name__)(hidden_layer_sizes=(5,), max_iter=3).fit(X, y)
    expected = its.predict(X)
    for name in ("coefs_", "intercepts_"):
        setattr(its, name, [swapped(array) for array in getattr(its, name)])
    model = cls.from_sklearn(its)
    np.testing.assert_allclose(model.predict(X), expected, atol=1e-12)
    net = gpumlp.from_sklearn(its)
    assert net.dtype == np.float64 and net.forward(X).shape[0] == len(X)
    model.coefs_ = [swapped(array) for array in model.coefs_]
    gpumlp.save(model, tmp_path / "model")
    loaded = gpumlp.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.predict(X), expected, atol=1e-12)
    for name in ("coefs_", "intercepts_"):
        setattr(its, name, [swapped(array.astype("f4")) for array in getattr(its, name)])
    assert cls.from_sklearn(its).coefs_[0].dtype == np.float32


@pytest.mark.parametrize("kind", ["float64", "float32", "int32"])
def test_a_trainers_data_of_any_byte_order(kind, device):
    X, y = IRIS
    X, y = np.round(4 * X).astype(kind), y.astype("int32")
    weight = np.linspace(0.5, 2, len(X))
    found = []
    for swap in (lambda array: array, swapped):
        rows, labels, weights = map(swap, (X, y, weight))
        net = gpumlp.MLP((4, 5, 3), device=device, seed=3)
        trainer = gpumlp.Trainer(net, batch_size=16)
        history = trainer.fit(
            rows,
            labels,
            epochs=2,
            validation=(rows[:20], labels[:20], weights[:20]),
            sample_weight=weights,
            progress=False,
        )
        trainer.step(rows[:9], labels[:9], weights[:9])
        value, grad = net.loss_and_grad(rows, labels, sample_weight=weights)
        value, W = (net.ops.to_host(net.ops.xp.asarray(a)) for a in (value, grad.W[1]))
        found.append((net.forward(rows), history.val_loss, value, W))
    for mine, its in zip(*found, strict=True):
        np.testing.assert_array_equal(mine, its)


# ---------------------------------------------------------------- dates, time spans, bytes
N = 20
NUMBERS = np.linspace(-1, 1, N)
DAYS = np.datetime64("2000-01-01") + np.arange(N)
SPANS = (DAYS - DAYS[0]).astype("m8[ms]")
BYTES = np.array([b"1", b"2"] * (N // 2))


# What makes a column of values, and what it is said to hold.
COLUMNS = {
    "numpy dates": (lambda: DAYS, "dates"),
    "numpy time spans": (lambda: SPANS, "time spans"),
    "numpy bytes": (lambda: BYTES, "bytes"),
    "dates as objects": (lambda: objects(DAYS.tolist()), "dates"),
    "NumPy's dates as objects": (lambda: objects(DAYS), "dates"),
    "times": (lambda: objects([datetime.time(1, i) for i in range(N)]), "dates"),
    "time spans as objects": (lambda: objects(SPANS.tolist()), "time spans"),
    "NumPy's time spans as objects": (lambda: objects(SPANS), "time spans"),
    "bytes as objects": (lambda: objects(BYTES.tolist()), "bytes"),
    "a date among numbers": (lambda: objects([*NUMBERS[1:], DAYS[0]]), "dates"),
    "pandas' dates": (lambda: pd.Series(DAYS), "dates"),
    "dates with a zone": (lambda: pd.Series(DAYS).dt.tz_localize("UTC"), "dates"),
    "Timestamps": (lambda: pd.Series(DAYS).astype(object), "dates"),
    "periods": (lambda: pd.Series(pd.period_range("2000", periods=N, freq="D")), "dates"),
    "pandas' time spans": (lambda: pd.Series(SPANS), "time spans"),
    "categories of dates": (lambda: pd.Series(DAYS).astype("category"), "dates"),
    "pandas' bytes": (lambda: pd.Series(BYTES.tolist()), "bytes"),
    "pyarrow's timestamps": (lambda: arrow(DAYS, "timestamp[ns]"), "dates"),
    "pyarrow's dates": (lambda: arrow(DAYS, "date32[day]"), "dates"),
    "pyarrow's durations": (lambda: arrow(SPANS, "duration[ms]"), "time spans"),
    "pyarrow's bytes": (lambda: arrow(BYTES.tolist(), "binary"), "bytes"),
    "polars' dates": (lambda: pl.Series(DAYS), "dates"),
    "polars' datetimes": (lambda: pl.Series(DAYS.astype("M8[us]")), "dates"),
    "polars' times": (lambda: pl.Series([datetime.time(1, i) for i in range(N)]), "dates"),
    "polars' durations": (lambda: pl.Series(SPANS), "time spans"),
    "polars' bytes": (lambda: pl.Series(BYTES.tolist()), "bytes"),
    "an array of pyarrow": (lambda: pa.array(DAYS), "dates"),
}
TEXT = {
    "text": lambda: np.array(["1.5", "2"] * (N // 2)),
    "text as objects": lambda: objects(["1.5", "2"] * (N // 2)),
    "a number as text": lambda: objects([*NUMBERS[1:], "2"]),
    "pandas' text": lambda: pd.Series(["1.5", "2"] * (N // 2)),
    "pandas' old text": lambda: pd.Series(["1.5", "2"] * (N // 2), dtype=object),
    "pandas' strings": lambda: pd.Series(["1.5", "2"] * (N // 2), dtype="string"),
    "pyarrow's text": lambda: arrow(["1.5", "2"] * (N // 2), "string"),
    "categories of text": lambda: pd.Series(["1.5", "2"] * (N // 2)).astype("category"),
    "categories of objects": lambda: pd.Series(
        pd.Categorical(objects(["1.5", "2"] * (N // 2)), pd.Index(["1.5", "2"], dtype=object))
    ),
    "polars' text": lambda: pl.Series(["1.5", "2"] * (N // 2)),
    "polars' categories": lambda: pl.Series(["1.5", "2"] * (N // 2), dtype=pl.Categorical),
    "an array of pyarrow": lambda: pa.array(["1.5", "2"] * (N // 2)),
    "a list": lambda: ["1.5", "2"] * (N // 2),
}


def frames(values):
    """That column alone in a frame, and beside numbers, as each library has it, and lists."""
    library = type(values).__module__.partition(".")[0]
    if library == "polars":
        yield pl.DataFrame({"when": values})
        yield pl.DataFrame({"x": NUMBERS, "when": values})
    elif library == "pyarrow":
        yield pa.table({"when": values})
        yield pa.table({"x": NUMBERS, "when": values})
    else:
        yield pd.DataFrame({"when": values})
        yield pd.DataFrame({"x": NUMBERS, "when": values})


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("cls", BOTH)
def test_features_that_are_no_numbers_are_refused_by_column(cls, kind):
    make, held = COLUMNS[kind]
    values = make()
    y = np.arange(N) % 2
    fitted = small(cls).fit(NUMBERS[:, None], y)
    for X in frames(values):
        message = rf"X: column 'when' holds {held} \(dtype .*\): "
        with pytest.raises(TypeError, match=message):
            small(cls).fit(X, y)
        with pytest.raises(TypeError, match=message):
            small(cls, n_models=2).fit(X, y)
        with pytest.raises(TypeError, match=message.replace("X", "X_val")):
            small(cls).fit(NUMBERS[:, None], y, X_val=X, y_val=y)
        with pytest.raises(TypeError, match=message):
            fitted.predict(X)
    if isinstance(values, np.ndarray):
        for X, where in ((values[:, None], ""), (np.column_stack([values, values]).tolist(), "")):
            with pytest.raises(TypeError, match=rf"X(: column 0)? holds {held}{where}"):
                small(cls).fit(X, y)


@pytest.mark.parametrize("kind", COLUMNS)
def test_values_that_are_no_numbers_are_refused(kind):
    make, held = COLUMNS[kind]
    values = make()
    X = NUMBERS[:, None]
    model = small(MLPRegressor)
    with pytest.raises(TypeError, match=rf"^y holds {held} \(dtype .*\): make|decode"):
        model.fit(X, values)
    with pytest.raises(TypeError, match=rf"^y holds {held}"):
        model.partial_fit(X, values)
    with pytest.raises(TypeError, match=rf"^y_val holds {held}"):
        model.fit(X, NUMBERS, X_val=X, y_val=values)
    with pytest.raises(TypeError, match=rf"^sample_weight holds {held}"):
        model.fit(X, NUMBERS, values)
    *_, several = frames(values)
    with pytest.raises(TypeError, match=rf"^y: column 'when' holds {held}"):
        model.fit(X, several)


def test_classes_may_be_dates_but_no_bytes():
    X = NUMBERS[:, None]
    days = DAYS[np.arange(N) % 3]
    model = small(MLPClassifier).fit(X, days)
    assert set(model.predict(X)) <= set(days)
    for values in (BYTES, BYTES.tolist(), COLUMNS["polars' bytes"][0]()):
        for fit in (small(MLPClassifier).fit, small(MLPClassifier, n_models=2).fit):
            with pytest.raises(TypeError, match=r"^y holds bytes .*: make text of them"):
                fit(X, values)
        with pytest.raises(TypeError, match=r"^classes holds bytes"):
            small(MLPClassifier).partial_fit(X, BYTES, classes=values)


def test_numbers_in_columns_of_every_library_are_taken():
    X = pd.DataFrame(
        {
            "double": arrow(NUMBERS, "double"),
            "decided": arrow(NUMBERS > 0, "bool"),
            "time": pd.Series(np.arange(N)).astype("Int16"),
            "category": pd.Series(np.arange(N) % 3).astype("category"),
            "objects": objects(NUMBERS.tolist()),
        }
    )
    expected = small(MLPRegressor).fit(np.asarray(X, float), NUMBERS)
    same_weights(small(MLPRegressor).fit(X, NUMBERS), expected)
    numbers = pl.DataFrame({"date": NUMBERS, "bytes": np.arange(N)})
    small(MLPRegressor).fit(numbers, numbers["date"])
    small(MLPRegressor).fit(pa.table({"a": NUMBERS}), pa.array(NUMBERS))


# ---------------------------------------------------------------- text for numbers
@pytest.mark.parametrize("kind", TEXT)
def test_a_regressor_refuses_text_digits_too(kind):
    values, X = TEXT[kind](), NUMBERS[:, None]
    message = r"y holds text \(dtype .*\): convert it to numbers, by .astype\(float\), or use MLPCl"
    for fit in (small(MLPRegressor).fit, small(MLPRegressor, n_models=2).fit):
        with pytest.raises(TypeError, match=f"^{message}"):
            fit(X, values)
    with pytest.raises(TypeError, match=f"^{message}".replace("y holds", "y_val holds")):
        small(MLPRegressor).fit(X, NUMBERS, X_val=X, y_val=values)
    with pytest.raises(TypeError, match=r"^sample_weight holds text"):
        small(MLPRegressor).fit(X, NUMBERS, values)
    if kind != "a number as text":
        model = small(MLPClassifier).fit(X, values)
        assert model.classes_.tolist() == ["1.5", "2"]


def test_contents_look_at_what_numpy_takes():
    """And leave the rest to whoever is next."""
    for odd in (5, None, object(), {1: 2}, (row for row in [1]), [[1], [1, 2]], len):
        contents.refuse(odd, "X", contents.NO_WEIGHTS)
        contents.refuse_missing([1, 2], "y", "")
