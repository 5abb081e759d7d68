"""Take arrays that are on the GPU without a trip through the host, and give results back there.

scikit-learn validates host arrays only; for arrays on the GPU the same is checked here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from gpumlp import backend
from gpumlp.backend.cuda import faults
from gpumlp.model import arrays


def is_gpu_sparse(X) -> bool:
    """Whether X is a sparse matrix of cupyx."""
    return hasattr(X, "toarray") and hasattr(X, "get") and hasattr(X, "device")


def on_gpu(X) -> bool:
    """Whether X is on a GPU, dense or sparse."""
    return is_gpu_sparse(X) or arrays.is_on_gpu(X)


def host(array) -> Any:
    """Copy an array to the host; tensors of other libraries become NumPy's arrays.  What
    scikit-learn validates itself, frames, lists, sparse matrices and None, is left alone."""
    if on_gpu(array):
        faults.refuse_after_fork()
    if is_gpu_sparse(array):
        return array.get()
    if arrays.is_on_gpu(array):
        import cupy

        with_interface = hasattr(array, "__cuda_array_interface__")
        return cupy.asnumpy(cupy.asarray(array) if with_interface else cupy.from_dlpack(array))
    if hasattr(array, "__dlpack__") and not isinstance(array, np.ndarray):
        return _from_tensor(array)
    return array


def _from_tensor(tensor) -> np.ndarray:
    if hasattr(tensor, "detach"):  # PyTorch: data have no gradient
        tensor = tensor.detach()
    try:
        return np.asarray(tensor) if hasattr(tensor, "__array__") else np.from_dlpack(tensor)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise TypeError(
            f"{type(tensor).__name__} cannot be taken as a NumPy array: {error}"
        ) from error


def back(values, like):
    """Copy results (NumPy) to the GPU if `like` is there; classes that are no numbers stay."""
    if not on_gpu(like) or not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        return values
    import cupy

    return cupy.asarray(values)


def features(estimator, X, device: str, dtype, reset: bool):
    """Check features on the network's GPU; returns them (n_samples, n_features) in that dtype."""
    ops = backend.get(device)
    if is_gpu_sparse(X):
        with ops.on_device():
            X = X.tocsr()
            arrays.check_finite(arrays.take(X.data, "X", ops), "X", np.dtype(dtype), ops.xp)
            validate_data(estimator, X, reset=reset, skip_check_array=True)
            return X.astype(dtype)
    user_array = arrays.take(X, "X", ops)
    with ops.on_device():
        array = user_array.array
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(
                f"X has shape {array.shape}; it must be (n_samples, n_features), not empty"
            )
        arrays.check_finite(user_array, "X", np.dtype(dtype), ops.xp)
        validate_data(estimator, array, reset=reset, skip_check_array=True)
        return ops.xp.ascontiguousarray(array, dtype=dtype)
