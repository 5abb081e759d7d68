"""Copies and pickles of networks and trainers: they train on as the original does."""

import copy
import pickle

import numpy as np
import pytest

import gpumlp
from tests import standin
from tests.helpers.training import blobs, fit, make_trainer, theta

HOW = {"deepcopy": copy.deepcopy, "pickle": lambda what: pickle.loads(pickle.dumps(what))}

# The hidden activation, and the arguments of `make_trainer`.
CASES = {
    "alone": ("tanh", {}),
    "learned slopes": ("prelu", {}),
    "drawn slopes and dropout": ("rrelu", {"net": {"dropout": 0.4}}),
    "stack": ("prelu", {"models": 3, "net": {"dropout": 0.2}}),
    "bfloat16": ("prelu", {"net": {"dtype": "float32", "precision": "bf16", "dropout": 0.2}}),
    "tuned": ("tanh", {"net": {"dtype": "float32", "tune": True}}),
    "a schedule": ("tanh", {"schedule": "cosine"}),
    "penalties in the loss": (
        "prelu", {"penalty_in_loss": True, "optimizer": gpumlp.SGD(0.1, momentum=0.9, l2=0.01)},
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_choices(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def trained(device, case):
    hidden, options = CASES[case]
    trainer = make_trainer(device, hidden=hidden, **options)
    fit(trainer, *blobs(30), epochs=2)
    return trainer


def assert_same(a, b):
    np.testing.assert_array_equal(theta(a), theta(b))
    np.testing.assert_array_equal(a.history.loss, b.history.loss)
    np.testing.assert_array_equal(a.steps, b.steps)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("case", CASES)
def test_a_copied_trainer_trains_on(device, case, how):
    trainer = trained(device, case)
    other, before = HOW[how](trainer), theta(trainer)
    fit(other, *blobs(30), epochs=3)
    np.testing.assert_array_equal(theta(trainer), before)
    assert not np.array_equal(theta(other), before)
    fit(trainer, *blobs(30), epochs=3)
    assert_same(other, trainer)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("case", ["learned slopes", "stack", "bfloat16"])
def test_a_copied_network_predicts_what_it_has_learned(device, case, how):
    trainer = trained(device, case)
    net, (x, y) = HOW[how](trainer.net), blobs(30)
    before = trainer.net.forward(x)
    np.testing.assert_array_equal(net.forward(x), before)
    for other in (gpumlp.Trainer(each, seed=4) for each in (net, trainer.net)):
        fit(other, x, y)
    after = net.forward(x)
    assert not np.array_equal(after, before)
    np.testing.assert_array_equal(after, trainer.net.forward(x))


@pytest.mark.parametrize("how", HOW)
def test_what_is_written_to_a_copy_stays_there(device, how):
    net, (x, _) = trained(device, "stack").net, blobs(30)
    other, before = HOW[how](net), net.forward(x)
    for k in (1, 2):
        other.W[k][...] = 0
        other.b[k][...] = 0
    np.testing.assert_allclose(other.forward(x), 1 / 3, rtol=1e-12)
    np.testing.assert_array_equal(net.forward(x), before)


def test_a_copy_has_no_buffers_until_it_needs_them(device):
    """They are as large as the largest batch so far."""
    net = gpumlp.MLP((4, 6, 3), device=device)
    net.forward(blobs(3000)[0])
    assert len(pickle.dumps(net)) < 30_000


def test_a_copy_keeps_the_algorithms_that_were_chosen(cuda):
    trainer = trained(cuda, "tuned")
    assert trainer.net.ops.export_algorithms()
    assert copy.deepcopy(trainer).net.ops.export_algorithms() == trainer.net.ops.export_algorithms()


def test_a_copy_stays_on_its_device(counters, monkeypatch):
    cp = standin.install(monkeypatch, devices=2)
    trainer = make_trainer("cuda:1", hidden="prelu")
    text = pickle.dumps(trainer)
    fit(copy.deepcopy(trainer), *blobs(30))
    with pytest.raises(RuntimeError, match="cuda:1 was unpickled to cuda:0: make cuda:1 the curr"):
        pickle.loads(text)
    with cp.cuda.Device(1):
        fit(pickle.loads(text), *blobs(30))
