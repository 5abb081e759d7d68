"""The files of checkpoints: when they are written, which stay, and what can go wrong with them.

That a resumed run ends as it should is in test_resume.py; failing disks are in
test_checkpoint_disk.py, kills in test_checkpoint_kills.py.
"""

import errno
import json
import os
import threading
import types

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import gpumlp
import gpumlp.io.checkpoint
from gpumlp.utils.checks import ParameterError
from tests.helpers.checkpointing import differences, epochs, fit, make, names, resume, train

CASE = "one cycle"


# --- when, and which stay -------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_stay(tmp_path, keep):
    train(7, tmp_path, keep=keep)
    assert epochs(tmp_path) == [5, 6, 7][-keep:]
    expected = [f"checkpoint-00000{i}.safetensors" for i in (5, 6, 7)]
    assert names(tmp_path) == expected[-keep:]


def test_every_few_epochs_and_the_last(tmp_path):
    train(8, tmp_path, every_epochs=3, keep=9)
    assert epochs(tmp_path) == [3, 6, 8]


def test_the_last_epoch_is_that_in_which_all_were_stopped(tmp_path):
    trainer = make(CASE)
    early = gpumlp.EarlyStopping(1, delta=1e9)  # nothing is better than the first
    fit(trainer, 8, [gpumlp.Checkpoint(tmp_path, every_epochs=5, keep=9), early])
    assert trainer.epoch == 2 and epochs(tmp_path) == [2]


def test_every_few_minutes(tmp_path, monkeypatch):
    """The clock is made to go half a minute each time it is looked at: once at the beginning, once
    an epoch, and once more after each checkpoint."""
    seconds = iter(range(0, 10_000, 30))
    clock = types.SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr(gpumlp.io.checkpoint, "time", clock)
    train(7, tmp_path, every_minutes=1.5, keep=9)
    assert epochs(tmp_path) == [3, 6, 7]


def test_one_file(tmp_path):
    path = tmp_path / "a.safetensors"
    trainer = train(3, str(path))
    assert names(tmp_path) == ["a.safetensors"]
    assert not differences(resume(path), trainer)


def test_a_folder_that_is_named_like_a_file(tmp_path):
    folder = tmp_path / "a.safetensors"
    folder.mkdir()
    train(3, folder)
    assert names(folder) == ["checkpoint-000003.safetensors"]
    assert resume(folder).epoch == 3


def test_folders_are_made(tmp_path):
    train(1, tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == ["checkpoint-000001.safetensors"]


def test_a_new_run_in_the_folder_of_an_old_one(tmp_path):
    """The newest is that of the new run, though it has fewer epochs; other files are left alone."""
    for name in ("notes.txt", "checkpoint-7.safetensors.bak", "my-checkpoint-9.safetensors"):
        (tmp_path / name).write_text("mine")
    train(9, tmp_path)
    new = train(2, tmp_path, keep=2)
    assert not differences(resume(tmp_path), new)
    assert len(names(tmp_path)) == 3 + 2


def test_numbers_beyond_six_digits(tmp_path):
    train(1, tmp_path)
    (tmp_path / "checkpoint-000001.safetensors").rename(tmp_path / "checkpoint-999999.safetensors")
    train(2, tmp_path, keep=2)
    assert names(tmp_path) == [f"checkpoint-100000{i}.safetensors" for i in (0, 1)]
    assert resume(tmp_path).epoch == 2


def test_metadata_of_the_network_is_kept(tmp_path):
    trainer = make(CASE)
    trainer.net.metadata = {"classes": ["a", "b"]}
    fit(trainer, 1, [gpumlp.Checkpoint(tmp_path)])
    assert resume(tmp_path).net.metadata == {"classes": ["a", "b"]}


class Noting(gpumlp.Callback):
    """Remembers something from the first epoch on."""

    def __init__(self, numbers):
        self.numbers, self.epochs = numbers, 0

    def on_epoch_end(self, trainer, history):
        self.epochs += 1

    def state(self):
        return self.numbers, {}


def test_metadata_that_json_cannot_hold_end_no_fit(tmp_path):
    """The fit does not begin; to end it at the first checkpoint would lose its epochs."""
    trainer, noting = make(CASE), Noting({})
    trainer.net.metadata["units"] = {"x": {1, 2}}
    callbacks = [gpumlp.Checkpoint(tmp_path / "new"), noting]
    with pytest.raises(ParameterError, match=r"^net\.metadata\['units'\]\['x'\] = .* of type set"):
        fit(trainer, 3, callbacks)
    assert (trainer.epoch, noting.epochs) == (0, 0) and not list(tmp_path.iterdir())
    fit(trainer, 1)  # without checkpoints they do not matter


def test_a_callbacks_state_that_json_cannot_hold_ends_no_fit(tmp_path):
    trainer, noting = make(CASE), Noting({"seen": np.int64(7)})
    callbacks = [gpumlp.Checkpoint(tmp_path / "new"), noting]
    with pytest.raises(ParameterError, match=r"^the state of Noting\['seen'\] = .* of type int64"):
        fit(trainer, 3, callbacks)
    assert noting.epochs == 0
    noting.numbers = {}
    fit(trainer, 1, callbacks)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"every_epochs": 0}, "every_epochs = 0"),
        ({"every_epochs": 1.5}, "every_epochs = 1.5"),
        ({"keep": 0}, "keep = 0"),
        ({"every_minutes": 0}, "every_minutes = 0"),
        ({"every_minutes": float("nan")}, "every_minutes = nan"),
        ({"folder_or_path": "a.safetensors", "keep": 2}, "keep = 2: a.safetensors is one file"),
    ],
)
def test_arguments_that_make_no_checkpoint(arguments, message):
    with pytest.raises(ValueError, match=message):
        gpumlp.Checkpoint(**{"folder_or_path": "runs"} | arguments)


# --- broken files ---------------------------------------------------------------------------------


def cut(part):
    def damage(path):
        os.truncate(path, int(part * path.stat().st_size))

    return damage


def flip(path):
    """One bit of the last array."""
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)


def not_ours(path):
    save_file({"W.1": np.zeros(3)}, path)


def newer(path):
    """As a later version might write it."""
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}
        about = json.loads(file.metadata()["gpumlp"])
    about["version"] += 1
    save_file(arrays, path, metadata={"gpumlp": json.dumps(about)})


def only_a_network(path):
    gpumlp.save(make(CASE).net, path)


DAMAGE = {
    "empty": (cut(0), "cut short"),
    "within the header": (cut(0.1), "cut short"),
    "within the arrays": (cut(0.9), "cut short"),
    "a bit": (flip, "altered"),
    "not ours": (not_ours, "not written by gpumlp"),
    "newer": (newer, "newer gpumlp"),
    "a network": (only_a_network, "no training"),
}


@pytest.mark.parametrize("damage, reason", DAMAGE.values(), ids=DAMAGE)
def test_a_broken_newest_file_is_passed_over(tmp_path, damage, reason):
    train(4, tmp_path, keep=3)
    damage(tmp_path / "checkpoint-000004.safetensors")
    with pytest.warns(RuntimeWarning, match=reason) as caught:
        trainer = resume(tmp_path)
    assert trainer.epoch == 3
    (warning,) = caught
    assert "checkpoint-000004" in str(warning.message)
    assert "checkpoint-000003" in str(warning.message)
    assert warning.filename == resume.__code__.co_filename  # where gpumlp.resume was called


def test_several_broken_files(tmp_path):
    train(4, tmp_path, keep=3)
    flip(tmp_path / "checkpoint-000004.safetensors")
    cut(0.5)(tmp_path / "checkpoint-000003.safetensors")
    with pytest.warns(RuntimeWarning) as caught:
        assert resume(tmp_path).epoch == 2
    assert len(caught) == 2
    flip(tmp_path / "checkpoint-000002.safetensors")
    with pytest.raises(gpumlp.FileError, match=r"000004.* was altered.*nor can the 2 before it"):
        resume(tmp_path)


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    train(2, tmp_path, keep=2)
    read = gpumlp.io.files.read

    def fails(path, *arguments, **options):
        if path.name == "checkpoint-000002.safetensors":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read(path, *arguments, **options)

    monkeypatch.setattr(gpumlp.io.files, "read", fails)
    with pytest.warns(RuntimeWarning, match="Input/output error"):
        assert resume(tmp_path).epoch == 1


@pytest.mark.parametrize("name", ["missing", "missing.safetensors", ""])
def test_no_checkpoint(tmp_path, name):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        resume(tmp_path / name)


def test_a_link_to_nowhere_is_no_checkpoint(tmp_path):
    (tmp_path / "checkpoint-000001.safetensors").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        resume(tmp_path)


# --- readers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [".", "a.safetensors"])
def test_readers_always_find_a_complete_checkpoint(tmp_path, place):
    """While it is replaced all the time; no reader sees an older one than before."""
    train(1, tmp_path / place)
    seen = [[], []]
    ended = threading.Event()

    def read(found):
        while not ended.is_set():
            found.append(resume(tmp_path / place).epoch)

    def enough(found):
        return len(set(found)) >= 6

    readers = [threading.Thread(target=read, args=(found,)) for found in seen]
    trainer = resume(tmp_path / place)
    for reader in readers:
        reader.start()
    try:
        while not all(map(enough, seen)) and all(reader.is_alive() for reader in readers):
            fit(trainer, 20, [gpumlp.Checkpoint(tmp_path / place)])
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    for found in seen:
        assert enough(found) and found == sorted(found)


def test_a_checkpoint_that_is_removed_while_it_is_looked_for(tmp_path, monkeypatch):
    train(1, tmp_path)
    read, asked = gpumlp.io.files.read, []

    def slow(path, *arguments, **options):
        asked.append(path.name)
        if len(asked) == 1:
            train(2, tmp_path)
        return read(path, *arguments, **options)

    monkeypatch.setattr(gpumlp.io.files, "read", slow)
    assert resume(tmp_path).epoch == 2
    assert asked == [f"checkpoint-00000{i}.safetensors" for i in (1, 3)]


def test_a_file_that_is_missing_for_another_reason_is_no_endless_search(tmp_path, monkeypatch):
    def read(path, *arguments, **options):
        raise FileNotFoundError("libsomething.so")

    train(1, tmp_path)
    monkeypatch.setattr(gpumlp.io.files, "read", read)
    with pytest.raises(FileNotFoundError, match="libsomething"):
        resume(tmp_path)


def test_a_folder_that_seems_to_be_empty_for_a_moment(tmp_path, monkeypatch):
    """As when the newest is replaced while the folder is read."""
    train(1, tmp_path)
    folder, looks = gpumlp.io.checkpoint._Folder, []
    newest_first = folder.newest_first

    def blink(self):
        looks.append(self)
        return [] if len(looks) < 3 else newest_first(self)

    monkeypatch.setattr(folder, "newest_first", blink)
    assert resume(tmp_path).epoch == 1
