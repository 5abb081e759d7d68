"""Runs that were cut short: the checkpoint in a run's folder, and going on with it."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import gpumlp
from gpumlp.cli.error import InputError, complain
from gpumlp.cli.run_folder import BEGUN, CHECKPOINT, MODEL, as_json, reason
from gpumlp.utils import atomic

SECONDS = 30  # between two checkpoints, at least


class RunCheckpoint(gpumlp.Checkpoint):
    """The checkpoint of a run, in its folder, and beside it what the run was asked for.

    Nothing that is there is touched before the first epoch has ended.
    """

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        super().__init__(folder / CHECKPOINT, every_minutes=SECONDS / 60)
        self._begun = folder / BEGUN
        asked = {"options": options_of(arguments), "files": _digests(arguments)}
        # What a run that goes on was asked for is there.
        self._to_write = None if arguments.resume else as_json(asked)

    def on_fit_begin(self, trainer, history) -> None:
        super().on_fit_begin(trainer, history)
        if history.epochs:
            print(f"resumed   after epoch {history.epochs}", flush=True)

    def on_interrupt(self, trainer, history) -> None:
        if history.epochs:
            super().on_interrupt(trainer, history)

    def _warn(self, message: str) -> None:
        complain(f"warning: {message}; the training goes on")

    def write(self, trainer) -> None:
        if self._to_write is not None:
            try:
                # Options and checkpoint are never of two runs.
                Path(self.folder_or_path).unlink(missing_ok=True)
                atomic.write(self._begun, self._to_write)
            except OSError as error:
                self._warn(f"no checkpoint was written: {error}")
                return
            self._to_write = None
        super().write(trainer)


def options_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, and DATA, in plain JSON."""
    others = ("command", "resume")
    options = {
        name: value
        for name, value in vars(arguments).items()
        if name not in others and value is not None and value is not False
    }
    return json.loads(json.dumps(options))


def arguments_of_run(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments of the run that --resume names.

    Raises InputError where there is nothing to go on with, for other options than the run has, and
    where its files have changed.
    """
    folder = Path(arguments.resume)
    options, files = _asked(folder)
    other = [
        f"{_said(name, options.get(name))}, not {_said(name, value)}"
        for name, value in options_of(arguments).items()
        if options.get(name) != value
    ]
    if other:
        raise InputError(
            f"the run in {folder} goes on with the options that it began with: {'; '.join(other)}"
        )
    of_run = argparse.Namespace(**vars(arguments) | options)
    if of_run.hidden is not None:
        of_run.hidden = tuple(of_run.hidden)
    for path in files:
        if not Path(path).is_file():
            raise InputError(
                f"the run in {folder} began with {path}, which is not there: call --resume from "
                "the folder in which it began"
            )
    for path, digest in _digests(of_run).items():
        if files.get(path) != digest:
            raise InputError(
                f"{path} is not what it was when the run in {folder} began: give the same file back"
            )
    return of_run


def _asked(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The options of a run that was cut short, and the digests of its files by path."""
    if folder.is_file():
        raise InputError(f"--resume {folder}: this is a file; name the folder of its run")
    if not folder.is_dir():
        raise InputError(f"--resume {folder}: there is no such folder")
    if not (folder / CHECKPOINT).is_file():
        why = f"no checkpoint was written, which is done after an epoch, every {SECONDS} seconds"
        if (folder / MODEL).is_file():
            why = "its run is finished"
        raise InputError(f"--resume {folder}: there is nothing to go on with: {why}")
    path = folder / BEGUN
    try:
        asked = json.loads(path.read_text(encoding="utf-8"))
        options, files = dict(asked["options"]), dict(asked["files"])
        if not isinstance(options["data"], str):
            raise TypeError("data")
        return options, files
    except OSError as error:
        raise InputError(f"{path} cannot be read ({reason(error)})") from error
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} does not hold the options of a run") from error


def _digests(arguments: argparse.Namespace) -> dict[str, str]:
    """Of the files that a run reads, by their paths as they were given."""
    digests = {}
    for path in (arguments.data, arguments.test, arguments.valid):
        if path is not None and Path(path).is_file():  # else a data set's name
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
            digests[path] = digest.hexdigest()
    return digests


def _said(name: str, value: Any) -> str:
    """An option, or DATA, as it is said on the command line."""
    option = "DATA" if name == "data" else f"--{name.replace('_', '-')}"
    if value is None:
        return f"no {option}"
    if value is True:
        return option
    if name == "drop":
        return " ".join(f"{option} {column}" for column in value)
    if isinstance(value, list):
        value = ",".join(map(str, value)) or "none"
    return f"{option} {value}"
