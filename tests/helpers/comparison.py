"""The same network in the library and in the oracle, and the two comparisons between them.

Everything on the library's side goes through its public API.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import gpumlp
from tests.oracle import formulas

GRADIENT_TOLERANCE = 1e-9
TRAJECTORY_TOLERANCE = 1e-8
STEPS = 20


@dataclass
class Case:
    """What is computed on both sides. layers are pairs (activation, options), for k = 1..K.

    x, y and sample_weight may be lists, one for each of the models.
    """

    sizes: tuple
    layers: list
    loss: str
    x: Any
    y: Any
    options: dict = field(default_factory=dict)  # of the loss
    models: int | None = None
    sample_weight: Any = None
    reduction: str = "mean"

    def batch(self):
        """The arguments x, y and sample_weight of the library."""
        weight = None if self.sample_weight is None else np.asarray(self.sample_weight)
        return {"x": np.asarray(self.x), "y": np.asarray(self.y), "sample_weight": weight}

    def library_loss(self):
        return with_options(self.loss, self.options, gpumlp.losses)

    def members(self):
        """For each network, how to take its part of a stacked array or of the lists."""
        if self.models is None:
            return [to_numpy]
        return [lambda array, m=m: to_numpy(array)[m] for m in range(self.models)]

    def oracle_arguments(self, m):
        """The arguments of formulas.loss_and_grad and formulas.train for network m."""

        def own(data):
            return data[m] if isinstance(data, list) else data

        return {
            "x": own(self.x),
            "y": own(self.y),
            "sample_weight": own(self.sample_weight),
            "loss": self.loss,
            "options": self.options,
            "reduction": self.reduction,
        }


def to_numpy(array):
    return array.get() if hasattr(array, "get") else np.asarray(array)


def fill(view, values):
    """Write NumPy values into an array of the library, which may lie on the GPU."""
    if hasattr(view, "get"):
        import cupy

        values = cupy.asarray(values)
    view[...] = values


def with_options(name, options, table):
    return table[name](**options) if options else name


def make_network(case, device, rng):
    """A network with random parameters, written through its views."""
    *hidden, output = [with_options(*layer, gpumlp.activations) for layer in case.layers]
    net = gpumlp.MLP(
        case.sizes,
        hidden=tuple(hidden),
        output=output,
        models=case.models,
        dtype="float64",
        device=device,
    )
    for k, (name, _) in enumerate(case.layers, start=1):
        fill(net.W[k], rng.normal(size=net.W[k].shape) * 0.6 / math.sqrt(case.sizes[k - 1]))
        fill(net.b[k], rng.normal(size=net.b[k].shape) * 0.3)
        if name == "prelu":
            fill(net.slope[k], rng.uniform(0.1, 0.4, net.slope[k].shape))
    return net


def arrays_of(parameters, case, member):
    """W[k], b[k], slope[k] of one network, of the net or of a gradient; as formulas has them."""
    steps = range(1, len(case.layers) + 1)
    learned = [k for k in steps if case.layers[k - 1][0] == "prelu"]
    return (
        [member(parameters.W[k]) for k in steps]
        + [member(parameters.b[k]) for k in steps]
        + [member(parameters.slope[k]) for k in learned]
    )


def make_references(net, case):
    """The oracle's copy of each network."""
    K = len(case.layers)
    references = []
    for member in case.members():
        arrays = [np.array(array) for array in arrays_of(net, case, member)]
        slopes = iter(arrays[2 * K :])
        references.append(
            formulas.Network(
                W=[None, *arrays[:K]],
                b=[None, *arrays[K : 2 * K]],
                slope=[
                    None,
                    *(next(slopes) if name == "prelu" else None for name, _ in case.layers),
                ],
                activations=[None, *case.layers],
            )
        )
    return references


def check_gradients(case, net):
    """The loss and every gradient, relative to the largest element of the array.

    Where a whole array is far smaller than the others, it is held to 1e-6 of the largest.
    """
    value, grad = net.loss_and_grad(
        **case.batch(), loss=case.library_loss(), reduction=case.reduction
    )
    for m, (reference, member) in enumerate(
        zip(make_references(net, case), case.members(), strict=True)
    ):
        expected_value, expected = formulas.loss_and_grad(reference, **case.oracle_arguments(m))
        np.testing.assert_allclose(member(value), expected_value, rtol=GRADIENT_TOLERANCE)
        found = arrays_of(grad, case, member)
        largest = max(np.abs(array).max() for array in expected)
        assert largest > 0
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert a.shape == b.shape
            error = np.abs(a - b).max() / max(np.abs(b).max(), 1e-6 * largest)
            assert error <= GRADIENT_TOLERANCE, f"array {i} of W, b, slope: {error:.1e}"


def check_trajectory(case, net, optimizer):
    """20 steps on one batch: the loss before each, and all parameters at the end."""
    kind, numbers = optimizer
    references = make_references(net, case)
    if case.models is None:
        numbers = {key: each[0] for key, each in spread(numbers).items()}
    trainer = gpumlp.Trainer(
        net,
        loss=case.library_loss(),
        optimizer=getattr(gpumlp, kind)(**numbers),
        reduction=case.reduction,
    )
    history = [np.array(to_numpy(trainer.step(**case.batch()))) for _ in range(STEPS)]

    for m, (reference, member) in enumerate(zip(references, case.members(), strict=True)):
        own = {key: each[m] for key, each in spread(numbers).items()}
        expected_history = formulas.train(
            reference, getattr(formulas, kind)(**own), STEPS, **case.oracle_arguments(m)
        )
        np.testing.assert_allclose(
            [member(value) for value in history], expected_history, rtol=TRAJECTORY_TOLERANCE
        )
        expected, _ = reference.parameters()
        for a, b in zip(arrays_of(net, case, member), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=TRAJECTORY_TOLERANCE)


def spread(numbers):
    """Every number as three, one for each network."""
    return {
        key: value if isinstance(value, tuple) else (value,) * 3 for key, value in numbers.items()
    }
