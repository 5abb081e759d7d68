"""The bar of a fit: none where none is shown, and no lock that another process may hold."""

import errno
import io
import os
import signal
import sys
import threading

import pytest

import gpumlp
from gpumlp.training import progress
from tests.helpers.training import blobs, fit, make_trainer
from tests.helpers.waiting import HANGS

DATA = dict(zip("xy", blobs(20), strict=True))


def test_a_fit_that_shows_no_bar_makes_none(monkeypatch):
    def refused(*arguments, **options):
        raise AssertionError("a tqdm was made")

    monkeypatch.setattr("tqdm.auto.tqdm.__new__", refused)
    fit(make_trainer("cpu"), **DATA, epochs=2)
    with pytest.raises(AssertionError, match="a tqdm was made"):
        make_trainer("cpu").fit(**DATA, epochs=1, progress=True)


def fit_in_a_thread():
    """Whether a fit with a bar ends."""
    thread = threading.Thread(
        target=lambda: make_trainer("cpu").fit(**DATA, epochs=2, progress=True), daemon=True
    )
    thread.start()
    thread.join(HANGS)
    return not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_child_that_is_killed_within_the_bar_holds_nobody_up(capsys):
    make_trainer("cpu").fit(**DATA, epochs=1, progress=True)
    held, told = os.pipe()
    child = os.fork()
    if child == 0:
        from tqdm.auto import tqdm

        progress._of_this_process(tqdm).get_lock().acquire()
        os.write(told, b"held")
        signal.pause()
        os._exit(1)
    assert os.read(held, 4) == b"held"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert fit_in_a_thread()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_child_does_not_wait_for_a_thread_of_its_parent(capsys):
    make_trainer("cpu").fit(**DATA, epochs=1, progress=True)
    from tqdm.auto import tqdm

    lock, holding, let_go = (
        progress._of_this_process(tqdm).get_lock(),
        *map(lambda _: threading.Event(), range(2)),
    )

    def hold():
        with lock:
            holding.set()
            let_go.wait(HANGS)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(HANGS)
    child = os.fork()
    if child == 0:
        signal.alarm(HANGS)
        os._exit(0 if fit_in_a_thread() else 1)
    _, status = os.waitpid(child, 0)
    let_go.set()
    thread.join()
    assert status == 0, sys.platform


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EPIPE, errno.EIO])
def test_a_bar_that_cannot_be_shown_ends_no_fit(monkeypatch, error):
    """From the first time, or from later on."""

    class Broken(io.StringIO):
        def __init__(self, after):
            super().__init__()
            self.left = after

        def write(self, text):
            self.left -= 1
            if self.left < 0:
                raise OSError(error, os.strerror(error))
            return super().write(text)

    for after in (0, 1, 2):  # a bar is shown at both ends, and its line is ended
        monkeypatch.setattr(sys, "stderr", Broken(after))
        trainer = make_trainer("cpu")
        trainer.fit(**DATA, epochs=3, progress=True)
        assert trainer.epoch == 3 and sys.stderr.left < 0


def test_the_bar_of_a_fit_that_is_shortened_ends_with_it(capsys):
    class Shorten(gpumlp.Callback):
        def on_epoch_end(self, trainer, history):
            if history.epochs == 2:
                trainer.reschedule(3)

    trainer = make_trainer("cpu")
    trainer.fit(**DATA, epochs=40, progress=True, callbacks=[Shorten()])
    shown = capsys.readouterr().err
    assert "0/40" in shown
    assert "5/5" in shown
    with pytest.raises(ValueError, match="reschedule: no fit is running"):
        trainer.reschedule(3)
