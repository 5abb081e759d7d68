"""A learned scale of a layer's inputs, z = V (s * n) + b: it computes what W = V diag(s) computes,
and trains, is saved, copied and exported like every other parameter."""

import copy
import pickle

import numpy as np
import pytest

import gpumlp
from gpumlp.backend.cpu import compiler, pool
from gpumlp.backend.cuda import persistent_kernel
from gpumlp.io.errors import FileError
from gpumlp.model import blocks, memory, slices
from gpumlp.training import persistent
from gpumlp.training.select import select
from gpumlp.utils import checks
from tests.helpers.comparison import fill, to_numpy
from tests.helpers.networks import network
from tests.helpers.saving import assert_same_network, rewrite
from tests.helpers.training import blobs, fit, theta

SIZES = (5, 17, 8, 3)
SCALES = [True, [True, False, True], [False, True, False]]


def make(device="cpu", scale=True, sizes=SIZES, hidden="tanh", **options):
    """A network with random parameters."""
    options = {"dtype": "float64", "seed": 3} | options
    net = network(sizes, hidden, device=device, scale=scale, **options)
    rng = np.random.default_rng(11)
    for s in net.s:
        if s is not None:
            fill(s, rng.uniform(0.4, 2.0, s.shape) * rng.choice([-1, 1], s.shape))
    return net


def data(B=13, sizes=SIZES, seed=4):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(B, sizes[0])), rng.normal(size=(B, sizes[-1]))


def by_product(net, plain_grad):
    """dL/dV and dL/ds of each scaled layer, of a plain network's gradients."""
    for k, s in enumerate(net.s):
        if s is not None:
            G, V, factor = map(to_numpy, (plain_grad.W[k], net.W[k], s))
            yield k, G * factor[..., None, :], np.einsum("...ij,...ij->...j", G, V)


# ------------------------------------------------------------------ forward and backward


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_it_computes_as_the_network_of_the_product(place, scale, models):
    net = make(place, scale, hidden=["prelu", "gelu"], models=models)
    plain = net.like(scale=False)
    assert not plain.shape.scaled and all(s is None for s in plain.s)
    for k in range(1, net.K + 1):
        s = 1 if net.s[k] is None else to_numpy(net.s[k])[..., None, :]
        np.testing.assert_array_equal(to_numpy(plain.W[k]), to_numpy(net.W[k]) * s)
    x, y = data()
    np.testing.assert_allclose(net.forward(x), plain.forward(x), rtol=1e-12, atol=1e-12)
    value, grad = net.loss_and_grad(x, y, "squared_error")
    plain_value, plain_grad = plain.loss_and_grad(x, y, "squared_error")
    np.testing.assert_allclose(value, plain_value, rtol=1e-12)
    scaled = dict.fromkeys(k for k, s in enumerate(net.s) if s is not None)
    for k, by_V, by_s in by_product(net, plain_grad):
        np.testing.assert_allclose(grad.W[k], by_V, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(grad.s[k], by_s, rtol=1e-10, atol=1e-12)
    for k in range(1, net.K + 1):
        np.testing.assert_allclose(grad.b[k], plain_grad.b[k], rtol=1e-10, atol=1e-12)
        if k not in scaled:
            np.testing.assert_allclose(grad.W[k], plain_grad.W[k], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(grad.slope[1], plain_grad.slope[1], rtol=1e-10)


@pytest.mark.parametrize("models", [None, 2])
def test_gradients_are_those_of_finite_differences(place, models):
    net, (x, y), h = make(place, models=models), data(), 1e-6
    assert gpumlp.check_gradients(net, x, y, "squared_error") < 1e-7
    _, grad = net.loss_and_grad(x, y, "squared_error")
    for k in range(1, net.K + 1):
        for j in (0, net.sizes[k - 1] - 1):
            values = []
            for step in (h, -2 * h):
                net.s[k][..., j] += step
                values.append(net.loss_and_grad(x, y, "squared_error")[0])
            net.s[k][..., j] += h
            np.testing.assert_allclose(
                grad.s[k][..., j], (values[0] - values[1]) / (2 * h), rtol=1e-6, atol=1e-8
            )


def test_wrong_gradients_of_scales_are_found(monkeypatch):
    def wrong(self, G, V, s, ds):
        ds[...] = G.sum(axis=1)
        G *= s[:, None]

    net = make()
    monkeypatch.setattr(type(net.ops), "scale_gradient", wrong)
    assert gpumlp.check_gradients(net, *data(), "squared_error") > 1e-3


def test_scales_are_1_at_first():
    net, plain = (gpumlp.MLP(SIZES, device="cpu", seed=5, scale=scale) for scale in (True, False))
    x, _ = data()
    np.testing.assert_array_equal(net.forward(x), plain.forward(x))
    for k in range(1, net.K + 1):
        assert (net.s[k] == 1).all() and net.s[k].shape == (SIZES[k - 1],)
        np.testing.assert_array_equal(net.W[k], plain.W[k])
    net.s[2] = np.arange(17)  # written into the view
    assert net.theta[net.layout.s[2]].tolist() == list(range(17))


def test_in_bf16_the_product_is_rounded_once(cuda):
    net = make(cuda, dtype="float32", precision="bf16", models=2, sizes=(9, 40, 16, 3))
    plain = net.like(scale=False)
    x, y = data(sizes=net.sizes)
    np.testing.assert_array_equal(net.forward(x), plain.forward(x))
    _, grad = net.loss_and_grad(x, y, "squared_error")
    _, plain_grad = plain.loss_and_grad(x, y, "squared_error")
    for k, by_V, by_s in by_product(net, plain_grad):
        np.testing.assert_array_equal(grad.W[k], by_V)
        np.testing.assert_allclose(grad.s[k], by_s, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ training


def trained_by_hand(net, x, y, lr, momentum, l2, steps):
    """tanh, then the identity: half the squared error, by momentum, and the penalty of V alone."""
    V, b, s = ([None, *map(to_numpy, views[1:])] for views in (net.W, net.b, net.s))
    V, b, s = ([None, *(np.array(a) for a in group[1:])] for group in (V, b, s))
    velocity = [[None, *(np.zeros_like(a) for a in group[1:])] for group in (V, b, s)]
    for _ in range(steps):
        z1 = (x * s[1]) @ V[1].T + b[1]
        n1 = np.tanh(z1)
        z2 = (n1 * s[2]) @ V[2].T + b[2]
        d2 = (z2 - y) / len(x)
        d1 = (d2 @ V[2] * s[2]) * (1 - n1**2)
        gradients = [
            [None, d1.T @ (x * s[1]) + l2 * V[1], d2.T @ (n1 * s[2]) + l2 * V[2]],
            [None, d1.sum(axis=0), d2.sum(axis=0)],
            [None, (x * (d1 @ V[1])).sum(axis=0), (n1 * (d2 @ V[2])).sum(axis=0)],
        ]
        for group, speed, gradient in zip((V, b, s), velocity, gradients, strict=True):
            for k in (1, 2):
                speed[k][...] = momentum * speed[k] + gradient[k]
                group[k] -= lr * speed[k]
    return V, b, s


def test_training_is_that_of_a_loop(place):
    sizes = (5, 9, 3)
    net, (x, y) = make(place, sizes=sizes), data(sizes=sizes)
    expected = trained_by_hand(net, x, y, 0.05, 0.9, 0.1, steps=12)
    optimizer = gpumlp.SGD(0.05, momentum=0.9, l2=0.1)
    trainer = gpumlp.Trainer(net, "squared_error", optimizer, batch_size=len(x), shuffle=False)
    trainer.fit(x, y, 12, progress=False)
    for views, values in zip((net.W, net.b, net.s), expected, strict=True):
        for k in (1, 2):
            np.testing.assert_allclose(to_numpy(views[k]), values[k], rtol=1e-9, atol=1e-11)


def test_dropout_in_front_of_a_scale(device):
    """With s = 1 the gradient by V is that by W of a plain network, whatever is dropped."""
    x, y = data(40)
    after = {}
    for scale in True, False:
        net = network(SIZES, device=device, dtype="float64", scale=scale, dropout=[0.4, 0.2])
        trainer = gpumlp.Trainer(net, "squared_error", gpumlp.SGD(0.1), seed=8)
        trainer.step(x, y)
        after[scale] = [to_numpy(W) for W in net.W[1:]]
    for scaled, plain in zip(after[True], after[False], strict=True):
        np.testing.assert_allclose(scaled, plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("models", [None, 5])
def test_threads_change_nothing(monkeypatch, models):
    """Slices of one network's batches, blocks of a stack."""
    if compiler.problem():
        pytest.skip(f"nothing can be compiled for the CPU: {compiler.problem()}")
    monkeypatch.setattr(slices, "LEAST", 1)
    monkeypatch.setattr(blocks, "LEAST_BYTES", 1)
    x, y = blobs(53)
    results = []
    for cores in 1, 3:
        monkeypatch.setattr(pool, "_cores", lambda cores=cores: cores)
        net = make(sizes=(4, 17, 11, 3), models=models, output="softmax")
        assert net.ops.threads(net.shape) == cores
        trainer = gpumlp.Trainer(net, batch_size=12, seed=2)
        history = fit(trainer, x, y, 4, validation=(x, y))
        results.append((theta(trainer), np.array(history.val_loss), net.forward(x)))
    for one, three in zip(*results, strict=True):
        np.testing.assert_allclose(one, three, rtol=1e-10, atol=1e-12)


def test_slices_need_compiled_gradients(monkeypatch):
    if compiler.problem():
        pytest.skip(f"nothing can be compiled for the CPU: {compiler.problem()}")
    monkeypatch.setattr(pool, "_cores", lambda: 3)
    net, plain = make(), make(scale=False)
    monkeypatch.setattr(type(net.ops), "_scale", lambda *arguments: None)
    assert (net.ops.threads(net.shape), plain.ops.threads(plain.shape)) == (1, 3)


def test_both_devices_train_alike(cuda):
    x, y = blobs(53)
    results = []
    for device in "cpu", cuda:
        net = make(device, sizes=(4, 17, 11, 3), models=3, output="softmax")
        history = fit(gpumlp.Trainer(net, batch_size=12), x, y, 4, validation=(x, y))
        results.append((to_numpy(net.theta), np.array(history.val_loss)))
    for on_cpu, on_gpu in zip(*results, strict=True):
        np.testing.assert_allclose(on_cpu, on_gpu, rtol=1e-8, atol=1e-10)


def test_the_persistent_kernel_is_not_for_it():
    chip, plans = persistent_kernel.H100, []
    for scale in False, True:
        net = make(dtype="float32", scale=scale, models=200, output="softmax")
        trainer = gpumlp.Trainer(net)
        arguments = net.shape, chip, trainer.objective, trainer.optimizer, np.dtype("float32")
        plans.append(persistent.plan(*arguments, 20, True))
    assert plans[0] is not None and plans[1] is None


# ------------------------------------------------------------------ files, copies, exports


def saved(tmp_path, net, **options):
    gpumlp.save(net, tmp_path / "net.safetensors", **options)
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize("models", [None, 2])
@pytest.mark.parametrize("scale", [False, *SCALES], ids=str)
def test_files(tmp_path, device, scale, models):
    net = make(device, scale, models=models)
    path = saved(tmp_path, net)
    loaded = gpumlp.load(path, device)
    assert_same_network(net, loaded)
    assert loaded.shape.scaled == net.shape.scaled
    described, names = {}, set()
    rewrite(path, lambda about, arrays: (described.update(about), names.update(arrays)))
    assert ("scale" in described["network"]) == bool(net.shape.scaled)
    assert {name for name in names if name.startswith("s.")} == {f"s.{k}" for k in net.layout.s}


def test_a_trainer_goes_on(tmp_path, device):
    x, y = blobs(20)
    trainer = gpumlp.Trainer(make(device, sizes=(4, 6, 3), output="softmax"), batch_size=8)
    trainer.fit(x, y, 2, progress=False)
    other = gpumlp.load(saved(tmp_path, trainer), device)
    for training in trainer, other:
        training.fit(x, y, 2, progress=False)
    np.testing.assert_array_equal(theta(trainer), theta(other))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda about, arrays: about["network"].update(scale=[True]), "1 values of scale"),
        (lambda about, arrays: about["network"].update(scale="yes"), "scale"),
        (lambda about, arrays: arrays.pop("s.2"), "no array s.2"),
        (lambda about, arrays: arrays.update({"s.2": np.ones((1, 4))}), r"s.2 is float64 \(1, 4\)"),
        (lambda about, arrays: arrays["s.2"].fill(np.nan), "s.2 has 17 of 17"),
    ],
)
def test_damaged_files_are_refused(tmp_path, change, says):
    path = saved(tmp_path, make())
    rewrite(path, change)
    with pytest.raises(FileError, match=says):
        gpumlp.load(path, "cpu")


@pytest.mark.parametrize("how", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies(device, how):
    net, (x, _) = make(device, models=2), data()
    other = how(net)
    assert_same_network(net, other)
    before = net.forward(x)
    for s in other.s[1:]:
        s *= 2
    np.testing.assert_array_equal(net.forward(x), before)
    assert np.abs(other.forward(x) - before).max() > 0.1


def test_select_keeps_scales(device):
    x, y = blobs(20)
    trainer = gpumlp.Trainer(
        make(device, [False, True], (4, 6, 3), models=3, output="softmax"), batch_size=8
    )
    trainer.fit(x, y, 2, progress=False)
    chosen = select(trainer, [2, 0])
    assert chosen.net.shape.scaled == (False, False, True)
    np.testing.assert_array_equal(to_numpy(chosen.net.s[2]), to_numpy(trainer.net.s[2])[[2, 0]])


def test_like():
    net = make(scale=[True, False, False])
    x, _ = data()
    same, none, other = net.like(), net.like(scale=False), net.like(scale=[False, True, False])
    np.testing.assert_array_equal(same.theta, net.theta)
    for changed in none, other:
        np.testing.assert_allclose(changed.forward(x), net.forward(x), rtol=1e-12, atol=1e-12)
    assert (other.s[2] == 1).all() and other.s[1] is None
    np.testing.assert_allclose(net.like(dtype="float32").s[1], net.s[1], rtol=1e-6)


@pytest.mark.parametrize("models", [None, 2])
def test_torch_state(device, models):
    net, (x, _) = make(device, models=models), data()
    plain = net.like(scale=False)
    state, plain_state = gpumlp.to_torch_state(net), gpumlp.to_torch_state(plain)
    assert state.keys() == plain_state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(array, plain_state[name])
    other = make(device, models=models, seed=9)
    gpumlp.load_torch_state(other, state)
    assert all((to_numpy(s) == 1).all() for s in other.s[1:])
    np.testing.assert_allclose(other.forward(x), net.forward(x), rtol=1e-12, atol=1e-12)


def test_scikit_learn():
    net, (x, _) = make(), data()
    estimator = gpumlp.to_sklearn(net)
    np.testing.assert_allclose(estimator.predict(x), net.forward(x), rtol=1e-9, atol=1e-12)
    back = gpumlp.from_sklearn(estimator, "cpu")
    np.testing.assert_allclose(back.forward(x), net.forward(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("models", [None, 2])
def test_onnx(tmp_path, models):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    net, (x, _) = make(dtype="float32", models=models), data()
    x = x.astype("float32")
    gpumlp.export_onnx(net, tmp_path / "net.onnx")
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"))
    [y] = session.run(["y"], {"x": x})
    np.testing.assert_allclose(y, net.forward(x), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ what it is, and what is refused


def test_count_and_summary():
    net = gpumlp.MLP((5, 7, 3), device="cpu", scale=[False, True])
    assert net.count == 5 * 7 + 7 + 7 * 3 + 3 + 7 and net.K == 2
    lines = net.summary().splitlines()
    assert lines[1].endswith(" 42") and lines[2].endswith(" 31") and "73 parameters" in lines[3]


def test_layouts_without_a_scale_are_what_they_were():
    plain, scaled = (make(scale=scale, hidden=["prelu", "relu"]).layout for scale in (False, True))
    assert plain.s == {} and scaled.W == plain.W and scaled.b == plain.b
    assert scaled.s[1].start >= plain.b[3].stop and scaled.slope[1].start >= scaled.s[3].stop
    assert all(part.start % 16 == 0 for part in scaled.s.values())


def test_memory_counts_the_operands(cuda):
    scaled, plain = (
        make(cuda, scale=scale, sizes=(64, 128, 64, 8), dtype="float32", models=4)
        for scale in ([True, True, False], False)
    )
    extra = memory.predict(scaled.shape, 0, purpose="predict") - memory.predict(
        plain.shape, 0, purpose="predict"
    )
    W = 64 * 128 + 128 * 64
    assert extra == 4 * 4 * (W + 64 + 128)
    made = [scaled.network.operands[k].nbytes for k in (1, 2)]
    assert sum(made) == 4 * 4 * W
    assert scaled.network.operands[3] is scaled.parameters.W[3]


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        (None, "scale = None must be True or False"),
        (1, "scale = 1 must be True or False"),
        ([True, False], "has 2 values for 3 layers"),
        ([True, False, 1.0], "scale = 1.0 must be True or False"),
        ("yes", "must be True or False"),
    ],
)
def test_wrong_arguments(scale, says):
    with pytest.raises(checks.ParameterError, match=says):
        gpumlp.MLP(SIZES, device="cpu", scale=scale)
