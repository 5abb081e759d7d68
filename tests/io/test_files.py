"""Saving and loading networks and trainers.  Broken files are in test_files_broken.py."""

import json
import os

import numpy as np
import pytest
from safetensors import safe_open

import gpumlp
from gpumlp.functions.loss import Form
from gpumlp.functions.optimizer import examples
from gpumlp.io import file_arrays
from gpumlp.utils import checks
from tests.helpers.comparison import to_numpy
from tests.helpers.saving import DATA, X, assert_same_network, make_network, make_trainer
from tests.helpers.training import fit, theta

DEVICES = [("cpu", "cpu"), ("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")]


@pytest.fixture(params=DEVICES, ids=" to ".join)
def devices(request):
    """Where it is saved, and where it is loaded."""
    if "cuda" in request.param:
        request.getfixturevalue("cuda")
    return request.param


# --- round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("models", [None, 1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_comes_back(devices, dtype, models, tmp_path):
    net = make_network(devices[0], dtype, models)
    gpumlp.save(net, tmp_path / "net")
    loaded = gpumlp.load(tmp_path / "net", device=devices[1])
    assert isinstance(loaded, gpumlp.MLP)
    assert_same_network(loaded, net)
    assert loaded.device == ("cpu" if devices[1] == "cpu" else "cuda:0")
    np.testing.assert_allclose(loaded.forward(X), net.forward(X), rtol=1e-5)
    assert loaded.summary().splitlines()[:-1] == net.summary().splitlines()[:-1]


SCHEDULES = {
    "none": None,
    "cosine": gpumlp.schedules["cosine"](total=10, warmup=1),
    "plateau": gpumlp.schedules["plateau"](patience=1, decay=0.5, delta=0.05),
    "step in updates": gpumlp.schedules["step"](unit="step", every=4, decay=0.7),
}
OPTIMIZERS = [
    gpumlp.SGD(0.1),
    gpumlp.SGD(0.1, momentum=0.9, nesterov=True, l2=0.01),
    gpumlp.RMSprop(1e-2, momentum=0.5, centered=True),
    gpumlp.Adam(1e-2, l1=1e-3, eps_corrected=False),
    gpumlp.AdamW(1e-2, weight_decay=0.1, decay_per_weight=True),
    *(optimizer for _, optimizer in examples()),
]


@pytest.mark.parametrize("models", [None, 3])
def test_training_goes_on_as_if_it_had_never_ended(devices, models, tmp_path):
    """Bit for bit on one device."""
    once, twice = (make_trainer(devices[0], models, clip_norm=0.5) for _ in range(2))
    expected = fit(once, **DATA, epochs=5)
    fit(twice, **DATA, epochs=2)
    gpumlp.save(twice, tmp_path / "trainer")
    loaded = gpumlp.load(tmp_path / "trainer", device=devices[1])
    assert isinstance(loaded, gpumlp.Trainer)
    assert_same_network(loaded.net, twice.net)
    history = fit(loaded, **DATA, epochs=3)
    if devices[0] == devices[1]:
        np.testing.assert_array_equal(theta(loaded), theta(once))
        for name in ("loss", "val_loss", "val_accuracy", "lr"):
            np.testing.assert_array_equal(getattr(history, name), getattr(expected, name))
    else:
        np.testing.assert_allclose(theta(loaded), theta(once), atol=1e-10)
    assert len(history.seconds) == 5


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_optimiser_and_schedule_goes_on(optimizer, schedule, tmp_path):
    options = {"optimizer": optimizer, "schedule": SCHEDULES[schedule]}
    once, twice = make_trainer(**options), make_trainer(**options)
    expected = fit(once, **DATA, epochs=4)
    fit(twice, **DATA, epochs=2)
    gpumlp.save(twice, tmp_path / "trainer")
    loaded = gpumlp.load(tmp_path / "trainer")
    assert loaded.optimizer == optimizer
    history = fit(loaded, **DATA, epochs=2)
    np.testing.assert_array_equal(theta(loaded), theta(once))
    assert history.loss == expected.loss and history.lr == expected.lr


def test_all_that_a_trainer_knows_comes_back(tmp_path):
    trainer = make_trainer(
        models=3,
        net=make_network("cpu", models=3, seed=[5, 1, 9], dropout=[[0.0, 0.1, 0.2], [0.5] * 3]),
        optimizer=gpumlp.SGD([0.1, 0.2, 0.3], momentum=0.5),
        schedule="exponential",
        shuffle=False,
        reduction="sum",
        seed=[7, 8, 3],
        clip_norm=[1.0, 2.0, 3.0],
        batch_size=7,
    )
    fit(trainer, **DATA, epochs=2)
    gpumlp.save(trainer, tmp_path / "trainer")
    loaded = gpumlp.load(tmp_path / "trainer")
    for name in ("batch_size", "shuffle", "reduction", "epoch", "diverged"):
        assert getattr(loaded, name) == getattr(trainer, name)
    for name in ("seed", "clip_norm", "steps", "lr"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(trainer, name))
    assert repr(loaded.loss) == repr(trainer.loss)
    assert loaded.net.summary() == trainer.net.summary()
    assert loaded.history.epochs == 2 and not loaded.history.interrupted
    for name in ("loss", "val_loss", "val_accuracy", "lr", "seconds"):
        np.testing.assert_array_equal(getattr(loaded.history, name), getattr(trainer.history, name))
    assert loaded.history.loss[0].shape == (3,)


def test_a_network_that_diverged_stays_frozen(tmp_path):
    """Twelve networks, two of which stand still: their numbers come back as numbers."""
    lr = np.full(12, 1e-3)
    lr[[9, 10]] = 1e30
    net = gpumlp.MLP((4, 3), output="identity", models=12, device="cpu")
    trainer = gpumlp.Trainer(net, "squared_error", gpumlp.SGD(lr), batch_size=4)
    with pytest.warns(RuntimeWarning, match="network 9 .* 10 "):
        fit(trainer, X, X[:, :3], 2)
    gpumlp.save(trainer, tmp_path / "trainer")
    loaded = gpumlp.load(tmp_path / "trainer")
    assert loaded.diverged == trainer.diverged and set(loaded.diverged) == {9, 10}
    assert loaded.history.diverged == trainer.history.diverged
    before = theta(loaded)
    fit(loaded, X, X[:, :3], 1)
    assert ((theta(loaded) == before).all(axis=1) == (lr > 1)).all()


@pytest.mark.parametrize("seed", [range(3, 6), np.int64(4), (1, 2, 3), np.arange(3)], ids=repr)
def test_seeds_of_any_kind(seed, tmp_path):
    net = gpumlp.MLP((2, 3), models=3, seed=seed, device="cpu")
    gpumlp.save(gpumlp.Trainer(net, seed=seed), tmp_path / "trainer")
    loaded = gpumlp.load(tmp_path / "trainer")
    np.testing.assert_array_equal(
        to_numpy(loaded.state.seeds), to_numpy(gpumlp.Trainer(net, seed=seed).state.seeds)
    )


def test_saving_twice_gives_the_same_bytes(tmp_path):
    trainer = make_trainer()
    fit(trainer, **DATA)
    for name in ("a", "b"):
        gpumlp.save(trainer, tmp_path / name)
    gpumlp.save(gpumlp.load(tmp_path / "a"), tmp_path / "c")
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b == c


def test_an_initialiser_of_ones_own_does_not_matter(tmp_path):
    net = gpumlp.MLP((2, 3), init=lambda rng, fan_out, fan_in: np.ones((3, 2)), device="cpu")
    gpumlp.save(net, tmp_path / "net")
    np.testing.assert_array_equal(gpumlp.load(tmp_path / "net").W[1], 1)


def test_path_as_text_and_a_name_with_other_letters(tmp_path):
    path = str(tmp_path / "mein Netz ∂.safetensors")
    gpumlp.save(make_network("cpu"), path)
    assert_same_network(gpumlp.load(path), make_network("cpu"))
    assert os.listdir(tmp_path) == ["mein Netz ∂.safetensors"]


def test_anyone_who_reads_safetensors_reads_the_weights(tmp_path):
    net = make_network("cpu")
    gpumlp.save(net, tmp_path / "net")
    with safe_open(tmp_path / "net", framework="numpy") as file:
        assert set(file.keys()) >= {"W.1", "b.1", "W.2", "b.2", "W.3", "b.3", "slope.1"}
        np.testing.assert_array_equal(file.get_tensor("W.2").reshape(5, 6), net.W[2])


# --- metadata -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        {"classes": ["a", "b"], "mean": [0.1, 0.2], "nested": {"é": None, "flag": True}},
        {"9": "nine", "10": "ten"},
        {9: "nine", 10: "ten"},  # JSON has only text for keys
        {"big": 2**60, "tiny": 1e-300, "inf": float("inf")},
        {},
    ],
    ids=repr,
)
def test_metadata(metadata, tmp_path):
    gpumlp.save(make_network("cpu"), tmp_path / "net", metadata=metadata)
    assert gpumlp.load(tmp_path / "net").metadata == json.loads(json.dumps(metadata))


def test_metadata_stays_with_the_network(tmp_path):
    gpumlp.save(make_network("cpu"), tmp_path / "a", metadata={"made": "today"})
    gpumlp.save(make_trainer(net=gpumlp.load(tmp_path / "a")), tmp_path / "b")
    assert gpumlp.load(tmp_path / "b").net.metadata == {"made": "today"}


# --- functions of ones own ------------------------------------------------------------------------

CUBE = gpumlp.Activation(
    "cube",
    lambda z, p: p[0] * z**3,
    lambda z, n, p: 3 * p[0] * z**2,
    ("p[0] * z * z * z", "Real(3) * p[0] * z * z"),
    parameters={"scale": 1.0},
)
QUARTIC = gpumlp.Loss(
    "quartic",
    Form(
        lambda u, y, p: p[0] * (u - y) ** 4,
        lambda u, y, p: 4 * p[0] * (u - y) ** 3,
        ("p[0] * pow(u - y, Real(4))", "Real(4) * p[0] * pow(u - y, Real(3))"),
    ),
    parameters={"scale": 1.0},
)


def halving(step):
    return 0.5 ** (step / 10)


def make_custom(device, activation=CUBE, loss=QUARTIC, schedule=halving):
    net = gpumlp.MLP((4, 6, 3), activation, "identity", dtype="float64", device=device)
    return gpumlp.Trainer(net, loss, gpumlp.SGD(0.01), batch_size=8, schedule=schedule)


CUSTOM = {"cube": CUBE, "quartic": QUARTIC, "halving": halving}
TARGETS = {"x": 0.2 * X, "y": 0.1 * X[:, :3]}


def test_custom_functions_are_given_again(device, tmp_path):
    once, twice = make_custom(device), make_custom(device)
    fit(once, **TARGETS, epochs=3)
    fit(twice, **TARGETS, epochs=1)
    gpumlp.save(twice, tmp_path / "trainer")
    loaded = gpumlp.load(tmp_path / "trainer", device, custom=CUSTOM)
    fit(loaded, **TARGETS, epochs=2)
    np.testing.assert_array_equal(theta(loaded), theta(once))


@pytest.mark.parametrize("missing", CUSTOM)
def test_custom_functions_that_are_not_given(missing, tmp_path):
    gpumlp.save(make_custom("cpu"), tmp_path / "trainer")
    others = {name: each for name, each in CUSTOM.items() if name != missing}
    with pytest.raises(gpumlp.FileError, match=rf"your own \w+ '{missing}': load\(\.\.\., custom="):
        gpumlp.load(tmp_path / "trainer", custom=others)


def test_custom_functions_keep_their_constants(tmp_path):
    trainer = make_custom("cpu", CUBE(scale=0.3), QUARTIC(scale=0.7))
    gpumlp.save(trainer, tmp_path / "trainer")
    loaded = gpumlp.load(tmp_path / "trainer", custom=CUSTOM)
    np.testing.assert_array_equal(loaded.net.forward(X), trainer.net.forward(X))
    assert repr(loaded.loss) == repr(trainer.loss)


def test_functions_named_as_built_in_ones_are_not_taken_for_them(tmp_path):
    """Silently, the network would compute something else."""
    relu = gpumlp.Activation("relu", lambda z, p: 2 * z, lambda z, n, p: 2 + 0 * z)
    huber = gpumlp.Loss("huber", Form(lambda u, y, p: (u - y) ** 2, lambda u, y, p: 2 * (u - y)))

    def cosine(step):
        return 1 / (1 + step)

    for own in ({"activation": relu}, {"loss": huber}, {"schedule": cosine}):
        trainer = make_custom("cpu", **own)
        gpumlp.save(trainer, tmp_path / "trainer")
        (function,) = own.values()
        name = getattr(function, "name", "cosine")
        with pytest.raises(gpumlp.FileError, match=f"your own .* '{name}'"):
            gpumlp.load(tmp_path / "trainer", custom=CUSTOM)
        gpumlp.load(tmp_path / "trainer", custom={**CUSTOM, name: function})


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["W.2", "b.1", "optimizer.first"])
def test_numbers_that_are_not_finite(name, wrong, tmp_path, monkeypatch):
    """Neither written nor, where something else has written them, read."""
    trainer = make_trainer("cpu")
    fit(trainer, **DATA)
    kind, _, which = name.partition(".")
    array = (
        trainer.state.buffers[which]
        if kind == "optimizer"
        else getattr(trainer.net, kind)[int(which)]
    )
    array.flat[:2] = wrong
    told = rf"{name}\S* has 2 of \d+ numbers that are NaN or infinite"
    with pytest.raises(ValueError, match=rf"^save: {told}"):
        gpumlp.save(trainer, tmp_path / "trainer")
    assert not (tmp_path / "trainer").exists()
    with monkeypatch.context() as patched:
        patched.setattr(file_arrays, "wrong_numbers", lambda arrays: None)
        gpumlp.save(trainer, tmp_path / "trainer")
    with pytest.raises(gpumlp.FileError, match=told):
        gpumlp.load(tmp_path / "trainer")


CIRCLE: list = []
CIRCLE.append(CIRCLE)
DEEP: list = []
for _ in range(100_000):
    DEEP = [DEEP]
NOT_STORABLE = {
    "a set": (
        {"a": {1, 2}},
        r"metadata\['a'\] = \{1, 2\} of type set must be what JSON can hold",
    ),
    "an object": (object(), "metadata = <object .*> of type object must be what JSON can hold"),
    "a type": (dict, "metadata = <class 'dict'> of type type must be"),
    "within": (
        {"a": [0, {"b": np.float32(1)}]},
        r"metadata\['a'\]\[1\]\['b'\] = .* of type float32 must",
    ),
    "a key": (
        {"a": {(1, 2): 3}},
        r"metadata\['a'\]\[\(1, 2\)\]: the key of type tuple must be text$",
    ),
    "a circle": (CIRCLE, r"metadata = \[\[\.\.\.\]\] must be what JSON can hold .*: Circular"),
    "deep": (DEEP, "metadata = <list> must be what JSON can hold .*: .*recursion"),
    "digits": ({"a": 10**5000}, "metadata = <dict> must be what JSON can hold .*: .*digits"),
}


@pytest.mark.parametrize("kind", NOT_STORABLE)
def test_metadata_that_json_cannot_hold(kind, tmp_path):
    metadata, said = NOT_STORABLE[kind]
    net = gpumlp.MLP((2, 1), device="cpu")
    with pytest.raises(TypeError, match=f"^{said}"):
        gpumlp.save(net, tmp_path / "net.safetensors", metadata)
    net.metadata = metadata
    with pytest.raises(checks.ParameterError, match=rf"^net\.{said}"):
        gpumlp.save(net, tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("custom", [7, [], "relu", {"relu"}])
def test_custom_is_a_dictionary(custom, tmp_path):
    gpumlp.save(gpumlp.MLP((2, 1), device="cpu"), tmp_path / "checkpoint-000001.safetensors")
    for call, place in (
        (gpumlp.load, tmp_path / "checkpoint-000001.safetensors"),
        (gpumlp.resume, tmp_path),
    ):
        with pytest.raises(TypeError, match=r"custom = .* must be None or \{name: object\}"):
            call(place, custom=custom)
