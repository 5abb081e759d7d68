"""For the tests of the command line: running it, and something to run it on."""

import re

import numpy as np

from gpumlp.cli import main

LABELS = np.array(["ant", "bee", "cow"])


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def train(data, out, *options) -> int:
    return run("train", data, "--out", out, "--device", "cpu", *options)


def refused(capsys, *arguments) -> str:
    """Runs a command that must end with exit code 2; returns its one sentence."""
    assert run(*arguments) == 2
    complaint = without_notes(capsys.readouterr().err)
    assert re.fullmatch(r"gpumlp: [^\n]+\n", complaint)
    return complaint


def without_notes(said: str) -> str:
    return re.sub(r"^gpumlp: note: .*\n", "", said, flags=re.MULTILINE)


def blobs(samples=120):
    """Three well separated clouds of points, and the number of each point's cloud."""
    y = np.arange(samples) % 3
    x = np.random.default_rng(7).normal(size=(samples, 4)) + 6 * np.eye(4)[y]
    return 100 + 10 * x, y


def trained(folder):
    """Fills a folder with files to train on, and two trained models: labels/ and values/."""
    x, y = blobs()
    np.savez(folder / "labels.npz", X=x, y=LABELS[y])
    np.savez(folder / "values.npz", X=x, y=np.stack([3 * x[:, 0] + 5, -x[:, 1]], axis=1))
    np.save(folder / "new.npy", x[:9])
    assert train(folder / "labels.npz", folder / "labels", "--hidden", "16") == 0
    assert train(folder / "values.npz", folder / "values", "--hidden", "32", "--dropout", 0) == 0
    return folder
