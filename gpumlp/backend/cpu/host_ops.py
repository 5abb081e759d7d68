"""The operations on the CPU by compiled C++: kernels/shared in the loops of kernels/cpu.

`gpumlp.backend.contract.Ops` says what each operation does and what its arguments mean.  Each is
one call of a library that is in the wheel, or compiled when first used
(gpumlp/backend/cpu/compiler.py).  What has no program, as an activation of the user's own, is done
by NumPy.
"""

from __future__ import annotations

import functools
import threading

import numpy as np

from gpumlp.backend.cpu import blas, compiler, host_sources, pool, sequence
from gpumlp.backend.reference.numpy_ops import NumpyOps
from gpumlp.backend.sources import SOURCE
from gpumlp.backend.sparse_rows import SparseRows
from gpumlp.functions.activation import activations

# Work is divided into items of about so many elements, and from so many on among threads: it has to
# take longer than they need to wake.
ITEM = 1 << 15
SHARED = 1 << 18
# Forward products of so few rows by so many weights are our own, as BLAS is slower.
FEW_ROWS, WEIGHTS = 8, 1 << 16

IDENTITY = activations["identity"]  # through which a fused loss goes back


class HostOps(NumpyOps):
    """`Ops` on NumPy arrays by compiled functions."""

    def __init__(self):
        super().__init__()
        # `calls`: of the sequence that is being captured; each thread captures its own.
        self._thread = threading.local()
        self._functions: dict = {}
        self._known_products: dict = {}

    def __reduce__(self):
        return HostOps, ()  # functions of a library can neither be copied nor pickled

    # ------------------------------------------------------------ repeating
    def capture(self, work):
        calls = sequence.joined(self._record(work), self._run())

        def replay():
            with np.errstate(all="ignore"):
                for call in calls:
                    call()

        return replay

    def threads(self, shape, objective=None):
        known = blas.find()
        if self._run() is None or known is None or known.threads is None:
            return 1
        programs = [self._products(shape.dtype), self._layer(IDENTITY, shape.dtype)]
        for f in shape.f[1:]:
            programs.append((self._rows if f.rows else self._layer)(f, shape.dtype))
        if any(shape.scaled):
            programs.append(self._scale("scale_gradient", shape.dtype))
        if shape.sparse:
            programs.append(self._sparse("sparse_product", shape.dtype))
        if objective is not None:
            programs.append(self._loss(objective.pair, shape.dtype))
        return pool.threads() if all(programs) else 1

    def parallel(self, works):
        with pool.alone():
            sequences = [self._record(work) for work in works]
        for call in sequence.in_parallel(sequences, self._run()):
            self._do(call)

    def _record(self, work) -> list:
        """The calls that work() would make, not carried out."""
        outer = getattr(self._thread, "calls", None)
        calls: list = []
        self._thread.calls = calls
        try:
            work()
        finally:
            self._thread.calls = outer
        return calls

    def _do(self, call):
        """Carry the call out; in a capture, record it instead."""
        calls = getattr(self._thread, "calls", None)
        if calls is None:
            with np.errstate(all="ignore"):
                if getattr(call, "pieces", 1) > 1:
                    (call,) = sequence.joined([call], self._run())
                call()
        else:
            calls.append(call)

    def _run(self):
        """The compiled function that makes the calls of a sequence, or None."""
        functions = self._get(("run",), host_sources.sequence)
        return functions and functions[0]

    def _by_numpy(self, operation, *args, **options):
        self._do(functools.partial(operation, self, *args, **options))

    # ------------------------------------------------------------ calling
    def _get(self, names, program, *options):
        """These functions of the library compiled from program(*options), to which dtypes go by
        name; None without it."""
        key = names, program, options
        if key not in self._functions:
            library = compiler.library(program_text(program, options))
            if library is None:
                compiler.complain()
            self._functions[key] = library and [_function(library, name) for name in names]
        return self._functions[key]

    def _call(self, functions, values, arrays, items, size):
        """Call functions[0] with a struct of 8-byte values; size: the elements that it works on.

        arrays: what the values point to, kept alive.  functions[1], if there is one, adds up what
        the items have left.
        """
        arguments = sequence.struct(values, arrays)
        function, end = functions
        pieces = min(items, pool.threads()) if size >= SHARED and self._run() else 1
        self._do(sequence.Compiled(function, arguments, pieces))
        if pieces > 1 and end is not None:
            self._do(sequence.Compiled(end, arguments))

    # ------------------------------------------------------------ one layer
    def gemm(self, a, b, out, *, ta=False, tb=False, alpha=1.0, beta=0.0):
        functions = alpha == 1 and beta == 0 and self._product(a, b, out)
        if not functions:
            self._by_numpy(NumpyOps.gemm, a, b, out, ta=ta, tb=tb, alpha=alpha, beta=beta)
            return
        address, function = functions
        models, rows, columns = out.shape
        inner, threads = a.shape[1 if ta else 2], 1
        places = _at(a), _stride(a), _at(b), _stride(b), _at(out), _stride(out)
        if tb and not ta and rows <= blas.SHARED_ROWS and columns * inner >= WEIGHTS:
            few = rows <= FEW_ROWS and self._get(("few_rows",), host_sources.few_rows, a.dtype)
            if few:
                chunks = _chunks(columns, inner)
                sizes = models, rows, columns, inner, chunks
                self._call((*few, None), (*places, *sizes), (a, b, out), models * chunks, b.size)
                return
            threads = pool.threads() if blas.has_one_thread() else 1
        values = address, *places, models, rows, columns, inner, ta, tb
        self._call((function, None), values, (a, b, out), threads, b.size)

    def _product(self, a, b, out):
        """BLAS's address, and the function that calls it; None if it cannot take the arrays."""
        if not (a.dtype == b.dtype == out.dtype and _dense(a) and _dense(b) and _dense(out)):
            return None
        return self._products(out.dtype)

    def _products(self, dtype):
        if dtype not in self._known_products:
            library, name, product = blas.find(), str(dtype), None
            if library is not None:
                functions = self._get(("gemm",), host_sources.gemm, name, library.integer)
                product = functions and (library.gemm[name], *functions)
            self._known_products[dtype] = product
        return self._known_products[dtype]

    def activate(self, f, z, b, n, p, noise=None):
        models, rows, columns = z.shape
        chunks = _chunks(rows, columns)
        if f.rows:
            functions = self._rows(f, z.dtype)
            if not functions:
                self._by_numpy(NumpyOps.activate, f, z, b, n, p, noise)
                return
            values = _at(z), _at(b), _stride(b), _at(n), f.name == "log_softmax"
            sizes = models, rows, columns, chunks
            self._call((*functions, None), (*values, *sizes), (z, b, n), models * chunks, z.size)
            return
        functions = self._layer(f, z.dtype)
        if not functions:
            self._by_numpy(NumpyOps.activate, f, z, b, n, p, noise)
            return
        values = (
            *(_at(z), _at(n), _at(b), _stride(b), _at(p), _stride(p)),
            *(*_noise(noise), models, rows, columns, chunks),
            *(0, 0, 0, 0, 0, 0),
        )
        arrays = z, n, b, p, noise
        self._call((functions[0], None), values, arrays, models * chunks, z.size)

    def backprop(self, f, z, n, delta, db, p, dp=None, noise=None):
        models, rows, columns = delta.shape
        functions = self._layer(f, delta.dtype)
        if not functions:
            self._by_numpy(NumpyOps.backprop, f, z, n, delta, db, p, dp, noise)
            return
        chunks = _chunks(rows, columns)
        parts = np.empty((models, chunks, columns + 1), delta.dtype)
        values = (
            *(_at(z), _at(n), 0, 0, _at(p), _stride(p)),
            *(*_noise(noise), models, rows, columns, chunks),
            *(_at(delta), _at(db), _stride(db), _at(dp), _stride(dp), _at(parts)),
        )
        arrays = z, n, delta, db, p, dp, noise, parts
        self._call(functions[1:], values, arrays, models * chunks, delta.size)

    def _layer(self, f, dtype):
        if not (f.built_in and isinstance(f.cuda, str)):
            return None
        names = "activate", "backprop", "backprop_end"
        return self._get(names, host_sources.layer, dtype, f)

    def _rows(self, f, dtype):
        return f.built_in and self._get(("activate_rows",), host_sources.rows, dtype)

    def sparse_product(self, x, WT, out):
        functions = self._sparse("sparse_product", out.dtype)
        if not functions:
            self._by_numpy(NumpyOps.sparse_product, x, WT, out)
            return
        models, rows, units = out.shape
        work = x.mean_non_zeros(rows) * units
        chunks = max(1, min(rows, work // ITEM))
        values = (*_sparse_rows(x), _at(WT), _stride(WT), _at(out), models, rows, units, chunks)
        arrays = *x.arrays, WT, out
        self._call((*functions, None), (*values, 0, 0), arrays, models * chunks, models * work)

    def sparse_gradient(self, x, delta, occurs, out):
        functions = self._sparse("sparse_gradient", out.dtype)
        if not functions:
            self._by_numpy(NumpyOps.sparse_gradient, x, delta, occurs, out)
            return
        models, rows, units = delta.shape
        work = x.mean_non_zeros(rows) * units
        shares = min(pool.threads(), max(1, work // ITEM))
        places = _at(out), _stride(out), _at(delta)
        sizes = models, rows, units, shares, _at(occurs), occurs.shape[1]
        values, arrays = (*_sparse_rows(x), *places, *sizes), (*x.arrays, delta, occurs, out)
        self._call((*functions, None), values, arrays, models * shares, models * work)

    def _sparse(self, name, dtype):
        return self._get((name,), host_sources.sparse, dtype)

    def scale(self, V, s, out):
        functions = self._scale("scale", V.dtype)
        if not functions:
            self._by_numpy(NumpyOps.scale, V, s, out)
            return
        values, items = _scaling(V, s, out)
        self._call((*functions, None), (*values, 0, 0, 0), (V, s, out), items, V.size)

    def scale_gradient(self, G, V, s, ds):
        functions = self._scale("scale_gradient", V.dtype)
        if not functions:
            self._by_numpy(NumpyOps.scale_gradient, G, V, s, ds)
            return
        values, items = _scaling(V, s, G)
        parts = np.empty((items, V.shape[2]), V.dtype)
        values = *values, _at(ds), _stride(ds), _at(parts)
        self._call(functions, values, (G, V, s, ds, parts), items, V.size)

    def _scale(self, name, dtype):
        names = (name, f"{name}_end") if name == "scale_gradient" else (name,)
        return self._get(names, host_sources.scale, dtype)

    # ------------------------------------------------------------ the loss
    def loss(self, pair, u, b, targets, w, w_sum, mean, p, delta, value):
        functions = self._loss(pair, u.dtype)
        if not functions:
            arguments = pair, u, b, targets, w, w_sum, mean, p, delta, value
            self._by_numpy(NumpyOps.loss, *arguments)
            return
        models, rows, columns = u.shape
        chunks = _chunks(rows, columns)
        parts = np.empty((models, chunks), np.float64)
        scale_shift = np.array([targets.scale, targets.shift], u.dtype)
        y = targets.dense if targets.labels is None else targets.labels
        values = (
            *(_at(u), _at(b), _stride(b)),
            *(_at(targets.labels), _at(targets.dense), _stride(y), _at(scale_shift)),
            *(_at(w), _stride(w), _at(w_sum), bool(mean), _at(p), _at(delta), _at(value)),
            *(_at(parts), models, rows, columns, chunks),
        )
        arrays = u, b, targets, scale_shift, w, w_sum, p, delta, value, parts
        self._call(functions, values, arrays, models * chunks, u.size)

    def _loss(self, pair, dtype):
        if not isinstance(pair.form.cuda, str):
            return None
        options = dtype, pair.form, pair.rows, pair.log_u
        return self._get(("loss", "loss_end"), host_sources.loss, *options)

    # ------------------------------------------------------------ the update
    def prepare_update(
        self, g, loss, w_sum, hyper, rates, first_rate, state, theta=None, decayed=0
    ):
        functions = self._get(
            ("prepare_update", "prepare_update_end"), host_sources.prepare_update, g.dtype
        )
        if not functions:
            arguments = g, loss, w_sum, hyper, rates, first_rate, state, theta, decayed
            self._by_numpy(NumpyOps.prepare_update, *arguments)
            return
        models, size = g.shape
        chunks = _chunks(size, 1)
        parts = np.empty((models, chunks, 2), np.float64)
        tables = state.cursor, state.t, state.stopped_at, state.losses, state.weights, state.norm
        values = (
            *(_at(g), _at(theta), decayed, _at(loss), _at(w_sum), _at(hyper), _at(rates)),
            *(_at(first_rate), *map(_at, tables), _at(state.scalars), _at(parts)),
            *(models, len(state.losses), _stride(state.losses), size, chunks),
        )
        arrays = g, theta, loss, w_sum, hyper, rates, first_rate, tables, state.scalars, parts
        self._call(functions, values, arrays, models * chunks, g.size)

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
        used = tuple(buffer is not None for buffer in state_buffers)
        functions = self._get(("update",), host_sources.update, theta.dtype, family, used)
        if not functions:
            arguments = family, theta, g, state_buffers, scalars, hyper, t, stopped_at, decayed
            self._by_numpy(NumpyOps.update, *arguments, factors, occurring)
            return
        models, size = theta.shape
        chunks = _chunks(size, 1)
        values = (
            *(_at(theta), _at(g), *(map(_at, state_buffers) if used else (0,))),
            *(_at(scalars), _at(hyper), _at(t), _at(stopped_at)),
            *(models, size, decayed, chunks),
            *((0, 0, 0) if factors is None else map(_at, factors)),
            *((0, 0, 0) if occurring is None else _occurring(occurring)),
        )
        arrays = theta, g, list(state_buffers), scalars, hyper, t, stopped_at, factors, occurring
        self._call((*functions, None), values, arrays, models * chunks, theta.size)

    def add_up(self, parts, out):
        functions = self._get(("add_up",), host_sources.prepare_update, out.dtype)
        if not functions:
            self._by_numpy(NumpyOps.add_up, parts, out)
            return
        chunks = _chunks(out.size, 1)
        values = _at(parts), _at(out), len(parts), out.size, chunks
        self._call((*functions, None), values, (parts, out), chunks, out.size)

    # ------------------------------------------------------------ minibatches
    def gather(self, data, order, cursor, batch, out):
        sparse = isinstance(data.x, SparseRows)
        types, names = (out.w.dtype, data.x.dtype), ("gather", "gather_end")
        functions = str(types[1]) in SOURCE and self._get(names, host_sources.gather, *types)
        if not functions:
            self._by_numpy(NumpyOps.gather, data, order, cursor, batch, out)
            return
        models, rows = out.w.shape
        columns = 0 if sparse else out.x.shape[2]
        x, numbers = (None, out.x.numbers) if sparse else (out.x, None)
        source = None if sparse else data.x
        outputs = 0 if data.dense is None else data.dense.shape[2]
        y = data.dense if data.labels is None else data.labels
        chunks = _chunks(rows, columns + 1)
        values = (
            *(_at(order), _stride(order), _at(cursor), batch, _at(source), _stride(source)),
            *(_at(data.labels), _at(data.dense), _stride(y), _at(data.weight)),
            *(_stride(data.weight), _at(x), _at(out.labels), _at(out.dense), _at(out.w)),
            *(_at(out.w_sum), models, rows, columns, outputs, chunks, _at(numbers)),
        )
        arrays = order, cursor, data, out
        self._call(functions, values, arrays, models * chunks, out.w.size * columns)

    def accumulate_metrics(self, n, targets, w, w_sum, loss, mean, threshold, cursor, sums):
        arguments = n, targets, w, w_sum, loss, mean, threshold, cursor, sums
        self._by_numpy(NumpyOps.accumulate_metrics, *arguments)

    def _shuffle_keys(self, seeds, epoch, rows):
        functions = self._get(("shuffle_keys",), host_sources.shuffle)
        if not functions:
            return super()._shuffle_keys(seeds, epoch, rows)
        models, chunks = len(seeds), _chunks(rows, 1)
        keys = np.empty((models, rows), np.uint64)
        values = _at(seeds), epoch, _at(keys), models, rows, chunks
        self._call((*functions, None), values, (seeds, keys), models * chunks, keys.size)
        return keys


def program_text(program, options) -> str:
    """program(*options), to which dtypes go by name."""
    return program(*(str(o) if isinstance(o, np.dtype) else o for o in options))


def _function(library, name):
    function = getattr(library, name)
    function.restype = None
    return function


def _chunks(rows: int, columns: int) -> int:
    """The number of items into which one network's rows are divided."""
    return max(1, min(rows, rows * columns // ITEM))


def _at(array) -> int:
    """The address of an array; 0 of an absent one."""
    return 0 if array is None else array.ctypes.data


def _dense(array) -> bool:
    """Whether the matrices are contiguous."""
    return array.flags.c_contiguous or array[0].flags.c_contiguous


def _stride(array) -> int:
    """Elements from network to network; 0 if the array is shared."""
    if array is None or len(array) == 1:
        return 0
    return array.strides[0] // array.itemsize


def _scaling(V, s, out):
    """The arguments of both functions of scale.cpp, and the number of items."""
    models, rows, columns = V.shape
    chunks = _chunks(rows, columns)
    places = (_at(V), _stride(V), _at(s), _stride(s), _at(out), _stride(out))
    return (*places, models, rows, columns, chunks), models * chunks


def _sparse_rows(x):
    """The arguments values, columns, starts, numbers and their stride."""
    return _at(x.values), _at(x.columns), _at(x.starts), _at(x.numbers), _stride(x.numbers)


def _occurring(occurring):
    """The arguments features, their number, units."""
    return _at(occurring.features), occurring.features.shape[1], occurring.units


def _noise(noise):
    """The arguments seeds, step, dropout, layer, first_row."""
    if noise is None:
        return 0, 0, 0, 0, 0
    drawn_from = _at(noise.seeds), _at(noise.step), _at(noise.dropout)
    return *drawn_from, noise.layer, noise.first_row
