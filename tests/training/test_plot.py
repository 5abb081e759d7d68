"""The curves of a training run."""

import sys
import types

import numpy as np
import pytest

from gpumlp.training import plot


@pytest.fixture
def matplotlib():
    return pytest.importorskip("matplotlib", reason="matplotlib is not installed")


@pytest.mark.parametrize("accuracy", [[], [0.5, 0.75, 1.0]])
def test_curves_are_drawn(accuracy, matplotlib, tmp_path):
    history = types.SimpleNamespace(
        loss=[3.0, 2.0, 1.0], val_loss=[3.0, 2.5, 2.4], val_accuracy=accuracy
    )
    path = plot.curves(history, tmp_path / "curves.png", "a title")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_curves_of_a_stack_are_drawn(matplotlib, tmp_path):
    losses = [np.array([3.0, 4.0]), np.array([2.0, 3.0])]
    history = types.SimpleNamespace(loss=losses, val_loss=[], val_accuracy=[])
    assert plot.curves(history, tmp_path / "curves.png").stat().st_size > 1000


def test_curves_of_no_epoch_are_empty(matplotlib, tmp_path):
    history = types.SimpleNamespace(loss=[], val_loss=[], val_accuracy=[])
    assert plot.curves(history, tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_curves_without_matplotlib_say_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "gpumlp\[plot\]"'):
        plot.curves(None, tmp_path / "curves.png")


def test_letters_that_the_font_lacks_are_no_warning(matplotlib, tmp_path):
    history = types.SimpleNamespace(loss=[1.0], val_loss=[], val_accuracy=[])
    assert plot.curves(history, tmp_path / "curves.png", "\u8702 \U0001f4a7").is_file()


def test_the_best_epoch_of_each_network_is_marked(matplotlib):
    losses = [np.array([3.0, 4.0, 5.0]), np.array([2.0, 3.0, 6.0])]
    history = types.SimpleNamespace(loss=losses, val_loss=losses, val_accuracy=[])
    (axes,) = plot.figure(history, best=[2, 1, 0]).axes
    (marks,) = [line for line in axes.lines if line.get_label() == "best epoch"]
    assert marks.get_xydata().tolist() == [[2, 2], [1, 4]]
    history = types.SimpleNamespace(loss=[2.0, 1.0], val_loss=[2.0, 3.0], val_accuracy=[])
    (axes,) = plot.figure(history, best=1).axes
    assert axes.lines[-1].get_xydata().tolist() == [[1, 2]]
