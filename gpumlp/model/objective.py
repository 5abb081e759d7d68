"""The objective of a network: a loss for its output activation, and how targets are read."""

from __future__ import annotations

import numpy as np

from gpumlp.backend.contract import Targets
from gpumlp.functions import loss as losses
from gpumlp.utils import checks


class Objective:
    """Evaluates the loss of a network for `propagate`, as a mean or a sum over samples.

    Raises ValueError where loss and output, or the device, do not go together.
    """

    def __init__(self, net, loss, reduction: str = "mean"):
        checks.choice(reduction, "reduction", ("mean", "sum"))
        self.loss = losses.find(loss)
        self.mean = reduction == "mean"
        outputs = net.sizes[-1]
        if self.loss.name in ("cross_entropy", "kl_divergence", "focal") and outputs == 1:
            if not (self.loss.name == "focal" and net.f[net.K].name == "sigmoid"):
                raise ValueError(
                    f"loss = {self.loss.name!r} compares classes and needs an output for each; "
                    'for a single output use loss="binary_cross_entropy" with output="sigmoid"'
                )
        self.pair = losses.pair(self.loss, net.f[net.K])
        if net.device != "cpu" and self.pair.form.cuda is None:
            raise ValueError(
                f"loss {self.loss.name!r} has no CUDA side: give its form cuda=(l, dl), two "
                "expressions in u, y and p[i], or use device='cpu'"
            )
        for f in net.f[1:]:
            if f.df is None and not f.rows:
                raise ValueError(f"activation = {f.name!r} has no df, which training needs")
        self.scale, self.shift = self.loss.target_scale(outputs)
        self._output = net.f[net.K]
        with np.errstate(over="ignore"):
            constants = np.array([[*self.loss.p, 0.0, 0.0]], dtype=net.dtype)
        if not np.isfinite(constants).all():
            raise ValueError(f"loss = {self.loss!r}: its constants are not finite in {net.dtype}")
        with net.ops.on_device():
            self.p = net.ops.xp.asarray(constants)

    def __getstate__(self):
        return vars(self) | {"pair": None}  # the functions in it cannot be pickled

    def __setstate__(self, state):
        vars(self).update(state)
        self.pair = losses.pair(self.loss, self._output)

    def evaluate(self, net, ws, batch, delta):
        """ws.loss (M,) <- the loss of each network; delta <- its derivative, unless None."""
        K, fused = net.K, self.pair.fused
        net.ops.loss(
            self.pair,
            ws.z[K] if fused else ws.n[K],
            net.parameters.b[K] if fused else None,
            Targets(batch.labels, batch.dense, self.scale, self.shift),
            batch.w,
            batch.w_sum,
            self.mean,
            self.p,
            delta,
            ws.loss,
        )
