"""Place the rows of a training on the device, or in host memory."""

from __future__ import annotations

from gpumlp.model import arrays, memory
from gpumlp.model.memory import ORDER_BYTES, SORTING_BYTES
from gpumlp.training import out_of_core
from gpumlp.training.rows import Rows, read, size


def make_rows(
    net,
    objective,
    x,
    y,
    sample_weight,
    batch_size: int,
    orders: int = 1,
    kind: str = "",
    values: bool = True,
) -> Rows:
    """Place rows on the device or, where they do not fit there, in host memory.

    orders: 1, or M where each network shuffles for itself; 0 if nothing is ever shuffled.
    kind, values: see `read`.
    """
    data = read(net, objective, x, y, sample_weight, kind, values)
    count = data.x.shape[1]
    batch_size = min(batch_size, count)
    positions = count * max(orders, 1)
    needed = size(net, data, count) + ORDER_BYTES * positions + SORTING_BYTES * count * orders
    room = memory.free_bytes(net.network, batch_size, needed)
    if room is None or arrays.is_on_gpu(data.x):
        return Rows.send(net, data, batch_size)
    if needed <= max(room, out_of_core.least(net, data, batch_size, orders)):
        return Rows.send(net, data, batch_size)
    return out_of_core.Streamed(net, data, batch_size, orders, room)
