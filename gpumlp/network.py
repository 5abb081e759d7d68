"""The network: sizes, activations, parameters, and what can be asked of it without training."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np

from gpumlp import (
    activation,
    arrays,
    backend,
    checks,
    initializer,
    memory,
    propagate,
    threads,
    workspace,
)
from gpumlp import device as devices
from gpumlp.backend import Batch, Data, Noise, pool
from gpumlp.blocks import Blocks, shared
from gpumlp.objective import Objective
from gpumlp.parameters import Layout, Named, Parameters
from gpumlp.repeated import Repeated
from gpumlp.slices import Slices
from gpumlp.workspace import Workspaces

# Predictions run in chunks whose buffers stay about this large.
CHUNK_BYTES = 64 << 20

NO_NOISE: Any = None

PRECISIONS = ("float32", "tf32", "bf16")


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
    precision: of the matrix products on a GPU, for dtype float32: "float32"; "tf32", factors may be
             rounded to 10 bits of mantissa, which cuBLAS does where tensor cores serve and leaves
             in small or unaligned products; "bf16", x, W, z, n and δ stored with 7 bits, which
             halves their bytes too.  Sums, the weights themselves, the last layer's z and ŷ, the
             gradients and the update are float32 in all three.  The CPU computes in float32.
    tune:    time cuBLASLt's algorithms for every new shape of product on a GPU, and keep the
             fastest for later runs, in the user's cache; else its own first choice, which is the
             same in every run.

    sizes, K, models, dtype, device, seed, precision are attributes, and the parameters, as writable
    views: W[k] ([M,] N_k, N_{k-1}), b[k] ([M,] N_k), slope[k] for a learned slope (PReLU),
    k = 1..K; slot 0 is None.  theta ([M,] P) is the one buffer that holds them all.

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
        precision: str = "float32",
        tune: bool = False,
    ):
        self.sizes = _checked_sizes(sizes)
        self.K = len(self.sizes) - 1
        self.models = checks.number(models, "models", checks.COUNT, none=True)
        self.dtype = _checked_dtype(dtype)
        self.f = [None, *_checked_activations(hidden, output, self.K)]
        self.precision = _checked_precision(precision, self.dtype)
        self.tune = checks.flag(tune, "tune")
        self.seed = seed
        self.init = init
        self.dropout = dropout
        self.metadata: dict = {}
        self.device = devices.resolve(device)
        for f in self.f[1:]:
            if f.cuda is None and self.device != "cpu":
                raise ValueError(
                    f"activation {f.name!r} has no CUDA side: give cuda=(f, f'), an expression in "
                    "z, p[i] and one in z, n, p[i], or use device='cpu'"
                )
        self.ops = backend.get(self.device, self.precision, self.tune)
        # What x, z, n and δ are stored as between two products; bf16 as its bits.
        narrow = self.precision == "bf16" and self.device != "cpu"
        self.stored = np.dtype(np.uint16) if narrow else self.dtype
        learned = tuple(k for k in range(1, self.K + 1) if self.f[k].learned)
        self.layout = Layout(self.sizes, learned, self.dtype.itemsize)
        draw = initializer.find(init)
        with self.ops.on_device(), memory.explained(self):
            memory.check(self)
            thresholds = _dropout_thresholds(dropout, self.K, self.models_count)
            self._place(self._initial_theta(draw), thresholds)

    def _place(self, theta, thresholds):
        """The parameters and constants on the device."""
        xp = self.ops.xp
        self.parameters = self.operands = Parameters(self.layout, self.ops.to_device(theta))
        if self.stored != self.dtype:
            # A copy as the products take it, made anew in every pass: users may write to theta.
            self.operands = Parameters(self.layout, xp.empty(theta.shape, self.stored))
        self.thresholds = [None if t is None else xp.asarray(t) for t in thresholds]
        self.p = [None]
        for f in self.f[1:]:
            constants = np.zeros((1, 2), self.dtype)
            with np.errstate(over="ignore"):
                constants[0, : len(f.p)] = f.p
            if not np.isfinite(constants).all():
                raise ValueError(f"activation {f!r}: its constants are not finite in {self.dtype}")
            self.p.append(xp.asarray(constants))
        self._see_slopes()
        self.workspaces = Workspaces(self)
        self.blocks, self.slices = Blocks(), Slices()
        self._passes = Repeated(self.ops)  # of `forward`, behind the first product
        self._first = None  # 0, 1, 2, ...: rows as they stand
        self._nothing_done = xp.zeros(self.models_count, np.int64)

    def _see_slopes(self):
        """p[k] of a learned slope is a view (M, 2) of the parameters: itself, and padding."""
        starts = {k: part.start for k, part in self.layout.slope.items()}
        buffer = self.parameters.buffer
        self.p = [
            buffer[:, starts[k] : starts[k] + 2] if k in starts else p for k, p in enumerate(self.p)
        ]

    def __setstate__(self, state):
        """Of a copy or a pickle, whose arrays are its own."""
        vars(self).update(state)
        where = arrays.device_of(self.parameters.buffer)
        if where != self.device:  # CuPy unpickles to the current device
            raise RuntimeError(
                f"a network on {self.device} was unpickled to {where}: make {self.device} the "
                "current device of CuPy first"
            )
        self._see_slopes()

    def _initial_theta(self, draw) -> np.ndarray:
        theta = np.zeros((self.models_count, self.layout.size), self.dtype)
        on_host = Parameters(self.layout, theta)
        for m, seed in enumerate(initializer.seeds(self.seed, self.models_count)):
            rng = initializer.generator(seed)
            for k in range(1, self.K + 1):
                on_host.W[k][m] = initializer.drawn(draw, rng, k, on_host.W[k][m].shape, self.dtype)
                if on_host.slope[k] is not None:
                    on_host.slope[k][m] = self.f[k].p[0]
        return theta

    # ------------------------------------------------------------ what it is
    @property
    def models_count(self) -> int:
        """M; 1 for a single network."""
        return 1 if self.models is None else self.models

    @property
    def _named(self) -> Named:
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
    def slope(self):
        return self._named.slope

    @property
    def count(self) -> int:
        """The number of parameters of one network."""
        return self.layout.count

    def __repr__(self):
        stack = f", models={self.models}" if self.models else ""
        sizes = "-".join(map(str, self.sizes))
        return f"<MLP {sizes}{stack}, {self.count:,} parameters, {self.dtype}, {self.device}>"

    def summary(self) -> str:
        """Layers, shapes, activations and parameters, as a table."""
        rows = [("layer", "shape", "activation", "dropout", "parameters")]
        drop = _per_layer(self.dropout, self.K)
        for k in range(1, self.K + 1):
            N, fan_in = self.sizes[k], self.sizes[k - 1]
            count = N * fan_in + N + int(self.f[k].learned)
            rate = "" if k == self.K or not np.any(drop[k]) else f"{np.mean(drop[k]):g}"
            rows.append((f"{k}", f"{fan_in} -> {N}", repr(self.f[k]), rate, f"{count:,}"))
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
        models, rows = self.models_count, given.array.shape[1]
        out_bytes = models * rows * self.sizes[-1] * self.dtype.itemsize
        with (
            self.ops.on_device(),
            memory.explained(self, min(rows, self.chunk_rows), 0, out_bytes, purpose="predict"),
            threads.limited(self, min(rows, self.chunk_rows)),
        ):
            memory.check_total(None if given.on_host else self.ops, out_bytes)
            arrays.check_features(given, "x", self)
            xp = np if given.on_host else self.ops.xp
            out = xp.empty((models, rows, self.sizes[-1]), self.dtype)
            blocks = self.blocks.get(self, min(rows, self.chunk_rows))

            def predict(start, stop):
                x = arrays.settle(given.array[:, start:stop], self)

                def work(i):
                    members, net = blocks[i]
                    n = net._predict(shared(x, members))
                    out[members, start:stop] = self.ops.to_host(n) if given.on_host else n

                pool.run(work, len(blocks))

            memory.in_chunks(rows, self.chunk_rows, predict)
        return out if self.models is not None else out[0]

    def _predict(self, x):
        """n^(K) (M, B, N_K) of x (1 or M, B, N_0) on the device; a buffer that is used again."""
        rows, noise = x.shape[1], [NO_NOISE] * (self.K + 1)
        ws = self.workspaces.get(rows, "predict")
        # The first product reads x where it lies; all that follows is on buffers of our own.
        propagate.enter(self, ws, x)
        self._passes.run("predict", lambda: propagate.go_on(self, ws, noise, last=self.K), ws)
        return ws.n[self.K]

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk in prediction, where memory is not short."""
        row_bytes = self.models_count * 2 * max(self.sizes) * self.dtype.itemsize
        return max(1, min(1 << 16, CHUNK_BYTES // row_bytes))

    def loss_and_grad(self, x, y, loss="cross_entropy", sample_weight=None, reduction="mean"):
        """The loss of a batch and its gradient by every parameter, (7)-(13), without dropout.

        Returns value, a number ([M] of them), and grad, with grad.W[k], grad.b[k], grad.slope[k]
        and grad.theta, on the side that x was on.  The mean over samples is weighted:
        sum_i w_i L_i / sum_i w_i; reduction="sum" gives sum_i w_i L_i.
        """
        given = arrays.features(x, "x", self, finite=False)
        objective = Objective(self, loss, reduction)
        rows, data_bytes = given.array.shape[1], memory.size_of(x, y)
        copied = memory.copied(given.array, self.dtype, self.ops)
        with (
            self.ops.on_device(),
            memory.explained(self, rows, 0, data_bytes, purpose="step"),
            threads.limited(self, rows),
        ):
            memory.check_total(self.ops, copied + workspace.least(self, rows))
            arrays.check_features(given, "x", self)
            xp = self.ops.xp
            batch = self.batch(given.array, y, objective, sample_weight)
            grad = Parameters(self.layout, xp.zeros_like(self.parameters.buffer))
            ws = self.workspaces.get(batch.w.shape[1], "step")
            noise = [NO_NOISE] * (self.K + 1)
            propagate.loss_and_backward(self, ws, batch, objective, grad, noise)
            value = ws.loss.copy()
            if given.on_host:
                value = self.ops.to_host(value)
                grad = Parameters(self.layout, self.ops.to_host(grad.buffer))
        stacked = self.models is not None
        return (value if stacked else value[0]), grad.public(stacked)

    def batch(self, x, y, objective, sample_weight=None, values: bool = True) -> Batch:
        """A minibatch from checked features x (1 or M, B, N_0) and whatever y was given.

        values: check also the values of arrays on the device, which has to wait for it.
        """
        xp, rows, models = self.ops.xp, x.shape[1], self.models_count
        y = arrays.targets(y, "y", self, objective.loss, rows, values or not arrays.is_on_gpu(y))
        values = values or not arrays.is_on_gpu(sample_weight)
        weight = arrays.weights(sample_weight, "sample_weight", self, rows, values)
        if weight is None:
            w, w_sum = self._ones(rows)
        else:
            w = arrays.settle(weight, self)
            w_sum = xp.empty(models, self.dtype)
            w_sum[...] = w.sum(axis=1)
        return Batch(
            arrays.settle(x, self),
            arrays.settle(y.labels, self, np.int32),
            arrays.settle(y.dense, self),
            w,
            w_sum,
        )

    def values(self, array):
        """What x, z, n or δ of a workspace hold, in the network's dtype."""
        if array.dtype == self.dtype:
            return array
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)

    def stage(self, batch: Batch, ws) -> Batch:
        """A copy of the batch in the workspace's buffers, whose addresses captured steps know."""
        data = Data(arrays.aligned(batch.x), batch.labels, batch.dense, batch.w)
        staged, rows = ws.batch(data), batch.x.shape[1]
        if self._first is None or self._first.shape[1] < rows:
            self._first = self.ops.xp.arange(rows, dtype=np.int32)[None]
        self.ops.gather(data, self._first, self._nothing_done, rows, staged)
        return staged

    def _ones(self, rows: int):
        """Weights of 1 and their sum, kept for the next batch of as many rows."""
        held = getattr(self, "_unit", None)
        if held is None or held[0].shape[1] != rows:
            xp = self.ops.xp
            held = xp.ones((1, rows), self.dtype), xp.full(self.models_count, rows, self.dtype)
            self._unit = held
        return held

    def noise(self, seeds, step) -> list:
        """For each layer the randomness of a training step: Philox keys (M,), step numbers (M,)."""
        return [
            Noise(seeds, step, k, self.thresholds[k])
            if self.thresholds[k] is not None or (k and self.f[k].random)
            else NO_NOISE
            for k in range(self.K + 1)
        ]

    def like(self, **changes) -> MLP:
        """A network with these arguments changed, and the same parameters."""
        arguments = {
            "hidden": self.f[1 : self.K],
            "output": self.f[self.K],
            "models": self.models,
            "dtype": self.dtype,
            "device": self.device,
            "init": "zeros",
            "seed": self.seed,
            "dropout": self.dropout,
            "precision": "float32" if "dtype" in changes else self.precision,
            "tune": self.tune,
        } | changes
        other = MLP(self.sizes, **arguments)
        other.init = self.init
        other.metadata = copy.deepcopy(self.metadata)
        on_host = Parameters(self.layout, self.ops.to_host(self.parameters.buffer))
        with other.ops.on_device():
            for mine, its in zip(on_host.all(), other.parameters.all(), strict=True):
                its[...] = other.ops.to_device(mine)
        return other


def _checked_dtype(dtype) -> np.dtype:
    try:
        real = None if dtype is None else np.dtype(dtype)
    except TypeError:
        real = None
    if real not in (np.float32, np.float64):
        raise checks.ParameterError(f"dtype = {checks.shown(dtype)} must be 'float32' or 'float64'")
    return real


def _checked_precision(precision, dtype) -> str:
    checks.choice(precision, "precision", PRECISIONS)
    if precision != "float32" and dtype != np.float32:
        raise ValueError(f'precision = {precision!r} is for dtype="float32", not {dtype}')
    return precision


def _checked_sizes(sizes) -> tuple[int, ...]:
    widths = checks.items(sizes) or []
    if len(widths) < 2:
        wanted = "N_0, ..., N_K, two numbers or more, such as (784, 256, 10)"
        raise checks.ParameterError(f"sizes = {checks.shown(sizes)} must be {wanted}")
    return tuple(checks.number(N, f"sizes[{k}]", checks.COUNT) for k, N in enumerate(widths))


def _checked_activations(hidden, output, K) -> list:
    several = checks.items(hidden)
    names = [hidden] * (K - 1) if several is None else several
    functions = [activation.find(f, "hidden") for f in names]
    if len(functions) != K - 1:
        raise ValueError(
            f"hidden = {checks.shown(functions)} has {len(functions)} activations for {K - 1} "
            "hidden layers"
        )
    if several is None:
        activation.find(hidden, "hidden")  # also where there is no hidden layer
    for f in functions:
        if f.rows:
            raise ValueError(f"hidden = {f.name!r} acts on whole rows; it can only be the output")
    return [*functions, activation.find(output, "output")]


def _per_layer(dropout, K) -> list:
    """The dropout of layers 0..K; 0 at the input and the output."""
    if not isinstance(dropout, list | tuple) and np.ndim(dropout) == 0:
        dropout = [dropout] * (K - 1)
    if len(dropout) != K - 1:
        raise ValueError(
            f"dropout = {checks.shown(dropout)} has {len(dropout)} rates for {K - 1} hidden layers"
        )
    return [0.0, *dropout, 0.0]


def _dropout_thresholds(dropout, K, models) -> list:
    """For each layer the 32-bit numbers (M,) below which a unit is dropped, or None."""
    thresholds: list = []
    for rate in _per_layer(dropout, K):
        rates = checks.per_network(rate, "dropout", checks.FRACTION, models)
        bits = np.broadcast_to(np.minimum(np.rint(rates * 2**32), 2**32 - 1), (models,))
        thresholds.append(bits.astype(np.uint32) if rates.any() else None)
    return thresholds
