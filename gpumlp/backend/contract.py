"""The backend contract: the operations that a network is made of, on NumPy or on CuPy.

`get(device)` gives an object with these operations; NumpyOps is the readable reference; HostOps
does the same by C++ that it compiles at first use, where there is a compiler and a folder for the
result (GPUMLP_HOST=0 switches it off); CupyOps launches the kernels of kernels/ and cuBLAS.  Each
works in place on buffers that the caller owns.
Arrays are (M, B, N): M networks, B samples, N units; where (1 or M, ...) is written, a leading axis
of 1 is shared by all networks.  Arrays are contiguous, but for their leading axis.

On a GPU, where the others are float32, some arrays may be in bfloat16, as bits in uint16: of gemm
a and b (and out), of activate z and n, of backprop delta (and z and n), of loss delta, of gather
out.x.

gemm(a, b, out, *, ta, tb, alpha, beta)
    out <- alpha op(a) op(b) + beta out, batched; op transposes where ta, tb say so.
    op(a) (1 or M, I, J), op(b) (1 or M, J, L), out (M, I, L).
activate(f, z, b, n, p, noise=None)
    n <- f(z + b), (2)(4)(6)(9).  z (M, B, N) is left as z + b where f.df_from is "z" and n is
    another array; n may be z.  b (M, N); p (1 or M, >= 2): the parameters of f.  With noise,
    dropout n <- n * keep / (1 - probability), and the drawn slopes of RReLU.
backprop(f, z, n, delta, db, p, dp=None, noise=None)
    delta <- f'(z) * delta, (11), through the same dropout; db (M, N) <- sum of delta over the
    batch, (13); dp (M,) <- the gradient of a learned slope.  n is not kept.
cast_bf16(a, out)
    out, bf16 bits in uint16, <- a (float32), rounded to nearest even.
loss(pair, u, b, targets, w, w_sum, mean, p, delta, value)
    value (M,) <- sum_i w_i L_i / w_sum (or the sum); delta (M, B, N) <- its derivative, or None.
    u is z without its bias b (M, N) if pair.fused, else ŷ, and b is None.  w (1 or M, B);
    w_sum (M,).  A network whose w_sum is 0 gets 0.
prepare_update(g, loss, w_sum, hyper, rates, first_rate, state, theta=None, decayed=0)
    For each network: the norm of its gradient g (M, P); whether it moves in this step (finite, some
    weight, not halted); the step's scalars; state is a `State`.  With theta, the penalty of its
    first `decayed` parameters is added to the loss that is noted.
update(family, theta, g, slots, scalars, hyper, t, halted, decayed)
    The law of gpumlp.functions.optimizer moves theta (M, P) and its slots, for the networks that
    move.  A parameter stays, with its slots, where one of them would not be finite, and halted[m]
    is t[m].
gather(data, order, cursor, batch, out)
    A minibatch into the buffers `out` (a `Batch`): the rows order[m, cursor[m] * batch + i] of data
    (a `Data`); -1 is a row of zeros with weight 0.
accumulate_metrics(n, targets, w, w_sum, loss, mean, threshold, cursor, sums)
    What a batch adds to an evaluation: sums[cursor[m], m] (3,) <- the loss as a sum over samples,
    w_sum, and the weight of the samples whose class is right: whose largest output is its own, or
    with a threshold, whose outputs are all on its side of it.  n (M, B, N) is ŷ, or None where
    there are no classes; the targets as they were gathered.  cursor (M) moves on.
shuffle(seeds, epoch, order)
    order (M, R) int32 <- the rows 0 .. R - 1 in an epoch's order, for each network's seed: sorted
    by 32 random bits, and where these are equal, by their number.

chip()
    The GPU's `persistent_kernel.Chip` (gpumlp/backend/cuda/persistent_kernel.py); None on the CPU.
persistent_kernel(shape, at)
    train(arguments, steps), for networks of a `persistent_kernel.Shape` that train in the GPU's
    shared memory, at these `persistent_kernel.Places`, many updates in one launch; on a GPU only.
    train does what gather, the passes, prepare_update and update do in `steps` batches of each
    network, from its cursor on, on a `persistent_kernel.LaunchArgs`.  A network that has stopped
    notes the loss 0 with weight 0, and leaves its norm as it was.

transfers(size)
    Two `Transfer`s (gpumlp/backend/cuda/transfer.py) of so many bytes, whose copies to the device
    run beside the computing; on a GPU only.
capture(work)
    A function that does what work() does, again and again on the same buffers, with less of
    Python's time: a CUDA graph; None where nothing would be gained.  work() calls operations and
    nothing else, and has run before; all that changes from run to run lies in arrays.

pace(long=False)
    A sequence of operations, such as a training step, has been submitted; long: one that takes as
    long as many steps.  Keeps the host from running far ahead of the device: what has been
    submitted cannot be called back, and Ctrl-C would wait for it.

threads(net, objective=None)
    How many works `parallel` does at the same time, of which each trains the net: more than 1 only
    on the CPU, where all of it is compiled.
parallel(works), add_up(parts, out)
    Each work() of some, which call operations and nothing else; out <- the sum of the parts along
    their first axis.  Where there is such an operation, it knows slices of a batch by Noise.

export_algorithms(), load_algorithms(algorithms)
    The algorithms that were chosen for products by timing them, for files; where there is no such
    choice, as on the CPU or another GPU, they are left alone.

free_memory(enough=inf)
    Bytes that a new array may take; None on the CPU.  Where they are fewer than enough, memory that
    is only kept for later is given up first.

total_memory()
    Bytes that there are at most: the GPU's; on the CPU the machine's, or its container's; infinity
    where nothing tells.

Also: xp (numpy or cupy), device ("cpu", "cuda:0"), on_device() (a context), to_device, to_host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

Array = Any  # a NumPy or CuPy array


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
    """What minibatches are gathered from; a leading axis of 1 is shared by all networks."""

    x: Array  # (1 or M, R, N_0), any real dtype
    labels: Array | None  # (1 or M, R) int32
    dense: Array | None  # (1 or M, R, N_K)
    weight: Array | None  # (1 or M, R)


class Batch(NamedTuple):
    """A minibatch."""

    x: Array  # (1 or M, B, N_0)
    labels: Array | None
    dense: Array | None
    w: Array  # (1 or M, B)
    w_sum: Array  # (M,)


@dataclass
class State:
    """What changes in training, for each of M networks, on the device."""

    t: Array  # (M,) int64: updates made
    stopped_at: Array  # (M,) int64: 0, or the step that was not finite; -1: stopped
    cursor: Array  # (M,) int64: batches done in this epoch
    losses: Array  # (steps, M): the loss of each batch
    weights: Array  # (steps, M): and its weight, 0 where it did not count
    norm: Array  # (M,): the norm of the last gradient
    scalars: Array  # (M, 4): moves or not, clipping factor, learning rate, scale of the penalties
