"""Choose between operations and the persistent kernel, which makes many updates in one launch.

Small networks stay in shared memory for as long as a launch lasts, one to a block; the others take
the operations one after another, each over the whole GPU.  The results are the same.

Estimates of both ways decide, from the multiplications of a batch, the GPU's multiprocessors and
the constants below; never a clock, so that a fit takes the same way each time.  The constants come
from data sheets and machine code.  None of them has been measured, and they may be wrong by a
factor of three; the benchmarks time epochs of stacks both ways.  By these estimates an H200 trains
1 or 16 networks 64-64-10 in batches of 200 by operations, as one block computes for longer than all
launches of a step take, and 132 or 1,000 of them in shared memory.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

from gpumlp.backend.cuda.persistent_kernel import Chip, Places, Shape, fit
from gpumlp.model.shape import NetworkShape

# Multiply-adds in float32 of one multiprocessor in a second: 64 in a cycle of 1.5 GHz.  Those with
# 128 lanes (sm_86, sm_89, sm_90, ...) could do twice as many, those with 64 (sm_75, sm_80) no more.
RATE = 1e11
ELEMENT = 32  # of them: f, f' and noise of a unit; a feature's copy; the update of a parameter

# Seconds from one barrier of a block to the next, besides: loads and sums that wait for each other.
PHASE = 0.5e-6

# Seconds of a launch or matrix product in a replayed graph, however small it is.
NODE = 3e-6
# Of RATE, what operations reach: their matrices are small, too, and pass through the GPU's memory.
SHARE = 0.25

# Seconds of a step that the kernel has to save: its program is compiled for the one shape, which
# takes seconds unless CuPy has kept it, while networks of all shapes share those of the operations.
SAVED = 50e-6

# Seconds of a launch at most, by the estimate.  A display's watchdog ends kernels after two, unless
# it is told otherwise; an interrupt is seen between two launches.
LAUNCH = 0.1


class Plan(NamedTuple):
    """How networks train in shared memory: their places, and how many batches a launch takes."""

    shape: Shape
    at: Places
    steps: int


def plan(
    shape: NetworkShape,
    chip: Chip | None,
    objective,
    optimizer,
    source,
    batch: int,
    resident: bool | None,
) -> Plan | None:
    """Plan how networks train in shared memory; source: the dtype of the features.

    None, if they are to take the operations: where there is no such chip, they do not fit, a layer
    has a scale, or x is sparse; where one batch is too long for a launch, even if `resident` is
    True; and where that is None and too little would be saved.
    """
    if resident is False or chip is None or shape.precision != "float32":
        return None
    if any(shape.scaled) or shape.sparse:
        return None
    compiled = shape_of(shape, objective, optimizer, source)
    at = fit(compiled, chip)
    if at is None:
        return None
    seconds = kernel_seconds(compiled, at, chip, batch, shape.M)
    if seconds > LAUNCH:
        return None
    if not resident and operations_seconds(compiled, chip, batch, shape.M) < seconds + SAVED:
        return None
    return Plan(compiled, at, steps=int(LAUNCH / seconds))


def multiplications(shape: Shape, batch: int) -> int:
    """The multiply-adds of one network's update; other work counts as what takes as long."""
    products = [inputs * outputs for inputs, outputs in itertools.pairwise(shape.sizes)]
    # Forward, the gradient of W, delta of the layer below: not below the first.
    in_products = batch * (3 * sum(products) - products[0])
    return in_products + ELEMENT * (batch * sum(shape.sizes) + shape.layout.count)


def kernel_seconds(shape: Shape, at: Places, chip: Chip, batch: int, models: int) -> float:
    """Estimate the seconds of an update of all networks in shared memory, without the launch.

    The blocks of a multiprocessor share its rate, but wait each for itself; and those that find no
    room wait until others end.
    """
    K, tiles = len(shape.layers), math.ceil(batch / at.tile)
    waiting = (tiles * (4 * K + 1) + 4) * PHASE  # a tile's gather, products and f; sums, the update
    waves = math.ceil(models / (chip.multiprocessors * at.blocks))
    networks = math.ceil(models / chip.multiprocessors)  # of the busiest multiprocessor
    return waves * waiting + networks * multiplications(shape, batch) / _rate(shape, chip)


def operations_seconds(shape: Shape, chip: Chip, batch: int, models: int) -> float:
    """Estimate the seconds of an update of all networks by a replayed graph, of 2K + 3 launches
    and 3K - 1 products."""
    nodes = 5 * len(shape.layers) + 2
    rate = SHARE * chip.multiprocessors * _rate(shape, chip)
    return nodes * NODE + models * multiplications(shape, batch) / rate


def _rate(shape: Shape, chip: Chip) -> float:
    return RATE / (chip.double if shape.dtype == "float64" else 1)


def shape_of(shape: NetworkShape, objective, optimizer, source) -> Shape:
    """The `Shape` that the program of these networks is compiled for; source: as in `plan`."""
    return Shape(
        dtype=str(shape.dtype),
        sizes=shape.sizes,
        f=shape.f,
        dropout=shape.drops,
        pair=objective.pair,
        family=optimizer.family,
        state_buffers=tuple(optimizer.state_buffers().values()),
        source=str(source),
    )
