"""Ctrl-C during a fit: each case in a process of its own, which sends the signal to itself."""

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.helpers.waiting import HANGS

ROOT = Path(__file__).parents[2]

# `device` and the definitions below are there in every case; `report(**what)` ends it.
PRELUDE = """
import json, os, signal, sys, threading, time
import numpy as np
from tests import standin
device, real_gpu = sys.argv[1], sys.argv[2] == "True"
if device == "cuda" and not real_gpu:
    standin.install()
import gpumlp
from tests.helpers.comparison import to_numpy
from tests.helpers.training import blobs, fit, make_trainer, theta

x, y = blobs(24)

def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)

class AtEpoch(gpumlp.Callback):
    def __init__(self, epoch):
        self.epoch, self.ended = epoch, False
    def on_epoch_end(self, trainer, history):
        if history.epochs == self.epoch:
            ctrl_c()
    def on_fit_end(self, trainer, history):
        self.ended = True

def report(trainer, **what):
    history = trainer.history
    print(json.dumps({
        "interrupted": history.interrupted,
        "epochs": history.epochs,
        "epoch": trainer.epoch,
        "lengths": [len(history.loss), len(history.lr), len(history.seconds)],
        "steps": int(np.max(trainer.steps)),
        "finite": bool(np.isfinite(theta(trainer)).all()),
        "handler_is_back": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        **what,
    }))
"""


@pytest.fixture
def run(request):
    """Run a case on a device; gives what it reported, after checking what always holds."""

    def run(case, device="cpu"):
        script = PRELUDE + textwrap.dedent(case)
        real = str(request.config.getoption("--require-gpu"))
        done = subprocess.run(
            [sys.executable, "-c", script, device, real],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=HANGS,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["finite"]
        assert found["handler_is_back"]
        assert found["lengths"] == [found["epochs"]] * 3
        assert found["epoch"] == found["epochs"]
        return found

    return run


def test_ctrl_c_between_two_epochs(run, device):
    found = run(
        """
        trainer, at = make_trainer(device), AtEpoch(2)
        returned = fit(trainer, x, y, 50, callbacks=[at])
        first = returned.interrupted, at.ended, returned is trainer.history
        predictions = np.isfinite(trainer.net.forward(x)).all()
        history = fit(trainer, x, y, 1)
        report(trainer, first=first, predictions=bool(predictions))
        """,
        device,
    )
    assert found["first"] == [True, True, True]
    assert found["predictions"]
    assert not found["interrupted"]  # by the second fit
    assert (found["epochs"], found["steps"]) == (3, 9)


def test_ctrl_c_in_the_last_epoch_is_not_lost(run):
    found = run(
        """
        trainer = make_trainer(device)
        fit(trainer, x, y, 2, callbacks=[AtEpoch(2)])
        report(trainer)
        """
    )
    assert found["interrupted"]
    assert found["epochs"] == 2


def test_ctrl_c_in_the_middle_of_an_epoch(run, device):
    """From a thread, at no particular moment once some updates are made; the fit would take days.

    Before each launch the fit looks whether it is asked to stop; when it is, it makes no more.
    """
    found = run(
        """
        looks, heard, begun = 0, [], threading.Event()

        class Watched(gpumlp.training.trainer.Interrupt):
            @property
            def asked(self):
                global looks
                looks += 1
                if looks == 4:
                    begun.set()
                return self._asked
            @asked.setter
            def asked(self, asked):
                self._asked = asked
                if asked:
                    heard.append(looks)

        class PressSoon(gpumlp.Callback):
            def on_fit_begin(self, trainer, history):
                threading.Thread(target=self.press, daemon=True).start()
            def press(self):
                begun.wait()
                ctrl_c()

        gpumlp.training.trainer.Interrupt = Watched
        trainer = make_trainer(device, batch_size=1)
        x, y = blobs(1_000_000)
        fit(trainer, x, y, 10_000, callbacks=[PressSoon()])
        steps, before = trainer.steps, theta(trainer)
        trainer.step(x[:5], y[:5])
        moves = trainer.steps == steps + 1 and (theta(trainer) != before).any()
        report(trainer, looks=looks - heard[0], moves=bool(moves))
        """,
        device,
    )
    assert found["interrupted"]
    assert found["epochs"] == 0
    assert 3 <= found["steps"] < 1_000_000
    assert found["looks"] <= 3  # of the innermost loop, the epoch and the fit
    assert found["moves"]


# An activation that counts its calls can press Ctrl-C at a known update of a known epoch: epochs
# have three batches.
COUNTING = """
calls = 0
def f(z, p):
    global calls
    calls += 1
    if calls == AT:
        for _ in range(TIMES):
            ctrl_c()
    return np.tanh(z)
own = gpumlp.Activation("own", f, lambda z, n, p: 1 - n * n, df_from="n")
"""


@pytest.mark.parametrize("update", [1, 5, 6, 9])
def test_the_running_update_is_finished(run, update):
    """First, middle and last update of an epoch; the weights are those of so many updates."""
    found = run(
        f"AT, TIMES = {update}, 1\n{COUNTING}"
        + textwrap.dedent(
            """
            trainer = make_trainer(device, hidden=own, shuffle=False)
            fit(trainer, x, y, 3)
            interrupted, expected = trainer.history.interrupted, make_trainer(device, shuffle=False)
            for i in range(AT):
                part = slice(8 * (i % 3), 8 * (i % 3) + 8)
                expected.step(x[part], y[part])
            same = np.allclose(theta(trainer), theta(expected), rtol=1e-12)
            report(trainer, same=bool(same))
            """
        )
    )
    assert found["interrupted"]
    assert found["steps"] == update
    assert found["epochs"] == update // 3
    assert found["same"]


def test_a_second_ctrl_c_does_not_wait(run):
    found = run(
        "AT, TIMES = 5, 2\n"
        + COUNTING
        + textwrap.dedent(
            """
            trainer, stopped = make_trainer(device, hidden=own), False
            try:
                fit(trainer, x, y, 3)
            except KeyboardInterrupt:
                stopped = True
            report(trainer, stopped=stopped)
            """
        )
    )
    assert found["stopped"]
    assert found["steps"] == 4


def test_ctrl_c_restores_the_best_weights_of_early_stopping(run):
    found = run(
        """
        trainer = make_trainer(device, optimizer=gpumlp.SGD(3.0))
        xv, yv = blobs(18, seed=1, spread=1.5)
        early = gpumlp.EarlyStopping(1000)
        fit(trainer, x, y, 50, validation=(xv, yv), callbacks=[early, AtEpoch(8)])
        value, _ = trainer.net.loss_and_grad(xv, yv)
        report(trainer, value=float(value), best=float(early.best))
        """
    )
    assert found["interrupted"] and found["epochs"] == 8
    assert found["value"] == pytest.approx(found["best"], rel=1e-12)


def test_a_handler_of_the_programs_own_is_left_alone(run):
    found = run(
        """
        heard = []
        signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
        trainer = make_trainer(device)
        fit(trainer, x, y, 3, callbacks=[AtEpoch(1)])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        report(trainer, heard=heard)
        """
    )
    assert found["heard"] == [signal.SIGINT]
    assert not found["interrupted"] and found["epochs"] == 3


def test_the_handler_is_put_back_after_an_error(run):
    run(
        """
        class Broken(gpumlp.Callback):
            def on_epoch_end(self, trainer, history):
                raise KeyError
        trainer = make_trainer(device)
        try:
            fit(trainer, x, y, 3, callbacks=[Broken()])
        except KeyError:
            report(trainer)
        """
    )


def test_a_fit_in_another_thread(run):
    """Python delivers no signals there, and none can be set up."""
    found = run(
        """
        trainer = make_trainer(device)
        thread = threading.Thread(target=lambda: fit(trainer, x, y, 3))
        thread.start()
        thread.join()
        report(trainer)
        """
    )
    assert found["epochs"] == 3


def test_a_fit_within_another_context_is_stopped_by_either(run):
    """As the command line has it; the first one before the fit begins counts, too."""
    found = run(
        """
        with gpumlp.training.trainer.Interrupt() as outer:
            trainer = make_trainer(device)
            fit(trainer, x, y, 3, callbacks=[AtEpoch(1)])
            stopped = trainer.epoch, trainer.history.interrupted, outer.asked
            fit(trainer, x, y, 3)
        report(trainer, stopped=stopped)
        """
    )
    assert found["stopped"] == [1, True, True]
    assert found["interrupted"] and found["epochs"] == 1


HELD = """
from gpumlp.utils.interrupt import Interrupt
trainer, seen, stopped = make_trainer(device), [], False
names = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
own = lambda number, frame: seen.append(number)
"""


def test_signals_that_are_held_take_effect_at_the_end(run):
    found = run(
        HELD
        + textwrap.dedent(
            """
            try:
                with Interrupt() as interrupt:
                    interrupt.hold()
                    for _ in range(3):
                        ctrl_c()
                    seen.append("saved")
            except KeyboardInterrupt:
                stopped = True
            usual = [signal.getsignal(name) is signal.SIG_DFL for name in names[1:]]
            report(trainer, seen=seen, stopped=stopped, usual=usual)
            """
        )
    )
    assert found["seen"] == ["saved"] and found["stopped"] and found["usual"] == [True, True]


def test_an_error_is_not_hidden_by_what_was_held(run):
    run(
        HELD
        + textwrap.dedent(
            """
            try:
                with Interrupt() as interrupt:
                    interrupt.hold()
                    for name in names:
                        os.kill(os.getpid(), name)
                    raise KeyError
            except KeyError:
                report(trainer)
            """
        )
    )


def test_handlers_of_the_programs_own_are_not_held(run):
    found = run(
        HELD
        + textwrap.dedent(
            """
            for name in names[1:]:
                signal.signal(name, own)
            with Interrupt() as interrupt:
                interrupt.hold()
                for name in names[1:]:
                    os.kill(os.getpid(), name)
                seen.append("saved")
            kept = [signal.getsignal(name) is own for name in names[1:]]
            report(trainer, seen=seen, kept=kept)
            """
        )
    )
    assert found["seen"] == [signal.SIGTERM, signal.SIGHUP, "saved"]
    assert found["kept"] == [True, True]


def test_nothing_is_held_in_another_thread(run):
    found = run(
        HELD
        + textwrap.dedent(
            """
            def work():
                with Interrupt() as interrupt:
                    interrupt.hold()
                    seen.append(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            report(trainer, seen=seen)
            """
        )
    )
    assert found["seen"] == [True]
