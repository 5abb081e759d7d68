"""The library against the oracle: gradients within 1e-9, 20 steps of training within 1e-8.

Everything goes through the public API in float64, for one network (models=None) and for a stack of
three with numbers of their own. The oracle, formulas.py, shares no code with the library and takes
its derivatives by automatic differentiation; it is held to account in test_oracle.py.
"""

import math
from types import SimpleNamespace

import formulas
import numpy as np
import pytest

import gpumlp

GRADIENT_TOLERANCE = 1e-9
TRAJECTORY_TOLERANCE = 1e-8
STEPS = 20
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


# --- the same networks on both sides --------------------------------------------------------------


def to_numpy(array):
    return array.get() if hasattr(array, "get") else np.asarray(array)


def fill(view, values):
    """Write NumPy values into an array of the library, which may lie on the GPU."""
    if not isinstance(view, np.ndarray):
        import cupy

        values = cupy.asarray(values)
    view[...] = values


def with_options(name, options, table):
    return table[name](**options) if options else name


def make_network(sizes, layers, models, device, rng):
    """A network with random parameters, written through its views."""
    *hidden, output = [with_options(*layer, gpumlp.activations) for layer in layers]
    net = gpumlp.MLP(
        sizes, hidden=tuple(hidden), output=output, models=models, dtype="float64", device=device
    )
    for k, (name, _) in enumerate(layers, start=1):
        fill(net.W[k], rng.normal(size=net.W[k].shape) / math.sqrt(sizes[k - 1]))
        fill(net.b[k], rng.normal(size=net.b[k].shape) * 0.3)
        if name == "prelu":
            fill(net.slope[k], rng.uniform(0.1, 0.4, net.slope[k].shape))
    return net


def members(models):
    """How to take each network's part of a stacked array."""
    if models is None:
        return [lambda array: to_numpy(array)]
    return [lambda array, m=m: to_numpy(array)[m] for m in range(models)]


def arrays_of(parameters, layers, member):
    """W[k], b[k], slope[k] of one network, of the net or of a gradient; as formulas has them."""
    steps = range(1, len(layers) + 1)
    learned = [k for k in steps if layers[k - 1][0] == "prelu"]
    return (
        [member(parameters.W[k]) for k in steps]
        + [member(parameters.b[k]) for k in steps]
        + [member(parameters.slope[k]) for k in learned]
    )


def make_references(net, layers, models):
    """The oracle's copy of each network."""
    references = []
    for member in members(models):
        K = len(layers)
        arrays = [np.array(array) for array in arrays_of(net, layers, member)]
        slopes = iter(arrays[2 * K :])
        references.append(
            formulas.Network(
                W=[None, *arrays[:K]],
                b=[None, *arrays[K : 2 * K]],
                slope=[None, *(next(slopes) if name == "prelu" else None for name, _ in layers)],
                activations=[None, *layers],
            )
        )
    return references


# --- the two comparisons --------------------------------------------------------------------------


def check_gradients(net, layers, models, x, y, loss, options, sample_weight=None, reduction="mean"):
    """The loss and every gradient, relative to the largest element of the array.

    Where a whole array is far smaller than the others, it is held to 1e-6 of the largest.
    x, y and the weights may be lists, one for each network.
    """
    value, grad = net.loss_and_grad(
        np.asarray(x),
        np.asarray(y),
        loss=with_options(loss, options, gpumlp.losses),
        sample_weight=None if sample_weight is None else np.asarray(sample_weight),
        reduction=reduction,
    )
    references = make_references(net, layers, models)
    for m, (reference, member) in enumerate(zip(references, members(models), strict=True)):
        expected_value, expected = formulas.loss_and_grad(
            reference,
            own(x, m),
            own(y, m),
            loss,
            options,
            sample_weight=own(sample_weight, m),
            reduction=reduction,
        )
        np.testing.assert_allclose(member(value), expected_value, rtol=GRADIENT_TOLERANCE)
        found = arrays_of(grad, layers, member)
        largest = max(np.abs(array).max() for array in expected)
        assert largest > 0
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert a.shape == b.shape
            error = np.abs(a - b).max() / max(np.abs(b).max(), 1e-6 * largest)
            assert error <= GRADIENT_TOLERANCE, f"array {i} of W, b, slope: {error:.1e}"


def own(data, m):
    """Network m's part of a list, or what all of them share."""
    return data[m] if isinstance(data, list) else data


def check_trajectory(net, layers, models, x, y, loss, options, optimizer, reduction="mean"):
    """20 steps on one batch: the loss before each, and all parameters at the end."""
    kind, numbers = optimizer
    references = make_references(net, layers, models)
    if models is None:
        numbers = {key: each[0] for key, each in spread(numbers).items()}
    trainer = gpumlp.Trainer(
        net,
        loss=with_options(loss, options, gpumlp.losses),
        optimizer=getattr(gpumlp, kind)(**numbers),
        reduction=reduction,
    )
    batch = np.asarray(x), np.asarray(y)
    history = [np.array(to_numpy(trainer.step(*batch))) for _ in range(STEPS)]

    for m, (reference, member) in enumerate(zip(references, members(models), strict=True)):
        own_numbers = {key: each[m] for key, each in spread(numbers).items()}
        expected_history = formulas.train(
            reference,
            getattr(formulas, kind)(**own_numbers),
            STEPS,
            own(x, m),
            own(y, m),
            loss,
            options=options,
            reduction=reduction,
        )
        np.testing.assert_allclose(
            [member(value) for value in history], expected_history, rtol=TRAJECTORY_TOLERANCE
        )
        expected, _ = reference.parameters()
        for a, b in zip(arrays_of(net, layers, member), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=TRAJECTORY_TOLERANCE)


def spread(numbers):
    """Every number as three, one for each network."""
    return {
        key: value if isinstance(value, tuple) else (value,) * 3 for key, value in numbers.items()
    }


# --- one test for each activation, loss and optimiser, on every device ----------------------------


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("layer", ELEMENTWISE, ids=named(ELEMENTWISE))
def test_the_gradients_of_an_activation(layer, models, device):
    """It is a hidden layer's and the output's at once, where f' meets a loss."""
    rng = np.random.default_rng(11)
    sizes, layers = (3, 7, 5, 2), [layer, ("tanh", {}), layer]
    net = make_network(sizes, layers, models, device, rng)
    x, y = rng.normal(size=(BATCH, 3)) * 2, rng.normal(size=(BATCH, 2))
    check_gradients(net, layers, models, x, y, "squared_error", {})
    for reference, member in zip(
        make_references(net, layers, models), members(models), strict=True
    ):
        expected = formulas.forward(reference, x, reference.parameters()[0])
        np.testing.assert_allclose(member(net.forward(x)), expected.value, rtol=1e-12, atol=1e-14)


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
    _, grad = net.loss_and_grad(z, y, loss="squared_error")
    reference = make_references(net, [(name, {})], None)[0]
    _, expected = formulas.loss_and_grad(reference, z, y, "squared_error")
    np.testing.assert_allclose(to_numpy(grad.b[1]), expected[1], rtol=1e-14)


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("loss, options, output, kind", LOSSES, ids=named(LOSSES))
def test_the_gradients_of_a_loss(loss, options, output, kind, models, device):
    rng = np.random.default_rng(12)
    sizes, layers = (4, 7, 3), [("tanh", {}), (output, {})]
    net = make_network(sizes, layers, models, device, rng)
    x, y = rng.normal(size=(BATCH, 4)), targets(kind, 3, rng)
    check_gradients(net, layers, models, x, y, loss, options)
    weight = rng.integers(3, size=BATCH) * rng.random(BATCH)  # some are 0
    check_gradients(net, layers, models, x, y, loss, options, sample_weight=weight)


# Distributions over classes need more than one output.
ONE_OUTPUT = [
    case
    for case in LOSSES
    if case[2] not in ROWWISE and case[0] not in ("cross_entropy", "kl_divergence")
]


@pytest.mark.parametrize("loss, options, output, kind", ONE_OUTPUT, ids=named(ONE_OUTPUT))
def test_the_gradients_of_a_loss_of_one_output(loss, options, output, kind, device):
    """Targets in a column, or labels 0 and 1."""
    rng = np.random.default_rng(13)
    sizes, layers = (4, 5, 1), [("tanh", {}), (output, {})]
    net = make_network(sizes, layers, None, device, rng)
    x, y = rng.normal(size=(BATCH, 4)), targets(kind, 1, rng)
    check_gradients(net, layers, None, x, y, loss, options)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=named(OPTIMIZERS))
def test_the_trajectory_of_an_optimizer(optimizer, models, reduction, device):
    rng = np.random.default_rng(14)
    sizes, layers = (4, 7, 5, 3), [("prelu", {}), ("tanh", {}), ("softmax", {})]
    net = make_network(sizes, layers, models, device, rng)
    x, y = rng.normal(size=(BATCH, 4)), rng.integers(3, size=BATCH)
    check_trajectory(net, layers, models, x, y, "cross_entropy", {}, optimizer, reduction=reduction)


OWN_DATA = [
    ("cross_entropy", "softmax", "label"),
    ("squared_error", "identity", "real"),
]


@pytest.mark.parametrize("loss, output, kind", OWN_DATA, ids=named(OWN_DATA))
def test_networks_with_data_of_their_own(loss, output, kind, device):
    rng = np.random.default_rng(15)
    sizes, layers = (4, 7, 3), [("prelu", {}), (output, {})]
    net = make_network(sizes, layers, 3, device, rng)
    x = [rng.normal(size=(BATCH, 4)) for _ in range(3)]
    y = [targets(kind, 3, rng) for _ in range(3)]
    weight = [rng.uniform(0.1, 2.0, BATCH) for _ in range(3)]
    check_gradients(net, layers, 3, x, y, loss, {}, sample_weight=weight)
    check_trajectory(net, layers, 3, x, y, loss, {}, OPTIMIZERS[0])


# --- random architectures -------------------------------------------------------------------------


def random_case(seed, pool):
    """A network of 1 to 5 layers of odd sizes and mixed activations, and data for one loss."""
    rng = np.random.default_rng(seed)
    loss, options, output, kind = LOSSES[seed % len(LOSSES)]
    K = int(rng.integers(1, 6))
    sizes = tuple(int(size) for size in rng.choice([1, 3, 5, 7, 11, 13, 37], K))
    sizes = (*sizes, int(rng.choice([3, 5, 9])))
    chosen = rng.choice(len(pool), K - 1, replace=False)
    layers = [*(pool[i] for i in chosen), (output, {})]
    return SimpleNamespace(
        rng=rng,
        sizes=sizes,
        layers=layers,
        loss=loss,
        options=options,
        x=rng.normal(size=(BATCH, sizes[0])),
        y=targets(kind, sizes[-1], rng),
    )


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("seed", range(2 * len(LOSSES)))
def test_the_gradients_of_a_random_network(seed, models):
    case = random_case(seed, ELEMENTWISE)
    net = make_network(case.sizes, case.layers, models, "cpu", case.rng)
    check_gradients(
        net,
        case.layers,
        models,
        case.x,
        case.y,
        case.loss,
        case.options,
        sample_weight=case.rng.uniform(0.1, 2.0, BATCH),
        reduction="sum" if seed % 2 else "mean",
    )


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("seed", range(2 * len(LOSSES)))
def test_the_trajectory_of_a_random_network(seed, models):
    """Every loss twice and every optimiser about eight times."""
    case = random_case(seed, TRAINABLE)
    optimizer = OPTIMIZERS[seed % len(OPTIMIZERS)]
    net = make_network(case.sizes, case.layers, models, "cpu", case.rng)
    check_trajectory(net, case.layers, models, case.x, case.y, case.loss, case.options, optimizer)
