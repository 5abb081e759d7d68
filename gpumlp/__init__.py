"""gpumlp: multilayer perceptrons on an NVIDIA GPU, one network or a thousand at once.

The public names are loaded when they are first used, so that `import gpumlp` costs nothing.
"""

import importlib

from gpumlp.utils.version import __version__ as __version__

_HOME = {
    "estimators.classifier": ["MLPClassifier"],
    "estimators.regressor": ["MLPRegressor"],
    "functions.activation": ["Activation", "activations"],
    "functions.initializer": ["initializers"],
    "functions.loss": ["Loss", "losses"],
    "functions.optimizer": ["SGD", "Adam", "AdamW", "Lion", "RMSprop"],
    "functions.schedule": ["schedules"],
    "io.checkpoint": ["Checkpoint", "resume"],
    "io.errors": ["FileError"],
    "io.files": ["load", "save"],
    "io.onnx_file": ["export_onnx"],
    "io.scikit_learn": ["from_sklearn", "to_sklearn"],
    "io.torch_layout": ["load_torch_state", "to_torch_state"],
    "model.gradients": ["check_gradients"],
    "model.mlp": ["MLP"],
    "search.halving": ["HalvingGridSearchCV", "HalvingRandomSearchCV"],
    "search.searches": ["GridSearchCV", "RandomizedSearchCV"],
    "training.callback": ["Callback", "EarlyStopping"],
    "training.history": ["History"],
    "training.trainer": ["DivergenceError", "Trainer"],
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE)


def __getattr__(name):
    if name not in _MODULE:
        raise AttributeError(f"module 'gpumlp' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gpumlp.{_MODULE[name]}"), name)


def __dir__():
    return [*globals(), *__all__]
