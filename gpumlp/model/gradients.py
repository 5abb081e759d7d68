"""Gradients held against finite differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpumlp.utils import checks

if TYPE_CHECKING:
    from gpumlp.model.mlp import MLP
    from gpumlp.utils.aliases import Data, LossLike


def check_gradients(
    net: MLP,
    x: Data,
    y: Data,
    loss: LossLike = "cross_entropy",
    sample_weight: Data | None = None,
    *,
    step: float = 1e-6,
    seed: int = 0,
) -> float:
    """Compare the gradient of a network with central differences, in float64 on its device.

    For each W[k], b[k], s[k] and learned slope of each network, the derivative along one random
    direction d of ±1, (L(θ + h d) - L(θ - h d)) / 2h, is compared with grad · d.  One direction
    checks a whole segment.

    Parameters
    ----------
    net : MLP
        The network, or a stack; it stays as it is.
    x, y, loss, sample_weight
        As in `MLP.loss_and_grad`.
    step : float, default 1e-6
        h, above 0.
    seed : int, default 0
        Of the directions.

    Returns
    -------
    float
        The largest error over all segments and networks, relative to ‖grad‖, which is the expected
        size of grad · d.  A kink (relu at 0) within the step shows as an error that is not one.

    Raises
    ------
    TypeError, ValueError
        As `MLP.loss_and_grad`.

    Examples
    --------
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

    def loss_value() -> np.ndarray:
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
                above = loss_value()
                buffer[...] = net.ops.to_device(theta - step * d)
                below = loss_value()
                difference = (above - below) / (2 * step)
                norm = np.linalg.norm(gradient[:, part], axis=1)
                error = np.abs(difference - (gradient * d).sum(axis=1))
                worst = max(worst, float((error / np.where(norm > 0, norm, 1)).max()))
        buffer[...] = net.ops.to_device(theta)
    return worst
