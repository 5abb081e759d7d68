"""What users get who say nothing: numbers that are documented, and that their scripts rely on."""

import inspect

import pytest
from sklearn import model_selection
from sklearn.experimental import enable_halving_search_cv  # noqa: F401

import gpumlp
from gpumlp.cli import array_network, options

ADAM = {"lr": 0.001, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "l1": 0, "l2": 0,
        "eps_corrected": True, "decay_per_weight": False, "lazy": False}  # fmt: skip
PENALTIES = {"l1": 0, "l2": 0, "decay_per_weight": False}
# None and the empty collections left out
DEFAULTS = {
    "SGD": {"lr": 0.01, "momentum": 0, "nesterov": False, "lazy": False,
            **PENALTIES},
    "RMSprop": {"lr": 0.01, "rho": 0.99, "eps": 1e-8, "momentum": 0, "centered": False,
                **PENALTIES},
    "Adam": ADAM,
    "AdamW": {**ADAM, "weight_decay": 0.01},
    "Lion": {"lr": 1e-4, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0, **PENALTIES},
    "MLP": {"hidden": "relu", "output": "softmax", "dtype": "float32", "device": "auto",
            "init": "glorot_uniform", "seed": 0, "dropout": 0, "scale": False,
            "precision": "float32", "tune": False, "sparse": False},
    "MLP.loss_and_grad": {"loss": "cross_entropy", "reduction": "mean"},
    "Trainer": {"loss": "cross_entropy", "batch_size": 128, "shuffle": True, "reduction": "mean",
                "seed": 0, "penalty_in_loss": False},
    "Trainer.fit": {"epochs": 10, "progress": True},
    "Checkpoint": {"every_epochs": 1, "keep": 1},
    "EarlyStopping": {"patience": 10, "delta": 0, "restore_best": True},
    "check_gradients": {"loss": "cross_entropy", "step": 1e-6, "seed": 0},
    "export_onnx": {"opset": 20},
    "from_sklearn": {"device": "auto"},
    "load": {"device": "auto"},
    "resume": {"device": "auto"},
    "save": {"fit": False},
    "to_torch_state": {"prefix": "", "spacing": 2},
    "load_torch_state": {"prefix": "", "spacing": 2},
}  # fmt: skip
SCHEDULES = {
    "constant": {},
    "step": {"every": 10, "decay": 0.1},
    "exponential": {"decay": 0.95},
    "inverse_scaling": {"power": 0.5},
    "cosine": {"warmup": 0, "floor": 0},
    "one_cycle": {"rise": 0.3, "start": 25, "end": 1e4},
    "plateau": {"decay": 0.1, "patience": 10, "delta": 0, "floor": 0},
}
FUNCTIONS = {
    "leaky_relu": {"slope": 0.01},
    "prelu": {"slope": 0.25},
    "rrelu": {"lower": 1 / 8, "upper": 1 / 3},
    "elu": {"alpha": 1},
    "celu": {"alpha": 1},
    "huber": {"delta": 1},
    "quantile": {"q": 0.5},
    "cross_entropy": {"label_smoothing": 0},
    "focal": {"gamma": 2},
}
COMMANDS = {
    "train digits": {
        "device": "auto", "dtype": "float32", "precision": "float32", "seed": 0,
        "drop_missing_target": False, "overwrite": False, "no_header": False,
    },
    "evaluate m f": {"drop_missing_target": False, "device": "auto", "no_header": False},
    "predict m f": {"proba": False, "device": "auto", "no_header": False},
    "export m f": {},
    "info": {},
    "info --check": {"check": "auto"},
}  # fmt: skip


def defaults(function) -> dict:
    found = {p.name: p.default for p in inspect.signature(function).parameters.values()}
    told = {name: value for name, value in found.items() if isinstance(value, str | int | float)}
    return told


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults(name):
    function = gpumlp
    for part in name.split("."):
        function = getattr(function, part)
    assert defaults(function) == DEFAULTS[name]


@pytest.mark.parametrize("name", SCHEDULES)
def test_of_schedules(name):
    unit = {} if name == "plateau" else {"unit": "epoch"}
    assert defaults(gpumlp.schedules[name]) == SCHEDULES[name] | unit


def test_of_activations_and_losses():
    found = {}
    for table in (gpumlp.activations, gpumlp.losses):
        found |= {name: dict(table[name].parameters) for name in table if table[name].parameters}
    assert found == FUNCTIONS


@pytest.mark.parametrize("name", [each for each in gpumlp.__all__ if each.endswith("SearchCV")])
def test_of_searches(name):
    """Those of scikit-learn."""
    mine, its = (defaults(getattr(home, name)) for home in (gpumlp, model_selection))
    mine.pop("error_score"), its.pop("error_score")  # NaN
    assert mine == its


@pytest.mark.parametrize("command", COMMANDS)
def test_of_the_command_line(command):
    found = vars(options.parser().parse_args(command.split()))
    positional = {"command", "data", "model", "file"}
    told = {key: value for key, value in found.items() if value is not None}
    if command.startswith("train"):
        told = options.DEFAULTS | told
    assert {k: v for k, v in told.items() if k not in positional} == COMMANDS[command]


def test_of_networks_for_arrays():
    """What the options of `gpumlp train` are where they are not given."""
    names = ("HIDDEN", "EPOCHS", "PATIENCE", "BATCH_SIZE", "DROPOUT", "SMOOTHING")
    found = [getattr(array_network, name) for name in names]
    assert found == [(256,), 100, 20, 64, 0.2, 0.1]
