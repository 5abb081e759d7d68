"""`gpumlp train`: from a data set to a saved network, its held-out score and its curves."""

import dataclasses
import time
from pathlib import Path

import numpy as np

import gpumlp
from gpumlp.cli import data, output
from gpumlp.cli.choose_device import choose
from gpumlp.cli.error import InputError, complain, in_options
from gpumlp.cli.preparation import Preparation
from gpumlp.utils.interrupt import Interrupt

MODEL, CURVES = "model.safetensors", "curves.png"

HELD_OUT = 1 / 5
VALIDATION = 1 / 8  # of what is not held out: a tenth of all samples

LEARNING_RATE = {
    "sgd": 0.1,
    "momentum": 0.02,
    "rmsprop": 1e-3,
    "adam": 1e-3,
    "adamw": 1e-3,
    "lion": 3e-4,
}


def run(arguments) -> int:
    _check(arguments)
    device, presented = choose(arguments.device)
    samples = data.load(arguments.data, arguments.target, arguments.task, arguments.drop or ())
    title, name = str(samples), samples.name
    out = output.folder(arguments.out or f"runs/{name}", (MODEL, CURVES))
    parts, preparation = _prepared(arguments, samples)
    # What was read may be much larger than what was made of it.
    del samples
    net = _network(arguments, device, preparation)

    train, validate, hold = (len(part.x) for part in parts)
    print(f"data      {title}")
    print(f"          {train} to train, {validate} to validate, {hold} held out")
    if preparation.columns is not None:
        print(f"columns   {preparation.columns}")
    print(f"device    {presented}")
    print(net.summary(), flush=True)

    with Interrupt() as ctrl_c:
        start = time.perf_counter()
        history = _fit(arguments, net, preparation, *parts[:2])
        seconds = time.perf_counter() - start
        ctrl_c.hold()
        # Before the network is saved, nothing that fails may end this, not even printing.
        scores, unscored = _scores(net, preparation, parts[2])
        metadata = {"data": name, "preparation": preparation.metadata(), "held_out": scores}
        place, problem = _saved(net, out / MODEL, metadata)
        _report(history, seconds, scores, place)
    if unscored is not None:
        raise unscored
    if problem:
        return 2
    _draw(history, out / CURVES, name)
    return 0


def _prepared(arguments, samples: data.Data) -> tuple[list[data.Data], Preparation]:
    """The parts to train on, to validate and to hold out, with x as the network takes it.

    The held-out part is seen once, after training; the validation part decides when to stop.
    """
    what = f"X of {samples.name}"
    rng = np.random.default_rng(arguments.seed)
    rest, held_out = data.split(samples, HELD_OUT, rng)
    training, validation = data.split(rest, VALIDATION, rng)
    preparation = Preparation.fit(training)
    if preparation.columns is not None:
        for note in (*samples.notes, *preparation.columns.notes):
            complain(f"note: {note}")
    parts = [
        dataclasses.replace(part, x=preparation.inputs(part.x, arguments.dtype, what))
        for part in (training, validation, held_out)
    ]
    return parts, preparation


def _check(arguments) -> None:
    """Refuses options that are wrong by themselves or do not go together."""
    hidden = sorted(name for name, known in gpumlp.activations.items() if not known.rows)
    if arguments.activation not in hidden:
        raise InputError(
            f"--activation: unknown activation {arguments.activation!r}; there are "
            f"{', '.join(hidden)}"
        )
    if arguments.dtype == "float64" and arguments.precision != "float32":
        raise InputError(f"--precision {arguments.precision} is for --dtype float32")
    numbers = np.finfo(arguments.dtype)
    smallest, largest = float(numbers.tiny), float(numbers.max)
    for option in ("lr", "l2"):
        value = getattr(arguments, option)
        if value and not smallest <= value <= largest:
            raise InputError(
                f"--{option} {value:g} is no number of {arguments.dtype}, which are from "
                f"{smallest:g} to {largest:g}"
            )


def _network(arguments, device: str, preparation: Preparation):
    """The network for these features and classes or values."""
    try:
        return gpumlp.MLP(
            (len(preparation.mean), *arguments.hidden, preparation.outputs),
            hidden=arguments.activation,
            output="identity" if preparation.classes is None else "softmax",
            dtype=arguments.dtype,
            device=device,
            seed=arguments.seed,
            dropout=arguments.dropout,
            precision=arguments.precision,
        )
    except MemoryError as error:
        sizes = ",".join(map(str, arguments.hidden))
        raise InputError(f"--hidden {sizes}: {in_options(error, 'train')}") from error


def _optimizer(arguments):
    name, lr = arguments.optimizer, _rate(arguments)
    # Not given, it is the law's own default: AdamW without decay would be Adam.
    penalty = {}
    if arguments.l2 is not None:
        penalty["weight_decay" if name == "adamw" else "l2"] = arguments.l2
    if name == "momentum":
        return gpumlp.SGD(lr, momentum=0.9, nesterov=True, **penalty)
    kinds = {
        "sgd": gpumlp.SGD,
        "rmsprop": gpumlp.RMSprop,
        "adam": gpumlp.Adam,
        "adamw": gpumlp.AdamW,
        "lion": gpumlp.Lion,
    }
    return kinds[name](lr, **penalty)


def _rate(arguments) -> float:
    return arguments.lr or LEARNING_RATE[arguments.optimizer]


def _fit(arguments, net, preparation: Preparation, training, validation):
    """Trains the network in place until it stops getting better; returns the history."""
    loss = "squared_error"
    if preparation.classes is not None:
        loss = gpumlp.losses["cross_entropy"](label_smoothing=arguments.label_smoothing)
    validation, training = (
        (part.x, preparation.targets(part.y, arguments.dtype, f"y of {part.name}"))
        for part in (validation, training)
    )
    trainer = gpumlp.Trainer(
        net,
        loss=loss,
        optimizer=_optimizer(arguments),
        batch_size=min(arguments.batch_size, len(training[0])),
        seed=arguments.seed,
    )
    try:
        x, y = training
        history = trainer.fit(
            x,
            y,
            epochs=arguments.epochs,
            validation=validation,
            callbacks=[gpumlp.EarlyStopping(arguments.patience, restore_best=True)],
            progress=True,
        )
    except gpumlp.DivergenceError as error:
        raise InputError(
            "training failed: the loss, its gradient or an update was NaN or infinite in epoch "
            f"{error.epoch}, with --lr {_rate(arguments):g}; a lower one may help"
        ) from error
    if history.interrupted and trainer.steps == 0:
        raise KeyboardInterrupt  # nothing has been learned
    return history


def _scores(net, preparation: Preparation, part: data.Data):
    """Accuracy, or R² and the root of the mean squared error, on samples not trained on; and the
    error that there is instead."""
    try:
        return _scored(net.forward(part.x), preparation, part.y), None
    except Exception as error:
        return {}, error


def _scored(found, preparation: Preparation, y) -> dict[str, float]:
    if preparation.classes is not None:
        return {"accuracy": float((found.argmax(axis=1) == y).mean())}
    # Squares may be beyond float64; a score that is not finite is left out.
    with np.errstate(over="ignore", invalid="ignore"):
        squares = (preparation.values(found) - y) ** 2
        spread = ((y - y.mean(axis=0)) ** 2).sum(axis=0)
        scores = {"RMSE": float(np.sqrt(squares.mean()))}
        # R² is the mean over the targets; a target that is constant here has none.
        if (varied := spread > 0).any():
            r2 = 1 - squares.sum(axis=0)[varied] / spread[varied]
            scores = {"R²": float(r2.mean()), **scores}
    return {name: score for name, score in scores.items() if np.isfinite(score)}


def _saved(net, path: Path, metadata: dict) -> tuple[Path | None, str]:
    """See `output.save`."""
    try:
        place, problem = output.save(net, path, metadata)
    except ValueError as error:  # numbers that are not finite
        raise InputError(f"training failed: {error}") from error
    if problem:
        complain(problem)
    return place, problem


def _report(history, seconds: float, scores: dict[str, float], place: Path | None) -> None:
    epochs = len(history.loss)
    if history.interrupted:
        what = "; the network trained so far is saved" if place else ""
        print(f"interrupted after {epochs} epochs{what}")
    print(f"trained   {epochs} epochs in {seconds:.2f} s")
    for score, value in scores.items():
        print(f"{score:10}{value:#.4g} on the held-out fifth")
    if place:
        print(f"model     {place}", flush=True)


def _draw(history, path: Path, title: str) -> None:
    """Draws the curves; without matplotlib the training was still worth it, so only says so."""
    from gpumlp.training import plot

    try:
        print(f"curves    {plot.curves(history, path, title)}")
    except ImportError as error:
        complain(f"no curves: {error}")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({output.reason(error)})") from error
