"""When networks train in shared memory, for how many batches a launch, and what fits into it."""

import math
from collections import Counter

import numpy as np
import pytest

import gpumlp
from gpumlp.backend.cuda import persistent_kernel
from gpumlp.functions.activation import activations
from gpumlp.functions.loss import losses, pair
from gpumlp.model.shape import NetworkShape
from gpumlp.training import executors, persistent
from gpumlp.training.executors import PersistentKernel
from gpumlp.training.out_of_core import Streamed
from gpumlp.training.placement import make_rows
from tests.helpers.training import blobs, fit
from tests.operations.persistent_kernel import data, make, run, state

CHIPS = {  # as few multiprocessors as are sold of a kind, but for sm_90
    "sm_75": persistent_kernel.Chip(14, 32, 64 << 10, 64 << 10, 0),
    "sm_80": persistent_kernel.Chip(108, 2, 163 << 10, 164 << 10, 1 << 10),
    "sm_90": persistent_kernel.H100,
    "sm_120": persistent_kernel.Chip(20, 64, 99 << 10, 100 << 10, 1 << 10),
}


def shape_of(sizes, dtype="float32"):
    """Of a classifier that Adam trains."""
    f = (None, *[activations["relu"]] * (len(sizes) - 2), activations["softmax"])
    form = pair(losses["cross_entropy"], f[-1])
    return persistent_kernel.Shape(
        dtype, tuple(sizes), f, (False,) * len(sizes), form, "adam", (True, True), dtype
    )


@pytest.fixture
def planned(monkeypatch):
    """The plan, or None, for networks of one shape."""

    def plan(chip, shape, batch, models, resident=None):
        monkeypatch.setattr(persistent, "shape_of", lambda *arguments: shape)
        network = NetworkShape(
            *(shape.sizes, shape.f, models, np.dtype(shape.dtype), "cuda:0", "float32"),
            shape.dropout,
        )
        return persistent.plan(network, chip, None, None, shape.dtype, batch, resident)

    return plan


def executor_of(trainer, batch, source):
    """What runs the trainer's steps."""
    net = trainer.net
    arguments = net.shape, net.ops, trainer.objective, trainer.optimizer
    return executors.choose(*arguments, batch, source, trainer.resident)


def random_cases(count):
    """(chip, shape, its places, batch) of networks that fit."""
    rng = np.random.default_rng(0)
    while count:
        sizes = rng.integers(1, rng.choice([8, 120]), rng.integers(2, 7)).tolist()
        chip = list(CHIPS.values())[rng.integers(len(CHIPS))]
        shape = shape_of(sizes, str(rng.choice(["float32", "float64"])))
        at = persistent_kernel.fit(shape, chip)
        if at is not None:
            count -= 1
            yield chip, shape, at, int(10 ** rng.uniform(0, 5))


# ------------------------------------------------------------------ by the estimate

SMALL, WIDE, DEEP = (64, 64, 10), (100, 96, 10), (8, 24, 24, 24, 3)

CHOICES = [  # chip, sizes, rows of a batch, networks; whether they train in shared memory
    ("sm_90", SMALL, 200, {1: False, 16: False, 132: True, 1000: True}),
    ("sm_90", SMALL, 1, {1: False, 132: False, 10_000: True}),
    ("sm_90", SMALL, 100_000, {1: False, 16: False, 132: True, 1000: False}),  # too much at once
    ("sm_90", WIDE, 200, {1: False, 16: False, 132: True, 1000: True}),  # 220 of 227 KiB
    ("sm_90", (4, 6, 3), 8, {1: False, 16: False, 1000: False}),  # two launches gain little
    ("sm_90", DEEP, 32, {1: True, 16: True, 1000: True}),
    ("sm_90", (784, 256, 10), 128, {1: False, 1000: False}),  # has no room
    ("sm_80", SMALL, 200, {1: False, 16: False, 108: True, 1000: True}),
    ("sm_120", SMALL, 200, {1: False, 4: False, 20: True, 1000: True}),
    ("sm_120", DEEP, 32, {1: True, 20: True, 1000: True}),
    ("sm_75", DEEP, 1, {1: True, 14: True, 1000: False}),  # 72 times 14 blocks, one after another
]


@pytest.mark.parametrize(("gpu", "sizes", "batch", "expected"), CHOICES, ids=str)
def test_which_way(planned, gpu, sizes, batch, expected):
    chip, shape = CHIPS[gpu], shape_of(sizes)
    found = {models: planned(chip, shape, batch, models) is not None for models in expected}
    assert found == expected


def test_multiplications_of_a_batch():
    """Forward, the gradient of W, and delta of the layer below but for the first."""
    shape, batch = shape_of((3, 5, 2)), 7
    products = batch * (2 * (3 * 5 + 5 * 2) + 5 * 2)
    others = batch * (3 + 5 + 2) + (3 * 5 + 5) + (5 * 2 + 2)
    assert persistent.multiplications(shape, batch) == products + persistent.ELEMENT * others


def test_estimates_grow_with_the_work_and_fall_with_the_multiprocessors():
    def estimates(shape, at, chip, batch, models):
        return np.array(
            [
                persistent.kernel_seconds(shape, at, chip, batch, models),
                persistent.operations_seconds(shape, chip, batch, models),
            ]
        )

    for chip, shape, at, batch in random_cases(300):
        larger = chip._replace(multiprocessors=chip.multiprocessors + 7)
        before = np.zeros(2)
        for models in (1, 2, 16, 131, 132, 133, 1000, 1001):
            seconds = estimates(shape, at, chip, batch, models)
            assert (seconds >= before).all() and (seconds > 0).all()
            assert (seconds >= estimates(shape, at, larger, batch, models)).all()
            assert (seconds < estimates(shape, at, chip, batch + 1, models)).all()
            before = seconds


def test_where_each_network_has_a_multiprocessor(planned):
    """More networks cost shared memory nothing, so that they speak for it; more multiprocessors
    help the operations alone, so that they speak for these."""
    taken = Counter()
    for chip, shape, _, batch in random_cases(300):
        counts = sorted({1, 2, chip.multiprocessors // 2, chip.multiprocessors})
        ways = [planned(chip, shape, batch, models) is not None for models in counts]
        assert ways == sorted(ways)
        taken.update(ways)
        for models, way in zip(counts, ways, strict=True):
            larger = chip._replace(multiprocessors=2 * chip.multiprocessors)
            assert way or planned(larger, shape, batch, models) is None
    assert min(taken.values()) > 100


def test_a_launch_is_never_longer_than_its_bound(planned):
    steps = []
    for chip, shape, at, batch in random_cases(500):
        for models in (1, chip.multiprocessors, 1000, 100_000):
            seconds = persistent.kernel_seconds(shape, at, chip, batch, models)
            plan = planned(chip, shape, batch, models, resident=True)
            if plan is None:
                assert seconds > persistent.LAUNCH
                continue
            assert plan.steps >= 1
            assert plan.steps * seconds <= persistent.LAUNCH * (1 + 1e-9)
            assert (plan.steps + 1) * seconds > persistent.LAUNCH
            steps.append(plan.steps)
    assert min(steps) == 1 and max(steps) > 1000


def test_float64_is_as_slow_as_the_gpu_says():
    """A GPU for a display has a 64th of the float32 units for it."""
    shape, chip = shape_of((20, 30, 4), "float64"), CHIPS["sm_120"]
    at = persistent_kernel.fit(shape, chip)
    slow, fast = (
        persistent.kernel_seconds(shape, at, chip._replace(double=double), 1000, 20)
        for double in (64, 2)
    )
    assert slow > 8 * fast


# ------------------------------------------------------------------ in a fit


def kernels_of_an_epoch(counters, **network):
    x, y = blobs(30)
    options = network.pop("trainer", {})
    net = gpumlp.MLP(**{"sizes": (4, 6, 3), "device": "cuda"} | network)
    trainer = gpumlp.Trainer(net, batch_size=8, **options)
    with counters.count() as counted:
        fit(trainer, x, y)
    return {*counted.kernels} - {"shuffle_keys", "shuffle_order"}


def test_where_a_step_gains_enough_the_kernel_is_taken(counters, monkeypatch):
    """By default: four hidden layers are so many launches that even one network gains."""
    deep, flat = (4, 6, 6, 6, 6, 3), (4, 6, 3)
    kernel = {"train_persistent"}
    assert kernels_of_an_epoch(counters, sizes=deep) == kernel
    assert kernels_of_an_epoch(counters, sizes=deep, models=16, dtype="float64") == kernel
    assert not kernels_of_an_epoch(counters, sizes=flat, models=16) & kernel
    monkeypatch.setattr(persistent, "SAVED", 20e-6)
    assert kernels_of_an_epoch(counters, sizes=flat, models=16) == kernel
    assert not kernels_of_an_epoch(counters, sizes=(4, 4000, 3)) & kernel
    for precision in ("tf32", "bf16"):
        assert not kernels_of_an_epoch(counters, sizes=deep, precision=precision) & kernel


def test_either_way_can_be_asked_for(counters):
    x, y = blobs(30)
    for sizes, way in (((4, 6, 6, 6, 6, 3), False), ((4, 6, 3), True)):
        trainer = gpumlp.Trainer(gpumlp.MLP(sizes, device="cuda"), batch_size=8)
        trainer.resident = way
        with counters.count() as counted:
            fit(trainer, x, y)
        assert ("train_persistent" in counted.kernels) == way


def test_rows_in_host_memory_are_not_for_it(cuda):
    trainer = make("relu, one network", "float32", cuda, True)
    x, y, _ = data("relu, one network")
    rows = make_rows(trainer.net, trainer.objective, x, y, None, 8)
    assert isinstance(executor_of(trainer, 8, rows.source), PersistentKernel)
    rows.__class__ = Streamed
    assert not isinstance(executor_of(trainer, 8, rows.source), PersistentKernel)


def test_the_cpu_has_operations_alone():
    trainer = make("relu, one network", "float32", "cpu", True)
    x, y, _ = data("relu, one network")
    rows = make_rows(trainer.net, trainer.objective, x, y, None, 8)
    assert not isinstance(executor_of(trainer, 8, rows.source), PersistentKernel)


def test_an_epoch_is_one_launch(counters):
    """However many batches it has: nothing is done for a single one."""
    x, y = blobs(64)
    counts = []
    for batch_size in (32, 8, 2):
        net = gpumlp.MLP((4, 6, 3), models=16, device="cuda", dropout=0.5)
        trainer = gpumlp.Trainer(net, batch_size=batch_size, clip_norm=1.0, schedule="cosine")
        trainer.resident = True
        fit(trainer, x, y)
        with counters.count() as counted:
            fit(trainer, x, y, 3)
        assert counted.kernels == ["shuffle_keys", "shuffle_order", "train_persistent"] * 3
        counts.append((counted.h2d, counted.d2h, counted.elementwise, counted.synchronisations))
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize(("steps", "launches"), [(1, 8), (3, 3), (8, 1), (1000, 1)])
def test_long_epochs_are_a_few_launches(counters, monkeypatch, steps, launches):
    """As long as LAUNCH allows, with the same results to the bit: 8 batches of 13 rows."""
    case = "prelu and rrelu with dropout"
    counts, found = [], set()
    for bound in (None, steps + 0.5):
        trainer = make(case, "float32", "cuda", True, batch_size=13)
        if bound:
            shape, at, _ = executor_of(trainer, 13, "float32").plan
            step = persistent.kernel_seconds(shape, at, trainer.net.ops.chip(), 13, 3)
            monkeypatch.setattr(persistent, "LAUNCH", bound * step)
        with counters.count() as counted:
            losses, _ = run(trainer, data(case), 1)
        assert (trainer.steps == 8).all()
        counts.append((counted.kernels.count("train_persistent"), counted.waits))
        found.add(losses.tobytes() + b"".join(a.tobytes() for a in state(trainer).values()))
    (one, waits), (several, more_waits) = counts
    assert (one, several) == (1, launches)
    assert (waits, more_waits) == (0, launches - 1)  # for the one before each
    assert len(found) == 1


def test_a_step_too_long_for_a_launch_is_by_operations(counters, monkeypatch):
    monkeypatch.setattr(persistent, "LAUNCH", 1e-6)
    trainer = make("relu, one network", "float32", "cuda", True, batch_size=13)
    with counters.count() as counted:
        run(trainer, data("relu, one network"), 1)
    assert "train_persistent" not in counted.kernels and "gather" in counted.kernels


# ------------------------------------------------------------------ what fits


def all_shapes():
    return [
        (f"{label}-{dtype}", shape)
        for dtype in ("float32", "float64")
        for label, shape in persistent_kernel.samples(dtype)
    ]


@pytest.mark.parametrize("tile", persistent_kernel.TILES)
@pytest.mark.parametrize(("name", "shape"), all_shapes(), ids=lambda value: str(value)[:20])
def test_places_do_not_overlap(name, shape, tile):
    at, sizes = persistent_kernel.places(shape, tile), shape.sizes
    layers = range(1, len(sizes))
    numbers = [(at.W[k], sizes[k] * at.leads[k - 1]) for k in layers]
    numbers += [(at.b[k], sizes[k]) for k in layers]
    numbers += [(place, 1) for place in at.slope.values()]
    copies = 2 + sum(shape.state_buffers)
    parts = [(i * at.numbers + start, size) for i in range(copies) for start, size in numbers]
    parts += [(start, tile * at.leads[k]) for k, start in at.n.items()]
    parts += [(start, tile * at.leads[k]) for k, start in at.z.items()]
    taken = np.zeros(at.bytes // shape.itemsize, int)
    for start, size in parts:
        assert start * shape.itemsize % persistent_kernel.PACK == 0
        assert start + size <= len(taken)
        taken[start : start + size] += 1
    assert taken.max() == 1
    assert at.decayed == at.b[1]
    assert {k for k in layers if shape.keeps_z(k)} == at.z.keys()
    for size, lead in zip(sizes, at.leads, strict=True):
        packs, rest = divmod(lead * shape.itemsize, persistent_kernel.PACK)
        assert packs % 2 == 1 and rest == 0, "rows in the same banks"
        assert lead >= size


@pytest.mark.parametrize("gpu", CHIPS)
@pytest.mark.parametrize(("name", "shape"), all_shapes(), ids=lambda value: str(value)[:20])
def test_what_fits_is_the_best_that_does(name, shape, gpu):
    chip = CHIPS[gpu]
    at = persistent_kernel.fit(shape, chip)
    if at is None:
        smallest = persistent_kernel.places(shape, persistent_kernel.TILES[-1])
        assert smallest.bytes + persistent_kernel.STATIC > chip.block
        return
    each = at.bytes + persistent_kernel.STATIC
    assert each <= chip.block and at.blocks * (each + chip.reserved) <= chip.multiprocessor
    for tile in persistent_kernel.TILES[: persistent_kernel.TILES.index(at.tile)]:
        larger = persistent_kernel.places(shape, tile).bytes + persistent_kernel.STATIC
        two = 2 * (larger + chip.reserved)
        assert larger > chip.block or (at.blocks == 2 and two > chip.multiprocessor)


@pytest.mark.parametrize("gpu", CHIPS)
@pytest.mark.parametrize(("name", "shape"), all_shapes(), ids=lambda value: str(value)[:20])
def test_an_sm_is_divided_so_that_its_blocks_have_room(name, shape, gpu):
    chip = CHIPS[gpu]
    at = persistent_kernel.fit(shape, chip)
    if at is None:
        return
    percent, needed = persistent_kernel.carveout(at, chip), at.blocks * (at.bytes + chip.reserved)
    assert 0 < percent <= 100
    step = chip.multiprocessor / 100
    assert needed < percent * step < needed + at.blocks * persistent_kernel.STATIC + step


@pytest.mark.parametrize(("sizes", "blocks"), [((64, 64, 10), 2), ((64, 100, 10), 1)])
def test_the_driver_is_told_how_to_divide_an_sm(cuda, sizes, blocks):
    """Blocks of 99 KiB, two to an SM, and of 169 KiB: as much as they need, and no guess."""
    net = gpumlp.MLP(sizes, device=cuda)
    trainer = gpumlp.Trainer(net, optimizer=gpumlp.Adam())
    trainer.resident = True
    chip = net.ops.chip()
    executor = executor_of(trainer, 200, "float32")
    plan = getattr(executor, "plan", None)
    if plan is None or plan.at.blocks != blocks:
        pytest.skip(f"this GPU has other shared memory than an H100: {chip}")
    kernel = net.ops.persistent_kernel(plan.shape, plan.at).args[0]
    assert kernel.max_dynamic_shared_size_bytes == plan.at.bytes
    percent = math.ceil(100 * blocks * (plan.at.bytes + 3072) / chip.multiprocessor)
    assert kernel.preferred_shared_memory_carveout == percent


def test_the_bytes_of_a_network():
    """64-64-10 with Adam in float32: rows of 68 and 12, four copies of the parameters."""
    [shape] = [shape for label, shape in persistent_kernel.samples("float32") if label == "digits"]
    numbers = 64 * 68 + 10 * 68 + 64 + 12
    assert persistent_kernel.places(shape, 32).bytes == 4 * (4 * numbers + 32 * (68 + 68 + 12))
