"""Public numbers, flags and choices: whatever they may not be is refused with name and range."""

from fractions import Fraction

import numpy as np
import pytest

import gpumlp
from gpumlp.functions.optimizer import optimizers
from gpumlp.functions.schedule import Cosine, Exponential, InverseScaling, OneCycle, Plateau, Step
from gpumlp.utils import checks

TOTAL_MEMORY = "gpumlp.backend.reference.numpy_ops.NumpyOps.total_memory"

X, Y = np.random.default_rng(0).normal(size=(12, 4)), np.arange(12) % 3


def network(**options):
    return gpumlp.MLP((4, 5, 3), device="cpu", **options)


def fit(**options):
    return gpumlp.Trainer(network()).fit(X, Y, progress=False, **options)


def built(cls, name):
    return lambda value: cls(**{name: value})


def schedule(cls, *names):
    return {f"{cls.__name__}: {name}": built(cls, name) for name in names}


# name -> what takes it; where a list stands for networks, and where None means something
OF_OPTIMIZERS = [
    (cls, name)
    for cls in optimizers.values()
    for name in cls.intervals
    if name in cls.__dataclass_fields__
]
PER_NETWORK = {
    **{f"{cls.__name__}: {name}": built(cls, name) for cls, name in OF_OPTIMIZERS},
    "dropout": lambda value: network(dropout=value),
    "seed": lambda value: network(seed=value),
    "clip_norm": lambda value: gpumlp.Trainer(network(), clip_norm=value),
}
SINGLE = {
    "models": lambda value: network(models=value),
    "sizes[1]": lambda value: gpumlp.MLP((4, value, 3), device="cpu"),
    "batch_size": lambda value: gpumlp.Trainer(network(), batch_size=value),
    "epochs": lambda value: fit(epochs=value),
    "patience": built(gpumlp.EarlyStopping, "patience"),
    "delta": built(gpumlp.EarlyStopping, "delta"),
    "step": lambda value: gpumlp.check_gradients(network(), X, Y, step=value),
    "spacing": lambda value: gpumlp.to_torch_state(network(), spacing=value),
    "leaky_relu: slope": lambda value: gpumlp.activations["leaky_relu"](slope=value),
    "huber: delta": lambda value: gpumlp.losses["huber"](delta=value),
    "every_epochs": lambda value: gpumlp.Checkpoint("here", every_epochs=value),
    "keep": lambda value: gpumlp.Checkpoint("here", keep=value),
    "every_minutes": lambda value: gpumlp.Checkpoint("here", every_minutes=value),
    **schedule(Step, "every", "decay"),
    **schedule(Exponential, "decay"),
    **schedule(InverseScaling, "power"),
    **schedule(Cosine, "total", "warmup", "floor"),
    **schedule(OneCycle, "total", "rise", "start", "end"),
    **schedule(Plateau, "decay", "patience", "delta", "floor"),
}
NUMBERS = PER_NETWORK | SINGLE
NONE_IS_TAKEN = ("clip_norm", "models", "every_minutes", "Cosine: total", "OneCycle: total")
WHOLE = (
    *("seed", "models", "sizes[1]", "batch_size", "epochs", "patience", "spacing"),
    *("every_epochs", "keep", "Plateau: patience"),
)
FLAGS = {
    "tune": lambda value: network(tune=value),
    "shuffle": lambda value: gpumlp.Trainer(network(), shuffle=value),
    "penalty_in_loss": lambda value: gpumlp.Trainer(network(), penalty_in_loss=value),
    "progress": lambda value: gpumlp.Trainer(network()).fit(X, Y, progress=value),
    "restore_best": built(gpumlp.EarlyStopping, "restore_best"),
    "SGD: nesterov": built(gpumlp.SGD, "nesterov"),
    "SGD: decay_per_weight": built(gpumlp.SGD, "decay_per_weight"),
    "RMSprop: centered": built(gpumlp.RMSprop, "centered"),
    "Adam: eps_corrected": built(gpumlp.Adam, "eps_corrected"),
}
CHOICES = {
    "dtype": lambda value: network(dtype=value),
    "precision": lambda value: network(precision=value),
    "hidden": lambda value: network(hidden=value),
    "output": lambda value: network(output=value),
    "init": lambda value: network(init=value),
    "loss": lambda value: gpumlp.Trainer(network(), value),
    "schedule": lambda value: gpumlp.Trainer(network(), schedule=value),
    "optimizer": lambda value: gpumlp.Trainer(network(), optimizer=value),
    "reduction": lambda value: gpumlp.Trainer(network(), reduction=value),
    "monitor": built(gpumlp.EarlyStopping, "monitor"),
    "Plateau: monitor": built(Plateau, "monitor"),
    "Step: unit": built(Step, "unit"),
}

HOSTILE = {
    "infinity": np.inf,
    "minus infinity": -np.inf,
    "NaN": np.nan,
    "NumPy's NaN": np.float32(np.nan),
    "masked": np.ma.masked,
    "masked array": np.ma.array(1.0, mask=True),
    "True": True,
    "NumPy's True": np.True_,
    "text": "1",
    "bytes": b"1",
    "complex": 1j,
    "an object": object(),
    "a dictionary": {},
    "negative": -1.0,
    "too many digits": 10**5000,
    "a matrix": np.ones((2, 2)),
    "two numbers": np.ones(2),
    "no number": [],
    "list of True": [True],
}


def assert_refused(call, name, value):
    with pytest.raises(checks.ParameterError) as raised:
        call(value)
    message = str(raised.value)
    assert message.startswith(f"{name} = {checks.shown(value)} "), message
    assert " must be " in message


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_no_hostile_value_is_a_number(name, value):
    if value is HOSTILE["two numbers"] and ":" in name and name in PER_NETWORK:
        return  # how many networks there are is known later
    if value is HOSTILE["infinity"] and name == "clip_norm":
        return  # no limit
    if name == "dropout" and isinstance(value, list):
        value = [value]  # one rate for each hidden layer, and this is that layer's
        with pytest.raises(checks.ParameterError, match=r"dropout = \[.*must be"):
            NUMBERS[name](value)
        return
    if name == "dropout" and np.ndim(value):
        with pytest.raises(ValueError, match=r"dropout = .*2 rates for 1 hidden layers"):
            NUMBERS[name](value)
        return
    assert_refused(NUMBERS[name], name, value)


@pytest.mark.parametrize("name", [name for name in NUMBERS if name not in NONE_IS_TAKEN])
def test_none_is_no_number(name):
    assert_refused(NUMBERS[name], name, None)


@pytest.mark.parametrize("name", WHOLE)
def test_half_a_network_is_none(name):
    assert_refused(NUMBERS[name], name, 1.5)
    assert_refused(NUMBERS[name], name, Fraction(3, 2))


@pytest.mark.parametrize(("cls", "name"), OF_OPTIMIZERS)
def test_numbers_for_other_networks_than_there_are(cls, name):
    value = np.full(3, 0.1)
    with pytest.raises(checks.ParameterError, match=rf"{cls.__name__}: {name} = .*of 2 networ"):
        gpumlp.Trainer(network(models=2), optimizer=cls(**{name: value}))


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("value", [None, 0, 1, "yes", np.nan, np.ones(2, bool), np.ma.masked, []])
def test_what_is_neither_true_nor_false(name, value):
    assert_refused(FLAGS[name], name, value)


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", [7, "nothing", b"relu", np.nan, {}, np.ones(3), True])
def test_what_is_no_choice(name, value):
    if name == "hidden" and np.iterable(value) and not isinstance(value, str):
        return  # one for each layer
    assert_refused(CHOICES[name], name, value)


def test_a_number_comes_in_many_types():
    for value in (3, 3.0, np.int8(3), np.uint64(3), np.float32(3), np.array(3), Fraction(3)):
        assert fit(epochs=value).epochs == 3
        assert gpumlp.EarlyStopping(value, delta=value).patience == 3
        assert network(models=value).models == 3
        assert network(seed=value).theta.tobytes() == network(seed=3).theta.tobytes()
        assert gpumlp.Trainer(network(), gpumlp.losses["huber"](delta=value)).loss.p == (3.0,)
    assert gpumlp.Trainer(network(models=1), optimizer=gpumlp.Adam(np.array(0.1))).lr == 0
    assert network(seed=[2**64 - 1]).seed == [2**64 - 1]


def test_seeds_end_at_64_bits():
    assert network(seed=2**64 - 1, models=1).models == 1
    for first in (2**64 - 1, 2**63 + 1):
        for other in (5, np.uint64(5)):
            stack = network(seed=[first, other], models=2)
            np.testing.assert_array_equal(stack.theta[0], network(seed=first).theta)
            np.testing.assert_array_equal(stack.theta[1], network(seed=5).theta)
    with pytest.raises(checks.ParameterError, match=r"seed = 18446744073709551614 must be at most"):
        network(seed=2**64 - 2, models=3)


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        (gpumlp.Adam(1e300), r"^Adam: lr = 1e\+300 must be at most 3.40282e\+38, .* of float32$"),
        (gpumlp.Adam(eps=10**40), r"^Adam: eps = 10{40} must be at most 3.40282e\+38"),
        (gpumlp.SGD(l2=np.array([0, 1e39])), r"^SGD: l2 = array\(.*, 1.e\+39\]\) must be at"),
        (gpumlp.AdamW(weight_decay=1e39), r"^AdamW: weight_decay = 1e\+39 must be at most"),
    ],
)
def test_a_number_that_the_networks_dtype_cannot_hold(optimizer, said):
    with pytest.raises(checks.ParameterError, match=said):
        gpumlp.Trainer(network(models=2), optimizer=optimizer)
    gpumlp.Trainer(network(models=2, dtype="float64"), optimizer=optimizer)


def test_a_clip_norm_that_the_networks_dtype_cannot_hold():
    with pytest.raises(checks.ParameterError, match=r"^clip_norm = 1e\+300 must be at most"):
        gpumlp.Trainer(network(), clip_norm=1e300)
    gpumlp.Trainer(network(), clip_norm=np.inf)


def test_retuning_is_checked_and_changes_nothing_where_it_fails():
    trainer = gpumlp.Trainer(network())
    for numbers, said in (
        ({"lr": None}, "Adam: lr = None must be"),
        ({"lr": [0.1, 0.2]}, r"Adam: lr = \[0.1, 0.2\] must be"),
        ({"lr": 1e39}, r"Adam: lr = 1e.39 must be at most .* float32"),
        ({"rate": 1}, "retune: Adam has no number 'rate'; it has lr, beta1"),
    ):
        with pytest.raises((ValueError, TypeError), match=said):
            trainer.retune(**numbers)
        assert trainer.optimizer == gpumlp.Adam()


def test_no_callbacks_are_none():
    for none in (None, (), [], iter(())):
        assert fit(epochs=1, callbacks=none).epochs == 1
    for value in (7, "stop", [None], gpumlp.EarlyStopping):
        with pytest.raises(checks.ParameterError, match=r"callbacks holds .*must be objects of"):
            fit(callbacks=value)


def test_a_stack_that_no_machine_holds(monkeypatch):
    """The prediction comes before anything is made or drawn."""

    def draw(rng, fan_out, fan_in):
        raise AssertionError("weights were drawn")

    for sizes, models in (
        ((4, 3), 2**31 * 2**20),
        ((2**40, 2**40), None),
        ((4, 3), 10**30),
        ((10**300, 10**300), 10**300),  # whose bytes no float holds
    ):
        said = r"^out of memory on cpu: about [\d.e+]{5,9} TiB are needed; lower sizes(, models)?$"
        with pytest.raises(MemoryError, match=said):
            gpumlp.MLP(sizes, models=models, init=draw, device="cpu")
    monkeypatch.setattr(TOTAL_MEMORY, lambda ops: 1000)
    with pytest.raises(MemoryError, match="lower sizes, models"):
        network(models=100, init=draw)
    assert network(init="zeros").models is None  # 172 bytes


def test_an_ensemble_or_layers_that_no_machine_holds(monkeypatch):
    """The prediction comes before weights are drawn and members made."""
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    monkeypatch.setattr(TOTAL_MEMORY, lambda ops: 2**20)
    monkeypatch.setattr("gpumlp.estimators.bagging.clone", lambda est: pytest.fail("a member"))
    X, y = np.eye(12), np.arange(12) % 3
    for numbers, said in (
        ({"n_models": 2**31 - 1}, "2147483647 networks of sizes .* lower .* or n_models"),
        ({"n_models": 2**31 - 1, "max_features": 1}, r"2147483647 networks of sizes \(1, 8, 3\)"),
        ({"hidden_layer_sizes": (2**31 - 1, 8)}, "a network of sizes .* lower hidden_layer_sizes"),
        ({"hidden_layer_sizes": (2**20,), "solver": "lbfgs"}, "a network of sizes"),
    ):
        classifier = gpumlp.MLPClassifier(
            **{"hidden_layer_sizes": (8,), "device": "cpu", "max_iter": 1} | numbers
        )
        with pytest.raises(MemoryError, match=f"out of memory: the weights of {said}"):
            classifier.fit(X, y)


@pytest.mark.parametrize("value", [0, 1, "yes", [True], np.array([True, False])])
def test_resume_is_true_or_false(value):
    with pytest.raises(checks.ParameterError, match=r"resume = .* must be True or False"):
        fit(epochs=1, resume=value)


@pytest.mark.parametrize("members", [[True], [1, 0], "no", [np.nan, 1.0], [[True, False]]])
def test_who_is_to_stop_is_said_of_each_network(members):
    trainer = gpumlp.Trainer(network(models=2))
    with pytest.raises(checks.ParameterError, match=r"members = .* for each of 2 networks"):
        trainer.stop(members)


def test_a_dtype_that_is_not_said():
    with pytest.raises(checks.ParameterError, match="dtype = None must be 'float32'"):
        network(dtype=None)


def test_constants_of_a_loss_that_the_dtype_cannot_hold():
    focal = gpumlp.losses["focal"](gamma=1e300)
    with pytest.raises(ValueError, match=r"loss = focal\(gamma=1e\+300\): .* in float32"):
        gpumlp.Trainer(network(), focal)
    gpumlp.Trainer(network(dtype="float64"), focal)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e39, 1j, "1", None])
def test_what_init_gives_is_finite(value):
    """In the network's dtype."""
    with pytest.raises(checks.ParameterError, match=r"init = .* gave what is no finite float32"):
        network(init=lambda rng, fan_out, fan_in: np.full((fan_out, fan_in), value))


@pytest.mark.parametrize("init", [int, lambda: 0, lambda rng, fan_out, fan_in: int("a")])
def test_an_init_that_fails(init):
    with pytest.raises(checks.ParameterError, match=r"init = .* or a function draw\(rng, fan_out,"):
        network(init=init)


def test_a_stack_that_no_gpu_holds(cuda, monkeypatch):
    """Though the host would."""
    ops = gpumlp.MLP((4, 3), device=cuda).ops
    assert ops.total_memory() > 0
    monkeypatch.setattr(type(ops), "total_memory", lambda self: 1000)

    def draw(rng, fan_out, fan_in):
        raise AssertionError("weights were drawn")

    with pytest.raises(MemoryError, match=r"out of memory on cuda:0: about .* are needed"):
        gpumlp.MLP((4, 5, 3), models=100, init=draw, device=cuda)
