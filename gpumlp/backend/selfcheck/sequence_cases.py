"""The cases of copies, transfers and captured sequences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpumlp.backend.selfcheck.case import DTYPES, MODELS, Case, Side, case, constants
from gpumlp.functions.activation import activations


def copies(side: Side):
    """Arrays to the device and back, by way of page-locked memory and straight."""
    sizes = 1029, (1 << 18) + 3
    return [side.ops.to_device(side.rng.standard_normal(size).astype("f4")) for size in sizes]


def transfers(side: Side):
    """Two rounds of copies beside the computing."""
    data = side.rng.integers(0, 256, (4, 4099)).astype(np.uint8)
    if side.exact:
        return list(data)
    results, both = [], side.ops.transfers(data.shape[1])
    for i, row in enumerate(data):
        transfer = both[i % 2]
        transfer.wait()
        transfer.host[:] = row
        transfer.send()
        results.append(transfer.array.copy())
        transfer.release()
    return results


def capture(side: Side):
    """A product, f and a sum, run and then replayed twice."""
    a, b, c = (side.normal(MODELS, *shape) for shape in ((37, 5), (5, 13), (13, 7)))
    z, out, bias = side.empty(MODELS, 37, 13), side.normal(MODELS, 37, 7), side.normal(MODELS, 13)
    f = activations["relu"]
    p = constants(side, f)

    def work():
        side.ops.gemm(a, b, z)
        side.ops.activate(f, z, bias, z, p)
        side.ops.gemm(z, c, out, beta=1.0)

    work()
    replay = side.ops.capture(work) or work
    replay()
    replay()
    return [out]


def cases() -> Iterator[Case]:
    yield case("copies", "4 KiB and 1 MiB", "float32", copies, factor=0.0, first=True)
    yield case("transfers", "two in turn", "float32", transfers, factor=0.0, first=True, gpu=True)
    for dtype in DTYPES:
        yield case("capture", "run and replayed twice", dtype, capture, first=True)
