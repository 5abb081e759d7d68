"""solver="lbfgs": SciPy's L-BFGS-B minimises the loss over all samples.

What is minimised is the loss as scikit-learn reports it plus ½ alpha ‖W‖² / Σ weights, and the
gradient is its derivative.  scikit-learn's own is not where there are several outputs (#8349): it
averages the squared error over outputs and takes the gradient of the sum.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from gpumlp.backend.contract import Batch
from gpumlp.estimators.messages import warn
from gpumlp.model import arrays, blas_threads, memory, propagate, workspace
from gpumlp.model.objective import Objective
from gpumlp.model.parameters import Gradient, Parameters
from gpumlp.training.rows import Rows, read

CHUNK_BYTES = 256 << 20  # of the workspace of one pass


def minimize(estimator, net, samples, loss, weight) -> None:
    """Move the network to a minimum; sets n_iter_, loss_ and converged_ of the estimator."""
    from scipy import optimize

    est = estimator
    with (
        net.ops.on_device(),
        memory.explain_oom(net.shape, net.ops, samples.rows),
        blas_threads.limit_blas_threads(net.shape, samples.rows),
    ):
        function = _Function(est, net, samples, loss, weight)
        result = optimize.minimize(
            function,
            function.start(),
            method="L-BFGS-B",
            jac=True,
            callback=_Report() if est.verbose else None,
            options={"maxfun": est.max_fun, "maxiter": est.max_iter, "gtol": est.tol},
        )
        function.place(result.x)
    est.n_iter_ = min(result.nit, est.max_iter)
    est.loss_ = float(result.fun)
    est.converged_ = result.status == 0
    if not np.isfinite(result.x).all() or not np.isfinite(result.fun):
        raise ValueError(
            "Solver produced non-finite parameter weights: the loss became NaN or infinite; scale "
            "the data"
        )
    if result.status != 0:
        more = "; raise max_iter" if est.n_iter_ == est.max_iter else ""
        warn(
            f"lbfgs has not converged within {est.n_iter_} iterations ({result.message}){more}, or "
            "scale the data",
            ConvergenceWarning,
        )


def _packed_places(layout) -> np.ndarray:
    """The places in theta of all weights, biases and slopes, in this order; not of the padding."""
    places = Parameters(layout, np.arange(layout.size)[None])
    weights = [W[0].T.ravel() for W in places.W[1:]]
    biases = [b[0] for b in places.b[1:]]
    return np.concatenate([*weights, *biases, *(s for s in places.slope[1:] if s is not None)])


class _Report:
    """Prints a line for each iteration."""

    def __init__(self):
        self._done = 0

    def __call__(self, intermediate_result):
        self._done += 1
        print(f"Iteration {self._done}, loss = {intermediate_result.fun:.8f}")


class _Function:
    """Computes loss and gradient of packed parameters, in float64 on the host.

    They are packed as scikit-learn packs them, (fan_in, fan_out) weights first: the minimiser's
    sums over all parameters then round as its sums do.
    """

    def __init__(self, est, net, samples, loss, weight):
        self._net, self._alpha = net, est.alpha
        self._objective = Objective(net, loss, "sum")
        self._rows = self._sent(samples._replace(weight=weight))
        count = samples.rows
        self._total = float(count if weight is None else weight.sum())
        # Where the reported squared error is ½ / outputs (ŷ - y)², its δ is still ŷ - y.
        self._data_scale = 2 * loss.parameters.get("factor", 0.5)
        self._places = _packed_places(net.layout)
        self._decayed = sum(out * into for into, out in pairwise(net.sizes))
        self._grad = Gradient.zeros(net.network)
        per_row = workspace.size(net.shape, min(count, 1024), "step") / min(count, 1024)
        self._chunk = max(1, int(CHUNK_BYTES / per_row))

    def start(self) -> np.ndarray:
        """The network's parameters, packed."""
        theta = self._net.ops.to_host(self._net.parameters.buffer)[0]
        return theta[self._places].astype(np.float64)

    def place(self, packed):
        """Write packed parameters into the network."""
        net = self._net
        theta = np.zeros(net.layout.size, net.dtype)
        theta[self._places] = packed
        net.parameters.buffer[0, :] = net.ops.to_device(theta)

    def __call__(self, packed):
        net = self._net
        self.place(packed)
        value, gradient = 0.0, np.zeros(len(packed))
        for start in range(0, self._rows.count, self._chunk):
            batch = self._batch(start, min(start + self._chunk, self._rows.count))
            ws = net.network.workspaces.get(batch.x.shape[1], "step")
            noise = [None] * (net.K + 1)
            propagate.loss_and_backward(net.network, ws, batch, self._objective, self._grad, noise)
            value += float(net.ops.to_host(ws.loss)[0])
            gradient += net.ops.to_host(self._grad.buffer)[0, self._places]
        W = packed[: self._decayed]
        gradient *= self._data_scale
        gradient[: self._decayed] += self._alpha * W
        gradient /= self._total
        return value / self._total + 0.5 * self._alpha * (W @ W) / self._total, gradient

    def _sent(self, samples) -> Rows:
        """Send the samples to the device."""
        X, _, y, weight = samples
        if not arrays.is_sparse(X):  # whose rows are kept in the network's dtype
            X = X.astype(self._net.dtype, copy=False)
        data = read(self._net, self._objective, X, y, weight)
        return Rows.send(self._net, data, X.shape[0])

    def _batch(self, start: int, stop: int) -> Batch:
        data, xp, net = self._rows.data, self._net.ops.xp, self._net
        x, part = arrays.some_rows(data.x, start, stop), slice(start, stop)
        w = data.weight
        w = xp.ones((1, x.shape[1]), net.dtype) if w is None else w[:, part]
        return Batch(
            x,
            None if data.labels is None else data.labels[:, part],
            None if data.dense is None else data.dense[:, part],
            w,
            xp.ones(1, net.dtype) * w.sum(axis=1),
        )
