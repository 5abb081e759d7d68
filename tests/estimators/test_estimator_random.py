"""random_state: numpy.random's generators of every kind, and the numbers that a seed gives for
good."""

import copy
import hashlib
import pickle

import numpy as np
import pytest
from scipy import stats
from sklearn.base import clone

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.io.codec import Reader, Writer
from gpumlp.training.placement import make_rows
from tests.helpers.estimators import BOTH, DIABETES, IRIS, data, same_weights, small

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

KINDS = ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"]


def generator(kind="PCG64", seed=3):
    return np.random.Generator(getattr(np.random, kind)(seed))


# ---------------------------------------------------------------- generators
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cls", BOTH)
def test_a_generator_is_drawn_from(cls, kind):
    """The same state gives the same fit, that of a RandomState on these bits; it moves on."""
    X, y = data(cls)
    arguments = {"early_stopping": True, "dropout": 0.2}
    random = generator(kind)
    first = small(cls, random_state=random, **arguments).fit(X, y)
    second = small(cls, random_state=random, **arguments).fit(X, y)
    same_weights(small(cls, random_state=generator(kind), **arguments).fit(X, y), first)
    legacy = np.random.RandomState(getattr(np.random, kind)(3))
    for expected in (first, second):
        same_weights(small(cls, random_state=legacy, **arguments).fit(X, y), expected)
    assert not np.array_equal(first.coefs_[0], second.coefs_[0])


@pytest.mark.parametrize("kind", KINDS)
def test_an_ensemble_with_a_generator(kind):
    X, y = DIABETES
    arguments = {"n_models": 3, "bootstrap": True, "max_features": 0.5, "early_stopping": True}
    models = [small(MLPRegressor, random_state=generator(kind), **arguments) for _ in range(2)]
    predicted = [model.fit(X, y).predict(X) for model in models]
    np.testing.assert_array_equal(*predicted)
    seeds = [each.random_state for each in models[0].estimators_]
    assert len(set(seeds)) == 3
    other = small(MLPRegressor, random_state=generator(kind, 4), **arguments).fit(X, y)
    assert not np.array_equal(other.predict(X), predicted[0])


@pytest.mark.parametrize("kind", ["MT19937", "PCG64"])
def test_searches_with_generators(kind):
    """Each fit has a copy of the estimator's, as scikit-learn clones it."""
    X, y = IRIS
    rates = [0.01, 0.02]
    model = small(MLPClassifier, random_state=generator(kind))
    search = gpumlp.GridSearchCV(model, {"learning_rate_init": rates}, cv=3).fit(X, y)
    same_weights(
        search.best_estimator_,
        clone(model).set_params(**search.best_params_).fit(X, y),
    )
    expected = gpumlp.GridSearchCV(
        small(MLPClassifier, random_state=np.random.RandomState(getattr(np.random, kind)(3))),
        {"learning_rate_init": rates},
        cv=3,
    ).fit(X, y)
    for name in ("mean_test_score", "split0_test_score"):
        np.testing.assert_array_equal(search.cv_results_[name], expected.cv_results_[name])
    several = {"random_state": [generator(kind, seed) for seed in (1, 2, 1)]}
    search = gpumlp.GridSearchCV(model, several, cv=3, scoring="neg_log_loss").fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert scores[0] == scores[2] != scores[1]


@pytest.mark.parametrize("name", ["RandomizedSearchCV", "HalvingRandomSearchCV"])
def test_the_searchs_own_generator(name):
    X, y = IRIS
    drawn = []
    for random in (generator(seed=5), np.random.RandomState(np.random.PCG64(5)), generator()):
        search = getattr(gpumlp, name)(
            small(MLPClassifier), {"alpha": stats.uniform()}, cv=2, random_state=random
        ).fit(X, y)
        assert search.random_state is random
        drawn.append([each["alpha"] for each in search.cv_results_["params"]])
    assert drawn[0] == drawn[1] != drawn[2]


def test_generators_of_one_source_are_drawn_from_in_turn():
    """Networks of one stack whose generators have their bits in common: none of them draws for
    others."""
    from gpumlp.estimators.member_task import Member
    from gpumlp.estimators.stack_fitter import fit_members

    X, y = IRIS
    random = generator("MT19937")
    models = [small(MLPClassifier, random_state=random) for _ in range(2)]
    assert fit_members([Member(model) for model in models], X, y) == [None, None]
    moved = generator("MT19937")
    moved.random(2 * (4 * 5 + 5 + 5 * 3 + 3))  # the weights of both
    legacy = np.random.RandomState(moved.bit_generator)
    for _ in range(2 * 5):  # their epochs' orders
        legacy.permutation(150)
    assert random.random() == moved.random()


@pytest.mark.parametrize("kind", KINDS)
def test_generators_in_pickles_and_files(kind, tmp_path):
    X, y = DIABETES
    model = small(MLPRegressor, random_state=generator(kind), dropout=0.1).fit(X, y)
    gpumlp.save(model, tmp_path / "model")
    others = [pickle.loads(pickle.dumps(model)), gpumlp.load(tmp_path / "model")]
    model.partial_fit(X, y)
    for other in others:
        same_weights(other.partial_fit(X, y), model)
        assert other.random_state.random() == copy.deepcopy(model.random_state).random()


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_fit_goes_on_with_the_generator(kind, tmp_path):
    X, y = IRIS
    arguments = {"max_iter": 6, "early_stopping": True, "n_iter_no_change": 9}
    random = generator(kind)
    expected = small(MLPClassifier, random_state=random, **arguments).fit(X, y)

    class Killed(gpumlp.Callback):
        def on_epoch_end(self, trainer, history):
            if trainer.epoch == 4:
                raise RuntimeError("killed")

    callbacks = [gpumlp.Checkpoint(tmp_path), Killed()]
    model = small(MLPClassifier, random_state=generator(kind), callbacks=callbacks, **arguments)
    with pytest.raises(RuntimeError, match="killed"):
        model.fit(X, y)
    resumed = gpumlp.resume(tmp_path, custom={"Killed": gpumlp.Callback()})
    resumed.random_state = own = generator(kind, 99)  # takes the place that the first had come to
    same_weights(resumed.fit(X, y), expected)
    assert own.random() == random.random()


@pytest.mark.parametrize("kind, place, value", [
    ("MT19937", "pos", 10**9), ("MT19937", "pos", -1), ("Philox", "buffer_pos", 10**6),
    ("Philox", "buffer_pos", -5), ("PCG64", "bit_generator", "Generator"),
    ("PCG64", "state", {"state": 1 << 200, "inc": 1}), ("PCG64", "state", {}),
])  # fmt: skip
def test_states_that_are_none_are_refused(kind, place, value):
    """NumPy would read beyond its buffers."""
    state = generator(kind).bit_generator.state
    (state["state"] if place == "pos" else state)[place] = value
    writer = Writer()
    written = {"generator": writer.write(state, "state")}
    with pytest.raises((ValueError, KeyError)):
        Reader(writer.arrays, {}).read(written)


def test_what_is_no_random_state():
    for wrong in (np.random.SeedSequence(3), np.random.PCG64(3), -1, 1.5, "3", [3]):
        with pytest.raises(ValueError, match=r"(?s)random_state = .* numpy\.random\.Generator or"):
            small(MLPRegressor, random_state=wrong).fit(*DIABETES)


# ---------------------------------------------------------------- golden values
# What these seeds give, for good: a new version that gives other numbers breaks what people have
# written down.  Integers are exact; floats may differ by a last digit of sqrt or log.
ROWS = (np.arange(60) * 7 % 11).reshape(20, 3) / 4.0
VALUES = ROWS @ [1.0, -0.5, 0.25]
LABELS = np.arange(20) % 3

GOLDEN = {
    "W1": [[-0.486326060, -0.668931936, 0.022194595], [-0.365212667, 0.899804755, -0.739335249]],
    "W2": [-0.794555438, -0.925346419, -0.719255188, -0.952400179],
    "two, he_normal": [
        [-1.146005481, 0.692731633, 1.068532962],
        [-1.888293444, 0.098370012, 0.568534100],
    ],
    "trained": [-0.797450498, -0.933489819, -0.651331699, -0.524311279],
    "order": [14, 4, 2, 12, 13, 0, 9, 17, 11, 8, 15, 3, 7, 16, 6, 10, 5, 18, 1, 19],
    "orders": "f4d6207efa312cdd",
    "mask": "0011001010100111101101111010000100100101",
    "masks": "d643efc8e84b165c",
    ("MLPClassifier", "integer"): [[[-0.784524604, 0.518308888]], [[-0.789896169, 0.361391958]]],
    ("MLPClassifier", "integer, members"): [
        [[-0.784524604, 0.518308888], [0.691456894, 0.867568726]],
        [[-0.757234989, 0.335498882], [0.472957999, 0.857829584]],
    ],
    ("MLPClassifier", "RandomState"): [
        [[-0.784524604, 0.518308888]],
        [[-0.748804189, 0.559343935]],
    ],
    ("MLPClassifier", "Generator"): [[[0.231631795, 0.735497042]], [[0.621079052, 0.225055783]]],
    ("MLPClassifier", "Generator, members"): [
        [[-0.569372204, -0.806600263], [-0.522761480, -0.305895401]],
        [[-0.207933518, -0.498182984], [-0.374212123, -0.281773305]],
    ],
    ("MLPRegressor", "integer"): [[[-0.784524604, 0.518308888]], [[-0.749176819, 0.447016192]]],
    ("MLPRegressor", "integer, members"): [
        [[-0.784524604, 0.518308888], [0.691456894, 0.867568726]],
        [[-0.771313836, 0.419628195], [0.466563936, 1.114863740]],
    ],
    ("MLPRegressor", "RandomState"): [[[-0.784524604, 0.518308888]], [[0.367743441, 0.364257812]]],
    ("MLPRegressor", "Generator"): [[[0.231631795, 0.735497042]], [[-0.789137805, -0.374343442]]],
    ("MLPRegressor", "Generator, members"): [
        [[-0.569372204, -0.806600263], [-0.522761480, -0.305895401]],
        [[0.018046405, -0.498177554], [-0.603583630, -0.717104933]],
    ],
}


def close(values, expected):
    np.testing.assert_allclose(values, expected, rtol=1e-7, atol=1e-7)


def digest(integers) -> str:
    return hashlib.sha256(np.asarray(integers, "<i8").tobytes()).hexdigest()[:16]


def network(device, **arguments):
    options = {"hidden": "relu", "dtype": "float64", "device": device, "seed": 7} | arguments
    return gpumlp.MLP((3, 4, 2), output="identity", **options)


def test_a_seeds_weights(device):
    net = network(device)
    W1, W2 = (net.ops.to_host(net.W[k]) for k in (1, 2))
    close(W1[1:3], GOLDEN["W1"])
    close(W2[0], GOLDEN["W2"])
    net = network(device, models=2, init="he_normal")
    close(net.ops.to_host(net.W[1])[:, 0], GOLDEN["two, he_normal"])


def test_a_seeds_orders(device):
    net = network(device, models=2)
    trainer = gpumlp.Trainer(net, "squared_error", seed=7, batch_size=8)
    rows = make_rows(net, trainer.objective, ROWS, ROWS[:, :2], None, 8, orders=2)
    orders = []
    for epoch in (0, 1):
        with net.ops.on_device():
            rows.shuffle(trainer.state.seeds, epoch)
            orders.append(np.array(net.ops.to_host(rows.order)))
    assert orders[0][0].tolist() == GOLDEN["order"]
    assert digest(orders) == GOLDEN["orders"]


def test_a_seeds_dropout_masks(device):
    """A unit that is dropped leaves no gradient: with n^(1) = 1 the others' weights move."""
    net = gpumlp.MLP((1, 40, 1), "relu", "identity", device=device, init="zeros", dropout=0.4)
    trainer = gpumlp.Trainer(net, "squared_error", gpumlp.SGD(0.125), seed=7)
    masks = []
    for _ in range(3):
        net.b[1][...] = 1.0
        net.W[2][...] = 0.0
        trainer.step(np.ones((1, 1)), np.ones((1, 1)))
        masks.append(net.ops.to_host(net.W[2])[0] != 0)
    assert "".join(map(str, masks[0].astype(int))) == GOLDEN["mask"]
    assert digest(masks) == GOLDEN["masks"]


def test_a_seeds_training(device):
    """Weights, orders and masks of a fit, together."""
    net = network(device, dropout=0.25, hidden="leaky_relu")
    trainer = gpumlp.Trainer(net, "squared_error", gpumlp.SGD(0.05), seed=7, batch_size=8)
    trainer.fit(ROWS, ROWS[:, :2], epochs=3, progress=False)
    close(net.ops.to_host(net.W[2])[0], GOLDEN["trained"])


@pytest.mark.parametrize("name, random_state, arguments", [
    ("integer", 7, {}),
    ("integer, members", 7, {"n_models": 2, "bootstrap": True}),
    ("RandomState", np.random.RandomState(7), {}),
    ("Generator", generator("PCG64", 7), {}),
    ("Generator, members", generator("PCG64", 7), {"n_models": 2, "bootstrap": True}),
])  # fmt: skip
@pytest.mark.parametrize("cls", BOTH)
def test_a_random_states_fit(cls, name, random_state, arguments, device):
    """Initial weights; and after epochs with shuffling, dropout and samples held out."""
    random_state = copy.deepcopy(random_state)
    model = cls(
        hidden_layer_sizes=(4,),
        random_state=random_state,
        max_iter=3,
        batch_size=8,
        dropout=0.25,
        early_stopping=True,
        validation_fraction=0.2,
        learning_rate_init=1e-300,
        solver="sgd",
        dtype="float64",
        device=device,
        **arguments,
    )
    y = LABELS if cls is MLPClassifier else VALUES
    found = []
    for rate in (1e-300, 0.05):
        model.set_params(learning_rate_init=rate).fit(ROWS, y)
        networks = model.estimators_ if arguments else [model]
        found.append([each.coefs_[0][0, :2] for each in networks])
    close(found, GOLDEN[cls.__name__, name])
