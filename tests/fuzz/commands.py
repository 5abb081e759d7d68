"""Random command lines on random files: each is carried out, and whatever it says it has made is
there and whole; or it is refused by one sentence that names what is wrong, and nothing is changed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import gpumlp
from gpumlp.cli import main, saved_model
from gpumlp.cli.run_folder import BEGUN, CHECKPOINT, CURVES, FILES, MODEL
from gpumlp.training import plot
from tests.fuzz import ACCEPTED, Fault, options, tables, verdicts
from tests.fuzz.tables import File
from tests.fuzz.verdicts import Expected

LIMIT = 20.0
MEMORY = 1 << 30

PREPARATION = {
    "mean": [0.0] * 3,
    "deviation": [1.0] * 3,
    "classes": ["a", "b"],
    "classes_dtype": "<U1",
    "y_mean": [],
    "y_deviation": [],
}
WRONG_PREPARATIONS: tuple[Any, ...] = (
    [],
    {},
    {**PREPARATION, "mean": [0.0]},
    {**PREPARATION, "mean": "x"},
    {**PREPARATION, "deviation": [1.0, 0.0, 1.0]},
    {**PREPARATION, "classes": ["a", "b", "c"]},
    {**PREPARATION, "classes_dtype": "O8"},
    {**PREPARATION, "classes_dtype": "<U99999999999"},
    {**PREPARATION, "classes": None},
    {**PREPARATION, "columns": [{"name": "a"}]},
    {**PREPARATION, "columns": 3},
    {**PREPARATION, "classes": [["a"], ["b", "c"]]},
    {**PREPARATION, "classes": [1e300, None], "classes_dtype": "<i8"},
)


class Model(NamedTuple):
    path: str
    file: File | None  # that it was trained on
    broken: bool = False


class Shared(NamedTuple):
    """models: that predict;  names of files in `models`, a folder beside that of a case."""

    models: list[Model]
    folder: Path


# ---------------------------------------------------------------- what cases share
def prepare(folder: Path) -> Shared:
    place = folder / "models"
    place.mkdir()
    random = np.random.default_rng(0)
    models = []
    for number in range(8):
        of_tables = tables.FORMATS and number % 2
        kind = tables.table_file if of_tables else tables.array_file
        file = kind(random, str(place / f"data {number}"), False)
        out = str(place / f"model {number}")
        target = [] if file.table is None else ["--target", file.table.target]
        short = ["--epochs=2", "--hidden=3", "--device=cpu"]
        assert main(["train", file.path, *target, "--out", out, *short]) == 0
        models.append(Model(f"{out}/{MODEL}", file))
    return Shared(models + _other_models(place), folder / "case")


def _other_models(place: Path) -> list[Model]:
    """What `gpumlp train` has not made."""
    x, y = np.random.default_rng(1).normal(size=(30, 3)), np.arange(30) % 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is short
        fitted = gpumlp.MLPClassifier((3,), max_iter=2, device="cpu").fit(x, y)
    gpumlp.save(fitted, place / "estimator.safetensors")
    gpumlp.save(gpumlp.MLP((3, 2), device="cpu"), place / "network.safetensors")
    gpumlp.save(gpumlp.MLP((3, 2), models=2, device="cpu"), place / "stack.safetensors")
    trainer = gpumlp.Trainer(gpumlp.MLP((3, 2), device="cpu"))
    gpumlp.save(trainer, place / "trainer.safetensors")
    for number, stored in enumerate(WRONG_PREPARATIONS):
        net = gpumlp.MLP((3, 2), device="cpu")
        path = place / f"preparation {number}.safetensors"
        gpumlp.save(net, path, metadata={"preparation": stored})
    (place / "text.safetensors").write_text("no model\n")
    (place / "empty.safetensors").write_bytes(b"")
    (place / "folder.safetensors").mkdir()
    names = ["network", "stack", "trainer", "text", "empty", "folder", "none"]
    names += [f"preparation {number}" for number in range(len(WRONG_PREPARATIONS))]
    broken = [Model(str(place / f"{name}.safetensors"), None, True) for name in names]
    return [Model(str(place / "estimator.safetensors"), None), *broken]


@contextlib.contextmanager
def _in(folder: Path):
    """The folder of a case, with what it may stumble over; it is also that of temporary files."""
    before = Path.cwd()
    folder.mkdir()
    for name in ("folder.csv", "locked", "other", "kept"):
        (folder / name).mkdir()
    for name in ("old.txt", f"kept/{MODEL}", f"kept/{CURVES}", "kept/out.csv"):
        (folder / name).write_text("old")
    (folder / "link").symlink_to("other")
    (folder / "locked").chmod(0o500)
    os.chdir(folder)
    try:
        with mock.patch.object(tempfile, "tempdir", str(folder)):
            yield
    finally:
        os.chdir(before)
        shutil.rmtree(folder)


def one(random: np.random.Generator, shared: Shared) -> str:
    kind = int(random.integers(10))
    with _in(shared.folder):
        # To draw takes ten times as long as all the rest.
        draws = mock.patch.object(plot, "curves", _drawn) if random.integers(20) else None
        with draws or contextlib.nullcontext():
            if kind < 6:
                return _train(random)
            return _predict(random, shared) if kind < 9 else _other(random)


def _drawn(history, path, title, best):
    path.write_bytes(b"curves")
    return path


# ---------------------------------------------------------------- command lines
def _train(random) -> str:
    quirks, hostile = random.integers(3) > 0, random.integers(3) == 0
    line = options.line(random, options.TRAIN, ("--epochs", "--hidden", "--device"), bool(hostile))
    file = _data(random, bool(quirks))
    argv = ["train", file.path, *line.argv]
    if file.table is not None and not any(each.startswith("--target") for each in argv):
        argv += [f"--target={file.table.target}"]
    if hostile and random.integers(8) == 0:
        argv[1] = _missing(random)
        file = File(argv[1], None, broken=True)
    may_refuse = line.odd or not file.plain
    verdict, ran = verdicts.of(argv, Expected([file.path], line.wrong, file.broken, may_refuse))
    if verdict != ACCEPTED:
        return verdict
    verdicts.look_at_scores(ran.out)
    place = re.search(r"^model +(.*)$", ran.out, re.MULTILINE)
    if place is None:
        raise Fault("no model", f"{verdicts.shown(argv)}\n{ran.out}")
    left = {*FILES} - {CHECKPOINT, BEGUN}  # which go where a run is complete
    verdicts.only(argv, ran, {str(Path(place[1]).with_name(name)) for name in left})
    verdicts.look_at_model(place[1])
    _predict_again(random, Model(place[1], file), line.odd)
    return ACCEPTED


def _predict_again(random, model: Model, may_refuse: bool) -> None:
    """With the data that it was trained on, which it can; and with other data, which it may."""
    assert model.file is not None
    classes = saved_model.load(model.path, "cpu").classes is not None
    argv = ["predict", model.path, model.file.path, "--device=cpu"]
    argv += ["--proba"] if classes and random.integers(2) else []
    _predict_line(argv, model, model.file, {}, may_refuse)
    if model.file.table is not None:
        changed = tables.changed(random, model.file.table)
        other = tables.write(random, "other", changed, False)
        _predict_line([*argv[:2], other.path, *argv[3:]], model, other, {}, True)


def _predict(random, shared: Shared) -> str:
    model = shared.models[random.integers(len(shared.models))]
    line = options.line(random, options.PREDICT, ("--device",), random.integers(3) == 0)
    if random.integers(10) == 0:
        file = File(_missing(random), None, broken=True)
    elif model.file is not None and random.integers(3) == 0:
        file = model.file
    elif model.file is None or model.file.table is None:
        file = _data(random, True)
    else:
        table = tables.changed(random, model.file.table)
        file = tables.write(random, _path(random), table, bool(random.integers(2)))
    proba = ["--proba"] if random.integers(2) else []
    may_refuse = bool(proba) or line.odd or file is not model.file
    argv = ["predict", model.path, file.path, *line.argv, *proba]
    return _predict_line(argv, model, file, line.wrong, may_refuse)


def _predict_line(argv, model: Model, file: File, wrong: dict, may_refuse: bool) -> str:
    broken = model.broken or file.broken
    verdict, ran = verdicts.of(argv, Expected([model.path, file.path], wrong, broken, may_refuse))
    if verdict == ACCEPTED:
        out = dict(verdicts.pairs(argv)).get("--out")
        verdicts.only(argv, ran, {out} if out else set())
        verdicts.look_at_predictions(argv, verdicts.predicted(out, ran.out), file.rows)
    return verdict


def _other(random) -> str:
    argv, valid = options.OTHERS[random.integers(len(options.OTHERS))]
    names = [*argv, "COMMAND", "DATA", "FILE"]
    verdict, ran = verdicts.of(argv, Expected(names, {}, not valid, False))
    if verdict == ACCEPTED and not ran.out:
        raise Fault("nothing is printed", verdicts.shown(argv))
    return verdict


def _data(random, quirks: bool) -> File:
    of_tables = tables.FORMATS and random.integers(3)
    return (tables.table_file if of_tables else tables.array_file)(random, _path(random), quirks)


def _path(random) -> str:
    """The beginning of a file's name."""
    return ("data", "data", "data", "döner $x$", "蜂", "a b", "1e5.x", "./-x")[random.integers(8)]


def _missing(random) -> str:
    return ("none.csv", "none.npz", "none", "folder.csv", ".", "mnist")[random.integers(6)]
