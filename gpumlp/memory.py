"""How much memory training takes, worked out beforehand, and what to say if there is too little."""

from __future__ import annotations

import contextlib

from gpumlp import workspace


def predict(net, rows: int, slots: int = 0, data_bytes: int = 0) -> int:
    """Bytes on the device: parameters, gradient, `slots` optimiser buffers, one batch, the data."""
    theta = net.models_count * net.layout.size * net.dtype.itemsize
    return theta * (2 + slots) + workspace.size(net, rows, "fit") + data_bytes


def text(size: float) -> str:
    """1536 -> '1.5 KiB'."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


@contextlib.contextmanager
def explained(net, rows: int | None = None, slots: int = 0, data_bytes: int = 0):
    """Out of memory becomes a MemoryError with the bytes predicted and what to lower."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "OutOfMemoryError" and not isinstance(error, MemoryError):
            raise
        needed = predict(net, rows or net.chunk_rows, slots, data_bytes)
        free = net.ops.free_memory()
        lower = ["batch_size"] if rows else []
        lower += ["sizes"] + (["models"] if net.models_count > 1 else [])
        lower += ["the rows given at once"] if data_bytes or not rows else []
        raise MemoryError(
            f"out of memory on {net.device}: about {text(needed)} are needed"
            + (f", {text(free)} are free" if free is not None else "")
            + f"; lower {', '.join(lower)}"
            + (", or use dtype='float32'" if net.dtype.itemsize == 8 else "")
        ) from error
