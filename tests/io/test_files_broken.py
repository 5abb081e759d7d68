"""Files that were altered, cut or are not ours, and writing that fails."""

import json
import os
import pathlib

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import gpumlp
from tests.helpers.comparison import to_numpy
from tests.helpers.saving import DATA, X, assert_same_network, make_network, make_trainer, rewrite
from tests.helpers.training import fit

# --- files that are not what they should be -------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A trainer, and its file."""
    trainer = make_trainer(models=2)
    fit(trainer, **DATA, epochs=2)
    path = tmp_path_factory.mktemp("saved") / "trainer"
    gpumlp.save(trainer, path, metadata={"a": 1})
    return trainer, path.read_bytes()


def assert_same_trainer(a, b):
    assert_same_network(a.net, b.net)
    for name in a.state.buffers:
        np.testing.assert_array_equal(
            to_numpy(a.state.buffers[name]), to_numpy(b.state.buffers[name])
        )
    np.testing.assert_array_equal(a.steps, b.steps)
    np.testing.assert_array_equal(a.history.loss, b.history.loss)
    assert a.optimizer.state() == b.optimizer.state()


def test_every_altered_byte_is_noticed(saved, tmp_path):
    """One bit anywhere: in the length, the description, its padding, the numbers."""
    trainer, content = saved
    path, refused = tmp_path / "altered", 0
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(content[:8], "little")
    places = [*range(9), *rng.integers(8, header, 120), *rng.integers(header, len(content), 80)]
    for place in map(int, places):
        altered = bytearray(content)
        altered[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(altered)
        try:
            loaded = gpumlp.load(path)
        except gpumlp.FileError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert_same_trainer(loaded, trainer)  # white space of the description, perhaps
    assert refused > len(places) - 10


def test_every_cut_is_noticed(saved, tmp_path):
    _, content = saved
    path = tmp_path / "cut"
    rng = np.random.default_rng(0)
    for length in (*range(10), *rng.integers(10, len(content), 40), len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(gpumlp.FileError, match="cut short") as raised:
            gpumlp.load(path)
        assert str(path) in str(raised.value)


def test_bytes_behind_the_end_are_noticed(saved, tmp_path):
    path = tmp_path / "longer"
    path.write_bytes(saved[1] + b"\0")
    with pytest.raises(gpumlp.FileError):
        gpumlp.load(path)


FOREIGN = {
    "nothing": b"",
    "text": b"This is not a network.\n" * 10,
    "zeros": bytes(1000),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "a pickle": b"\x80\x04\x95" + bytes(100),
    "a zip": b"PK\x03\x04" + bytes(100),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files(kind, tmp_path):
    path = tmp_path / "foreign"
    path.write_bytes(FOREIGN[kind])
    with pytest.raises(gpumlp.FileError, match="cut short, or not a safetensors file"):
        gpumlp.load(path)


def described(saved, tmp_path, description):
    """The file with another description."""
    source, path = tmp_path / "source", tmp_path / "described"
    source.write_bytes(saved[1])
    with safe_open(source, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}
        about = json.loads(file.metadata()["gpumlp"])
    save_file(arrays, path, metadata=description(about))
    return path


@pytest.mark.parametrize(
    "description, said",
    [
        (lambda about: None, "was not written by gpumlp"),
        (lambda about: {"format": "pt"}, "was not written by gpumlp"),
        (lambda about: {"gpumlp": json.dumps(about | {"version": 2})}, "newer gpumlp: version 2"),
        (lambda about: {"gpumlp": json.dumps(about | {"version": "x"})}, "was altered"),
        (lambda about: {"gpumlp": json.dumps(about | {"version": None})}, "was altered"),
        (lambda about: {"gpumlp": json.dumps(about | {"version": 0})}, "was altered"),
        (lambda about: {"gpumlp": json.dumps(about | {"more": 1})}, "was altered"),
        (lambda about: {"gpumlp": json.dumps(about)[:-5]}, "was altered"),
        (lambda about: {"gpumlp": "[1, 2]"}, "was altered"),
        (lambda about: {"gpumlp": "{}"}, "was altered"),
        (lambda about: {"gpumlp": ""}, "was altered"),
    ],
)
def test_descriptions_that_are_not_ours(saved, description, said, tmp_path):
    path = described(saved, tmp_path, description)
    with pytest.raises(gpumlp.FileError, match=said) as raised:
        gpumlp.load(path)
    assert str(path) in str(raised.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        gpumlp.load(tmp_path / "nowhere")
    with pytest.raises(OSError, match=str(tmp_path)):
        gpumlp.load(tmp_path)


def test_what_cannot_be_saved(tmp_path):
    for what in (None, X, {"W": X}, gpumlp.Adam()):
        with pytest.raises(TypeError, match="save takes a network or a Trainer"):
            gpumlp.save(what, tmp_path / "file")
    with pytest.raises(TypeError):
        gpumlp.save(make_network("cpu"), tmp_path / "file", metadata={"x": X})
    assert os.listdir(tmp_path) == []


# --- writing that fails ---------------------------------------------------------------------------


def test_a_folder_that_is_not_there(tmp_path):
    path = tmp_path / "missing" / "net"
    with pytest.raises(FileNotFoundError, match=str(path.parent)):
        gpumlp.save(make_network("cpu"), path)


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "net").mkdir()
    with pytest.raises(OSError, match="net"):
        gpumlp.save(make_network("cpu"), tmp_path / "net")
    assert os.listdir(tmp_path) == ["net"]


@pytest.mark.parametrize("fails", ["fsync", "replace", "fdopen"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_the_old_file_survives_a_save_that_fails(fails, error, tmp_path, monkeypatch):
    path = tmp_path / "net"
    old = make_network("cpu")
    gpumlp.save(old, path)

    def fail(*arguments):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, fails, fail)
        with pytest.raises(type(error)):
            gpumlp.save(make_network("cpu", seed=99), path)
    assert os.listdir(tmp_path) == ["net"]
    assert_same_network(gpumlp.load(path), old)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_file_has_the_mode_of_any_other(tmp_path, monkeypatch, mask):
    """Without a moment in which the process has another umask: other threads make files, too."""
    before = os.umask(mask)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", None)
            gpumlp.save(make_network("cpu"), tmp_path / "net")
        pathlib.Path(tmp_path / "plain").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "net").stat().st_mode == (tmp_path / "plain").stat().st_mode


# --- files that say what cannot be, under a digest that fits --------------------------------------


def place(*keys):
    """A change of the value at that place of the description."""

    def changed(value):
        def change(about, arrays):
            inner = about
            for key in keys[:-1]:
                inner = inner[key]
            assert keys[-1] in inner
            inner[keys[-1]] = value

        return change

    return changed


def number(name, value):
    """A change of the first number of an array."""

    def change(about, arrays):
        arrays[name].flat[0] = value

    return change


# What is wrong, and what the message names.
IMPOSSIBLE = {
    "more updates than asked for": (number("steps", 10**6), "steps"),
    "updates below none": (number("steps", -1), "steps"),
    "an end that never was": (number("halted", 10**6), "halted"),
    "a rate below 0": (number("lr", -1.0), "lr"),
    "moments that are none": (number("optimizer.first.W.1", np.nan), r"optimizer\.first\.W\.1"),
    "squares below 0": (number("optimizer.second.b.2", -1.0), r"optimizer\.second\.b\.2"),
    "a history of one": (place("trainer", "history", "loss")([1.0]), r"history\.loss"),
    "a history of three": (place("trainer", "history", "lr")([[1.0] * 3]), r"history\.lr"),
    "an infinite rate": (place("trainer", "optimizer", "lr")(float("inf")), r"optimizer\.lr"),
    "a text": (place("trainer", "loss", "parameters")({"label_smoothing": "0"}), "label_smoothing"),
    "a class for a schedule": (
        place("trainer", "schedule")({"name": "step", "parameters": {"every": -1}, "own": False}),
        "Step",
    ),
    "a plateau's memory": (place("trainer", "rates", "memory")({"factor": [0.5]}), "memory"),
    "a factor above 1": (place("trainer", "rates", "memory")({"factor": [2.0, 1.0]}), "factor"),
    "no such weights": (place("network", "models")(10**7), "W.1"),
}  # fmt: skip


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_cannot_be(saved, what, tmp_path):
    change, said = IMPOSSIBLE[what]
    path = tmp_path / "file"
    path.write_bytes(saved[1])
    rewrite(path, change)
    with pytest.raises(gpumlp.FileError, match=said):
        gpumlp.load(path)


def test_constants_that_the_dtype_cannot_hold(device):
    slope = gpumlp.activations["leaky_relu"](slope=1e300)
    gpumlp.MLP((2, 3, 2), slope, dtype="float64", device=device)
    with pytest.raises(ValueError, match=r"leaky_relu.*not finite in float32"):
        gpumlp.MLP((2, 3, 2), slope, dtype="float32", device=device)


def test_an_epoch_of_any_length_takes_no_memory(tmp_path):
    """Only what the batches that were done have left is in the file."""
    trainer, path = make_trainer(), tmp_path / "file"
    fit(trainer, **DATA, epochs=1)
    trainer.state.batches_done = 1
    trainer.epochs_left = 2
    gpumlp.save(trainer, path, fit=True)
    rewrite(path, place("trainer", "rates", "steps_per_epoch")(1 << 50))
    assert gpumlp.load(path).batches_done == 1
