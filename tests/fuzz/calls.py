"""Calls of the public interface with hostile arguments: a clear refusal, or finite results.

Each call below has right arguments; a case replaces none, one or two of them by hostile values.  A
refusal has to be the library's own, and its message names an argument that was replaced, and shows
its value, its shape or what in it is wrong.  What is accepted leaves no NaN and no infinity.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import NotFittedError

import gpumlp
from gpumlp.functions.optimizer import Optimizer, optimizers
from gpumlp.functions.schedule import Cosine, Exponential, InverseScaling, OneCycle, Plateau, Step
from tests.fuzz import ACCEPTED, Fault, hostile, refused

LIMIT = 20.0
MEMORY = 1 << 30

OWN = (
    *(ValueError, TypeError, MemoryError, OSError, RuntimeError),
    *(gpumlp.FileError, gpumlp.DivergenceError, NotFittedError),
)
PACKAGE = str(Path(gpumlp.__file__).parent)
# scikit-learn's checks of data speak for its estimators.
ALSO = "/sklearn/"
LARGE = 1e4  # numbers from here on may overflow in a network that does what it was told


class Call(NamedTuple):
    """run(**arguments) is what a case calls; right: its arguments, which `one` draws anew."""

    run: Callable[..., Any]
    right: dict[str, Callable[[np.random.Generator], Any]]


def prepare(folder: Path) -> dict[str, Call]:
    os.chdir(folder)  # a hostile value may be the name of a file
    gpumlp.save(network(), folder / "network.safetensors")
    return calls(folder)


# ---------------------------------------------------------------- what is called
SIZES = (4, 5, 3)
ROWS = 12


def network(**options):
    return gpumlp.MLP(SIZES, **{"device": "cpu"} | options)


def features(random, rows=ROWS, width=SIZES[0]):
    return random.normal(size=(rows, width))


def labels(random):
    return np.arange(ROWS) % 3


def weights(random):
    return random.uniform(0.5, 2, ROWS)


def of(*values):
    """One of some values."""
    return lambda random: values[random.integers(len(values))]


def trained(optimizer=None, **options):
    fitted = {key: options.pop(key) for key in list(options) if key in FIT}
    trainer = gpumlp.Trainer(network(), optimizer=optimizer, **options)
    random = np.random.default_rng(0)
    given = {"x": features(random), "y": labels(random), "epochs": 2, "progress": False} | fitted
    trainer.fit(**given)
    return trainer.net


FIT = ("x", "y", "epochs", "validation", "callbacks", "progress", "sample_weight")
NUMBERS = {
    **{cls: vars(cls()) for cls in optimizers.values()},
    Step: {"every": 2, "decay": 0.5, "unit": "step"},
    Exponential: {"decay": 0.9, "unit": "epoch"},
    InverseScaling: {"power": 0.5},
    Cosine: {"total": 5, "warmup": 1, "floor": 0.1},
    OneCycle: {"total": 6, "rise": 0.3, "start": 25.0, "end": 1e3},
    Plateau: {"decay": 0.5, "patience": 1, "delta": 0.0, "floor": 0.1, "monitor": "loss"},
    gpumlp.EarlyStopping: {
        **{"patience": 3, "delta": 0.0, "monitor": "loss", "restore_best": True},
    },
}


def _use(made):
    """Train by it."""
    if isinstance(made, gpumlp.Callback):
        return trained(callbacks=[made])
    if isinstance(made, Optimizer):
        return trained(made)
    return trained(schedule=made)


def _objects() -> dict[str, Call]:
    return {
        cls.__name__: Call(
            lambda cls=cls, **given: _use(cls(**given)),
            {name: of(value) for name, value in numbers.items()},
        )
        for cls, numbers in NUMBERS.items()
    }


def _stepped(x, y, sample_weight):
    trainer = gpumlp.Trainer(network())
    trainer.step(x, y, sample_weight)
    if trainer.diverged:
        raise gpumlp.DivergenceError(1, 1, 0.1, trainer.history)
    return trainer.net


def _tuned(**numbers):
    trainer = gpumlp.Trainer(network())
    trainer.retune(**numbers)
    return trainer.net


def _engine(folder: Path) -> dict[str, Call]:
    batch = {"x": features, "y": labels, "sample_weight": weights}
    return {
        "MLP": Call(
            lambda sizes=SIZES, **given: gpumlp.MLP(sizes, **{"device": "cpu"} | given),
            {
                "sizes": of((4, 3), [4, 5, 3], np.array([4, 5, 3])),
                "hidden": of("relu", "tanh"),
                "output": of("softmax", "identity"),
                "models": of(None, 3),
                "dtype": of("float32", np.float64),
                "device": of("cpu"),
                "init": of("glorot_uniform", "zeros", lambda rng, out, into: np.ones((out, into))),
                "seed": of(0, 7),
                "dropout": of(0.0, 0.3),
                "scale": of(False, True),
                "precision": of("float32"),
                "tune": of(True, False),
            },
        ),
        "Trainer": Call(
            lambda **given: trained(**given),
            {
                "loss": of("cross_entropy", "focal"),
                "optimizer": of(None, gpumlp.SGD(0.1)),
                "batch_size": of(4, 128),
                "schedule": of(None, "cosine", lambda step: 1 / (1 + step)),
                "shuffle": of(True, False),
                "reduction": of("mean", "sum"),
                "seed": of(0, 9),
                "clip_norm": of(None, 1.0),
                "penalty_in_loss": of(True, False),
                "factors": of(None, {"b": (0.5, 0.0)}, {"W": (2, [1.0, 1.0])}),
            },
        ),
        "fit": Call(
            lambda **given: trained(**given),
            {
                **batch,
                "epochs": of(1, 2),
                "validation": lambda random: (features(random), labels(random)),
                "callbacks": of(None, [gpumlp.EarlyStopping(3)]),
                "progress": of(False),
            },
        ),
        "step": Call(_stepped, batch),
        "forward": Call(lambda x: network().forward(x), {"x": features}),
        "stack": Call(lambda x: network(models=2).forward(x), {"x": features}),
        "loss_and_grad": Call(
            lambda **given: network().loss_and_grad(**given)[1].theta,
            {**batch, "loss": of("cross_entropy"), "reduction": of("mean", "sum")},
        ),
        "check_gradients": Call(
            lambda **given: gpumlp.check_gradients(network(), **given),
            {**batch, "loss": of("cross_entropy"), "step": of(1e-6), "seed": of(1)},
        ),
        "retune": Call(_tuned, {"lr": of(0.1), "beta1": of(0.5)}),
        "leaky_relu": Call(
            lambda slope: network(hidden=gpumlp.activations["leaky_relu"](slope=slope)),
            {"slope": of(0.1)},
        ),
        "focal": Call(
            lambda gamma: trained(loss=gpumlp.losses["focal"](gamma=gamma)), {"gamma": of(2)}
        ),
        "Checkpoint": Call(
            lambda **given: trained(callbacks=[gpumlp.Checkpoint(**given)]),
            {
                "folder_or_path": of(folder / "checkpoints"),
                "every_epochs": of(1, 2),
                "every_minutes": of(None, 1),
                "keep": of(1, 3),
            },
        ),
        "to_sklearn": Call(
            lambda model: gpumlp.to_sklearn(network(models=2), model=model).coefs_,
            {"model": of(0, 1)},
        ),
        "to_torch_state": Call(
            lambda **given: [*gpumlp.to_torch_state(network(), **given).values()],
            {"prefix": of("", "net."), "spacing": of(2, 3)},
        ),
        "save": Call(
            lambda path: gpumlp.save(network(), path), {"path": of(folder / "file.safetensors")}
        ),
        "load": Call(
            lambda path, **given: gpumlp.load(path, **given),
            {"path": of(folder / "network.safetensors"), "device": of("cpu")},
        ),
    }


def _fitted(cls):
    def run(X, y, sample_weight, **parameters):
        found = cls(**{"max_iter": 2, "hidden_layer_sizes": (5,), "device": "cpu"} | parameters)
        found.fit(X, y, sample_weight)
        outputs = found.predict(features(np.random.default_rng(1)))
        members = getattr(found, "estimators_", [found])
        arrays = [array for each in members for array in each.coefs_]
        return arrays + ([outputs] if outputs.dtype.kind == "f" else [])

    return run


ESTIMATOR = {
    "hidden_layer_sizes": of((5,), [4, 3], 6),
    "activation": of("relu", "tanh"),
    "alpha": of(1e-4),
    "batch_size": of("auto", 5),
    "learning_rate": of("constant"),
    "learning_rate_init": of(1e-3),
    "max_iter": of(1, 2),
    "shuffle": of(True),
    "random_state": of(0, None, np.random.default_rng(0)),
    "tol": of(1e-4),
    "warm_start": of(False),
    "validation_fraction": of(0.3),
    "beta_1": of(0.9),
    "beta_2": of(0.9),
    "epsilon": of(1e-8),
    "n_iter_no_change": of(10),
    "l1": of(0.0),
    "dropout": of(0.0, 0.2),
    "schedule": of(None, "cosine"),
    "clip_norm": of(None, 1.0),
    "n_models": of(None, 2),
    "dtype": of(None, "float64"),
    "callbacks": of(None),
}


def calls(folder: Path) -> dict[str, Call]:
    data = {"X": features, "sample_weight": weights}
    return {
        **_engine(folder),
        **_objects(),
        "MLPClassifier": Call(_fitted(gpumlp.MLPClassifier), {**data, "y": labels, **ESTIMATOR}),
        "MLPRegressor": Call(
            _fitted(gpumlp.MLPRegressor),
            {**data, "y": lambda random: random.normal(size=ROWS), **ESTIMATOR},
        ),
    }


# ---------------------------------------------------------------- the verdict
def one(random: np.random.Generator, shared: dict[str, Call]) -> str:
    name = list(shared)[random.integers(len(shared))]
    call = shared[name]
    # Of many arguments some, so that others keep their defaults.
    given = {key: draw(random) for key, draw in call.right.items() if _needed(key, random)}
    replaced = {}
    for key in random.permutation(list(given))[: random.integers(3)]:
        value = hostile.value(random, given[key])
        if key in ENDLESS and _is_large(value):
            value = -1
        replaced[key] = given[key] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = call.run(**given)
        except OWN as error:
            _judge(error, name, replaced, given)
            return refused(error)
    _finite(result, name, replaced)
    return ACCEPTED


ENDLESS = ("epochs", "max_iter")  # a large number is right, and takes its time
NEEDED = (*FIT, "X", "path", "folder_or_path", "model", "slope", "gamma", "step", "seed")


def _needed(key, random) -> bool:
    return key in NEEDED or bool(random.integers(2))


def _shown(arguments) -> str:
    return ", ".join(f"{key} = {value!r}"[:200] for key, value in arguments.items())


def _judge(error, name, replaced, given) -> None:
    """Whether the exception is the library's own, and clear."""
    place = traceback.extract_tb(error.__traceback__)[-1].filename
    said = f"{name}({_shown(replaced)}): {type(error).__name__}: {error}"
    if ALSO in place and name.startswith("MLP") and name != "MLP":
        return
    if isinstance(error, OSError) and {"path", "folder_or_path"} & set(replaced):
        return
    if not place.startswith(PACKAGE):
        raise Fault(f"foreign {type(error).__name__} from {Path(place).name}", said) from error
    if not replaced:
        raise Fault("a refusal of right arguments", f"{said}, with {_shown(given)}")
    # What is wrong is not in the arguments, or the system says it.
    if isinstance(error, gpumlp.DivergenceError | MemoryError | OSError | RuntimeError):
        return
    if str(error).startswith("Solver produced non-finite parameter weights"):
        return
    if isinstance(error, OSError) or "rows" in str(error):  # of x and y, say, the other is named
        return
    named = [key for key in replaced if key in str(error)]
    if not named:
        raise Fault("a message without the argument", said) from error
    if not any(_shows(str(error), replaced[key]) for key in named):
        raise Fault("a message without value or shape", said) from error


# What messages say of the contents of arrays.
WRONG = (
    *("NaN", "infinit", "negative", "0 everywhere", "zero", "too large", "missing"),
    *("inhomogeneous", "2D array", "at least 1 dimension", "Complex data", "with dim"),
)


def _shows(message: str, value) -> bool:
    """Whether it has the value's text, its type, its shape, its length, or what in it is wrong."""
    array = _array(value)
    signs = [*WRONG, _text(value)[:40], type(value).__name__, _text(str(value))[:40]]
    if isinstance(value, int | float) and abs(value) <= sys.float_info.max:
        signs.append(f"{value:g}")
    if array is not None:
        signs += [str(array.shape), str(array.dtype), str(len(value) if array.ndim else value)]
        if array.dtype.kind in "iuf" and array.size:
            signs += [f"{edge:g}" for edge in (array.min(), array.max())]
            signs += [str(edge) for edge in (array.min(), array.max())]
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim):
        signs += [_text(each)[:40] for each in value] + [str(np.shape(each)) for each in value]
    return any(sign and sign in message for sign in signs)


def _array(value) -> np.ndarray | None:
    try:
        return np.ma.asarray(value)
    except ValueError:
        return None


def _text(value) -> str:
    try:
        return " ".join(repr(value).split())
    except ValueError:  # an integer of too many digits
        return f"<{type(value).__name__}>"


def _finite(result, name, replaced) -> None:
    """No NaN or infinity, unless what was asked for is beyond numbers."""
    if any(_is_large(value) for value in replaced.values()):
        return
    arrays = getattr(result, "theta", result)
    for array in arrays if isinstance(arrays, list) else [arrays]:
        if array is not None and not np.isfinite(np.asarray(array, dtype=np.float64)).all():
            raise Fault("silent NaN", f"{name}({_shown(replaced)})")


def _is_large(value) -> bool:
    try:
        numbers = np.abs(np.asarray(value, dtype=np.float64))
    except (ValueError, TypeError, OverflowError):
        return False
    return bool((numbers[np.isfinite(numbers)] >= LARGE).any())
