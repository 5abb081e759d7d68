"""Sequences that are captured when they come again: when they run, and what they keep alive."""

import gc
import weakref

import numpy as np
import pytest

import gpumlp
from gpumlp.model import workspace
from gpumlp.model.graph_cache import GraphCache
from tests.helpers.training import fit, theta


class Recorder:
    """Operations whose capture says so, instead of doing the work."""

    def __init__(self, gains=True):
        self.events, self._gains = [], gains

    def work(self, name="work"):
        return lambda: self.events.append(name)

    def capture(self, work):
        if not self._gains:
            return None
        self.events.append("captured")
        return lambda: self.events.append("replayed")


class Workspace:
    """What a sequence is captured with, as far as it matters here."""


def test_a_sequence_is_captured_when_it_comes_again():
    ops = Recorder()
    repeated, buffers = GraphCache(ops), [Workspace(), object(), None]
    for _ in range(4):
        repeated.run("step", ops.work(), *buffers)
    assert ops.events == ["work", "captured", "replayed", "replayed", "replayed"]


def test_what_was_captured_can_be_called_again():
    ops = Recorder()
    repeated, buffers = GraphCache(ops), [Workspace(), object()]
    assert repeated.run("step", ops.work(), *buffers) is None
    replay = repeated.run("step", ops.work(), *buffers)
    replay()
    assert ops.events == ["work", "captured", "replayed", "replayed"]
    assert GraphCache(Recorder(gains=False)).run("step", ops.work(), *buffers) is None


@pytest.mark.parametrize("replaced", [0, 1, 2])
def test_another_buffer_begins_anew(replaced):
    ops = Recorder()
    repeated, buffers = GraphCache(ops), [Workspace(), object(), None]
    for _ in range(3):
        repeated.run("step", ops.work(), *buffers)
    buffers[replaced] = Workspace() if replaced == 0 else [1]
    other = list(buffers)
    other[replaced] = Workspace() if replaced == 0 else [1]  # equal, and yet another
    del ops.events[:]
    repeated.run("step", ops.work(), *buffers)
    repeated.run("step", ops.work(), *other)
    repeated.run("step", ops.work(), *other)
    assert ops.events == ["work", "work", "captured", "replayed"]


@pytest.mark.parametrize("times", [0, 1])
def test_what_failed_has_not_run(times, monkeypatch):
    """It may not have made what can only be made outside of a capture."""

    def broken():
        raise MemoryError

    ops = Recorder()
    repeated, ws = GraphCache(ops), Workspace()
    for _ in range(times):
        repeated.run("step", ops.work(), ws)
    with monkeypatch.context() as patch:
        patch.setattr(ops, "capture", lambda work: work)  # whose replay fails
        with pytest.raises(MemoryError):
            repeated.run("step", broken, ws)
    del ops.events[:]
    for _ in range(3):
        repeated.run("step", ops.work(), ws)
    assert ops.events == ["work", "captured", "replayed", "replayed"]


def test_a_first_step_that_failed_is_not_captured_next(device, monkeypatch):
    """By then the kernels are not compiled, and there is no room for partial sums."""
    net = gpumlp.MLP((5, 7, 3), device=device)
    trainer = gpumlp.Trainer(net)
    x, y = np.ones((9, 5), "float32"), np.zeros(9, int)
    with monkeypatch.context() as patch:
        patch.setattr(net.ops, "backprop", lambda *given: 1 / 0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                trainer.step(x, y)
    for _ in range(3):
        trainer.step(x, y)
    assert trainer.steps == 3


def test_names_are_apart():
    ops = Recorder()
    repeated, ws = GraphCache(ops), Workspace()
    for name in "abab":
        repeated.run(name, ops.work(name), ws)
    assert ops.events == ["a", "b", "captured", "replayed", "captured", "replayed"]


def test_what_is_not_captured_is_not_kept():
    """A step refers to its rows, which hold the captured steps: a circle would keep the data."""
    ops = Recorder(gains=False)

    class Work:
        def __call__(self):
            ops.events.append("work")

    repeated, work, ws = GraphCache(ops), Work(), Workspace()
    for _ in range(3):
        repeated.run("step", work, ws)
    gone = weakref.ref(work)
    gc.disable()
    try:
        del work
        assert gone() is None
    finally:
        gc.enable()
    assert ops.events == ["work"] * 3


def test_what_was_captured_ends_with_its_workspace():
    ops = Recorder()
    repeated, ws, buffer = GraphCache(ops), Workspace(), Workspace()
    for name in "ab":
        for _ in range(2):
            repeated.run(name, ops.work(), ws, buffer)
    gone = weakref.ref(buffer)
    gc.disable()
    try:
        del buffer
        assert gone() is not None
        del ws
        assert gone() is None
    finally:
        gc.enable()


def alive(monkeypatch, net):
    """A function for the number of workspace memories of this network that are alive."""
    memories, get = [], net.network.workspaces.get

    def remember(rows, purpose):
        ws = get(rows, purpose)
        memory = net.network.workspaces._memory
        if not any(each() is memory for each in memories):
            memories.append(weakref.ref(memory))
            assert sum(each() is not None for each in memories) == 1
        return ws

    monkeypatch.setattr(net.network.workspaces, "get", remember)
    return lambda: (len(memories), sum(each() is not None for each in memories))


def test_growing_sizes_leave_nothing_behind(device, monkeypatch):
    """Predictions, steps and fits with more rows each time: one memory, released and replaced."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 5)).astype("float32"), rng.integers(0, 3, 400)
    net = gpumlp.MLP((5, 7, 3), device=device)
    trainer = gpumlp.Trainer(net, batch_size=1)
    count = alive(monkeypatch, net)
    gc.disable()
    try:
        for rows in range(20, 401, 20):
            for _ in range(3):
                net.forward(x[:rows])
                trainer.step(x[:rows], y[:rows])
            trainer.batch_size = rows // 2
            fit(trainer, x[:rows], y[:rows], 2, validation=(x[:rows], y[:rows]))
    finally:
        gc.enable()
    made, left = count()
    assert made > 15 and left == 1


def test_sizes_that_come_and_go_leave_nothing_behind(device):
    """More of them than workspaces are kept, all in the memory of the largest."""
    x = np.zeros((400, 5), "float32")
    net = gpumlp.MLP((5, 7, 3), device=device)
    for rows in (400, *range(20, 400, 20)):
        for _ in range(3):
            net.forward(x[:rows])
    assert len(net.network.graphs._sequences) <= workspace.MOST_KEPT


NETWORKS = {
    "one": {"sizes": (5, 7, 3), "hidden": "tanh"},
    "stack": {"sizes": (5, 8, 6, 3), "hidden": "gelu", "models": 3, "dropout": 0.3},
    "slopes": {"sizes": (5, 7, 6, 3), "hidden": ["prelu", "rrelu"]},
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_replays_equal_eager_steps(device, network, dtype, monkeypatch):
    """To the bit: fits with a ragged last batch, validation, a schedule; single steps; forward."""
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(26, 5)), rng.integers(0, 3, 26)
    weight = rng.uniform(0.5, 2, 26)
    found = []
    for captures in (True, False):
        net = gpumlp.MLP(**NETWORKS[network], dtype=dtype, device=device, seed=1)
        if not captures:
            monkeypatch.setattr(net.ops, "capture", lambda work: None)
        schedule = gpumlp.schedules["cosine"](total=6.0)
        trainer = gpumlp.Trainer(net, batch_size=8, seed=2, schedule=schedule, clip_norm=0.5)
        history = fit(trainer, x, y, 4, validation=(x, y), sample_weight=weight)
        losses = [np.array(net.ops.to_host(trainer.step(x[:9], y[:9]))) for _ in range(3)]
        outputs = [net.forward(x[:n]) for n in (4, 4, 9, 4)]
        found.append((theta(trainer), history.loss, history.val_loss, losses, outputs[-1]))
    for captured, eager in zip(*found, strict=True):
        np.testing.assert_array_equal(captured, eager)
