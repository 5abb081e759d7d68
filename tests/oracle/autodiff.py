"""Reverse-mode automatic differentiation of float64 arrays: the tests' independent oracle.

Nothing here comes from the library. A `Tensor` holds an array and remembers the tensors that it
was computed from, each with a function (its pullback) that carries the derivative of the end
result back to it. `gradient` walks that record, the tape, from the result to its beginnings.
"""

import itertools
import math

import numpy as np

_order = itertools.count()


class Tensor:
    """An array and its place on the tape.

    parents: pairs (tensor, pullback), where pullback maps dL/d(self) to the part of
    dL/d(tensor) that flows through self.
    """

    __array_ufunc__ = None  # makes `array * tensor` call Tensor.__rmul__

    def __init__(self, value, parents=()):
        self.value = np.asarray(value, dtype=np.float64)
        self.parents = parents
        self.order = next(_order)  # a tensor always comes after the tensors it is made from

    @property
    def shape(self):
        return self.value.shape

    def __add__(self, other):
        a, b = self, tensor(other)
        return elementwise(a.value + b.value, (a, 1.0), (b, 1.0))

    def __sub__(self, other):
        a, b = self, tensor(other)
        return elementwise(a.value - b.value, (a, 1.0), (b, -1.0))

    def __mul__(self, other):
        a, b = self, tensor(other)
        return elementwise(a.value * b.value, (a, b.value), (b, a.value))

    def __truediv__(self, other):
        a, b = self, tensor(other)
        return elementwise(a.value / b.value, (a, 1 / b.value), (b, -a.value / b.value**2))

    def __pow__(self, exponent):
        """self ** exponent, for a constant exponent."""
        return elementwise(self.value**exponent, (self, exponent * self.value ** (exponent - 1)))

    def __neg__(self):
        return elementwise(-self.value, (self, -1.0))

    def __rsub__(self, other):
        return tensor(other) - self

    def __rtruediv__(self, other):
        return tensor(other) / self

    __radd__ = __add__
    __rmul__ = __mul__

    def __matmul__(self, other):
        """The product of two matrices."""
        a, b = self, tensor(other)
        return Tensor(
            a.value @ b.value,
            [(a, lambda g: g @ b.value.T), (b, lambda g: a.value.T @ g)],
        )

    @property
    def T(self):
        return Tensor(self.value.T, [(self, lambda g: g.T)])

    def sum(self, axis=None, keepdims=False):
        def pullback(g):
            if axis is not None and not keepdims:
                g = np.expand_dims(g, axis)
            return np.broadcast_to(g, self.shape)

        return Tensor(self.value.sum(axis=axis, keepdims=keepdims), [(self, pullback)])


def tensor(value):
    """value itself if it is a tensor, else a constant."""
    return value if isinstance(value, Tensor) else Tensor(value)


def elementwise(value, *partials):
    """A tensor of an elementwise function; partials are its pairs (argument, d value/d argument).

    Arguments may have been broadcast: a pullback sums over the axes along which its was.
    """

    def pullback_to(argument, derivative):
        return lambda g: _sum_to_shape(g * derivative, argument.shape)

    return Tensor(value, [(a, pullback_to(a, derivative)) for a, derivative in partials])


def _sum_to_shape(array, shape):
    new_axes = array.ndim - len(shape)
    stretched = [
        axis + new_axes
        for axis, size in enumerate(shape)
        if size == 1 and array.shape[axis + new_axes] != 1
    ]
    return array.sum(axis=(*range(new_axes), *stretched)).reshape(shape)


def exp(a):
    value = np.exp(a.value)
    return elementwise(value, (a, value))


def log(a):
    return elementwise(np.log(a.value), (a, 1 / a.value))


def log1p(a):
    return elementwise(np.log1p(a.value), (a, 1 / (1 + a.value)))


def sin(a):
    return elementwise(np.sin(a.value), (a, np.cos(a.value)))


def tanh(a):
    value = np.tanh(a.value)
    return elementwise(value, (a, 1 - value**2))


def erf(a):
    value = np.vectorize(math.erf, otypes=[np.float64])(a.value)
    return elementwise(value, (a, 2 / math.sqrt(math.pi) * np.exp(-(a.value**2))))


def absolute(a):
    """|a|, with derivative 0 at 0."""
    return elementwise(np.abs(a.value), (a, np.sign(a.value)))


def clip(a, low, high):
    """a kept within two constants, with derivative 0 at both of them."""
    inside = (a.value > low) & (a.value < high)
    return elementwise(np.clip(a.value, low, high), (a, inside))


def where(condition, a, b):
    """a where the Boolean array `condition` holds, else b."""
    a, b = tensor(a), tensor(b)
    value = np.where(condition, a.value, b.value)
    return elementwise(value, (a, condition), (b, ~condition))


def maximum(a, b):
    """The larger of the two; where they are equal, b."""
    a, b = tensor(a), tensor(b)
    return where(a.value > b.value, a, b)


def gradient(result, tensors):
    """d result/d t for each t of `tensors`; result has one element."""
    tape = {}
    reached = [result]
    while reached:
        node = reached.pop()
        if node.order not in tape:
            tape[node.order] = node
            reached.extend(parent for parent, _ in node.parents)

    derivative = {result.order: np.ones(result.shape)}
    for order in sorted(tape, reverse=True):
        for parent, pullback in tape[order].parents:
            part = pullback(derivative[order])
            derivative[parent.order] = derivative.get(parent.order, 0.0) + part
    return [derivative.get(t.order, np.zeros(t.shape)) for t in tensors]
