"""Checkpoints: the whole state of a training in files, and going on from the newest."""

from __future__ import annotations

import os
import re
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpumlp.io import files
from gpumlp.io.codec import CHECKPOINT
from gpumlp.io.errors import FileError
from gpumlp.training.callback import Callback
from gpumlp.training.trainer import Trainer
from gpumlp.utils import atomic, checks

if TYPE_CHECKING:
    from gpumlp.estimators.base import BaseMLP
    from gpumlp.estimators.tabular.tabular_base import BaseTabular
    from gpumlp.training.history import History

SUFFIX = ".safetensors"
LOOKS = 10  # into a folder that seems to be empty
NUMBERED = re.compile(r"checkpoint-(\d+)" + re.escape(SUFFIX))


class Checkpoint(Callback):
    """A checkpoint holds the whole state of a training, so that `resume` can go on with it.

    This callback writes one at the end of epochs.  The last epoch of a fit is always written, and
    so is the state in which Ctrl-C ended it, in the midst of an epoch too; but of an MLPClassifier
    or MLPRegressor only ends of epochs are.

    Parameters
    ----------
    folder_or_path : str or os.PathLike
        A folder for files checkpoint-000001.safetensors, ...; or one file of any name that ends in
        .safetensors, which is replaced each time.  Each running fit needs a folder of its own.
    every_epochs : int, default 1
        A file is written after so many epochs,
    every_minutes : float, optional
        but not before so many minutes have passed since the last.
    keep : int, default 1
        Of a folder, the newest so many files stay.

    Raises
    ------
    ValueError
        For numbers that are out of range, and for `keep` above 1 with one file.
    OSError
        By `fit`, when it begins, where nothing can be written.

    Notes
    -----
    A file appears under its name only when it is complete and on the disk.  What cannot be written
    gives a warning: the training goes on, and the checkpoint before stays.
    """

    _file_arguments = CHECKPOINT
    goes_last = True  # the state that is written has the other callbacks' view of the epoch

    def __init__(
        self,
        folder_or_path: str | os.PathLike[str],
        every_epochs: int = 1,
        every_minutes: float | None = None,
        keep: int = 1,
    ) -> None:
        self.every_epochs = checks.number(every_epochs, "every_epochs", checks.COUNT)
        self.every_minutes = checks.number(every_minutes, "every_minutes", checks.POSITIVE, True)
        self.keep = checks.number(keep, "keep", checks.COUNT)
        self.folder_or_path = os.fspath(checks.path(folder_or_path, "folder_or_path"))
        self._place = _place(self.folder_or_path)
        if self.keep > 1 and isinstance(self._place, _OneFile):
            raise ValueError(f"keep = {keep}: {folder_or_path} is one file; give a folder")
        self._written: tuple[int, int] | None = None  # epoch, and batches of the one begun

    def on_fit_begin(self, trainer: Trainer, history: History) -> None:
        if _stores_trainer(trainer):
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

    def on_epoch_end(self, trainer: Trainer, history: History) -> None:
        ending = trainer.epochs_left == 0 or trainer.stopping
        if ending or (self._epochs_passed(trainer) and self._minutes_passed()):
            self.write(trainer)

    def on_interrupt(self, trainer: Trainer, history: History) -> None:
        # Where an estimator's epoch is in scikit-learn's order, which is drawn when it begins, only
        # its end is a place to go on from.
        if _stores_trainer(trainer) and self._written != (trainer.epoch, trainer.batches_done):
            self.write(trainer)

    def _epochs_passed(self, trainer: Trainer) -> bool:
        return trainer.epoch - self._epoch >= self.every_epochs

    def _minutes_passed(self) -> bool:
        minutes = (time.monotonic() - self._time) / 60
        return self.every_minutes is None or minutes >= self.every_minutes

    def write(self, trainer: Trainer) -> None:
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

    def _warn(self, message: str) -> None:
        warnings.warn(f"{message}; the training goes on", RuntimeWarning, stacklevel=7)


def _stores_trainer(trainer: Trainer) -> bool:
    """Whether the file holds the trainer itself, whatever estimator's it is."""
    return trainer.owner is None or trainer.owner.stores_trainer


def _moved(arguments: dict[str, Any], folder_or_path: Path) -> Checkpoint:
    """A Checkpoint with these arguments, but for where it writes."""
    keep = 1 if isinstance(_place(folder_or_path), _OneFile) else arguments["keep"]
    return Checkpoint(**arguments | {"folder_or_path": folder_or_path, "keep": keep})


def resume(
    folder_or_path: str | os.PathLike[str],
    device: str = "auto",
    custom: dict[str, Any] | None = None,
) -> Any:
    """Load the newest complete checkpoint of a fit that was cut short.

    The next `fit` goes on with that one, and ends as it would have, with the same data, and
    callbacks of the same classes.  An estimator has them among its parameters, and its `Checkpoint`
    goes on writing to this folder.

    Parameters
    ----------
    folder_or_path : str or os.PathLike
        As of `Checkpoint`.
    device, custom
        As of `load`.

    Returns
    -------
    Trainer, MLPClassifier, MLPRegressor, TabularClassifier or TabularRegressor
        A TabularClassifier or TabularRegressor is not fitted before that.

    Raises
    ------
    FileNotFoundError
        Where there is no checkpoint.
    FileError
        Where none of them can be loaded.

    Warns
    -----
    RuntimeWarning
        For a file that cannot be loaded and is passed over.

    Examples
    --------
    >>> trainer = gpumlp.resume("runs/digits")
    >>> checkpoint = gpumlp.Checkpoint("runs/digits")
    >>> trainer.fit(x, y, epochs=trainer.epochs_left, callbacks=[checkpoint])

    >>> classifier = gpumlp.resume("runs/digits").fit(X, y)
    """
    folder_or_path = checks.path(folder_or_path, "folder_or_path")
    place = _place(folder_or_path)
    while paths := _look(place):
        refused: dict[Path, Exception] = {}
        try:
            for path in paths:
                trainer = _load(path, folder_or_path, device, custom, refused)
                if trainer is not None:
                    return trainer
        except FileNotFoundError:
            if path.exists():
                raise
            continue  # a running fit has written a newer one and removed this: look again
        newest, why = next(iter(refused.items()))
        others = f"; nor can the {len(paths) - 1} before it" if len(paths) > 1 else ""
        raise FileError(f"{newest} cannot be resumed: {why}{others}") from why
    raise FileNotFoundError(f"{folder_or_path}: there is no checkpoint")


def _look(place: _OneFile | _Folder) -> list[Path]:
    """The checkpoints, newest first.  None are found only if there are none: a running fit may have
    replaced the one that there was while the folder was read."""
    for _ in range(LOOKS):
        if paths := place.newest_first():
            return paths
    return []


def _load(
    path: Path,
    place: Path,
    device: str,
    custom: dict[str, Any] | None,
    refused: dict[Path, Exception],
) -> Trainer | BaseMLP | BaseTabular | None:
    """The trainer or estimator of a file, or None and an entry in refused."""
    try:
        trained = files.read(path, device, custom, lambda arguments: _moved(arguments, place))
        if not isinstance(trained, Trainer) and not hasattr(trained, "_unfinished"):
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
    if isinstance(trained, Trainer):
        trained.resuming = True
    else:
        trained._resuming = True
    return trained


# ---------------------------------------------------------------- where checkpoints are
def _place(folder_or_path: str | os.PathLike[str]) -> _OneFile | _Folder:
    path = Path(folder_or_path)
    return _OneFile(path) if path.suffix == SUFFIX and not path.is_dir() else _Folder(path)


class _OneFile:
    def __init__(self, path: Path) -> None:
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

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def owns(self, name: str) -> bool:
        return NUMBERED.fullmatch(name) is not None

    def next(self) -> Path:
        newest = self.newest_first()[:1]
        number = max((_number(path) for path in newest), default=0) + 1
        return self.folder / f"checkpoint-{number:06d}{SUFFIX}"

    def newest_first(self) -> list[Path]:
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        owned = (path for path in paths if self.owns(path.name) and path.is_file())
        return sorted(owned, key=_number, reverse=True)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("checkpoint-"))
