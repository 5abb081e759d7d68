"""Which Pythons and packages a part of the tests runs on, beside those of `make test`."""

import os
import shutil
import subprocess
import sys

import pytest

from tests import versions


def pretend(path, *lines):
    """An interpreter that does what these lines of a shell script do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]), encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def saying(version):
    return f"echo {version}"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Folders for a machine's interpreters: of its PATH, and of pyenv's versions."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    monkeypatch.setenv("PYENV_ROOT", f"{tmp_path}/pyenv")
    return tmp_path / "bin", tmp_path / "pyenv" / "versions"


def test_an_interpreter_is_looked_for_on_path_and_in_pyenv(machine):
    path, pyenv = machine
    pretend(path / "python3.10", saying("3.10"))
    pretend(path / "python3.12", "echo 'not found; it exists in 3.12.9' >&2", "exit 127")  # a shim
    pretend(path / "python3.13", saying("3.11"))
    for release in ("3.12.9", "3.12.10", "3.12-dev", "3.12.11rc1", "3.1.2"):
        pretend(pyenv / release / "bin" / "python", saying("3.12"))
    assert versions.find(["3.10", "3.11", "3.12", "3.13"]) == {
        "3.10": str(path / "python3.10"),
        "3.12": str(pyenv / "3.12.10" / "bin" / "python"),
    }


def test_every_python_has_the_newest_packages_and_the_first_also_the_oldest():
    dependencies = ["numpy>=2.0", "tqdm >= 4.66, < 5"]
    found = versions.environments({"3.10": "/a", "3.12": "/b"}, dependencies, "3.10")
    newest = ["numpy>=2.0", "tqdm >= 4.66, < 5"]
    assert found == {
        "3.10": ("/a", newest),
        "3.12": ("/b", newest),
        "oldest": ("/a", ["numpy==2.0", "tqdm==4.66"]),
    }
    assert versions.environments({"3.13": "/c"}, newest, "3.10") == {"3.13": ("/c", newest)}
    with pytest.raises(ValueError, match=r"'scipy<2' in pyproject\.toml has no lower bound"):
        versions.oldest("scipy<2")


def test_pyproject_has_what_is_read_from_it():
    project = versions.declared()
    supported = versions.supported(project)
    assert f">={supported[0]}" == project["requires-python"]
    assert supported == [f"3.{minor}" for minor in range(10, 10 + len(supported))]
    assert all("==" in versions.oldest(line) for line in project["dependencies"])


def test_the_chosen_files_are_there():
    assert len(versions.FAST) == len({*versions.FAST})
    assert not [file for file in versions.FAST if not (versions.ROOT / file).is_file()]


def test_a_python_without_environments_is_left_out(tmp_path):
    python = pretend(tmp_path / "python", "echo 'ensurepip is not available'", "exit 1")
    good, outcome = versions.attempt(versions.Environment(python, []))
    assert good and "makes no virtual environment" in outcome
    assert f"{python}: ensurepip is not available" in outcome


def test_a_package_that_cannot_be_had_is_named(monkeypatch, capfd):
    for name, value in {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": ""}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    good, outcome = versions.attempt(versions.Environment(sys.executable, ["no-such-package>=3"]))
    assert not good and "of pip" in outcome
    assert "No matching distribution found for no-such-package>=3" in capfd.readouterr().err


def test_a_test_that_fails_is_a_failure(monkeypatch, tmp_path):
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    file = tmp_path / "test_it.py"
    file.write_text("def test_it():\n    raise ValueError\n", encoding="utf-8")
    monkeypatch.setattr(versions, "FAST", [str(file)])
    monkeypatch.setattr(versions, "fill", lambda folder, environment: sys.executable)
    good, outcome = versions.attempt(versions.Environment(sys.executable, []))
    assert not good and outcome.startswith("FAILED: exit code 1 of pytest")


def test_all_others_are_tried_and_one_failure_is_enough(monkeypatch, capsys):
    pythons = {"3.8": "/old", versions.THIS: "/this", "3.99": "/new"}
    monkeypatch.setattr(versions, "find", lambda names: pythons)
    monkeypatch.setattr(versions, "supported", lambda project: ["3.8", versions.THIS, "3.99"])
    tried = []

    def attempt(environment):
        tried.append(environment.python)
        return environment.python != "/new", f"ran {environment.python}"

    monkeypatch.setattr(versions, "attempt", attempt)
    assert versions.main([]) == 1
    assert tried == ["/old", "/new", "/old"]
    assert capsys.readouterr().out == "\n3.8: ran /old\n3.99: ran /new\noldest: ran /old\n"
    assert versions.main(["oldest", versions.THIS]) == 0
    with pytest.raises(SystemExit):
        versions.main(["3.7"])
    assert "no 3.7 here; there are 3.8" in capsys.readouterr().err
    del pythons["3.8"]
    versions.main([])
    assert "oldest: left out, as there is no Python 3.8" in capsys.readouterr().out


# -------------------------------------------------------------------------------- the Makefile


def make(*arguments):
    """What make would do; nothing of a make that runs this test reaches it."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    environment = {name: os.environ[name] for name in os.environ.keys() - {"MAKEFLAGS", "PYTHON"}}
    command = ["make", "--dry-run", *arguments]
    return subprocess.run(
        command, cwd=versions.ROOT, env=environment, capture_output=True, text=True
    )


def test_each_python_has_an_environment_of_its_own():
    assert "\n.venv/bin/python -m pytest" in f"\n{make('test').stdout}"
    done = make("test", f"PYTHON={sys.executable}")
    assert f"\n.venv-{versions.THIS}/bin/python -m pytest" in f"\n{done.stdout}"
    assert " .venv/" not in done.stdout


def test_a_python_that_does_not_run_is_named():
    done = make("test", "PYTHON=no-such-python")
    assert done.returncode and "PYTHON=no-such-python does not run" in done.stderr
