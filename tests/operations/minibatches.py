"""gather and shuffle."""

import numpy as np

from gpumlp.backend.contract import Batch, Data
from gpumlp.backend.sources import SOURCE

from . import assert_close, assert_same, empty, send
from .noise import SEEDS, SHUFFLE, reference_bits

SOURCES = tuple(SOURCE)


def make_source(source, networks, rows, columns):
    """Numbers over the whole range of the source's type, and exactly representable as float32."""
    generator = np.random.default_rng([networks, rows, columns])
    shape = networks, rows, columns
    if source.startswith("float"):
        return generator.standard_normal(shape).astype(np.float32).astype(source)
    limits = np.iinfo(source)
    bits = min(limits.bits, 24)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if limits.min else (0, 2**bits)
    step = 2 ** (limits.bits - bits)
    return (generator.integers(low, high, shape) * step).astype(source)


class Minibatch:
    """Buffers for one, full of what must not be left in them."""

    def __init__(self, ops, dtype, models, rows, columns, labels, outputs):
        self.out = Batch(
            x=empty(ops, (models, rows, columns), dtype),
            labels=send(ops, np.full((models, rows), -7), np.int32) if labels else None,
            dense=empty(ops, (models, rows, outputs), dtype) if outputs else None,
            w=empty(ops, (models, rows), dtype),
            w_sum=empty(ops, (models,), dtype),
        )


def check_gather(
    ops, dtype, models, source, columns, *, targets="labels", weighted=True, shared=False, rows=70
):
    """One batch of each network, at different places of the epoch; some rows are padding."""
    networks, data_rows, outputs = (1 if shared else models), rows + 20, 3
    generator = np.random.default_rng(columns)
    x = make_source(source, networks, data_rows, columns)
    labels = generator.integers(0, 10, (networks, data_rows)) if targets == "labels" else None
    dense = generator.random((networks, data_rows, outputs)) if targets == "dense" else None
    weight = generator.random((networks, data_rows)) if weighted else None
    order = np.stack([generator.permutation(data_rows) for _ in range(networks)])
    order = np.concatenate((order, order[:, ::-1], order), axis=1)
    order[:, 5] = order[:, rows - 1] = order[:, rows + 3] = -1
    cursor = np.array([1, 0, 2])[:models]
    if dense is not None:
        dense = dense.astype(dtype)
    weight = None if weight is None else weight.astype(dtype)

    index = np.stack(
        [
            order[m if networks > 1 else 0, cursor[m] * rows : (cursor[m] + 1) * rows]
            for m in range(models)
        ]
    )
    used = index >= 0

    def rows_of(array):
        """The gathered rows, (M, B, ...)."""
        return np.stack([array[m if networks > 1 else 0, index[m]] for m in range(models)])

    expected_x = np.where(used[..., None], rows_of(x.astype(np.float64)), 0)
    w = np.where(used, 1 if weight is None else rows_of(weight), 0)
    data = Data(
        send(ops, x),
        None if labels is None else send(ops, labels, np.int32),
        None if dense is None else send(ops, dense),
        None if weight is None else send(ops, weight),
    )
    has_labels, width = labels is not None, 0 if dense is None else outputs
    out = Minibatch(ops, dtype, models, rows, columns, has_labels, width).out
    ops.gather(data, send(ops, order, np.int32), send(ops, cursor, np.int64), rows, out)
    assert_same(ops, out.x, expected_x.astype(dtype), "x")
    assert_same(ops, out.w, w.astype(dtype), "w")
    if weighted:
        assert_close(ops, out.w_sum, w.sum(axis=1), dtype, 10, "w_sum")
    else:
        assert_same(ops, out.w_sum, w.sum(axis=1), "w_sum")
    if labels is not None:
        np.testing.assert_array_equal(ops.to_host(out.labels)[used], rows_of(labels)[used])
    if dense is not None:
        np.testing.assert_array_equal(ops.to_host(out.dense)[used], rows_of(dense)[used])


def check_ragged_batch(ops, dtype):
    """The last batch of an epoch is shorter than the others: its rows start at cursor * batch."""
    x = np.arange(20.0).reshape(1, 10, 2).astype(dtype)
    order = np.arange(10)[None, ::-1]
    out = Minibatch(ops, dtype, 1, 2, 2, False, 0).out
    cursor = send(ops, [2], np.int64)
    ops.gather(Data(send(ops, x), None, None, None), send(ops, order, np.int32), cursor, 4, out)
    assert_same(ops, out.x, x[:, [1, 0]])
    assert_same(ops, out.w_sum, np.array([2], dtype))


class OnDevice:
    """Host memory behind the interface by which device arrays are passed on, without a copy."""

    def __init__(self, array):
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "version": 3,
        }


def check_gather_far(ops, dtype="float32"):
    """Rows beyond 2^31 elements: data of 2.3 GB, of which only these rows are touched."""
    rows, columns = 70_000, 32_768
    at = [3, 65_535, 65_536, 69_999]  # around 2^31 / columns
    if ops.device == "cpu" or not hasattr(ops.xp, "__file__"):  # the latter is CuPy's stand-in
        x = np.zeros((1, rows, columns), np.uint8)  # the system gives memory where it is touched
        x[0, at, :5] = np.arange(20).reshape(4, 5)
        given = x if ops.device == "cpu" else ops.xp.asarray(OnDevice(x))
    else:
        given = ops.xp.zeros((1, rows, columns), np.uint8)
        for i, row in enumerate(at):
            given[0, row, :5] = ops.xp.arange(5 * i, 5 * i + 5, dtype=np.uint8)
    out = Minibatch(ops, dtype, 1, 4, columns, False, 0).out
    data, order = Data(given, None, None, None), send(ops, [at], np.int32)
    ops.gather(data, order, send(ops, [0], np.int64), 4, out)
    assert_same(ops, out.x[0, :, :5], np.arange(20, dtype=dtype).reshape(4, 5))


def check_shuffle(ops, models, rows, epoch):
    """Every row once, by its random bits; a network beyond those of SEEDS has one of its own."""
    seeds = [*SEEDS, *range(10**9, 10**9 + models)][:models]
    order = send(ops, np.full((models, rows), -7), np.int32)
    ops.shuffle(send(ops, seeds, np.uint64), epoch, order)
    for m in range(models):
        bits = reference_bits(seeds[m], rows, 0, epoch, SHUFFLE)
        expected = np.lexsort((np.arange(rows), bits))
        assert_same(ops, order[m], expected, f"network {m}")
