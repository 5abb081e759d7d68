"""Files in one piece: whatever happens, the old file or the new one is there, and complete.

The bytes go into a temporary file beside the target, `.<name>.<random>.tmp`, which its writer holds
locked; it is synced and then renamed.  The lock ends with the process, however that ends, so a
temporary file that nobody has locked is left from a writer that died.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

# What a file system answers that cannot sync a folder, or a folder that may not be read.
CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES}


def write(path: Path, data: bytes) -> None:
    """Into a temporary file, synced, then renamed; then the folder is synced, which holds the name.

    Raises OSError if that cannot be done, and leaves what was at path before.
    """
    handle, temporary = _temporary(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
            os.fchmod(handle, 0o666 & ~_umask())
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def _temporary(path: Path) -> tuple[int, str]:
    """A new file beside path, open and locked: its handle and its name."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # another process swept it away before it was locked


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


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
    """Remove the temporary files of dead writers, for the targets whose name is_target accepts."""
    for temporary in folder.glob(".*.tmp"):
        if is_target(temporary.name[1:].rsplit(".", 2)[0]):
            # Locked by its writer, gone meanwhile, or in a file system without locks: left alone.
            with contextlib.suppress(OSError), open(temporary, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                temporary.unlink()
