"""The network: sizes, activations, parameters, and what can be asked of it without training."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np

from gpumlp import backend
from gpumlp.backend import device as devices
from gpumlp.backend.contract import Batch
from gpumlp.backend.cpu import pool
from gpumlp.functions import initializer
from gpumlp.model import arguments, arrays, blas_threads, memory, propagate, workspace
from gpumlp.model.blocks import shared
from gpumlp.model.network import Network
from gpumlp.model.objective import Objective
from gpumlp.model.parameters import Parameters, ParameterViews, products
from gpumlp.model.shape import NetworkShape
from gpumlp.utils import checks


class MLP:
    """A multilayer perceptron, or M of one shape: n^(k) = f^(k)(W^(k) n^(k-1) + b^(k)).

    sizes:   N_0, N_1, ..., N_K: features, hidden units, outputs.
    hidden:  the hidden layers' activation, a name or an `Activation`, or one for each of them.
    output:  the output's activation.
    models:  None for one network; M for a stack, which adds a leading axis to every array.
    dtype:   "float32" or "float64".
    device:  "auto", "cpu", "cuda", "cuda:1"; the environment variable GPUMLP_DEVICE says what
             "auto" means.  A network keeps its device.
    init:    a name of `gpumlp.initializers`, or a function draw(rng, fan_out, fan_in).
    seed:    of the initial weights; network m of a stack has seed + m, or give M of them.
    dropout: the probability with which a hidden unit is dropped in training: a number, or one for
             each hidden layer; each may be one per network, (M,).
    scale:   whether a layer's inputs have a learned scale s^(k), initially 1, in front of the
             weights: z = V (s * n) + b = W n + b with W = V diag(s).  True or False for all, or one
             for each of the K layers.  Penalties and weight decay act on V only.
    precision: of the matrix products on a GPU, for dtype float32: "float32"; "tf32", factors may be
             rounded to 10 bits of mantissa, which cuBLAS does where tensor cores serve and leaves
             in small or unaligned products; "bf16", x, W, z, n and δ stored with 7 bits, which
             halves their bytes too.  Sums, the weights themselves, the last layer's z and ŷ, the
             gradients and the update are float32 in all three.  The CPU computes in float32.
    tune:    time cuBLASLt's algorithms for every new shape of product on a GPU, and keep the
             fastest for later runs, in the user's cache; else its own first choice, which is the
             same in every run.

    sizes, K, models, dtype, device, seed, precision are attributes, and the parameters, as writable
    views: W[k] ([M,] N_k, N_{k-1}), which is V of a layer with a scale, b[k] ([M,] N_k), s[k]
    ([M,] N_{k-1}) for a scale, slope[k] for a learned slope (PReLU), k = 1..K; slot 0 is None.
    theta ([M,] P) is the one buffer that holds them all.

    copy.deepcopy and pickle make networks, and trainers, of their own; a pickle of one on a GPU is
    read with that GPU as CuPy's current device.

    Raises ValueError for arguments that make no network, RuntimeError for a device that is not
    there, MemoryError, with the bytes predicted, where it does not fit.
    """

    def __init__(
        self,
        sizes: Iterable[int],
        hidden: Any = "relu",
        output: Any = "softmax",
        *,
        models: int | None = None,
        dtype: Any = "float32",
        device: str = "auto",
        init: Any = "glorot_uniform",
        seed: Any = 0,
        dropout: Any = 0.0,
        scale: Any = False,
        precision: str = "float32",
        tune: bool = False,
    ):
        sizes = arguments.sizes_of(sizes)
        K = len(sizes) - 1
        self.models = checks.number(models, "models", checks.COUNT, none=True)
        real = arguments.dtype_of(dtype)
        f = [None, *arguments.activations_of(hidden, output, K)]
        precision = arguments.precision_of(precision, real)
        self.tune = checks.flag(tune, "tune")
        self.seed = seed
        self.init = init
        self._dropout = dropout
        self.metadata: dict = {}
        where = devices.resolve(device)
        for function in f[1:]:
            if function.cuda is None and where != "cpu":
                raise ValueError(
                    f"activation {function.name!r} has no CUDA side: give cuda=(f, f'), an "
                    "expression in z, p[i] and one in z, n, p[i], or use device='cpu'"
                )
        M = 1 if self.models is None else self.models
        rates = arguments.dropout_rates(dropout, K, M)
        drops = tuple(bool(rate.any()) for rate in rates)
        scaled = arguments.scaled_of(scale, K)
        self.shape = NetworkShape(sizes, tuple(f), M, real, where, precision, drops, scaled)
        draw = initializer.find(init)
        ops = backend.get(where, precision, self.tune)
        with ops.on_device(), memory.explain_oom(self.shape, ops):
            memory.check(self.shape, ops)
            thresholds = [arguments.threshold(rate, M) if rate.any() else None for rate in rates]
            self.network = self._placed(ops, self._initial_theta(draw), thresholds)

    def _placed(self, ops, theta, thresholds) -> Network:
        """The parameters and constants on the device."""
        shape, constants = self.shape, [None]
        for f in filter(None, shape.f):
            numbers = np.zeros((1, 2), shape.dtype)
            with np.errstate(over="ignore"):
                numbers[0, : len(f.p)] = f.p
            if not np.isfinite(numbers).all():
                raise ValueError(f"activation {f!r}: its constants are not finite in {shape.dtype}")
            constants.append(ops.xp.asarray(numbers))
        sent = [None if bits is None else ops.xp.asarray(bits) for bits in thresholds]
        parameters = Parameters(shape.layout, ops.to_device(theta))
        return Network(shape, ops, parameters, sent, constants)

    @property
    def dropout(self):
        """The rates of the hidden layers.  Others can be set, also while a network is trained, for
        the layers that had one when the network was made; a single network's 0 turns it off."""
        return self._dropout

    @dropout.setter
    def dropout(self, dropout):
        rates = arguments.dropout_rates(dropout, self.K, self.M)
        for k, (rate, threshold) in enumerate(zip(rates, self.network.thresholds, strict=True)):
            if threshold is None and rate.any():
                raise ValueError(f"dropout = {checks.shown(dropout)}: layer {k} was made without")
        with self.ops.on_device():
            for rate, threshold in zip(rates, self.network.thresholds, strict=True):
                if threshold is not None:
                    threshold[...] = self.ops.to_device(arguments.threshold(rate, self.M))
        vars(self.network).pop("dropout_table", None)
        self._dropout = dropout

    def __setstate__(self, state):
        """Of a copy or a pickle, whose arrays are its own."""
        vars(self).update(state)
        where = arrays.device_of(self.network.parameters.buffer)
        if where != self.device:  # CuPy unpickles to the current device
            raise RuntimeError(
                f"a network on {self.device} was unpickled to {where}: make {self.device} the "
                "current device of CuPy first"
            )

    def _initial_theta(self, draw) -> np.ndarray:
        layout = self.shape.layout
        theta = np.zeros((self.M, layout.size), self.dtype)
        on_host = Parameters(layout, theta)
        for m, seed in enumerate(initializer.seeds(self.seed, self.M)):
            rng = initializer.generator(seed)
            for k in range(1, self.K + 1):
                on_host.W[k][m] = initializer.drawn(draw, rng, k, on_host.W[k][m].shape, self.dtype)
                if on_host.s[k] is not None:
                    on_host.s[k][m] = 1
                if on_host.slope[k] is not None:
                    on_host.slope[k][m] = self.f[k].p[0]
        return theta

    # ------------------------------------------------------------ what it is
    @property
    def M(self) -> int:
        """The number of networks; 1 for a single one."""
        return self.shape.M

    @property
    def K(self) -> int:
        return self.shape.K

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.shape.sizes

    @property
    def f(self) -> tuple:
        """f[k], the activation of layer k; f[0] is None."""
        return self.shape.f

    @property
    def layers(self) -> tuple:
        """layers[k], a `Layer`; layers[0] is None."""
        return self.shape.layers

    @property
    def dtype(self) -> np.dtype:
        return self.shape.dtype

    @property
    def device(self) -> str:
        return self.shape.device

    @property
    def precision(self) -> str:
        return self.shape.precision

    @property
    def ops(self):
        """The operations on its device."""
        return self.network.ops

    @property
    def layout(self):
        return self.shape.layout

    @property
    def parameters(self) -> Parameters:
        return self.network.parameters

    @property
    def _named(self) -> ParameterViews:
        return self.parameters.public(stacked=self.models is not None)

    @property
    def theta(self):
        return self._named.theta

    @property
    def W(self):
        return self._named.W

    @property
    def b(self):
        return self._named.b

    @property
    def s(self):
        return self._named.s

    @property
    def slope(self):
        return self._named.slope

    @property
    def count(self) -> int:
        """The number of parameters of one network."""
        return self.shape.layout.count

    def __repr__(self):
        stack = f", models={self.models}" if self.models else ""
        sizes = "-".join(map(str, self.sizes))
        return f"<MLP {sizes}{stack}, {self.count:,} parameters, {self.dtype}, {self.device}>"

    def summary(self) -> str:
        """Layers, shapes, activations and parameters, as a table."""
        rows = [("layer", "shape", "activation", "dropout", "parameters")]
        for layer, rate in zip(self.layers, arguments.per_layer(self.dropout, self.K), strict=True):
            if layer is not None:
                shape = f"{layer.inputs} -> {layer.outputs}"
                dropped = f"{np.mean(rate):g}" if np.any(rate) else ""
                rows.append((f"{layer.k}", shape, repr(layer.f), dropped, f"{layer.count:,}"))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [
            "  ".join(
                cell.rjust(width) if i == 4 else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        stack = f"{self.models} networks of " if self.models else ""
        lines.append(f"{stack}{self.count:,} parameters, {self.dtype}, on {self.device}")
        return "\n".join(lines)

    # ------------------------------------------------------------ what can be asked
    def forward(self, x):
        """ŷ = n^(K), ([M,] B, N_K), on the side that x was on.

        x: (B, N_0), or for a stack also (M, B, N_0).
        """
        given = arrays.features(x, "x", self, finite=False)
        net, rows = self.network, given.array.shape[1]
        chunk = min(rows, self.shape.chunk_rows)
        out_bytes = self.M * rows * self.sizes[-1] * self.dtype.itemsize
        with (
            self.ops.on_device(),
            memory.explain_oom(self.shape, self.ops, chunk, 0, out_bytes, "predict"),
            blas_threads.limit_blas_threads(self.shape, chunk),
        ):
            memory.check_total(None if given.on_host else self.ops, out_bytes)
            arrays.check_features(given, "x", self)
            xp = np if given.on_host else self.ops.xp
            out = xp.empty((self.M, rows, self.sizes[-1]), self.dtype)
            blocks = net.blocks.get(net, chunk)

            def predict(start, stop):
                x = arrays.to_device(given.array[:, start:stop], self)

                def work(i):
                    members, part = blocks[i]
                    n = propagate.predict(part, shared(x, members))
                    out[members, start:stop] = self.ops.to_host(n) if given.on_host else n

                pool.run(work, len(blocks))

            memory.in_chunks(rows, chunk, predict)
        return out if self.models is not None else out[0]

    def loss_and_grad(self, x, y, loss="cross_entropy", sample_weight=None, reduction="mean"):
        """The loss of a batch and its gradient by every parameter, (7)-(13), without dropout.

        Returns value, a number ([M] of them), and grad, with grad.W[k], grad.b[k], grad.s[k],
        grad.slope[k] and grad.theta, on the side that x was on.  The mean over samples is weighted:
        sum_i w_i L_i / sum_i w_i; reduction="sum" gives sum_i w_i L_i.
        """
        given = arrays.features(x, "x", self, finite=False)
        objective = Objective(self, loss, reduction)
        net, rows, data_bytes = self.network, given.array.shape[1], memory.size_of(x, y)
        copied = memory.copied(given.array, self.dtype, self.ops)
        with (
            self.ops.on_device(),
            memory.explain_oom(self.shape, self.ops, rows, 0, data_bytes, "step"),
            blas_threads.limit_blas_threads(self.shape, rows),
        ):
            memory.check_total(self.ops, copied + workspace.least(self.shape, rows))
            arrays.check_features(given, "x", self)
            xp = self.ops.xp
            batch = self.batch(given.array, y, objective, sample_weight)
            grad = Parameters(self.shape.layout, xp.zeros_like(self.parameters.buffer))
            ws = net.workspaces.get(batch.w.shape[1], "step")
            noise = [None] * (self.K + 1)
            propagate.loss_and_backward(net, ws, batch, objective, grad, noise)
            value = ws.loss.copy()
            if given.on_host:
                value = self.ops.to_host(value)
                grad = Parameters(self.shape.layout, self.ops.to_host(grad.buffer))
        stacked = self.models is not None
        return (value if stacked else value[0]), grad.public(stacked)

    def batch(self, x, y, objective, sample_weight=None, values: bool = True) -> Batch:
        """A minibatch from checked features x (1 or M, B, N_0) and whatever y was given.

        values: check also the values of arrays on the device, which has to wait for it.
        """
        xp, rows = self.ops.xp, x.shape[1]
        y = arrays.targets(y, "y", self, objective.loss, rows, values or not arrays.is_on_gpu(y))
        values = values or not arrays.is_on_gpu(sample_weight)
        weight = arrays.weights(sample_weight, "sample_weight", self, rows, values)
        if weight is None:
            w, w_sum = self.network.ones(rows)
        else:
            w = arrays.to_device(weight, self)
            w_sum = xp.empty(self.M, self.dtype)
            w_sum[...] = w.sum(axis=1)
        return Batch(
            arrays.to_device(x, self),
            arrays.to_device(y.labels, self, np.int32),
            arrays.to_device(y.dense, self),
            w,
            w_sum,
        )

    def values(self, array):
        """What x, z, n or δ of a workspace hold, in the network's dtype."""
        if array.dtype == self.dtype:
            return array
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)

    def like(self, **changes) -> MLP:
        """A network with these arguments changed, and the same parameters.

        A layer that loses its scale has W = V diag(s) for its weights.
        """
        options = {
            "hidden": list(self.f[1 : self.K]),
            "output": self.f[self.K],
            "models": self.models,
            "dtype": self.dtype,
            "device": self.device,
            "init": "zeros",
            "seed": self.seed,
            "dropout": self.dropout,
            "scale": list(self.shape.scaled[1:]) or False,
            "precision": "float32" if "dtype" in changes else self.precision,
            "tune": self.tune,
        } | changes
        other = MLP(self.sizes, **options)
        other.init = self.init
        other.metadata = copy.deepcopy(self.metadata)
        views = Parameters(self.shape.layout, self.ops.to_host(self.parameters.buffer))
        W, scaled = products(views), other.layout.s
        values = [
            *(views.W[k] if k in scaled else W[k] for k in range(1, self.K + 1)),
            *views.b[1:],
            *(np.ones_like(W[k][:, 0]) if views.s[k] is None else views.s[k] for k in scaled),
            *(slope for slope in views.slope if slope is not None),
        ]
        with other.ops.on_device():
            for target, value in zip(other.parameters.all(), values, strict=True):
                target[...] = other.ops.to_device(value)
        return other
