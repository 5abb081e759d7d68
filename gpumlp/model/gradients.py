"""Gradients held against finite differences."""

from __future__ import annotations

import numpy as np

from gpumlp.utils import checks


def check_gradients(net, x, y, loss="cross_entropy", sample_weight=None, *, step=1e-6, seed=0):
    """The largest relative error of the gradient against central differences, over all parameters.

    In float64, on the network's device: for each W[k], b[k], s[k] and learned slope of each
    network, the derivative along one random direction d of +-1, (L(θ + h d) - L(θ - h d)) / 2h, is
    compared with grad · d.  The error is relative to ‖grad‖, the expected size of grad · d.  One
    direction checks a whole segment.  A kink (relu at 0) within the step shows as an error that is
    not one.

    >>> import numpy as np, gpumlp
    >>> net = gpumlp.MLP((4, 8, 3), hidden="tanh", device="cpu")
    >>> x, y = np.random.default_rng(0).normal(size=(10, 4)), np.arange(10) % 3
    >>> bool(gpumlp.check_gradients(net, x, y) < 1e-7)
    True
    """
    step = checks.number(step, "step", checks.POSITIVE)
    seed = checks.number(seed, "seed", checks.SEED)
    net = net.like(dtype="float64")
    rng = np.random.default_rng(seed)
    models, to_host = net.M, net.ops.to_host

    def value():
        return np.atleast_1d(to_host(net.loss_and_grad(x, y, loss, sample_weight)[0]))

    _, grad = net.loss_and_grad(x, y, loss, sample_weight)
    gradient = np.asarray(to_host(grad.theta)).reshape(models, -1)
    buffer, layout = net.parameters.buffer, net.layout
    with net.ops.on_device():
        theta = to_host(buffer).copy()
        worst = 0.0
        for group in (layout.W, layout.b, layout.s, layout.slope):
            for part in group.values():
                d = np.zeros_like(theta)
                d[:, part] = rng.choice([-1.0, 1.0], size=(models, part.stop - part.start))
                buffer[...] = net.ops.to_device(theta + step * d)
                above = value()
                buffer[...] = net.ops.to_device(theta - step * d)
                below = value()
                difference = (above - below) / (2 * step)
                norm = np.linalg.norm(gradient[:, part], axis=1)
                error = np.abs(difference - (gradient * d).sum(axis=1))
                worst = max(worst, float((error / np.where(norm > 0, norm, 1)).max()))
        buffer[...] = net.ops.to_device(theta)
    return worst
