"""The operations on CuPy arrays: the kernels of kernels/ and cuBLASLt.

`gpumlp.backend.contract.Ops` says what each operation does and what its arguments mean.  Each is
one launch, but for `gemm`, which is one call of cuBLASLt, or one for each 65,535 networks,
`sparse_gradient`, which is two, and `shuffle`, which is two and CuPy's sort between them.
Programs are compiled by NVRTC when first used and kept on disk by CuPy.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import cupy as cp
import numpy as np

from gpumlp.backend.cuda import (
    cublaslt,
    cuda_sources,
    faults,
    gemm_choice,
    graphs,
    persistent_kernel,
    transfer,
)
from gpumlp.backend.sparse_rows import SparseRows

THREADS = 256  # of every block of every kernel; THREADS in kernels/cuda/common.cuh
NULL = np.uintp(0)  # an absent array
NOTHING = np.int64(0), np.int64(0)
MOST_STAGED = 1 << 20  # bytes of an array that goes by way of page-locked memory
# Sequences between two marks of `pace`: while the device does as many, a microsecond or more each,
# the host submits the next.  At most twice as many are submitted and not done.
AHEAD = 8
KEY_BITS = 64  # of a number by which an order is sorted
MOST_PLANS = 1024  # that are held for matrix products of different shapes

# Rows, or packs of a flat buffer, that one thread takes: few where blocks are independent, more
# where a later block has to add their partial sums, of which there are at most so many.
ROWS_PER_THREAD = 4
SUMMED_ROWS_PER_THREAD = 8
MOST_PARTIAL_SUMS = 64
# Blocks of `sparse_gradient` for each of ENOUGH: a multiprocessor has room for some more.
SHARES_PER_BLOCK = 2
# Blocks below which a thread rather takes fewer: two for each multiprocessor of an H100.  It is the
# same number on every GPU, as the order of sums depends on it.
ENOUGH = 264


@functools.cache
def _kernel(device: int, text: str, name: str):
    """One kernel of one program on one device."""
    with cp.cuda.Device(device):
        return cp.RawModule(code=text, options=("-std=c++17",)).get_function(name)


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _or_null(array):
    return NULL if array is None else array


def _pointers(state_buffers) -> list:
    """The arguments for STATE_PARAMETERS, at least one."""
    return [*map(_or_null, state_buffers)] or [NULL]


def _stride(array) -> np.int64:
    """Elements from network to network; 0 if the array is shared."""
    if array is None or len(array) == 1:
        return np.int64(0)
    return np.int64(array.strides[0] // array.itemsize)


class CupyOps:
    """`Ops` on CuPy arrays of one device."""

    xp = cp

    def __init__(self, index: int, precision: str = "float32", tune: bool = False):
        self.precision, self.tune = precision, tune
        self.device = f"cuda:{index}"
        self._index = index
        self._kernels: dict = {}
        self._partial: dict = {}
        self._plans: dict = {}
        self._choices = gemm_choice.Choices(index)
        self._workspace: Any = None  # of cuBLASLt; replaced by a larger one, never resized
        self._arrived = None
        self._submitted = 0  # sequences since the last mark of `pace`
        self._mark: Any = None
        self._chip: persistent_kernel.Chip | None = None

    def __reduce__(self):
        # Kernels, plans and room are the process's own; what was chosen by timing is not found
        # again for certain.
        return CupyOps, (self._index, self.precision, self.tune), self.export_algorithms()

    def __setstate__(self, choices):
        self.load_algorithms(choices)

    def on_device(self):
        faults.refuse_after_fork()
        return cp.cuda.Device(self._index)

    def to_device(self, array):
        if not isinstance(array, np.ndarray):
            return cp.asarray(array)
        if array.nbytes <= MOST_STAGED:
            # asarray reads page-locked memory later, and copies other memory to such first.
            pinned = cp.cuda.pinned_memory.is_memory_pinned(array.ctypes.data)
            return cp.asarray(array.copy() if pinned else array)
        # For the copy, asarray would take page-locked memory as large as the array, and keep it.
        # `set` would make an array contiguous in one of its own, which it drops before it is read
        # where copies from any memory are asynchronous, as on a GH200.
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
        out = cp.empty(array.shape, array.dtype)
        out.set(array)
        cp.cuda.get_current_stream().synchronize()
        return out

    def to_host(self, array):
        # asnumpy would copy an array of NumPy's that is not in C order, as a memory map may be.
        return array if isinstance(array, np.ndarray) else cp.asnumpy(array)

    def free_memory(self, enough=math.inf):
        # What the pool holds of blocks that are in use in part is of no use to a large array.
        with self.on_device():
            free, _ = cp.cuda.runtime.memGetInfo()
            if free < enough:
                cp.get_default_memory_pool().free_all_blocks()
                free, _ = cp.cuda.runtime.memGetInfo()
            return free

    def total_memory(self):
        with self.on_device():
            return cp.cuda.runtime.memGetInfo()[1]

    def transfers(self, size):
        return transfer.pair(size)

    # ------------------------------------------------------------ repeating
    def threads(self, shape, objective=None):
        return 1

    def parallel(self, works):
        for work in works:
            work()

    def add_up(self, parts, out):
        cp.sum(parts, axis=0, out=out)

    def capture(self, work):
        # What the graph writes to besides the caller's buffers.  Later it may be replaced by larger
        # arrays.
        kept = *self._partial.values(), self._arrived, self._workspace
        with cp.cuda.Stream(non_blocking=True) as stream:
            graph = graphs.record(work, stream)

        def replay(graph=graph, kept=kept):
            graph.launch()

        return replay

    def pace(self, long=False):
        self._submitted += AHEAD if long else 1
        if self._submitted < AHEAD:
            return
        # The device still has those since the last mark to do while the host waits for it.
        self._submitted, before, self._mark = 0, self._mark, cp.cuda.Event(disable_timing=True)
        self._mark.record()
        if before is not None:
            before.synchronize()

    def _room(self, array, size: int, dtype, make=cp.empty):
        """The array, which operations write to, or a new one where it has fewer elements."""
        if array is not None and array.size >= size:
            return array
        # The pool may have memory even then, but counters would be zeroed in the graph alone, and
        # what was recorded before would write to the array that is replaced.
        if cp.cuda.get_current_stream().is_capturing():
            raise RuntimeError("a sequence needs more room in its capture than when it ran before")
        return make(size, dtype)

    # ------------------------------------------------------------ launching
    def _get(self, key, name, text):
        """The kernel `name`, compiled when first used; `text` makes its program."""
        if key not in self._kernels:
            self._kernels[key] = _kernel(self._index, text(), name)
        return self._kernels[key]

    def _scratch(self, dtype, partial: int, counters: int):
        """Arrays for partial sums, and for counters that are 0 before and after every launch."""
        char = dtype.char
        self._partial[char] = self._room(self._partial.get(char), partial, dtype)
        self._arrived = self._room(self._arrived, counters, np.uint32, cp.zeros)
        return self._partial[char], self._arrived

    # ------------------------------------------------------------ one layer
    def gemm(self, a, b, out, *, ta=False, tb=False, alpha=1.0, beta=0.0):
        if len(out) > cublaslt.MOST_BATCH:
            for start in range(0, len(out), cublaslt.MOST_BATCH):
                part = slice(start, start + cublaslt.MOST_BATCH)
                left, right = (
                    operand if len(operand) == 1 else operand[part] for operand in (a, b)
                )
                self.gemm(left, right, out[part], ta=ta, tb=tb, alpha=alpha, beta=beta)
            return
        at, bt, to = a.data.ptr, b.data.ptr, out.data.ptr
        key = (
            *(a.shape, b.shape, out.shape, a.strides[0], b.strides[0], out.strides[0]),
            *(a.dtype.char, b.dtype.char, out.dtype.char, ta, tb, alpha, beta, self.precision),
            # What divides the addresses: their lowest bit, 256 at most.
            *((at | 256) & -(at | 256), (bt | 256) & -(bt | 256), (to | 256) & -(to | 256)),
        )
        plan = self._plans.get(key) or self._plan(key, a, b, out, ta, tb, alpha, beta)
        workspace = self._workspace.data.ptr if plan.workspace else 0
        # Read by columns, as cuBLAS does, row-major out is out^T = op(b)^T op(a)^T.
        plan(bt, at, to, workspace, cp.cuda.get_current_stream().ptr)

    def _plan(self, key, a, b, out, ta, tb, alpha, beta):
        """A new plan, and a workspace that is large enough for it."""
        product = gemm_choice.row_major(a, b, out, ta, tb, alpha, beta, self.precision)
        plan = self._choices.plan(product, self.tune, b.data.ptr, a.data.ptr, out.data.ptr)
        if plan.workspace:
            self._workspace = self._room(self._workspace, plan.workspace, np.uint8)
        if len(self._plans) >= MOST_PLANS:
            self._plans.clear()
        self._plans[key] = plan
        return plan

    def export_algorithms(self):
        with self.on_device():
            return self._choices.export()

    def load_algorithms(self, algorithms):
        with self.on_device():
            self._choices.load_algorithms(algorithms)
        self._plans.clear()

    def activate(self, f, z, b, n, p, noise=None):
        models, rows, columns = z.shape
        if f.rows:
            return self._activate_rows(f, z, b, n)
        kernel = self._get(
            ("activate", f, z.dtype.char),
            "activate",
            lambda: cuda_sources.layer(str(b.dtype), f, str(z.dtype), str(z.dtype)),
        )
        (lanes, height), tiles = _tile(columns, z.itemsize)
        chunks = _chunks(rows, height, ROWS_PER_THREAD, models * tiles)
        kernel(
            (models * chunks * tiles,),
            (lanes, height),
            (
                *(z, b, np.int64(b.strides[0] // b.itemsize), n, p, _stride(p)),
                *_noise(noise),
                *(np.int64(rows), np.int32(columns), np.int32(tiles), np.int32(chunks)),
            ),
        )

    def _activate_rows(self, f, z, b, n):
        models, rows, columns = z.shape
        name, dtype = "activate_rows", str(z.dtype)
        kernel = self._get(name, name, lambda: cuda_sources.rows(dtype))
        lanes, height = _lanes(_packs(columns, z.itemsize))
        chunks = _chunks(rows, height, ROWS_PER_THREAD, models)
        kernel(
            (models * chunks,),
            (lanes, height),
            (
                *(z, b, np.int64(b.strides[0] // b.itemsize), n),
                np.int32(f.name == "log_softmax"),
                *(np.int64(rows), np.int32(columns), np.int32(chunks)),
            ),
        )

    def backprop(self, f, z, n, delta, db, p, dp=None, noise=None):
        models, rows, columns = delta.shape
        kernel = self._get(
            ("backprop", f, z.dtype.char, delta.dtype.char),
            "backprop",
            lambda: cuda_sources.layer(str(db.dtype), f, str(z.dtype), str(delta.dtype)),
        )
        (lanes, height), tiles = _tile(columns, delta.itemsize)
        chunks = _chunks(rows, height, SUMMED_ROWS_PER_THREAD, models * tiles)
        chunks = min(chunks, MOST_PARTIAL_SUMS)
        sums, slopes = models * chunks * columns, models * chunks * tiles
        partial, arrived = self._scratch(db.dtype, sums + slopes, models * (tiles + 1))
        kernel(
            (models * chunks * tiles,),
            (lanes, height),
            (
                *(z, n, delta, db, np.int64(db.strides[0] // db.itemsize), p, _stride(p)),
                *(_or_null(dp), np.int64(0 if dp is None else dp.strides[0] // dp.itemsize)),
                *_noise(noise),
                *(partial, partial[sums:], arrived, arrived[models * tiles :]),
                *(np.int64(rows), np.int32(columns), np.int32(tiles), np.int32(chunks)),
            ),
        )

    def sparse_product(self, x, WT, out):
        models, rows, units = out.shape
        kernel = self._sparse("sparse_product", x.dtype, WT.dtype, out.dtype)
        block, tiles = _tile(units, WT.itemsize)
        chunks = _chunks(rows, block[1], ROWS_PER_THREAD, models * tiles)
        kernel(
            (models * chunks * tiles,),
            block,
            (
                *(*_sparse_rows(x), WT, _stride(WT), out),
                *(np.int64(rows), np.int32(units), np.int32(tiles), np.int32(chunks)),
            ),
        )

    def sparse_gradient(self, x, delta, occurs, out):
        models, rows, units = delta.shape
        features, types = np.int64(occurs.shape[1]), (x.dtype, delta.dtype, delta.dtype)
        block = 32, THREADS // 32
        chunks = _chunks(occurs.shape[1], THREADS, ROWS_PER_THREAD, models)
        self._sparse("clear_gradient", *types)(
            (models * chunks,),
            block,
            (occurs, out, _stride(out), features, np.int32(units), np.int32(chunks)),
        )
        tiles = _ceil_div(units, 32)
        # As many warps as fill a GPU, or have some non-zeros each; all look at each of the batch's.
        most = _ceil_div(x.mean_non_zeros(rows), 32 * block[1])
        chunks = min(most, _ceil_div(ENOUGH * SHARES_PER_BLOCK, models * tiles))
        self._sparse("sparse_gradient", *types)(
            (models * chunks * tiles,),
            block,
            (
                *(*_sparse_rows(x), delta, occurs, out, _stride(out), np.int64(rows), features),
                *(np.int32(units), np.int32(tiles), np.int32(chunks)),
            ),
        )

    def _sparse(self, name, dtype, stored, z):
        return self._get(
            (name, dtype.char, stored.char, z.char),
            name,
            lambda: cuda_sources.sparse(str(dtype), str(stored), str(z)),
        )

    def scale(self, V, s, out):
        models, rows, columns = V.shape
        kernel = self._scale("scale", V.dtype, out.dtype)
        block, tiles = _tile(columns, out.itemsize)
        chunks = _chunks(rows, block[1], ROWS_PER_THREAD, models * tiles)
        kernel(
            (models * chunks * tiles,),
            block,
            (
                *(V, _stride(V), s, _stride(s), out, _stride(out)),
                *(np.int64(rows), np.int32(columns), np.int32(tiles), np.int32(chunks)),
            ),
        )

    def scale_gradient(self, G, V, s, ds):
        models, rows, columns = V.shape
        kernel = self._scale("scale_gradient", V.dtype, V.dtype)
        block, tiles = _tile(columns, V.itemsize)
        chunks = _chunks(rows, block[1], SUMMED_ROWS_PER_THREAD, models * tiles)
        chunks = min(chunks, MOST_PARTIAL_SUMS)
        parts, arrived = self._scratch(V.dtype, models * chunks * columns, models * tiles)
        kernel(
            (models * chunks * tiles,),
            block,
            (
                *(G, _stride(G), V, _stride(V), s, _stride(s), ds, _stride(ds), parts, arrived),
                *(np.int64(rows), np.int32(columns), np.int32(tiles), np.int32(chunks)),
            ),
        )

    def _scale(self, name, dtype, stored):
        return self._get(
            (name, dtype.char, stored.char),
            name,
            lambda: cuda_sources.scale(str(dtype), str(stored)),
        )

    def cast_bf16(self, a, out):
        if a.flags.c_contiguous and out.flags.c_contiguous:
            models, size, strides = 1, a.size, (np.int64(0), np.int64(0))
        else:
            models, size, strides = len(a), a[0].size, (_stride(a), _stride(out))
        chunks = _chunks(_ceil_div(size, 8), THREADS, ROWS_PER_THREAD, models)
        self._get("cast_bf16", "cast_bf16", cuda_sources.cast_bf16)(
            (models * chunks,),
            (THREADS,),
            (a, strides[0], out, strides[1], np.int64(size), np.int32(chunks)),
        )

    # ------------------------------------------------------------ the loss
    def loss(self, pair, u, b, targets, w, w_sum, mean, p, delta, value):
        models, rows, columns = u.shape
        real, written = u.dtype.type, (u if delta is None else delta).dtype
        kernel = self._get(
            ("loss", pair, written.char),
            "loss",
            lambda: cuda_sources.loss(str(u.dtype), pair.form, pair.rows, pair.log_u, str(written)),
        )
        lanes, height = _lanes(_packs(columns, u.itemsize))
        chunks = min(_chunks(rows, height, ROWS_PER_THREAD, models), 2 * THREADS)
        partial, arrived = self._scratch(u.dtype, models * chunks, models)
        y = targets.dense if targets.labels is None else targets.labels
        kernel(
            (models * chunks,),
            (lanes, height),
            (
                *(u, _or_null(b), np.int64(0 if b is None else b.strides[0] // b.itemsize)),
                *(_or_null(targets.labels), _or_null(targets.dense), _stride(y)),
                *(real(targets.scale), real(targets.shift)),
                *(w, _stride(w), w_sum, np.int32(mean), p, _or_null(delta), value),
                *(partial, arrived, np.int64(rows), np.int32(columns), np.int32(chunks)),
            ),
        )

    # ------------------------------------------------------------ the update
    def prepare_update(
        self, g, loss, w_sum, hyper, rates, first_rate, state, theta=None, decayed=0
    ):
        models, size = g.shape
        chunks = _update_chunks(g)
        partial, arrived = self._scratch(g.dtype, 2 * models * chunks, models)
        kernel = self._get(
            "prepare_update", "prepare_update", lambda: cuda_sources.prepare_update(str(g.dtype))
        )
        kernel(
            (models * chunks,),
            (THREADS,),
            (
                *(g, _or_null(theta), np.int64(decayed)),
                *(loss, w_sum, hyper, _or_null(rates), first_rate),
                *(state.cursor, state.t, state.stopped_at, state.losses, state.weights, state.norm),
                *(state.scalars, partial, arrived),
                *(np.int64(models), np.int64(len(state.losses)), np.int64(size), np.int32(chunks)),
            ),
        )

    def update(
        self,
        family,
        theta,
        g,
        state_buffers,
        scalars,
        hyper,
        t,
        stopped_at,
        decayed,
        factors=None,
        occurring=None,
    ):
        models, size = theta.shape
        chunks = _update_chunks(theta)
        used = tuple(buffer is not None for buffer in state_buffers)
        kernel = self._get(
            ("update", family, used, factors is not None, occurring is not None),
            "update",
            lambda: cuda_sources.update(
                str(theta.dtype), family, used, factors is not None, occurring is not None
            ),
        )
        kernel(
            (models * chunks,),
            (THREADS,),
            (
                *(theta, g, *_pointers(state_buffers), scalars, hyper, t, stopped_at),
                *(np.int64(size), np.int64(decayed), np.int32(chunks)),
                *((NULL, NULL, NULL) if factors is None else factors),
                *((NULL, *NOTHING) if occurring is None else _occurring(occurring)),
            ),
        )

    # ------------------------------------------------------------ many updates at once
    def chip(self):
        if self._chip is None:
            with self.on_device():
                limits = cp.cuda.Device(self._index).attributes
            self._chip = persistent_kernel.Chip(
                limits["MultiProcessorCount"],
                limits["SingleToDoublePrecisionPerfRatio"],
                limits["MaxSharedMemoryPerBlockOptin"],
                limits["MaxSharedMemoryPerMultiprocessor"],
                limits["ReservedSharedMemoryPerBlock"],
            )
        return self._chip

    def persistent_kernel(self, shape, at):
        if shape not in self._kernels:
            with self.on_device():
                kernel = _kernel(
                    self._index, cuda_sources.persistent_kernel(shape, at), "train_persistent"
                )
                kernel.max_dynamic_shared_size_bytes = at.bytes
                kernel.preferred_shared_memory_carveout = persistent_kernel.carveout(
                    at, self.chip()
                )
            train = functools.partial(_launch_persistent, kernel, at.bytes, _lanes(shape.sizes[-1]))
            self._kernels[shape] = train
        return self._kernels[shape]

    # ------------------------------------------------------------ minibatches
    def gather(self, data, order, cursor, batch, out):
        sparse = isinstance(data.x, SparseRows)
        models, rows = out.w.shape
        columns = 0 if sparse else out.x.shape[2]
        source, x, numbers = data.x, out.x, None
        if sparse:
            source, x, numbers = None, None, out.x.numbers
        stored = out.x.dtype
        outputs = 0 if data.dense is None else data.dense.shape[2]
        kernel = self._get(
            ("gather", data.x.dtype.char, stored.char),
            "gather",
            lambda: cuda_sources.gather(str(out.w.dtype), str(data.x.dtype), str(stored)),
        )
        lanes = min(THREADS, _power_of_two(max(1, _packs(columns, stored.itemsize))))
        height = THREADS // lanes
        chunks = _chunks(rows, height, ROWS_PER_THREAD, models)
        sums = _weight_blocks(rows, models)
        partial, arrived = self._scratch(out.w.dtype, models * sums, models)
        y = data.dense if data.labels is None else data.labels
        kernel(
            (models * (sums + chunks),),
            (lanes, height),
            (
                *(
                    order,
                    _stride(order),
                    cursor,
                    np.int64(batch),
                    _or_null(source),
                    _stride(source),
                ),
                *(_or_null(data.labels), _or_null(data.dense), _stride(y)),
                *(_or_null(data.weight), _stride(data.weight)),
                *(_or_null(x), _or_null(numbers), _or_null(out.labels), _or_null(out.dense)),
                *(out.w, out.w_sum),
                *(partial, arrived, np.int64(rows), np.int32(columns), np.int32(outputs)),
                *(np.int32(sums), np.int32(chunks)),
            ),
        )

    def accumulate_metrics(self, n, targets, w, w_sum, loss, mean, threshold, cursor, sums):
        models, rows = w.shape
        columns = 1 if n is None else n.shape[2]
        lanes, height = _lanes(_packs(columns, w.itemsize))
        chunks = min(_chunks(rows, height, ROWS_PER_THREAD, models), 2 * THREADS)
        chunks = 1 if n is None else chunks
        partial, arrived = self._scratch(w.dtype, models * chunks, models)
        kernel = self._get(
            "accumulate_metrics",
            "accumulate_metrics",
            lambda: cuda_sources.accumulate_metrics(str(w.dtype)),
        )
        kernel(
            (models * chunks,),
            (lanes, height),
            (
                *(_or_null(n), _or_null(targets.labels), _or_null(targets.dense), w),
                *(np.int32(threshold is None), w.dtype.type(threshold or 0)),
                *(loss, w_sum, np.int32(mean), cursor, sums, partial, arrived),
                *(np.int64(models), np.int64(rows), np.int32(columns), np.int32(chunks)),
            ),
        )

    def shuffle(self, seeds, epoch, order):
        models, rows = order.shape
        low = (rows - 1).bit_length()  # bits of a row's number
        together = (models - 1).bit_length() + 32 + low <= KEY_BITS
        keys = cp.empty((models, rows), np.uint64)
        chunks = _chunks(rows, THREADS, ROWS_PER_THREAD, models)
        self._get("shuffle_keys", "shuffle_keys", lambda: cuda_sources.shuffle("float32"))(
            (models * chunks,),
            (THREADS,),
            (
                *(seeds, np.uint32(epoch), keys, np.int64(rows), np.int32(low)),
                *(np.int32(together), np.int32(chunks)),
            ),
        )
        # CuPy sorts one row by its digits, and several together by merging pairs of row and key.
        for row in [keys.reshape(-1)] if together else keys:
            row.sort()
        chunks = _chunks(order.size, THREADS, ROWS_PER_THREAD, 1)
        self._get("shuffle_order", "shuffle_order", lambda: cuda_sources.shuffle("float32"))(
            (chunks,),
            (THREADS,),
            (keys, order, np.int64(order.size), np.int32(low), np.int32(chunks)),
        )


def _launch_persistent(
    kernel, shared_bytes: int, block, args: persistent_kernel.LaunchArgs, steps: int
):
    """Launch the persistent kernel for the next `steps` batches of every network."""
    if args.factors is not None:
        raise ValueError(
            "the persistent kernel has one learning rate for all parameters: let networks with "
            "factors train by operations"
        )
    data, state, real = args.data, args.state, args.theta.dtype.type
    kernel(
        (len(args.theta),),
        block,
        (
            *(args.theta, *_pointers(args.state_buffers)),
            *(args.order, _stride(args.order), np.int64(args.positions), np.int32(args.batch)),
            *(data.x, _stride(data.x), _or_null(data.weight), _stride(data.weight)),
            *(_or_null(data.labels), _or_null(data.dense)),
            _stride(data.dense if data.labels is None else data.labels),
            *(real(args.targets.scale), real(args.targets.shift)),
            *(np.int32(args.mean), args.p, np.int32(args.penalised), args.seeds, args.dropout),
            *(args.hyper, _or_null(args.rates), args.first_rate, state.cursor, state.t),
            *(state.stopped_at, state.losses, state.weights, state.norm, state.scalars),
            *(np.int64(len(args.theta)), np.int64(len(state.losses)), np.int64(steps)),
        ),
        shared_mem=shared_bytes,
    )


def _tile(columns: int, itemsize: int):
    """The block (lanes, rows) over a tile of columns, and the number of tiles.

    A lane takes 128 bits where the row divides into such packs, else one element.
    """
    packs = _packs(columns, itemsize)
    lanes, height = _lanes(packs)
    return (lanes, height), _ceil_div(packs, lanes)


def _packs(columns: int, itemsize: int) -> int:
    """The number of loads that a row takes: of 128 bits where it divides into such packs."""
    pack = 16 // itemsize
    return columns // pack if columns % pack == 0 else columns


def _lanes(columns: int):
    """The block (lanes, rows) whose lanes, within one warp, share a row."""
    lanes = min(32, _power_of_two(columns))
    return lanes, THREADS // lanes


def _chunks(count: int, at_once: int, per_thread: int, others: int) -> int:
    """The number of blocks that share `count` rows or packs, each taking `at_once` at a time.

    A thread takes `per_thread` of them, or fewer until there are ENOUGH blocks; there are `others`
    times as many, for the networks and tiles.
    """
    fewest = max(_ceil_div(count, at_once * per_thread), _ceil_div(ENOUGH, others))
    return min(_ceil_div(count, at_once), fewest)


def _weight_blocks(rows: int, models: int) -> int:
    """The number of blocks of each network in which `gather` adds the weights of a batch."""
    return min(_chunks(rows, THREADS, SUMMED_ROWS_PER_THREAD, models), 2 * THREADS)


def _update_chunks(theta) -> int:
    models, size = theta.shape
    packs = size * theta.itemsize // 16
    return min(_chunks(packs, THREADS, ROWS_PER_THREAD, models), 8 * THREADS)


def _sparse_rows(x) -> tuple:
    """The arguments values, columns, starts, numbers and their stride."""
    return x.values, x.columns, x.starts, _or_null(x.numbers), _stride(x.numbers)


def _occurring(occurring) -> tuple:
    """The arguments occurs, features, units."""
    features = occurring.features
    return features, np.int64(features.shape[1]), np.int64(occurring.units)


def _noise(noise):
    """The arguments seeds, step, dropout, layer."""
    if noise is None:
        return NULL, NULL, NULL, np.uint32(0)
    return noise.seeds, noise.step, _or_null(noise.dropout), np.uint32(noise.layer)
