"""Bad input to the command line ends with one clear sentence and exit code 2."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

import gpumlp
from gpumlp.backend import device
from gpumlp.cli import train as command
from tests.helpers.commandline import LABELS, blobs, refused, run, trained

X, Y = blobs(30)
BAD_NUMBERS = np.where(np.arange(120).reshape(30, 4) == 5, np.nan, X)
BAD_FILES = {
    "no X": (dict(a=X, y=Y), "has no array X"),
    "no y": (dict(X=X), "has no array y"),
    "NaN in X": (dict(X=BAD_NUMBERS, y=Y), "X in .* has NaN or infinity at .1, 1."),
    "infinity in X": (dict(X=np.where(X > 150, np.inf, X), y=Y), "NaN or infinity .* more places"),
    "NaN in y": (dict(X=X, y=np.where(Y == 1, np.nan, Y)), "y in .* has NaN or infinity"),
    "huge X": (dict(X=X * 1e200, y=Y), "too large"),
    "flat X": (dict(X=X[:, 0], y=Y), r"X in .* has shape \(30,\)"),
    "cubic X": (dict(X=X.reshape(30, 2, 2), y=Y), "must have two axes"),
    "empty X": (dict(X=X[:0], y=Y[:0]), "is empty"),
    "no features": (dict(X=X[:, :0], y=Y), "is empty"),
    "text in X": (dict(X=X.astype(str), y=Y), "must hold numbers"),
    "complex X": (dict(X=X + 1j, y=Y), "must hold numbers"),
    "objects in X": (dict(X=X.astype(object), y=Y), "cannot be read"),
    "objects in y": (dict(X=X, y=LABELS[Y].astype(object)), "cannot be read"),
    "short y": (dict(X=X, y=Y[:-1]), "y must have one row for each row of X"),
    "scalar y": (dict(X=X, y=np.array(1)), "y must have one row for each row of X"),
    "two axes of labels": (dict(X=X, y=np.stack([Y, Y], axis=1)), "must have one axis"),
    "no targets": (dict(X=X, y=np.ones((30, 0))), "is empty"),
    "dates in y": (dict(X=X, y=np.array(["2020-01-01"] * 30, "M8[D]")), "integers, booleans"),
    "few samples": (dict(X=X[:6], y=Y[:6]), "has 6 samples; at least 10"),
    "one class": (dict(X=X, y=np.ones(30, int)), "a single class, 1"),
    "a rare class": (dict(X=X, y=np.where(np.arange(30) == 3, 9, Y)), "class 9 .* single sample"),
    "constant y": (dict(X=X, y=np.ones(30)), "nothing to learn"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("cli"))


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_arrays_are_one_sentence(case, tmp_path, capsys):
    arrays, says = BAD_FILES[case]
    np.savez(tmp_path / "bad.npz", **arrays)
    said = refused(capsys, "train", tmp_path / "bad.npz", "--out", tmp_path / "run")
    assert re.search(says, said)
    assert "bad" in said


@pytest.mark.parametrize("name", ["X", "y"])
def test_numbers_far_from_those_that_are_trained_on_are_one_sentence(
    name, tmp_path, capsys, monkeypatch
):
    """Some of them are held out, or are to validate: they are found as their row is drawn."""
    arrays = {"X": X, "y": X[:, :2]}
    seen = set()
    monkeypatch.setattr(command, "_draw", lambda *given: None)  # which takes the most time
    for row in range(30):
        spoilt = arrays[name].copy()
        spoilt[row, 1] = 1e60
        np.savez(tmp_path / "far.npz", **arrays | {name: spoilt})
        options = ["--out", tmp_path / str(row), "--epochs", 1, "--device", "cpu"]
        if run("train", tmp_path / "far.npz", *options) == 2:
            said = capsys.readouterr().err.splitlines()[-1]
            seen.add(said.removeprefix("gpumlp: "))
        capsys.readouterr()
    told = "is too far from the training part's numbers for float32"
    assert f"{name} of far has 1e+60 in column 1, which {told}" in seen


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no file"),
        (b"", "is empty"),
        (b"X,y\n1,2\n", "cannot be read"),
        (b"PK\x03\x04 and no more", "cannot be read"),
        (b"\x93NUMPY\x01\x00", "cannot be read"),
        (b"\x80\x04\x95", "cannot be read"),
    ],
)
@pytest.mark.parametrize("command", ["train", "predict"])
def test_bad_files_are_one_sentence(command, content, says, folder, tmp_path, capsys):
    file = tmp_path / "bad.npz"
    if content is not None:
        file.write_bytes(content)
    model = [folder / "labels/model.safetensors"] if command == "predict" else []
    assert says in refused(capsys, command, *model, file)


def test_a_damaged_file_is_one_sentence(folder, tmp_path, capsys):
    damaged = bytearray((folder / "labels.npz").read_bytes())
    damaged[400:500] = bytes(100)
    (tmp_path / "bad.npz").write_bytes(damaged)
    assert "cannot be read" in refused(capsys, "train", tmp_path / "bad.npz")
    (tmp_path / "bad.npz").write_bytes(damaged[:1000])
    assert "cannot be read" in refused(capsys, "train", tmp_path / "bad.npz")


def test_what_a_library_says_of_a_damaged_file_is_cut(folder, tmp_path, capsys):
    """zipfile shows a name, whose length the file itself says."""
    damaged = bytearray((folder / "labels.npz").read_bytes())
    damaged[26:28] = (900).to_bytes(2, "little")
    (tmp_path / "bad.npz").write_bytes(damaged)
    said = refused(capsys, "train", tmp_path / "bad.npz")
    assert "of plain arrays (File name in directory 'X.npy' and header b'X.npy" in said
    assert said.endswith("...)\n")
    assert len(said) < 400 + len(str(tmp_path))


def test_a_folder_is_no_file(tmp_path, capsys):
    assert "is not a file" in refused(capsys, "train", tmp_path)


def test_one_array_is_not_enough_to_train(folder, capsys):
    assert "X and y" in refused(capsys, "train", folder / "new.npy")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["trian"], "invalid choice: 'trian'"),
        (["train"], "required: DATA"),
        (["train", "mnist"], "one of digits, breast_cancer, wine, iris, diabetes"),
        (["train", "iris", "--epochs", "-3"], "1 or more, not '-3'"),
        (["train", "iris", "--epochs", "0"], "1 or more, not '0'"),
        (["train", "iris", "--epochs", "many"], "1 or more, not 'many'"),
        (["train", "iris", "--batch-size", "0"], "1 or more, not '0'"),
        (["train", "iris", "--hidden", "8,,8"], "--hidden: expected none, or whole numbers with "),
        (["train", "iris", "--hidden", "8,-1"], "each 1 or more, not '8,-1'"),
        (["train", "iris", "--activation", "softmax"], "--activation: unknown activation 'softm"),
        (["train", "iris", "--activation", "rleu"], "relu"),
        (["train", "iris", "--optimizer", "lbfgs"], "invalid choice: 'lbfgs'"),
        (["train", "iris", "--lr", "nan"], "above 0, not 'nan'"),
        (["train", "iris", "--lr", "0"], "above 0, not '0'"),
        (["train", "iris", "--dropout", "1"], "below 1, not '1'"),
        (["train", "iris", "--l2", "-1"], "0 or more, not '-1'"),
        (["train", "iris", "--dtype", "float16"], "invalid choice: 'float16'"),
        (["train", "iris", "--device", "gpu"], "--device: expected auto, cpu, cuda or cuda:<num"),
        (["train", "iris", "--seed", "-1"], "from 0"),
        (["train", "iris", "--lr", "1e38", "--optimizer", "sgd"], "with --lr 1e+38; a lower"),
        (["train", "iris", "--hidden", "9" * 24], f"--hidden {'9' * 24}: out of memory "),
        (["train", "iris", "--hidden", "4,1000000000,4"], " are needed; lower --hidden"),
        (["train", ""], "DATA: expected a name, not ''"),
        (["train", "iris", "--out", ""], "--out: expected a name, not ''"),
        (["train", "iris", "--target", ""], "--target: expected a name, not ''"),
        (["train", "iris", "--device", ""], "<number>, such as cuda:1, not ''"),
        (["train", "iris", "--activation", ""], "unknown activation ''"),
        (["train", "n" * 300], "File name too long"),
        (["train", "n" * 300 + ".npz"], "File name too long"),
        (["train", "n" * 300 + ".csv", "--target", "y"], "File name too long"),
        (["train", "iris", "--out", "n" * 300], "cannot be made (File name too long)"),
        (["info", "--check", ""], "--check: expected auto, cpu, cuda or"),
        (["predict", "model"], "required: FILE"),
        (["predict", "", "file"], "MODEL: expected a name, not ''"),
        (["predict", "model", ""], "FILE: expected a name, not ''"),
        (["predict", "model", "file", "--out", ""], "--out: expected a name, not ''"),
    ],
)
def test_bad_options_are_one_sentence(options, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*options) == 2
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert complaint.startswith("gpumlp: ")
    assert says in complaint


@pytest.mark.parametrize(
    ("options", "variable", "said"),
    [
        (["--device", "cuda"], "", "--device cuda: no GPU is here. Buy one. Or use --device cpu."),
        ([], "cuda:3", "GPUMLP_DEVICE=cuda:3: no GPU is here. Buy one. Or use --device cpu."),
        (
            [],
            "gpu",
            "GPUMLP_DEVICE: expected auto, cpu, cuda or cuda:<number>, such as cuda:1, not ",
        ),
    ],
)
def test_a_device_that_is_not_there(options, variable, said, monkeypatch, capsys):
    """In the words of the command line, whose options are no Python."""
    problem = device.Problem("no GPU is here", "Buy one.")
    monkeypatch.setattr(device, "gpu_problem", lambda *arguments: problem)
    monkeypatch.setenv(device.VARIABLE, variable)
    assert f"gpumlp: {said}" in refused(capsys, "train", "iris", *options)


@pytest.mark.parametrize(
    ("dtype", "said"),
    [
        ("float32", r"are needed; lower --batch-size or --hidden\n$"),
        ("float64", r"are needed; lower --batch-size or --hidden, or use --dtype float32\n$"),
    ],
)
def test_a_training_without_memory_names_the_options(dtype, said, tmp_path, monkeypatch, capsys):
    def full(*arguments):
        raise MemoryError("full")

    monkeypatch.setattr("gpumlp.training.rows.Rows.send", full)
    options = "--out", tmp_path, "--dtype", dtype
    assert re.search(
        f"out of memory on cpu: about .* {said}", refused(capsys, "train", "iris", *options)
    )


def test_a_prediction_without_memory(folder, tmp_path, monkeypatch, capsys):
    def full(*arguments):
        raise MemoryError("full")

    monkeypatch.setattr("gpumlp.model.propagate.predict", full)
    np.save(tmp_path / "new.npy", np.zeros((3, 4)))
    said = refused(capsys, "predict", folder / "labels" / "model.safetensors", tmp_path / "new.npy")
    assert re.search(
        r"out of memory on cpu: about .* are needed; give fewer samples at once\n$", said
    )


@pytest.mark.parametrize("option", ["--hidden", "--epochs", "--lr", "--l2", "--seed", "--out"])
def test_two_dashes_are_no_value(option, capsys):
    """argparse makes an empty list of them."""
    assert f"argument {option}: expected one argument" in refused(
        capsys, "train", "iris", f"{option}=--"
    )


@pytest.mark.parametrize("option", ["--lr", "--l2"])
@pytest.mark.parametrize(
    ("dtype", "numbers"),
    [("float32", ["1e300", "4e38", "1e-45", "1e-300"]), ("float64", ["5e-324"])],
)
def test_numbers_that_a_network_cannot_hold_are_said_first(option, dtype, numbers, capsys):
    for number in numbers:
        said = refused(capsys, "train", "no such file", option, number, "--dtype", dtype)
        assert f"{option} {float(number):g} is no number of {dtype}, which are from" in said


def test_an_output_that_cannot_be_written_is_said_before_training(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    said = refused(capsys, "train", "iris", "--out", tmp_path / "file" / "run", "--device", "cpu")
    assert "cannot be made" in said


@pytest.mark.parametrize("name", ["model.safetensors", "curves.png"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_file_that_cannot_be_written_is_said_before_training(
    folder, tmp_path, capsys, monkeypatch, name, make
):
    def never(*arguments):
        raise AssertionError("it was trained")

    monkeypatch.setattr(command, "_fit", never)
    make(tmp_path / name)
    said = refused(capsys, "train", folder / "labels.npz", "--out", tmp_path)
    assert f"{tmp_path / name} cannot be written" in said


def test_a_folder_that_takes_no_files_is_said_before_training(folder, capsys, monkeypatch):
    monkeypatch.setattr(command, "_fit", None)
    said = refused(capsys, "train", folder / "labels.npz", "--out", "/proc/self")
    assert "/proc/self/model.safetensors cannot be written" in said


@pytest.mark.parametrize("name", ["folder.npy", "fifo.csv", "none/out.npz", "n" * 300 + ".csv"])
def test_an_output_that_cannot_be_written_is_said_before_predicting(
    folder, tmp_path, capsys, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    Path("folder.npy").mkdir()
    os.mkfifo("fifo.csv")
    monkeypatch.setattr("gpumlp.cli.saved_model.load", None)
    said = refused(capsys, "predict", folder / "labels/model.safetensors", "x.npy", "--out", name)
    assert name in said


@pytest.mark.parametrize("name", ["$a_$", "$\\frac$", os.fsdecode(b"\xff"), "a\nb", "%s {}"])
def test_a_file_may_have_any_name(folder, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    data = Path(f"{name}.npz")
    data.write_bytes((folder / "labels.npz").read_bytes())
    assert run("train", data, "--epochs", 1, "--hidden", 4, "--device", "cpu") == 0
    assert Path("runs", name, "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["labels/model.safetensors", "wide.npy"], "has 5 features; the model takes 4"),
        (["labels/model.safetensors", "none.npy"], "there is no file"),
        (["labels/model.safetensors", "nan.npy"], "has NaN or infinity"),
        (
            ["labels/model.safetensors", "new.npy", "--out", "out.xlsx"],
            ".csv, .parquet, .jsonl, .npy, .npz",
        ),
        (["labels/model.safetensors", "new.npy", "--out", "none/out.csv"], "cannot be written"),
        (["labels/model.safetensors", "new.npy", "--proba", "--out", "o.npy"], "one array"),
        (["values/model.safetensors", "new.npy", "--proba"], "this model predicts values"),
        (["none.safetensors", "new.npy"], "none.safetensors"),
        (["folder", "new.npy"], "holds no model"),
        (["empty", "new.npy"], "cannot be loaded"),
        (["labels.npz", "new.npy"], "cannot be loaded"),
        (["bare.safetensors", "new.npy"], "was not saved by `gpumlp train`"),
        (["damaged.safetensors", "new.npy"], "damaged.safetensors: the model's preparation cannot"),
        (["unusable.safetensors", "new.npy"], "unusable.safetensors: the model's preparation is"),
        (["objects.safetensors", "new.npy"], "objects.safetensors: the model's preparation cannot"),
        (["overflowing.safetensors", "new.npy"], "output for row 0 of new.npy is not finite"),
        (["labels/model.safetensors", "far.npy"], "X in far.npy has 1e+300 in column 1, which is"),
        (["labels/model.safetensors", "header.npy"], "cannot be read"),
    ],
)
def test_bad_predictions_are_one_sentence(options, says, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    np.save("wide.npy", np.ones((3, 5)))
    np.save("nan.npy", np.full((3, 4), np.nan))
    Path("empty").write_bytes(b"")
    Path("folder").mkdir(exist_ok=True)
    net = gpumlp.MLP((4, 3), device="cpu")
    gpumlp.save(net, "bare.safetensors")
    gpumlp.save(net, "damaged.safetensors", metadata={"preparation": {"mean": [1, 2]}})
    trained_net = gpumlp.load("labels/model.safetensors", device="cpu")
    stored = trained_net.metadata["preparation"]
    gpumlp.save(net, "unusable.safetensors", {"preparation": stored | {"deviation": [0, 1, 1, 1]}})
    gpumlp.save(net, "objects.safetensors", {"preparation": stored | {"classes_dtype": "O"}})
    trained_net.theta[:] *= 1e30
    gpumlp.save(trained_net, "overflowing.safetensors")
    np.save("far.npy", np.array([[0.0] * 4, [0.0] * 4, [0.0, 1e300, 0.0, 0.0]]))
    Path("header.npy").write_bytes(Path("new.npy").read_bytes().replace(b"}", b" ", 1))
    assert says in refused(capsys, "predict", *options)
