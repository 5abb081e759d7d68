"""A network as an ONNX file, for onnxruntime and whatever else reads ONNX."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp.io import weights as parameters
from gpumlp.io.onnx_functions import OLDEST_OPSET, Graph, add_activation
from gpumlp.model.mlp import MLP
from gpumlp.utils import atomic, checks
from gpumlp.utils.version import __version__

if TYPE_CHECKING:
    from gpumlp.estimators.base import BaseMLP

# Protocol buffers, which an ONNX file is, end at 2 GiB; some room is for all but the parameters.
ONE_FILE_BYTES = (2 << 30) - (16 << 20)
PAGE = 4096


def export_onnx(
    net: MLP | BaseMLP,
    path: str | os.PathLike[str],
    *,
    opset: int = 20,
    metadata: dict[Any, Any] | None = None,
) -> None:
    """Write a network, as `net.forward` computes it, to an ONNX file.

    The graph's input "x" is (B, N_0), any number of rows, in the network's dtype; its output "y" is
    (B, N_K), the output activation included.  A stack of M networks takes one x for all and gives
    (M, B, N_K).  Parameters are named W_k, b_k and slope_k as in net.W[k], net.b[k], net.slope[k];
    a scale net.s[k] is multiplied into W_k; a stack's W_k are transposed, (M, N_{k-1}, N_k).

    Parameters
    ----------
    net : MLP, or a fitted MLPClassifier or MLPRegressor
        Of an estimator the output "y" is what predict_proba gives, or decision_function where there
        is none, or a regressor's predict; always (B, outputs).
    path : str or os.PathLike
        The file.  Parameters of more than 2 GiB go to a file of their own beside it, `path` +
        ".data".
    opset : int, default 20
        The operator set, 13 or newer.  An activation is one operator where the set has it, else
        composed of several.
    metadata : dict, optional
        The file's metadata: strings are stored as they are, other values as JSON.  None writes
        net.metadata, or of an estimator "classes" and, if they have names, "features".

    Raises
    ------
    ImportError
        Without the package onnx: pip install "gpumlp[onnx]".
    TypeError
        For any other object.
    ValueError
        For an activation that is not gpumlp's own, for an opset that is too old or that the
        installed onnx does not know, and for an ensemble.

    Notes
    -----
    In float64 each activation but a few is composed, because onnxruntime has most operators for
    float32 only; gelu's error function is then computed in float32, with an error of about 1e-7.

    Examples
    --------
    >>> gpumlp.export_onnx(net, "net.onnx")
    >>> session = onnxruntime.InferenceSession("net.onnx")
    >>> [y] = session.run(["y"], {"x": x.astype(np.float32)})
    """
    left_to_do = "nothing"
    if hasattr(net, "_as_network"):
        net, description, left_to_do = net._as_network()
        metadata = description if metadata is None else metadata
    parameters.check_network(net, "export_onnx")
    path = checks.path(path, "path")
    try:
        import onnx
    except ImportError as error:
        message = f'writing ONNX needs the package onnx ({error}): pip install "gpumlp[onnx]"'
        raise ImportError(message) from error

    newest = onnx.defs.onnx_opset_version()
    known = checks.Interval(OLDEST_OPSET, newest, whole=True)
    opset = checks.number(opset, f"with onnx {onnx.__version__}, opset", known)
    metadata = net.metadata if metadata is None else metadata
    if not isinstance(metadata, dict):
        raise checks.ParameterError(f"metadata = {checks.shown(metadata)} must be a dictionary")
    texts = {str(key): _text(value, key) for key, value in metadata.items()}
    graph = _build(net, opset, output="y" if left_to_do == "nothing" else "outputs")
    width = net.sizes[-1] + (left_to_do == "both")
    _finish(graph, net, left_to_do)
    if sum(array.nbytes for array in graph.constants.values()) > ONE_FILE_BYTES:
        beside = path.with_name(f"{path.name}.data")
        with atomic.naming(path):
            tensors = _outside(graph, beside)
        model = _model(net, graph, texts, tensors, width)
        atomic.write(path, model.SerializeToString())
        onnx.checker.check_model(str(path))
    else:
        tensors = [
            onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items()
        ]
        model = _model(net, graph, texts, tensors, width)
        onnx.checker.check_model(model, full_check=True)
        atomic.write(path, model.SerializeToString())


def _build(net: MLP, opset: int, output: str) -> Graph:
    """The layers, from the tensor x to the tensor of that name."""
    graph, values = Graph(net.dtype, opset), parameters.read_products(net)
    n = "x"
    for k in range(1, net.K + 1):
        # (1)(3)(5)(8)  z^(k) = W^(k) n^(k-1) + b^(k)
        graph.enter("")
        if net.models is None:
            W, b = graph.constant(values.W[k], f"W_{k}"), graph.constant(values.b[k], f"b_{k}")
            z = graph.op("Gemm", n, W, b, transB=1, output=f"z_{k}")
        else:
            W = graph.constant(values.W[k].swapaxes(1, 2), f"W_{k}")
            b = graph.constant(values.b[k][:, None, :], f"b_{k}")
            z = graph.op("Add", graph.op("MatMul", n, W), b, output=f"z_{k}")
        # (2)(4)(6)(9)  n^(k) = f^(k)(z^(k))
        n = output if k == net.K else f"n_{k}"
        slope = None
        if values.slope[k] is not None:
            # () or, for a stack, (M, 1, 1)
            shape = () if net.models is None else (net.models, 1, 1)
            slope = graph.constant(values.slope[k].reshape(shape), f"slope_{k}")
        graph.enter(f"layer_{k}_")
        add_activation(graph, net.f[k], z, slope, output=n)
    return graph


def _finish(graph: Graph, net: MLP, left_to_do: str) -> None:
    """From a classifier's outputs to its probabilities: see MLPClassifier."""
    n = "outputs"
    graph.enter("probability_")
    if left_to_do == "exp":
        graph.op("Exp", n, output="y")
    elif left_to_do == "one":  # n^0, which is 1 whatever n may be
        graph.op("Pow", n, 0.0, output="y")
    elif left_to_do == "both":
        graph.op("Concat", graph.op("Sub", 1.0, n), n, axis=1, output="y")
    elif left_to_do == "shares":
        ones = graph.constant(np.ones((net.sizes[-1], 1)), "ones")
        graph.op("Div", n, graph.op("MatMul", n, ones), output="y")


def _model(net: MLP, graph: Graph, metadata: dict[str, str], tensors: list[Any], width: int) -> Any:
    """The whole model; tensors: the graph's constants as ONNX has them; width:
    of its output."""
    from onnx import helper

    real = helper.np_dtype_to_tensor_dtype(net.dtype)
    stack = [] if net.models is None else [net.models]
    opsets = [helper.make_opsetid("", graph.opset)]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "mlp",
            [helper.make_tensor_value_info("x", real, ["B", net.sizes[0]])],
            [helper.make_tensor_value_info("y", real, [*stack, "B", width])],
            tensors,
        ),
        opset_imports=opsets,
        # The oldest format that this operator set allows: older runtimes read it too.
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="gpumlp",
        producer_version=__version__,
    )
    helper.set_model_props(model, metadata)
    return model


def _text(value: Any, key: Any) -> str:
    if isinstance(value, str):
        return value
    name = f"metadata[{checks.shown(key)}]"
    return json.dumps(checks.storable(value, name, _plain), default=_plain)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError


def _outside(graph: Graph, file: Path) -> list[Any]:
    """The constants as references into a file of their own, which is written here.

    onnx can do this too, but not with a tensor of more than 2 GiB, such as a stack's.
    """
    from onnx import TensorProto, helper, numpy_helper

    tensors = []
    with open(file, "wb") as data:
        for name, array in graph.constants.items():
            if array.nbytes < PAGE:
                tensors.append(numpy_helper.from_array(array, name))
                continue
            offset = -(-data.tell() // PAGE) * PAGE  # readers map it into memory
            data.seek(offset)
            array.tofile(data)
            tensor = TensorProto(
                name=name,
                dims=array.shape,
                data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
                data_location=TensorProto.EXTERNAL,
            )
            place = {"location": file.name, "offset": offset, "length": array.nbytes}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
    return tensors
