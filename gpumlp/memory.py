"""How much memory training takes, worked out beforehand, and what to say if there is too little."""

from __future__ import annotations

import contextlib

from gpumlp import workspace

SHARE = 0.8  # of the free memory that data may take; the rest is for what cannot be foreseen


def predict(net, rows: int, slots: int = 0, data_bytes: int = 0, purpose: str = "fit") -> int:
    """Bytes on the device: parameters, gradient, `slots` optimiser buffers, one batch, the data."""
    numbers = net.models_count * net.layout.size
    copies = 1 if purpose == "predict" else 2 + slots
    theta = numbers * net.dtype.itemsize * copies
    if net.stored != net.dtype:
        theta += numbers * net.stored.itemsize
    return theta + (workspace.size(net, rows, purpose) if rows else 0) + data_bytes


def size_of(*arrays) -> int:
    """Bytes of what was given, as far as it says."""
    return sum(getattr(array, "nbytes", 0) for array in arrays)


def text(size: float) -> str:
    """1536 -> '1.5 KiB'."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def _is_out_of_memory(error: Exception) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)


class NoRoomForPieces(MemoryError):
    """Not even pieces of the data fit; takes: their bytes."""

    def __init__(self, text: str, takes: int):
        self.takes = takes
        super().__init__(text)


def room(net, rows: int) -> int | None:
    """Bytes that the data of a fit in batches of so many rows may take, beside the workspace that
    is still to be made; None on the CPU, where they are in the same memory anyhow."""
    free = net.ops.free_memory()
    if free is None:
        return None
    return int(SHARE * free) - net.workspaces.missing(rows, "fit")


def in_chunks(rows: int, chunk: int, work) -> None:
    """work(start, stop) for all rows, `chunk` at a time, or half as many where memory runs out."""
    start = 0
    while start < rows:
        chunk = min(chunk, rows - start)
        try:
            work(start, start + chunk)
        except Exception as error:
            if chunk == 1 or not _is_out_of_memory(error):
                raise
            chunk = chunk // 2
        else:
            start += chunk


@contextlib.contextmanager
def explained(net, rows=0, slots: int = 0, data_bytes: int = 0, purpose: str = "fit"):
    """Out of memory becomes a MemoryError with the bytes predicted and what to lower.

    rows: of a batch or a chunk; 0 where only the parameters are made.
    """
    try:
        yield
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        data_bytes = getattr(error, "takes", data_bytes)
        needed = predict(net, rows, slots, data_bytes, purpose)
        free = net.ops.free_memory()
        lower = ["batch_size"] if rows and purpose == "fit" else []
        lower += ["sizes"] + (["models"] if net.models_count > 1 else [])
        lower += ["the rows given at once"] if data_bytes or purpose != "fit" else []
        raise MemoryError(
            f"out of memory on {net.device}: about {text(needed)} are needed"
            + (f", {text(free)} are free" if free is not None else "")
            + f"; lower {', '.join(lower)}"
            + (", or use dtype='float32'" if net.dtype.itemsize == 8 else "")
            + (f" ({error})" if str(error) else "")
        ) from error
