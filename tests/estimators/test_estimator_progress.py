"""verbose=True: a bar where somebody watches, lines in a log."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import types

import pytest

from gpumlp import MLPClassifier
from tests.helpers.estimators import IRIS, small

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

PROGRAM = """
import warnings
warnings.simplefilter("ignore")
from gpumlp import MLPClassifier
X, y = [[0.0], [1.0], [2.0]] * 10, [0, 1, 1] * 10
model = MLPClassifier((3,), max_iter=7, verbose=True, device="cpu", random_state=0)
model.fit(X, y, X_val=X, y_val=y)
"""


def test_a_bar_in_a_terminal():
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))  # lines, columns
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdout=its, stderr=its) as child:
        os.close(its)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux's way to say that the terminal was closed
                break
            if not part:
                break
            shown += part
    os.close(ours)
    text = shown.decode()
    assert child.returncode == 0, text
    assert "7/7" in text and "epoch" in text and "loss 0." in text
    assert "validation score 0." in text
    assert "Iteration" not in text


class Bar:
    """In the place of tqdm's."""

    made: list = []  # noqa: RUF012

    def __init__(self, total, unit):
        self.total, self.done, self.shown, self.closed = total, 0, "", False
        self.made.append(self)

    def set_postfix_str(self, text, refresh):
        self.shown = text

    def update(self):
        self.done += 1

    def write(self, text):
        pass

    def display(self):
        pass

    def close(self):
        self.closed = True


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    monkeypatch.setattr(Bar, "made", [])
    return Bar.made


def test_a_bar_in_a_notebook(bars, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    model = small(MLPClassifier, verbose=True).fit(*IRIS)
    (bar,) = bars
    assert (bar.total, bar.done, bar.closed) == (5, 5, True)
    assert bar.shown == f"loss {model.loss_:.4f}"
    assert capsys.readouterr().out == ""


def test_a_bar_is_closed_by_an_error(bars, monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)

    def scoring(estimator, X, y):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        small(MLPClassifier, verbose=True, scoring=scoring).fit(*IRIS, X_val=IRIS[0], y_val=IRIS[1])
    assert [bar.closed for bar in bars] == [True]


def test_no_bar_without_verbose_and_in_logs(bars, monkeypatch, capsys):
    small(MLPClassifier, verbose=True).fit(*IRIS)
    assert "Iteration 5" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    small(MLPClassifier).fit(*IRIS)
    small(MLPClassifier, verbose=2).fit(*IRIS)
    assert "Iteration 5" in capsys.readouterr().out
    assert bars == []


def test_verbose_where_there_is_no_output(bars, monkeypatch):
    """As in a program without a console."""
    monkeypatch.setattr(sys, "stdout", None)
    small(MLPClassifier, verbose=True).fit(*IRIS)
