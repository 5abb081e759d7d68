"""Equations (1)-(15) on one sample, with numbers worked by hand.

All numbers are multiples of powers of two, so that both dtypes and both devices must give exactly
these.  f^(1) is relu, f^(2) the identity, L = ½ (ŷ - y)², so that δ^(2) = ŷ - y.

    x = (1, 2)     y = 1

            ⎛  1/2   1/4 ⎞         ⎛   0  ⎞
    W^(1) = ⎜ -1     1/2 ⎟  b^(1) = ⎜  1/4 ⎟   W^(2) = (2  -4  4)   b^(2) = 1/2
            ⎝ -1/2  -1/4 ⎠         ⎝ -1/2 ⎠

    (1)   z^(1) = W^(1) x^T + b^(1) = (1/2 + 1/2 + 0,  -1 + 1 + 1/4,  -1/2 - 1/2 - 1/2)
                = (1, 1/4, -3/2)
    (2)   n^(1) = relu(z^(1)) = (1, 1/4, 0)
    (5)   z^(2) = W^(2) n^(1) + b^(2) = 2 - 1 + 0 + 1/2 = 3/2
    (6)   ŷ = n^(2) = 3/2
    (7)   L = ½ (3/2 - 1)² = 1/8
    (11)  δ^(2) = ŷ - y = 1/2
          δ^(1) = relu'(z^(1)) ∘ (W^(2))^T δ^(2) = (1, 1, 0) ∘ (1, -2, 2) = (1, -2, 0)
    (12)  ∂L/∂W^(2) = δ^(2) (n^(1))^T = (1/2  1/8  0)
          ∂L/∂W^(1) = δ^(1) x = ((1, 2), (-2, -4), (0, 0))
    (13)  ∂L/∂b^(2) = 1/2,  ∂L/∂b^(1) = (1, -2, 0)
"""

import numpy as np
import pytest

import gpumlp
from tests.helpers.comparison import fill, to_numpy

X, Y = [[1.0, 2.0]], [[1.0]]

W = [None, [[1 / 2, 1 / 4], [-1, 1 / 2], [-1 / 2, -1 / 4]], [[2, -4, 4]]]
B = [None, [0, 1 / 4, -1 / 2], [1 / 2]]
DW = [None, [[1, 2], [-2, -4], [0, 0]], [[1 / 2, 1 / 8, 0]]]
DB = [None, [1, -2, 0], [1 / 2]]

# (14) with α = 1/2, λ = 1:  W ← W - ½ (∂L/∂W + W), as printed
#   W^(2): 2 - ½ (½ + 2) = 3/4,  -4 - ½ (1/8 - 4) = -33/16,  4 - ½ (0 + 4) = 2
#   W^(1): ½ - ½ (1 + ½) = -1/4,    ¼ - ½ (2 + ¼) = -7/8
#          -1 - ½ (-2 - 1) = 1/2,   ½ - ½ (-4 + ½) = 9/4
#          -½ - ½ (0 - ½) = -1/4,  -¼ - ½ (0 - ¼) = -1/8
W_L2 = [None, [[-1 / 4, -7 / 8], [1 / 2, 9 / 4], [-1 / 4, -1 / 8]], [[3 / 4, -33 / 16, 2]]]

# (14') with α = 1/2, λ₁ = 1:  W ← W - ½ (∂L/∂W + sign W)
#   W^(2): 2 - ½ (½ + 1) = 5/4,  -4 - ½ (1/8 - 1) = -57/16,  4 - ½ (0 + 1) = 7/2
#   W^(1): ½ - ½ (1 + 1) = -1/2,   ¼ - ½ (2 + 1) = -5/4
#          -1 - ½ (-2 - 1) = 1/2,  ½ - ½ (-4 + 1) = 2
#          -½ - ½ (0 - 1) = 0,    -¼ - ½ (0 - 1) = 1/4
W_L1 = [None, [[-1 / 2, -5 / 4], [1 / 2, 2], [0, 1 / 4]], [[5 / 4, -57 / 16, 7 / 2]]]

# (14) with α = 1/2, λ = 0:  W ← W - ½ ∂L/∂W
W_PLAIN = [None, [[0, -3 / 4], [0, 5 / 2], [-1 / 2, -1 / 4]], [[7 / 4, -65 / 16, 4]]]

# (15) with α = 1/2:  b ← b - ½ ∂L/∂b; no λ, so that the third unit, whose δ is 0, keeps its bias
B_NEW = [None, [-1 / 2, 5 / 4, -1 / 2], [1 / 4]]


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


def make(device, dtype, models=None):
    net = gpumlp.MLP((2, 3, 1), "relu", "identity", models=models, dtype=dtype, device=device)
    for k in (1, 2):
        fill(net.W[k], np.broadcast_to(np.array(W[k], dtype), net.W[k].shape))
        fill(net.b[k], np.broadcast_to(np.array(B[k], dtype), net.b[k].shape))
    return net


def assert_parameters(net, expected_W, expected_b, m=None):
    for k in (1, 2):
        found_W, found_b = to_numpy(net.W[k]), to_numpy(net.b[k])
        np.testing.assert_array_equal(found_W if m is None else found_W[m], expected_W[k])
        np.testing.assert_array_equal(found_b if m is None else found_b[m], expected_b[k])


def test_forward(device, dtype):
    np.testing.assert_array_equal(make(device, dtype).forward(X), [[3 / 2]])  # (1)-(6)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_and_gradient(device, dtype, reduction):
    value, grad = make(device, dtype).loss_and_grad(X, Y, "squared_error", reduction=reduction)
    assert value == 1 / 8  # (7)
    assert_parameters(grad, DW, DB)  # (11)-(13)


@pytest.mark.parametrize(
    "penalty, expected",
    [({"l2": 1.0}, W_L2), ({"l1": 1.0}, W_L1), ({}, W_PLAIN)],
    ids=["(14), λ = 1", "(14')", "no penalty"],
)
@pytest.mark.parametrize("by_fit", [False, True], ids=["step", "fit"])
def test_one_step_of_sgd(device, dtype, penalty, expected, by_fit):
    net = make(device, dtype)
    optimizer = gpumlp.SGD(1 / 2, **penalty)
    trainer = gpumlp.Trainer(net, "squared_error", optimizer, batch_size=1, reduction="sum")
    if by_fit:
        assert trainer.fit(X, Y, epochs=1, progress=False).loss == [1 / 8]
    else:
        assert trainer.step(X, Y) == 1 / 8  # before the update
    assert_parameters(net, expected, B_NEW)  # (14)(15)


def test_each_network_of_a_stack_has_its_own_penalties(device, dtype):
    net = make(device, dtype, models=4)
    optimizer = gpumlp.SGD(
        np.array([1 / 2, 1 / 2, 1 / 2, 0]), l2=np.array([1, 0, 0, 1]), l1=np.array([0, 1, 0, 1])
    )
    losses = gpumlp.Trainer(net, "squared_error", optimizer, reduction="sum").step(X, Y)
    np.testing.assert_array_equal(to_numpy(losses), [1 / 8] * 4)
    for m, expected in enumerate((W_L2, W_L1, W_PLAIN)):
        assert_parameters(net, expected, B_NEW, m)
    assert_parameters(net, W, B, 3)  # a rate of 0 moves nothing


def test_a_sum_over_samples_and_a_mean(device, dtype):
    """Of two equal samples: the sum doubles (12) and (13), not λ W; the mean is that of one."""
    for reduction, factor in (("sum", 2), ("mean", 1)):
        net = make(device, dtype)
        trainer = gpumlp.Trainer(
            net, "squared_error", gpumlp.SGD(1 / 4, l2=1.0), reduction=reduction
        )
        assert trainer.step(X * 2, Y * 2) == factor / 8
        expected_W, expected_b = (
            [None, *(np.array(old[k]) * kept - factor / 4 * np.array(d[k]) for k in (1, 2))]
            for old, d, kept in ((W, DW, 3 / 4), (B, DB, 1))
        )
        assert_parameters(net, expected_W, expected_b)


@pytest.mark.parametrize("kind", ["SGD", "RMSprop", "Adam", "AdamW"])
def test_biases_and_learned_slopes_are_never_decayed(device, kind):
    """Where the gradient is 0, penalties move the weights towards 0, and nothing else."""
    net = gpumlp.MLP((2, 3, 1), "prelu", "identity", dtype="float64", device=device)
    fill(net.b[1], np.array([1.0, -2.0, 3.0]))
    y = net.forward(X)  # the targets are met: every δ is 0
    before = [to_numpy(a).copy() for a in (net.W[1], net.W[2], net.b[1], net.b[2], net.slope[1])]
    penalty = {"weight_decay": 0.5} if kind == "AdamW" else {"l2": 0.1, "l1": 0.1}
    optimizer = getattr(gpumlp, kind)(1e-2, **penalty)
    gpumlp.Trainer(net, "squared_error", optimizer).step(X, y)
    after = [to_numpy(a) for a in (net.W[1], net.W[2], net.b[1], net.b[2], net.slope[1])]
    for k in (0, 1):
        assert (np.abs(after[k]) < np.abs(before[k])).all()
    for k in (2, 3, 4):
        np.testing.assert_array_equal(after[k], before[k])


def test_sign_of_a_weight_that_is_zero_is_zero(device):
    """(14') at W = 0: L1 alone leaves it there."""
    net = gpumlp.MLP((2, 1), output="identity", init="zeros", dtype="float64", device=device)
    gpumlp.Trainer(net, "squared_error", gpumlp.SGD(0.1, l1=1.0)).step(X, [[0.0]])
    np.testing.assert_array_equal(to_numpy(net.W[1]), [[0, 0]])
