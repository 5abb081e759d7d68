"""The library against the oracle: gradients within 1e-9, 20 steps of training within 1e-8.

In float64, for one network (models=None) and for a stack of three with numbers of their own. The
oracle, formulas.py, shares no code with the library and takes its derivatives by automatic
differentiation; it is held to account in test_oracle.py. The comparisons are in comparison.py.
"""

import numpy as np
import pytest

import gpumlp
from tests.helpers.comparison import (
    Case,
    check_gradients,
    check_trajectory,
    fill,
    make_network,
    make_references,
    to_numpy,
)
from tests.oracle import formulas

BATCH = 9
MODELS = [None, 3]


def named(items):
    """pytest's ids for rows of names and dictionaries: "elu alpha=1.5"."""
    return [
        " ".join(
            " ".join(f"{key}={value}" for key, value in part.items())
            if isinstance(part, dict)
            else str(part)
            for part in row
        ).strip()
        for row in items
    ]


# --- what is compared -----------------------------------------------------------------------------

ROWWISE = ("softmax", "log_softmax")  # at the output only
ELEMENTWISE = [
    *((name, {}) for name in formulas.ACTIVATIONS if name not in ROWWISE),
    ("leaky_relu", {"slope": 0.2}),
    ("elu", {"alpha": 1.5}),
    ("celu", {"alpha": 0.7}),
    ("rrelu", {"lower": 0.1, "upper": 0.5}),
]

# RReLU draws its slopes in training, so a trajectory is only defined where they cannot differ.
TRAINABLE = [
    ("rrelu", {"lower": 0.2, "upper": 0.2}) if layer[0] == "rrelu" else layer
    for layer in ELEMENTWISE
]

LOSSES = [  # loss, options, output, kind of target
    # the natural outputs
    ("squared_error", {}, "identity", "real"),
    ("absolute_error", {}, "identity", "real"),
    ("huber", {}, "identity", "real"),
    ("huber", {"delta": 0.5}, "identity", "real"),
    ("log_cosh", {}, "identity", "real"),
    ("quantile", {}, "identity", "real"),
    ("quantile", {"q": 0.3}, "identity", "real"),
    ("poisson", {}, "exp", "count"),
    ("cross_entropy", {}, "softmax", "label"),
    ("cross_entropy", {}, "softmax", "distribution"),
    ("cross_entropy", {"label_smoothing": 0.1}, "softmax", "label"),
    ("cross_entropy", {}, "log_softmax", "label"),
    ("cross_entropy", {"label_smoothing": 0.1}, "log_softmax", "distribution"),
    ("binary_cross_entropy", {}, "sigmoid", "binary"),
    ("binary_cross_entropy", {}, "sigmoid", "label"),
    ("focal", {}, "softmax", "label"),
    ("focal", {"gamma": 1.5}, "softmax", "distribution"),
    ("focal", {}, "log_softmax", "label"),
    ("focal", {}, "sigmoid", "binary"),
    ("focal", {"gamma": 0.5}, "sigmoid", "binary"),
    ("hinge", {}, "identity", "label"),
    ("squared_hinge", {}, "identity", "label"),
    ("exponential", {}, "identity", "label"),
    ("kl_divergence", {}, "softmax", "distribution"),
    ("kl_divergence", {}, "softmax", "label"),
    ("kl_divergence", {}, "log_softmax", "distribution"),
    # and others
    ("squared_error", {}, "sigmoid", "binary"),
    ("squared_error", {}, "softmax", "distribution"),
    ("squared_error", {}, "log_softmax", "real"),
    ("squared_error", {}, "exp", "real"),
    ("squared_error", {}, "prelu", "real"),
    ("absolute_error", {}, "softmax", "real"),
    ("absolute_error", {}, "tanh", "real"),
    ("huber", {}, "log_softmax", "real"),
    ("huber", {}, "softplus", "real"),
    ("log_cosh", {}, "gelu", "real"),
    ("log_cosh", {}, "softmax", "real"),
    ("quantile", {"q": 0.3}, "sigmoid", "real"),
    ("poisson", {}, "softplus", "count"),
    ("poisson", {}, "sigmoid", "count"),
    ("poisson", {}, "softmax", "count"),
    ("cross_entropy", {}, "sigmoid", "label"),
    ("cross_entropy", {"label_smoothing": 0.1}, "sigmoid", "distribution"),
    ("cross_entropy", {}, "exp", "label"),
    ("cross_entropy", {}, "softplus", "distribution"),
    ("binary_cross_entropy", {}, "softmax", "binary"),
    ("hinge", {}, "tanh", "label"),
    ("hinge", {}, "softmax", "label"),
    ("squared_hinge", {}, "softsign", "label"),
    ("exponential", {}, "tanh", "label"),
    ("exponential", {}, "log_softmax", "label"),
    ("kl_divergence", {}, "sigmoid", "distribution"),
    ("kl_divergence", {}, "exp", "distribution"),
]

# One number for models=None; of the three, the first goes there and each network takes its own.
OPTIMIZERS = [
    ("SGD", {"lr": (0.02, 0.01, 0.03)}),
    ("SGD", {"lr": 0.02, "l2": (0.1, 0.0, 0.3)}),
    ("SGD", {"lr": (0.02, 0.01, 0.03), "l1": (0.05, 0.1, 0.0)}),
    ("SGD", {"lr": (0.02, 0.01, 0.03), "momentum": (0.9, 0.0, 0.5), "l1": 0.01, "l2": 0.1}),
    ("SGD", {"lr": (0.02, 0.01, 0.03), "momentum": 0.9, "nesterov": True, "l2": (0.1, 0.2, 0.0)}),
    ("RMSprop", {"lr": (0.005, 0.002, 0.01)}),
    ("RMSprop", {"lr": (0.005, 0.002, 0.01), "momentum": 0.5, "l2": (0.1, 0.0, 0.2)}),
    ("RMSprop", {"lr": (0.005, 0.002, 0.01), "centered": True, "l1": 0.01}),
    (
        "RMSprop",
        {"lr": 0.01, "rho": 0.9, "eps": 1e-6, "momentum": (0.5, 0.0, 0.8), "centered": True},
    ),
    ("Adam", {"lr": (0.01, 0.002, 0.005)}),
    ("Adam", {"lr": 0.01, "beta1": 0.8, "beta2": 0.95, "eps": 1e-4, "l2": (0.1, 0.0, 0.2)}),
    ("Adam", {"lr": (0.01, 0.002, 0.005), "l1": (0.01, 0.02, 0.0)}),
    ("AdamW", {"lr": (0.01, 0.002, 0.005)}),
    ("AdamW", {"lr": (0.01, 0.002, 0.005), "weight_decay": (0.1, 0.3, 0.0)}),
]


def targets(kind, size, rng):
    """A batch of targets, as a user would give them."""
    if kind == "label":
        return rng.integers(max(size, 2), size=BATCH)
    if kind == "binary":
        return rng.integers(2, size=(BATCH, size)).astype(np.float64)
    if kind == "count":
        return rng.poisson(2.0, (BATCH, size)).astype(np.float64)
    if kind == "distribution":
        return rng.dirichlet(np.ones(size), BATCH)
    return rng.normal(size=(BATCH, size))


# --- one test for each activation, loss and optimiser, on every device ----------------------------


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("layer", ELEMENTWISE, ids=named(ELEMENTWISE))
def test_the_gradients_of_an_activation(layer, models, device):
    """It is a hidden layer's and the output's at once, where f' meets a loss."""
    rng = np.random.default_rng(11)
    case = Case(
        sizes=(3, 7, 5, 2),
        layers=[layer, ("tanh", {}), layer],
        loss="squared_error",
        x=rng.normal(size=(BATCH, 3)) * 2,
        y=rng.normal(size=(BATCH, 2)),
        models=models,
    )
    net = make_network(case, device, rng)
    check_gradients(case, net)
    n = net.forward(case.x)
    for reference, member in zip(make_references(net, case), case.members(), strict=True):
        expected = formulas.forward(reference, case.x, reference.parameters()[0])
        np.testing.assert_allclose(member(n), expected.value, rtol=1e-12, atol=1e-14)


KINKS = {
    "relu": [0],
    "relu6": [0, 6],
    "leaky_relu": [0],
    "prelu": [0],
    "rrelu": [0],
    "elu": [0],
    "selu": [0],
    "celu": [0],
    "hard_tanh": [-1, 1],
    "hard_sigmoid": [-3, 3],
    "hard_swish": [-3, 3],
    "softsign": [0],
}


@pytest.mark.parametrize("name", KINKS)
def test_the_derivative_at_a_kink(name, device):
    """z = x, and targets one below the output make delta = f'(z), which is the bias's gradient."""
    z = np.array([KINKS[name]], dtype=np.float64)
    size = z.shape[1]
    net = gpumlp.MLP((size, size), hidden=(), output=name, dtype="float64", device=device)
    fill(net.W[1], np.eye(size))
    fill(net.b[1], np.zeros(size))
    y = to_numpy(net.forward(z)) - 1
    case = Case(sizes=(size, size), layers=[(name, {})], loss="squared_error", x=z, y=y)
    _, grad = net.loss_and_grad(**case.batch(), loss=case.loss)
    _, expected = formulas.loss_and_grad(make_references(net, case)[0], **case.oracle_arguments(0))
    np.testing.assert_allclose(to_numpy(grad.b[1]), expected[1], rtol=1e-14)


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("loss, options, output, kind", LOSSES, ids=named(LOSSES))
def test_the_gradients_of_a_loss(loss, options, output, kind, models, device):
    rng = np.random.default_rng(12)
    case = Case(
        sizes=(4, 7, 3),
        layers=[("tanh", {}), (output, {})],
        loss=loss,
        options=options,
        x=rng.normal(size=(BATCH, 4)),
        y=targets(kind, 3, rng),
        models=models,
    )
    net = make_network(case, device, rng)
    check_gradients(case, net)
    case.sample_weight = rng.integers(3, size=BATCH) * rng.random(BATCH)  # some are 0
    check_gradients(case, net)


# Distributions over classes need more than one output.
ONE_OUTPUT = [
    row
    for row in LOSSES
    if row[2] not in ROWWISE and row[0] not in ("cross_entropy", "kl_divergence")
]


@pytest.mark.parametrize("loss, options, output, kind", ONE_OUTPUT, ids=named(ONE_OUTPUT))
def test_the_gradients_of_a_loss_of_one_output(loss, options, output, kind, device):
    """Targets in a column, or labels 0 and 1."""
    rng = np.random.default_rng(13)
    case = Case(
        sizes=(4, 5, 1),
        layers=[("tanh", {}), (output, {})],
        loss=loss,
        options=options,
        x=rng.normal(size=(BATCH, 4)),
        y=targets(kind, 1, rng),
    )
    check_gradients(case, make_network(case, device, rng))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=named(OPTIMIZERS))
def test_the_trajectory_of_an_optimizer(optimizer, models, reduction, device):
    rng = np.random.default_rng(14)
    case = Case(
        sizes=(4, 7, 5, 3),
        layers=[("prelu", {}), ("tanh", {}), ("softmax", {})],
        loss="cross_entropy",
        x=rng.normal(size=(BATCH, 4)),
        y=rng.integers(3, size=BATCH),
        models=models,
        reduction=reduction,
    )
    check_trajectory(case, make_network(case, device, rng), optimizer)


@pytest.mark.parametrize("optimizer", [OPTIMIZERS[3], OPTIMIZERS[10]], ids=["SGD", "Adam"])
def test_the_trajectory_of_a_wide_network(optimizer, device):
    """More parameters than the update takes at once, and weights that end within a block."""
    rng = np.random.default_rng(16)
    case = Case(
        sizes=(37, 301, 61),
        layers=[("prelu", {}), ("identity", {})],
        loss="squared_error",
        x=rng.normal(size=(BATCH, 37)),
        y=rng.normal(size=(BATCH, 61)),
        models=3,
    )
    check_trajectory(case, make_network(case, device, rng), optimizer)


OWN_DATA = [
    ("cross_entropy", "softmax", "label"),
    ("squared_error", "identity", "real"),
]


@pytest.mark.parametrize("loss, output, kind", OWN_DATA, ids=named(OWN_DATA))
def test_networks_with_data_of_their_own(loss, output, kind, device):
    rng = np.random.default_rng(15)
    case = Case(
        sizes=(4, 7, 3),
        layers=[("prelu", {}), (output, {})],
        loss=loss,
        x=[rng.normal(size=(BATCH, 4)) for _ in range(3)],
        y=[targets(kind, 3, rng) for _ in range(3)],
        sample_weight=[rng.uniform(0.1, 2.0, BATCH) for _ in range(3)],
        models=3,
    )
    net = make_network(case, device, rng)
    check_gradients(case, net)
    check_trajectory(case, net, OPTIMIZERS[0])


# --- random architectures -------------------------------------------------------------------------


def random_case(rng, pool, loss, options, output, kind):
    """A network of 1 to 5 layers of odd sizes and mixed activations, and weighted samples."""
    hidden_layers = int(rng.integers(5))
    sizes = (
        *rng.choice([1, 3, 5, 7, 11, 13, 37], hidden_layers + 1).tolist(),
        int(rng.choice([3, 5, 9])),
    )
    hidden = [pool[i] for i in rng.choice(len(pool), hidden_layers, replace=False)]
    return Case(
        sizes=sizes,
        layers=[*hidden, (output, {})],
        loss=loss,
        options=options,
        x=rng.normal(size=(BATCH, sizes[0])),
        y=targets(kind, sizes[-1], rng),
        sample_weight=rng.uniform(0.1, 2.0, BATCH),
        reduction=str(rng.choice(["mean", "sum"])),
    )


SEEDS = range(2 * len(LOSSES))  # every loss twice, and so every optimiser about eight times


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_gradients_of_a_random_network(seed, models):
    rng = np.random.default_rng(seed)
    case = random_case(rng, ELEMENTWISE, *LOSSES[seed % len(LOSSES)])
    case.models = models
    check_gradients(case, make_network(case, "cpu", rng))


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_trajectory_of_a_random_network(seed, models):
    rng = np.random.default_rng(seed)
    case = random_case(rng, TRAINABLE, *LOSSES[seed % len(LOSSES)])
    case.models, case.reduction = models, "mean"  # a sum over 9 samples is 9 times the step
    check_trajectory(case, make_network(case, "cpu", rng), OPTIMIZERS[seed % len(OPTIMIZERS)])
