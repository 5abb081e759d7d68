"""A part of the tests on every other Python that is found, and on the oldest dependencies.

`python -m tests.versions [NAME...]`, a NAME being a version of Python ("3.12") or "oldest": each in
a virtual environment of its own, which is removed again.  It has the dependencies that
pyproject.toml declares and what runs tests, and none of the optional packages, so that it also
shows that nothing else is needed: the newest releases that the Python takes, and once, on the
oldest Python that is supported, the oldest ones that are allowed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
RUNNERS = ("pytest", "pytest-xdist", "hypothesis")
OLDEST = "oldest"
THIS = "{}.{}".format(*sys.version_info)  # `make test` runs everything on it

# What reaches the most of the library in the least time, in under a minute on two cores.
FAST = """
    tests/test_import.py tests/test_optional.py tests/model/test_equations.py
    tests/model/test_network.py tests/model/test_network_input.py tests/model/test_dropout.py
    tests/training/test_trainer.py tests/training/test_trainer_batches.py tests/io/test_files.py
    tests/training/test_plot.py tests/io/test_files_written.py
    tests/estimators/test_estimator_arrays.py tests/backend/test_standin.py
    tests/backend/test_device.py tests/estimators/tabular/test_table_columns.py
    tests/estimators/tabular/test_tabular_network.py tests/model/test_sparse.py
""".split()


class Unusable(Exception):
    """An interpreter that cannot make a virtual environment."""


class Environment(NamedTuple):
    """The interpreter that makes it, and what pip puts there beside what runs tests."""

    python: str
    packages: list[str]


def declared() -> dict:
    """pyproject.toml's table of the project."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def supported(project: dict) -> list[str]:
    """The versions of Python that the classifiers name, the first one first."""
    found = re.findall(r"Python :: (\d+\.\d+)$", "\n".join(project["classifiers"]), re.MULTILINE)
    return sorted(found, key=lambda version: [int(part) for part in version.split(".")])


def oldest(requirement: str) -> str:
    """The first release that a requirement allows: of "numpy>=2.0", "numpy==2.0"."""
    parsed = Requirement(requirement)
    bounds = [bound.version for bound in parsed.specifier if bound.operator == ">="]
    if len(bounds) != 1:
        raise ValueError(
            f"{requirement!r} in pyproject.toml has no lower bound: want name>=version"
        )
    return f"{parsed.name}=={bounds[0]}"


def interpreters(version: str) -> Iterator[str]:
    """Where such a Python may be: on PATH, then pyenv's, the newest first."""
    if on_path := shutil.which(f"python{version}"):
        yield on_path
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    releases = [path.name.removeprefix(f"{version}.") for path in pyenv.glob(f"{version}.*")]
    for release in sorted(filter(str.isdigit, releases), key=int, reverse=True):
        yield str(pyenv / f"{version}.{release}" / "bin" / "python")


def is_version(python: str, version: str) -> bool:
    """Whether it runs and is what its name says: pyenv puts names on PATH that only complain."""
    command = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return False
    return done.stdout.strip() == version


def find(versions: Iterable[str]) -> dict[str, str]:
    """{version: an interpreter} of those that are there."""
    found = {}
    for version in versions:
        python = next((path for path in interpreters(version) if is_version(path, version)), None)
        if python:
            found[version] = python
    return found


def environments(
    found: dict[str, str], dependencies: list[str], first: str
) -> dict[str, Environment]:
    """By name: one for each interpreter, and on the oldest Python the oldest dependencies, of which
    newer Pythons have no wheels."""
    table = {version: Environment(python, dependencies) for version, python in found.items()}
    if first in found:
        table[OLDEST] = Environment(found[first], [oldest(line) for line in dependencies])
    return table


def fill(folder: str, environment: Environment) -> str:
    """The virtual environment's own interpreter, with the packages beside it."""
    command = [environment.python, "-m", "venv", "--clear", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Unusable(f"{environment.python}: {(done.stdout + done.stderr).strip()}")
    python = str(Path(folder) / "bin" / "python")
    options = ["--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    subprocess.run(
        [python, "-m", "pip", "install", *options, *environment.packages, *RUNNERS], check=True
    )
    return python


def run_tests(python: str) -> None:
    options = ["-q", "-p", "no:cacheprovider", "--numprocesses", "auto", "--dist", "loadfile"]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(
        [python, "-m", "pytest", *options, *FAST],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths},
        check=True,
    )


def attempt(environment: Environment) -> tuple[bool, str]:
    """Whether nothing is wrong there, and what came of it."""
    begin = time.monotonic()
    print(f"\n{environment.python} with {', '.join(environment.packages)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="gpumlp-versions-") as folder:
        try:
            python = fill(folder, environment)
            made = time.monotonic()
            run_tests(python)
        except Unusable as error:
            return True, f"left out, as it makes no virtual environment: {error}"
        except subprocess.CalledProcessError as error:
            step = "pip" if "pip" in error.cmd else "pytest"
            return False, f"FAILED: exit code {error.returncode} of {step}; see above"
    seconds = time.monotonic()
    return True, f"passed in {seconds - made:.0f} s, after {made - begin:.0f} s of installing"


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 if no test failed and nothing that is needed is missing."""
    project = declared()
    versions = supported(project)
    found = environments(find(versions), project["dependencies"], versions[0])
    parser = argparse.ArgumentParser(prog="python -m tests.versions", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(found)}")
    names = parser.parse_args(arguments).names or [name for name in found if name != THIS]
    if unknown := [name for name in names if name not in found]:
        parser.error(f"no {', '.join(unknown)} here; there are {', '.join(found)}")
    results = {name: attempt(found[name]) for name in names}
    print()
    for name, (_, outcome) in results.items():
        print(f"{name}: {outcome}")
    if OLDEST not in found:
        print(f"{OLDEST}: left out, as there is no Python {versions[0]}, which it is for")
    return 0 if all(good for good, _ in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
