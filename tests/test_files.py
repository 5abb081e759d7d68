"""Saving and loading networks and trainers."""

import json
import os
import pathlib

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import gpumlp
from gpumlp.loss import Form
from tests.comparison import fill, to_numpy
from tests.training import blobs, fit, theta

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


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
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
        to_numpy(loaded.seeds), to_numpy(gpumlp.Trainer(net, seed=seed).seeds)
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
    return gpumlp.Trainer(net, loss, gpumlp.SGD(1e-4), batch_size=8, schedule=schedule)


CUSTOM = {"cube": CUBE, "quartic": QUARTIC, "halving": halving}
TARGETS = {"x": X, "y": 0.1 * X[:, :3]}


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


# --- files that are not what they should be -------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A trainer, and its file."""
    trainer = make_trainer(models=2)
    fit(trainer, **DATA, epochs=2)
    path = tmp_path_factory.mktemp("saved") / "trainer"
    gpumlp.save(trainer, path, metadata={"a": 1})
    return trainer, path.read_bytes()


def assert_same_trainer(a, b):
    assert_same_network(a.net, b.net)
    for name in a.slots:
        np.testing.assert_array_equal(to_numpy(a.slots[name]), to_numpy(b.slots[name]))
    np.testing.assert_array_equal(a.steps, b.steps)
    np.testing.assert_array_equal(a.history.loss, b.history.loss)
    assert a.optimizer.state() == b.optimizer.state()


def test_every_altered_byte_is_noticed(saved, tmp_path):
    """One bit anywhere: in the length, the description, its padding, the numbers."""
    trainer, content = saved
    path, refused = tmp_path / "altered", 0
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(content[:8], "little")
    places = [*range(9), *rng.integers(8, header, 120), *rng.integers(header, len(content), 80)]
    for place in map(int, places):
        altered = bytearray(content)
        altered[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(altered)
        try:
            loaded = gpumlp.load(path)
        except gpumlp.FileError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert_same_trainer(loaded, trainer)  # white space of the description, perhaps
    assert refused > len(places) - 10


def test_every_cut_is_noticed(saved, tmp_path):
    _, content = saved
    path = tmp_path / "cut"
    rng = np.random.default_rng(0)
    for length in (*range(10), *rng.integers(10, len(content), 40), len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(gpumlp.FileError, match="cut short") as raised:
            gpumlp.load(path)
        assert str(path) in str(raised.value)


def test_bytes_behind_the_end_are_noticed(saved, tmp_path):
    path = tmp_path / "longer"
    path.write_bytes(saved[1] + b"\0")
    with pytest.raises(gpumlp.FileError):
        gpumlp.load(path)


FOREIGN = {
    "nothing": b"",
    "text": b"This is not a network.\n" * 10,
    "zeros": bytes(1000),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "a pickle": b"\x80\x04\x95" + bytes(100),
    "a zip": b"PK\x03\x04" + bytes(100),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files(kind, tmp_path):
    path = tmp_path / "foreign"
    path.write_bytes(FOREIGN[kind])
    with pytest.raises(gpumlp.FileError, match="cut short, or not a safetensors file"):
        gpumlp.load(path)


def described(saved, tmp_path, description):
    """The file with another description."""
    source, path = tmp_path / "source", tmp_path / "described"
    source.write_bytes(saved[1])
    with safe_open(source, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}
        about = json.loads(file.metadata()["gpumlp"])
    save_file(arrays, path, metadata=description(about))
    return path


@pytest.mark.parametrize(
    "description, said",
    [
        (lambda about: None, "was not written by gpumlp"),
        (lambda about: {"format": "pt"}, "was not written by gpumlp"),
        (lambda about: {"gpumlp": json.dumps(about | {"version": 2})}, "newer gpumlp: version 2"),
        (lambda about: {"gpumlp": json.dumps(about | {"version": "x"})}, "was altered"),
        (lambda about: {"gpumlp": json.dumps(about | {"version": None})}, "was altered"),
        (lambda about: {"gpumlp": json.dumps(about | {"version": 0})}, "was altered"),
        (lambda about: {"gpumlp": json.dumps(about | {"more": 1})}, "was altered"),
        (lambda about: {"gpumlp": json.dumps(about)[:-5]}, "was altered"),
        (lambda about: {"gpumlp": "[1, 2]"}, "was altered"),
        (lambda about: {"gpumlp": "{}"}, "was altered"),
        (lambda about: {"gpumlp": ""}, "was altered"),
    ],
)
def test_descriptions_that_are_not_ours(saved, description, said, tmp_path):
    path = described(saved, tmp_path, description)
    with pytest.raises(gpumlp.FileError, match=said) as raised:
        gpumlp.load(path)
    assert str(path) in str(raised.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        gpumlp.load(tmp_path / "nowhere")
    with pytest.raises(OSError, match=str(tmp_path)):
        gpumlp.load(tmp_path)


def test_what_cannot_be_saved(tmp_path):
    for what in (None, X, {"W": X}, gpumlp.Adam()):
        with pytest.raises(TypeError, match="save takes a network or a Trainer"):
            gpumlp.save(what, tmp_path / "file")
    with pytest.raises(TypeError):
        gpumlp.save(make_network("cpu"), tmp_path / "file", metadata={"x": X})
    assert os.listdir(tmp_path) == []


# --- writing that fails ---------------------------------------------------------------------------


def test_a_folder_that_is_not_there(tmp_path):
    path = tmp_path / "missing" / "net"
    with pytest.raises(FileNotFoundError, match=str(path.parent)):
        gpumlp.save(make_network("cpu"), path)


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "net").mkdir()
    with pytest.raises(OSError, match="net"):
        gpumlp.save(make_network("cpu"), tmp_path / "net")
    assert os.listdir(tmp_path) == ["net"]


@pytest.mark.parametrize("fails", ["fsync", "replace", "fdopen"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_the_old_file_survives_a_save_that_fails(fails, error, tmp_path, monkeypatch):
    path = tmp_path / "net"
    old = make_network("cpu")
    gpumlp.save(old, path)

    def fail(*arguments):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, fails, fail)
        with pytest.raises(type(error)):
            gpumlp.save(make_network("cpu", seed=99), path)
    assert os.listdir(tmp_path) == ["net"]
    assert_same_network(gpumlp.load(path), old)


def test_the_file_can_be_read_by_others(tmp_path):
    """A temporary file is its owner's alone; what it becomes has the usual permissions."""
    gpumlp.save(make_network("cpu"), tmp_path / "net")
    pathlib.Path(tmp_path / "plain").touch()
    assert (tmp_path / "net").stat().st_mode == (tmp_path / "plain").stat().st_mode
