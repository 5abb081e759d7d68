"""Activations and losses of one's own, and `check_gradients`, which says whether they are right."""

import numpy as np
import pytest

import gpumlp
from gpumlp.functions.loss import Form
from tests.helpers.comparison import fill, to_numpy

RNG = np.random.default_rng(0)
X = RNG.normal(size=(7, 4))
Y = RNG.normal(size=(7, 3))
LABELS = np.arange(7) % 3

CUBE = gpumlp.Activation(
    "cube",
    f=lambda z, p: z**3,
    df=lambda z, n, p: 3 * z**2,
    cuda=("z * z * z", "Real(3) * z * z"),
)

# 1 / (1 + e^(-p z)): f' from n alone, with a constant
STEEP = gpumlp.Activation(
    "steep",
    f=lambda z, p: 1 / (1 + np.exp(-p[0] * z)),
    df=lambda z, n, p: p[0] * n * (1 - n),
    cuda=("Real(1) / (Real(1) + exp(-p[0] * z))", "p[0] * n * (Real(1) - n)"),
    df_from="n",
    parameters={"steepness": 1.0},
)

QUARTIC = gpumlp.Loss(
    "quartic",
    Form(
        lambda u, y, p: p[0] * (u - y) ** 4,
        lambda u, y, p: 4 * p[0] * (u - y) ** 3,
        ("p[0] * pow(u - y, Real(4))", "Real(4) * p[0] * pow(u - y, Real(3))"),
    ),
    parameters={"scale": 0.25},
)


def make(device, hidden, output="identity", models=None):
    net = gpumlp.MLP((4, 6, 3), hidden, output, models=models, dtype="float64", device=device)
    for k in (1, 2):
        fill(net.b[k], RNG.normal(size=net.b[k].shape))
    return net


# --- activations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize(
    "f, formula",
    [
        (CUBE, lambda z: z**3),
        (STEEP, lambda z: 1 / (1 + np.exp(-z))),
        (STEEP(steepness=2.5), lambda z: 1 / (1 + np.exp(-2.5 * z))),
    ],
    ids=["cube", "steep", "steeper"],
)
def test_custom_activation(device, f, formula, models):
    net = make(device, f, models=models)
    W, b = (
        [to_numpy(a) if models is None else to_numpy(a)[0] for a in group[1:]]
        for group in (net.W, net.b)
    )
    expected = formula(X @ W[0].T + b[0]) @ W[1].T + b[1]
    found = net.forward(X)
    np.testing.assert_allclose(found if models is None else found[0], expected, rtol=1e-12)
    assert gpumlp.check_gradients(net, X, Y, "squared_error") < 1e-7
    assert repr(f) in net.summary()


def test_custom_activation_at_the_output(device):
    net = make(device, "tanh", CUBE)
    assert gpumlp.check_gradients(net, X, Y, "squared_error") < 1e-7


def test_custom_activation_trains(device):
    net = make(device, CUBE)
    history = gpumlp.Trainer(net, "squared_error", gpumlp.Adam(1e-2), batch_size=3).fit(
        X, Y, epochs=15, progress=False
    )
    assert history.loss[-1] < 0.5 * history.loss[0]


def test_two_activations_of_one_name(device):
    """They are told apart by what they do."""
    double = gpumlp.Activation(
        "scaled", lambda z, p: 2 * z, lambda z, n, p: np.full_like(z, 2), ("2 * z", "Real(2)")
    )
    triple = gpumlp.Activation(
        "scaled", lambda z, p: 3 * z, lambda z, n, p: np.full_like(z, 3), ("3 * z", "Real(3)")
    )
    net = make(device, "identity", double)
    other = net.like(output=triple)
    np.testing.assert_allclose(net.forward(X) / 2, other.forward(X) / 3, rtol=1e-14)


@pytest.mark.parametrize("name", ["identity", "relu", "sigmoid", "exp"])
@pytest.mark.parametrize("place", ["hidden", "output"])
def test_an_activation_named_as_a_built_in_one(device, name, place):
    """The user's function counts, not the name, for which there are shortcuts inside."""
    own = gpumlp.Activation(
        name,
        lambda z, p: 0.1 + 0.3 * np.tanh(z) ** 2,
        lambda z, n, p: 0.6 * np.tanh(z) * (1 - np.tanh(z) ** 2),
        (
            "Real(.1) + Real(.3) * tanh(z) * tanh(z)",
            "Real(.6) * tanh(z) * (Real(1) - tanh(z) * tanh(z))",
        ),
    )
    net = make(
        device, own if place == "hidden" else "tanh", own if place == "output" else "sigmoid"
    )
    n = net.forward(X)
    y = np.full((7, 3), 0.25)
    if place == "output":
        assert n.min() >= 0.1 and n.max() <= 0.4
    for loss, expected in (
        ("squared_error", 0.5 * (n - y) ** 2),
        ("binary_cross_entropy", -y * np.log(n) - (1 - y) * np.log(1 - n)),
        ("poisson", n - y * np.log(n)),
    ):
        value, _ = net.loss_and_grad(X, y, loss)
        np.testing.assert_allclose(value, expected.sum(axis=1).mean(), rtol=1e-12)
        assert gpumlp.check_gradients(net, X, y, loss) < 1e-7


def test_an_activation_without_a_cuda_side(cuda):
    lonely = gpumlp.Activation("lonely", lambda z, p: z * z, lambda z, n, p: 2 * z)
    assert gpumlp.check_gradients(make("cpu", lonely), X, Y, "squared_error") < 1e-7
    with pytest.raises(ValueError, match=r"'lonely' has no CUDA side.*or use device='cpu'"):
        make(cuda, lonely)


def test_an_activation_without_a_derivative_cannot_be_trained():
    forward_only = gpumlp.Activation("forward_only", lambda z, p: np.abs(z))
    net = make("cpu", forward_only)
    assert net.forward(X).shape == (7, 3)
    with pytest.raises((TypeError, ValueError), match="forward_only"):
        net.loss_and_grad(X, Y, "squared_error")


def test_a_cuda_expression_that_does_not_compile(cuda):
    broken = gpumlp.Activation("broken", lambda z, p: z, lambda z, n, p: z, ("z +", "z"))
    with pytest.raises(Exception, match="error"):
        make(cuda, broken).forward(X)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"df_from": "y"}, "df_from = 'y' must be 'z' or 'n'"),
        ({"parameters": {"a": 1.0, "b": 2.0, "c": 3.0}}, "at most two constants"),
        ({"parameters": {"a": np.nan}}, "a = nan"),
    ],
)
def test_arguments_that_make_no_activation(arguments, said):
    with pytest.raises(ValueError, match=said):
        gpumlp.Activation("x", lambda z, p: z, **arguments)


# --- losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("output", ["identity", "tanh"])
@pytest.mark.parametrize("loss, scale", [(QUARTIC, 0.25), (QUARTIC(scale=2), 2.0)], ids=repr)
def test_custom_loss(device, loss, scale, output, models):
    net = make(device, "tanh", output, models)
    value, _ = net.loss_and_grad(X, Y, loss)
    expected = (scale * (net.forward(X) - Y) ** 4).sum(axis=-1).mean(axis=-1)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    assert gpumlp.check_gradients(net, X, Y, loss) < 1e-7


def test_custom_loss_with_labels_and_a_stable_form(device):
    """With `log`, softmax and the loss are one pass: u = log ŷ, finite where ŷ underflows."""
    own = gpumlp.Loss(
        "own_entropy",
        Form(lambda u, y, p: -y * np.log(u), lambda u, y, p: -y / u, ("-y * log(u)", "-y / u")),
        log=Form(lambda u, y, p: -y * u, lambda u, y, p: -y, ("-y * u", "-y")),
        classes=True,
    )
    net = make(device, "tanh", "softmax")
    np.testing.assert_allclose(
        net.loss_and_grad(X, LABELS, own)[0], net.loss_and_grad(X, LABELS)[0], rtol=1e-14
    )
    assert gpumlp.check_gradients(net, X, LABELS, own) < 1e-7
    fill(net.b[2], np.array([2000.0, 0.0, 0.0]))
    value, _ = net.loss_and_grad(X, np.ones(7, int), own)
    assert 1900 < value < 2100


def test_a_loss_without_a_cuda_side(cuda):
    lonely = gpumlp.Loss("lonely", Form(lambda u, y, p: (u - y) ** 2, lambda u, y, p: 2 * (u - y)))
    assert gpumlp.check_gradients(make("cpu", "tanh"), X, Y, lonely) < 1e-7
    net = make(cuda, "tanh")
    with pytest.raises(ValueError, match=r"'lonely' has no CUDA side.*or use device='cpu'"):
        net.loss_and_grad(X, Y, lonely)
    with pytest.raises(ValueError, match="'lonely' has no CUDA side"):
        gpumlp.Trainer(net, lonely)


def test_unknown_constants_of_a_loss():
    with pytest.raises(TypeError, match="huber takes delta, not epsilon"):
        gpumlp.losses["huber"](epsilon=1)
    with pytest.raises(ValueError, match="delta = -1"):
        gpumlp.losses["huber"](delta=-1)


# --- check_gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("models", [None, 3])
def test_right_gradients_give_a_small_error(device, models):
    net = gpumlp.MLP(
        (4, 6, 5, 3), ["prelu", "softplus"], models=models, dtype="float32", device=device
    )
    weight = RNG.uniform(0, 2, 7)
    assert gpumlp.check_gradients(net, X, LABELS, sample_weight=weight) < 1e-7


def test_a_wrong_derivative_gives_a_large_error(device):
    wrong = gpumlp.Activation(
        "wrong",
        lambda z, p: np.tanh(z),
        lambda z, n, p: 1 - n,  # not 1 - n²
        ("tanh(z)", "Real(1) - n"),
        df_from="n",
    )
    assert gpumlp.check_gradients(make(device, wrong), X, Y, "squared_error") > 1e-2


def test_a_wrong_derivative_in_one_network_of_a_stack_gives_a_large_error(cuda):
    """It looks at every network: here only those with negative biases are wrong."""
    kinked = gpumlp.Activation(
        "kinked",
        lambda z, p: z,
        lambda z, n, p: np.where(z < -10, 2.0, 1.0),
        ("z", "z < Real(-10) ? Real(2) : Real(1)"),
    )
    for device in ("cpu", cuda):
        net = make(device, kinked, models=3)
        assert gpumlp.check_gradients(net, X, Y, "squared_error") < 1e-7
        fill(net.b[1][2], np.full(6, -50.0))
        assert gpumlp.check_gradients(net, X, Y, "squared_error") > 1e-2


def test_a_wrong_loss_gives_a_large_error(device):
    wrong = gpumlp.Loss(
        "wrong",
        Form(
            lambda u, y, p: (u - y) ** 2,
            lambda u, y, p: u - y,  # the factor 2 is missing
            ("(u - y) * (u - y)", "u - y"),
        ),
    )
    assert gpumlp.check_gradients(make(device, "tanh"), X, Y, wrong) > 1e-2


def test_checking_leaves_the_network_as_it_was(device):
    net = make(device, "tanh")
    before = to_numpy(net.theta).copy()
    gpumlp.check_gradients(net, X, Y, "squared_error")
    np.testing.assert_array_equal(to_numpy(net.theta), before)
