"""Files that the command line writes: looked at before the work, so that none of it is lost."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import gpumlp
from gpumlp.cli.error import InputError


def folder(path: str, names: tuple[str, ...]) -> Path:
    """Makes the folder in which files of these names will be put."""
    place = Path(path)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {path} cannot be made ({reason(error)})") from error
    for name in names:
        file(place / name)
    return place


def file(path: Path) -> Path:
    """Refuses a file that could not be written."""
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} cannot be written (it is there, and is not a file)")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"{path} cannot be written ({reason(error)})") from error
    return path


def save(net, path: Path, metadata: dict) -> tuple[Path | None, str]:
    """Saves a network there, or where that fails in a temporary folder; returns where it is, and a
    sentence about what went wrong."""
    try:
        gpumlp.save(net, path, metadata=metadata)
        return path, ""
    except OSError as error:
        problem = f"{path} cannot be written ({reason(error)})"
    second = None
    try:
        second = Path(tempfile.mkdtemp(prefix="gpumlp-"))
        gpumlp.save(net, second / path.name, metadata=metadata)
        return second / path.name, f"{problem}; the network is saved as {second / path.name}"
    except OSError as error:
        if second is not None:
            shutil.rmtree(second, ignore_errors=True)
        where = second or "a temporary folder"
        return None, f"{problem}, nor can {where} ({reason(error)}): the network is lost"


def reason(error: OSError) -> str:
    return error.strerror or str(error)
