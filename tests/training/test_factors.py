"""Factors of groups of parameters on the learning rate and the decay, against an oracle whose every
array has an optimiser of its own."""

import copy
import pickle

import numpy as np
import pytest

import gpumlp
from gpumlp.backend.cpu import compiler, pool
from gpumlp.backend.cuda import persistent_kernel
from gpumlp.io.errors import FileError
from gpumlp.model import blocks, slices
from gpumlp.training import persistent
from gpumlp.training.factors import DEFAULT
from gpumlp.training.select import select
from gpumlp.utils import checks
from tests.helpers.comparison import fill, to_numpy
from tests.helpers.networks import network
from tests.helpers.saving import rewrite
from tests.helpers.training import blobs, fit, theta
from tests.oracle import formulas

SIZES = (4, 9, 6, 3)
X, Y = blobs(20)
FACTORS = {
    "W": (0.5, [1.0, 0.25, 2.0]),
    "b": ([0.0, 1.5, 1.0], 0.5),
    "s": (2.0, (0.0, 0.3, 0.0)),
    "slope": (np.array([0.1, 0.2, 0.3]), np.float32(0.75)),
}
OPTIMIZERS = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "l1": 0.01, "l2": 0.05},
    "RMSprop": {"lr": 0.01, "l2": 0.05},
    "Adam": {"lr": 0.01, "l1": 0.01, "l2": 0.02},
    "AdamW": {"lr": 0.01, "weight_decay": 0.3, "l2": 0.02},
    "Lion": {"lr": 0.005, "weight_decay": 0.5},
}


def make(device="cpu", models=None, dtype="float64", scale=(True, False, True), **options):
    net = network(
        SIZES, ["prelu", "tanh"], "softmax", device=device, models=models, dtype=dtype, scale=scale
    )
    options = {"optimizer": gpumlp.AdamW(0.01, weight_decay=0.2), "batch_size": 8} | options
    return gpumlp.Trainer(net, **{"factors": FACTORS} | options)


def of_layer(group, k, factors):
    """(rate, decay) of one array."""
    pair = factors.get(group, DEFAULT[group])
    return [float(np.broadcast_to(value, 3)[k - 1]) for value in pair]


def train_by_oracle(net, name, numbers, factors, steps):
    """The network's own gradients, and an optimiser for each of its arrays."""
    rules = {}
    for _ in range(steps):
        _, grad = net.loss_and_grad(X, Y)
        for group in ("W", "b", "s", "slope"):
            for k, view in enumerate(getattr(net, group)):
                if view is None:
                    continue
                rate, decay = of_layer(group, k, factors)
                own = {
                    key: value * decay if key in ("l1", "l2", "weight_decay") else value
                    for key, value in numbers.items()
                }
                own["lr"] *= rate
                rule = rules.setdefault((group, k), getattr(formulas, name)(**own))
                values = np.array(to_numpy(view))
                rule.step([values], [np.asarray(getattr(grad, group)[k])], [True])
                fill(view, values)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    "factors",
    [FACTORS, {"W": (1, 1)}, {"b": (0.5, 0.1)}, {"s": (3, 0)}, None],
    ids=["all", "neutral", "b", "s", "none"],
)
def test_training_is_the_oracles(place, name, factors):
    optimizer = getattr(gpumlp, name)(**OPTIMIZERS[name])
    trainer = make(place, optimizer=optimizer, factors=factors, batch_size=20, shuffle=False)
    reference = copy.deepcopy(trainer.net)
    train_by_oracle(reference, name, OPTIMIZERS[name], factors or {}, steps=6)
    trainer.fit(X, Y, 6, progress=False)
    np.testing.assert_allclose(theta(trainer), to_numpy(reference.theta), rtol=1e-8, atol=1e-10)


def test_a_rate_of_0_freezes(device):
    trainer = make(device, factors={"W": ([0, 1, 0], 0), "s": (0, 1)})
    before = [to_numpy(view).copy() for view in trainer.net.parameters.all()]
    fit(trainer, X, Y, 2)
    after = [to_numpy(view) for view in trainer.net.parameters.all()]
    moved = [not np.array_equal(*pair) for pair in zip(before, after, strict=True)]
    # W of three layers, b of three, s of two, one slope
    assert moved == [False, True, False, True, True, True, False, False, True]


def test_factors_that_change_nothing_are_none(device):
    neutral = {"W": (1.0, [1, 1, 1]), "b": (1, 0), "slope": (1, 0), "s": ([1, 1, 1], 0)}
    results = []
    for factors in None, {}, neutral:
        trainer = make(device, factors=factors)
        assert trainer.state.factors is None
        fit(trainer, X, Y, 2)
        results.append(theta(trainer))
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])


def test_slices_end_where_the_next_begins():
    trainer = make()
    ends, rate, decay = trainer.state.factors
    layout = trainer.net.layout
    starts = [
        part.start for group in (layout.W, layout.b, layout.s, layout.slope)
        for part in group.values()
    ]  # fmt: skip
    assert ends.tolist() == [*starts[1:], layout.size] and ends.dtype == np.int64
    assert rate.tolist() == [0.5, 0.5, 0.5, 0, 1.5, 1, 2, 2, 0.1]
    assert decay.tolist() == [1, 0.25, 2, 0.5, 0.5, 0.5, 0, 0, 0.75]


def test_stacks_and_slices(monkeypatch):
    """Blocks of a stack and slices of a batch take the same factors."""
    if compiler.problem():
        pytest.skip(f"nothing can be compiled for the CPU: {compiler.problem()}")
    monkeypatch.setattr(slices, "LEAST", 1)
    monkeypatch.setattr(blocks, "LEAST_BYTES", 1)
    for models in None, 4:
        results = []
        for cores in 1, 3:
            monkeypatch.setattr(pool, "_cores", lambda cores=cores: cores)
            trainer = make(models=models)
            fit(trainer, X, Y, 3)
            results.append(theta(trainer))
        np.testing.assert_allclose(*results, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies(device, how):
    trainer = make(device)
    fit(trainer, X, Y, 1)
    other = how(trainer)
    for training in trainer, other:
        fit(training, X, Y, 2)
    np.testing.assert_array_equal(theta(trainer), theta(other))


def test_select(device):
    stack, alone = make(device, models=3), make(device, models=3)
    fit(stack, X, Y, 1)
    chosen = select(stack, [2, 0])
    fit(chosen, X, Y, 2)
    fit(alone, X, Y, 3)
    assert chosen.factors == stack.factors
    np.testing.assert_allclose(theta(chosen), theta(alone)[[2, 0]], rtol=1e-12, atol=1e-14)


# ------------------------------------------------------------------ files


def test_files(tmp_path, device):
    path = tmp_path / "trainer.safetensors"
    trainer = make(device)
    fit(trainer, X, Y, 1)
    gpumlp.save(trainer, path)
    other = gpumlp.load(path, device)
    assert other.factors == trainer.factors
    for training in trainer, other:
        fit(training, X, Y, 2)
    np.testing.assert_array_equal(theta(trainer), theta(other))


def test_files_without_factors_do_not_name_them(tmp_path):
    path, described = tmp_path / "trainer.safetensors", {}
    gpumlp.save(make(factors=None), path)
    rewrite(path, lambda about, arrays: described.update(about))
    assert "factors" not in described["trainer"]
    assert gpumlp.load(path, "cpu").factors == {}


@pytest.mark.parametrize(
    "factors",
    [
        {"V": [1, 1]}, {"W": [1]}, {"W": [1, 1, 1]}, {"W": [1, [1, 1]]}, {"W": [-1, 1]},
        {"W": [1, "x"]}, {"W": 1}, [1, 1], {"b": [1, None]},
    ],
)  # fmt: skip
def test_damaged_files_are_refused(tmp_path, factors):
    path = tmp_path / "trainer.safetensors"
    gpumlp.save(make(), path)
    rewrite(path, lambda about, arrays: about["trainer"].update(factors=factors))
    with pytest.raises(FileError):
        gpumlp.load(path, "cpu")


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("factors", "says"),
    [
        ([("W", (1, 1))], r"factors = .* must be None or \{group: \(rate, decay\)\}"),
        ({"V": (1, 1)}, "factors has 'V'; the network has the groups W, b, s, slope"),
        ({0: (1, 1)}, "factors has 0"),
        ({"W": 0.5}, r"factors\['W'\] = 0.5 must be \(rate, decay\)"),
        ({"W": (1, 1, 1)}, r"must be \(rate, decay\)"),
        ({"b": (-1, 0)}, r"factors\['b'\]: rate = -1 must be a number from 0 to"),
        ({"b": (1, np.nan)}, r"factors\['b'\]: decay = nan"),
        ({"b": (1, np.inf)}, r"factors\['b'\]: decay = inf"),
        ({"b": (1, None)}, "decay = None"),
        ({"b": (True, 0)}, "rate = True"),
        ({"s": ([1, 2], 0)}, "or one for each of 3 layers"),
        ({"s": ([[1, 2, 3]], 0)}, "or one for each of 3 layers"),
    ],
)
def test_wrong_factors(factors, says):
    with pytest.raises(checks.ParameterError, match=says):
        make(factors=factors)


def test_groups_that_the_network_lacks():
    with pytest.raises(checks.ParameterError, match="has 's'; the network has the groups W, b, sl"):
        make(scale=False, factors={"s": (1, 1)})
    with pytest.raises(checks.ParameterError, match=r"rate = 1e.39 must be a number from 0 to 3.4"):
        make(dtype="float32", factors={"W": (1e39, 1)})


def test_noted_penalties_allow_factors_on_the_rate():
    with pytest.raises(checks.ParameterError, match="penalty_in_loss counts the penalties of W"):
        make(penalty_in_loss=True)
    make(penalty_in_loss=True, factors={"W": (0.5, 1), "b": (2, 0)})


def test_the_persistent_kernel_is_not_chosen(cuda, monkeypatch):
    """It has one learning rate for all parameters, see test_contract.py."""
    asked, plan = [], persistent.plan
    monkeypatch.setattr(
        persistent, "plan", lambda *arguments: asked.append(plan(*arguments)) or asked[-1]
    )
    for factors in None, {"b": (0.5, 0)}:
        trainer = make(cuda, 3, "float32", scale=False, factors=factors)
        trainer.resident = True
        fit(trainer, X.astype("float32"), Y, 1)
    assert isinstance(asked[0], persistent.Plan) and asked[-1] is None
    assert persistent_kernel.fit(asked[0].shape, persistent_kernel.H100)
