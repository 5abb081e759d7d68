"""What is more than one operation: copies, sequences that are captured, the resident kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from gpumlp.backend import State
from gpumlp.backend.cuda import resident
from gpumlp.backend.reference.numpy_ops import NumpyOps
from gpumlp.backend.selfcheck.case import DTYPES, LOOSE, MODELS, Case, Side, case, constants
from gpumlp.functions.activation import activations
from gpumlp.functions.optimizer import SGD, Adam, Optimizer, RMSprop


def copies(side: Side):
    """To the device and back, of what goes in one piece and what does not."""
    sizes = 1029, (1 << 18) + 3
    return [side.ops.to_device(side.rng.standard_normal(size).astype("f4")) for size in sizes]


def transfers(side: Side):
    """Two rounds of copies beside the computing."""
    data = side.rng.integers(0, 256, (4, 4099)).astype(np.uint8)
    if side.exact:
        return list(data)
    results, both = [], side.ops.transfers(data.shape[1])
    for i, row in enumerate(data):
        transfer = both[i % 2]
        transfer.wait()
        transfer.host[:] = row
        transfer.send()
        results.append(transfer.array.copy())
        transfer.release()
    return results


def capture(side: Side):
    """A product, f and a sum, run and then replayed twice."""
    a, b, c = (side.normal(MODELS, *shape) for shape in ((37, 5), (5, 13), (13, 7)))
    z, out, bias = side.empty(MODELS, 37, 13), side.normal(MODELS, 37, 7), side.normal(MODELS, 13)
    f = activations["relu"]
    p = constants(side, f)

    def work():
        side.ops.gemm(a, b, z)
        side.ops.activate(f, z, bias, z, p)
        side.ops.gemm(z, c, out, beta=1.0)

    work()
    replay = side.ops.capture(work) or work
    replay()
    replay()
    return [out]


def train(side: Side, network: dict, of: str, law: Optimizer):
    """An epoch of a stack, by the kernel that keeps networks in shared memory; by NumPy's
    operations on the other side, in the same dtype."""
    from gpumlp.model.network import MLP
    from gpumlp.training import residence  # which use the operations, as these do
    from gpumlp.training.rows import make_rows
    from gpumlp.training.trainer import Trainer

    dtype = str(side.dtype)
    net = MLP(**network, models=MODELS, dtype=dtype, device="cpu", seed=3)
    net.ops = NumpyOps()
    trainer = Trainer(net, of, law, batch_size=70, seed=5)
    rows, outputs = 100, net.sizes[-1]
    x = side.rng.standard_normal((rows, net.sizes[0])).astype("f4")
    y = side.rng.standard_normal((rows, outputs))
    y = y.argmax(axis=1) if trainer.loss.classes else y
    data = make_rows(net, trainer.objective, x, y, side.rng.uniform(0, 2, rows), 70)
    trainer.rates.plan(data.steps, data.steps)
    if side.exact:
        trainer.run_epoch(data)
        return _trained(net.parameters.buffer, list(trainer.slots.values()), trainer.state)
    data.shuffle(trainer.seeds, 0)
    trainer.make_room(data.steps)
    shape = residence.shape_of(trainer, x.dtype)
    places = resident.fit(shape, side.ops.chip())
    if places is None:
        return None
    run = side.ops.resident(shape, places)
    what = _sent(side.ops, residence.training_of(trainer, data))
    run(what, data.steps)
    return _trained(what.theta, what.slots, what.state)


def _trained(theta, slots, state: State):
    noted = state.losses, state.weights, state.t, state.halted, state.cursor
    return [theta, *(slot for slot in slots if slot is not None), *noted]


def _sent(ops, value):
    """The same with every array on the device."""
    if isinstance(value, np.ndarray):
        return ops.to_device(value.copy())
    if isinstance(value, State):
        names = [field.name for field in dataclasses.fields(State)]
        return State(**{name: _sent(ops, getattr(value, name)) for name in names})
    if isinstance(value, tuple):
        return type(value)(*(_sent(ops, part) for part in value))
    return [_sent(ops, part) for part in value] if isinstance(value, list) else value


NETWORKS = {
    "relu": ({"sizes": (5, 7, 6, 3), "hidden": "relu"}, "cross_entropy", Adam()),
    "dropout and slopes": (
        {"sizes": (8, 12, 16, 4), "hidden": ["prelu", "rrelu"], "dropout": 0.4},
        "focal",
        SGD(1e-2, momentum=0.9, nesterov=True),
    ),
    "gelu": (
        {"sizes": (5, 9, 2), "hidden": "gelu", "output": "identity"},
        "squared_error",
        RMSprop(1e-2, momentum=0.5, centered=True),
    ),
}


def cases() -> Iterator[Case]:
    yield case("copies", "4 KiB and 1 MiB", "float32", copies, factor=0.0, first=True)
    yield case("transfers", "two in turn", "float32", transfers, factor=0.0, first=True, gpu=True)
    for dtype in DTYPES:
        yield case("capture", "run and replayed twice", dtype, capture, first=True)
        for what, network in NETWORKS.items():
            yield case("resident", what, dtype, train, *network, factor=LOOSE, gpu=True)
