"""Keep files between processes in a cache of the user's; without them they are made again.

A file ends with the SHA-256 of its contents: a damaged one counts as none.  As some of them are
code, only the user may write to their folder, or put another folder in its place.  What is left
from a process that was killed is removed by the next one that makes something there.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import hashlib
import os
import pwd
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gpumlp.utils import atomic

ELSEWHERE = "Let XDG_CACHE_HOME name a folder of your own."
DAY = 86400  # seconds
KEPT = 90 * DAY  # files that no process has used for so long are removed
DIGEST = hashlib.sha256().digest_size


class Unsafe(OSError):
    """A folder that another user could write to, and what to do about it."""

    def __init__(self, reason: str, remedy: str):
        super().__init__(reason)
        self.remedy = remedy


def folder(name: str) -> Path:
    """The folder of that name in $XDG_CACHE_HOME/gpumlp, or ~/.cache/gpumlp; made at need.

    Raises OSError, or RuntimeError where there is no home.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
    place = root / "gpumlp" / name
    for path in (root, place.parent, place):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_unsafe(path, strictly=path == place)
    return place


def _refuse_unsafe(folder: Path, strictly: bool) -> None:
    """Raise Unsafe for a folder that others could write to.

    strictly: of the folder itself.  One around it may be the system's, and others may write to it
    if they cannot rename what is the user's, as in /tmp.
    """
    status = folder.stat()
    user = os.geteuid()
    if status.st_uid != user and (strictly or status.st_uid != 0):
        raise Unsafe(f"{folder} belongs to another user", ELSEWHERE)
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not strictly:
        if status.st_mode & stat.S_ISVTX:
            return
        if _is_users_own(status.st_gid, user):
            others &= ~stat.S_IWGRP
    if others:
        raise Unsafe(f"{folder} can be written by others", f"Run chmod go-w {folder}.")


def _is_users_own(group: int, user: int) -> bool:
    """Whether nobody else is in a group.  Many systems make a group for each user, and let it write
    to new folders."""
    try:
        name, known = pwd.getpwuid(user).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return known.gr_name == name and {*known.gr_mem} <= {name}


# ---------------------------------------------------------------- files
def read(path: Path) -> bytes:
    """Read what `keep` wrote, and note that it was used; raises OSError where it is missing or
    damaged."""
    data = contents(path)
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > DAY:
            os.utime(path)
    return data


def contents(path: Path) -> bytes:
    """Read what `keep` wrote; raises OSError where it is missing or damaged."""
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path} is no file")
        data = file.read()
    if hashlib.sha256(data[:-DIGEST]).digest() != data[-DIGEST:]:
        raise OSError(f"{path} is damaged")
    return data[:-DIGEST]


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a FIFO without waiting for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def keep(path: Path, data: bytes) -> None:
    """Write a file for `read`, in the place of whatever is there; raises OSError."""
    _remove_old(path.parent)
    atomic.sweep(path.parent, lambda name: True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    atomic.write(path, data + hashlib.sha256(data).digest())


def _remove_old(folder: Path) -> None:
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


# ---------------------------------------------------------------- workplaces
@contextlib.contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """A context with a temporary folder inside, on the same disk, which this process has locked."""
    _remove_left(folder)
    place, handle = _locked(folder)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(handle)


def _locked(folder: Path) -> tuple[Path, int]:
    while True:
        place = Path(tempfile.mkdtemp(prefix=".", dir=folder))
        with contextlib.suppress(FileNotFoundError):
            handle = _open(place)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            if place.exists():
                return place, handle
            os.close(handle)
        # Another process took it for one that was left, before it was locked.


def _remove_left(folder: Path) -> None:
    """Remove the workplaces of processes that were killed: nobody has them locked."""
    for place in folder.glob(".*"):
        with contextlib.suppress(OSError):
            handle = _open(place)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place)
            finally:
                os.close(handle)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
