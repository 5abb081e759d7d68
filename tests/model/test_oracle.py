"""The oracle itself: its derivatives against finite differences, its formulas against PyTorch.

The numbers of ACTIVATION_VALUES and OPTIMIZER_RESULTS were printed by PyTorch 2.13 in float64;
those of LOSS_VALUES are worked by hand.
"""

import math

import numpy as np
import pytest

from tests.oracle import autodiff, formulas
from tests.oracle.autodiff import Tensor, gradient


def check_by_finite_differences(f, arrays, rng, h=1e-5, tolerance=1e-8):
    """f(*tensors) is a tensor of one element; its gradient is compared along random directions."""
    tensors = [Tensor(a) for a in arrays]
    gradients = gradient(f(*tensors), tensors)
    for _ in range(3):
        directions = [rng.normal(size=np.shape(a)) for a in arrays]
        there, back = (
            f(*[Tensor(a + s * d) for a, d in zip(arrays, directions, strict=True)]).value.item()
            for s in (h, -h)
        )
        expected = (there - back) / (2 * h)
        found = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
        size = sum(np.linalg.norm(g) for g in gradients)
        assert abs(found - expected) <= tolerance * max(size, 1e-3)


# --- the tape -------------------------------------------------------------------------------------

PRIMITIVES = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: 2.0 - (a - b),
    "multiply": lambda a, b: a * b * 3.0,
    "divide": lambda a, b: a / b + 2.0 / b,
    "power": lambda a, b: a**3 + b**-1.5,
    "negative": lambda a, b: -a + b,
    "exp": lambda a, b: autodiff.exp(a) * b,
    "log": lambda a, b: autodiff.log(b) * a,
    "log1p": lambda a, b: autodiff.log1p(b) * a,
    "sin": lambda a, b: autodiff.sin(a) * b,
    "tanh": lambda a, b: autodiff.tanh(a) * b,
    "erf": lambda a, b: autodiff.erf(a) * b,
    "absolute": lambda a, b: autodiff.absolute(a) * b,
    "clip": lambda a, b: autodiff.clip(a, -0.5, 0.7) * b,
    "where": lambda a, b: autodiff.where(a.value > 0, a * b, 3.0 * b),
    "maximum": lambda a, b: autodiff.maximum(a, b - 1.0),
    "sum_of_rows": lambda a, b: a.sum(axis=-1, keepdims=True) * b,
    "sum_of_columns": lambda a, b: (a * b).sum(axis=0) ** 2,
    "transpose": lambda a, b: a.T.T * b,
}


@pytest.mark.parametrize("shape", [(4, 3), (3,), (4, 1), (1, 1), ()], ids=str)
@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_primitive_and_its_broadcasting(name, shape):
    """a (4, 3) meets b (shape); b is positive, and no point is near a kink."""
    rng = np.random.default_rng(3)
    a = rng.choice([-1.3, -0.9, -0.2, 0.3, 0.6, 1.1], (4, 3)) + 0.01 * rng.random((4, 3))
    b = 0.75 + 0.02 * rng.random(shape)
    c = rng.normal(size=(4, 3))
    check_by_finite_differences(lambda a, b: (PRIMITIVES[name](a, b) * c).sum(), [a, b], rng)


def test_matmul_and_a_tensor_used_twice():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))
    check_by_finite_differences(lambda a, b: (autodiff.tanh(a @ b.T) @ b * a).sum(), [a, b], rng)


def test_a_tensor_without_influence_has_gradient_zero():
    a, b = Tensor(np.ones(3)), Tensor(np.ones(2))
    np.testing.assert_array_equal(gradient(a.sum(), [a, b])[1], [0.0, 0.0])


# --- activations ----------------------------------------------------------------------------------

Z = (-2.7, -0.4, 0.8, 3.7)
ACTIVATION_VALUES = {
    "identity": (-2.7, -0.4, 0.8, 3.7),
    "sigmoid": (0.06297335605699649, 0.401312339887548, 0.6899744811276125, 0.9758729785823308),
    "hard_sigmoid": (0.05, 0.43333333333333335, 0.6333333333333333, 1.0),
    "tanh": (-0.9910074536781176, -0.3799489622552249, 0.664036770267849, 0.9987782412811312),
    "hard_tanh": (-1.0, -0.4, 0.8, 1.0),
    "softsign": (-0.7297297297297297, -0.28571428571428575, 0.4444444444444445, 0.7872340425531915),
    "softplus": (0.06504356177659054, 0.5130152523999526, 1.1711006659477778, 3.7244228459337796),
    "relu": (0.0, 0.0, 0.8, 3.7),
    "relu6": (0.0, 0.0, 0.8, 3.7),
    "leaky_relu": (-0.027, -0.004, 0.8, 3.7),
    "prelu": (-0.675, -0.1, 0.8, 3.7),
    "rrelu": (-0.61875, -0.09166666666666667, 0.8, 3.7),
    "elu": (-0.9327944872602503, -0.32967995396436073, 0.8, 3.7),
    "selu": (-1.6399453731983127, -0.5796101097553361, 0.8405607898843844, 3.8875936532152777),
    "celu": (-0.9327944872602503, -0.32967995396436073, 0.8, 3.7),
    "gelu": (-0.00936082926820982, -0.13783130335587032, 0.6305156811332827, 3.699601140986134),
    "gelu_tanh": (-0.00888759463946788, -0.1378388305726438, 0.6304316914364482, 3.699728193978608),
    "silu": (-0.1700280613538905, -0.1605249359550192, 0.55197958490209, 3.610730020754624),
    "hard_swish": (-0.135, -0.17333333333333334, 0.5066666666666667, 3.7),
    "mish": (-0.1753703754224569, -0.18891648239351463, 0.659699757427687, 3.695694868671197),
    "exp": (0.06720551273974976, 0.6703200460356393, 2.225540928492468, 40.4473043600674),
    "sine": (-0.4273798802338298, -0.3894183423086505, 0.7173560908995228, -0.5298361409084934),
    "softmax": (0.00154814417448993, 0.01544147246272112, 0.0512674940354508, 0.9317428893273382),
    "log_softmax": (-6.470698372176077, -4.170698372176077, -2.970698372176078, -0.070698372176077),
}
OPTIONS = {"prelu": {"slope": 0.25}}  # the others are tested with their own defaults


def test_every_activation_has_its_values_here():
    assert ACTIVATION_VALUES.keys() == formulas.ACTIVATIONS.keys()


@pytest.mark.parametrize("name", formulas.ACTIVATIONS)
def test_an_activation_has_the_values_of_pytorch(name):
    n = formulas.ACTIVATIONS[name](Tensor(Z), **OPTIONS.get(name, {}))
    np.testing.assert_allclose(n.value, ACTIVATION_VALUES[name], rtol=1e-14, atol=1e-15)


# Where f' jumps, PyTorch has these derivatives.
DERIVATIVES_AT_KINKS = {
    "relu": {0: 0},
    "relu6": {0: 0, 6: 0},
    "leaky_relu": {0: 0.01},
    "prelu": {0: 0.25},
    "rrelu": {0: 11 / 48},
    "elu": {0: 1},
    "selu": {0: 1.0507009873554805 * 1.6732632423543772},
    "celu": {0: 1},
    "hard_tanh": {-1: 0, 1: 0},
    "hard_sigmoid": {-3: 0, 3: 0},
    "hard_swish": {-3: 0, 3: 1},
    "softsign": {0: 1},
}


@pytest.mark.parametrize("name", DERIVATIVES_AT_KINKS)
def test_an_activation_has_the_derivatives_of_pytorch_at_its_kinks(name):
    for at, expected in DERIVATIVES_AT_KINKS[name].items():
        z = Tensor([at])
        n = formulas.ACTIVATIONS[name](z, **OPTIONS.get(name, {}))
        assert gradient(n.sum(), [z])[0].item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("name", formulas.ACTIVATIONS)
def test_the_derivative_of_an_activation(name):
    rng = np.random.default_rng(5)
    z = rng.choice([-3.6, -2.1, -0.8, -0.3, 0.4, 0.7, 1.9, 3.4, 6.3], (6, 5))
    z = z + 0.01 * rng.random(z.shape)  # nowhere near a kink
    c = rng.normal(size=z.shape)
    f, options = formulas.ACTIVATIONS[name], OPTIONS.get(name, {})
    check_by_finite_differences(lambda z: (f(z, **options) * c).sum(), [z], rng)


def test_the_derivative_by_the_slope_of_prelu():
    rng = np.random.default_rng(6)
    z = rng.normal(size=(6, 5))
    f = formulas.ACTIVATIONS["prelu"]
    check_by_finite_differences(lambda a: (f(Tensor(z), a) ** 2).sum(), [np.array(0.25)], rng)


# --- losses ---------------------------------------------------------------------------------------

LOSS_VALUES = [  # loss, options, output, prediction, y, value for this one sample
    ("squared_error", {}, "identity", [1.0, 2.0], [0.0, 4.0], (1 + 4) / 2),
    ("absolute_error", {}, "identity", [1.0, 2.0], [0.0, 4.0], 1 + 2),
    ("huber", {}, "identity", [1.0, 0.5, 4.0], [1.5, 0.5, 1.0], 0.125 + 0 + (3 - 0.5)),
    ("huber", {"delta": 0.5}, "identity", [1.0, 4.0], [1.25, 1.0], 0.03125 + 0.5 * (3 - 0.25)),
    ("log_cosh", {}, "identity", [1.0, 2.0], [1.0, 0.0], math.log(math.cosh(2))),
    ("quantile", {}, "identity", [1.0, 2.0], [3.0, 1.5], 0.5 * 2 + 0.5 * 0.5),
    ("quantile", {"q": 0.3}, "identity", [1.0, 2.0], [3.0, 1.5], 0.3 * 2 + 0.7 * 0.5),
    ("poisson", {}, "exp", [math.exp(2), 1.0], [3.0, 4.0], (math.exp(2) - 3 * 2) + 1),
    ("cross_entropy", {}, "softmax", [0.25, 0.5, 0.25], 1, math.log(2)),
    ("cross_entropy", {}, "softmax", [0.25, 0.5, 0.25], [0.5, 0.5, 0], 1.5 * math.log(2)),
    ("cross_entropy", {}, "log_softmax", [-1.0, -2.0, -3.0], 2, 3.0),
    (
        "cross_entropy",
        {"label_smoothing": 0.3},
        "softmax",
        [0.25, 0.5, 0.25],
        1,
        (0.7 + 0.1) * math.log(2) + 2 * 0.1 * math.log(4),
    ),
    ("binary_cross_entropy", {}, "sigmoid", [0.25, 0.25], [1, 0], math.log(4) + math.log(4 / 3)),
    ("binary_cross_entropy", {}, "sigmoid", [0.25], 1, math.log(4)),
    ("focal", {}, "softmax", [0.25, 0.75], 1, 0.25**2 * math.log(4 / 3)),
    ("focal", {"gamma": 3.0}, "softmax", [0.25, 0.75], 1, 0.25**3 * math.log(4 / 3)),
    ("focal", {}, "sigmoid", [0.25], 1, 0.75**2 * math.log(4)),
    ("focal", {}, "sigmoid", [0.5, 0.25], [1, 0], math.log(2) / 4 + math.log(4 / 3) / 16),
    ("hinge", {}, "identity", [0.5, -2.0, 0.25], 0, 0.5 + 0 + 1.25),
    ("hinge", {}, "identity", [0.5], 0, 1.5),
    ("squared_hinge", {}, "identity", [0.5, -2.0, 0.25], 0, 0.25 + 0 + 1.5625),
    ("exponential", {}, "identity", [0.5, -2.0], 0, math.exp(-0.5) + math.exp(-2)),
    ("exponential", {}, "identity", [0.5], 0, math.exp(0.5)),
    ("kl_divergence", {}, "softmax", [0.25, 0.5, 0.25], [0.5, 0.5, 0.0], 0.5 * math.log(2)),
    ("kl_divergence", {}, "log_softmax", [-1.0, -2.0], [1.0, 0.0], 1.0),
]


def test_every_loss_has_a_value_here():
    assert {case[0] for case in LOSS_VALUES} == formulas.LOSSES.keys()


@pytest.mark.parametrize("loss, options, output, prediction, y, expected", LOSS_VALUES)
def test_a_loss_worked_by_hand(loss, options, output, prediction, y, expected):
    y = formulas.target(loss, [y], len(prediction))
    value = formulas.LOSSES[loss](Tensor([prediction]), y, output, **options).value
    np.testing.assert_allclose(value, [expected], rtol=1e-14)


@pytest.mark.parametrize("loss, options, output", [case[:3] for case in LOSS_VALUES])
def test_the_derivative_of_a_loss(loss, options, output):
    rng = np.random.default_rng(7)
    prediction = 0.1 + 0.6 * rng.dirichlet(np.ones(4), 6)  # well within (0, 1): for every loss
    y = np.maximum(prediction + rng.choice([-1.1, -0.2, 0.3, 1.2], prediction.shape), 0.0)
    if loss in ("cross_entropy", "focal", *formulas.MARGIN_LOSSES):
        y = formulas.target(loss, rng.integers(4, size=6), 4)
    check_by_finite_differences(
        lambda p: formulas.LOSSES[loss](p, y, output, **options).sum(), [prediction], rng, h=1e-6
    )


# --- optimisers -----------------------------------------------------------------------------------

GRADIENTS = (0.5, -1.0, 0.25, 2.0, 0.125)
OPTIMIZER_RESULTS = [  # one weight after these five gradients, from 1
    (formulas.SGD(lr=0.1), 0.8125),
    (formulas.SGD(lr=0.1, momentum=0.9, l2=0.2), 0.4330685248),
    (formulas.SGD(lr=0.1, momentum=0.9, nesterov=True), 0.5235055),
    (formulas.RMSprop(lr=0.1), -0.24873225634195184),
    (formulas.RMSprop(lr=0.1, momentum=0.5), -1.0024364171579248),
    (formulas.RMSprop(lr=0.1, centered=True), -0.2556265315852432),
    (
        formulas.RMSprop(lr=0.1, rho=0.9, momentum=0.5, centered=True),
        0.31284125413335023,
    ),
    (formulas.Adam(lr=0.1), 0.864568394549961),
    (formulas.Adam(lr=0.1, beta1=0.8, beta2=0.9, eps=0.01, l2=0.2), 0.7888016822615375),
    (formulas.AdamW(lr=0.1, weight_decay=0.3), 0.7321145712271401),
    # PyTorch has no Lion.  By hand: the signs are + - + + +, each after w <- 0.95 w.
    (formulas.Lion(lr=0.1, weight_decay=0.5), 0.4928178125),
]


@pytest.mark.parametrize("optimizer, expected", OPTIMIZER_RESULTS, ids=lambda value: str(value))
def test_an_optimizer_ends_where_that_of_pytorch_does(optimizer, expected):
    weight = np.array([1.0])
    for g in GRADIENTS:
        optimizer.step([weight], [np.array([g])], [True])
    assert weight.item() == pytest.approx(expected, rel=1e-13)


def test_penalties_are_for_weights_alone():
    """From 2 with gradient 0, lr 0.1: l1 takes 0.1 · 0.3, l2 0.1 · 0.5 · 2, decay 0.1 · 0.4 · 2."""
    for optimizer, expected in [
        (formulas.SGD(lr=0.1, l1=0.3), 1.97),
        (formulas.SGD(lr=0.1, l2=0.5), 1.9),
        (formulas.AdamW(lr=0.1, weight_decay=0.4), 1.92),
    ]:
        weight, bias = np.array([2.0, -2.0]), np.array([2.0])
        optimizer.step([weight, bias], [np.zeros(2), np.zeros(1)], [True, False])
        np.testing.assert_allclose(weight, [expected, -expected], rtol=1e-14)
        np.testing.assert_array_equal(bias, [2.0])


# --- the network ----------------------------------------------------------------------------------


def small_network(rng, activations, sizes):
    pairs = list(zip(sizes[1:], sizes[:-1], strict=True))
    return formulas.Network(
        W=[None, *(rng.normal(size=pair) / 2 for pair in pairs)],
        b=[None, *(rng.normal(size=size) / 2 for size, _ in pairs)],
        activations=[None, *activations],
    )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_gradient_of_a_network(reduction):
    """Weighted samples, three layers, one of them PReLU: all parameters along random directions."""
    rng = np.random.default_rng(8)
    network = small_network(rng, [("tanh", {}), ("prelu", {}), ("softmax", {})], sizes=(5, 4, 7, 3))
    x, y, weight = rng.normal(size=(9, 5)), rng.integers(3, size=9), rng.random(9)
    arrays, _ = network.parameters()

    def value_and_grad():
        return formulas.loss_and_grad(
            network, x, y, "cross_entropy", sample_weight=weight, reduction=reduction
        )

    _, grad = value_and_grad()
    start = [array.copy() for array in arrays]
    for _ in range(3):
        direction = [rng.normal(size=array.shape) for array in arrays]
        values = []
        for h in (1e-6, -1e-6):
            for array, a, d in zip(arrays, start, direction, strict=True):
                array[...] = a + h * d
            values.append(value_and_grad()[0])
        expected = (values[0] - values[1]) / 2e-6
        found = sum((g * d).sum() for g, d in zip(grad, direction, strict=True))
        assert found == pytest.approx(expected, rel=1e-7)


def test_the_mean_is_over_the_weights():
    rng = np.random.default_rng(9)
    network = small_network(rng, [("identity", {})], sizes=(2, 1))
    x, y = rng.normal(size=(3, 2)), rng.normal(size=3)

    def loss(rows, **options):
        return formulas.loss_and_grad(network, x[rows], y[rows], "huber", **options)[0]

    total = loss([0]) + 3 * loss([2])
    weight = np.array([1.0, 0.0, 3.0])
    everything = [0, 1, 2]
    assert loss(everything, sample_weight=weight) == pytest.approx(total / 4, rel=1e-14)
    summed = loss(everything, sample_weight=weight, reduction="sum")
    assert summed == pytest.approx(total, rel=1e-14)


def test_training_lowers_the_loss():
    rng = np.random.default_rng(10)
    network = small_network(rng, [("tanh", {}), ("softmax", {})], sizes=(4, 8, 3))
    x, y = rng.normal(size=(20, 4)), rng.integers(3, size=20)
    history = formulas.train(network, formulas.Adam(lr=0.05), 100, x, y, "cross_entropy")
    assert history[-1] < history[0] / 2
