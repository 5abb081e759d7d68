"""A stack of M networks is M trainings: each with its own numbers, data and randomness."""

import numpy as np
import pytest

import gpumlp
from tests.helpers.comparison import to_numpy
from tests.helpers.training import blobs, theta

M = 3
X, Y = blobs(22)
XV, YV = blobs(9, seed=1)
PENALTIES = {"l1": [0.0, 1e-3, 1e-2], "l2": [0.1, 0.0, 1e-2]}

# optimiser and its numbers, some of them one per network
OPTIMIZERS = {
    "SGD": ("SGD", {"lr": [0.1, 0.03, 0.3], **PENALTIES}),
    "momentum": ("SGD", {"lr": [0.1, 0.03, 0.3], "momentum": [0.0, 0.5, 0.9], **PENALTIES}),
    "Nesterov": (
        "SGD",
        {"lr": 0.05, "momentum": [0.2, 0.5, 0.9], "nesterov": True, "l2": PENALTIES["l2"]},
    ),
    "RMSprop": (
        "RMSprop",
        {
            "lr": [1e-2, 3e-3, 3e-2],
            "rho": [0.9, 0.99, 0.5],
            "momentum": [0.0, 0.3, 0.9],
            "centered": True,
            **PENALTIES,
        },
    ),
    "Adam": (
        "Adam",
        {"lr": [1e-2, 3e-3, 3e-2], "beta1": [0.9, 0.0, 0.5], "beta2": [0.999, 0.9, 0.99]},
    ),
    "AdamW": ("AdamW", {"lr": 1e-2, "weight_decay": [0.0, 0.1, 1.0], "eps": [1e-8, 1e-4, 1e-2]}),
}


def own(numbers, m):
    """Network m's part of an argument: lists hold one for each network."""
    return numbers[m] if isinstance(numbers, list) else numbers


def make(device, optimizer, m=None, dropout=0.0, clip_norm=None, **options):
    """The stack, or network m of it alone."""
    kind, numbers = optimizer
    models, seed, order = (M, 20, 7) if m is None else (None, 20 + m, 7 + m)
    if m is not None:
        numbers = {key: own(value, m) for key, value in numbers.items()}
        dropout, clip_norm = own(dropout, m), own(clip_norm, m)
    net = gpumlp.MLP(
        (4, 7, 5, 3), ["tanh", "prelu"], models=models, seed=seed, dropout=[dropout, dropout],
        dtype="float64", device=device,
    )  # fmt: skip
    optimizer = getattr(gpumlp, kind)(
        **{key: np.array(v) if isinstance(v, list) else v for key, v in numbers.items()}
    )
    clip_norm = np.array(clip_norm) if isinstance(clip_norm, list) else clip_norm
    return gpumlp.Trainer(net, optimizer=optimizer, batch_size=8, seed=order, clip_norm=clip_norm,
                          **options)  # fmt: skip


def compare(device, optimizer, x=X, y=Y, weight=None, epochs=3, **options):
    """The stack trained at once, and each network by itself."""
    stack = make(device, optimizer, **options)
    history = stack.fit(x, y, epochs, (XV, YV), progress=False, sample_weight=weight)
    for m in range(M):
        alone = make(device, optimizer, m, **options)
        data = (a if a is None or a.ndim == whole.ndim else a[m]
                for a, whole in ((x, X), (y, Y), (weight, Y)))  # fmt: skip
        x_m, y_m, weight_m = data
        expected = alone.fit(x_m, y_m, epochs, (XV, YV), progress=False, sample_weight=weight_m)
        np.testing.assert_allclose(theta(stack)[m], theta(alone), rtol=0, atol=1e-12)
        for name in ("loss", "val_loss", "val_accuracy", "lr"):
            found = np.array(getattr(history, name))[:, m]
            np.testing.assert_allclose(found, getattr(expected, name), rtol=1e-12)
        assert stack.steps[m] == alone.steps
    return stack


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_numbers_of_each_network(device, optimizer):
    compare(device, OPTIMIZERS[optimizer])


def test_dropout_clipping_and_schedule_of_each_network(device):
    compare(
        device,
        OPTIMIZERS["momentum"],
        dropout=[0.0, 0.2, 0.6],
        clip_norm=[0.05, 1e9, 0.3],
        schedule=gpumlp.schedules["cosine"](warmup=1),
    )


def test_plateau_of_each_network(device):
    compare(
        device,
        OPTIMIZERS["SGD"],
        epochs=6,
        schedule=gpumlp.schedules["plateau"](patience=1, decay=0.3, delta=0.02),
    )


def test_data_of_each_network(device):
    rng = np.random.default_rng(0)
    x = np.stack([blobs(22, seed=seed)[0] for seed in (3, 4, 5)])
    y = np.stack([Y, (Y + 1) % 3, Y[::-1]])
    weight = rng.uniform(0.5, 2, (M, 22))
    compare(device, OPTIMIZERS["Adam"], x, y, weight)


def test_shared_features_and_targets_of_each_network(device):
    compare(device, OPTIMIZERS["Adam"], y=np.stack([Y, (Y + 1) % 3, Y[::-1]]))


def test_folds_of_different_sizes(device):
    """Rows of weight 0 at the end, as where a stack trains on folds: whole batches of network 1
    hold none but these, and it makes fewer updates."""
    weight = np.ones((M, 22))
    weight[1, 5:] = 0
    weight[2, 21:] = 0
    stack = compare(device, OPTIMIZERS["momentum"], weight=weight, shuffle=False)
    np.testing.assert_array_equal(stack.steps, [9, 3, 9])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_steps(device, reduction):
    stack = make(device, OPTIMIZERS["momentum"], reduction=reduction, dropout=[0.0, 0.2, 0.6])
    alone = [
        make(device, OPTIMIZERS["momentum"], m, reduction=reduction, dropout=[0.0, 0.2, 0.6])
        for m in range(M)
    ]
    for i in range(6):
        part = slice(3 * i, 3 * i + 3 + i % 2)
        losses = to_numpy(stack.step(X[part], Y[part]))
        expected = [float(trainer.step(X[part], Y[part])) for trainer in alone]
        np.testing.assert_allclose(losses, expected, rtol=1e-12)
    np.testing.assert_allclose(theta(stack), [theta(trainer) for trainer in alone], atol=1e-12)


def test_a_stack_of_one(device):
    """models=1 adds the axis and changes nothing else."""
    nets = [
        gpumlp.MLP((4, 6, 3), models=models, dtype="float64", device=device, dropout=0.2)
        for models in (None, 1)
    ]
    trainers = [gpumlp.Trainer(net, batch_size=8) for net in nets]
    single, stack = (each.fit(X, Y, 3, (XV, YV), progress=False) for each in trainers)
    np.testing.assert_array_equal(theta(trainers[1]), theta(trainers[0])[None])
    for name in ("loss", "val_loss", "val_accuracy", "lr"):
        found = np.array(getattr(stack, name))
        np.testing.assert_array_equal(found, np.array(getattr(single, name))[:, None])
    assert nets[1].forward(X).shape == (1, 22, 3)


def test_seeds_of_each_network(device):
    """Given as a list: network 1 is the network with seed 5, whatever its neighbours."""

    def train(seeds):
        net = gpumlp.MLP((4, 6, 3), models=len(seeds), seed=seeds, dropout=0.3, dtype="float64",
                         device=device)  # fmt: skip
        trainer = gpumlp.Trainer(net, batch_size=8, seed=seeds)
        trainer.fit(X, Y, 2, progress=False)
        return theta(trainer)

    a, b = train([9, 5]), train([5, 1, 2])
    np.testing.assert_allclose(a[1], b[0], rtol=0, atol=1e-13)
    assert (a[0] != a[1]).any()
