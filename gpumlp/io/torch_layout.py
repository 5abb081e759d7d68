"""Parameters in the layout and under the names of PyTorch's nn.Sequential(nn.Linear, ...).

PyTorch itself is not needed: arrays go out as NumPy's, and come in as NumPy's or as anything that
can become one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp.io import weights as parameters
from gpumlp.utils import checks

if TYPE_CHECKING:
    from gpumlp.estimators.base import BaseMLP
    from gpumlp.model.mlp import MLP
    from gpumlp.model.parameters import ParameterViews


def to_torch_state(
    net: MLP | BaseMLP, *, prefix: str = "", spacing: int = 2
) -> dict[str, np.ndarray]:
    """Return the parameters as a state dict of nn.Sequential(Linear, activation, Linear, ...).

    Parameters
    ----------
    net : MLP, or a fitted MLPClassifier or MLPRegressor
        A scale of the inputs is multiplied into the weight.
    prefix : str, default ""
        Stands before each name, such as "net." for a Sequential that is an attribute net.
    spacing : int, default 2
        The modules from one Linear to the next: 2 for Linear and activation, 3 with a Dropout
        behind them, 1 for a ModuleList of Linears.

    Returns
    -------
    dict of str to ndarray
        "0.weight" (N_1, N_0), "0.bias" (N_1,), "2.weight" (N_2, N_1), ...: copies on the host, in
        the network's dtype.  A learned slope is nn.PReLU's: "1.weight" (1,).  For a stack each
        array has the leading axis M, as torch.func.stack_module_state gives it.

    Raises
    ------
    TypeError
        For any other object.
    ValueError
        For a spacing of 1 where there are learned slopes, and for an ensemble.

    Examples
    --------
    >>> module.load_state_dict({name: torch.from_numpy(array)
    ...                         for name, array in gpumlp.to_torch_state(net).items()})
    """
    if hasattr(net, "_as_network"):  # a fitted estimator
        net, _, _ = net._as_network()
    parameters.check_network(net, "to_torch_state")
    return _named(net, parameters.read_products(net), prefix, spacing)


def load_torch_state(
    net: MLP | BaseMLP, state: Mapping[str, Any], *, prefix: str = "", spacing: int = 2
) -> None:
    """Write the parameters of a state dict into a network; either all of them or none.

    Parameters
    ----------
    net : MLP, or a fitted MLPClassifier or MLPRegressor
        Its scales become 1.
    state : mapping of str to array
        Named as `to_torch_state` names them: arrays of NumPy or CuPy, PyTorch's tensors (also with
        a gradient, or on a GPU), or anything with __array__ or DLPack; converted to the network's
        dtype.
    prefix : str, default ""
        Only the names that start with it are looked at.
    spacing : int, default 2
        As of `to_torch_state`.

    Raises
    ------
    TypeError
        For what is no array of numbers.
    ValueError
        For a name that is missing or unknown, for a shape that is not the network's, and for NaN or
        infinity.

    Examples
    --------
    >>> gpumlp.load_torch_state(net, module.state_dict())
    """
    writing: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if hasattr(net, "_as_network"):  # a fitted estimator
        estimator: Any = net
        writing = estimator._overwriting()
        net, _, _ = estimator._as_network()
    parameters.check_network(net, "load_torch_state")
    if not isinstance(state, Mapping):
        raise TypeError(
            f"state is a {type(state).__name__}; it is a dictionary, such as module.state_dict()"
        )
    values = parameters.read_products(net)  # whose scales are 1
    wanted = _named(net, values, prefix, spacing, copies=False)
    arrays = {name: value for name, value in state.items() if str(name).startswith(prefix)}
    _check_names(wanted, arrays)
    for name, view in wanted.items():
        array = _host_array(name, arrays[name])
        if array.shape != view.shape:
            raise ValueError(f"{name} has shape {array.shape}; the network takes {view.shape}")
        with np.errstate(over="ignore"):
            view[...] = array
        if not np.isfinite(view).all():
            raise ValueError(f"{name} holds NaN, infinity, or what {net.dtype} cannot hold")
    with writing:
        parameters.write(net, values)


def _named(
    net: MLP, values: ParameterViews, prefix: str, spacing: int, copies: bool = True
) -> dict[str, np.ndarray]:
    """The arrays of `values` by PyTorch's names: copies, or views."""
    spacing = checks.number(spacing, "spacing", checks.COUNT)
    named = {}
    for k in range(1, net.K + 1):
        place = spacing * (k - 1)
        named[f"{prefix}{place}.weight"] = values.W[k]
        named[f"{prefix}{place}.bias"] = values.b[k]
        if values.slope[k] is not None:
            if spacing == 1:
                raise ValueError("spacing = 1 leaves no place for the slope of PReLU; it takes 2")
            named[f"{prefix}{place + 1}.weight"] = values.slope[k][..., None]
    return {name: array.copy() for name, array in named.items()} if copies else named


def _check_names(wanted: dict[str, np.ndarray], arrays: dict[str, Any]) -> None:
    missing = [name for name in wanted if name not in arrays]
    unknown = [str(name) for name in arrays if name not in wanted]
    if missing or unknown:
        raise ValueError(
            f"state lacks {', '.join(missing) or 'nothing'} and has, which the network does not, "
            f"{', '.join(unknown) or 'nothing'}; the network takes {', '.join(wanted)}"
        )


def _host_array(name: str, value: Any) -> np.ndarray:
    """A NumPy array of real numbers."""
    try:
        # PyTorch's tensors: without their history, and off the GPU.  CuPy's arrays: off the GPU.
        for method in ("detach", "cpu", "get"):
            if hasattr(value, method):
                value = getattr(value, method)()
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            array = np.from_dlpack(value)
        else:
            array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise TypeError(f"{name} cannot be read as an array of numbers: {error}") from error
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {array.dtype}; it must hold real numbers")
    return array
