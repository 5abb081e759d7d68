"""Valid files of every kind, which tests/fuzz/files.py damages."""

from __future__ import annotations

import importlib.util
import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import gpumlp
from gpumlp.functions import optimizer
from tests.helpers.optional import Package

pd = Package("pandas")

ROWS, FEATURES, CLASSES = 24, 4, 3
_rng = np.random.default_rng(0)
X = _rng.normal(size=(ROWS, FEATURES))
CODES = np.arange(ROWS) % CLASSES
NAMES = np.array(["ebb", "flow", "slack"])[CODES]
SEVERAL = np.eye(CLASSES, dtype=int)[CODES] | np.eye(CLASSES, dtype=int)[(CODES + 1) % CLASSES]
REAL = X @ _rng.normal(size=(FEATURES, 2))

NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stack": {
        "hidden": ["prelu", gpumlp.activations["leaky_relu"](slope=0.2)],
        "models": 2,
        "dtype": "float64",
        "dropout": [0.1, [0.0, 0.3]],
        "seed": [3, 8],
    },
    "random slopes": {"hidden": "rrelu", "output": "log_softmax", "models": 1},
    "scale": {"scale": [True, False, True], "models": 2},
    "narrow": {"precision": "bf16", "hidden": "silu", "output": "sigmoid"},
}

# Of trainers: a loss and an output that fits it, an optimiser, a schedule, in turns.
LOSSES = [
    (gpumlp.losses["cross_entropy"](label_smoothing=0.1), "softmax"),
    (gpumlp.losses["quantile"](q=0.9), "identity"),
    (gpumlp.losses["huber"](delta=0.5), "tanh"),
    ("poisson", "exp"),
    ("focal", "sigmoid"),
]
OPTIMIZERS = [
    *(kind(0.01) for kind in optimizer.optimizers.values()),
    gpumlp.SGD([0.1, 0.2], momentum=0.9, nesterov=True, l1=1e-3),
    gpumlp.RMSprop([0.01, 0.003], momentum=0.9, centered=True, l2=1e-3),
    gpumlp.AdamW([0.01, 0.02], weight_decay=0.01),
]
SCHEDULES = [None, *gpumlp.schedules]

RANDOM = {
    "RandomState": lambda: np.random.RandomState(3),
    "RandomState of bits": lambda: np.random.RandomState(np.random.PCG64(1)),
    **{
        name: lambda name=name: np.random.Generator(getattr(np.random, name)(5))
        for name in ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
    },
}

ESTIMATORS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "classes": ("MLPClassifier", NAMES, {"class_weight": {"ebb": 2.0, "flow": 1.0}}),
    "objects": ("MLPClassifier", NAMES.astype(object), {"solver": "lbfgs", "frame": True}),
    "two classes": ("MLPClassifier", CODES > 0, {"early_stopping": True, "dtype": np.float32}),
    "one class": ("MLPClassifier", np.zeros(ROWS, int), {}),
    "labels": ("MLPClassifier", SEVERAL, {"solver": "sgd", "learning_rate": "adaptive"}),
    "margin": ("MLPClassifier", CODES, {"loss": "hinge", "weight_decay": 0.1}),
    "layers": (
        "MLPRegressor",
        REAL[:, 0],
        {
            "hidden_layer_sizes": [5, 4],
            "activation": ["prelu", gpumlp.activations["leaky_relu"](slope=0.2)],
            "dropout": (0.1, 0.2),
            "callbacks": [gpumlp.EarlyStopping(9)],
        },
    ),
    "quantile": ("MLPRegressor", REAL, {"loss": "quantile", "quantile": 0.3, "frame": True}),
    "ensemble": (
        "MLPClassifier",
        NAMES,
        {"n_models": 3, "bootstrap": True, "max_features": 2, "alpha": [0.1, 0.2, 0.3]},
    ),
    "ensemble held": (
        "MLPRegressor",
        REAL[:, 0],
        {"n_models": 2, "bootstrap": True, "early_stopping": True, "frame": True},
    ),
    **{
        f"schedule {name}": ("MLPRegressor", REAL[:, 0], {"schedule": name, "clip_norm": 0.5})
        for name in gpumlp.schedules
    },
}

TABULAR: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "classes": ("TabularClassifier", NAMES, {}),
    "two classes": ("TabularClassifier", CODES > 0, {"dtype": "float64", "frame": True}),
    "values": ("TabularRegressor", REAL[:, 0], {"frame": True}),
    "quantiles": (
        "TabularRegressor",
        REAL[:, 0],
        {"quantile": [0.9, 0.1], "network_params": {"activation": "prelu"}},
    ),
}


def _network(options: dict[str, Any]) -> gpumlp.MLP:
    return gpumlp.MLP((FEATURES, 5, 3, CLASSES), device="cpu", **options)


def _trainers():
    """Names and trainers."""
    turns = zip(OPTIMIZERS, itertools.cycle(LOSSES), itertools.cycle(SCHEDULES), strict=False)
    for number, (law, (loss, output), schedule) in enumerate(turns):
        models = len(law.lr) if isinstance(law.lr, list) else None
        dtype = "float32" if number % 2 else "float64"
        hidden = "prelu" if number % 3 else "tanh"
        net = _network({"hidden": hidden, "output": output, "models": models, "dtype": dtype})
        clip = 0.5 if number % 2 else None
        trainer = gpumlp.Trainer(net, loss, law, batch_size=8, schedule=schedule, clip_norm=clip)
        yield f"{number} {type(law).__name__}", trainer


def targets(trainer) -> np.ndarray:
    """That its loss takes."""
    return CODES if trainer.loss.classes else np.eye(CLASSES)[CODES]


def fit(trainer, epochs: int, callbacks=()) -> None:
    y = targets(trainer)
    given = {"validation": (X[:6], y[:6]), "callbacks": callbacks, "progress": False}
    trainer.fit(X, y, epochs, **given)


def features(named: bool):
    """X; with names, where they are asked for and pandas is there."""
    if not (named and importlib.util.find_spec("pandas")):
        return X
    return pd.DataFrame(X, columns=list("abcd"))


def table(named: bool):
    """Columns of every kind, named as those of `features`."""
    columns = X.astype(object)
    columns[::5, 0] = None
    columns[:, 1] = NAMES
    columns[::7, 1] = ""
    columns[:, 2] = [np.datetime64("2020-02-27") + 9 * i for i in range(ROWS)]
    if not (named and importlib.util.find_spec("pandas")):
        return columns
    return pd.DataFrame(columns, columns=list("abcd"))


def tabular(kind: str, y, options: dict[str, Any]):
    small = {"hidden_layer_sizes": (5,), "max_epochs": 2, "n_models": 2, "random_state": 0}
    named = options.get("frame", False)
    rest = {name: value for name, value in options.items() if name != "frame"}
    return getattr(gpumlp, kind)(device="cpu", **small | rest).fit(table(named), y)


def estimator(kind: str, y, options: dict[str, Any], **more):
    options = {"hidden_layer_sizes": (5,), "max_iter": 3, "batch_size": 8, "random_state": 0} | (
        options
    )
    frame = options.pop("frame", False)
    model = getattr(gpumlp, kind)(device="cpu", **options | more)
    return model.fit(features(frame), y)


def write(folder: Path) -> None:
    """All of them.  The names of those that can be resumed begin with "checkpoint"."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, options in NETWORKS.items():
            gpumlp.save(_network(options), folder / f"network {name}", {"units": ["m", {"a": 1.5}]})
        for name, trainer in _trainers():
            fit(trainer, 2)
            gpumlp.save(trainer, folder / f"trainer {name}")
        for name, trainer in _trainers():
            checkpoint = gpumlp.Checkpoint(folder / f"checkpoint {name}.safetensors")
            fit(trainer, 2, [gpumlp.EarlyStopping(3), checkpoint])
            if name.startswith(("1", "4")):  # in the midst of an epoch
                trainer.state.batches_done, trainer.epochs_left = 1, 2
                checkpoint.write(trainer)
        for name, (kind, y, options) in ESTIMATORS.items():
            gpumlp.save(estimator(kind, y, options), folder / f"estimator {name}")
        for name, (kind, y, options) in TABULAR.items():
            gpumlp.save(tabular(kind, y, options), folder / f"tabular {name}")
            path = folder / f"checkpoint of table {name}.safetensors"
            tabular(kind, y, options | {"callbacks": [gpumlp.Checkpoint(path)]})
        for name, random in RANDOM.items():
            model = estimator("MLPRegressor", REAL, {}, random_state=random())
            gpumlp.save(model, folder / f"estimator {name}")
            path = folder / f"checkpoint of {name}.safetensors"
            callbacks = [gpumlp.EarlyStopping(3), gpumlp.Checkpoint(path)]
            estimator("MLPClassifier", CODES, {}, random_state=random(), callbacks=callbacks)
