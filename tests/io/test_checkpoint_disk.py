"""Checkpoints on a disk that fails, and the temporary files of writers that died."""

import errno
import fcntl
import os
import stat

import pytest

import gpumlp
import gpumlp.io.checkpoint
from gpumlp.training import plot
from gpumlp.utils import atomic
from tests.helpers.checkpointing import (
    differences,
    epochs,
    fit,
    make,
    names,
    resume,
    temporaries,
    train,
)

CASE = "one cycle"


# --- writing fails --------------------------------------------------------------------------------


def is_folder(handle):
    return stat.S_ISDIR(os.fstat(handle).st_mode)


class Disk:
    """Lets calls of one function of os fail, of those to which `when` says yes."""

    def __init__(self, monkeypatch, name, error, when=lambda *arguments: True):
        self.broken, self.failures = True, 0
        call = getattr(os, name)

        def maybe(*arguments):
            if self.broken and when(*arguments):
                self.failures += 1
                raise OSError(error, os.strerror(error))
            return call(*arguments)

        monkeypatch.setattr(os, name, maybe)


class Full:
    """A file that takes some bytes and no more."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        self.file.write(data[:100])
        self.file.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_full_disk(tmp_path, monkeypatch, call):
    """From the third epoch on: the training goes on and is none the worse, the second checkpoint
    stays, nothing half-written does."""

    class FillsUp(gpumlp.Callback):
        def on_epoch_end(self, trainer, history):
            if history.epochs != 3:
                return
            if call == "write":
                fdopen = os.fdopen
                monkeypatch.setattr(os, "fdopen", lambda *of: Full(fdopen(*of)))
            else:
                Disk(monkeypatch, call, errno.ENOSPC)

    trainer = make(CASE)
    with pytest.warns(RuntimeWarning, match="not written: .*No space left.*goes on") as caught:
        fit(trainer, 5, [gpumlp.Checkpoint(tmp_path), FillsUp()])
    assert [f"after epoch {i} " in str(w.message) for i, w in enumerate(caught, 3)] == [True] * 3
    assert caught[0].filename == fit.__code__.co_filename  # where Trainer.fit was called
    assert not differences(trainer, plain(5))
    assert epochs(tmp_path) == [2] and not temporaries(tmp_path)


def plain(epochs):
    trainer = make(CASE)
    fit(trainer, epochs)
    return trainer


def test_a_disk_that_recovers(tmp_path, monkeypatch):
    disk = Disk(monkeypatch, "fsync", errno.ENOSPC)

    class Recovers(gpumlp.Callback):
        def on_epoch_end(self, trainer, history):
            disk.broken = history.epochs < 3

    with pytest.warns(RuntimeWarning, match="No space left"):
        fit(make(CASE), 4, [gpumlp.Checkpoint(tmp_path, every_epochs=2), Recovers()])
    assert disk.failures == 1
    assert epochs(tmp_path) == [4]


def test_what_was_due_is_tried_again_after_the_next_epoch(tmp_path, monkeypatch):
    disk = Disk(monkeypatch, "fsync", errno.EIO)

    class Recovers(gpumlp.Callback):
        def on_epoch_end(self, trainer, history):
            disk.broken = history.epochs < 4

    with pytest.warns(RuntimeWarning, match="Input/output error"):
        fit(make(CASE), 8, [gpumlp.Checkpoint(tmp_path, every_epochs=3, keep=9), Recovers()])
    assert epochs(tmp_path) == [4, 7, 8]


def test_an_old_checkpoint_that_cannot_be_removed(tmp_path, monkeypatch):
    def unlink(path, missing_ok=False):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    monkeypatch.setattr(gpumlp.io.checkpoint.Path, "unlink", unlink)
    with pytest.warns(RuntimeWarning, match="could not be removed: .*not permitted"):
        train(2, tmp_path)
    assert epochs(tmp_path) == [1, 2]


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_cannot_sync_a_folder(tmp_path, monkeypatch, error):
    disk = Disk(monkeypatch, "fsync", error, is_folder)
    trainer = train(2, tmp_path)
    assert disk.failures == 2
    assert not differences(resume(tmp_path), trainer)


def test_a_folder_that_may_not_be_opened_is_not_synced(tmp_path, monkeypatch):
    Disk(monkeypatch, "open", errno.EACCES, lambda path, flags, *mode: flags == os.O_RDONLY)
    train(2, tmp_path)
    assert epochs(tmp_path) == [2]


def test_a_folder_that_fails_to_sync(tmp_path, monkeypatch):
    Disk(monkeypatch, "fsync", errno.EIO, is_folder)
    with pytest.warns(RuntimeWarning, match="Input/output error"):
        train(1, tmp_path)


def test_a_file_is_synced_before_it_is_renamed_and_the_folder_after(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(handle):
        fsync(handle)
        size = os.fstat(handle).st_size
        events.append("folder" if is_folder(handle) else f"file of {size}")

    def noted_replace(source, target):
        replace(source, target)
        events.append(f"rename of {os.stat(target).st_size}")

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    train(1, tmp_path)
    size = (tmp_path / names(tmp_path)[0]).stat().st_size
    assert events == [f"file of {size}", f"rename of {size}", "folder"]


def test_the_files_mode_is_that_of_any_new_file(tmp_path):
    train(1, tmp_path)
    (tmp_path / "any").touch()
    modes = {file.stat().st_mode for file in tmp_path.iterdir()}
    assert len(modes) == 1


# --- folders that cannot be written to: an error before anything is trained -----------------------


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").touch()
    trainer = make(CASE)
    for place in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(OSError, match=r"checkpoints cannot be written: .*file"):
            fit(trainer, 1, [gpumlp.Checkpoint(place)])
    assert trainer.steps == 0


def test_a_folder_that_may_not_be_written_to(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere: an ordinary user is missing")
    tmp_path.chmod(0o500)
    trainer = make(CASE)
    with pytest.raises(PermissionError, match="checkpoints cannot be written"):
        fit(trainer, 1, [gpumlp.Checkpoint(tmp_path)])
    assert trainer.steps == 0


def test_a_read_only_file_system(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(gpumlp.io.checkpoint.tempfile, "TemporaryFile", refuse)
    trainer = make(CASE)
    with pytest.raises(OSError, match=r"checkpoints cannot be written: Read-only .*: '/") as caught:
        fit(trainer, 1, [gpumlp.Checkpoint(tmp_path)])
    assert caught.value.errno == errno.EROFS
    assert trainer.steps == 0


# --- temporary files ------------------------------------------------------------------------------


def test_temporary_files_of_the_dead_are_removed(tmp_path):
    dead = [".checkpoint-000003.safetensors.abc_1234.tmp", ".checkpoint-1.safetensors.x.tmp"]
    others = [".a.safetensors.abc_1234.tmp", ".checkpoint-000003.safetensors.swp", ".tmp", "b.tmp"]
    alive = ".checkpoint-000004.safetensors.def_1234.tmp"
    for name in [*dead, *others, alive]:
        (tmp_path / name).write_bytes(b"half a file")
    with open(tmp_path / alive, "r+b") as written:
        fcntl.flock(written, fcntl.LOCK_EX)  # as `atomic.write` does it
        train(1, tmp_path)
        assert names(tmp_path) == sorted([*others, alive, "checkpoint-000001.safetensors"])
    train(1, tmp_path)
    assert not (tmp_path / alive).exists()


def test_temporary_files_beside_one_file(tmp_path):
    for name in (".a.safetensors.x.tmp", ".b.safetensors.x.tmp"):
        (tmp_path / name).touch()
    train(1, tmp_path / "a.safetensors")
    assert names(tmp_path) == [".b.safetensors.x.tmp", "a.safetensors"]


def write_large_onnx(path, monkeypatch):
    pytest.importorskip("onnx")
    monkeypatch.setattr("gpumlp.io.onnx_file.ONE_FILE_BYTES", 0)
    gpumlp.export_onnx(gpumlp.MLP((2, 2), device="cpu"), path)


def write_onnx(path, monkeypatch):
    pytest.importorskip("onnx")
    gpumlp.export_onnx(gpumlp.MLP((2, 2), device="cpu"), path)


def draw_curves(path, monkeypatch):
    pytest.importorskip("matplotlib")
    plot.curves(gpumlp.History(), path)


def save_network(path, monkeypatch):
    gpumlp.save(gpumlp.MLP((2, 2), device="cpu"), path)


WRITERS = [save_network, write_onnx, write_large_onnx, draw_curves]


@pytest.mark.parametrize("write", WRITERS)
def test_a_folder_that_is_not_there(write, tmp_path, monkeypatch):
    """The error names the user's path, not the temporary file beside it."""
    monkeypatch.chdir(tmp_path)
    path = os.path.join("missing", "file.onnx")
    with pytest.raises(FileNotFoundError) as raised:
        write(path, monkeypatch)
    assert str(raised.value) == f"[Errno 2] No such file or directory: {path!r}"
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("write", WRITERS)
def test_a_folder_in_the_files_place(write, tmp_path, monkeypatch):
    path = tmp_path / "file.onnx"
    path.mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        write(path, monkeypatch)
    assert str(raised.value) == f"[Errno 21] Is a directory: {str(path)!r}"


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_failing_disk_is_told_with_the_path(call, tmp_path, monkeypatch):
    path = tmp_path / "network.safetensors"
    with monkeypatch.context() as patched, pytest.raises(OSError, match=r"\[Errno 5\]") as raised:
        Disk(patched, call, errno.EIO)
        save_network(path, monkeypatch)
    assert raised.value.filename == str(path) and raised.value.filename2 is None


def test_a_temporary_file_that_was_swept_before_it_was_locked(tmp_path, monkeypatch):
    """The writer sees that and makes another."""
    flock, swept = fcntl.flock, []

    def late(handle, how):
        if not swept:
            swept.extend(temporaries(tmp_path))
            swept[0].unlink()
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    atomic.write(tmp_path / "file", b"text")
    assert len(swept) == 1
    assert (tmp_path / "file").read_bytes() == b"text" and names(tmp_path) == ["file"]


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    """Nothing is known of temporary files there: they stay."""

    def flock(handle, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / ".checkpoint-000003.safetensors.abc_1234.tmp").touch()
    train(2, tmp_path)
    assert len(names(tmp_path)) == 2 and resume(tmp_path).epoch == 2
