"""The activations in ONNX: an operator of its own for each, or several simpler ones.

An operator is used where the operator set has it and the network is float32: onnxruntime has most
of them for float32 only.  Otherwise the formula is written out, in operators that onnxruntime has
for both.  Adding an activation is a line in one of the tables, or in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from gpumlp.functions.activation import GELU_CUBIC, GELU_SCALE, SELU_ALPHA, SELU_SCALE, Activation

Operand = str | float | np.ndarray

# Softmax over the last axis, Clip with inputs, everything for float64: from this operator set on.
OLDEST_OPSET = 13


class Graph:
    """Collects the nodes and constants of an ONNX graph; tensors are known by their names.

    dtype: of constants that are given as numbers; taken: names that belong to the graph's inputs
    and outputs alone.
    """

    def __init__(self, dtype: Any, opset: int, taken: Iterable[str] = ()):
        self.dtype, self.opset = np.dtype(dtype), opset
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self._prefix = ""
        self._taken = frozenset(taken)

    def enter(self, prefix: str) -> None:
        """Begin the names of the following tensors and nodes with this prefix."""
        self._prefix = prefix

    def free(self, name: str) -> str:
        """The name, or one like it that is no input's or output's."""
        while name in self._taken:
            name += "_"
        return name

    def constant(self, value, name: str, dtype: Any = None) -> str:
        """Add a constant of that dtype, or of the graph's; returns its name."""
        name = self.free(f"{self._prefix}{name}")
        dtype = self.dtype if dtype is None else dtype
        self.constants[name] = np.array(value, dtype=dtype, order="C")
        return name

    def op(self, kind: str, *inputs: Operand, output: str = "", **attributes) -> str:
        """Add a node; numbers among its inputs become constants, and arrays, which keep their
        dtype.  Returns the name of its output."""
        from onnx import helper

        local = f"{kind}_{len(self.nodes)}"
        names = [
            each
            if isinstance(each, str)
            else self.constant(each, f"{local}_constant_{i}", getattr(each, "dtype", None))
            for i, each in enumerate(inputs)
        ]
        name = f"{self._prefix}{local}"
        output = output or self.free(f"{name}_out")
        self.nodes.append(helper.make_node(kind, names, [output], name=name, **attributes))
        return output

    def cast(self, tensor: str, dtype: Any) -> str:
        return self.op("Cast", tensor, to=element_type(dtype))


class Operator(NamedTuple):
    """An operator of ONNX, its first operator set, and its attributes by the constants p."""

    kind: str
    since: int = OLDEST_OPSET
    attributes: Callable[[tuple[float, ...]], dict] = lambda p: {}
    float64: bool = False  # onnxruntime runs it in float64 too


OPERATORS = {
    "identity": Operator("Identity", float64=True),
    "sigmoid": Operator("Sigmoid", float64=True),
    "hard_sigmoid": Operator("HardSigmoid", attributes=lambda p: {"alpha": 1 / 6, "beta": 0.5}),
    "tanh": Operator("Tanh", float64=True),
    "softsign": Operator("Softsign"),
    "softplus": Operator("Softplus"),
    "relu": Operator("Relu", since=14, float64=True),
    "leaky_relu": Operator("LeakyRelu", attributes=lambda p: {"alpha": p[0]}),
    # In inference the slope is the mean of the drawn ones.
    "rrelu": Operator("LeakyRelu", attributes=lambda p: {"alpha": 0.5 * (p[0] + p[1])}),
    "elu": Operator("Elu", attributes=lambda p: {"alpha": p[0]}),
    "selu": Operator("Selu", attributes=lambda p: {"alpha": SELU_ALPHA, "gamma": SELU_SCALE}),
    "celu": Operator("Celu", attributes=lambda p: {"alpha": p[0]}),
    "gelu": Operator("Gelu", since=20, attributes=lambda p: {"approximate": "none"}),
    "gelu_tanh": Operator("Gelu", since=20, attributes=lambda p: {"approximate": "tanh"}),
    "hard_swish": Operator("HardSwish", since=14),
    "mish": Operator("Mish", since=18),
    "exp": Operator("Exp", float64=True),
    "sine": Operator("Sin", float64=True),
    "softmax": Operator("Softmax", attributes=lambda p: {"axis": -1}, float64=True),
    "log_softmax": Operator("LogSoftmax", attributes=lambda p: {"axis": -1}, float64=True),
}


def _softplus(g: Graph, z: str) -> str:
    # log(1 + e^z) = max(z, 0) + log(1 + e^-|z|), which cannot overflow
    e = g.op("Exp", g.op("Neg", g.op("Abs", z)))
    return g.op("Add", g.op("Max", z, 0.0), g.op("Log", g.op("Add", e, 1.0)))


def _two_slopes(g: Graph, z: str, slope: str | float) -> str:
    # max(z, 0) + slope min(z, 0)
    return g.op("Add", g.op("Max", z, 0.0), g.op("Mul", g.op("Min", z, 0.0), slope))


def _exponential_below_zero(g: Graph, z: str, scale: float, width: float = 1.0) -> str:
    # max(z, 0) + scale (e^(min(z, 0) / width) - 1)
    e = g.op("Exp", g.op("Div", g.op("Min", z, 0.0), width))
    return g.op("Add", g.op("Max", z, 0.0), g.op("Mul", g.op("Sub", e, 1.0), scale))


def _hard_sigmoid(g: Graph, z: str) -> str:
    # clip(z + 3, 0, 6) / 6
    return g.op("Div", g.op("Clip", g.op("Add", z, 3.0), 0.0, 6.0), 6.0)


def _gelu(g: Graph, z: str) -> str:
    # z (1 + erf(z / sqrt 2)) / 2; onnxruntime has erf for float32 only
    u = g.op("Div", z, math.sqrt(2))
    if g.dtype == np.float64:
        erf = g.cast(g.op("Erf", g.cast(u, np.float32)), g.dtype)
    else:
        erf = g.op("Erf", u)
    return g.op("Mul", g.op("Mul", z, 0.5), g.op("Add", erf, 1.0))


def _gelu_tanh(g: Graph, z: str) -> str:
    # z (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))) / 2
    cubic = g.op("Mul", g.op("Mul", z, g.op("Mul", z, z)), GELU_CUBIC)
    t = g.op("Tanh", g.op("Mul", g.op("Add", z, cubic), GELU_SCALE))
    return g.op("Mul", g.op("Mul", z, 0.5), g.op("Add", t, 1.0))


def _silu(g: Graph, z: str) -> str:
    if g.dtype == np.float32:
        return g.op("Mul", z, g.op("Sigmoid", z))
    # onnxruntime 1.23 makes QuickGelu of z sigmoid(z), which it has for float32 only.
    return g.op("Div", z, g.op("Add", g.op("Exp", g.op("Neg", z)), 1.0))


# f(graph, z, p) -> n; p holds the activation's constants.
COMPOSED: dict[str, Callable[[Graph, str, tuple], str]] = {
    "hard_sigmoid": lambda g, z, p: _hard_sigmoid(g, z),
    "hard_tanh": lambda g, z, p: g.op("Clip", z, -1.0, 1.0),
    "softsign": lambda g, z, p: g.op("Div", z, g.op("Add", g.op("Abs", z), 1.0)),
    "softplus": lambda g, z, p: _softplus(g, z),
    "relu": lambda g, z, p: g.op("Max", z, 0.0),
    "relu6": lambda g, z, p: g.op("Clip", z, 0.0, 6.0),
    "leaky_relu": lambda g, z, p: _two_slopes(g, z, p[0]),
    "rrelu": lambda g, z, p: _two_slopes(g, z, 0.5 * (p[0] + p[1])),
    "elu": lambda g, z, p: _exponential_below_zero(g, z, p[0]),
    "selu": lambda g, z, p: g.op("Mul", _exponential_below_zero(g, z, SELU_ALPHA), SELU_SCALE),
    "celu": lambda g, z, p: _exponential_below_zero(g, z, p[0], p[0]),
    "gelu": lambda g, z, p: _gelu(g, z),
    "gelu_tanh": lambda g, z, p: _gelu_tanh(g, z),
    "silu": lambda g, z, p: _silu(g, z),
    "hard_swish": lambda g, z, p: g.op("Mul", z, _hard_sigmoid(g, z)),
    "mish": lambda g, z, p: g.op("Mul", z, g.op("Tanh", _softplus(g, z))),
}


def add_activation(g: Graph, f: Activation, z: str, slope: str | None, output: str) -> None:
    """Add n = f(z) to the graph, as nodes of which the last has the output `output`.

    slope: the tensor of an activation that learns it (PReLU), broadcastable against z.
    """
    name = f.name
    if not f.built_in or not (f.learned or name in OPERATORS or name in COMPOSED):
        raise ValueError(
            f"activation {name!r} has no ONNX operator; those that can be exported are gpumlp's own"
        )
    if f.learned:
        _learned(g, z, slope)
    else:
        _fixed(g, f, z)
    # The last node did not know that it is the last.
    g.nodes[-1].output[0] = output


def _learned(g: Graph, z: str, slope) -> None:
    """Add PReLU, the one activation that learns a slope."""
    if g.dtype == np.float32:
        g.op("PRelu", z, slope)
    else:
        _two_slopes(g, z, slope)


def _fixed(g: Graph, f: Activation, z: str) -> None:
    """Add an activation without a learned slope."""
    operator = OPERATORS.get(f.name)
    if operator and operator.since <= g.opset and (operator.float64 or g.dtype == np.float32):
        g.op(operator.kind, z, **operator.attributes(f.p))
    else:
        COMPOSED[f.name](g, z, f.p)


def element_type(dtype: Any) -> int:
    """What ONNX calls a dtype; text is of dtype object."""
    from onnx import helper

    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
