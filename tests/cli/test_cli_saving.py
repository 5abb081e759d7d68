"""A training that the command line has finished is not lost: not on a full disk, not at Ctrl-C."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import gpumlp
from gpumlp.cli import run_folder
from gpumlp.cli import train as command
from gpumlp.utils import atomic
from tests.helpers.commandline import run, train, trained, without_notes
from tests.helpers.optional import where_installed
from tests.helpers.waiting import HANGS

MODEL = "model.safetensors"
SHORT = ["--epochs", "2", "--hidden", "4", "--device", "cpu"]
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("cli"))


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The folder for the results, and the one in which temporary folders are made."""
    out, temporary = tmp_path / "out", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(run_folder.tempfile, "tempdir", str(temporary))
    return out, temporary


def full_disk(monkeypatch, *folders):
    """Nothing can be written into these folders, or those in them."""
    write = atomic.write

    def refuse(path, data):
        if any(folder in path.parents for folder in folders):
            raise FULL
        write(path, data)

    monkeypatch.setattr(atomic, "write", refuse)


def after_the_fit(monkeypatch, happen):
    fit = command._fit

    def fitted(*arguments):
        history = fit(*arguments)
        happen()
        return history

    monkeypatch.setattr(command, "_fit", fitted)


def only_complaint(printed: str) -> str:
    """The one sentence about it, besides those of checkpoints; the rest is the progress bar."""
    sentence = r"gpumlp: (?!warning: .*checkpoint)[^\n]+$"
    (said,) = re.findall(sentence, without_notes(printed), re.MULTILINE)
    return said


def test_a_full_disk(folder, places, monkeypatch, capsys):
    out, temporary = places
    full_disk(monkeypatch, out)
    assert train(folder / "labels.npz", out, *SHORT) == 2
    printed = capsys.readouterr()
    (second,) = temporary.glob(f"*/{MODEL}")
    said = only_complaint(printed.err)
    assert f"{out / MODEL} cannot be written (No space left on device)" in said
    assert f"the network is saved as {second}" in said
    assert f"model     {second}\n" in printed.out
    assert run("predict", second, folder / "new.npy", "--device", "cpu") == 0
    assert re.search(r"^accuracy +0?[1-9.]", printed.out, re.MULTILINE)


def test_a_folder_that_has_gone(folder, places, monkeypatch, capsys):
    out, temporary = places
    after_the_fit(monkeypatch, lambda: shutil.rmtree(out))
    assert train(folder / "labels.npz", out, *SHORT) == 2
    said = only_complaint(capsys.readouterr().err)
    assert f"{out / MODEL} cannot be written (No such file or directory)" in said
    assert str(next(temporary.glob(f"*/{MODEL}"))) in said


def test_no_place_at_all(folder, places, monkeypatch, capsys):
    out, temporary = places
    full_disk(monkeypatch, out, temporary)
    assert train(folder / "labels.npz", out, *SHORT) == 2
    printed = capsys.readouterr()
    said = only_complaint(printed.err)
    assert said.count("(No space left on device)") == 2
    assert str(out / MODEL) in said and str(temporary) in said and "lost" in said
    assert "saved" not in printed.out + said and not list(temporary.iterdir())


def test_no_temporary_folder(folder, places, monkeypatch, capsys):
    out, temporary = places
    temporary.rmdir()
    full_disk(monkeypatch, out)
    assert train(folder / "labels.npz", out, *SHORT) == 2
    said = only_complaint(capsys.readouterr().err)
    assert "No space left on device" in said and "No such file or directory" in said


def test_a_file_of_limited_size(folder, tmp_path):
    """As the operating system refuses it, in both places."""
    code = """
        import resource, sys
        from gpumlp.cli import main, train
        fit = train._fit
        def fitted(*arguments):
            history = fit(*arguments)
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
            return history
        train._fit = fitted
        sys.exit(main(sys.argv[1:]))
    """
    done = in_a_process(code, folder, tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    said = only_complaint(done.stderr)
    assert said.count("(File too large)") == 2 and str(tmp_path / MODEL) in said
    left = {"checkpoint.json", "checkpoint.safetensors"}  # from which the run may go on
    assert {path.name for path in tmp_path.iterdir()} == left


def in_a_process(code, folder, out, **options):
    """A training with a program around it."""
    arguments = ["train", str(folder / "labels.npz"), *SHORT, "--out", str(out)]
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        **{"capture_output": True, "text": True, "timeout": HANGS} | options,
    )


def test_scores_that_cannot_be_had(folder, places, monkeypatch, capsys):
    """The network is saved all the same."""
    out, _ = places

    def no_memory(*arguments):
        raise MemoryError("not even for this")

    monkeypatch.setattr(command, "_scored", no_memory)
    assert train(folder / "labels.npz", out, *SHORT) == 2
    printed = capsys.readouterr()
    assert f"model     {out / MODEL}\n" in printed.out
    assert "not enough memory: not even for this" in printed.err
    assert gpumlp.load(out / MODEL, device="cpu").sizes == (4, 4, 3)


def test_weights_that_cannot_be_saved(folder, places, monkeypatch, capsys):
    out, _ = places

    def refuse(*arguments, **options):
        raise ValueError("W.1 has 3 of 8 numbers that are NaN or infinite")

    monkeypatch.setattr(gpumlp, "save", refuse)
    assert train(folder / "labels.npz", out, *SHORT) == 2
    assert "training failed: W.1 has 3 of 8" in only_complaint(capsys.readouterr().err)


@pytest.mark.parametrize("name", where_installed("matplotlib", {"curves.png": 0}))
def test_curves_that_cannot_be_written(folder, places, monkeypatch, capsys, name):
    out, _ = places
    assert train(folder / "labels.npz", out, *SHORT) == 0
    old = (out / name).read_bytes()
    write = atomic.write

    def refuse(path, data):
        if path.name == name:
            raise FULL
        write(path, data)

    monkeypatch.setattr(atomic, "write", refuse)
    capsys.readouterr()
    assert train(folder / "labels.npz", out, *SHORT, "--overwrite") == 2
    printed = capsys.readouterr()
    assert f"{out / name} cannot be written (No space left on device)" in printed.err
    assert f"model     {out / MODEL}\n" in printed.out
    assert (out / name).read_bytes() == old


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".npz"])
def test_predictions_that_cannot_be_written(folder, tmp_path, monkeypatch, capsys, suffix):
    """What was there before stays."""
    out = tmp_path / f"out{suffix}"
    out.write_bytes(b"old")
    model = folder / "labels" / MODEL

    def refuse(*arguments):
        raise FULL

    monkeypatch.setattr(atomic.os, "replace", refuse)
    assert run("predict", model, folder / "new.npy", "--out", out, "--device", "cpu") == 2
    said = only_complaint(capsys.readouterr().err)
    assert f"{out} cannot be written (No space left on device)" in said
    assert out.read_bytes() == b"old" and os.listdir(tmp_path) == [out.name]


def test_predictions_go_through_a_link(folder, tmp_path):
    (tmp_path / "link.npy").symlink_to("file.npy")
    model = folder / "labels" / MODEL
    out = tmp_path / "link.npy"
    assert run("predict", model, folder / "new.npy", "--out", out, "--device", "cpu") == 0
    assert out.is_symlink() and len(np.load(tmp_path / "file.npy")) == 9


# ------------------------------------------------------------------ signals

SENT = """
    import os, signal, sys
    from gpumlp.utils import atomic
    from gpumlp.cli import main, train
    write, scored = atomic.write, train._scored
    def send():
        for name in NAMES:
            os.kill(os.getpid(), getattr(signal, name))
    def written(path, data):
        if path.name == "model.safetensors":
            send()
            write(path, data)
            send()
        else:
            write(path, data)
    def slow(*arguments):
        send()
        return scored(*arguments)
    atomic.write = written
    train._scored = slow
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["SIGINT"], 130),
        (["SIGINT", "SIGINT"], 130),
        (["SIGTERM"], -signal.SIGTERM),
        (["SIGHUP"], -signal.SIGHUP),
        (["SIGINT", "SIGTERM"], 130),
    ],
)
def test_signals_wait_until_it_is_saved(folder, tmp_path, names, code):
    done = in_a_process(f"NAMES = {names}\n{textwrap.dedent(SENT)}", folder, tmp_path)
    assert done.returncode == code and "Traceback" not in done.stderr
    assert f"model     {tmp_path / MODEL}\n" in done.stdout
    assert gpumlp.load(tmp_path / MODEL, device="cpu").sizes == (4, 4, 3)
    assert json.loads((tmp_path / "metrics.json").read_text())["accuracy"] > 0


def test_a_second_ctrl_c_while_it_saves(folder, tmp_path):
    """The first one ends the training: it is saved before it is said to be."""
    code = """
        NAMES = ["SIGINT"]
        import gpumlp.training.callback
        def first(self, trainer, history):
            os.kill(os.getpid(), signal.SIGINT)
        gpumlp.training.callback.EarlyStopping.on_epoch_end = first
    """
    code = textwrap.dedent(code).replace("import gpumlp", "import os, signal, gpumlp")
    done = in_a_process(code + textwrap.dedent(SENT), folder, tmp_path)
    assert done.returncode == 130 and "Traceback" not in done.stderr
    assert "interrupted after 1 epochs; the network trained so far is saved\n" in done.stdout
    assert gpumlp.load(tmp_path / MODEL, device="cpu").sizes == (4, 4, 3)


def test_ctrl_c_before_the_first_update_saves_nothing(folder, tmp_path):
    code = """
        import os, signal, sys
        import gpumlp.training.callback
        from gpumlp.cli import main
        begin = gpumlp.training.callback.EarlyStopping.on_fit_begin
        def first(self, trainer, history):
            begin(self, trainer, history)
            os.kill(os.getpid(), signal.SIGINT)
        gpumlp.training.callback.EarlyStopping.on_fit_begin = first
        sys.exit(main(sys.argv[1:]))
    """
    done = in_a_process(code, folder, tmp_path)
    assert done.returncode == 130 and "gpumlp: interrupted\n" in done.stderr
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ where output goes

MAIN = "import sys; from gpumlp.cli import main; sys.exit(main(sys.argv[1:]))"


def test_a_progress_bar_that_cannot_be_shown(folder, tmp_path):
    with open("/dev/full", "w") as full:
        done = in_a_process(MAIN, folder, tmp_path, capture_output=False, stdout=full, stderr=full)
    assert done.returncode == 2 and not list(tmp_path.iterdir())  # before the work
    with open("/dev/full", "w") as full:
        out = subprocess.PIPE
        done = in_a_process(MAIN, folder, tmp_path, capture_output=False, stdout=out, stderr=full)
    assert done.returncode == 0 and f"model     {tmp_path / MODEL}\n" in done.stdout


def test_a_reader_that_has_gone_loses_no_training(folder, tmp_path):
    """What is printed after the training has no reader, nor has the progress bar."""
    code = """
        import os, sys
        from gpumlp.cli import main, train
        fit = train._fit
        def unread(*arguments):
            reader, writer = os.pipe()
            os.close(reader)
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            return fit(*arguments)
        train._fit = unread
        sys.exit(main(sys.argv[1:]))
    """
    done = in_a_process(code, folder, tmp_path)
    assert done.returncode == 1 and without_notes(done.stderr) == ""
    assert gpumlp.load(tmp_path / MODEL, device="cpu").sizes == (4, 4, 3)


@pytest.mark.parametrize("arguments", [["info"], ["predict", MODEL, "new.npy"]])
def test_standard_output_that_is_full_is_one_sentence(folder, arguments, monkeypatch):
    shutil.copy(folder / "labels" / MODEL, folder / MODEL)
    command = [sys.executable, "-m", "gpumlp", *arguments]
    root = Path(__file__).parents[2]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(root)},
            timeout=HANGS,
        )
    assert done.returncode == 2
    assert done.stderr == "gpumlp: standard output: No space left on device\n"


@pytest.mark.parametrize("closed", ["1", "2", "1 2"])
def test_closed_output_is_no_error(folder, tmp_path, closed):
    code = f"""
        import os, sys
        for number in map(int, {closed!r}.split()):
            os.close(number)
        os.execv(sys.executable, [sys.executable, "-c", {MAIN!r}, *sys.argv[1:]])
    """
    done = in_a_process(code, folder, tmp_path)
    assert done.returncode == 0
    assert (tmp_path / MODEL).is_file()


def test_a_terminal_without_the_letters(tmp_path):
    """A locale of plain ASCII, in which text files are ASCII too."""
    environment = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}  # kernels are compiled
    command = [sys.executable, "-c", MAIN, "train", "diabetes", *SHORT, "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, timeout=HANGS, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    assert rb"R\xb2 " in done.stdout
