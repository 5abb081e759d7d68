"""Checkpoints of estimators for tables: a resumed fit ends as one that was never cut short, bit for
bit."""

import os
import shutil
import signal

import numpy as np
import pytest

import gpumlp
from gpumlp import TabularClassifier, TabularRegressor
from tests.helpers import checkpointing
from tests.helpers.comparison import to_numpy
from tests.helpers.optional import Package
from tests.helpers.saving import rewrite
from tests.helpers.tabular import every_kind, fitted, targets
from tests.helpers.training import PressCtrlC

pd = Package("pandas")

pytestmark = [
    pytest.mark.filterwarnings("ignore:X. nearly every row has a text of its own"),
    pytest.mark.filterwarnings("ignore:training was interrupted"),
]

EPOCHS = 5
CASES = {
    "classes": (TabularClassifier, {}),
    "values in float64": (TabularRegressor, {"dtype": "float64", "n_models": 3}),
    "one network": (TabularClassifier, {"n_models": 1, "class_weight": "balanced"}),
    "several quantiles": (TabularRegressor, {"quantile": [0.9, 0.2]}),
    "a generator": (TabularRegressor, {"random_state": np.random.RandomState(5)}),
    "nobody's seed": (TabularClassifier, {"random_state": None}),
    "stops early": (
        TabularRegressor,
        {"callbacks": [gpumlp.EarlyStopping(1, delta=0.02, monitor="val_loss")]},
    ),
    "network_params": (
        TabularClassifier,
        {
            "network_params": {
                "activation": "prelu",
                "dropout": 0.0,
                "schedule": gpumlp.schedules["plateau"](patience=1, delta=0.5),
                "schedule_decay": False,
            }
        },
    ),
}
ROWS = 93


@pytest.fixture(scope="module")
def frame():
    return every_kind(ROWS, seed=3)


def assert_same(a, b):
    """All that a fit leaves behind, but for the time that it took."""
    assert vars(a).keys() == vars(b).keys()
    for left, right in zip(a._stacks, b._stacks, strict=True):
        np.testing.assert_array_equal(to_numpy(left.net.theta), to_numpy(right.net.theta))
    for left, right in zip(a.histories_, b.histories_, strict=True):
        np.testing.assert_equal(*({**vars(each), "seconds": None} for each in (left, right)))
    np.testing.assert_equal(a.preparation_.state(), b.preparation_.state())
    others = {"_stacks", "histories_", "preparation_", "_metadata_request"}
    for name in vars(a).keys() - set(a._get_param_names()) - others:
        np.testing.assert_equal(getattr(a, name), getattr(b, name))


def checkpointed(cls, frame, folder, **options):
    """An estimator, fitted, that wrote a checkpoint after each epoch."""
    callbacks = [gpumlp.Checkpoint(folder, keep=99), *options.pop("callbacks", [])]
    options = {"max_epochs": EPOCHS, "batch_size": 17, "device": "cpu"} | options
    return fitted(cls, frame, callbacks=callbacks, **options)


def resumed(file, folder, **options):
    """The estimator of one checkpoint, which goes on writing where it was read."""
    folder.mkdir()
    shutil.copy(file, folder)
    return gpumlp.resume(folder, **options)


def y_of(cls, frame):
    y = targets(frame)
    labels = np.array(["low", "middle", "high"])[np.digitize(y, [2.0, 5.0])]
    return labels if cls is TabularClassifier else y


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_fit_ends_alike(case, frame, tmp_path):
    cls, options = CASES[case]
    whole = checkpointed(cls, frame, tmp_path / "whole", **options)
    files = sorted((tmp_path / "whole").iterdir())
    stacks = len(whole.histories_)
    assert len(files) == sum(history.epochs for history in whole.histories_)
    for i in sorted({0, 2, len(files) // stacks - 1, len(files) // stacks, len(files) - 1}):
        if i < len(files):
            model = resumed(files[i], tmp_path / f"{i}")
            assert_same(model.fit(frame, y_of(cls, frame)), whole)
            # A further fit is a new one.
            assert not hasattr(model, "_unfinished") and not model._resuming


@pytest.mark.parametrize("cls", [TabularClassifier, TabularRegressor])
def test_with_weights_and_a_validation_set(cls, frame, tmp_path, device):
    weight = np.linspace(0.0, 2.0, ROWS)
    more = every_kind(31, seed=4)
    given = {"X_val": more, "y_val": y_of(cls, more), "sample_weight": weight}
    options = {"n_models": 2, "hidden_layer_sizes": 5, "max_epochs": 4, "random_state": 0}
    callbacks = [gpumlp.Checkpoint(tmp_path / "whole", every_epochs=2, keep=9)]
    whole = cls(device=device, callbacks=callbacks, **options)
    whole.fit(frame, y_of(cls, frame), **given)
    files = sorted((tmp_path / "whole").iterdir())
    assert len(files) == 2
    model = resumed(files[0], tmp_path / "half", device=device)
    assert_same(model.fit(frame, y_of(cls, frame), **given), whole)


def test_ctrl_c_in_the_midst_of_an_epoch(frame, tmp_path, monkeypatch):
    """What it had come to is fitted, and the checkpoint goes on from there."""
    options = {"max_epochs": EPOCHS, "batch_size": 5, "device": "cpu"}
    whole = fitted(TabularRegressor, frame, **options)
    with monkeypatch.context() as patch:
        PressCtrlC(patch, 23)  # of 10 updates in an epoch
        callbacks = [gpumlp.Checkpoint(tmp_path, every_epochs=99)]
        cut = fitted(TabularRegressor, frame, callbacks=callbacks, **options)
    assert cut.histories_[0].interrupted and cut.histories_[0].epochs == 2
    model = gpumlp.resume(tmp_path)
    assert model._unfinished.trainer.batches_done
    assert_same(model.fit(frame, y_of(TabularRegressor, frame)), whole)


def test_killed_between_two_quantiles(frame, tmp_path):
    """Once with the first stack's last epoch in the file, once with the second's first."""
    options = {"max_epochs": 3, "quantile": [0.1, 0.5, 0.9], "device": "cpu"}
    whole = fitted(TabularRegressor, frame, **options)
    for epochs in (3, 4):
        folder = tmp_path / f"{epochs}"

        class Kill(gpumlp.Callback):
            goes_last = True
            count = 0

            def on_epoch_end(self, trainer, history, epochs=epochs):
                self.count += 1
                if self.count == epochs:
                    os.kill(os.getpid(), signal.SIGKILL)

        def work(pipe, folder=folder, kill=Kill):
            fitted(
                TabularRegressor, frame, **options, callbacks=[gpumlp.Checkpoint(folder), kill()]
            )

        status, _ = checkpointing.collect(*checkpointing.fork(work))
        assert status == -signal.SIGKILL
        model = gpumlp.resume(folder, custom={"Kill": gpumlp.Callback()})
        model.fit(frame, y_of(TabularRegressor, frame))
        assert_same(model.set_params(callbacks=None), whole)


def test_the_time_that_was_spent_counts(frame, tmp_path):
    checkpointed(TabularRegressor, frame, tmp_path / "whole", time_limit=3600, max_epochs=40)
    first, *_ = sorted((tmp_path / "whole").iterdir())
    model = resumed(first, tmp_path / "first")
    # Of an hour there is time for all of them; of none for one.
    assert model._unfinished.seconds > 0
    model._unfinished.begin = -3600.0
    assert model.fit(frame, y_of(TabularRegressor, frame)).histories_[0].epochs == 2
    model = resumed(first, tmp_path / "again").fit(frame, y_of(TabularRegressor, frame))
    assert model.histories_[0].epochs == 40


# ------------------------------------------------------------------ refused


@pytest.fixture(scope="module")
def checkpoint(frame, tmp_path_factory):
    """The first of a fit."""
    folder = tmp_path_factory.mktemp("checkpoints")
    checkpointed(TabularClassifier, frame, folder)
    return min(folder.iterdir())


def test_other_data_are_refused_and_then_the_right_ones_taken(checkpoint, frame, tmp_path):
    y = y_of(TabularClassifier, frame)
    model = resumed(checkpoint, tmp_path / "a")
    wide = frame.assign(more=np.arange(ROWS) % 7 + 0.5)
    for X, labels, given, says in [
        (frame[:-7], y[:-7], {}, "trained on 93 rows, and these are 86: give the same X and y"),
        (
            wide,
            y,
            {},
            "X has other columns, or other categories in them, .* features more, .*: give the same",
        ),
        (frame.assign(town="Ulm"), y, {}, "X has other columns, or other categories in them"),
        (frame, np.where(y == "low", "none", y), {}, "had the classes .*low.*, and y has .*none"),
        (frame, y, {"X_val": frame, "y_val": y}, "had no validation set: give the same X_val"),
    ]:
        with pytest.raises(ValueError, match=says):
            model.fit(X, labels, **given)
    assert not hasattr(model, "classes_")
    whole = checkpointed(TabularClassifier, frame, tmp_path / "whole")
    assert_same(model.fit(frame, y), whole)


@pytest.mark.parametrize(
    "changed",
    [
        {"n_models": 3},
        {"max_epochs": 9},
        {"network_params": {"dropout": 0.1}},
        {"learning_rate": 0.1},
    ],
)
def test_other_parameters_are_refused(changed, checkpoint, frame, tmp_path):
    model = resumed(checkpoint, tmp_path / "a")
    (name,) = changed
    with pytest.raises(ValueError, match=f"^{name} = .*, and the fit to be resumed had "):
        model.set_params(**changed).fit(frame, y_of(TabularClassifier, frame))
    # Equal ones, and those on which nothing depends, are no others.
    model = resumed(checkpoint, tmp_path / "b")
    model.set_params(hidden_layer_sizes=(7, 5), verbose=False, time_limit=3600, callbacks=None)
    model.fit(frame, y_of(TabularClassifier, frame))
    assert model.histories_[0].epochs == EPOCHS


def test_parameters_that_mean_the_same_are_no_others(frame, tmp_path):
    options = {"dtype": "float32", "network_params": {"dropout": 0.1}}
    whole = checkpointed(TabularClassifier, frame, tmp_path / "whole", **options)
    model = resumed(min((tmp_path / "whole").iterdir()), tmp_path / "a")
    model.set_params(dtype=np.float32, max_epochs=np.int64(EPOCHS))
    model.set_params(hidden_layer_sizes=[*model.hidden_layer_sizes])
    model.set_params(network_params={"dropout": np.float64(0.1)})
    model.fit(frame, y_of(TabularClassifier, frame))
    np.testing.assert_array_equal(model.oof_prediction_, whole.oof_prediction_)


def test_a_parameter_that_is_changed_in_place_is_another(frame, tmp_path):
    options = {"network_params": {"dropout": 0.1}}
    checkpointed(TabularClassifier, frame, tmp_path / "whole", **options)
    model = resumed(min((tmp_path / "whole").iterdir()), tmp_path / "a")
    model.network_params["dropout"] = 0.9
    with pytest.raises(ValueError, match=r"^network_params = .*, and the fit to be resumed had "):
        model.fit(frame, y_of(TabularClassifier, frame))


def test_what_was_cut_short_again_is_read_again(checkpoint, frame, tmp_path):
    """The networks went on from the checkpoint: a second fit would begin anew, over the files."""

    class Stops(gpumlp.Callback):
        def on_epoch_end(self, trainer, history):
            raise RuntimeError("again")

    y, folder = y_of(TabularClassifier, frame), tmp_path / "a"
    model = resumed(checkpoint, folder)
    with pytest.raises(RuntimeError, match="again"):
        model.set_params(callbacks=[Stops()]).fit(frame, y)
    before = sorted(folder.iterdir())
    with pytest.raises(ValueError, match=r"cut short again.*gpumlp\.resume"):
        model.set_params(callbacks=None).fit(frame, y)
    assert sorted(folder.iterdir()) == before
    assert gpumlp.resume(folder).fit(frame, y).histories_[0].epochs == EPOCHS


def test_a_checkpoint_is_no_fitted_estimator(checkpoint, frame, tmp_path):
    with pytest.raises(gpumlp.FileError, match=r"not fitted yet: gpumlp\.resume goes on with it"):
        gpumlp.load(checkpoint)
    model = resumed(checkpoint, tmp_path / "a")
    with pytest.raises(ValueError, match="not fitted"):
        model.predict(frame)
    path = tmp_path / "fitted.safetensors"
    gpumlp.save(fitted(TabularClassifier, frame), path)
    with pytest.raises(gpumlp.FileError, match="no training to go on with"):
        gpumlp.resume(path)


@pytest.mark.parametrize(
    ("entry", "value", "says"),
    [
        ("seconds", -1.0, "fit.seconds is -1.0"),
        ("rows", 0, "fit.rows is 0"),
        ("rng", None, "fit.rng is None"),
        ("features", ["a"], "inputs"),
        ("classes", None, "classes = None"),
        ("best_epochs", [{"array": "steps"}], "0 of 1 stacks|1 of 1 stacks"),
        ("more", 1, "not known"),
    ],
)
def test_damaged_checkpoints(entry, value, says, checkpoint, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    shutil.copy(checkpoint, path)

    def damage(description, arrays):
        keys, values = description["tabular"]["fit"]["dict"]
        if entry in keys:
            values[keys.index(entry)] = value
        else:
            keys.append(entry)
            values.append(value)

    rewrite(path, damage)
    with pytest.raises(gpumlp.FileError, match=says):
        gpumlp.resume(path)
