"""Write files in one piece: whatever happens, the old file or the new one is there, complete.

The bytes go into a temporary file beside the target, `.<name>.<random>.tmp`, which its writer holds
locked; it is synced and then renamed.  The lock ends with the process, however that ends, so a
temporary file that nobody has locked is left from a writer that died.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

# What a file system answers that cannot sync a folder, or a folder that may not be read.
CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES}


def write(path: Path, data: bytes) -> None:
    """Write these bytes; see `writing`."""
    with naming(path), writing(path) as file:
        file.write(data)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file, which is synced and renamed at the end; then the folder is synced,
    which holds the name.

    Raises OSError, with this path, if that cannot be done, and leaves what was at path before, as
    any error within does.
    """
    with naming(path):
        handle, temporary = _temporary(path)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            with naming(path):
                file.flush()
                os.fsync(handle)
                os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    with naming(path):
        _sync_folder(path.parent)


@contextlib.contextmanager
def naming(path: Path):
    """A context in which an OSError names this path, and not another that the user did not give."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def _temporary(path: Path) -> tuple[int, str]:
    """Make a file beside path, open and locked; returns its handle and its name.

    It has the mode of any new file there, by the process's umask and the folder's own rules: to ask
    for the umask means to change it, for all threads.
    """
    while True:
        name = str(path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp")
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # another process swept it away before it was locked


def _sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise


def sweep(folder: Path, is_target: Callable[[str], object]) -> None:
    """Remove the temporary files of dead writers, for targets whose name is_target accepts."""
    for temporary in folder.glob(".*.tmp"):
        if is_target(temporary.name[1:].rsplit(".", 2)[0]):
            # Locked by its writer, gone meanwhile, or in a file system without locks: left alone.
            with contextlib.suppress(OSError), open(temporary, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                temporary.unlink()
