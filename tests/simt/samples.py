"""What the shim is tested with: small kernels, a check for each, and defects to seed into them.

`python -m tests.simt.samples ORDER all` runs them all in a process of its own,
`python -m tests.simt.samples ORDER SAMPLE [DEFECT]` one; with a sanitizer, through
`simt.sanitize.run`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from . import Module, build, build_all
from .sample_kernels import (
    AXPY,
    COLUMN_SUM,
    GATHER,
    INTEGERS,
    LANES,
    LAST_BLOCK,
    SOFTMAX,
    TRANSPOSE,
)


@dataclass(frozen=True)
class Defect:
    """A change to a sample's text, and what catches it: "plain", "address" or "thread"."""

    caught_by: str
    right: str
    wrong: str


@dataclass(frozen=True)
class Sample:
    """A program, a check that raises AssertionError on a wrong result, and ways to break it."""

    text: str
    check: Callable[[Module, int], None]  # (module, order)
    defects: dict[str, Defect] = field(default_factory=dict)

    def broken(self, defect: str) -> str:
        right, wrong = self.defects[defect].right, self.defects[defect].wrong
        assert self.text.count(right) == 1, f"{defect}: {right!r} must occur once"
        return self.text.replace(right, wrong)


def random(*shape: int, dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def assert_close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------------ barriers and shared memory


def check_column_sum(module: Module, order: int) -> None:
    kernel = module.get_function("column_sum")
    for rows, columns in (1, 1), (33, 37), (5, 70):
        x, out = random(rows, columns), np.zeros(columns, np.float32)
        grid = ((columns + 31) // 32,)
        kernel(grid, (32, 8), (x, out, np.int32(rows), np.int32(columns)), order=order)
        assert_close(out, x.sum(0))


column_sum = Sample(
    COLUMN_SUM,
    check_column_sum,
    {
        "missing barrier after the store": Defect(
            "plain",
            "    __syncthreads();                                             // stored",
            "",
        ),
        "missing barrier in the tree": Defect(
            "plain",
            "        __syncthreads();                                         // halved",
            "",
        ),
        "barrier in a divergent branch": Defect(
            "plain",
            "    __syncthreads();                                             // stored",
            "    if (threadIdx.y == 3) { __syncthreads();\n } else __syncthreads();",
        ),
        "barrier that some threads skip": Defect(
            "plain",
            "    __syncthreads();                                             // stored",
            "    if (threadIdx.y < 4) __syncthreads();",
        ),
        "exit before a barrier": Defect(
            "plain",
            "    float sum = 0.f;",
            "    float sum = 0.f; if (j >= columns) return;",
        ),
        "shared memory that nobody wrote": Defect(
            "plain",
            "    tile[threadIdx.y][threadIdx.x] = sum;",
            "    if (threadIdx.y < rows) tile[threadIdx.y][threadIdx.x] = sum;",
        ),
        "shared array too small": Defect("address", "tile[8][33]", "tile[7][33]"),
        "shared row too short": Defect("address", "tile[8][33]", "tile[8][31]"),
        "a read past the array": Defect("address", "    if (j < columns)\n", ""),
        "a block writes past the array": Defect(
            "address",
            "threadIdx.y == 0 && j < columns",
            "threadIdx.y == 0",
        ),
        "an index overflows": Defect(
            "address", "float sum = 0.f;", "float sum = rows * 100000000; sum -= sum;"
        ),
        "two threads write one element": Defect(
            "thread",
            "if (threadIdx.y == 0 && j < columns) out[j]",
            "if (threadIdx.y < 2 && j < columns) out[j]",
        ),
        "two blocks write one element": Defect(
            "thread",
            "int j = blockIdx.x * 32 + threadIdx.x;",
            "int j = threadIdx.x;",
        ),
    },
)


def check_gather(module: Module, order: int) -> None:
    x, index = random(9, 37, dtype=np.float64), np.array([8, 0, 3, 3, 1, 7, 2], np.int32)
    out = np.zeros((7, 37))
    arguments = (x, index, out, np.int32(7), np.int32(37))
    module.get_function("gather")((2,), (32, 4), arguments, 4 * 4, order=order)
    np.testing.assert_array_equal(out, x[index])


gather = Sample(
    GATHER,
    check_gather,
    {
        "missing barrier": Defect("plain", "    __syncthreads();\n", ""),
        "a write past dynamic shared memory": Defect("address", "if (t < blockDim.y &&", "if ("),
    },
)

# ------------------------------------------------------------------ warps


def check_softmax(module: Module, order: int) -> None:
    kernel = module.get_function("softmax")
    for rows, columns in (1, 1), (5, 37), (33, 10):
        x, numerator = random(rows, columns), np.zeros(rows, np.float32)
        powers = np.exp(x - x.max(1, keepdims=True))
        grid = ((rows * 32 + 95) // 96,)
        kernel(grid, (96,), (x, numerator, np.int32(rows), np.int32(columns)), order=order)
        assert_close(x, powers / powers.sum(1, keepdims=True))
        assert_close(numerator, powers[:, 0])


softmax = Sample(
    SOFTMAX,
    check_softmax,
    {
        "shuffle from a lane that has exited": Defect(
            "plain",
            "if (r >= rows) return;",
            "if (r >= rows || lane >= 16) return;",
        ),
        "shuffle in a branch that some lanes skip": Defect(
            "plain",
            "    total = warp_sum(total);",
            "    if (lane < 20) total = warp_sum(total); else total = warp_sum(total) + 0.f;\n"
            "    if (lane < 20) __syncwarp();",
        ),
        "a mask without the calling lane": Defect(
            "plain",
            "value += __shfl_xor_sync(0xffffffffu, value, offset)",
            "value += __shfl_xor_sync(0x0000ffffu, value, offset)",
        ),
        "lanes meet in different calls": Defect(
            "plain",
            "    __syncwarp();\n",
            "    if (lane & 1) __syncwarp();\n    else warp_max(0.f);\n",
        ),
        "missing __syncwarp": Defect("thread", "    __syncwarp();\n", ""),
    },
)


def check_lanes(module: Module, order: int) -> None:
    x, t = np.arange(32, dtype=np.int32) * 7 - 50, np.arange(32)
    out, wide, votes = np.zeros((32, 8), np.int32), np.zeros(32), np.zeros(1, np.uint32)
    module.get_function("lanes")((1,), (32,), (x, out, wide, votes), order=order)
    sources = [
        np.full(32, 3),
        t // 4 * 4 + 1,
        t ^ 1,
        # A partner in an earlier group is read, one in a later group is not.
        np.where(t >= 16, t ^ 16, t),
        np.where(t % 8 + 2 < 8, t + 2, t),
        np.where(t % 8 >= 2, t - 2, t),
        np.where(t < 16, t ^ 1, t ^ 2),
    ]
    np.testing.assert_array_equal(out[:, :7], x[np.array(sources)].T)
    np.testing.assert_array_equal(out[:, 7], 1)
    np.testing.assert_array_equal(wide, 1 / (np.minimum(t + 1, 31) + 1))
    assert votes[0] == sum(1 << int(lane) for lane in t[x > 0])

    values = random(64)
    result = np.zeros(1, np.dtype([("value", "f4"), ("lane", "i4"), ("pad", "i8")]))
    module.get_function("best")((1,), (64,), (values, result), order=order)
    assert result["lane"] == values.argmax() and result["value"] == values.max()


lanes = Sample(LANES, check_lanes)

# ------------------------------------------------------------------ vectors and grid-stride loops


def check_axpy(module: Module, order: int) -> None:
    for size in 1, 3, 37, 1000:
        x, y = random(size), random(size)
        expected = y + np.float32(0.5) * x
        arguments = (x, y, np.int64(size), np.float32(0.5))
        module.get_function("axpy")((2,), (64,), arguments, order=order)
        assert_close(y, expected)


axpy = Sample(
    AXPY,
    check_axpy,
    {
        "a misaligned 128-bit access": Defect(
            "address",
            "reinterpret_cast<const float4*>(x)[i]",
            "reinterpret_cast<const float4*>(x + 1)[i]",
        ),
        "the vector loop takes the tail too": Defect(
            "address", "vectors = size / 4", "vectors = (size + 3) / 4"
        ),
    },
)


def check_transpose(module: Module, order: int) -> None:
    x = random(4, 4)
    out = np.zeros(4, "f4,f4,f4,f4")
    module.get_function("transpose")((1,), (16,), (x, out), order=order)
    np.testing.assert_array_equal(out.view(np.float32).reshape(4, 4), x.T)


transpose = Sample(
    TRANSPOSE,
    check_transpose,
    {
        "128-bit access to shared memory of 4-byte alignment": Defect(
            "address", "alignas(16) ", ""
        ),
    },
)

# ------------------------------------------------------------------ atomics, and between blocks


def run_last_block(module: Module, order: int) -> int:
    """Check the sums, twice in a row; returns which block was the last."""
    blocks, threads = 5, 37
    x = random(blocks, threads)
    partial, spread = np.zeros(blocks, np.float32), np.zeros((blocks, threads), np.float32)
    tickets, who = np.zeros(1, np.uint32), np.zeros(1, np.int32)
    total, columns = np.zeros(1, np.float32), np.zeros(threads, np.float32)
    for _ in range(2):
        arguments = (x, partial, spread, tickets, total, columns, who)
        module.get_function("last_block")((blocks,), (threads,), arguments, order=order)
        assert_close(total, x.sum())
        assert_close(columns, x.sum(0))
    return int(who[0])


def check_last_block(module: Module, order: int) -> None:
    run_last_block(module, order)


last_block = Sample(
    LAST_BLOCK,
    check_last_block,
    {
        "no fence by the thread that wrote": Defect(
            "thread",
            "        __threadfence();                                  // by the one that wrote",
            "",
        ),
        "a write between fence and ticket": Defect(
            "thread",
            "        partial[b] = sum;\n"
            "        __threadfence();                                  // by the one that wrote",
            "        __threadfence();\n        partial[b] = sum;",
        ),
        "no fence after the ticket": Defect(
            "thread",
            "        __threadfence();                                  // by the one that counted",
            "",
        ),
        "a ticket that is no atomic": Defect(
            "thread",
            "atomicAdd(tickets, 1u) == blocks - 1",
            "(*tickets)++ == blocks - 1",
        ),
    },
)


def check_integers(module: Module, order: int) -> None:
    x = np.random.default_rng(1).integers(0, 2**32, 500, dtype=np.uint32)
    histogram, total = np.zeros(4, np.uint32), np.zeros(1, np.uint64)
    largest, high = np.zeros(1, np.int32), np.zeros_like(x)
    arguments = (x, np.int64(x.size), histogram, total, largest, high)
    module.get_function("integers")((3,), (40,), arguments, order=order)
    np.testing.assert_array_equal(histogram, np.bincount(x >> 30))
    assert total[0] == x.astype(np.uint64).sum() and largest[0] == x.max() >> 1
    np.testing.assert_array_equal(high, (x.astype(np.uint64) * 0xD2511F53) >> np.uint64(32))


integers = Sample(
    INTEGERS,
    check_integers,
    {
        "plain addition to a shared counter": Defect(
            "thread",
            "atomicAdd(&counts[x[i] >> 30], 1u)",
            "counts[x[i] >> 30] += 1u",
        ),
        "plain addition to a global counter": Defect(
            "thread",
            "atomicAdd(&histogram[threadIdx.x], counts[threadIdx.x])",
            "histogram[threadIdx.x] += counts[threadIdx.x]",
        ),
    },
)

SAMPLES = {
    "column_sum": column_sum,
    "gather": gather,
    "softmax": softmax,
    "lanes": lanes,
    "axpy": axpy,
    "transpose": transpose,
    "last_block": last_block,
    "integers": integers,
}


def run(name: str, defect: str | None, order: int) -> None:
    sample = SAMPLES[name]
    text = sample.broken(defect) if defect else sample.text
    sample.check(build(text, name=f"{name}.cu"), order)


def main(order: int, name: str, defect: str | None = None) -> None:
    if name != "all":
        run(name, defect, order)
        return
    programs = [(f"{each}.cu", sample.text) for each, sample in SAMPLES.items()]
    for module, sample in zip(build_all(programs), SAMPLES.values(), strict=True):
        sample.check(module, order)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
