"""No test is lost for a package that it does not need, and none fails for one that is missing."""

import ast
from pathlib import Path

import pytest

from tests.optional import PACKAGES, Package, where_installed

FOLDER = Path(__file__).parent


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
    assert not wrong, "use pytest.importorskip or tests.optional.Package"


def test_a_package_that_is_missing_skips_the_test_that_asks_for_it():
    package = Package("no_such_package")
    with pytest.raises(pytest.skip.Exception, match="no_such_package is not installed"):
        package.DataFrame({})
    assert where_installed("no_such_package", {"frame": 1}) == {}
    assert not hasattr(package, "_mock_name")  # or collecting the file would skip all of it


def test_a_package_that_is_there_is_itself():
    import json

    assert Package("json").loads is json.loads and where_installed("json", {"a": 1}) == {"a": 1}
