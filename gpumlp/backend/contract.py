"""The backend contract: `Ops`, the operations that networks are computed with, and their arguments.

`gpumlp.backend.get(device)` makes an object with these operations.  NumpyOps is the readable
reference.  HostOps does the same by C++ that it compiles at first use, where there is a compiler
and a folder for the result (GPUMLP_HOST=0 switches it off).  CupyOps launches the kernels of
kernels/ and cuBLASLt.  Each operation works in place on buffers that the caller owns.

Arrays are (M, B, N): M networks, B samples, N units; where (1 or M, ...) is written, a leading axis
of 1 is shared by all networks.  Arrays are contiguous, but for their leading axis.

On a GPU, where the others are float32, some arrays may be in bfloat16, as bits in uint16: of gemm
a and b (and out), of activate z and n, of backprop delta (and z and n), of sparse_product WT (and
out), of sparse_gradient delta, of scale out, of loss delta, of gather out.x.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from gpumlp.backend.sparse_rows import SparseRows

if TYPE_CHECKING:
    from gpumlp.backend.cuda.persistent_kernel import Chip, LaunchArgs, Places, Shape
    from gpumlp.backend.cuda.transfer import Transfer
    from gpumlp.functions.activation import Activation
    from gpumlp.functions.loss import OutputLoss

Array = Any  # a NumPy or CuPy array
Work = Callable[[], object]  # calls operations and nothing else


class Noise(NamedTuple):
    """The randomness of one layer in training: Philox with key seeds[m], counter (element, layer,
    step, purpose)."""

    seeds: Array  # (M,) uint64
    step: Array  # (M,) int64: updates made so far
    layer: int
    dropout: Array | None  # (M,) uint32: an element is dropped if its bits are below
    first_row: int = 0  # of the whole batch, where this is a slice of it: see `parallel`


class Targets(NamedTuple):
    """y, as labels (1 or M, B) int32 or dense (1 or M, B, N); it enters as scale y + shift."""

    labels: Array | None
    dense: Array | None
    scale: float
    shift: float


class Data(NamedTuple):
    """The data that minibatches come from; a leading axis of 1 is shared by all networks."""

    x: Any  # (1 or M, R, N_0), any real dtype, or SparseRows
    labels: Array | None  # (1 or M, R) int32
    dense: Array | None  # (1 or M, R, N_K)
    weight: Array | None  # (1 or M, R)


class Batch(NamedTuple):
    """A minibatch."""

    x: Any  # (1 or M, B, N_0), or SparseRows
    labels: Array | None
    dense: Array | None
    w: Array  # (1 or M, B)
    w_sum: Array  # (M,)


class Factors(NamedTuple):
    """The factors on learning rate and decay of each of S slices of the parameters.

    A slice begins where the one before it ends, at a multiple of 128 bytes.
    """

    ends: Array  # (S,) int64, ascending; the last is P
    rate: Array  # (S,): of the learning rate
    decay: Array  # (S,): of the penalties and the weight decay


class Occurring(NamedTuple):
    """The features that occur in a batch of sparse rows, which alone are updated.

    Their parameters are the rows of W^(1)^T, N_1 numbers each, with which those of a network begin.
    """

    features: Array  # (M, N_0) uint8: 0 or 1
    units: int  # N_1


@dataclass
class State:
    """The counters, losses and scalars of M networks in training, on the device."""

    t: Array  # (M,) int64: updates made
    stopped_at: Array  # (M,) int64: 0, or the step that was not finite; -1: stopped
    cursor: Array  # (M,) int64: batches done in this epoch
    losses: Array  # (steps, M): the loss of each batch
    weights: Array  # (steps, M): and its weight, 0 where it did not count
    norm: Array  # (M,): the norm of the last gradient
    scalars: Array  # (M, 4): moves or not, clipping factor, learning rate, scale of the penalties


class Ops(Protocol):
    """The operations on one device; an object of its own for each network."""

    @property
    def xp(self) -> Any:
        """The module numpy or cupy."""

    @property
    def device(self) -> str:
        """ "cpu" or "cuda:i"."""

    # ------------------------------------------------------------ the device
    def on_device(self) -> AbstractContextManager[Any]:
        """The context in which arrays are made on the device."""

    def to_device(self, array: Array) -> Array:
        """The array on the device.  A NumPy array may be overwritten once this returns."""

    def to_host(self, array: Array) -> Array:
        """The array as a NumPy array."""

    def free_memory(self, enough: float = math.inf) -> float | None:
        """Bytes that a new array may take; None on the CPU.

        enough: where there are fewer, memory that is only cached is freed first.
        """

    def total_memory(self) -> float:
        """All bytes of memory: the GPU's, or the machine's or its container's.

        Infinity where they are unknown.
        """

    def chip(self) -> Chip | None:
        """The GPU as the persistent kernel needs to know it; None on the CPU."""

    # ------------------------------------------------------------ one layer
    def gemm(
        self,
        a: Array,
        b: Array,
        out: Array,
        *,
        ta: bool = False,
        tb: bool = False,
        alpha: float = 1.0,
        beta: float = 0.0,
    ) -> None:
        """out <- alpha op(a) op(b) + beta out, batched; op transposes where ta, tb say so.

        op(a) (1 or M, I, J), op(b) (1 or M, J, L), out (M, I, L).
        """

    def activate(
        self,
        f: Activation,
        z: Array,
        b: Array,
        n: Array,
        p: Array,
        noise: Noise | None = None,
    ) -> None:
        """n <- f(z + b), (2)(4)(6)(9).

        z (M, B, N) is left as z + b where f.df_from is "z" and n is another array; n may be z.
        b (M, N); p (1 or M, >= 2): the parameters of f.  With noise, dropout
        n <- n * keep / (1 - probability), and the drawn slopes of RReLU.
        """

    def backprop(
        self,
        f: Activation,
        z: Array,
        n: Array,
        delta: Array,
        db: Array,
        p: Array,
        dp: Array | None = None,
        noise: Noise | None = None,
    ) -> None:
        """delta <- f'(z) * delta, (11), through the same dropout.

        db (M, N) <- the sum of delta over the batch, (13); dp (M,) <- the gradient of a learned
        slope.  n is not kept.
        """

    def sparse_product(self, x: SparseRows, WT: Array, out: Array) -> None:
        """out <- x WT, z^(1) of sparse rows without its bias.

        WT (M, N_0, N_1): W^(1)^T as it is stored; out (M, B, N_1).
        """

    def sparse_gradient(self, x: SparseRows, delta: Array, occurs: Array, out: Array) -> None:
        """out <- x^T delta, (12) of the first layer of sparse rows; each sum in the rows' order.

        delta (M, B, N_1); out (M, N_0, N_1), in which only features that occur are not 0.
        occurs (M, N_0) uint8: which features do; before it says for which out may not be 0.
        """

    def scale(self, V: Array, s: Array, out: Array) -> None:
        """out <- V diag(s), the weights W of z = V (s * n) + b = W n + b.

        V, out (M, I, J); s (M, J): W_ij = V_ij s_j.
        """

    def scale_gradient(self, G: Array, V: Array, s: Array, ds: Array) -> None:
        """G <- the gradient by V and ds <- that by s, where G was that by W = V diag(s).

        G, V (M, I, J); s, ds (M, J): dL/dV_ij = G_ij s_j and dL/ds_j = sum_i G_ij V_ij.
        """

    def cast_bf16(self, a: Array, out: Array) -> None:
        """out, bf16 bits in uint16, <- a (float32), rounded to nearest even."""

    # ------------------------------------------------------------ the loss
    def loss(
        self,
        pair: OutputLoss,
        u: Array,
        b: Array | None,
        targets: Targets,
        w: Array,
        w_sum: Array,
        mean: bool,
        p: Array,
        delta: Array | None,
        value: Array,
    ) -> None:
        """value (M,) <- sum_i w_i L_i / w_sum, or the sum; delta <- its derivative, (10).

        u is z (M, B, N) without its bias b (M, N) if pair.fused, else ŷ, and b is None.
        delta (M, B, N), or None.  w (1 or M, B); w_sum (M,).  A network whose w_sum is 0 gets 0.
        """

    # ------------------------------------------------------------ the update
    def prepare_update(
        self,
        g: Array,
        loss: Array,
        w_sum: Array,
        hyper: Array,
        rates: Array | None,
        first_rate: Array,
        state: State,
        theta: Array | None = None,
        decayed: int = 0,
    ) -> None:
        """state <- whether and how far each network moves in this step.

        A network moves if its loss and its gradient g (M, P) are finite, its batch has weight, and
        it has not stopped.  hyper (M, len(HYPERS)); rates: the schedule's factors for the updates
        first_rate[0], first_rate[0] + 1, ...  With theta (M, P), the penalty of its first `decayed`
        parameters is added to the loss in state.losses.
        """

    def update(
        self,
        family: str,
        theta: Array,
        g: Array,
        state_buffers: Sequence[Array | None],
        scalars: Array,
        hyper: Array,
        t: Array,
        stopped_at: Array,
        decayed: int,
        factors: Factors | None = None,
        occurring: Occurring | None = None,
    ) -> None:
        """theta (M, P) and its state buffers (M, P) <- an update by the optimiser's rule, (14)(15).

        family: of the optimiser, see gpumlp/functions/optimizer.py.  Only networks that move by
        scalars (M, 4) change.  The first `decayed` parameters take penalties and weight decay, and
        all have one learning rate; with factors, those say both for each slice.  A parameter stays,
        with its state, where one of them would not be finite, and stopped_at[m] is t[m].  With
        occurring, parameters of W^(1) whose feature does not occur stay too, with their state.
        """

    # ------------------------------------------------------------ minibatches
    def gather(self, data: Data, order: Array, cursor: Array, batch: int, out: Batch) -> None:
        """out <- a minibatch: row i is row order[m, cursor[m] * batch + i] of data.

        -1 is a row of zeros with weight 0.  Of sparse rows out.x.numbers are written.
        """

    def shuffle(self, seeds: Array, epoch: int, order: Array) -> None:
        """order (M, R) int32 <- the rows 0 .. R - 1 in an epoch's order, for each network's seed.

        They are sorted by 32 random bits, and where these are equal, by their number.
        """

    def accumulate_metrics(
        self,
        n: Array | None,
        targets: Targets,
        w: Array,
        w_sum: Array,
        loss: Array,
        mean: bool,
        threshold: float | None,
        cursor: Array,
        sums: Array,
    ) -> None:
        """sums[cursor[m], m] (3,) <- what a batch adds to an evaluation; cursor (M,) moves on.

        That is the loss as a sum over samples, w_sum, and the weight of the samples whose class is
        right: whose largest output is its own, or with a threshold, whose outputs are all on its
        side of it.  n (M, B, N) is ŷ, or None where there are no classes; the targets as they were
        gathered.
        """

    # ------------------------------------------------------------ many operations
    def capture(self, work: Work) -> Callable[[], None] | None:
        """Capture work() in a function that does the same on the same buffers, in less time.

        On a GPU it launches a CUDA graph; None where nothing would be gained.  work() has run
        before; all that changes from run to run lies in arrays.
        """

    def pace(self, long: bool = False) -> None:
        """Keep the host from running far ahead of the device, after each sequence of operations.

        A sequence is a training step, or with `long` as many.  What has been submitted cannot be
        called back, and Ctrl-C would wait for it.
        """

    def threads(self, shape: Any, objective: Any = None) -> int:
        """The number of works that `parallel` does at the same time.

        shape: a `NetworkShape`;  objective: an `Objective`, or None without training.  More than 1
        only on the CPU, where all operations of such a network are compiled.
        """

    def parallel(self, works: Sequence[Work]) -> None:
        """Do each work(), on a slice of a batch; Noise.first_row tells where its slice begins."""

    def add_up(self, parts: Array, out: Array) -> None:
        """out <- the sum of the parts along their first axis."""

    def persistent_kernel(self, shape: Shape, at: Places) -> Callable[[LaunchArgs, int], object]:
        """train(arguments, steps): many updates of small networks in one launch; on a GPU only.

        The networks train in the GPU's shared memory at these places.  train does what gather, the
        passes, prepare_update and update do in `steps` batches of each network, from its cursor on.
        A network that has stopped gets the loss 0 with weight 0, and its norm stays as it was.

        Raises
        ------
        ValueError
            By train: there are factors, which this kernel does not take.
        """

    def transfers(self, size: int) -> tuple[Transfer, Transfer]:
        """Two transfers of so many bytes, which copy while the GPU computes; on a GPU only."""

    # ------------------------------------------------------------ products by timing
    def export_algorithms(self) -> dict[str, Any]:
        """The algorithms that were chosen for products by timing them, for files."""

    def load_algorithms(self, algorithms: dict[str, Any]) -> None:
        """Choose these algorithms; without effect where there is no such choice."""
