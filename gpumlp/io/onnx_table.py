"""A fitted estimator for tables as an ONNX graph, from raw columns to predictions.

gpumlp/io/onnx_preparation.py has the part up to the networks' features.  Of a stack only those
networks are in the graph that have a say.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from gpumlp.estimators.fitted import labels
from gpumlp.estimators.tabular.tabular_base import BaseTabular
from gpumlp.estimators.tabular.tabular_classifier import TINY
from gpumlp.estimators.tabular.tabular_regressor import ranks
from gpumlp.io.onnx_functions import Graph
from gpumlp.io.onnx_network import Exported, Tensor, add_network
from gpumlp.io.onnx_preparation import add_preparation, inputs_of

FIRST = np.array([0])  # an axis


def from_table(est: BaseTabular, opset: int) -> Exported:
    """Of a fitted TabularClassifier or TabularRegressor."""
    check_is_fitted(est)
    inputs = inputs_of(est.preparation_)
    names = [tensor.name for tensor in inputs]
    classes = is_classifier(est)
    outputs = _outputs_of_classes(est) if classes else _outputs_of_values(est)
    for i, tensor in enumerate(outputs):
        name = tensor.name
        while name in names:
            name += "_"
        outputs[i] = tensor._replace(name=name)
    graph = Graph(np.float64, opset, [*names, *(tensor.name for tensor in outputs)])
    x = add_preparation(graph, est.preparation_, names)
    members = [_add_members(graph, est, i, x) for i in range(len(est._stacks))]
    if classes:
        _add_classes(graph, est, *members, *(tensor.name for tensor in outputs))
    else:
        _add_values(graph, est, members, outputs[0].name)
    about: dict[str, Any] = {"classes": labels(est.classes_)} if classes else {}
    if hasattr(est, "feature_names_in_"):
        about["features"] = est.feature_names_in_.tolist()
    return Exported(graph, inputs, outputs, about)


def _add_members(graph: Graph, est: BaseTabular, i: int, x: str) -> str:
    """The outputs (M, B, N_K) of the networks of stack i that have a say."""
    net = est._stacks[i].net
    graph.dtype = net.dtype
    prefix = f"stack_{i}_" if len(est._stacks) > 1 else ""
    graph.enter(prefix)
    if net.dtype != np.float32:
        x = graph.cast(x, net.dtype)
    output = graph.free(f"{prefix}outputs")
    add_network(graph, net, x, output, prefix, est._sound)
    return output


# ---------------------------------------------------------------- classes
def _outputs_of_classes(est: Any) -> list[Tensor]:
    dtype = est._stacks[0].net.dtype
    return [
        Tensor("label", _storable(est.classes_).dtype, ("B",)),
        Tensor("probabilities", dtype, ("B", len(est.classes_))),
    ]


def _storable(classes: np.ndarray) -> np.ndarray:
    """Labels as int64, where they are whole numbers or booleans, or as text; else as double."""
    if classes.dtype.kind in "biu" and not (classes > np.iinfo(np.int64).max).any():
        return classes.astype(np.int64)
    if classes.dtype.kind in "uf":
        return classes.astype(np.uint64 if classes.dtype.kind == "u" else np.float64)
    return np.array([str(label) for label in classes], dtype=object)


def _add_classes(graph: Graph, est: Any, members: str, label: str, probabilities: str) -> None:
    """Means over the networks of p^(1/T), and the most probable class.  A single class has two
    outputs, of which the first is its own."""
    graph.enter("classes_")
    q = graph.op("Pow", graph.op("Max", members, TINY), 1 / est.temperature_)
    q = graph.op("Div", q, graph.op("ReduceSum", q, np.array([2]), keepdims=1))
    mean = graph.op("ReduceSum", q, FIRST, keepdims=0)
    if len(est.classes_) == 1:
        mean = graph.op("Gather", mean, np.array([0]), axis=1)
    total = graph.op("ReduceSum", mean, np.array([1]), keepdims=1)
    graph.op("Div", mean, total, output=probabilities)
    best = graph.op("ArgMax", probabilities, axis=1, keepdims=0)
    classes = graph.constant(_storable(est.classes_), "labels", _storable(est.classes_).dtype)
    graph.op("Gather", classes, best, output=label)


# ---------------------------------------------------------------- values
def _outputs_of_values(est: Any) -> list[Tensor]:
    return [Tensor("variable", np.float64, ("B", *np.shape(est._levels or 0)))]


def _add_values(graph: Graph, est: Any, members: list[str], output: str) -> None:
    """Means over the networks of values within the range that was seen, and the quantiles in their
    order."""
    graph.enter("values_")
    graph.dtype = np.dtype(np.float64)
    means = []
    for outputs in members:
        y = graph.cast(outputs, np.float64)
        y = graph.op("Add", graph.op("Mul", y, est._scale), est._centre)
        y = graph.op("Clip", y, *est._range)
        total = graph.op("ReduceSum", y, FIRST, keepdims=0)
        means.append(graph.op("Div", total, float(len(est._sound))))
    y = graph.op("Concat", *means, axis=1)
    if np.ndim(est._levels or 0) == 0:
        graph.op("Squeeze", y, np.array([1]), output=output)
        return
    in_order = graph.op("TopK", y, np.array([len(means)]), axis=1, largest=0)
    graph.nodes[-1].output.append(graph.free("values_places"))  # of which nobody asks
    graph.op("Gather", in_order, ranks(est._levels), axis=1, output=output)
