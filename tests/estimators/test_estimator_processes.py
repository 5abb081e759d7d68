"""Estimators in other processes and in threads: pickles, memory, joblib, fork."""

import copy
import gc
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
from scipy import sparse
from sklearn.model_selection import GridSearchCV

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.backend import device as devices
from gpumlp.backend.cuda import faults
from gpumlp.model import blas_threads
from tests import standin
from tests.helpers.estimators import BOTH, IRIS, data, same_weights, small
from tests.helpers.waiting import HANGS

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    # Python 3.12 warns of every fork beside threads; BLAS has some.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def some(cls, every=6):
    """A few rows: the stand-in is slow."""
    X, y = data(cls)
    return X[::every], y[::every]


# ---------------------------------------------------------------- fork
def in_a_fork(work) -> str:
    """What `work` returns in a forked child, or the exception that ends it."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def run():
        try:
            queue.put(str(work()))
        except Exception as error:
            queue.put(f"{type(error).__name__}: {error}")

    child = context.Process(target=run)
    child.start()
    child.join(HANGS)
    if child.is_alive():
        child.kill()
        pytest.fail("the forked process hangs")
    assert child.exitcode == 0
    return queue.get()


@pytest.fixture
def used(cuda):
    """A model that was fitted on the GPU in this process."""
    X, y = some(MLPClassifier)
    return small(MLPClassifier, device=cuda, max_iter=2).fit(X, y)


REFUSED = "RuntimeError.*forked.*spawn.*loky"


@pytest.mark.parametrize("work", [
    lambda model, X, y: model.predict(X),
    lambda model, X, y: model.fit(X, y),
    lambda model, X, y: model.partial_fit(X, y),
    lambda model, X, y: small(MLPRegressor, device="cuda").fit(X, y),
    lambda model, X, y: gpumlp.MLP((4, 3), device="cuda:0"),
    lambda model, X, y: pickle.dumps(model),
    lambda model, X, y: model.coefs_,
])  # fmt: skip
def test_a_fork_after_the_gpu_was_used_is_refused(used, work):
    X, y = some(MLPClassifier)
    assert re.search(REFUSED, in_a_fork(lambda: work(used, X, y)))


def test_arrays_on_the_gpu_are_refused_in_a_fork(used):
    import cupy

    on_gpu = cupy.asarray(IRIS[0])
    assert re.search(REFUSED, in_a_fork(lambda: used.predict(on_gpu)))


def test_a_fork_may_use_the_cpu(used):
    X, y = some(MLPRegressor, every=1)
    expected = small(MLPRegressor).fit(X, y).loss_
    assert in_a_fork(lambda: small(MLPRegressor).fit(X, y).loss_) == str(expected)


def test_a_fork_while_another_thread_predicts_and_trains():
    """In the fork nobody is left to release what that thread holds."""
    X, y = IRIS
    model = small(MLPClassifier).fit(X, y)
    expected = str(model.predict(X))
    held, done = threading.Event(), threading.Event()

    def hold():
        with model._engine.lock, blas_threads._lock:
            held.set()
            done.wait(HANGS)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(HANGS)
    try:
        assert in_a_fork(lambda: model.fit(X, y).predict(X)) == expected
    finally:
        done.set()
        holder.join()


def test_auto_in_a_fork_is_the_cpu_with_a_warning(used, monkeypatch):
    monkeypatch.delenv(devices.VARIABLE)
    monkeypatch.setattr(devices, "_warned", False)

    def resolve():
        with pytest.warns(RuntimeWarning, match="forked.*Using the CPU"):
            return devices.resolve("auto")

    assert in_a_fork(resolve) == "cpu"


def test_the_process_that_used_the_gpu_goes_on(used):
    X, _ = some(MLPClassifier)
    in_a_fork(lambda: used.predict(X))
    assert len(used.predict(X)) == len(X)


def test_a_fork_before_the_gpu_was_used_may_use_it(cuda, monkeypatch, counters):
    monkeypatch.setattr(faults, "_used_in", None)
    assert in_a_fork(lambda: devices.resolve(cuda)) == "cuda:0"


def test_cuda_that_another_library_used_before_the_fork(monkeypatch):
    """CUDA then says that it is not initialized."""
    standin.install(monkeypatch, error=devices.NOT_INITIALIZED)
    with pytest.raises(RuntimeError, match=r"forked.*loky.*device=\"cpu\""):
        small(MLPClassifier, device="cuda").fit(*IRIS)


# ---------------------------------------------------------------- pickles
WITHOUT_CUPY = """
import sys

class NoCuPy:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("cupy", "cupyx", "cupy_backends"):
            raise ModuleNotFoundError(f"No module named {name!r}", name="cupy")

sys.meta_path.insert(0, NoCuPy())
import warnings
import joblib, numpy as np
warnings.simplefilter("error")
warnings.simplefilter("ignore", UserWarning)  # of convergence
for model, X, y, outputs, hidden, partial in joblib.load(sys.argv[1]):
    for again in range(2):
        np.testing.assert_allclose(model.predict(X), outputs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.transform(X), hidden, rtol=1e-4, atol=1e-5)
    assert "on cpu" in model.summary() and repr(model)
    try:
        model.fit(X, y)
    except RuntimeError as error:
        assert "CuPy is not installed" in str(error), error
    else:
        raise AssertionError("trained on a GPU that is not there")
    model.set_params(device="cpu").partial_fit(X, y)
    np.testing.assert_allclose(model.coefs_[0], partial, rtol=1e-3, atol=1e-5)
    model.fit(X, y)
"""


def test_models_of_a_gpu_load_where_there_is_no_cupy(cuda, tmp_path):
    """And go on there: the optimiser's state came along."""
    import cupy

    saved = []
    for cls in BOTH:
        X, y = some(cls, every=12)
        for arguments in (
            {},
            {"activation": "prelu", "solver": "sgd"},
        ):
            model = small(cls, device=cuda, max_iter=3, n_iter_no_change=99, **arguments)
            model.fit(cupy.asarray(X), cupy.asarray(y), X_val=cupy.asarray(X), y_val=y)
            ahead = pickle.loads(pickle.dumps(model)).partial_fit(X, y)
            saved.append((model, X, y, model.predict(X), model.transform(X), ahead.coefs_[0]))
    joblib.dump(saved, tmp_path / "models")
    command = [sys.executable, "-c", WITHOUT_CUPY, str(tmp_path / "models")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- memory of the device
def neg_error(estimator, X, y):
    return -np.abs(estimator.predict(X) - y).mean()


class Failing(gpumlp.Callback):
    def on_epoch_end(self, trainer, history):
        raise ZeroDivisionError


@pytest.fixture
def no_collector():
    """Cycles would keep memory until the collector runs."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("use", [
    lambda X, y: small(MLPRegressor, device="cuda").fit(X, y).predict(X),
    lambda X, y: small(MLPRegressor, device="cuda").fit(sparse.csr_array(X), y).transform(X),
    lambda X, y: small(MLPRegressor, device="cuda").partial_fit(X, y).partial_fit(X, y).coefs_,
    lambda X, y: copy.deepcopy(small(MLPRegressor, device="cuda").fit(X, y)).predict(X),
    lambda X, y: small(
        MLPRegressor, device="cuda", early_stopping=True, scoring=neg_error, max_iter=2
    ).fit(X, y).summary(),
    lambda X, y: small(
        MLPRegressor, device="cuda", callbacks=[gpumlp.EarlyStopping(patience=1)], max_iter=3
    ).fit(X, y, X_val=X, y_val=y),
    lambda X, y: small(MLPRegressor, device="cuda", solver="lbfgs").fit(X, y).predict(X),
])  # fmt: skip
def test_device_memory_goes_with_the_estimator(use, cuda, counters, no_collector):
    X, y = some(MLPRegressor, every=20)
    start = counters.counters.current_bytes
    with counters.count() as done:
        use(X, y)
    assert done.allocations > 0
    assert counters.counters.current_bytes == start


def test_device_memory_goes_with_an_estimator_that_failed(cuda, counters, no_collector):
    X, y = some(MLPRegressor, every=20)
    start = counters.counters.current_bytes
    model = small(MLPRegressor, device=cuda, callbacks=[Failing()])
    try:
        model.fit(X, y)
    except ZeroDivisionError as error:
        assert error.__traceback__ is not None
    else:
        pytest.fail("the callback's error was lost")
    del model
    assert counters.counters.current_bytes == start


def test_a_new_fit_and_another_device_release_memory(cuda, counters, no_collector):
    X, y = some(MLPRegressor, every=20)
    start = counters.counters.current_bytes
    model = small(MLPRegressor, device=cuda).fit(X, y)
    once = counters.counters.current_bytes
    model.fit(X, y)
    assert counters.counters.current_bytes == once > start
    model.set_params(device="cpu").fit(X, y)
    assert counters.counters.current_bytes == start


# ---------------------------------------------------------------- threads
def test_different_estimators_train_in_threads_as_alone(device):
    def models():
        every = 1 if device == "cpu" else 10
        for seed in range(2):
            for cls, arguments in (
                (MLPClassifier, {"solver": "adam", "dropout": 0.2}),
                (MLPRegressor, {"solver": "sgd", "hidden_layer_sizes": (4, 3)}),
                (MLPClassifier, {"solver": "lbfgs"}),
                (MLPRegressor, {"early_stopping": True, "dtype": "float32"}),
            ):
                model = small(cls, device=device, random_state=seed, max_iter=4, **arguments)
                yield model, *some(cls, every)

    alone = [model.fit(X, y).predict(X) for model, X, y in models()]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: job[0].fit(*job[1:]).predict(job[1]), models()))
    for mine, its in zip(together, alone, strict=True):
        np.testing.assert_array_equal(mine, its)


# ---------------------------------------------------------------- joblib
def test_a_grid_search_in_processes_scores_as_in_one():
    X, y = IRIS
    grid = {"alpha": [1e-4, 1.0], "solver": ["adam", "lbfgs"]}
    scores = []
    for jobs in (1, 2):
        search = GridSearchCV(small(MLPClassifier, max_iter=8), grid, cv=2, n_jobs=jobs)
        with joblib.parallel_config("loky"):
            search.fit(X, y)
        scores.append(search.cv_results_["mean_test_score"])
        assert search.best_estimator_.predict(X).shape == y.shape
    np.testing.assert_array_equal(*scores)


def fit_and_tell(model, X, y):
    """In a process of joblib's: the model, and which process that was."""
    return model.fit(X, y), os.getpid()


def test_estimators_come_back_from_processes():
    X, y = IRIS
    models = [small(MLPClassifier, random_state=seed) for seed in (0, 1)]
    jobs = [joblib.delayed(fit_and_tell)(model, X, y) for model in models]
    results = joblib.Parallel(n_jobs=2, backend="loky")(jobs)
    for seed, (model, pid) in enumerate(results):
        assert pid != os.getpid()
        same_weights(model, small(MLPClassifier, random_state=seed).fit(X, y))


def test_a_gpu_in_joblibs_processes_is_used_or_refused(cuda):
    """In processes that are started anew; there the stand-in is not in CuPy's place."""
    X, y = some(MLPClassifier)
    jobs = [joblib.delayed(fit_and_tell)(small(MLPClassifier, device=cuda), X, y)] * 2
    parallel = joblib.Parallel(n_jobs=2, backend="loky", timeout=HANGS)
    if a_process_of_its_own_finds_a_gpu():
        for model, _ in parallel(jobs):
            np.testing.assert_allclose(
                model.coefs_[0], small(MLPClassifier, device=cuda).fit(X, y).coefs_[0], rtol=1e-5
            )
    else:
        with pytest.raises(RuntimeError, match=r'device "?.cuda.*Or use device="cpu"'):
            parallel(jobs)


def a_process_of_its_own_finds_a_gpu() -> bool:
    program = "from gpumlp.backend import device; assert device.gpu_problem() is None"
    return subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


def test_joblibs_forks_are_refused_a_gpu(used):
    X, y = some(MLPClassifier)
    jobs = [joblib.delayed(fit_and_tell)(small(MLPClassifier, device="cuda"), X, y)] * 2
    with pytest.raises(RuntimeError, match="forked"):
        joblib.Parallel(n_jobs=2, backend="multiprocessing", timeout=HANGS)(jobs)
