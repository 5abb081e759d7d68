"""What the tests of files share: a network and a trainer with something of everything."""

import json

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

import gpumlp
from gpumlp.io.files import _digest
from tests.helpers.comparison import fill, to_numpy
from tests.helpers.training import blobs

X, Y = blobs(20)
DATA = {"x": X, "y": Y, "validation": blobs(9, seed=1)}


def make_network(device, dtype="float64", models=None, **options):
    net = gpumlp.MLP(
        (4, 6, 5, 3),
        ["prelu", gpumlp.activations["leaky_relu"](slope=0.2)],
        **{"models": models, "dtype": dtype, "device": device, "dropout": [0.1, 0.0], "seed": 3}
        | options,
    )
    rng = np.random.default_rng(1)
    for k in (1, 2, 3):
        fill(net.b[k], rng.normal(size=net.b[k].shape).astype(dtype))
    return net


def make_trainer(device="cpu", models=None, net=None, **options):
    options = {
        "loss": gpumlp.losses["cross_entropy"](label_smoothing=0.1),
        "optimizer": gpumlp.Adam(1e-2 if models is None else np.geomspace(1e-3, 1e-1, models)),
        "batch_size": 8,
    } | options
    return gpumlp.Trainer(net or make_network(device, models=models), **options)


def assert_same_network(a, b):
    for name in ("sizes", "K", "models", "dtype", "count"):
        assert getattr(a, name) == getattr(b, name)
    assert np.array_equal(a.seed, b.seed)
    assert [repr(f) for f in a.f[1:]] == [repr(f) for f in b.f[1:]]
    np.testing.assert_array_equal(to_numpy(a.theta), to_numpy(b.theta))


def rewrite(path, change):
    """The file after change(description, arrays), under a digest that fits."""
    with safe_open(path, framework="numpy") as file:
        about = json.loads(file.metadata()["gpumlp"])
        arrays = {name: file.get_tensor(name).copy() for name in file.keys()}
    change(about, arrays)
    about["digest"] = _digest(arrays, about)
    save_file(arrays, path, metadata={"gpumlp": json.dumps(about)})
