"""No test is lost for a package that it does not need, and none fails for one that is missing."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.optional import PACKAGES, Package, where_installed

FOLDER = Path(__file__).parent

# Every test of these files needs the package.
WHOLE_FILES = {
    "test_cli_reading.py": "pandas",
    "test_cli_resume.py": "pandas",
    "test_cli_runs.py": "pandas",
    "test_cli_tables.py": "pandas",
    "test_cli_tables_input.py": "pandas",
    "test_estimator_properties.py": "hypothesis",
    "test_exchange_onnx.py": "onnx",
    "test_exchange_onnx_table.py": "onnx",
}
COLLECT = """
import sys
from importlib.machinery import PathFinder
from tests.helpers.optional import PACKAGES

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in PACKAGES else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
import pytest
sys.exit(pytest.main(["--collect-only", "-qq", "-rs", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def plain_imports(path):
    """The optional packages that a file imports by a statement, with the lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        yield from ((node.lineno, name) for name in names if name.split(".")[0] in PACKAGES)


def test_optional_packages_are_imported_by_importorskip_alone():
    wrong = {
        f"{path.relative_to(FOLDER)}:{line} imports {name}"
        for path in FOLDER.rglob("*.py")
        for line, name in plain_imports(path)
    }
    assert not wrong, "use pytest.importorskip or tests.helpers.optional.Package"


def test_a_package_that_is_missing_skips_the_test_that_asks_for_it():
    package = Package("no_such_package")
    with pytest.raises(pytest.skip.Exception, match="no_such_package is not installed"):
        package.DataFrame({})
    assert where_installed("no_such_package", {"frame": 1}) == {}
    assert not hasattr(package, "_mock_name")  # or collecting the file would skip all of it


def test_a_package_that_is_there_is_itself():
    import json

    assert Package("json").loads is json.loads and where_installed("json", {"a": 1}) == {"a": 1}


def collect_without(*files) -> set[tuple[str, str]]:
    """Collect tests where no optional package is there: (line, reason) of all skips."""
    folder = str(FOLDER.parent)
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": folder}
    command = [sys.executable, "-c", COLLECT, *map(str, files)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {*re.findall(r"^SKIPPED \[\d+\] (.+?):\d+: (.+)", done.stdout, re.MULTILINE)}


def test_no_file_is_lost_as_a_whole_but_those_that_need_a_package_throughout():
    skips = collect_without(FOLDER)
    assert {Path(file).name for file, _ in skips} == WHOLE_FILES.keys()
    for file, reason in skips:
        assert WHOLE_FILES[Path(file).name] in reason
