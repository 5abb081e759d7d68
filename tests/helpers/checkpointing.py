"""Trainings for the tests of checkpoints, and what is compared of them.

Run as a program, it kills such trainings: see tests/io/test_checkpoint_kills.py.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

import gpumlp
from tests.helpers.comparison import to_numpy
from tests.helpers.training import blobs, make_trainer

EPOCHS = 12
X, Y = blobs(29)  # batches of 8: the last of an epoch has 5 rows
VALIDATION = blobs(18, seed=1, spread=1.5)


def halving(step):
    return 0.5 ** (step // 7)


# What make_trainer takes, and the callbacks: each has a state that a resumed run must have too.
CASES = {
    "dropout": lambda: ({"net": {"dropout": 0.3}, "hidden": "rrelu"}, []),
    "cosine": lambda: ({"schedule": gpumlp.schedules["cosine"](warmup=1)}, []),
    "one cycle": lambda: ({"schedule": "one_cycle"}, []),
    "steps": lambda: ({"schedule": gpumlp.schedules["exponential"](unit="step", decay=0.9)}, []),
    "a function": lambda: ({"schedule": halving}, []),
    "plateau": lambda: (
        {
            "schedule": gpumlp.schedules["plateau"](patience=2, delta=0.05),
            "optimizer": gpumlp.RMSprop(0.02, momentum=0.9, centered=True),
        },
        [],
    ),
    "early stopping": lambda: (
        {"optimizer": gpumlp.SGD(0.1, momentum=0.9, nesterov=True)},
        [gpumlp.EarlyStopping(5)],
    ),
    "float32": lambda: (
        {"net": {"dtype": "float32"}, "hidden": "prelu", "clip_norm": 0.3},
        [gpumlp.EarlyStopping(3, restore_best=False)],
    ),
    "a stack": lambda: (
        {
            "models": 3,
            "optimizer": gpumlp.AdamW([0.3, 0.003, 0.1], weight_decay=0.01),
            "net": {"dropout": [[0.0, 0.2, 0.4]]},
            "schedule": "cosine",
        },
        [gpumlp.EarlyStopping(2), gpumlp.EarlyStopping(5, monitor="loss")],
    ),
    "a stack on a plateau": lambda: (
        {
            "models": 2,
            "optimizer": gpumlp.SGD([0.5, 0.01], momentum=0.5),
            "schedule": gpumlp.schedules["plateau"](patience=1, delta=0.02),
        },
        [gpumlp.EarlyStopping(6, monitor="val_accuracy")],
    ),
}


def make(case, device="cpu"):
    """A fresh trainer."""
    return make_trainer(device, **CASES[case]()[0])


def callbacks(case):
    return CASES[case]()[1]


def fit(trainer, epochs, callbacks=(), **options):
    return trainer.fit(
        X, Y, epochs, validation=VALIDATION, callbacks=callbacks, progress=False, **options
    )


def train(epochs, *arguments, **options):
    """A short training with checkpoints."""
    trainer = make("one cycle")
    fit(trainer, epochs, [gpumlp.Checkpoint(*arguments, **options)])
    return trainer


def resume(folder, device="cpu"):
    return gpumlp.resume(folder, device, custom={"halving": halving})


def whole_state(trainer) -> dict:
    """Everything that training leaves behind, but how long it took."""
    history = trainer.history.state()
    del history["seconds"]
    found = {
        "theta": trainer.net.theta,
        "steps": trainer.state.device.t,
        "halted": trainer.state.device.stopped_at,
        "hyper": trainer.state.hyper,
        **{name: slot for name, slot in trainer.state.buffers.items() if slot is not None},
    }
    return {
        **{name: to_numpy(array).tobytes() for name, array in found.items()},
        "history": json.dumps(history),
        "lr": np.asarray(trainer.lr).tolist(),
        "epoch": trainer.epoch,
        "issued": trainer.rates.issued,
        "total": trainer.rates.total,
        "memory": {name: value.tolist() for name, value in trainer.rates.memory.items()},
    }


def differences(trainer, other) -> list[str]:
    """What is not the same, bit for bit, in two trainers or their states."""
    a, b = (s if isinstance(s, dict) else whole_state(s) for s in (trainer, other))
    assert a.keys() == b.keys()
    return [name for name in a if a[name] != b[name]]


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def epochs(folder):
    """The epochs of the checkpoints, oldest first."""
    return [gpumlp.load(folder / name, "cpu").epoch for name in names(folder)]


def temporaries(folder):
    return list(Path(folder).glob(".*"))


# --- killing --------------------------------------------------------------------------------------

CASE = "a stack"


class Reporting(gpumlp.Checkpoint):
    """Says through a pipe which epochs it has written."""

    def __init__(self, pipe, *arguments, **options):
        super().__init__(*arguments, **options)
        self.pipe = pipe

    def write(self, trainer):
        super().write(trainer)
        os.write(self.pipe, bytes([trainer.epoch]))


def fork(work) -> tuple[int, int]:
    """A process that does work(pipe): its number, and the end of the pipe to read from."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work(into)
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)
    os.close(into)
    return pid, out


def collect(pid, out) -> tuple[int, bytes]:
    """How a process ended (a status, or minus a signal), and all that it had reported."""
    with open(out, "rb") as pipe:
        reported = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), reported


def reporting(folder, keep):
    """Work for `fork`: a training that says what it has written."""

    def work(pipe):
        checkpoint = Reporting(pipe, folder, keep=keep)
        fit(make(CASE), EPOCHS, [checkpoint, *callbacks(CASE)])

    return work


class Judge:
    """Knows the uninterrupted run, after every epoch of it and at its end."""

    def __init__(self, folder):
        trainer = make(CASE)
        fit(trainer, EPOCHS, [gpumlp.Checkpoint(folder, keep=EPOCHS), *callbacks(CASE)])
        self.end = whole_state(trainer)
        files = sorted(Path(folder).iterdir())
        self.after = dict(enumerate((whole_state(gpumlp.load(file, "cpu")) for file in files), 1))

    def judge(self, folder, reported: bytes, to_the_end: bool, keep: int = 1) -> str:
        """What is wrong with what a dead process has left behind, or nothing; keep: checkpoints
        that it was to keep."""
        written = max(reported, default=0)
        try:
            trainer = resume(folder)
        except FileNotFoundError:
            return f"lost all of {written} epochs" if written else ""
        if not written <= trainer.epoch <= written + 1:
            return f"epoch {trainer.epoch} was found, {written} was reported"
        if wrong := differences(trainer, self.after[trainer.epoch]):
            return f"{wrong} differ in the checkpoint after epoch {trainer.epoch}"
        if not to_the_end:
            return ""
        # Killed between its last checkpoint and the removal of the oldest, a run leaves both:
        # nothing more is written when it is resumed, and so nothing is removed.
        most = 1 if trainer.epoch < max(self.after) else keep + 1
        fit(trainer, trainer.epochs_left, [*callbacks(CASE), gpumlp.Checkpoint(folder)])
        if wrong := differences(trainer, self.end):
            return f"{wrong} differ at the end"
        left = [file.name for file in Path(folder).iterdir()]
        return "" if 1 <= len(left) <= most else f"left behind: {left}"


def wait_for(out, count) -> bytes:
    """So many bytes of what a process reports, or fewer if it ends."""
    reported = b""
    while len(reported) < count and (more := os.read(out, count - len(reported))):
        reported += more
    return reported


def kill_at_random(folder: Path, kills: int, seed: int, sample: int) -> dict:
    """Kill so many trainings, each at a random moment after a random epoch; every sample-th is
    resumed to its end."""
    chance, judge = random.Random(seed), Judge(folder / "uninterrupted")
    begin = time.perf_counter()
    status, _ = collect(*fork(reporting(folder / "whole", 1)))
    assert status == 0, f"the training failed by itself: {status}"
    epoch = (time.perf_counter() - begin) / EPOCHS
    wrong, killed, attempts, amid, epochs = [], 0, 0, 0, []
    while killed < kills or (not amid and attempts < 2 * kills):
        place = folder / f"{attempts}"
        keep = 1 + attempts % 3
        pid, out = fork(reporting(place, keep))
        reported = wait_for(out, chance.randrange(EPOCHS))
        moment = chance.uniform(0, 1.5 * epoch)
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
        status, later = collect(pid, out)
        reported += later
        attempts += 1
        if status == 0:
            continue  # it had ended before
        amid += bool(temporaries(place))
        epochs.append(max(reported, default=0))
        verdict = judge.judge(place, reported, killed % sample == 0, keep)
        if status != -signal.SIGKILL or verdict:
            where = f"{moment:.4f} s after epoch {epochs[-1]} at the earliest"
            wrong.append(f"{place.name}, killed {where} ({status}): {verdict}")
        killed += 1
    return {"wrong": wrong, "killed": killed, "amid a write": amid, "epochs": epochs}


def kill_at_each_call(folder: Path) -> dict:
    """Kill a training just before and just after each call of its third checkpoint that touches the
    file system."""
    judge, wrong, points = Judge(folder / "uninterrupted"), [], []
    while True:
        place = folder / f"{len(points)}"
        status, reported = collect(*fork(die_at_call(place, len(points))))
        if status == 0:
            return {"wrong": wrong, "points": points}
        epochs, name = reported.split(b"!")
        points.append(name.decode())
        verdict = judge.judge(place, epochs, to_the_end=True)
        if status != -signal.SIGKILL or verdict:
            wrong.append(f"{points[-1]} ({status}): {verdict}")


def die_at_call(folder, point):
    """Work for `fork`: a training that kills itself at a point of its third checkpoint."""
    import fcntl

    def work(pipe):
        passed = 0

        def pass_by(name):
            nonlocal passed
            if checkpoint.written == 2:
                if passed == point:
                    os.write(pipe, b"!" + name.encode())
                    os.kill(os.getpid(), signal.SIGKILL)
                passed += 1

        def mortal(module, name):
            call = getattr(module, name)

            def wrapped(*arguments, **options):
                pass_by(f"before {name}")
                result = call(*arguments, **options)
                pass_by(f"after {name}")
                return result

            setattr(module, name, wrapped)

        class Counting(Reporting):
            written = 0

            def write(self, trainer):
                super().write(trainer)
                self.written += 1

        checkpoint = Counting(pipe, folder)
        for module, name in [
            (os, "open"),
            (fcntl, "flock"),
            (os, "fsync"),
            (os, "replace"),
            (Path, "unlink"),
        ]:
            mortal(module, name)
        fit(make(CASE), EPOCHS, [checkpoint, *callbacks(CASE)])

    return work


class Telling(gpumlp.Callback):
    """Says through a pipe that an epoch has ended."""

    def __init__(self, pipe):
        self.pipe = pipe

    def on_epoch_end(self, trainer, history):
        os.write(self.pipe, b"!")


def interrupt_at_random(folder: Path, times: int, seed: int) -> dict:
    """Ctrl-C so many times, at random moments after random epochs of trainings that write no
    checkpoint by themselves."""
    chance, judge, wrong = random.Random(seed), Judge(folder / "uninterrupted"), []
    begin = time.perf_counter()
    fit(make(CASE), EPOCHS, callbacks(CASE))
    epoch = (time.perf_counter() - begin) / EPOCHS
    interrupted, attempts, within = 0, 0, 0
    while interrupted < times or (not within and attempts < 5 * times):
        place = folder / f"{attempts}"

        def work(pipe, place=place):
            trainer, checkpoint = make(CASE), gpumlp.Checkpoint(place, every_epochs=1000)
            try:
                os.write(pipe, b"!")
                fit(trainer, EPOCHS, [checkpoint, Telling(pipe), *callbacks(CASE)])
            except KeyboardInterrupt:
                return  # it came before or after the training proper
            os._exit(7 if trainer.history.interrupted else 0)

        pid, out = fork(work)
        wait_for(out, 1 + chance.randrange(EPOCHS))
        time.sleep(chance.uniform(0, 1.5 * epoch))
        os.kill(pid, signal.SIGINT)
        status, _ = collect(pid, out)
        attempts += 1
        if status == 7:
            interrupted += 1
            trainer = resume(place)
            within += trainer.batches_done > 0
            fit(trainer, trainer.epochs_left, callbacks(CASE))
            if differing := differences(trainer, judge.end):
                wrong.append(f"{place.name}: {differing} differ at the end")
        elif status != 0:
            wrong.append(f"{place.name}: it ended with {status}")
    return {"wrong": wrong, "interrupted": interrupted, "within an epoch": within}


if __name__ == "__main__":
    jobs = {job.__name__: job for job in (kill_at_random, kill_at_each_call, interrupt_at_random)}
    job, place, *numbers = sys.argv[1:]
    print(json.dumps(jobs[job](Path(place), *map(int, numbers))))
