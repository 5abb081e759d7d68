"""Checkpoints of estimators: a resumed fit ends as one that was never cut short, bit for bit."""

import os
import random
import shutil
import signal
import time

import numpy as np
import pytest
from scipy import sparse

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from tests.estimators.test_estimator_files import assert_same
from tests.helpers import checkpointing
from tests.helpers.estimators import BOTH, data, small
from tests.helpers.waiting import has_ended, until

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

EPOCHS = 6
CASES = {
    "adam": {},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 9.0, "n_iter_no_change": 1},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "nesterovs_momentum": False},
    "early stopping": {"early_stopping": True, "validation_fraction": 0.2, "tol": 0.01},
    "stops early": {"early_stopping": True, "tol": 1.0, "n_iter_no_change": 2},
    "converges": {"tol": 9.0, "n_iter_no_change": 2},
    "dropout": {"dropout": 0.3, "activation": "rrelu", "weight_decay": 0.01},
    "prelu": {"activation": "prelu", "dtype": "float32", "clip_norm": 0.1},
    "cosine": {"schedule": "cosine"},
    "plateau": {"schedule": gpumlp.schedules["plateau"](patience=1, delta=0.05)},
    "in order": {"shuffle": False, "batch_size": 32},
    "a callback": {"callbacks": [gpumlp.EarlyStopping(2, delta=0.2)]},
    "a generator": {"random_state": np.random.RandomState(5)},
}


def make(cls, case, folder, **more):
    arguments = CASES[case] | {"max_iter": EPOCHS, "batch_size": 25} | more
    if isinstance(given := arguments.get("random_state"), np.random.RandomState):
        arguments["random_state"] = np.random.RandomState()
        arguments["random_state"].set_state(given.get_state())
    checkpoint = gpumlp.Checkpoint(folder, keep=2 * EPOCHS)
    arguments["callbacks"] = [checkpoint, *arguments.get("callbacks", [])]
    return small(cls, **arguments)


def resumed(file, folder, **options):
    """The estimator of one checkpoint, which goes on writing where it was read."""
    folder.mkdir()
    shutil.copy(file, folder)
    return gpumlp.resume(folder, **options)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cls", BOTH)
def test_a_resumed_fit_ends_alike(cls, case, tmp_path):
    X, y = data(cls)
    whole = make(cls, case, tmp_path / "whole").fit(X, y)
    files = sorted((tmp_path / "whole").iterdir())
    assert len(files) == whole.n_iter_
    for i in sorted({0, 2, len(files) - 1}):
        model = resumed(files[i], tmp_path / f"{i}")
        assert model.n_iter_ == i + 1
        assert_same(model.fit(X, y), whole)
    for each in (model, whole):
        each.set_params(callbacks=None)  # EarlyStopping is refused there
        each.partial_fit(X, y, **({"X_val": X, "y_val": y} if each.early_stopping else {}))
    assert_same(model, whole)


@pytest.mark.parametrize("cls", BOTH)
def test_the_fit_after_a_resumed_one_begins_anew(cls, tmp_path):
    X, y = data(cls)
    make(cls, "adam", tmp_path / "whole").fit(X, y)
    first, *_ = sorted((tmp_path / "whole").iterdir())
    model = resumed(first, tmp_path / "resumed").fit(X, y)
    fresh = make(cls, "adam", tmp_path / "fresh").fit(X[::2], y[::2])
    assert_same(model.fit(X[::2], y[::2]), fresh)
    with pytest.warns(RuntimeWarning, match="is left out"):
        loaded = gpumlp.load(first)
    assert "_unfinished" in vars(loaded)
    assert_same(loaded.fit(X[::2], y[::2]), fresh)
    assert "_unfinished" not in vars(loaded)


@pytest.mark.parametrize("cls", BOTH)
def test_on_each_device(cls, device, tmp_path):
    X, y = (part[::4] for part in data(cls))
    more = {"device": device, "dtype": "float32", "max_iter": 3}
    whole = make(cls, "early stopping", tmp_path / "whole", **more).fit(X, y)
    files = sorted((tmp_path / "whole").iterdir())
    assert_same(resumed(files[0], tmp_path / "one", device=device).fit(X, y), whole)


class Crash(gpumlp.Callback):
    goes_last = True

    def __init__(self, epochs):
        self.epochs = epochs

    def on_epoch_end(self, trainer, history):
        if history.epochs == self.epochs:
            raise RuntimeError("power failure")


def test_what_a_crash_has_left_goes_on_and_is_checkpointed(tmp_path):
    X, y = data(MLPClassifier)
    folder, weight = tmp_path / "runs", np.linspace(0.5, 2, len(y))
    given = {"sample_weight": weight, "X_val": X[::5], "y_val": y[::5]}
    arguments = {"early_stopping": True, "class_weight": "balanced", "max_iter": 7}
    whole = small(MLPClassifier, **arguments).fit(X, y, **given)
    model = small(
        MLPClassifier, callbacks=[gpumlp.Checkpoint(folder, every_epochs=2), Crash(5)], **arguments
    )
    with pytest.raises(RuntimeError):
        model.fit(X, y, **given)
    custom = {"Crash": Crash(99)}
    model = gpumlp.resume(folder, custom=custom)
    assert model.n_iter_ == 4
    np.testing.assert_array_equal(model.predict(X).shape, y.shape)  # it can be used meanwhile
    assert_same(model.fit(X, y, **given), whole)
    assert_same(gpumlp.resume(folder, custom=custom).fit(X, y, **given), whole)


def test_a_second_fit_of_a_resumed_estimator_is_a_new_one(tmp_path):
    X, y = data(MLPRegressor)
    whole = make(MLPRegressor, "adam", tmp_path / "whole").fit(X, y)
    model = gpumlp.resume(tmp_path / "whole")
    model.fit(X, y)
    assert model.n_iter_ == EPOCHS and len(model.loss_curve_) == EPOCHS
    assert_same(model.fit(X, y), whole)


def test_a_warm_start_resumes_too(tmp_path):
    X, y = data(MLPClassifier)
    model = make(MLPClassifier, "adam", tmp_path / "a", warm_start=True, keep_optimizer=True)
    model.fit(X, y)
    assert len(model.fit(X, y).loss_curve_) == 2 * EPOCHS
    files = sorted((tmp_path / "a").iterdir())
    found = resumed(files[EPOCHS + 1], tmp_path / "b")
    assert found.n_iter_ == 2
    assert_same(found.fit(X, y), model)


def test_a_warm_start_on_more_rows_resumes_too(tmp_path):
    """Batches of "auto" are then larger than those of the trainer's first fit."""
    X, y = data(MLPRegressor)
    folder = tmp_path / "all"
    whole = make(MLPRegressor, "adam", folder, warm_start=True, keep_optimizer=True)
    whole.set_params(batch_size="auto").fit(X[:90], y[:90]).fit(X, y)
    files = sorted(folder.iterdir())
    again = resumed(files[EPOCHS + 2], tmp_path / "one")
    assert_same(again.fit(X, y), whole)


def test_loading_a_checkpoint_is_not_to_resume_it(tmp_path):
    X, y = data(MLPClassifier)
    whole = make(MLPClassifier, "adam", tmp_path / "whole").fit(X, y)
    path = sorted((tmp_path / "whole").iterdir())[1]
    with pytest.warns(RuntimeWarning, match=r"file's Checkpoint\(.*whole'\) is left out"):
        model = gpumlp.load(path)
    assert model.n_iter_ == 2 and not any(
        isinstance(callback, gpumlp.Checkpoint) for callback in model.callbacks
    )
    assert_same(model.fit(X, y), whole)


def test_other_data_are_refused_and_then_the_right_ones_taken(tmp_path):
    X, y = data(MLPClassifier)
    whole = make(MLPClassifier, "early stopping", tmp_path / "whole").fit(X, y)
    model = resumed(sorted((tmp_path / "whole").iterdir())[1], tmp_path / "one")
    with pytest.raises(ValueError, match="the fit to be resumed trained on 120 samples"):
        model.fit(X[:-20], y[:-20])
    with pytest.raises(ValueError, match="features"):
        model.fit(X[:, 1:], y)
    assert_same(model.fit(X, y), whole)
    make(MLPClassifier, "adam", tmp_path / "other").fit(X, y, X_val=X, y_val=y)
    with pytest.raises(ValueError, match="had a validation set"):
        gpumlp.resume(tmp_path / "other").fit(X, y)


def test_ctrl_c_leaves_the_last_whole_epoch(tmp_path, monkeypatch):
    from gpumlp.estimators import estimator_rows as rows

    X, y = data(MLPClassifier)
    whole = make(MLPClassifier, "adam", tmp_path / "whole").fit(X, y)
    run, calls = rows.EstimatorRows.run, []

    def interrupted(self, trainer, order, interrupt):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(self, trainer, order, interrupt)

    monkeypatch.setattr(rows.EstimatorRows, "run", interrupted)
    with pytest.warns(UserWarning, match="interrupted"):
        make(MLPClassifier, "adam", tmp_path / "cut").fit(X, y)
    model = gpumlp.resume(tmp_path / "cut")
    assert model.n_iter_ == 2
    assert_same(model.fit(X, y), whole)


def test_sparse_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("gpumlp.estimators.estimator_rows.FULL", 1.0)
    X, y = data(MLPClassifier)
    X = sparse.csr_array(X * (X > 0.2))
    whole = make(MLPClassifier, "adam", tmp_path / "whole").fit(X, y)
    files = sorted((tmp_path / "whole").iterdir())
    assert len(files) == EPOCHS
    assert_same(resumed(files[2], tmp_path / "two").fit(X, y), whole)
    some = make(MLPClassifier, "adam", tmp_path / "x")
    some.callbacks[0] = gpumlp.Checkpoint(tmp_path / "some", every_epochs=4, keep=9)
    some.fit(X, y)
    files = sorted((tmp_path / "some").iterdir())
    assert [gpumlp.resume(file).n_iter_ for file in files] == [4, 6]


def test_killed_at_random_moments(tmp_path):
    X, y = data(MLPClassifier)
    arguments = {"early_stopping": True, "tol": 0.0, "max_iter": 40, "n_iter_no_change": 40}
    whole = small(MLPClassifier, **arguments).fit(X, y)
    chance, before, folder = random.Random(0), 0, tmp_path / "runs"

    def newest():
        return max((int(file.stem[-6:]) for file in folder.glob("checkpoint-*")), default=0)

    def train(pipe):
        checkpointed = small(MLPClassifier, callbacks=[gpumlp.Checkpoint(folder)], **arguments)
        (gpumlp.resume(folder) if before else checkpointed).fit(X, y)

    for i in range(8):
        pid, out = checkpointing.fork(train)
        # Amid the first epoch after the last checkpoint, or one or two later.
        until(lambda: newest() >= before + i % 3 or has_ended(pid))  # noqa: B023
        time.sleep(chance.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        checkpointing.collect(pid, out)
        if list(folder.glob("checkpoint-*")):
            found = gpumlp.resume(folder)
            assert found.n_iter_ >= before
            before = found.n_iter_
            expected = whole.loss_curve_[:before]
            np.testing.assert_array_equal(found.loss_curve_, expected)
    assert before > 0
    assert_same(gpumlp.resume(folder).fit(X, y), whole)


def test_a_saved_estimator_is_no_checkpoint(tmp_path):
    gpumlp.save(small(MLPClassifier).fit(*data(MLPClassifier)), tmp_path / "a.safetensors")
    with pytest.raises(gpumlp.FileError, match="no training to go on with"):
        gpumlp.resume(tmp_path / "a.safetensors")
