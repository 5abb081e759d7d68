"""Arrays that are on the GPU already: taken as they are, without a trip through the host.

What scikit-learn validates are host arrays; for these the same is checked here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from gpumlp import backend
from gpumlp.backend.cuda import faults
from gpumlp.model import arrays


def is_gpu_sparse(X) -> bool:
    """A sparse matrix of cupyx."""
    return hasattr(X, "toarray") and hasattr(X, "get") and hasattr(X, "device")


def on_gpu(X) -> bool:
    return is_gpu_sparse(X) or arrays.is_on_gpu(X)


def host(array) -> Any:
    """The same on the host; tensors of other libraries as NumPy's arrays.  What scikit-learn
    validates itself, frames, lists, sparse matrices and None, is left alone."""
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
    """Results (NumPy) to the side that the input was on; classes that are no numbers stay."""
    if not on_gpu(like) or not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        return values
    import cupy

    return cupy.asarray(values)


def features(estimator, X, device: str, dtype, reset: bool):
    """Checked features on the network's GPU, (n_samples, n_features), in that dtype."""
    ops = backend.get(device)
    given = arrays.take(X, "X", ops)
    with ops.on_device():
        if given.array.ndim != 2 or 0 in given.array.shape:
            raise ValueError(
                f"X has shape {given.array.shape}; it must be (n_samples, n_features), not empty"
            )
        arrays.check_finite(given, "X", np.dtype(dtype), ops.xp)
        validate_data(estimator, given.array, reset=reset, skip_check_array=True)
        return ops.xp.ascontiguousarray(given.array, dtype=dtype)
