"""What is found or made again without it, kept between processes in a cache of the user's.

A file ends with the SHA-256 of what stands before it: a damaged one is as none.  As some of them
are code, only the user may write to their folder, or put another folder in its place.  What is left
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
KEPT = 90 * DAY  # what no process has used for so long is removed
DIGEST = hashlib.sha256().digest_size


class Unsafe(OSError):
    """A folder that another user could write to, and what to do about it."""

    def __init__(self, what: str, remedy: str):
        super().__init__(what)
        self.remedy = remedy


def folder(name: str) -> Path:
    """The folder of that name in $XDG_CACHE_HOME/gpumlp, or ~/.cache/gpumlp; made at need.

    Raises OSError, or RuntimeError where there is no home.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
    place = root / "gpumlp" / name
    for each in (root, place.parent, place):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_unsafe(each, strictly=each == place)
    return place


def _refuse_unsafe(folder: Path, strictly: bool) -> None:
    """strictly: for what is in it.  A folder around it may be the system's, and others may write to
    it if they cannot rename what is the user's, as in /tmp."""
    about = folder.stat()
    user = os.geteuid()
    if about.st_uid != user and (strictly or about.st_uid != 0):
        raise Unsafe(f"{folder} belongs to another user", ELSEWHERE)
    others = about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not strictly:
        if about.st_mode & stat.S_ISVTX:
            return
        if _is_users_own(about.st_gid, user):
            others &= ~stat.S_IWGRP
    if others:
        raise Unsafe(f"{folder} can be written by others", f"Run chmod go-w {folder}.")


def _is_users_own(group: int, user: int) -> bool:
    """Whether nobody else is in a group, as many systems make one for each user: a folder that was
    made under their usual umask can be written by it."""
    try:
        name, known = pwd.getpwuid(user).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return known.gr_name == name and {*known.gr_mem} <= {name}


# ---------------------------------------------------------------- files
def read(path: Path) -> bytes:
    """What was kept there; OSError where there is none, or not all of it, or something else."""
    with open(path, "rb", opener=_without_waiting) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise OSError(f"{path} is no file")
        data = file.read()
    if hashlib.sha256(data[:-DIGEST]).digest() != data[-DIGEST:]:
        raise OSError(f"{path} is damaged")
    if time.time() - about.st_mtime > DAY:
        with contextlib.suppress(OSError):
            os.utime(path)
    return data[:-DIGEST]


def _without_waiting(path: str, flags: int) -> int:
    """A FIFO is opened without waiting for somebody who writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def keep(path: Path, data: bytes) -> None:
    """For `read`, in the place of whatever is there; OSError where that cannot be done."""
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
    """A folder inside, on the same disk, locked for as long as this process works in it."""
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
    """The workplaces of processes that were killed: nobody has them locked."""
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
