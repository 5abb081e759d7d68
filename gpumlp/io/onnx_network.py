"""A network, or a fitted estimator that is one, as an ONNX graph."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpumlp.io import weights as parameters
from gpumlp.io.onnx_functions import Graph, add_activation
from gpumlp.model.mlp import MLP


class Tensor(NamedTuple):
    """An input or output of a graph.  dtype: object for text; shape: numbers, or names of those
    that may be any."""

    name: str
    dtype: Any
    shape: tuple[int | str, ...]


class Exported(NamedTuple):
    """A graph, and what it is of: the metadata to write."""

    graph: Graph
    inputs: list[Tensor]
    outputs: list[Tensor]
    about: dict[Any, Any]


def from_network(net: Any, opset: int) -> Exported:
    """Of an MLP, or of an estimator that has `_as_network`."""
    left_to_do, about = "nothing", None
    if hasattr(net, "_as_network"):
        net, about, left_to_do = net._as_network()
    graph = Graph(net.dtype, opset)
    add_network(graph, net, "x", "y" if left_to_do == "nothing" else "outputs")
    _finish(graph, net, left_to_do)
    stack = () if net.models is None else (net.models,)
    width = net.sizes[-1] + (left_to_do == "both")
    return Exported(
        graph,
        [Tensor("x", net.dtype, ("B", net.sizes[0]))],
        [Tensor("y", net.dtype, (*stack, "B", width))],
        net.metadata if about is None else about,
    )


def add_network(
    graph: Graph, net: MLP, x: str, output: str, prefix: str = "", members: Any = None
) -> None:
    """The layers, from the tensor x to the tensor `output`.

    prefix: of the names of all others; members: which networks of a stack, by default all.
    """
    own = parameters.read_products(net)
    if net.models is not None and members is None:
        members = np.arange(net.models)
    n = x
    for k in range(1, net.K + 1):
        # (1)(3)(5)(8)  z^(k) = W^(k) n^(k-1) + b^(k)
        graph.enter(prefix)
        z = graph.free(f"{prefix}z_{k}")
        if net.models is None:
            W, b = graph.constant(own.W[k], f"W_{k}"), graph.constant(own.b[k], f"b_{k}")
            graph.op("Gemm", n, W, b, transB=1, output=z)
        else:
            W = graph.constant(own.W[k][members].swapaxes(1, 2), f"W_{k}")
            b = graph.constant(own.b[k][members][:, None, :], f"b_{k}")
            graph.op("Add", graph.op("MatMul", n, W), b, output=z)
        # (2)(4)(6)(9)  n^(k) = f^(k)(z^(k))
        n = output if k == net.K else graph.free(f"{prefix}n_{k}")
        slope = None
        if own.slope[k] is not None:
            # () or, for a stack, (M, 1, 1)
            values = own.slope[k]
            values = values if net.models is None else values[members][:, None, None]
            slope = graph.constant(values, f"slope_{k}")
        graph.enter(f"{prefix}layer_{k}_")
        add_activation(graph, net.f[k], z, slope, output=n)


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
