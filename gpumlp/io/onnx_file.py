"""Networks and estimators as ONNX files, for onnxruntime and whatever else reads ONNX."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpumlp.io import onnx_network
from gpumlp.io import weights as parameters
from gpumlp.io.onnx_functions import OLDEST_OPSET, Graph, element_type
from gpumlp.io.onnx_network import Exported, Tensor
from gpumlp.model.mlp import MLP
from gpumlp.utils import atomic, checks
from gpumlp.utils.version import __version__

if TYPE_CHECKING:
    from gpumlp.estimators.base import BaseMLP
    from gpumlp.estimators.tabular.tabular_base import BaseTabular

# Protocol buffers, which an ONNX file is, end at 2 GiB; some room is for all but the parameters.
ONE_FILE_BYTES = (2 << 30) - (16 << 20)
PAGE = 4096
ML, ML_OPSET = "ai.onnx.ml", 2  # the domain of LabelEncoder, and since when it has our types


def export_onnx(
    net: MLP | BaseMLP | BaseTabular,
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
    net : MLP, or a fitted estimator
        Of MLPClassifier and MLPRegressor the output "y" is what predict_proba gives, or
        decision_function where there is none, or predict; always (B, outputs).  Of
        TabularClassifier and TabularRegressor see the notes.
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
    The graph of a TabularClassifier or TabularRegressor takes a table as it is: an input (B, 1) for
    each column, of its name (x0, x1, ... without names), but for those that were left out
    (`preparation_.dropped`).  Numbers, booleans, and time spans and times in seconds are double,
    NaN where missing, as infinity is; dates int64, nanoseconds since 1970 in UTC, missing the least
    int64; categories string, missing "", in the words of `preparation_.columns[j].levels` (3 and
    3.0 are "3").  The outputs are "label" (B,), string or int64, or other numbers as they are, and
    "probabilities" (B, classes); or "variable" in double, (B,) or (B, quantiles); with "_" behind
    where a column has that name.

    In float64 each activation but a few is composed, because onnxruntime has most operators for
    float32 only; gelu's error function is then computed in float32, with an error of about 1e-7.

    Examples
    --------
    >>> gpumlp.export_onnx(net, "net.onnx")
    >>> session = onnxruntime.InferenceSession("net.onnx")
    >>> [y] = session.run(["y"], {"x": x.astype(np.float32)})
    """
    path = checks.path(path, "path")
    exported = _exported(net, _known_opset(opset))
    metadata = exported.about if metadata is None else metadata
    if not isinstance(metadata, dict):
        raise checks.ParameterError(f"metadata = {checks.shown(metadata)} must be a dictionary")
    _write(exported, {str(key): _text(value, key) for key, value in metadata.items()}, path)


def _exported(net: Any, opset: int) -> Exported:
    if not isinstance(net, MLP) and not hasattr(net, "_as_network"):
        from gpumlp.io import onnx_table

        if isinstance(net, onnx_table.BaseTabular):
            return onnx_table.from_table(net, opset)
        parameters.check_network(net, "export_onnx")
    return onnx_network.from_network(net, opset)


def _known_opset(opset: int) -> int:
    try:
        import onnx
    except ImportError as error:
        message = f'writing ONNX needs the package onnx ({error}): pip install "gpumlp[onnx]"'
        raise ImportError(message) from error
    known = checks.Interval(OLDEST_OPSET, onnx.defs.onnx_opset_version(), whole=True)
    return checks.number(opset, f"with onnx {onnx.__version__}, opset", known)


def _write(exported: Exported, about: dict[str, str], path: Path) -> None:
    """about: the file's metadata."""
    import onnx

    graph = exported.graph
    if sum(array.nbytes for array in graph.constants.values()) > ONE_FILE_BYTES:
        beside = path.with_name(f"{path.name}.data")
        with atomic.naming(path):
            tensors = _outside(graph, beside)
        model = _model(exported, about, tensors)
        atomic.write(path, model.SerializeToString())
        onnx.checker.check_model(str(path))
    else:
        tensors = [
            onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items()
        ]
        model = _model(exported, about, tensors)
        onnx.checker.check_model(model, full_check=True)
        atomic.write(path, model.SerializeToString())


def _model(exported: Exported, about: dict[str, str], tensors: list[Any]) -> Any:
    """The whole model; tensors: the graph's constants as ONNX has them."""
    from onnx import helper

    graph = exported.graph
    opsets = [helper.make_opsetid("", graph.opset)]
    if any(node.domain == ML for node in graph.nodes):
        opsets.append(helper.make_opsetid(ML, ML_OPSET))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "mlp",
            [_value_info(each) for each in exported.inputs],
            [_value_info(each) for each in exported.outputs],
            tensors,
        ),
        opset_imports=opsets,
        # The oldest format that this operator set allows: older runtimes read it too.
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="gpumlp",
        producer_version=__version__,
    )
    helper.set_model_props(model, about)
    return model


def _value_info(tensor: Tensor) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(tensor.name, element_type(tensor.dtype), tensor.shape)


def _text(value: Any, key: Any) -> str:
    if isinstance(value, str):
        return value
    name = f"metadata[{checks.shown(key)}]"
    return json.dumps(checks.storable(value, name, _plain), default=_plain)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError


def _outside(graph: Graph, file: Path) -> list:
    """The constants as references into a file of their own, which is written here.

    onnx can do this too, but not with a tensor of more than 2 GiB, such as a stack's.
    """
    from onnx import TensorProto, helper, numpy_helper

    tensors = []
    with open(file, "wb") as data:
        for name, array in graph.constants.items():
            if array.nbytes < PAGE or array.dtype == object:
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
