"""Learning-rate schedules: their formulas, and the rates that the optimiser really applied."""

import math

import numpy as np
import pytest

import gpumlp
from tests.helpers.comparison import fill, to_numpy
from tests.helpers.training import blobs, fit, make_trainer

X, Y = blobs(20)
XV, YV = blobs(12, seed=1)
schedules = gpumlp.schedules

# Five updates an epoch in what follows; `time` is in epochs unless unit="step".
PER_EPOCH = 5
EPOCHS = 6
LR = 0.25


def cosine(time, total, warmup, floor):
    if time < warmup:
        return time / warmup
    progress = min((time - warmup) / (total - warmup), 1)
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2


def one_cycle(time, total, rise, start, end):
    low, last = 1 / start, 1 / (start * end)
    progress = min(time / total, 1)
    if progress < rise:
        return low + (1 - low) * (1 - math.cos(math.pi * progress / rise)) / 2
    return 1 + (last - 1) * (1 - math.cos(math.pi * (progress - rise) / (1 - rise))) / 2


def cosine_log(time, total, cycles):
    """Cycle i takes 2^i / (2^cycles - 1) of the time, on a logarithmic axis."""
    u = min(time / total, 1) * (2**cycles - 1)
    i = min(int(math.log2(1 + u)), cycles - 1)
    place = math.log2((1 + u) / 2**i)
    return math.sin(math.pi * place) ** 2


# schedule, and its factor as a function of the update's number t
CASES = {
    "none": (None, lambda t: 1),
    "constant": ("constant", lambda t: 1),
    "step": (schedules["step"](every=2, decay=0.5), lambda t: 0.5 ** (t // 10)),
    "step in updates": (
        schedules["step"](unit="step", every=7, decay=0.3),
        lambda t: 0.3 ** (t // 7),
    ),
    "exponential": (schedules["exponential"](decay=0.7), lambda t: 0.7 ** (t / 5)),
    "exponential in updates": (
        schedules["exponential"](unit="step", decay=0.9),
        lambda t: 0.9**t,
    ),
    "inverse scaling": (schedules["inverse_scaling"](), lambda t: 1 / math.sqrt(1 + t / 5)),
    "inverse scaling in updates": (
        schedules["inverse_scaling"](unit="step", power=0.8),
        lambda t: (1 + t) ** -0.8,
    ),
    "cosine over the fit": ("cosine", lambda t: cosine(t / 5, 6, 0, 0)),
    "cosine with warm-up": (
        schedules["cosine"](warmup=2, floor=0.1),
        lambda t: cosine(t / 5, 6, 2, 0.1),
    ),
    "cosine shorter than the fit": (
        schedules["cosine"](unit="step", total=12, warmup=3),
        lambda t: cosine(t, 12, 3, 0),
    ),
    "one cycle": ("one_cycle", lambda t: one_cycle(t / 5, 6, 0.3, 25, 1e4)),
    "one cycle of its own": (
        schedules["one_cycle"](unit="step", total=20, rise=0.4, start=5, end=10),
        lambda t: one_cycle(t, 20, 0.4, 5, 10),
    ),
    "cosine over logarithms": ("cosine_log", lambda t: cosine_log(t / 5, 6, 4)),
    "cosine over logarithms of its own": (
        schedules["cosine_log"](unit="step", total=23, cycles=2),
        lambda t: cosine_log(t, 23, 2),
    ),
    "a function": (lambda t: 1 / (1 + t), lambda t: 1 / (1 + t)),
    "a number from a function": (lambda t: 0.5, lambda t: 0.5),
}


class Applied:
    """A network that shows the learning rate of every update: dL/db is 1, so b falls by it.

    The loss is y - ŷ at ŷ below y: absolute error, one row a batch, far targets.
    """

    def __init__(self, device, schedule, models=None):
        self.net = gpumlp.MLP(
            (1, 1), output="identity", init="zeros", models=models, dtype="float64", device=device
        )
        self.trainer = gpumlp.Trainer(
            self.net, "absolute_error", gpumlp.SGD(LR), batch_size=1, schedule=schedule
        )
        self._x, self._y = np.zeros((PER_EPOCH, 1)), np.full((PER_EPOCH, 1), 1e6)

    def fit(self, epochs, **options):
        return fit(self.trainer, self._x, self._y, epochs, **options)

    def rates_of_fit(self, epochs):
        """From the losses of the batches, each before its update: 1e6 - b."""
        tables = []

        class Read(gpumlp.Callback):
            def on_epoch_end(_, trainer, history):
                tables.append(to_numpy(trainer.state.device.losses)[:PER_EPOCH, 0].copy())

        self.fit(epochs, callbacks=[Read()])
        losses = np.append(np.concatenate(tables), 1e6 - to_numpy(self.net.b[1]).ravel()[0])
        return -np.diff(losses)


@pytest.mark.parametrize("case", CASES)
def test_rate_of_every_update_of_a_fit(device, case):
    schedule, formula = CASES[case]
    applied = Applied(device, schedule)
    rates = applied.rates_of_fit(EPOCHS)
    expected = LR * np.array([formula(t) for t in range(PER_EPOCH * EPOCHS)])
    np.testing.assert_allclose(rates, expected, atol=1e-9)  # 1e6 has an ulp of 1e-10
    last_of_epochs = expected[PER_EPOCH - 1 :: PER_EPOCH]
    # The sine of a multiple of π is no exact 0.
    near = {"rtol": 1e-12, "atol": 1e-20}
    np.testing.assert_allclose(applied.trainer.history.lr, last_of_epochs, **near)
    np.testing.assert_allclose(applied.trainer.lr, expected[-1], **near)


@pytest.mark.parametrize("case", ["step in updates", "one cycle of its own", "a function"])
def test_rate_of_every_step(device, case):
    schedule, formula = CASES[case]
    applied = Applied(device, schedule)
    rates = []
    for _ in range(25):
        before = to_numpy(applied.net.b[1])[0]
        applied.trainer.step([[0.0]], [[1e6]])
        rates.append(to_numpy(applied.net.b[1])[0] - before)
    np.testing.assert_allclose(rates, [LR * formula(t) for t in range(25)], atol=1e-12)


def test_a_schedule_over_thousands_of_steps():
    """Factors are worked out ahead in tables; no step falls between two of them."""
    applied = Applied("cpu", lambda t: 1 / (1 + t))
    for _ in range(2500):
        applied.trainer.step([[0.0]], [[1e6]])
    expected = LR * (1 / np.arange(1, 2501)).sum()
    np.testing.assert_allclose(to_numpy(applied.net.b[1]), [expected], rtol=1e-12)


def test_a_function_is_only_asked_for_updates_that_are_made(device):
    """A line down to 0, or a table, ends where the fit ends."""
    length = PER_EPOCH * EPOCHS
    applied = Applied(device, lambda t: 1 - t / length)
    np.testing.assert_allclose(
        applied.rates_of_fit(EPOCHS), LR * (1 - np.arange(length) / length), atol=1e-9
    )
    table = np.linspace(1, 0.5, length)
    applied = Applied(device, lambda t: table[t])
    np.testing.assert_allclose(applied.rates_of_fit(EPOCHS), LR * table, atol=1e-9)


def test_a_function_that_ends_where_the_steps_end(device):
    applied = Applied(device, lambda t: 1 - t / 25)
    for _ in range(25):
        applied.trainer.step([[0.0]], [[1e6]])
    expected = LR * (1 - np.arange(25) / 25).sum()
    np.testing.assert_allclose(to_numpy(applied.net.b[1]), [expected], rtol=1e-12)
    applied.trainer.step([[0.0]], [[1e6]])  # a factor of 0
    with pytest.raises(ValueError, match="negative or not finite"):
        applied.trainer.step([[0.0]], [[1e6]])


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_a_function_that_gives_no_factor(value):
    applied = Applied("cpu", lambda t: np.where(t == 3, value, 1.0))
    with pytest.raises(ValueError, match="negative or not finite"):
        applied.fit(1)


def test_epochs_are_unknown_to_step():
    with pytest.raises(ValueError, match=r"Exponential counts epochs.*Trainer\.fit, or unit"):
        Applied("cpu", "exponential").trainer.step([[0.0]], [[1.0]])
    with pytest.raises(ValueError, match="Cosine needs total="):
        Applied("cpu", schedules["cosine"](unit="step")).trainer.step([[0.0]], [[1.0]])


def test_a_warm_up_longer_than_the_fit():
    with pytest.raises(ValueError, match="warmup = 9 must be below total = 2"):
        Applied("cpu", schedules["cosine"](warmup=9)).fit(2)


def test_each_network_has_its_own_rate(device):
    rates = np.array([0.1, 0.0, 0.4])
    schedule = schedules["exponential"](decay=0.5)
    trainer = make_trainer(device, 3, optimizer=gpumlp.SGD(rates), schedule=schedule)
    history = fit(trainer, X, Y, 2)
    for epoch, steps in enumerate((2, 5)):  # three updates an epoch, the last is number 2, 5
        np.testing.assert_allclose(history.lr[epoch], rates * 0.5 ** (steps / 3), rtol=1e-12)


def test_networks_that_stand_still_show_the_rate_of_their_last_update(device):
    """Network 1 has no weight in the last of three batches; 2 is stopped after the first epoch."""
    schedule = schedules["exponential"](unit="step", decay=0.5)
    trainer = make_trainer(device, 3, optimizer=gpumlp.SGD(0.1), schedule=schedule, shuffle=False)
    weight = np.ones((3, 20))
    weight[1, 16:] = 0

    class Stop(gpumlp.Callback):
        def on_epoch_end(self, trainer, history):
            trainer.stop([False, False, True])

    history = fit(trainer, X, Y, 2, sample_weight=weight, callbacks=[Stop()])
    np.testing.assert_array_equal(trainer.steps, [6, 4, 3])
    for epoch, updates in enumerate([(3, 2, 3), (6, 4, 3)]):
        expected = 0.1 * 0.5 ** (np.array(updates) - 1)
        np.testing.assert_allclose(history.lr[epoch], expected, rtol=1e-12)


def test_a_network_that_is_behind_has_the_rate_of_its_own_update(device):
    """Network 1 makes two updates an epoch, network 0 three; each fit looks the rates up anew."""
    schedule = schedules["exponential"](unit="step", decay=0.5)
    trainer = make_trainer(device, 2, optimizer=gpumlp.SGD(0.1), schedule=schedule, shuffle=False)
    weight = np.ones((2, 20))
    weight[1, 16:] = 0
    for fits in (1, 2, 3):
        history = fit(trainer, X, Y, 1, sample_weight=weight)
        np.testing.assert_allclose(
            history.lr[-1], [0.1 * 0.5 ** (3 * fits - 1), 0.1 * 0.5 ** (2 * fits - 1)], rtol=1e-12
        )


# --- plateau --------------------------------------------------------------------------------------


def plateau(losses, decay, patience, delta=0.0, floor=0.0):
    """The factor of each epoch: after `patience` epochs without a new best, it is lowered."""
    factor, best, waited, factors = 1.0, math.inf, 0, []
    for loss in losses:
        factors.append(factor)
        if loss < best - delta:
            best, waited = loss, 0
        else:
            waited += 1
        if waited >= patience:
            factor, waited = max(factor * decay, floor), 0
    return factors


@pytest.mark.parametrize("monitor", [None, "loss", "val_loss"])
def test_plateau_of_each_network(device, monitor):
    schedule = schedules["plateau"](decay=0.5, patience=2, delta=0.02, floor=0.1, monitor=monitor)
    lr = np.array([1e-3, 0.3, 3.0])
    trainer = make_trainer(device, 3, optimizer=gpumlp.SGD(lr), schedule=schedule)
    history = fit(trainer, X, Y, 25, validation=(XV, YV))
    watched = np.array(history.loss if monitor == "loss" else history.val_loss)
    expected = [plateau(watched[:, m], 0.5, 2, 0.02, 0.1) for m in range(3)]
    np.testing.assert_allclose(history.lr, lr * np.array(expected).T, rtol=1e-12)
    assert {len(set(factors)) for factors in expected} - {1}, "no rate was ever lowered"
    assert len({tuple(factors) for factors in expected}) > 1, "all networks did the same"


def test_plateau_lowers_the_rate_that_is_applied(device):
    applied = Applied(device, schedules["plateau"](decay=0.1, patience=1, delta=1e5))
    np.testing.assert_allclose(
        applied.rates_of_fit(4), LR * np.repeat([1, 1, 0.1, 0.01], PER_EPOCH), atol=1e-9
    )


def test_plateau_without_validation_watches_the_training_loss(device):
    schedule = schedules["plateau"](decay=0.5, patience=1, delta=0.05)
    trainer = make_trainer(device, optimizer=gpumlp.SGD(1.0), schedule=schedule)
    history = fit(trainer, X, Y, 15)
    expected = plateau(history.loss, 0.5, 1, 0.05)
    np.testing.assert_allclose(history.lr, expected, rtol=1e-12)
    assert expected[-1] < 1
    asked = make_trainer(device, schedule=schedules["plateau"](monitor="val_loss"))
    with pytest.raises(ValueError, match="no val_loss: train with validation"):
        fit(asked, X, Y)


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("plateau", {"decay": 1.5}),
        ("plateau", {"patience": 0}),
        ("plateau", {"monitor": "val_los"}),
        ("plateau", {"floor": 2.0}),
        ("step", {"every": 0}),
        ("step", {"decay": -1}),
        ("exponential", {"decay": math.nan}),
        ("cosine", {"warmup": -1}),
        ("cosine", {"unit": "batch"}),
        ("one_cycle", {"rise": 0}),
        ("one_cycle", {"rise": 1.0}),
    ],
)
def test_arguments_that_make_no_schedule(name, arguments):
    with pytest.raises(ValueError):
        schedules[name](**arguments)


def test_parameters_may_be_written_between_two_fits(device):
    applied = Applied(device, None)
    applied.fit(1)
    fill(applied.net.b[1], np.array([10.0]))
    applied.fit(1)
    np.testing.assert_allclose(to_numpy(applied.net.b[1]), [10 + PER_EPOCH * LR])
