"""Estimators in other processes and in threads: pickles, memory, joblib, fork."""

import multiprocessing
import pickle
import re

import pytest

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from gpumlp import device as devices
from tests import standin
from tests.estimators import IRIS, data, small

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
    """What `work` returns in a forked child, or the exception that ends it; 20 s are too long."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def run():
        try:
            queue.put(str(work()))
        except Exception as error:
            queue.put(f"{type(error).__name__}: {error}")

    child = context.Process(target=run)
    child.start()
    child.join(20)
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
    monkeypatch.setattr(devices, "_used_in", None)
    assert in_a_fork(lambda: devices.resolve(cuda)) == "cuda:0"


def test_cuda_that_another_library_used_before_the_fork(monkeypatch):
    """CUDA then says that it is not initialized."""
    standin.install(monkeypatch, error=devices.NOT_INITIALIZED)
    with pytest.raises(RuntimeError, match=r"forked.*loky.*device=\"cpu\""):
        small(MLPClassifier, device="cuda").fit(*IRIS)
