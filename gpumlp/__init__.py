"""gpumlp: multilayer perceptrons on an NVIDIA GPU, one network or a thousand at once.

The public names are loaded when they are first used, so that `import gpumlp` costs nothing.
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "activation": ["Activation", "activations"],
    "callback": ["Callback", "EarlyStopping"],
    "checkpoint": ["Checkpoint", "resume"],
    "device": [],
    "estimator": ["MLPClassifier", "MLPRegressor"],
    "exchange": [
        "export_onnx",
        "from_sklearn",
        "load_torch_state",
        "to_sklearn",
        "to_torch_state",
    ],
    "files": ["FileError", "load", "save"],
    "gradients": ["check_gradients"],
    "history": ["History"],
    "initializer": ["initializers"],
    "loss": ["Loss", "losses"],
    "network": ["MLP"],
    "optimizer": ["SGD", "Adam", "AdamW", "RMSprop"],
    "schedule": ["schedules"],
    "search": [
        "GridSearchCV",
        "HalvingGridSearchCV",
        "HalvingRandomSearchCV",
        "RandomizedSearchCV",
    ],
    "trainer": ["DivergenceError", "Trainer"],
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE)


def __getattr__(name):
    if name not in _MODULE:
        raise AttributeError(f"module 'gpumlp' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gpumlp.{_MODULE[name]}"), name)


def __dir__():
    return [*globals(), *__all__]
