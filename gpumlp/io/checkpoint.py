"""Checkpoints: the whole state of a training in files, and going on from the newest."""

from __future__ import annotations

import os
import re
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from gpumlp.io import files
from gpumlp.io.codec import CHECKPOINT
from gpumlp.io.errors import FileError
from gpumlp.training.callback import Callback
from gpumlp.training.trainer import Trainer
from gpumlp.utils import atomic, checks

SUFFIX = ".safetensors"
LOOKS = 10  # into a folder that seems to be empty
NUMBERED = re.compile(r"checkpoint-(\d+)" + re.escape(SUFFIX))


class Checkpoint(Callback):
    """Writes the whole state of the training at the end of epochs, so that `resume` can go on.

    folder_or_path: a folder for files checkpoint-000001.safetensors, ...; or one file of any name
                    that ends in .safetensors, which is replaced each time.
    every_epochs:   written after so many epochs,
    every_minutes:  but not before so many minutes have passed since the last.
    keep:           in a folder, the newest so many files stay.

    The last epoch of a fit is always written, and so is the state in which Ctrl-C ended it, in the
    midst of an epoch too; but of an estimator only ends of epochs are.  A file appears under its
    name only when it is complete and on the disk.  What cannot be written gives a warning: the
    training goes on, and the checkpoint before stays.
    Each running fit needs a folder of its own.
    """

    _file_arguments = CHECKPOINT
    goes_last = True  # the state that is written has the other callbacks' view of the epoch

    def __init__(self, folder_or_path, every_epochs: int = 1, every_minutes=None, keep: int = 1):
        self.every_epochs = checks.number(every_epochs, "every_epochs", checks.COUNT)
        self.every_minutes = checks.number(every_minutes, "every_minutes", checks.POSITIVE, True)
        self.keep = checks.number(keep, "keep", checks.COUNT)
        self.folder_or_path = os.fspath(checks.path(folder_or_path, "folder_or_path"))
        self._place = _place(self.folder_or_path)
        if self.keep > 1 and isinstance(self._place, _OneFile):
            raise ValueError(f"keep = {keep}: {folder_or_path} is one file; give a folder")
        self._written: tuple[int, int] | None = None  # epoch, and batches of the one begun

    def on_fit_begin(self, trainer, history):
        if trainer.owner is None:
            files.check_storable(trainer)
        folder = self._place.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            reason = f"checkpoints cannot be written: {error.strerror}"
            raise OSError(error.errno, reason, str(folder)) from error
        atomic.sweep(folder, self._place.owns)
        self._epoch, self._time, self._written = trainer.epoch, time.monotonic(), None

    def on_epoch_end(self, trainer, history):
        ending = trainer.epochs_left == 0 or trainer.stopping
        if ending or (self._epochs_passed(trainer) and self._minutes_passed()):
            self.write(trainer)

    def on_interrupt(self, trainer, history):
        # An estimator's epoch is in scikit-learn's order, which is drawn when it begins: only its
        # end is a place to go on from.
        if trainer.owner is None and self._written != (trainer.epoch, trainer.batches_done):
            self.write(trainer)

    def _epochs_passed(self, trainer) -> bool:
        return trainer.epoch - self._epoch >= self.every_epochs

    def _minutes_passed(self) -> bool:
        minutes = (time.monotonic() - self._time) / 60
        return self.every_minutes is None or minutes >= self.every_minutes

    def write(self, trainer):
        """Write a checkpoint now, and remove those that are too many."""
        path = self._place.next()
        try:
            files.save(trainer.owner or trainer, path, fit=True)
        except OSError as error:
            self._warn(f"the checkpoint after epoch {trainer.epoch} was not written: {error}")
            return
        self._written = trainer.epoch, trainer.batches_done
        self._epoch, self._time = trainer.epoch, time.monotonic()
        for old in self._place.newest_first()[self.keep :]:
            try:
                old.unlink(missing_ok=True)
            except OSError as error:
                self._warn(f"an old checkpoint could not be removed: {error}")

    def _warn(self, message):
        warnings.warn(f"{message}; the training goes on", RuntimeWarning, stacklevel=7)


def _moved(arguments: dict[str, Any], folder_or_path: Path) -> Checkpoint:
    """A Checkpoint with these arguments, but for where it writes."""
    keep = 1 if isinstance(_place(folder_or_path), _OneFile) else arguments["keep"]
    return Checkpoint(**arguments | {"folder_or_path": folder_or_path, "keep": keep})


def resume(folder_or_path, device: str = "auto", custom: dict[str, Any] | None = None):
    """The trainer or estimator of the newest complete checkpoint; its next `fit` goes on with the
    fit that was cut short, and ends as that would have:

        trainer = gpumlp.resume("runs/digits")
        trainer.fit(x, y, epochs=trainer.epochs_left, callbacks=[gpumlp.Checkpoint("runs/digits")])

        classifier = gpumlp.resume("runs/digits").fit(X, y)

    with the same data, and callbacks of the same classes; an estimator has them among its
    parameters, and its `Checkpoint` goes on writing to this folder.  device, custom: see `load`.

    A file that cannot be loaded is passed over with a warning that says why.  Raises
    FileNotFoundError if there is no checkpoint, FileError if none of them can be loaded.
    """
    folder_or_path = checks.path(folder_or_path, "folder_or_path")
    place = _place(folder_or_path)
    while found := _look(place):
        refused: dict[Path, Exception] = {}
        try:
            for path in found:
                trainer = _load(path, folder_or_path, device, custom, refused)
                if trainer is not None:
                    return trainer
        except FileNotFoundError:
            if path.exists():
                raise
            continue  # a running fit has written a newer one and removed this: look again
        newest, why = next(iter(refused.items()))
        others = f"; nor can the {len(found) - 1} before it" if len(found) > 1 else ""
        raise FileError(f"{newest} cannot be resumed: {why}{others}") from why
    raise FileNotFoundError(f"{folder_or_path}: there is no checkpoint")


def _look(place) -> list[Path]:
    """The checkpoints, newest first.  None are found only if there are none: a running fit may have
    replaced the one that there was while the folder was read."""
    for _ in range(LOOKS):
        if found := place.newest_first():
            return found
    return []


def _load(path: Path, place: Path, device, custom, refused: dict[Path, Exception]):
    """The trainer or estimator of a file, or None and an entry in refused."""
    try:
        found = files.read(path, device, custom, lambda arguments: _moved(arguments, place))
        if not isinstance(found, Trainer) and not hasattr(found, "_unfinished"):
            raise FileError(f"{path} holds no training to go on with")
    except FileNotFoundError:
        raise
    except (FileError, OSError) as error:
        refused[path] = error
        return None
    for newer, why in refused.items():
        warnings.warn(
            f"{newer} is passed over, {path.name} is taken: {why}", RuntimeWarning, stacklevel=3
        )
    if isinstance(found, Trainer):
        found.resuming = True
    else:
        found._resuming = True
    return found


# ---------------------------------------------------------------- where checkpoints are
def _place(folder_or_path) -> _OneFile | _Folder:
    path = Path(folder_or_path)
    return _OneFile(path) if path.suffix == SUFFIX and not path.is_dir() else _Folder(path)


class _OneFile:
    def __init__(self, path: Path):
        self.path, self.folder = path, path.parent

    def owns(self, name: str) -> bool:
        return name == self.path.name

    def next(self) -> Path:
        return self.path

    def newest_first(self) -> list[Path]:
        return [self.path] if self.path.is_file() else []


class _Folder:
    """Numbers go up with every file that is written, also over several runs, so that the newest is
    the one with the highest: clocks may be wrong, and epochs begin anew in another run."""

    def __init__(self, folder: Path):
        self.folder = folder

    def owns(self, name: str) -> bool:
        return NUMBERED.fullmatch(name) is not None

    def next(self) -> Path:
        newest = self.newest_first()[:1]
        number = max((_number(path) for path in newest), default=0) + 1
        return self.folder / f"checkpoint-{number:06d}{SUFFIX}"

    def newest_first(self) -> list[Path]:
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        owned = (path for path in found if self.owns(path.name) and path.is_file())
        return sorted(owned, key=_number, reverse=True)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("checkpoint-"))
