"""gpumlp: multilayer perceptrons on an NVIDIA GPU, one network or a thousand at once.

The public names are loaded when they are first used, so that `import gpumlp` costs nothing.
"""

import importlib

from gpumlp.utils.version import __version__ as __version__

TYPE_CHECKING = False  # true for type checkers; `typing` would take a while
if TYPE_CHECKING:
    from gpumlp.estimators.classifier import MLPClassifier as MLPClassifier
    from gpumlp.estimators.regressor import MLPRegressor as MLPRegressor
    from gpumlp.estimators.tabular.encoders import PiecewiseLinearEncoder as PiecewiseLinearEncoder
    from gpumlp.estimators.tabular.encoders import RobustSmoothScaler as RobustSmoothScaler
    from gpumlp.estimators.tabular.tabular_classifier import TabularClassifier as TabularClassifier
    from gpumlp.estimators.tabular.tabular_regressor import TabularRegressor as TabularRegressor
    from gpumlp.functions.activation import Activation as Activation
    from gpumlp.functions.activation import activations as activations
    from gpumlp.functions.initializer import initializers as initializers
    from gpumlp.functions.loss import Loss as Loss
    from gpumlp.functions.loss import losses as losses
    from gpumlp.functions.optimizer import SGD as SGD
    from gpumlp.functions.optimizer import Adam as Adam
    from gpumlp.functions.optimizer import AdamW as AdamW
    from gpumlp.functions.optimizer import Lion as Lion
    from gpumlp.functions.optimizer import RMSprop as RMSprop
    from gpumlp.functions.schedule import schedules as schedules
    from gpumlp.io.checkpoint import Checkpoint as Checkpoint
    from gpumlp.io.checkpoint import resume as resume
    from gpumlp.io.errors import FileError as FileError
    from gpumlp.io.files import load as load
    from gpumlp.io.files import save as save
    from gpumlp.io.onnx_file import export_onnx as export_onnx
    from gpumlp.io.scikit_learn import from_sklearn as from_sklearn
    from gpumlp.io.scikit_learn import to_sklearn as to_sklearn
    from gpumlp.io.torch_layout import load_torch_state as load_torch_state
    from gpumlp.io.torch_layout import to_torch_state as to_torch_state
    from gpumlp.model.gradients import check_gradients as check_gradients
    from gpumlp.model.mlp import MLP as MLP
    from gpumlp.search.halving import HalvingGridSearchCV as HalvingGridSearchCV
    from gpumlp.search.halving import HalvingRandomSearchCV as HalvingRandomSearchCV
    from gpumlp.search.searches import GridSearchCV as GridSearchCV
    from gpumlp.search.searches import RandomizedSearchCV as RandomizedSearchCV
    from gpumlp.training.callback import Callback as Callback
    from gpumlp.training.callback import EarlyStopping as EarlyStopping
    from gpumlp.training.divergence import DivergenceError as DivergenceError
    from gpumlp.training.history import History as History
    from gpumlp.training.trainer import Trainer as Trainer

_HOME = {
    "estimators.classifier": ["MLPClassifier"],
    "estimators.regressor": ["MLPRegressor"],
    "estimators.tabular.encoders": ["PiecewiseLinearEncoder", "RobustSmoothScaler"],
    "estimators.tabular.tabular_classifier": ["TabularClassifier"],
    "estimators.tabular.tabular_regressor": ["TabularRegressor"],
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
    "training.divergence": ["DivergenceError"],
    "training.history": ["History"],
    "training.trainer": ["Trainer"],
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE)


def __getattr__(name: str) -> object:
    if name not in _MODULE:
        raise AttributeError(f"module 'gpumlp' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gpumlp.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
