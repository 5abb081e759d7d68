"""Initial weights: their distribution, and the seeds that they come from."""

import numpy as np
import pytest

import gpumlp
from tests.helpers.comparison import to_numpy

FAN_IN, FAN_OUT = 300, 200
VARIANCE = {
    "glorot": 2 / (FAN_IN + FAN_OUT),
    "he": 2 / FAN_IN,
    "lecun": 1 / FAN_IN,
}


@pytest.mark.parametrize("shape", ["uniform", "normal"])
@pytest.mark.parametrize("scheme", VARIANCE)
def test_variance_of_the_initial_weights(scheme, shape):
    net = gpumlp.MLP((FAN_IN, FAN_OUT), dtype="float64", device="cpu", init=f"{scheme}_{shape}")
    W = net.W[1]
    deviation = np.sqrt(VARIANCE[scheme])
    # 60,000 numbers: the standard error of the variance is 0.6 %, of the mean 0.4 % of σ.
    assert W.var() == pytest.approx(VARIANCE[scheme], rel=0.03)
    assert abs(W.mean()) < 0.02 * deviation
    if shape == "uniform":
        bound = np.sqrt(3) * deviation
        assert 0.999 * bound < np.abs(W).max() <= bound
    else:
        assert np.abs(W).max() > 3.5 * deviation
        assert (np.abs(W) < deviation).mean() == pytest.approx(0.6827, abs=0.01)
    assert not net.b[1].any()


@pytest.mark.parametrize("sizes", [(6, 11), (11, 6), (7, 7), (1, 5)])
def test_orthogonal_initial_weights(sizes):
    W = gpumlp.MLP(sizes, dtype="float64", device="cpu", init="orthogonal").W[1]
    product = W @ W.T if W.shape[0] <= W.shape[1] else W.T @ W
    np.testing.assert_allclose(product, np.eye(min(sizes)), atol=1e-12)


def test_zero_initial_weights():
    assert not gpumlp.MLP((3, 4, 2), device="cpu", init="zeros").theta.any()


def test_initial_weights_of_ones_own():
    def numbered(rng, fan_out, fan_in):
        return np.arange(fan_out * fan_in).reshape(fan_out, fan_in)

    net = gpumlp.MLP((3, 2), device="cpu", init=numbered)
    np.testing.assert_array_equal(net.W[1], [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(2, 3\)"):
        gpumlp.MLP((3, 2), device="cpu", init=lambda rng, fan_out, fan_in: np.zeros((3, 2)))


@pytest.mark.parametrize("seed", [5, 2**63, [11, 3, 7]])
def test_network_m_of_a_stack_is_the_network_of_its_own_seed(device, seed):
    stack = gpumlp.MLP((4, 6, 3), "prelu", models=3, seed=seed, device=device)
    for m in range(3):
        own = seed[m] if isinstance(seed, list) else seed + m
        alone = gpumlp.MLP((4, 6, 3), "prelu", seed=own, device=device)
        np.testing.assert_array_equal(to_numpy(stack.theta)[m], to_numpy(alone.theta))


def test_seeds_differ_and_repeat():
    def theta(seed):
        return gpumlp.MLP((4, 6, 3), device="cpu", seed=seed).theta

    np.testing.assert_array_equal(theta(3), theta(3))
    assert (theta(3) != theta(4)).any()
    stack = gpumlp.MLP((4, 6, 3), models=2, device="cpu")
    assert (stack.theta[0] != stack.theta[1]).any()


def test_both_devices_begin_with_the_same_weights(cuda):
    there, here = (gpumlp.MLP((5, 4, 3), models=2, seed=9, device=where) for where in (cuda, "cpu"))
    np.testing.assert_array_equal(to_numpy(there.theta), here.theta)
