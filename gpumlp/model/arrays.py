"""Check the arrays that users pass, and copy them to the network's device.

Inside, code trusts its buffers.  Host arrays are checked for NaN and infinity; for arrays that are
on the device already, that is left to the callers that may wait for the device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpumlp.utils import checks


class UserArray(NamedTuple):
    """A user's array, of NumPy where it was on the host, else of ops.xp."""

    array: Any
    on_host: bool


def is_on_gpu(array) -> bool:
    """Whether an array is on a GPU, by the CUDA array interface or DLPack."""
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
    if hasattr(array, "toarray") and hasattr(array, "nnz"):
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


def features(array, name: str, net, finite: bool = True) -> UserArray:
    """Check x, and return it as (1 or M, B, N_0), in its own dtype.

    finite: check the values too, which takes long for many rows.
    """
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
    features = UserArray(array if stacked else array[None], user_array.on_host)
    if finite:
        check_features(features, name, net)
    return features


def check_features(features: UserArray, name: str, net) -> None:
    """Check the values of features that `features` returned with finite=False."""
    check_finite(features, name, net.dtype, np if features.on_host else net.ops.xp)


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
    xp = net.ops.xp
    if xp is not np and isinstance(array, np.ndarray):
        array = np.ascontiguousarray(array, dtype=dtype or net.dtype)
    return xp.ascontiguousarray(net.ops.to_device(array), dtype=dtype or net.dtype)


def aligned(x):
    """Copy an array on the device unless it is aligned to 32 bytes, as `gather` needs it."""
    on_device = hasattr(x, "__cuda_array_interface__")
    return x.copy() if on_device and x.data.ptr % 32 else x
