"""The command line: what it prints, saves and predicts."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gpumlp
from gpumlp.backend import device
from gpumlp.cli import target
from gpumlp.cli.options import DATASETS, OPTIMIZERS
from gpumlp.cli.scores import score
from tests.helpers.commandline import LABELS, blobs, run, train, trained
from tests.helpers.optional import where_installed
from tests.helpers.waiting import HANGS, until


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("cli"))


def accuracy(printed: str) -> float:
    return float(re.search(r"^accuracy +([\d.]+) on the held-out fifth", printed, re.MULTILINE)[1])


# train


def test_digits_are_learned(tmp_path, capsys):
    assert train("digits", tmp_path / "run") == 0
    printed = capsys.readouterr().out
    assert accuracy(printed) >= 0.97
    assert re.search(r"device +cpu", printed)
    assert re.search(r"64 -> 256 +relu", printed)
    assert re.search(r"trained +\d+ epochs in [\d.]+ s", printed)
    curves = where_installed("matplotlib", {"curves.png": b"\x89PNG"})
    for name, start in {"model.safetensors": b"", **curves}.items():
        path = tmp_path / "run" / name
        assert str(path) in printed
        assert path.read_bytes().startswith(start)


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_trains(name, tmp_path, capsys):
    assert train(name, tmp_path, "--epochs", 2, "--hidden", 8) == 0
    printed = capsys.readouterr().out
    names = ["R²", "RMSE"] if name == "diabetes" else ["accuracy"]
    for each in names:
        assert re.search(rf"^{each} +-?[\d.]+ on the held-out fifth", printed, re.MULTILINE)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("hidden", ["none", "16,8"])
def test_every_optimizer_learns(name, hidden, folder, tmp_path, capsys):
    options = ["--optimizer", name, "--hidden", hidden, "--lr", 0.03, "--l2", 1e-4]
    assert train(folder / "labels.npz", tmp_path, *options) == 0
    assert accuracy(capsys.readouterr().out) >= 0.95


def test_options_reach_the_network(folder, tmp_path):
    options = ["--activation", "tanh", "--dtype", "float64", "--hidden", "5,3", "--epochs", 1]
    assert train(folder / "labels.npz", tmp_path, *options) == 0
    net = gpumlp.load(tmp_path / "model.safetensors", device="cpu")
    assert net.sizes == (4, 5, 3, 3)
    assert net.dtype == np.float64
    assert [f.name for f in net.f[1:]] == ["tanh", "tanh", "softmax"]


def test_a_seed_repeats_a_run(folder, tmp_path):
    thetas = []
    for seed in (1, 1, 2):
        options = ["--seed", seed, "--epochs", 3, "--overwrite"]
        assert train(folder / "labels.npz", tmp_path, *options) == 0
        thetas.append(gpumlp.load(tmp_path / "model.safetensors", device="cpu").theta)
    assert np.array_equal(thetas[0], thetas[1])
    assert not np.array_equal(thetas[0], thetas[2])


def test_the_penalty_is_the_optimizers_own_unless_told(folder, tmp_path, capsys):
    def theta(*options):
        assert train(folder / "labels.npz", tmp_path, "--epochs", 3, "--overwrite", *options) == 0
        return gpumlp.load(tmp_path / "model.safetensors", device="cpu").theta

    adam, adamw = ("--optimizer", "adam"), ("--optimizer", "adamw")
    default = gpumlp.AdamW(1e-3).weight_decay
    np.testing.assert_array_equal(theta(*adamw), theta(*adamw, "--l2", default))
    np.testing.assert_array_equal(theta(*adam), theta(*adam, "--l2", 0))
    np.testing.assert_array_equal(theta(*adam), theta(*adamw, "--l2", 0))
    assert not np.array_equal(theta(*adam), theta(*adamw))
    assert not np.array_equal(theta(*adam), theta(*adam, "--l2", default))

    capsys.readouterr()
    assert run("train", "--help") == 0
    assert f"(default: 0; adamw: {default:g}; of a table: 0.3)" in " ".join(
        capsys.readouterr().out.split()
    )


def test_results_go_into_runs_unless_told(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("train", folder / "labels.npz", "--epochs", 1, "--device", "cpu") == 0
    assert Path("runs/labels/model.safetensors").is_file()
    first = Path("runs/labels/model.safetensors").read_bytes()
    assert run("train", folder / "labels.npz", "--epochs", 2, "--device", "cpu") == 0
    assert Path("runs/labels-2/model.safetensors").is_file()
    assert Path("runs/labels/model.safetensors").read_bytes() == first


def test_ctrl_c_saves_what_was_learned(folder, tmp_path):
    options = ["--epochs", "1000000", "--patience", "1000000", "--device", "cpu", "--out", tmp_path]
    command = [sys.executable, "-m", "gpumlp", "train", folder / "labels.npz", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        # The progress bar's first figures say that updates are made.
        until(lambda: b"l" in process.stderr.read1())
        process.send_signal(signal.SIGINT)
        printed, complaint = process.communicate(timeout=HANGS)
    assert process.returncode == 0, complaint.decode()
    assert b"Traceback" not in complaint
    assert b"the network trained so far is saved" in printed
    assert (tmp_path / "model.safetensors").is_file()


def test_without_matplotlib_only_the_curves_are_missing(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert train(folder / "labels.npz", tmp_path, "--epochs", 1) == 0
    assert 'pip install "gpumlp[plot]"' in capsys.readouterr().err
    assert (tmp_path / "model.safetensors").is_file()
    assert not (tmp_path / "curves.png").exists()


def test_a_broken_gpu_is_one_warning(folder, tmp_path, capsys, monkeypatch):
    problem = device.Problem("CuPy is broken", "Mend it.", broken=True)
    monkeypatch.setattr(device, "gpu_problem", lambda index=0, check=True: problem)
    monkeypatch.setattr(device, "_warned", False)
    monkeypatch.delenv(device.VARIABLE, raising=False)
    assert run("train", folder / "labels.npz", "--out", tmp_path, "--epochs", 1) == 0
    lines = capsys.readouterr().err.splitlines()
    said = [line for line in lines if line.startswith("gpumlp: warning:")]
    assert said == ["gpumlp: warning: CuPy is broken. Mend it. Using the CPU."]


# predict


def test_labels_are_predicted(folder, capsys):
    assert run("predict", folder / "labels/model.safetensors", folder / "labels.npz") == 0
    header, *predicted = capsys.readouterr().out.split()
    assert header == "label"
    assert predicted == list(np.load(folder / "labels.npz")["y"])


def test_probabilities_are_the_networks_output(folder, capsys):
    model = folder / "labels/model.safetensors"
    assert run("predict", model, folder / "new.npy", "--proba", "--device", "cpu") == 0
    header, *rows = csv.reader(capsys.readouterr().out.splitlines())
    assert header == ["label", "ant", "bee", "cow"]
    probabilities = np.array([row[1:] for row in rows], dtype=float)
    net = gpumlp.load(model, device="cpu")
    stored = net.metadata["preparation"]
    x = (np.load(folder / "new.npy") - stored["mean"]) / stored["deviation"]
    np.testing.assert_allclose(probabilities, net.forward(x.astype(np.float32)), atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert [row[0] for row in rows] == list(LABELS[probabilities.argmax(axis=1)])


def test_values_are_predicted_in_their_own_unit(folder, tmp_path):
    model, out = folder / "values/model.safetensors", tmp_path / "out.npy"
    assert run("predict", model, folder / "values.npz", "--out", out) == 0
    y = np.load(folder / "values.npz")["y"]
    assert np.load(out).shape == y.shape
    residual = ((np.load(out) - y) ** 2).sum(axis=0) / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    assert (residual < 0.05).all()


def test_scores_that_there_are_not_are_left_out():
    """A target that is constant in the part held out has no R²; squares may be infinite."""
    found = np.array([[1.0, 2.0], [2.0, 3.0], [3.0, 5.0]])
    y = np.array([[1.0, 7.0], [2.0, 7.0], [4.0, 7.0]])
    mean = np.array([2.0, 6.0])
    scores = score(y, found, None, None, mean)
    assert scores["R²"] == pytest.approx(1 - 1 / (14 / 3))
    assert scores["RMSE"] == pytest.approx(np.sqrt((1 + 25 + 16 + 4) / 6))
    assert scores["MAE"] == pytest.approx((1 + 5 + 4 + 2) / 6)
    assert scores["baseline"] == pytest.approx(1 - 5 / (14 / 3))
    assert scores["baseline RMSE"] == pytest.approx(np.sqrt((1 + 4 + 3) / 6))
    constant = score(y[:, 1:], found[:, 1:], None, None, mean[1:])
    assert not {"R²", "baseline"} & constant.keys()
    assert constant["RMSE"] == pytest.approx(np.sqrt(45 / 3))
    assert "RMSE" not in score(1e200 * y, found, None, None, mean)


def test_scores_of_classes_are_scikit_learns():
    from sklearn import metrics

    classes = np.array(["a", "b", "c"])
    y, predicted = np.array([*"aabbbccb"]), np.array([*"abbbbcca"])
    shares = np.random.default_rng(0).dirichlet(np.ones(3), size=8)
    found = score(y, predicted, shares, classes, "b")
    assert found["accuracy"] == 6 / 8
    assert found["baseline"] == 4 / 8
    assert found["majority"] == "b"
    assert found["balanced accuracy"] == metrics.balanced_accuracy_score(y, predicted)
    assert found["AUC"] == metrics.roc_auc_score(y, shares, multi_class="ovr")
    assert found["log loss"] == pytest.approx(metrics.log_loss(y, shares))
    assert found["confusion"]["rows"] == [[1, 1, 0], [1, 3, 0], [0, 0, 2]]
    assert found["classes"]["b"] == {"precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4, "samples": 4}
    two = score(y[:7] == "b", predicted[:7] == "b", shares[:7, :2], np.array([False, True]), False)
    part = shares[:7, 1] / shares[:7, :2].sum(axis=1)
    assert two["AUC"] == pytest.approx(metrics.roc_auc_score(y[:7] == "b", part))
    assert "AUC" not in score(y[:2], predicted[:2], shares[:2], classes, "b")


def test_predictions_are_written(folder, tmp_path):
    model, new = folder / "labels/model.safetensors", folder / "new.npy"
    expected = np.resize(LABELS, 9)
    for name in ("out.csv", "out.npy", "out.npz"):
        assert run("predict", model, new, "--out", tmp_path / name) == 0
    assert (tmp_path / "out.csv").read_text().split() == ["label", *expected]
    assert np.array_equal(np.load(tmp_path / "out.npy"), expected)
    assert np.array_equal(np.load(tmp_path / "out.npz")["label"], expected)
    assert run("predict", model, new, "--proba", "--out", tmp_path / "out.npz") == 0
    written = np.load(tmp_path / "out.npz")
    assert np.array_equal(written["classes"], LABELS)
    assert np.array_equal(LABELS[written["probability"].argmax(axis=1)], expected)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([-5, 0, 7_000_000_000]),
        np.array([3, 4, 250], dtype=np.uint8),
        np.array(["é", "a,b", " "]),
    ],
)
def test_labels_of_any_kind_come_back(labels, tmp_path, folder):
    x, y = blobs()
    np.savez(tmp_path / "data.npz", X=x, y=labels[y][:, np.newaxis])
    assert train(tmp_path / "data.npz", tmp_path, "--hidden", "16") == 0
    out = tmp_path / "out.npy"
    assert run("predict", tmp_path / "model.safetensors", tmp_path / "data.npz", "--out", out) == 0
    assert np.array_equal(np.load(out), labels[y])
    assert np.load(out).dtype == labels.dtype


def test_two_classes_may_be_booleans(tmp_path):
    x = np.random.default_rng(0).normal(size=(80, 2))
    np.savez(tmp_path / "data.npz", X=x, y=x[:, 0] > 0)
    assert train(tmp_path / "data.npz", tmp_path, "--lr", 0.01) == 0
    out = tmp_path / "out.npy"
    assert run("predict", tmp_path / "model.safetensors", tmp_path / "data.npz", "--out", out) == 0
    assert np.load(out).dtype == bool
    assert (np.load(out) == (x[:, 0] > 0)).mean() > 0.9


def test_a_reader_that_goes_away_is_no_error(folder, tmp_path):
    np.save(tmp_path / "many.npy", np.ones((50_000, 4)))
    model = folder / "labels/model.safetensors"
    command = [sys.executable, "-m", "gpumlp", "predict", model, tmp_path / "many.npy"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


# info, help, version


def test_info_says_what_was_found(capsys):
    assert run("info") == 0
    printed = capsys.readouterr().out
    names = "gpumlp", "Python", "NumPy", "BLAS", "CPU", "CuPy", "driver", "GPUs", "auto", "advice"
    for name in names:
        assert re.search(rf"^{name} +\S", printed, re.MULTILINE)
    assert np.__version__ in printed


@pytest.mark.parametrize("options", [["--version"], ["--help"], ["train", "--help"]])
def test_help_is_no_error(options, capsys):
    assert run(*options) == 0
    assert capsys.readouterr().out


def test_the_module_is_the_command(tmp_path):
    command = [sys.executable, "-m", "gpumlp", "train", "nothing.npz"]
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "gpumlp: there is no file nothing.npz\n"


def test_the_time_that_is_told_is_the_trainings(folder, tmp_path, capsys):
    begin = time.perf_counter()
    assert train(folder / "labels.npz", tmp_path / "out", "--epochs", "2") == 0
    passed = time.perf_counter() - begin
    told = re.search(r"trained +2 epochs in (\S+) s", capsys.readouterr().out)
    assert 0 <= float(told[1]) <= passed + 0.01


@pytest.mark.parametrize("largest, kind", [
    (7.0, "i"), (2.0**53 - 1, "i"), (-(2.0**53) + 1, "i"), (2.0**53, "f"), (0.5, "f"),
])  # fmt: skip
def test_whole_numbers_are_classes_as_integers(largest, kind):
    """As long as float64 tells them from their neighbours."""
    values = np.array([largest, 0.0, largest, 3.0])
    classes = target._classes(values)
    assert classes.dtype.kind == kind
    np.testing.assert_array_equal(classes, values)
