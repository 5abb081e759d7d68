"""What may have become of a file in the user's cache."""

import os
import socket
from pathlib import Path


def other_bytes(change):
    """In the place of the file: of a library that is in use, the bytes may not change."""

    def spoil(path: Path):
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(change(data))

    return spoil


def replaced(make):
    def spoil(path: Path):
        path.unlink()
        make(path)

    return spoil


def folder(path: Path):
    path.mkdir()
    (path / "file").touch()


def listening(path: Path):
    with socket.socket(socket.AF_UNIX) as unix:
        here = os.open(path.parent, os.O_RDONLY)  # a socket's path has at most 107 bytes
        unix.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


def one_bit_off(data: bytes) -> bytes:
    return data[:20] + bytes([data[20] ^ 1]) + data[21:]


WAYS_TO_SPOIL = {
    "half": other_bytes(lambda data: data[: len(data) // 2]),
    "all but a byte": other_bytes(lambda data: data[:-1]),
    "no checksum": other_bytes(lambda data: data[:-32]),
    "one bit": other_bytes(one_bit_off),
    "empty": other_bytes(lambda data: b""),
    "something else": other_bytes(lambda data: b"{}"),
    "no text": other_bytes(lambda data: b"\xff\xfe"),
    "a FIFO": replaced(os.mkfifo),
    "a folder": replaced(folder),
    "a socket": replaced(listening),
    "a link to nothing": replaced(lambda path: path.symlink_to("nothing")),
    "a link to itself": replaced(lambda path: path.symlink_to(path)),
    "a link to a folder": replaced(lambda path: path.symlink_to(path.parent)),
}
