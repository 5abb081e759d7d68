"""Check the arrays that users pass, and copy them to the network's device.

Inside, code trusts its buffers.  Host arrays are checked for NaN and infinity; for arrays that are
on the device already, that is left to the callers that may wait for the device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpumlp.backend.sparse_rows import SparseRows
from gpumlp.utils import checks


class UserArray(NamedTuple):
    """A user's array, of NumPy where it was on the host, else of ops.xp."""

    array: Any
    on_host: bool


def is_sparse(array) -> bool:
    """Whether it is a sparse matrix or array, of SciPy or cupyx."""
    return hasattr(array, "toarray") and hasattr(array, "nnz")


def is_on_gpu(array) -> bool:
    """Whether an array, or the non-zeros of sparse rows, are on a GPU, by the CUDA array interface
    or DLPack."""
    if isinstance(array, SparseRows):
        array = array.values
    elif is_sparse(array):
        array = getattr(array, "data", None)
    if hasattr(array, "__cuda_array_interface__"):
        return True
    if isinstance(array, np.ndarray):
        return False
    where = getattr(array, "__dlpack_device__", None)
    return where is not None and int(where()[0]) in (2, 13)  # kDLCUDA, kDLCUDAManaged


def device_of(array) -> str:
    """ "cpu", or "cuda:i" of a CuPy array."""
    return "cpu" if isinstance(array, np.ndarray) else f"cuda:{array.device.id}"


def take(array, name: str, ops) -> UserArray:
    """Take host data as a NumPy array, or device data as an array of ops.xp; raises TypeError for
    anything else, or data of another device."""
    if is_on_gpu(array):
        if ops.device == "cpu":
            raise TypeError(
                f"{name} is on a GPU and the network on the CPU: pass a NumPy array, or make the "
                "network with device='cuda'"
            )
        xp = ops.xp
        with ops.on_device():
            if not hasattr(array, "__cuda_array_interface__"):
                array = xp.from_dlpack(array)
            array = xp.asarray(array)
        if device_of(array) != ops.device:
            raise TypeError(f"{name} is on {device_of(array)}, the network on {ops.device}")
        return UserArray(_numeric(array, name), on_host=False)
    if is_sparse(array):
        raise TypeError(f"{name} is sparse; pass {name}.toarray()")
    if hasattr(array, "__dlpack__") and not hasattr(array, "__array__"):
        array = np.from_dlpack(array)
    try:
        array = np.asarray(array)
    except (ValueError, TypeError) as error:
        raise TypeError(
            f"{name} = {checks.shown(array)} is not an array of numbers: {error}"
        ) from None
    return UserArray(_numeric(array, name), on_host=True)


def _numeric(array, name):
    if array.dtype.kind == "b":
        return array.view(np.uint8)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {array.dtype}; it must hold real numbers")
    return array


def check_finite(user_array: UserArray, name: str, real: np.dtype, xp=np) -> None:
    """Raise ValueError for NaN, infinity, and numbers that the network's dtype cannot hold."""
    array = user_array.array
    if array.dtype.kind != "f":
        return
    limit = np.finfo(real).max
    # One pass and no mask: NaN and infinity fail these comparisons too.
    if array.size and not bool(array.min() >= -limit and array.max() <= limit):
        broken = int((~xp.isfinite(array)).sum())
        reason = f"NaN or infinity in {broken} of {array.size} places" if broken else "too large"
        raise ValueError(f"{name} cannot be used: {reason} (for {real})")


def features(array, name: str, net, finite: bool = True, dense: bool = False) -> UserArray:
    """Check x, and return it as (1 or M, B, N_0), in its own dtype.

    finite: check the values too, which takes long for many rows.

    For a network of sparse rows they are `SparseRows`, whatever x is; with `dense`, dense rows are
    left as they are.
    """
    if isinstance(array, SparseRows):
        return UserArray(array, not is_on_gpu(array))
    if is_sparse(array):
        return _sparse_features(array, name, net, finite)
    user_array = take(array, name, net.ops)
    array, width = user_array.array, net.sizes[0]
    stacked = net.models is not None and array.ndim == 3
    if array.ndim != 2 and not stacked:
        wanted = f"(B, {width})" + (f" or ({net.models}, B, {width})" if net.models else "")
        raise ValueError(f"{name} has shape {array.shape}; the network takes {wanted}")
    if array.shape[-1] != width:
        raise ValueError(
            f"{name} has {array.shape[-1]} features; the network takes {width} (it has shape "
            f"{array.shape})"
        )
    if stacked and array.shape[0] != net.models:
        raise ValueError(
            f"{name} is for {array.shape[0]} networks; there are {net.models} (it has shape "
            f"{array.shape})"
        )
    if array.shape[-2] == 0:
        raise ValueError(f"{name} has no rows (it has shape {array.shape})")
    if net.shape.sparse and not dense:
        if stacked:
            raise ValueError(
                f"{name} has shape {array.shape}; the networks of a stack with sparse=True share "
                "their rows"
            )
        xp = np if user_array.on_host else net.ops.xp
        return _checked(UserArray(_non_zeros(array, xp), user_array.on_host), name, net, finite)
    features = UserArray(array if stacked else array[None], user_array.on_host)
    return _checked(features, name, net, finite)


def _checked(features: UserArray, name: str, net, finite: bool) -> UserArray:
    if finite:
        check_features(features, name, net)
    return features


def check_features(features: UserArray, name: str, net) -> None:
    """Check the values of features that `features` returned with finite=False."""
    if isinstance(features.array, SparseRows):
        features = features._replace(array=features.array.values)
    check_finite(features, name, net.dtype, np if features.on_host else net.ops.xp)


def _sparse_features(matrix, name: str, net, finite: bool) -> UserArray:
    """Check a sparse matrix, whose arrays are not copied if they are CSR's."""
    if not net.shape.sparse:
        raise TypeError(
            f"{name} is sparse: make the network with sparse=True, or pass {name}.toarray()"
        )
    if matrix.ndim != 2 or matrix.shape[1] != net.sizes[0]:
        raise ValueError(f"{name} has shape {matrix.shape}; the network takes (B, {net.sizes[0]})")
    if matrix.shape[0] == 0:
        raise ValueError(f"{name} has no rows (it has shape {matrix.shape})")
    if matrix.format == "csc":
        check_places(matrix, name)  # conversion trusts them
    matrix = matrix.tocsr()
    values, columns, starts = (
        take(part, name, net.ops) for part in (matrix.data, matrix.indices, matrix.indptr)
    )
    check_places(matrix, name)
    parts = values.array, columns.array
    if values.on_host and starts.array[-1] < len(parts[0]):  # SciPy lets them have room for more
        parts = parts[0][: starts.array[-1]], parts[1][: starts.array[-1]]
    rows = SparseRows(*parts, starts.array, matrix.shape[1])
    return _checked(UserArray(rows, values.on_host), name, net, finite)


def check_places(matrix, name: str) -> None:
    """Raise ValueError for a CSR or CSC matrix whose non-zeros are not within it: SciPy and kernels
    read and write by these numbers without looking."""
    count, width = matrix.shape if matrix.format == "csr" else matrix.shape[::-1]
    rows = SparseRows(matrix.data, matrix.indices, matrix.indptr, width)
    if problem := _malformed(rows, count):
        raise ValueError(f"{name} is no {matrix.format.upper()} matrix: {problem}")


def _malformed(rows: SparseRows, count: int) -> str:
    """What is wrong with the places of non-zeros; or ""."""
    columns, starts, nnz = rows.columns, rows.starts, len(rows.values)
    if len(starts) != count + 1 or len(columns) != nnz:
        return f"{count} rows, {len(starts)} starts, {len(columns)} columns of {nnz} values"
    used = int(starts[-1])
    if int(starts[0]) != 0 or used > nnz or bool((starts[1:] < starts[:-1]).any()):
        return f"its rows do not divide {nnz} values"
    columns = columns[:used]
    if used and not 0 <= int(columns.min()) <= int(columns.max()) < rows.width:
        return f"columns from {int(columns.min())} to {int(columns.max())} of {rows.width}"
    return ""


def _non_zeros(array, xp) -> SparseRows:
    """The non-zeros of dense rows (B, N_0)."""
    count, width = array.shape
    flat = array.reshape(-1)
    places = xp.flatnonzero(flat)
    starts = xp.searchsorted(places, xp.arange(count + 1) * width)
    return SparseRows(xp.take(flat, places), places % width, starts, width)


class CheckedTargets(NamedTuple):
    """Checked targets: labels (1 or M, B) int32, or dense (1 or M, B, N_K); the other is None."""

    labels: Any
    dense: Any


def targets(array, name: str, net, loss, rows: int, values: bool = True) -> CheckedTargets:
    """Check y for this loss: integer labels (B,), (B, N_K), or (B,) for one output.

    A leading axis M gives each network its own.  values: check the values too.
    """
    user_array = take(array, name, net.ops)
    xp = np if user_array.on_host else net.ops.xp
    array, outputs, models = user_array.array, net.sizes[-1], net.models
    if outputs == 1 and array.shape in ((rows,), (models, rows)):
        array = array[..., None]
    labelled = loss.classes and array.dtype.kind in "iu" and outputs > 1
    if array.shape in ((rows, outputs), (models, rows, outputs)):
        dense = array[None] if array.ndim == 2 else array
        if values:
            _check_values(user_array, dense, name, loss, net.dtype, xp)
        return CheckedTargets(None, dense)
    if labelled and array.shape in ((rows,), (models, rows)):
        labels = array[None] if array.ndim == 1 else array
        if values and not bool(labels.min() >= 0 and labels.max() < outputs):
            raise ValueError(
                f"{name} holds labels from {labels.min()} to {labels.max()}; "
                f"with {outputs} outputs they are 0 .. {outputs - 1}"
            )
        return CheckedTargets(labels.astype(np.int32, copy=False), None)
    wanted = f"({rows}, {outputs})"
    if outputs == 1:
        wanted += f" or ({rows},)"
    elif loss.classes:
        wanted += f", or integer labels ({rows},)"
    raise ValueError(
        f"{name} has shape {array.shape} and dtype {array.dtype}; {loss.name} with {rows} rows and "
        f"{outputs} outputs takes {wanted}"
    )


def _check_values(user_array, dense, name, loss, real, xp):
    check_finite(user_array, name, real, xp)
    low, high = loss.bounds
    least, most = dense.min(), dense.max()
    if not bool(least >= low and most <= high):
        raise ValueError(
            f"{name} holds values from {least} to {most}; {loss.name} takes [{low:g}, {high:g}]"
        )


def weights(array, name: str, net, rows: int, values: bool = True):
    """Check sample_weight, and return it as (1 or M, B); None for None."""
    if array is None:
        return None
    user_array = take(array, name, net.ops)
    array = user_array.array
    if array.shape not in ((rows,), (net.models, rows)):
        raise ValueError(f"{name} has shape {array.shape}; there are {rows} rows")
    if values:
        check_finite(user_array, name, net.dtype, np if user_array.on_host else net.ops.xp)
        if not bool(array.min() >= 0):
            raise ValueError(f"{name} holds negative weights")
        if not bool(array.max() > 0):
            raise ValueError(f"{name} is 0 everywhere")
    return array[None] if array.ndim == 1 else array


def to_device(array, net, dtype=None):
    """Copy an array to the network's device, contiguous, in that dtype or the network's."""
    if array is None:
        return None
    if isinstance(array, SparseRows):
        types = dtype or net.dtype, np.int32, np.int64
        parts = array.values, array.columns, array.starts
        values, columns, starts = (
            to_device(part, net, of) for part, of in zip(parts, types, strict=True)
        )
        return SparseRows(values, columns, starts, array.width)
    xp = net.ops.xp
    if xp is not np and isinstance(array, np.ndarray):
        array = np.ascontiguousarray(array, dtype=dtype or net.dtype)
    return xp.ascontiguousarray(net.ops.to_device(array), dtype=dtype or net.dtype)


def some_rows(x, start: int, stop: int):
    """Some rows of x (1 or M, B, N_0)."""
    return x.slice(start, stop) if isinstance(x, SparseRows) else x[:, start:stop]


def aligned(x):
    """Copy an array on the device unless it is aligned to 32 bytes, as `gather` needs it."""
    on_device = hasattr(x, "__cuda_array_interface__")
    return x.copy() if on_device and x.data.ptr % 32 else x
