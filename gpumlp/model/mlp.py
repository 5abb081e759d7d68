"""The network: sizes, activations, parameters, and what can be asked of it without training."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp import backend
from gpumlp.backend import device as devices
from gpumlp.backend.contract import Batch
from gpumlp.backend.cpu import blas, pool
from gpumlp.backend.sparse_rows import SparseRows
from gpumlp.functions import initializer
from gpumlp.model import arguments, arrays, blas_threads, memory, propagate, workspace
from gpumlp.model.blocks import shared
from gpumlp.model.network import Network
from gpumlp.model.objective import Objective
from gpumlp.model.parameters import Gradient, Parameters, ParameterViews, products
from gpumlp.model.shape import NetworkShape
from gpumlp.utils import checks

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from gpumlp.backend.contract import Ops
    from gpumlp.backend.layout import Layout
    from gpumlp.utils.aliases import ActivationLike, Array, Data, Draw, LossLike, PerNetwork


class MLP:
    """A multilayer perceptron computes n^(k) = f^(k)(W^(k) n^(k-1) + b^(k)); or M of one shape do.

    Its output for a sample x = n^(0) is ŷ = n^(K).  A stack of M networks computes and trains in
    the same passes; every array of its parameters then has a leading axis M.

    Parameters
    ----------
    sizes : sequence of int
        N_0, N_1, ..., N_K: features, hidden units, outputs.
    hidden : str, Activation, or a sequence of them, default "relu"
        The hidden layers' activation, a name of `gpumlp.activations` or an object, or one for each
        of the K - 1 hidden layers.
    output : str or Activation, default "softmax"
        The output's activation.
    models : int, optional
        None for one network; M for a stack.
    dtype : {"float32", "float64"}, default "float32"
        Of the parameters and of all that is computed.
    device : str, default "auto"
        "cpu", "cuda" (the first GPU), "cuda:1", ..., or "auto": what the environment variable
        GPUMLP_DEVICE says, else the first GPU that answers, else the CPU.  A network keeps its
        device.
    init : str or callable, default "glorot_uniform"
        The initial weights: a name of `gpumlp.initializers`, or a function
        draw(rng, fan_out, fan_in) -> (fan_out, fan_in).  Biases start at 0.
    seed : int or (M,) array of int, default 0
        Of the initial weights; of a number, network m of a stack has seed + m.
    dropout : float, or a sequence, default 0
        The probability in [0, 1) with which a hidden unit is dropped in training: a number, or one
        for each hidden layer; each of them may be one for each network, (M,).
    scale : bool or sequence of bool, default False
        Whether a layer's inputs have a learned scale s^(k), initially 1, in front of the weights:
        z = V (s * n) + b = W n + b with W = V diag(s).  One for all, or one for each of the K
        layers.  Penalties and weight decay act on V only.
    precision : {"float32", "tf32", "bf16"}, default "float32"
        Of the matrix products on a GPU, for dtype float32; the CPU computes in float32.  "tf32":
        factors may be rounded to 10 bits of mantissa, which cuBLAS does where tensor cores serve
        and leaves in small or unaligned products.  "bf16": x, W, z, n and δ are stored with 7 bits,
        which halves their bytes too.  Sums, the weights themselves, the last layer's z and ŷ, the
        gradients and the update are float32 in all three.
    tune : bool, default False
        Whether to time cuBLASLt's algorithms for every new shape of product on a GPU, and to keep
        the fastest for later runs, in the user's cache; else its own first choice is taken, which
        is the same in every run.
    sparse : bool, default False
        Whether x is sparse: a matrix of SciPy or cupyx, of which only the non-zeros take memory and
        time; dense rows are taken too, and lose their zeros.  W[1] then lies in memory as its
        transpose.  The first layer has no scale, and a stack's networks share x.

    Attributes
    ----------
    K, M : int
        The number of layers, and of networks (1 for a single one).
    sizes : tuple of int
        N_0, ..., N_K.
    models : int or None
        As given.
    dtype : numpy.dtype
    device : str
        "cpu", or "cuda:0", "cuda:1", ...
    W : list of (N_k, N_{k-1}) or (M, N_k, N_{k-1}) arrays
        W[k], k = 1..K, a writable view on the device; V of a layer with a scale.  W[0] is None.
    b : list of (N_k,) or (M, N_k) arrays
        b[k], likewise.
    s : list of (N_{k-1},) or (M, N_{k-1}) arrays
        s[k], the scale of layer k's inputs; None in layers without one.
    slope : list of 0-d or (M,) arrays
        slope[k], the learned slope of layer k's activation (PReLU); None in layers without one.
    theta : (P,) or (M, P) array
        The one buffer that holds all parameters.
    f, layers : tuple
        f[k], the `Activation` of layer k, and its `Layer`; None at k = 0.
    count : int
        The number of parameters of one network.
    metadata : dict
        Anything that JSON can hold; `save` writes it, and `load` gives it back.

    Raises
    ------
    ValueError
        For arguments that make no network.
    RuntimeError
        For a device that is not there.
    MemoryError
        Where the network does not fit, with the bytes that it would take.

    Notes
    -----
    copy.deepcopy and pickle make networks, and trainers, of their own; a pickle of one on a GPU is
    read with that GPU as CuPy's current device.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> net = gpumlp.MLP((4, 16, 3), hidden="tanh", device="cpu")
    >>> net.W[1].shape, net.b[1].shape
    ((16, 4), (16,))
    >>> net.forward(np.zeros((5, 4))).shape
    (5, 3)
    """

    def __init__(
        self,
        sizes: Iterable[int],
        hidden: ActivationLike | Sequence[ActivationLike] = "relu",
        output: ActivationLike = "softmax",
        *,
        models: int | None = None,
        dtype: DTypeLike = "float32",
        device: str = "auto",
        init: str | Draw = "glorot_uniform",
        seed: PerNetwork = 0,
        dropout: PerNetwork | Sequence[PerNetwork] = 0.0,
        scale: bool | Sequence[bool] = False,
        precision: str = "float32",
        tune: bool = False,
        sparse: bool = False,
    ) -> None:
        sizes = arguments.sizes_of(sizes)
        K = len(sizes) - 1
        self.models = checks.number(models, "models", checks.COUNT, none=True)
        real = arguments.dtype_of(dtype)
        f = [None, *arguments.activations_of(hidden, output, K)]
        precision = arguments.precision_of(precision, real)
        self.tune = checks.flag(tune, "tune")
        self.seed = seed
        self.init = init
        self._dropout: Any = dropout
        self.metadata: dict[str, Any] = {}
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
        sparse = arguments.sparse_of(sparse, scaled, sizes[0])
        self.shape = NetworkShape(sizes, tuple(f), M, real, where, precision, drops, scaled, sparse)
        draw = initializer.find(init)
        ops = backend.get(where, precision, self.tune)
        with ops.on_device(), memory.explain_oom(self.shape, ops):
            memory.check(self.shape, ops)
            thresholds = [arguments.threshold(rate, M) if rate.any() else None for rate in rates]
            self.network = self._placed(ops, self._initial_theta(draw), thresholds)

    def _placed(self, ops: Ops, theta: np.ndarray, thresholds: list[np.ndarray | None]) -> Network:
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
    def dropout(self) -> Any:
        """The rates of the hidden layers.  Others can be set, also while a network is trained, for
        the layers that had one when the network was made; a single network's 0 turns it off."""
        return self._dropout

    @dropout.setter
    def dropout(self, dropout: PerNetwork | Sequence[PerNetwork]) -> None:
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

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a copy or a pickle, whose arrays are its own."""
        vars(self).update(state)
        where = arrays.device_of(self.network.parameters.buffer)
        if where != self.device:  # CuPy unpickles to the current device
            raise RuntimeError(
                f"a network on {self.device} was unpickled to {where}: make {self.device} the "
                "current device of CuPy first"
            )

    def _initial_theta(self, draw: Draw) -> np.ndarray:
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
        """The number of layers, without the input."""
        return self.shape.K

    @property
    def sizes(self) -> tuple[int, ...]:
        """N_0, ..., N_K: features, hidden units, outputs."""
        return self.shape.sizes

    @property
    def f(self) -> tuple[Any, ...]:
        """f[k], the activation of layer k; f[0] is None."""
        return self.shape.f

    @property
    def layers(self) -> tuple[Any, ...]:
        """layers[k], a `Layer`; layers[0] is None."""
        return self.shape.layers

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the parameters, float32 or float64."""
        return self.shape.dtype

    @property
    def device(self) -> str:
        """The device, "cpu" or "cuda:i"."""
        return self.shape.device

    @property
    def precision(self) -> str:
        """The precision of the matrix products on a GPU: "float32", "tf32" or "bf16"."""
        return self.shape.precision

    @property
    def ops(self) -> Any:
        """The operations on its device."""
        return self.network.ops

    @property
    def layout(self) -> Layout:
        """Where the parameters lie in the buffer of all."""
        return self.shape.layout

    @property
    def parameters(self) -> Parameters:
        """The parameters as the operations take them, with a leading axis M also where it is 1."""
        return self.network.parameters

    @property
    def _named(self) -> ParameterViews:
        return self.parameters.public(stacked=self.models is not None)

    @property
    def theta(self) -> Array:
        """All parameters in one buffer, ([M,] P)."""
        return self._named.theta

    @property
    def W(self) -> list[Any]:
        """W[k], ([M,] N_k, N_{k-1}): writable views; W[0] is None."""
        return self._named.W

    @property
    def b(self) -> list[Any]:
        """b[k], ([M,] N_k): writable views; b[0] is None."""
        return self._named.b

    @property
    def s(self) -> list[Any]:
        """s[k], ([M,] N_{k-1}), the scale of layer k's inputs: writable views, or None."""
        return self._named.s

    @property
    def slope(self) -> list[Any]:
        """slope[k], ([M,]), the learned slope of layer k: writable views, or None."""
        return self._named.slope

    @property
    def count(self) -> int:
        """The number of parameters of one network."""
        return self.shape.layout.count

    def __repr__(self) -> str:
        stack = f", models={self.models}" if self.models else ""
        sizes = "-".join(map(str, self.sizes))
        return f"<MLP {sizes}{stack}, {self.count:,} parameters, {self.dtype}, {self.device}>"

    def summary(self) -> str:
        """Return a table of the layers: shapes, activations, dropout and numbers of parameters."""
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
    def forward(self, x: Data) -> Array:
        """Compute the outputs ŷ = n^(K), (1)-(9), without dropout.

        Parameters
        ----------
        x : (B, N_0) array, or for a stack also (M, B, N_0)
            Samples in rows, of any real dtype, on the host or on the network's device; of a stack
            the same for all networks, or for each its own.  A sparse matrix for `sparse` networks.

        Returns
        -------
        ([M,] B, N_K) array
            In the network's dtype: NumPy's where x was on the host, else CuPy's.

        Raises
        ------
        TypeError
            For what is no array of real numbers, and for an x on another device.
        ValueError
            For another shape, and for NaN or infinity.
        MemoryError
            Where the outputs do not fit.
        """
        # Networks of sparse rows predict dense ones by a dense product, if that is of their dtype.
        dense = self.shape.stored == self.dtype
        features = arrays.features(x, "x", self, finite=False, dense=dense)
        net, rows = self.network, features.array.shape[1]
        sparse = isinstance(features.array, SparseRows)
        chunk = min(rows, replace(self.shape, sparse=sparse).chunk_rows)
        out_bytes = self.M * rows * self.sizes[-1] * self.dtype.itemsize
        with (
            self.ops.on_device(),
            memory.explain_oom(self.shape, self.ops, chunk, 0, out_bytes, "predict"),
            blas_threads.limit_blas_threads(self.shape, chunk, shared=chunk <= blas.SHARED_ROWS),
        ):
            memory.check_total(None if features.on_host else self.ops, out_bytes)
            arrays.check_features(features, "x", self)
            xp = np if features.on_host else self.ops.xp
            out = xp.empty((self.M, rows, self.sizes[-1]), self.dtype)
            blocks = net.blocks.get(net, chunk)

            def predict(start: int, stop: int) -> None:
                x = arrays.to_device(arrays.some_rows(features.array, start, stop), self)

                def work(i: int) -> None:
                    members, part = blocks[i]
                    n = propagate.predict(part, shared(x, members))
                    out[members, start:stop] = self.ops.to_host(n) if features.on_host else n

                if len(blocks) == 1:
                    work(0)  # whose operations may be shared among threads
                else:
                    pool.run(work, len(blocks))

            memory.in_chunks(rows, chunk, predict)
        return out if self.models is not None else out[0]

    def loss_and_grad(
        self,
        x: Data,
        y: Data,
        loss: LossLike = "cross_entropy",
        sample_weight: Data | None = None,
        reduction: str = "mean",
    ) -> tuple[Any, ParameterViews]:
        """Compute the loss of a batch and its gradient by every parameter, (7)-(13).

        There is no dropout, and there are no penalties.

        Parameters
        ----------
        x : ([M,] B, N_0) array
            Samples in rows, as `forward` takes them.
        y : ([M,] B, N_K) array, or ([M,] B)
            Targets; of a single output they may be (B,).  A loss on classes also takes integer
            labels 0..N_K-1, (B,).
        loss : str or Loss, default "cross_entropy"
            A name of `gpumlp.losses`, or an object.
        sample_weight : ([M,] B) array, optional
            The weight w_i of each sample, 0 or more; None is 1.
        reduction : {"mean", "sum"}, default "mean"
            Σ w_i L_i / Σ w_i, or Σ w_i L_i over the samples i.

        Returns
        -------
        value : scalar or (M,) array
            The loss, on the side that x was on.
        grad : ParameterViews
            The gradient: grad.W[k], grad.b[k], grad.s[k], grad.slope[k] and grad.theta, in the
            shapes of the network's own, on that side too.

        Raises
        ------
        TypeError
            For what is no array of real numbers, and for arrays on another device.
        ValueError
            For shapes, labels, targets, weights or a loss that do not fit, and for NaN or infinity.
        MemoryError
            Where the batch does not fit.
        """
        features = arrays.features(x, "x", self, finite=False)
        objective = Objective(self, loss, reduction)
        net, rows, data_bytes = self.network, features.array.shape[1], memory.size_of(x, y)
        copied = memory.copied(features.array, self.dtype, self.ops)
        with (
            self.ops.on_device(),
            memory.explain_oom(self.shape, self.ops, rows, 0, data_bytes, "step"),
            blas_threads.limit_blas_threads(self.shape, rows),
        ):
            memory.check_total(self.ops, copied + workspace.least(self.shape, rows))
            arrays.check_features(features, "x", self)
            batch = self.batch(features.array, y, objective, sample_weight)
            grad: Parameters = Gradient.zeros(net)
            ws = net.workspaces.get(batch.w.shape[1], "step")
            noise = [None] * (self.K + 1)
            propagate.loss_and_backward(net, ws, batch, objective, grad, noise)
            value = ws.loss.copy()
            if features.on_host:
                value = self.ops.to_host(value)
                grad = Parameters(self.shape.layout, self.ops.to_host(grad.buffer))
        stacked = self.models is not None
        return (value if stacked else value[0]), grad.public(stacked)

    def batch(
        self,
        x: Array,
        y: Data,
        objective: Objective,
        sample_weight: Data | None = None,
        values: bool = True,
    ) -> Batch:
        """Make a minibatch on the device.

        Parameters
        ----------
        x : (1 or M, B, N_0) array
            Checked features.
        y, sample_weight
            As in `loss_and_grad`; they are checked here.
        objective : Objective
            Whose loss says which targets are accepted.
        values : bool, default True
            Whether to check also the values of arrays on the device, which has to wait for it.
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

    def values(self, array: Array) -> Array:
        """Convert x, z, n or δ of a workspace to the network's dtype; bf16 is stored as bits."""
        if array.dtype == self.dtype:
            return array
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)

    def like(self, **changes: Any) -> MLP:
        """Copy the network, with other arguments.

        Parameters
        ----------
        **changes
            Arguments of `MLP` but for `sizes`, such as device="cpu" or dtype="float64".  Another
            dtype makes the precision "float32", unless that is given too.

        Returns
        -------
        MLP
            A network of its own, with the same parameters and metadata.  A layer that loses its
            scale has W = V diag(s) for its weights.
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
            "sparse": self.shape.sparse,
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
