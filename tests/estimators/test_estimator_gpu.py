"""The estimators on a GPU, and in threads."""

import subprocess
import sys

import joblib
import numpy as np
import pytest

from gpumlp import MLPClassifier, MLPRegressor
from tests import standin
from tests.helpers.estimators import BOTH, DIABETES, IRIS, data, fitted, same_weights, small
from tests.helpers.optional import Package

pd = Package("pandas")

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


# ---------------------------------------------------------------- the GPU's side
@pytest.mark.parametrize("arguments", [
    {},
    {"solver": "sgd", "early_stopping": True, "validation_fraction": 0.3},
    {"solver": "lbfgs"},
    {"activation": ["prelu", "gelu"], "hidden_layer_sizes": (4, 3), "dropout": 0.2},
])  # fmt: skip
@pytest.mark.parametrize("cls", BOTH)
def test_a_gpu_trains_as_the_cpu_does(cls, arguments, device):
    X, y = (part[::6] for part in data(cls))
    arguments = {"dtype": "float64", "max_iter": 3} | arguments
    expected = small(cls, device="cpu", **arguments).fit(X, y)
    model = small(cls, device=device, **arguments).fit(X, y)
    assert model._engine.net.device == ("cpu" if device == "cpu" else "cuda:0")
    np.testing.assert_allclose(model.loss_, expected.loss_, rtol=1e-9)
    for mine, its in zip(model.coefs_, expected.coefs_, strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(model.predict(X[:5]).shape, expected.predict(X[:5]).shape)
    if model.solver != "lbfgs" and not model.early_stopping:
        model.partial_fit(X, y), expected.partial_fit(X, y)
        np.testing.assert_allclose(model.coefs_[0], expected.coefs_[0], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("cls", BOTH)
def test_every_reported_loss_on_a_gpu(cls, cuda):
    X, y = (part[::5] for part in data(cls))
    targets = [y, (y > 0).astype(int)] if cls is MLPClassifier else [y, np.c_[y, y]]
    for target in targets:
        losses = ["log_loss"] if cls is MLPClassifier else ["squared_error", "poisson"]
        for loss in losses:
            seen = np.abs(target) if loss == "poisson" else target
            curves = [
                small(cls, loss=loss, device=where, dtype="float64").fit(X, seen).loss_curve_
                for where in ("cpu", cuda)
            ]
            np.testing.assert_allclose(*curves, rtol=1e-10)


@pytest.mark.parametrize("arguments", [
    {}, {"early_stopping": True, "validation_fraction": 0.3}, {"solver": "lbfgs"},
    {"early_stopping": True, "validation_fraction": 0.3, "scoring": "neg_log_loss"},
])  # fmt: skip
def test_arrays_on_the_gpu_stay_there(cuda, arguments):
    import cupy

    X, y = (part[::5] for part in IRIS)
    model = small(MLPClassifier, device=cuda, **arguments).fit(X, y)
    on_gpu = cupy.asarray(X)
    other = small(MLPClassifier, device=cuda, **arguments).fit(on_gpu, cupy.asarray(y))
    same_weights(model, other)
    for method in ("predict", "predict_proba", "predict_log_proba", "transform"):
        result = getattr(other, method)(on_gpu)
        assert isinstance(result, cupy.ndarray)
        np.testing.assert_array_equal(cupy.asnumpy(result), getattr(model, method)(X))
        assert isinstance(getattr(other, method)(X), np.ndarray)
    assert other.score(on_gpu, cupy.asarray(y)) == model.score(X, y)
    named = small(MLPClassifier, device=cuda).fit(on_gpu, np.array(["a", "b", "c"])[y])
    assert set(named.predict(on_gpu)) <= {"a", "b", "c"}


def test_regression_of_arrays_on_the_gpu(cuda):
    import cupy

    X, y = (part[::15] for part in DIABETES)
    model = small(MLPRegressor, device=cuda).fit(X, y)
    other = small(MLPRegressor, device=cuda).fit(cupy.asarray(X), y)
    same_weights(model, other)
    result = other.predict(cupy.asarray(X))
    assert isinstance(result, cupy.ndarray) and result.shape == (len(X),)
    np.testing.assert_array_equal(cupy.asnumpy(result), model.predict(X))


def test_arrays_on_the_gpu_that_cannot_be_used(cuda):
    import cupy

    X, y = (part[::5] for part in IRIS)
    broken = X.copy()
    broken[1, 1] = np.nan
    for bad, message in [(X[0], "shape"), (broken, "NaN"), (X[:5], "samples")]:
        with pytest.raises(ValueError, match=message):
            small(MLPClassifier, device=cuda).fit(cupy.asarray(bad), y)
    model = small(MLPClassifier, device=cuda).fit(cupy.asarray(X), y)
    with pytest.raises(ValueError, match="features"):
        model.predict(cupy.asarray(X[:, :2]))
    with pytest.raises(TypeError, match="on a GPU"):
        small(MLPClassifier, device="cpu").fit(cupy.asarray(X), y)


def test_tensors_and_frames():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    X, y = IRIS
    model = fitted(MLPClassifier)
    same_weights(model, small(MLPClassifier).fit(torch.from_numpy(X), torch.from_numpy(y)))
    same_weights(model, small(MLPClassifier).fit(pd.DataFrame(X), pd.Series(y)))
    np.testing.assert_array_equal(model.predict(torch.from_numpy(X)), model.predict(X))


def test_float64_becomes_float32_on_a_gpu(cuda):
    X, y = (part[::6] for part in IRIS)
    model = small(MLPClassifier, device=cuda, max_iter=2).fit(X, y)
    assert model.coefs_[0].dtype == np.float32
    assert model.predict_proba(X).dtype == np.float32


def test_weights_can_be_changed_on_a_gpu(cuda):
    X, y = (part[::20] for part in DIABETES)
    model = small(MLPRegressor, device=cuda, max_iter=1, activation="identity").fit(X, y)
    model.coefs_[0][...] = 0
    model.intercepts_[0][...] = 0
    np.testing.assert_allclose(model.predict(X), np.full(len(X), model.intercepts_[1]), rtol=1e-6)


def set_value(model):
    model.coefs_[0][2, 1] = 3


def set_biases(model):
    model.intercepts_[2] += 1


def set_two_layers(model):
    model.coefs_[1][:], model.intercepts_[0][:] = 0.5, -1


def replace_an_item(model):
    model.coefs_[1] = np.asfortranarray(2 * model.coefs_[1])


def assign_a_list(model):
    model.coefs_ = [(3 * coef).astype(float).tolist() for coef in model.coefs_]


def assign_the_same_list(model):
    model.coefs_ = [coef.astype(float) for coef in model.coefs_]


def set_nan(model):
    model.coefs_[0][0, 0] = np.nan


def set_minus_zero(model):
    model.intercepts_[2][:] = 0
    model.predict(np.zeros((1, 10), np.float32))
    model.intercepts_[2][:] = -0.0


# Elements from the first layer that changes to the last; sizes 10-5-4-1, segments of 32.
CHANGES = {
    set_value: 10 * 5,
    set_biases: 1,
    set_two_layers: 32 + 32 + 5,
    replace_an_item: 5 * 4,
    assign_a_list: 64 + 32 + 4,
    assign_the_same_list: 0,
    set_nan: 10 * 5,
    set_minus_zero: 1,
}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_were_read_are_sent_when_they_change(counters, change):
    """Once, and no others, and nothing is read back."""
    X, y = (part[::20] for part in DIABETES)
    options = {"hidden_layer_sizes": (5, 4), "activation": ["prelu", "tanh"], "max_iter": 1}
    model = small(MLPRegressor, device="cuda", **options).fit(X, y)

    def transfers():
        with counters.count() as c:
            model._engine.outputs(X)
        return np.array([c.h2d, c.d2h, c.staged_bytes])

    usual = transfers()
    for _ in range(2):
        assert len(model.coefs_) == len(model.intercepts_) == 3
        np.testing.assert_array_equal(transfers(), usual)
        model.partial_fit(X, y)
        np.testing.assert_array_equal(transfers(), usual)
    change(model)
    sent = 4 * CHANGES[change]
    np.testing.assert_array_equal(transfers() - usual, [sent > 0, 0, sent])
    np.testing.assert_array_equal(transfers(), usual)
    theta = model._engine.net.parameters
    for k, (coef, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True), 1):
        np.testing.assert_array_equal(theta.W[k].get()[0].T, np.asarray(coef, np.float32))
        np.testing.assert_array_equal(np.signbit(theta.b[k].get()[0]), np.signbit(bias))
    assert float(theta.slope[1].get()[0]) != 0


def test_refused_weights_leave_the_network_alone(counters):
    X, y = (part[::20] for part in DIABETES)
    model = small(MLPRegressor, device="cuda", max_iter=1).fit(X, y)
    before, good = model.predict(X), model.coefs_[1]
    theta = model._engine.net.parameters.buffer.get()
    model.coefs_[0][:] = 0
    model.coefs_[1] = good[:, :0]
    for _ in range(2):
        with pytest.raises(ValueError, match=r"coefs_\[1\] has shape \(5, 0\); layer 2 takes"):
            model.predict(X)
    np.testing.assert_array_equal(model._engine.net.parameters.buffer.get(), theta)
    model.coefs_[1] = good
    assert len(np.unique(before)) > len(np.unique(model.predict(X))) == 1


def test_members_that_were_read_are_sent_when_they_change(counters):
    X, y = (part[::20] for part in DIABETES)
    options = {"n_models": 4, "device": "cuda", "activation": ["prelu"], "max_iter": 2}
    model = small(MLPRegressor, **options).fit(X, y)

    def transfers():
        with counters.count() as c:
            model._engine.outputs(X)
        return np.array([c.h2d, c.d2h])

    def assert_members():
        outputs = model._engine.outputs(X)
        for member, n in zip(members, outputs, strict=True):
            np.testing.assert_allclose(member.predict(X), n[:, 0], rtol=1e-5, atol=1e-6)

    transfers()
    usual, net = transfers(), model._engine.net
    members = model.estimators_
    np.testing.assert_array_equal(transfers(), usual)
    for number in range(3):
        for member in members[1:3]:
            member.coefs_[1][number] += 1
        found = transfers()
        if number:  # before, what the stack has of these two is read back
            np.testing.assert_array_equal(found - usual, [1, 0])
        np.testing.assert_array_equal(transfers(), usual)
        assert_members()
    members[3].partial_fit(X, y)
    assert_members()
    members[0].fit(X, y + 1)
    assert_members()
    np.testing.assert_array_equal(transfers(), usual)
    assert model._engine.net is net


def test_a_model_of_a_gpu_loads_where_there_is_none(cuda, tmp_path):
    X, y = (part[::6] for part in IRIS)
    model = small(MLPClassifier, device=cuda, activation="prelu").fit(X, y)
    joblib.dump((model, X, model.predict_proba(X)), tmp_path / "model")
    program = f"""
import sys
sys.modules["cupy"] = None  # as if it were not installed
import joblib, numpy as np
model, X, expected = joblib.load({str(tmp_path / "model")!r})
np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-5)
model.set_params(device="cpu").partial_fit(X, model.predict(X))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_device_memory_is_released_with_the_estimator(cuda, counters):
    import gc

    X, y = (part[::6] for part in IRIS)
    start = standin.counters.current_bytes
    gc.disable()  # cycles would keep the memory until the collector runs
    try:
        for arguments in (
            {"early_stopping": True, "validation_fraction": 0.3},
            {"solver": "lbfgs"},
        ):
            model = small(MLPClassifier, device=cuda, max_iter=2, **arguments).fit(X, y)
            model.predict(X)
            assert standin.counters.current_bytes > start
            model.fit(X, y)
            del model
            assert standin.counters.current_bytes == start
    finally:
        gc.enable()


def test_two_estimators_train_in_two_threads():
    from concurrent.futures import ThreadPoolExecutor

    X, y = IRIS
    alone = [small(MLPClassifier, random_state=seed, max_iter=30).fit(X, y) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(small(MLPClassifier, random_state=seed, max_iter=30).fit, X, y)
            for seed in range(4)
        ]
        for job, expected in zip(jobs, alone, strict=True):
            same_weights(job.result(), expected)


def test_one_estimator_predicts_in_several_threads():
    from concurrent.futures import ThreadPoolExecutor

    X, _ = IRIS
    model = fitted(MLPClassifier)
    parts = [X[start : start + 37] for start in range(100)] * 3
    expected = [model.predict_proba(part) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        for got, want in zip(pool.map(model.predict_proba, parts), expected, strict=True):
            np.testing.assert_array_equal(got, want)
