"""What the contenders set for their process does not outlive a test."""

import pytest


@pytest.fixture(autouse=True)
def same_environment(monkeypatch):
    """A search ignores warnings, also in the processes that it starts."""
    monkeypatch.setenv("PYTHONWARNINGS", "")
