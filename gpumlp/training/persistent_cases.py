"""The self-check's cases of the persistent kernel: epochs, compared with NumPy's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from gpumlp.backend.contract import State
from gpumlp.backend.cuda import persistent_kernel
from gpumlp.backend.reference.numpy_ops import NumpyOps
from gpumlp.backend.selfcheck.case import DTYPES, LOOSE, MODELS, Case, Side, case
from gpumlp.functions.optimizer import SGD, Adam, Optimizer, RMSprop
from gpumlp.model.mlp import MLP
from gpumlp.training import executors, persistent
from gpumlp.training.placement import make_rows
from gpumlp.training.trainer import Trainer


def train(side: Side, network: dict, loss: str, optimizer: Optimizer):
    """An epoch of a stack, by the kernel that keeps networks in shared memory; by NumPy's
    operations on the other side, in the same dtype."""
    dtype = str(side.dtype)
    net = MLP(**network, models=MODELS, dtype=dtype, device="cpu", seed=3)
    net.network = net.network.by(NumpyOps())
    trainer = Trainer(net, loss, optimizer, batch_size=70, seed=5)
    rows, outputs = 100, net.sizes[-1]
    x = side.rng.standard_normal((rows, net.sizes[0])).astype("f4")
    y = side.rng.standard_normal((rows, outputs))
    y = y.argmax(axis=1) if trainer.loss.classes else y
    data = make_rows(net, trainer.objective, x, y, side.rng.uniform(0, 2, rows), 70)
    trainer.rates.plan(data.steps, data.steps)
    if side.exact:
        trainer.run_epoch(data)
        state = trainer.state
        return _trained(net.parameters.buffer, list(state.buffers.values()), state.device)
    data.shuffle(trainer.state.seeds, 0)
    trainer.state.make_room(data.steps)
    shape = persistent.shape_of(net.shape, trainer.objective, trainer.optimizer, x.dtype)
    places = persistent_kernel.fit(shape, side.ops.chip())
    if places is None:
        return None
    run = side.ops.persistent_kernel(shape, places)
    arguments = _sent(side.ops, executors.launch_args(trainer._step, data))
    run(arguments, data.steps)
    return _trained(arguments.theta, arguments.state_buffers, arguments.state)


def _trained(theta, state_buffers, state: State):
    records = state.losses, state.weights, state.t, state.stopped_at, state.cursor
    return [theta, *(buffer for buffer in state_buffers if buffer is not None), *records]


def _sent(ops, value):
    """Copy every array of a value to the device."""
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
    for dtype in DTYPES:
        for what, network in NETWORKS.items():
            yield case("persistent_kernel", what, dtype, train, *network, factor=LOOSE, gpu=True)
