"""The folder of a run, and other files that the command line writes: looked at before the work, so
that none of it is lost."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpumlp.cli.error import InputError
from gpumlp.utils import atomic

MODEL, CONFIG, METRICS = "model.safetensors", "config.json", "metrics.json"
HISTORY, PREDICTIONS, CURVES = "history.jsonl", "predictions.csv", "curves.png"
CHECKPOINT, BEGUN = "checkpoint.safetensors", "checkpoint.json"  # of a run that is not finished
FILES = (MODEL, CONFIG, METRICS, HISTORY, PREDICTIONS, CURVES, CHECKPOINT, BEGUN)


class RunFolder:
    """A folder for the files of a run: the one that is named, or a new one for the data's name.

    As a context: where nothing was put into a new folder, it is removed.
    """

    def __init__(self, out: str | None, name: str, overwrite: bool):
        """overwrite: whether a run may be replaced that is in `out`."""
        self.path = Path("runs", name) if out is None else Path(out)
        self._made: list[Path] = []
        number = 1
        while not self._claimed(must_be_new=out is None):
            number += 1
            self.path = Path("runs", f"{name}-{number}")
        for each in FILES:
            file(self.path / each)
        if not overwrite and any((self.path / each).exists() for each in FILES):
            resumes = f", {self.goes_on}" if self.goes_on else ""
            raise InputError(
                f"{out} holds a run already: --overwrite replaces it, another --out leaves it"
                f"{resumes}"
            )

    def _claimed(self, must_be_new: bool) -> bool:
        """Whether the folder is this run's from now on."""
        try:
            new = [each for each in (self.path, *self.path.parents) if not each.exists()]
            self.path.mkdir(parents=True, exist_ok=not must_be_new)
        except FileExistsError as error:
            if must_be_new:
                return False
            raise InputError(f"the folder {self.path} cannot be made ({reason(error)})") from error
        except OSError as error:
            raise InputError(f"the folder {self.path} cannot be made ({reason(error)})") from error
        self._made = new
        return True

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error) -> None:
        for each in self._made:
            try:
                each.rmdir()
            except OSError:  # there is something in it
                break

    @property
    def goes_on(self) -> str:
        return goes_on(self.path)

    def write(self, name: str, content: bytes) -> None:
        write(self.path / name, content)

    def remove(self, *names: str) -> None:
        for name in names:
            (self.path / name).unlink(missing_ok=True)


def goes_on(folder: Path) -> str:
    """How to go on with a run that was cut short; of others nothing."""
    resume = f"gpumlp train --resume {shlex.quote(str(folder))} goes on with it"
    return resume if (folder / CHECKPOINT).is_file() else ""


def as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode(
        errors="backslashreplace"
    )


def write(path: Path, content: bytes) -> None:
    try:
        atomic.write(path, content)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({reason(error)})") from error


def file(path: Path) -> Path:
    """Refuse a file that could not be written."""
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} cannot be written (it is there, and is not a file)")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"{path} cannot be written ({reason(error)})") from error
    return path


def save(saved: Callable[[Path], None], path: Path) -> tuple[Path | None, str]:
    """Save a model there, or where that fails in a temporary folder; returns where it is, and a
    sentence about what went wrong."""
    try:
        saved(path)
        return path, ""
    except OSError as error:
        problem = f"{path} cannot be written ({reason(error)})"
    second = None
    try:
        second = Path(tempfile.mkdtemp(prefix="gpumlp-"))
        saved(second / path.name)
        return second / path.name, f"{problem}; the network is saved as {second / path.name}"
    except OSError as error:
        if second is not None:
            shutil.rmtree(second, ignore_errors=True)
        where = second or "a temporary folder"
        return None, f"{problem}, nor can {where} ({reason(error)}): the network is lost"


def reason(error: OSError) -> str:
    return error.strerror or str(error)
