"""The user's cache: whose folders are trusted, what is kept, and what killed processes leave."""

import os
import stat
import subprocess
import sys
import types
from pathlib import Path

import pytest

from gpumlp.utils import cache
from tests.helpers.spoiling import WAYS_TO_SPOIL
from tests.helpers.waiting import HANGS, until


@pytest.fixture
def home(monkeypatch, tmp_path):
    """The folder around the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def alone(monkeypatch):
    """alone(name, members): what the system says of every group."""

    def say(name, members=()):
        user = types.SimpleNamespace(pw_name="ann")
        group = types.SimpleNamespace(gr_name=name, gr_mem=list(members))
        monkeypatch.setattr(cache.pwd, "getpwuid", lambda number: user)
        monkeypatch.setattr(cache.grp, "getgrgid", lambda number: group)

    return say


FOLDERS = ("gpumlp/host", "gpumlp", ".")


def refused(folder: Path) -> str:
    with pytest.raises(cache.Unsafe) as caught:
        cache.folder("host")
    assert str(folder) in str(caught.value)
    assert caught.value.remedy.endswith(".")
    return str(caught.value)


def test_folders_are_the_users_alone_whatever_the_umask(home):
    old = os.umask(0)
    try:
        assert cache.folder("host") == home / "gpumlp" / "host"
    finally:
        os.umask(old)
    for folder in FOLDERS:
        assert stat.S_IMODE((home / folder).stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_that_others_can_write_is_refused(home, alone, folder, mode):
    alone("staff")
    cache.folder("host")
    (home / folder).chmod(mode)
    assert "can be written by others" in refused((home / folder).resolve())


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_that_others_can_only_add_to_may_be_around_it(home, alone, folder):
    alone("staff")
    cache.folder("host")
    (home / folder).chmod(0o1777)  # as /tmp
    if folder == FOLDERS[0]:
        assert "can be written by others" in refused(home / folder)
    else:
        assert cache.folder("host")


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize(
    ("group", "members", "trusted"),
    [("ann", [], True), ("ann", ["ann"], True), ("ann", ["bob"], False), ("staff", [], False)],
)
def test_a_group_of_the_user_alone_is_no_other(home, alone, folder, group, members, trusted):
    alone(group, members)
    cache.folder("host")
    (home / folder).chmod(0o775)
    if trusted and folder != FOLDERS[0]:
        assert cache.folder("host")
    else:
        refused((home / folder).resolve())


def test_a_group_that_has_no_name_is_others(home, monkeypatch):
    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr(cache.grp, "getgrgid", unknown)
    cache.folder("host")
    home.chmod(0o775)
    refused(home)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_another_user_is_refused(home, monkeypatch, folder):
    cache.folder("host")
    about, its = Path.stat, (home / folder).resolve()

    def other(path, **options):
        found = about(path, **options)
        if path != its:
            return found
        return types.SimpleNamespace(st_uid=found.st_uid + 1, st_mode=found.st_mode, st_gid=0)

    monkeypatch.setattr(Path, "stat", other)
    assert "belongs to another user" in refused(its)


def test_the_systems_folder_may_be_around_it(home, monkeypatch):
    cache.folder("host")
    about = Path.stat

    def roots(path, **options):
        found = about(path, **options)
        return types.SimpleNamespace(st_uid=0, st_mode=0o41777, st_gid=0) if path == home else found

    monkeypatch.setattr(Path, "stat", roots)
    assert cache.folder("host")


# ------------------------------------------------------------------ files


@pytest.mark.parametrize("data", [b"", b"text", bytes(range(256)) * 1000])
def test_what_is_kept_is_read(tmp_path, data):
    cache.keep(tmp_path / "file", data)
    assert cache.read(tmp_path / "file") == data
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_is_damaged_anywhere_is_none(tmp_path):
    path = tmp_path / "file"
    cache.keep(path, b"some text")
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 16]) + whole[i + 1 :])
        with pytest.raises(OSError, match="damaged"):
            cache.read(path)
        path.write_bytes(whole[:i])
        with pytest.raises(OSError, match="damaged"):
            cache.read(path)


@pytest.mark.parametrize("spoil", WAYS_TO_SPOIL.values(), ids=WAYS_TO_SPOIL)
def test_another_is_kept_in_the_place_of_anything(tmp_path, spoil):
    path = tmp_path / "file"
    cache.keep(path, b"some text that is longer than the digest of it")
    spoil(path)
    with pytest.raises(OSError, match="file"):
        cache.read(path)
    cache.keep(path, b"more")
    assert cache.read(path) == b"more"


# ------------------------------------------------------------------ what killed processes leave

LOCKED = """
import pathlib, sys, time
from gpumlp.utils import cache
with cache.workplace(pathlib.Path(sys.argv[1])) as place:
    print(place, flush=True)
    sys.stdin.read()
"""


def test_a_workplace_is_removed_when_nobody_works_there(tmp_path):
    command = [sys.executable, "-c", LOCKED, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    killed, working = (subprocess.Popen(command, **pipes) for _ in range(2))
    try:
        places = [Path(each.stdout.readline().strip()) for each in (killed, working)]
        assert set(places) == set(tmp_path.iterdir())
        (places[0] / "file").touch()
        killed.kill()
        killed.wait(HANGS)
        with cache.workplace(tmp_path) as own:
            assert {own, places[1]} == set(tmp_path.iterdir())
        working.communicate(timeout=HANGS)
        until(lambda: not list(tmp_path.iterdir()))
    finally:
        for each in (killed, working):
            each.kill()
            each.communicate()


def test_a_workplace_that_was_taken_for_left_is_made_again(tmp_path, monkeypatch):
    flock, taken = cache.fcntl.flock, []

    def late(handle, how):
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].rmdir()
        flock(handle, how)

    monkeypatch.setattr(cache.fcntl, "flock", late)
    with cache.workplace(tmp_path) as place:
        assert [place] == list(tmp_path.iterdir()) != taken


def test_the_temporary_file_of_a_killed_writer_is_removed(tmp_path):
    left = tmp_path / ".file.0123456789abcdef.tmp"
    left.write_bytes(b"some")
    cache.keep(tmp_path / "other", b"text")
    assert not left.exists()
