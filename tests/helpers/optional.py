"""Packages that not every machine has on which the tests run.

A test that needs one is skipped where it is missing, with the package's name, and takes no other
test of its file with it; tests/test_optional.py sees to that.
"""

import importlib.util

import pytest

# What the extras install beside the dependencies and pytest; not CuPy, whose place the stand-in
# takes.
PACKAGES = frozenset(
    "hypothesis jax matplotlib mypy onnx onnxruntime openpyxl pandas polars pyarrow "
    "pytest_benchmark ruff torch xdist".split()
)


class Package:
    """A module that is imported when something of it is first asked for, within a test."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute):
        if attribute.startswith("_"):  # pytest looks for its own marks at whatever a file holds
            raise AttributeError(attribute)
        module = pytest.importorskip(self._name, reason=f"{self._name} is not installed")
        return getattr(module, attribute)


def where_installed(name: str, table: dict) -> dict:
    """The table, or an empty one: for cases that are drawn from it."""
    return table if importlib.util.find_spec(name) else {}
