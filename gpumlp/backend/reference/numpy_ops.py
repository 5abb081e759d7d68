"""The operations on NumPy arrays: the readable reference, which the CUDA kernels must equal.

`gpumlp.backend.contract.Ops` says what each operation does and what its arguments mean.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

import numpy as np

from gpumlp.backend.reference import philox
from gpumlp.backend.sources import SCALARS
from gpumlp.backend.sparse_rows import SparseRows
from gpumlp.functions.optimizer import HYPERS, optimizers

# Overflow and invalid values are noticed in the loss, not by a warning in the middle of a step.
_quiet = np.errstate(all="ignore")

# The update works in blocks of this many parameters, so that its intermediate results stay cached.
BLOCK = 1 << 14


class NumpyOps:
    """`Ops` on NumPy arrays."""

    device = "cpu"
    xp = np

    def __init__(self):
        self._drawn: dict = {}  # layer -> what its last dropout mask was drawn from, and the mask

    def on_device(self):
        return contextlib.nullcontext()

    def to_device(self, array):
        return np.asarray(array)

    def to_host(self, array):
        return np.asarray(array)

    def free_memory(self, enough=math.inf):
        return None

    def total_memory(self):
        limits = [math.inf]
        with contextlib.suppress(AttributeError, ValueError, OSError):  # not on Windows
            limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        for name in ("memory.max", "memory/memory.limit_in_bytes"):
            with contextlib.suppress(ValueError, OSError):  # "max" is no limit
                limits.append(int(Path("/sys/fs/cgroup", name).read_text()))
        return min(limits)

    def capture(self, work):
        return None

    def pace(self, long=False):
        pass  # all that was asked for has been done

    def threads(self, shape, objective=None):
        return 1

    def parallel(self, works):
        for work in works:
            work()

    def add_up(self, parts, out):
        np.add.reduce(parts, axis=0, out=out)

    def chip(self):
        return None

    def persistent_kernel(self, shape, at):
        raise NotImplementedError("networks train in shared memory on a GPU only")

    def transfers(self, size):
        raise NotImplementedError("copies run beside the computing on a GPU only")

    def export_algorithms(self):
        return {}

    def load_algorithms(self, algorithms):
        pass

    # ------------------------------------------------------------ one layer
    @_quiet
    def gemm(self, a, b, out, *, ta=False, tb=False, alpha=1.0, beta=0.0):
        a = a.swapaxes(1, 2) if ta else a
        b = b.swapaxes(1, 2) if tb else b
        if beta == 0:
            np.matmul(a, b, out=out)
            if alpha != 1:
                out *= alpha
        else:
            product = np.matmul(a, b)
            product *= alpha
            out *= beta
            out += product

    @_quiet
    def activate(self, f, z, b, n, p, noise=None):
        z += b[:, None, :]
        np.copyto(n, f.f(z, _parameters(f, p, noise, z)))
        if noise is not None and noise.dropout is not None:
            drop, scale = self._mask(noise, n)
            n *= scale
            np.copyto(n, 0, where=drop)

    @_quiet
    def backprop(self, f, z, n, delta, db, p, dp=None, noise=None):
        if noise is not None and noise.dropout is not None:
            drop, scale = self._mask(noise, n)
            delta *= scale
            np.copyto(delta, 0, where=drop)
            n /= scale  # n before dropout, where it was kept
        if f.learned:
            dp[...] = np.einsum("mbn,mbn->m", delta, f.dp(z))
        if not (f.built_in and f.name == "identity"):
            delta *= f.df(z, n, _parameters(f, p, noise, delta))  # (11)
        delta.sum(axis=1, out=db)  # (13)

    def _mask(self, noise, like):
        """Draw the elements that dropout sets to 0, and the factor 1 / (1 - probability) of each
        network; backward gets the mask that forward has drawn."""
        origin = (like.shape, *(a.tobytes() for a in (noise.step, noise.seeds, noise.dropout)))
        cached = self._drawn.get(noise.layer)
        if cached is None or cached[0] != origin:
            size = like[0].size
            bits = philox.bits(noise.seeds, size, noise.layer, noise.step, philox.DROPOUT)
            drop = (bits < noise.dropout[:, None]).reshape(like.shape)
            probability = noise.dropout.astype(like.dtype) * like.dtype.type(2.0**-32)
            cached = self._drawn[noise.layer] = origin, drop, (1 / (1 - probability))[:, None, None]
        return cached[1:]

    @_quiet
    def sparse_product(self, x, WT, out):
        for m in range(len(out)):
            out[m] = _matrix(x, m) @ WT[m]

    @_quiet
    def sparse_gradient(self, x, delta, occurs, out):
        for m in range(len(out)):
            matrix = _matrix(x, m)
            out[m, occurs[m] != 0] = 0
            occurs[m] = 0
            features = np.unique(matrix.indices)
            occurs[m, features] = 1
            out[m, features] = matrix[:, features].T @ delta[m]

    @_quiet
    def scale(self, V, s, out):
        np.multiply(V, s[:, None, :], out=out)

    @_quiet
    def scale_gradient(self, G, V, s, ds):
        np.einsum("mij,mij->mj", G, V, out=ds)
        G *= s[:, None, :]

    def cast_bf16(self, a, out):
        bits = a.view(np.uint32)
        even = (bits >> np.uint32(16)) & np.uint32(1)
        nearest = (bits + np.uint32(0x7FFF) + even) >> np.uint32(16)
        np.copyto(out, np.where(np.isnan(a), 0x7FFF, nearest), casting="unsafe")

    # ------------------------------------------------------------ the loss
    @_quiet
    def loss(self, pair, u, b, targets, w, w_sum, mean, p, delta, value):
        form = pair.form
        p = p[0]
        y = _targets(targets, u.shape, u.dtype)
        factor = np.where(w_sum == 0, 0, 1 / w_sum if mean else 1).astype(u.dtype)
        if b is not None:
            u = u + b[:, None, :]
        if pair.rows:
            log_p = u - u.max(axis=-1, keepdims=True)
            log_p -= np.log(np.exp(log_p).sum(axis=-1, keepdims=True))
            prob = np.exp(log_p)
            variable = log_p if pair.log_u else prob
            q = form.dl(variable, y, p) * (1 if pair.log_u else prob)
            d = q - prob * q.sum(axis=-1, keepdims=True)
        else:
            variable = u
            d = form.dl(u, y, p)
        row_loss = form.l(variable, y, p).sum(axis=-1)
        value[...] = np.where(w > 0, w * row_loss, 0).sum(axis=-1) * factor
        if delta is not None:
            weight = (w * factor[:, None])[..., None]
            delta[...] = np.where(weight > 0, weight * d, 0)

    # ------------------------------------------------------------ the update
    @_quiet
    def prepare_update(
        self, g, loss, w_sum, hyper, rates, first_rate, state, theta=None, decayed=0
    ):
        steps = len(state.losses)
        norm = np.sqrt(np.einsum("mp,mp->m", g, g))
        counts = (state.stopped_at == 0) & (w_sum != 0)
        finite = np.isfinite(loss) & np.isfinite(norm) & (w_sum > 0)
        go = counts & finite
        l1, l2, clip_norm, lr, per_weight = (
            hyper[:, HYPERS.index(name)]
            for name in ("L1", "L2", "CLIP_NORM", "LR", "DECAY_PER_WEIGHT")
        )
        decay = np.where(per_weight > 0, 1 / w_sum, 1)
        if theta is not None:
            W = theta[:, :decayed]
            squares, lengths = np.einsum("mp,mp->m", W, W), np.abs(W).sum(axis=1)
            loss = loss + decay * (0.5 * l2 * squares + l1 * lengths)
        members = np.arange(len(g))
        state.losses[state.cursor % steps, members] = loss
        state.weights[state.cursor % steps, members] = np.where(counts, w_sum, 0)
        state.norm[...] = norm
        state.cursor += 1
        state.stopped_at[counts & ~finite] = state.t[counts & ~finite] + 1

        rate = 1.0 if rates is None else rates[np.where(go, state.t - first_rate[0], 0)]
        clip = np.where((clip_norm > 0) & (norm > clip_norm), clip_norm / norm, 1)
        # A network that stands still keeps the learning rate of its last update.
        last = state.scalars[:, SCALARS.index("RATE")]
        state.scalars[...] = np.stack((go, clip, np.where(go, lr * rate, last), decay), axis=1)
        state.t += go

    @_quiet
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
        rule = optimizers[family].update_rule
        size = theta.shape[1]
        for m in np.flatnonzero(scalars[:, 0]):
            h = dict(zip(HYPERS, hyper[m].tolist(), strict=True))
            clip, lr, decay = scalars[m, 1:].tolist()
            for start in range(0, size, BLOCK):
                part = slice(start, min(start + BLOCK, size))
                gradient = g[m, part] * clip if clip != 1 else g[m, part].copy()
                value = theta[m, part]
                W, rate, share = _factors(factors, part, decayed)
                if h["L2"]:
                    gradient[W] += decay * share * h["L2"] * value[W]  # (14)
                if h["L1"]:
                    gradient[W] += decay * share * h["L1"] * np.sign(value[W])  # (14')
                state = [None if buffer is None else buffer[m, part] for buffer in state_buffers]
                moving = [value, *(buffer for buffer in state if buffer is not None)]
                before = [array.copy() for array in moving]
                if h["WEIGHT_DECAY"]:
                    value[W] *= 1 - lr * rate * h["WEIGHT_DECAY"] * share
                rule(value, gradient, state, h, lr * rate, int(t[m]))
                absent = _absent(occurring, m, part)
                stays = ~np.logical_and.reduce([np.isfinite(array) for array in moving])
                if (stays & ~absent).any():
                    stopped_at[m] = t[m]
                stays |= absent
                if stays.any():
                    for array, old in zip(moving, before, strict=True):
                        np.copyto(array, old, where=stays)

    # ------------------------------------------------------------ minibatches
    def gather(self, data, order, cursor, batch, out):
        rows, columns = out.w.shape[1], len(order)
        for m in range(len(out.w)):
            start = int(cursor[m]) * batch
            index = order[m if columns > 1 else 0, start : start + rows]
            padding = index < 0
            if isinstance(data.x, SparseRows):
                out.x.numbers[m] = index
            else:
                _take(data.x, m, index, out.x[m])
                out.x[m, padding] = 0
            if data.labels is not None:
                _take(data.labels, m, index, out.labels[m])
            if data.dense is not None:
                _take(data.dense, m, index, out.dense[m])
            if data.weight is None:
                out.w[m] = 1
            else:
                _take(data.weight, m, index, out.w[m])
            out.w[m, padding] = 0
        out.w.sum(axis=1, out=out.w_sum)

    @_quiet
    def accumulate_metrics(self, n, targets, w, w_sum, loss, mean, threshold, cursor, sums):
        members = np.arange(len(loss))
        right = 0 if n is None else (w * _right(n, targets, threshold)).sum(axis=1)
        sums[cursor, members, 0] = loss * w_sum if mean else loss
        sums[cursor, members, 1] = w_sum
        sums[cursor, members, 2] = right
        cursor += 1

    def shuffle(self, seeds, epoch, order):
        keys = self._shuffle_keys(seeds, epoch, order.shape[1])
        keys.sort(axis=1)
        np.bitwise_and(keys, np.uint64(0xFFFFFFFF), out=order, casting="unsafe")

    def _shuffle_keys(self, seeds, epoch, rows):
        """uint64 (M, rows): 32 random bits above the row's number."""
        keys = philox.bits(seeds, rows, 0, epoch, philox.SHUFFLE).astype(np.uint64)
        keys <<= np.uint64(32)
        keys |= np.arange(rows, dtype=np.uint64)
        return keys


def _matrix(x, m):
    """The sparse rows of network m's batch, as a matrix of SciPy's."""
    from scipy import sparse  # which takes longer to import than the rest together

    first = x.starts[0]  # not 0 of a slice
    values, columns, starts = x.values[first:], x.columns[first:], x.starts - first
    if x.numbers is None:
        return sparse.csr_matrix((values, columns, starts), (len(starts) - 1, x.width))
    starts = np.append(starts, starts[-1])  # number -1 is the last row, which is empty
    matrix = sparse.csr_matrix((values, columns, starts), (len(starts) - 1, x.width))
    return matrix[x.numbers[m if len(x) > 1 else 0]]


def _absent(occurring, m, part):
    """Which parameters of a block belong to features that do not occur."""
    index = np.arange(part.start, part.stop)
    if occurring is None:
        return np.zeros(len(index), bool)
    feature, features = index // occurring.units, occurring.features[m]
    return (feature < len(features)) & (features.take(feature, mode="clip") == 0)


def _take(source, m, index, out):
    """out <- the indexed rows of network m's part of source, in out's dtype."""
    rows = source[m if len(source) > 1 else 0]
    if rows.dtype == out.dtype:
        np.take(rows, index, axis=0, out=out, mode="wrap")  # -1, the padding, is overwritten later
    else:
        out[...] = rows[index]


def _right(n, targets, threshold):
    """Whether each sample's class is right, (M, B)."""
    if targets.dense is None:
        return n.argmax(axis=2) == targets.labels
    if threshold is None:
        return n.argmax(axis=2) == targets.dense.argmax(axis=2)
    return ((n > threshold) == (targets.dense > 0.5)).all(axis=2)


def _parameters(f, p, noise, like):
    """The parameters of f and df: both (1 or M, 1, 1), or (M, B, N) where slopes are drawn."""
    if f.random and noise is not None:
        random = philox.bits(noise.seeds, like[0].size, noise.layer, noise.step, philox.SLOPE)
        lower, upper = p[:, 0, None, None], p[:, 1, None, None]
        slope = lower + philox.uniform(random, like.dtype).reshape(like.shape) * (upper - lower)
        return slope, slope
    return p[:, 0, None, None], p[:, 1, None, None]


def _factors(factors, part, decayed):
    """The slice of a block's parameters that decay, and factors on learning rate and decay."""
    if factors is None:
        return slice(max(0, min(decayed, part.stop) - part.start)), 1.0, 1.0
    of_parameter = np.searchsorted(factors.ends, np.arange(part.start, part.stop), "right")
    return slice(None), factors.rate[of_parameter], factors.decay[of_parameter]


def _targets(targets, shape, dtype):
    """y (1 or M, B, N) as the loss sees it: one-hot from labels, scaled and shifted."""
    if targets.dense is not None:
        y = targets.dense
    elif shape[-1] == 1:
        y = targets.labels[..., None].astype(dtype)
    else:
        y = (targets.labels[..., None] == np.arange(shape[-1])).astype(dtype)
    if targets.scale == 1 and targets.shift == 0:
        return y
    return targets.scale * y + targets.shift
