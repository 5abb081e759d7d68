"""scikit-learn's losses: their gradients are the engine's, their values follow its conventions.

    mean_squared_error   the mean over outputs, where the gradient is that of the sum
    poisson_deviance     with y log y - y: half the deviance
    log_loss,            no probability counts as less than the dtype's eps,
    binary_log_loss      or more than 1 - eps

Hence these `Loss` objects, whose ∂l/∂u need not be the derivative of their l.  Their compiled sides
are in kernels/shared/losses.cuh.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gpumlp.functions.loss import Form, Loss, losses


def squared_error(outputs: int) -> Loss:
    """½ (ŷ - y)² / outputs; δ^(K) = ŷ - y nevertheless."""
    built_in = losses["squared_error"]
    if outputs == 1:
        return built_in
    form = Form(
        lambda u, y, p: p[0] * np.square(u - y),
        lambda u, y, p: u - y,
        "MeanSquaredError",
    )
    return replace(
        built_in,
        name="mean_squared_error",
        identity=form,
        parameters={"factor": 0.5 / outputs},
    )


def poisson() -> Loss:
    """ŷ - y + y log(y / ŷ) with ŷ = e^u."""
    form = Form(
        lambda u, y, p: np.exp(u) - y * u + _y_log_y(y) - y,
        lambda u, y, p: np.exp(u) - y,
        "PoissonDevianceLog",
    )
    return replace(losses["poisson"], name="poisson_deviance", log=form)


def _y_log_y(y):
    return y * np.log(np.where(y > 0, y, 1))


def log_loss(dtype, label_smoothing: float = 0.0) -> Loss:
    """-y log ŷ of a softmax, from u = log ŷ."""
    form = Form(
        lambda u, y, p: -y * np.maximum(u, p[1]),
        lambda u, y, p: -y,
        "LogLoss",
    )
    constants = {"label_smoothing": float(label_smoothing), "floor": float(_floor(dtype))}
    return replace(losses["cross_entropy"], name="log_loss", log=form, parameters=constants)


def binary_log_loss(dtype, label_smoothing: float = 0.0) -> Loss:
    """-(y log ŷ + (1 - y) log(1 - ŷ)) of a sigmoid, from u = logit ŷ; one label or several."""
    form = Form(_binary_log_loss, lambda u, y, p: _expit(u) - y, "BinaryLogLoss")
    return replace(
        losses["binary_cross_entropy"],
        name="binary_log_loss",
        logit=form,
        parameters={},
        # With smoothing s, 0 and 1 become s/2 and 1 - s/2.
        coding=(1 - label_smoothing, label_smoothing / 2),
    )


def _floor(dtype):
    return np.log(np.finfo(dtype).eps)


def _expit(u):
    from scipy.special import expit

    return expit(u)


def _binary_log_loss(u, y, p):
    # From ŷ itself: near 1, 1 - ŷ has few digits left, and scikit-learn's curve shows it.
    eps = np.finfo(u.dtype).eps
    prob = np.clip(_expit(u), eps, 1 - eps)
    return -(y * np.log(prob) + (1 - y) * np.log(1 - prob))
