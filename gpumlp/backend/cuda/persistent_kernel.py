"""The layout of networks that train in an SM's shared memory, and whether they fit into it.

kernels/cuda/persistent.cu is compiled for one `Shape`; `places` works out its memory, and the
program is made from that, so that both count the same bytes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from gpumlp.backend.contract import Array, Data, Factors, State, Targets
from gpumlp.backend.layout import Layout
from gpumlp.functions.activation import Activation, activations
from gpumlp.functions.loss import OutputLoss, losses, pair

PACK = 16  # bytes: the widest access to shared memory
TILES = (64, 32, 16, 8)  # rows of a batch that are worked on at a time, the best first
STATIC = 2048  # bytes at most of a block's other shared memory: sums, the rows of a tile

# The same where an SM holds two blocks, one of which computes while the other waits for data or at
# a barrier: fewer rows would leave threads idle.
TILES_OF_TWO = (64, 32)


class Chip(NamedTuple):
    """The numbers of a GPU that decide whether networks train in shared memory."""

    multiprocessors: int
    double: int  # how many times as fast float32 is as float64
    block: int  # bytes of shared memory that one block may have
    multiprocessor: int  # and an SM has
    reserved: int  # and each block takes of them besides


class Shape(NamedTuple):
    """The networks that a program is compiled for; tuples of layers have None for layer 0."""

    dtype: str
    sizes: tuple[int, ...]
    f: tuple[Activation | None, ...]
    dropout: tuple[bool, ...]
    pair: OutputLoss
    family: str
    state_buffers: tuple[bool, ...]  # which state buffers of the update rule are in use
    source: str  # the dtype of the data

    @property
    def itemsize(self) -> int:
        return 4 if self.dtype == "float32" else 8

    @property
    def layers(self) -> range:
        return range(1, len(self.sizes))

    def keeps_z(self, k: int) -> bool:
        """Whether backward needs z^(k): not where the loss is computed from it."""
        f = self.f[k]
        assert f is not None
        return f.df_from == "z" and not (k == self.layers[-1] and self.pair.fused)

    @property
    def layout(self) -> Layout:
        """The layout of a network's row in the buffers of all networks."""
        learned = tuple(k for k in self.layers if self.f[k].learned)  # type: ignore[union-attr]
        return Layout(self.sizes, learned, self.itemsize)


class Places(NamedTuple):
    """Where each array begins in the block's dynamic shared memory, in elements.

    Parameters, W, b and slope, are places in one network's numbers, of which there are
    theta, its gradient, and the state buffers in use.  n[0] is x; z only where it is kept.
    """

    tile: int
    leads: tuple[int, ...]  # elements from row to row of n^(k), and of W^(k+1)
    W: dict[int, int]
    b: dict[int, int]
    slope: dict[int, int]
    numbers: int
    decayed: int
    n: dict[int, int]
    z: dict[int, int]
    bytes: int
    blocks: int = 1  # of an SM


def lead(columns: int, itemsize: int) -> int:
    """Elements from row to row: an odd number of packs, so that a column's packs in neighbouring
    rows are in different banks."""
    pack = PACK // itemsize
    packs = math.ceil(columns / pack)
    return (packs + 1 - packs % 2) * pack


def places(shape: Shape, tile: int) -> Places:
    """Place the arrays of a network, whose batches are worked on `tile` rows at a time."""
    sizes, layers, pack = shape.sizes, shape.layers, PACK // shape.itemsize
    leads = tuple(lead(size, shape.itemsize) for size in sizes)
    taken = 0

    def take(length: int) -> int:
        nonlocal taken
        start = taken
        taken += math.ceil(length / pack) * pack
        return start

    W = {k: take(sizes[k] * leads[k - 1]) for k in layers}
    decayed = taken
    b = {k: take(sizes[k]) for k in layers}
    slope = {k: take(1) for k in shape.layout.slope}
    numbers = taken
    taken *= 2 + sum(shape.state_buffers)
    n = {k: take(tile * leads[k]) for k in range(len(sizes))}
    z = {k: take(tile * leads[k]) for k in layers if shape.keeps_z(k)}
    return Places(tile, leads, W, b, slope, numbers, decayed, n, z, bytes=taken * shape.itemsize)


def fit(shape: Shape, chip: Chip) -> Places | None:
    """The places that fit best into the chip's shared memory; or None."""
    # In float64 two blocks would have too few registers.
    half = chip.multiprocessor // 2 - chip.reserved
    two = min(chip.block, half) if shape.dtype == "float32" else 0
    for limit, tiles, blocks in ((two, TILES_OF_TWO, 2), (chip.block, TILES, 1)):
        for tile in tiles:
            candidate = places(shape, tile)
            if candidate.bytes + STATIC <= limit:
                return candidate._replace(blocks=blocks)
    return None


def carveout(at: Places, chip: Chip) -> int:
    """Per cent of an SM's shared memory that its blocks need; the rest serves as a cache.

    A driver that is told nothing may leave room for one block where two are meant.
    """
    needed = at.blocks * (at.bytes + STATIC + chip.reserved)
    return math.ceil(100 * needed / chip.multiprocessor)


def samples(dtype: str):
    """Yield (label, Shape) of some networks, for the tools that compile the programs."""
    adam, rmsprop = ("Adam", (True, True)), ("RMSprop", (True, True, True))
    cases = {
        "digits": ((64, 64, 10), ["relu"], "softmax", "cross_entropy", 0.0, adam),
        "noise": ((30, 48, 32, 5), ["rrelu", "gelu"], "log_softmax", "focal", 0.5, rmsprop),
        "slopes": ((5, 7, 6, 1), ["prelu", "mish"], "prelu", "huber", 0.0, ("SGD", (True,))),
        "deep": ((8, 24, 24, 24, 3), ["tanh"] * 3, "sigmoid", "focal", 0.0, ("SGD", (False,))),
        "alone": ((64, 96, 10), ["silu"], "softmax", "kl_divergence", 0.2, adam),
    }
    for label, (sizes, hidden, output, loss, dropout, (family, state_buffers)) in cases.items():
        f = [activations[name] for name in (*hidden, output)]
        drops = (False, *(dropout > 0 for _ in hidden), False)
        form = pair(losses[loss], f[-1])
        yield label, Shape(dtype, sizes, (None, *f), drops, form, family, state_buffers, dtype)


H100 = Chip(132, 2, block=227 << 10, multiprocessor=228 << 10, reserved=1 << 10)


class LaunchArgs(NamedTuple):
    """The arguments of a fit's launches; see `contract.Ops`."""

    theta: Array
    state_buffers: list[Array | None]
    data: Data
    order: Array
    positions: int  # rows of an epoch
    batch: int
    targets: Targets  # scale and shift
    mean: bool
    p: Array  # of the loss
    penalised: bool
    seeds: Array
    dropout: Array  # (K + 1, M) uint32: thresholds; 0 where there is no dropout
    hyper: Array
    rates: Any
    first_rate: Array
    state: State
    factors: Factors | None = None  # refused: it has one learning rate for all parameters
