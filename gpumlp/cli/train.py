"""`gpumlp train`: from a data set to a saved model, its held-out scores and its curves."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import gpumlp
from gpumlp.cli import data, run_folder, scores, unfinished
from gpumlp.cli.array_network import ArrayNetwork
from gpumlp.cli.choose_device import choose
from gpumlp.cli.data import Samples
from gpumlp.cli.error import InputError, complain
from gpumlp.cli.options import DEFAULTS
from gpumlp.cli.predictions import KEPT, as_csv
from gpumlp.cli.run_folder import (
    BEGUN,
    CHECKPOINT,
    CONFIG,
    CURVES,
    HISTORY,
    METRICS,
    MODEL,
    PREDICTIONS,
    RunFolder,
)
from gpumlp.cli.table import Reading
from gpumlp.utils.interrupt import Interrupt

HELD_OUT = 1 / 5
VALIDATION = 1 / 8  # of what is not held out: a tenth of all samples


class Parts(NamedTuple):
    """validation: None where folds of the training part serve. test: None with --cv; where: which
    samples it holds."""

    training: Samples
    validation: Samples | None
    test: Samples | None
    where: str


class Rated(NamedTuple):
    """Samples with what a model that did not see them predicts, and what knows nothing says."""

    samples: Samples
    predicted: np.ndarray
    shares: np.ndarray | None
    baseline: Any
    where: str


class Trained(NamedTuple):
    model: Any
    history: Any
    seconds: float


def run(arguments) -> int:
    resumes = arguments.resume is not None
    if resumes:
        arguments = unfinished.arguments_of_run(arguments)
    elif arguments.data is None:
        required = "the following arguments are required: DATA, or --resume"
        raise InputError(f"{required} (gpumlp train --help lists what is valid)")
    for option, default in DEFAULTS.items():
        if getattr(arguments, option) is None:
            setattr(arguments, option, default)
    _check(arguments)
    device, presented = choose(arguments.device)
    samples = data.load(arguments)
    title, name = str(samples), samples.name
    _check_together(arguments, samples)
    out = arguments.resume if resumes else arguments.out
    with RunFolder(out, name, arguments.overwrite or resumes) as folder:
        parts = _parts(arguments, samples)
        whole = samples if arguments.cv else None
        weighted = arguments.class_weight is not None
        # What was read may be much larger than what is made of it.
        del samples
        model = _make(arguments, device, parts.training, folder.path if resumes else None)
        checkpoint = unfinished.RunCheckpoint(folder.path, arguments)
        if parts.test is not None and isinstance(model, ArrayNetwork):
            model.prepared(parts.test, arguments.dtype)  # what cannot be is said before the work
        print(f"data      {title}")
        print(f"          {_shown(parts)}")
        print(f"device    {presented}", flush=True)
        if isinstance(model, ArrayNetwork):
            print(model.net.summary(), flush=True)
        with Interrupt() as ctrl_c:
            with _terminate_as_interrupt():
                trained = _train(arguments, model, parts, checkpoint)
            ctrl_c.hold()
            place, problem = _saved(model, folder.path / MODEL)
            _report(trained, place, folder)
            if not problem:
                _write_run(arguments, folder, trained, parts)
            if parts.test is not None:
                rated = _scored(model, parts)
                _report_scores(rated, None if problem else folder, weighted)
        if whole is not None and not problem:
            _report_scores(_cross_validated(arguments, device, whole), folder, weighted)
        if problem:
            return 2
        _draw(trained, folder.path / CURVES, name)
        if not trained.history.interrupted:
            folder.remove(CHECKPOINT, BEGUN)
    return 0


# ---------------------------------------------------------------- before
def _check(arguments) -> None:
    """Refuse options that are wrong by themselves or do not go together."""
    hidden = sorted(name for name, known in gpumlp.activations.items() if not known.rows)
    if arguments.activation is not None and arguments.activation not in hidden:
        raise InputError(
            f"--activation: unknown activation {arguments.activation!r}; there are "
            f"{', '.join(hidden)}"
        )
    if arguments.dtype == "float64" and arguments.precision != "float32":
        raise InputError(f"--precision {arguments.precision} is for --dtype float32")
    if arguments.cv and arguments.test:
        raise InputError("--cv and --test: one of them says what the scores are of")
    if arguments.cv and arguments.valid:
        raise InputError(
            "--cv and --valid: each fold is scored by networks with folds of their own"
        )
    if arguments.overwrite and arguments.out is None:
        raise InputError("--overwrite needs --out: without it a run has a new folder")
    numbers = np.finfo(arguments.dtype)
    smallest, largest = float(numbers.tiny), float(numbers.max)
    for option in ("lr", "l2"):
        value = getattr(arguments, option)
        if value and not smallest <= value <= largest:
            raise InputError(
                f"--{option} {value:g} is no number of {arguments.dtype}, which are from "
                f"{smallest:g} to {largest:g}"
            )


def _check_together(arguments, samples: Samples) -> None:
    """Refuse options that have no effect on these samples."""
    for option in ("label_smoothing", "class_weight"):
        value = getattr(arguments, option)
        if samples.classes is None and value is not None:
            shown = f"--{option.replace('_', '-')} {value}"
            raise InputError(f"{shown} is for classes, and {samples.name} has values to predict")
    for option in ("activation", "dropout"):
        if arguments.hidden == () and getattr(arguments, option) is not None:
            raise InputError(f"--{option} is for hidden layers, and --hidden none leaves them out")


def _parts(arguments, samples: Samples) -> Parts:
    """The held-out part is seen once, after training; the validation part, or the folds of a table,
    decide when to stop."""
    how, drop = Reading.of(arguments), arguments.drop_missing_target
    rng = np.random.default_rng(arguments.seed)
    training, test, where = samples, None, "on the held-out fifth"
    if arguments.test:
        test, where = data.load_more(arguments.test, samples, how, drop), f"on {arguments.test}"
    elif not arguments.cv:
        training, test = samples.split(HELD_OUT, rng)
    validation = None
    if arguments.valid:
        validation = data.load_more(arguments.valid, samples, how, drop)
    elif not samples.of_table:
        training, validation = training.split(VALIDATION, rng)
    return Parts(training, validation, test, where)


def _shown(parts: Parts) -> str:
    shown = f"{len(parts.training)} to train, "
    shown += "in folds" if parts.validation is None else f"{len(parts.validation)} to validate"
    return shown + (f", {len(parts.test)} held out" if parts.test is not None else "")


def _make(arguments, device: str, training: Samples, resumed: Path | None = None) -> Any:
    """A model for these samples, or with resumed that of the checkpoint in this folder."""
    kind: Any = ArrayNetwork
    if training.of_table:
        from gpumlp.cli.table_model import TableModel as kind
    if resumed is None:
        return kind.make(arguments, device, training)
    path = resumed / CHECKPOINT
    try:
        return kind.resumed(path, device, training)
    except (gpumlp.FileError, OSError, ValueError, TypeError) as error:
        raise InputError(str(error)) from error


# ---------------------------------------------------------------- training
@contextlib.contextmanager
def _terminate_as_interrupt():
    """Within it SIGTERM is Ctrl-C, where it has no handler of another kind."""
    try:
        if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
            raise ValueError
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _train(arguments, model, parts: Parts, checkpoint) -> Trained:
    history = _fit(arguments, model, parts, checkpoint)
    if history.interrupted and not history.loss:
        raise KeyboardInterrupt  # there is no best network yet
    return Trained(model, history, sum(history.seconds))


def _fit(arguments, model, parts: Parts, checkpoint):
    """Train in place until it stops getting better; returns the history."""
    return model.fit(arguments, parts.training, parts.validation, checkpoint)


def _cross_validated(arguments, device: str, samples: Samples) -> Rated:
    """By models that did not see the rows that they are scored on."""
    from sklearn.model_selection import KFold, StratifiedKFold

    K, kind = arguments.cv, KFold if samples.classes is None else StratifiedKFold
    fewest = len(samples)
    if samples.classes is not None:
        fewest = int(np.unique(samples.y, return_counts=True)[1].min())
    if fewest < K:
        each = "" if samples.classes is None else "a class of "
        raise InputError(f"--cv {K}: {each}{samples.name} has only {fewest} samples")
    folds = kind(K, shuffle=True, random_state=arguments.seed % 2**32)
    order, found = [], []
    for number, (training, held) in enumerate(folds.split(samples.rows, samples.y), 1):
        model = _make(arguments, device, samples.take(training))
        history = model.fit(arguments, samples.take(training), None)
        if history.interrupted:
            raise KeyboardInterrupt
        found.append(model.outputs(samples.take(held).x, samples.name))
        order.append(held)
        print(f"fold {number} of {K} is done", flush=True)
    predicted, shares = zip(*found, strict=True)
    return Rated(
        samples.take(np.concatenate(order)),
        np.concatenate(predicted),
        None if samples.classes is None else np.concatenate(shares),
        scores.baseline_of(samples.y, samples.classes),
        f"by {K}-fold cross-validation",
    )


# ---------------------------------------------------------------- after
def _saved(model, path: Path) -> tuple[Path | None, str]:
    """See `run_folder.save`."""
    try:
        place, problem = run_folder.save(model.save, path)
    except ValueError as error:  # numbers that are not finite
        raise InputError(f"training failed: {error}") from error
    if problem:
        complain(problem)
    return place, problem


def _report(trained: Trained, place: Path | None, folder: RunFolder) -> None:
    epochs = len(trained.history.loss)
    if trained.history.interrupted:
        what = "; the network trained so far is saved" if place else ""
        print(f"interrupted after {epochs} epochs{what}")
        if folder.goes_on:
            print(f"          {folder.goes_on}")
    print(f"trained   {epochs} epochs in {trained.seconds:.2f} s")
    if place:
        print(f"model     {place}", flush=True)


def _scored(model, parts: Parts) -> Rated:
    test = parts.test
    assert test is not None, "there is something to score on"
    predicted, shares = model.outputs(test.x, parts.where.removeprefix("on "))
    baseline = scores.baseline_of(parts.training.y, test.classes)
    return Rated(test, predicted, shares, baseline, parts.where)


def _report_scores(rated: Rated, folder: RunFolder | None, weighted: bool) -> None:
    """Print them, and writes them and the predictions."""
    samples, predicted, shares, baseline, where = rated
    found = scores.score(samples.y, predicted, shares, samples.classes, baseline)
    for line in scores.lines(found, where, weighted):
        print(line)
    if folder is None:
        return
    folder.write(METRICS, run_folder.as_json({"of": where} | found))
    y = samples.y.reshape(len(samples), -1).T
    names = ["actual"] if len(y) == 1 else [f"actual y{i}" for i in range(len(y))]
    piece = {f"{KEPT}row": samples.rows}
    piece |= {f"{KEPT}{name}": column for name, column in zip(names, y, strict=True)}
    if shares is None:
        piece["value"] = predicted
    else:
        piece |= {"label": predicted, "probability": shares}
    text = "".join(as_csv(iter([piece]), samples.classes))
    folder.write(PREDICTIONS, text.encode(errors="backslashreplace"))


def _write_run(arguments, folder: RunFolder, trained: Trained, parts: Parts) -> None:
    """What there is to know of the run besides its scores."""
    folder.remove(METRICS, PREDICTIONS)  # of a run that is replaced
    training = parts.training
    config = {
        "options": unfinished.options_of(arguments),
        "data": training.name,
        "target": training.target,
        "task": "regression" if training.classes is None else "classification",
        "gpumlp": gpumlp.__version__,
        "samples": len(training),
        "baseline": np.asarray(scores.baseline_of(training.y, training.classes)).tolist(),
        "epochs": len(trained.history.loss),
        "best_epoch": np.asarray(trained.model.best_epoch).tolist(),
        "seconds": trained.seconds,
    }
    folder.write(CONFIG, run_folder.as_json(config))
    lists = trained.history.state()
    # Losses with smoothed labels say so: they are no cross entropies.
    smoothed = "_with_smoothed_labels" if trained.model.smoothing else ""
    names = {"loss": f"loss{smoothed}", "val_loss": f"val_loss{smoothed}"}
    names |= {name: name for name in ("val_accuracy", "lr", "seconds")}
    epochs = [
        {"epoch": i + 1} | {new: lists[old][i] for old, new in names.items() if lists[old]}
        for i in range(len(trained.history.loss))
    ]
    text = "".join(json.dumps(epoch) + "\n" for epoch in epochs)
    folder.write(HISTORY, text.encode())


def _draw(trained: Trained, path: Path, title: str) -> None:
    """Draw the curves; without matplotlib the training was still worth it, so only says so."""
    from gpumlp.training import plot

    if trained.model.smoothing:
        title += f" (losses with label smoothing {trained.model.smoothing:g})"
    try:
        drawn = plot.curves(trained.history, path, title, trained.model.best_epoch)
        print(f"curves    {drawn}")
    except ImportError as error:
        complain(f"no curves: {error}")
        path.unlink(missing_ok=True)  # those of a run that is replaced
    except OSError as error:
        raise InputError(f"{path} cannot be written ({run_folder.reason(error)})") from error
