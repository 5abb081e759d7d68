"""Stacks of small networks that train in shared memory: the same fits, and one launch an epoch.

The kernel's numbers are compared with NumPy's operations in tests/operations/resident.py; here they
are compared with those of the GPU's operations, for all cases, and with the fits of a trainer.
"""

import re

import numpy as np
import pytest

import gpumlp
from gpumlp import backend, residence
from gpumlp.backend import resident, sources
from gpumlp.rows import make_rows
from gpumlp.streamed import Streamed
from tests import cubin
from tests.operations.resident import CASES, assert_same_course, check, data, make, run, state
from tests.training import blobs, fit, theta

# ------------------------------------------------------------------ both ways agree


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_updates_are_those_of_numpy(cuda, case, dtype):
    check(backend.get("cuda:0"), dtype, case)


@pytest.mark.parametrize("case", ["prelu and rrelu with dropout", "f' of the output", "counts"])
@pytest.mark.parametrize(
    "options",
    [{"padded": True}, {"own": True}, {"weighted": False}, {"batch_size": 3}, {"stopped": True}],
    ids=str,
)
def test_data_of_every_kind(cuda, case, options):
    """Padding in the order, whole batches of it; networks with rows of their own; no weights."""
    check(backend.get("cuda:0"), "float64", case, **options)


@pytest.mark.parametrize("case", CASES)
def test_trajectories_are_those_of_the_operations(cuda, case):
    """30 updates in float64, of batches with a ragged end, to 1e-10."""
    given, found = data(case, rows=22), []
    for way in (False, True):
        trainer = make(case, "float64", cuda, way, batch_size=8)
        found.append((*run(trainer, given, 10), state(trainer)))
        assert (trainer.steps == 30).all() if trainer.net.models else trainer.steps == 30
    assert_same_course(found[1], found[0], "float64")


@pytest.mark.parametrize("source", ["uint8", "int16", "float64"])
def test_features_of_other_types(cuda, source):
    case, thetas = "relu, one network", []
    _, y, weight = data(case)
    x = np.random.default_rng(0).integers(0, 9, (len(y), 5)).astype(source)
    for way in (False, True):
        trainer = make(case, "float64", cuda, way)
        run(trainer, (x, y, weight))
        thetas.append(theta(trainer))
    np.testing.assert_allclose(thetas[1], thetas[0], rtol=0, atol=1e-10)


def test_fits_with_all_that_goes_with_them(cuda):
    """Plateau, early stopping of each network, retuning, validation: the whole of a Trainer."""
    x, y = blobs(50)
    found = []
    for way in (False, True):
        net = gpumlp.MLP((4, 6, 3), "tanh", models=3, device=cuda, dtype="float64", dropout=0.1)
        schedule = gpumlp.schedules["plateau"](patience=1, decay=0.3, delta=0.02)
        optimizer = gpumlp.SGD([0.5, 0.05, 0.005], momentum=0.9)
        trainer = gpumlp.Trainer(net, optimizer=optimizer, batch_size=16, schedule=schedule)
        trainer.resident = way
        stopping = gpumlp.EarlyStopping(patience=2, delta=0.01)
        history = fit(trainer, x, y, 12, validation=(x[:20], y[:20]), callbacks=[stopping])
        trainer.retune(lr=0.02)
        second = fit(trainer, x, y, 2)
        found.append((theta(trainer), history, second, trainer.steps))
    (ours, *histories, steps), (expected, *others, steps_) = found[1], found[0]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10)
    assert len(set(steps_.tolist())) > 1, "early stopping stopped none before the others"
    np.testing.assert_array_equal(steps, steps_)
    for a, b in zip(histories, others, strict=True):
        np.testing.assert_allclose(a.loss, b.loss, rtol=1e-9)
        np.testing.assert_allclose(a.lr, b.lr, rtol=1e-12)


def test_a_network_that_diverges_stands_still(cuda):
    x, y = blobs(40)
    found = []
    for way in (False, True):
        net = gpumlp.MLP((4, 6, 3), "relu", "identity", models=3, device=cuda, dtype="float64")
        trainer = gpumlp.Trainer(
            net, "squared_error", gpumlp.SGD([1e-2, 1e80, 1e-2], momentum=0.5), batch_size=8
        )
        trainer.resident = way
        with pytest.warns(RuntimeWarning, match="network 1"):
            history = fit(trainer, x, np.eye(3)[y], 4)
        found.append((theta(trainer), trainer.slots["velocity"].get(), trainer.steps, history))
    (ours, velocity, steps, history), (expected, velocity_, steps_, history_) = found[1], found[0]
    np.testing.assert_array_equal(steps, steps_)
    assert steps[1] < steps[0] == 20
    assert history.diverged == history_.diverged and 1 in history.diverged
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(velocity, velocity_, rtol=1e-10, atol=1e-10)


def test_a_network_that_was_stopped_is_not_touched(cuda):
    trainer = make("prelu and rrelu with dropout", "float32", cuda, True)
    given = data("prelu and rrelu with dropout")
    run(trainer, given, 1)
    trainer.stop([False, True, False])
    before = state(trainer)
    losses, weights = run(trainer, given, 1)
    after = state(trainer)
    for name in ("theta", "first", "second", "t", "halted", "norm"):
        np.testing.assert_array_equal(after[name][1], before[name][1])
    assert (losses[:, 1] == 0).all() and (weights[:, 1] == 0).all()
    assert (after["theta"][0] != before["theta"][0]).any() and (weights[:, 0] > 0).all()
    np.testing.assert_array_equal(after["cursor"], [2, 2, 2])


def test_padding_of_parameters_stays_zero(cuda):
    """What lies between the segments of theta and of the state, and behind them."""
    trainer = make("prelu and rrelu with dropout", "float32", cuda, True)
    run(trainer, data("prelu and rrelu with dropout"), 1)
    layout = trainer.net.layout
    used = np.zeros(layout.size, bool)
    for group in (layout.W, layout.b, layout.slope):
        for part in group.values():
            used[part] = True
    for name in ("theta", "first", "second"):
        assert not state(trainer)[name][:, ~used].any()


def test_an_epoch_that_is_resumed(cuda):
    """An interrupt comes between two launches; the rest of the epoch is another one."""
    case, given, thetas = "prelu and rrelu with dropout", data("prelu and rrelu with dropout"), []
    for first in ([0], [0, 4]):
        trainer = make(case, "float64", cuda, True, batch_size=8)
        rows = make_rows(trainer.net, trainer.objective, *given, 8)
        trainer.rates.plan(rows.steps, rows.steps)
        trainer.make_room(rows.steps)
        for begin in first:
            interrupt = Asked(after=1) if begin + 4 in first else None
            residence_steps, residence.STEPS = residence.STEPS, 4
            try:
                trainer.run_epoch(rows, np.arange(100)[None], interrupt, begin)
            finally:
                residence.STEPS = residence_steps
        assert trainer.epoch == 1 and trainer.batches_done == 0
        thetas.append(theta(trainer))
    np.testing.assert_array_equal(*thetas)


class Asked:
    """An interrupt that comes when it has been asked for so often."""

    def __init__(self, after):
        self._left = after

    @property
    def asked(self):
        self._left -= 1
        return self._left < 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_do_not_depend_on_the_order_of_threads(cuda, dtype, monkeypatch):
    """To the bit."""
    case, found = "prelu and rrelu with dropout", set()
    for order in range(4):
        monkeypatch.setenv("GPUMLP_SIMT_ORDER", str(order))
        trainer = make(case, dtype, cuda, True)
        losses, _ = run(trainer, data(case), 2)
        found.add(losses.tobytes() + b"".join(a.tobytes() for a in state(trainer).values()))
    assert len(found) == 1


# ------------------------------------------------------------------ which way


def kernels_of_an_epoch(counters, **network):
    x, y = blobs(30)
    options = network.pop("trainer", {})
    net = gpumlp.MLP(**{"sizes": (4, 6, 3), "device": "cuda"} | network)
    trainer = gpumlp.Trainer(net, batch_size=8, **options)
    with counters.count() as counted:
        fit(trainer, x, y)
    return {*counted.kernels} - {"shuffle_keys", "shuffle_order"}


RESIDENT = {"train_resident"}


def test_stacks_of_small_networks_are_resident(counters):
    few, many = residence.LEAST_NETWORKS - 1, residence.LEAST_NETWORKS
    assert kernels_of_an_epoch(counters, models=many) == RESIDENT
    assert kernels_of_an_epoch(counters, models=many, dtype="float64") == RESIDENT
    assert not kernels_of_an_epoch(counters, models=few) & RESIDENT
    assert not kernels_of_an_epoch(counters) & RESIDENT
    assert not kernels_of_an_epoch(counters, models=many, sizes=(4, 4000, 3)) & RESIDENT
    for precision in ("tf32", "bf16"):
        assert not kernels_of_an_epoch(counters, models=many, precision=precision) & RESIDENT


def test_either_way_can_be_asked_for(counters):
    x, y = blobs(30)
    for models, way in ((residence.LEAST_NETWORKS, False), (None, True)):
        trainer = gpumlp.Trainer(gpumlp.MLP((4, 6, 3), models=models, device="cuda"), batch_size=8)
        trainer.resident = way
        with counters.count() as counted:
            fit(trainer, x, y)
        assert ("train_resident" in counted.kernels) == way


def test_rows_in_host_memory_are_not_for_it(cuda):
    trainer = make("relu, one network", "float32", cuda, True)
    x, y, _ = data("relu, one network")
    rows = make_rows(trainer.net, trainer.objective, x, y, None, 8)
    assert residence.launcher(trainer, rows) is not None
    rows.__class__ = Streamed
    assert residence.launcher(trainer, rows) is None


def test_the_cpu_has_operations_alone():
    trainer = make("relu, one network", "float32", "cpu", True)
    x, y, _ = data("relu, one network")
    rows = make_rows(trainer.net, trainer.objective, x, y, None, 8)
    assert residence.launcher(trainer, rows) is None
    for _, shape in resident.samples("float32"):
        assert trainer.net.ops.resident(shape) is None


def test_an_epoch_is_one_launch(counters):
    """However many batches it has: nothing is done for a single one."""
    x, y = blobs(64)
    counts = []
    for batch_size in (32, 8, 2):
        net = gpumlp.MLP((4, 6, 3), models=16, device="cuda", dropout=0.5)
        trainer = gpumlp.Trainer(net, batch_size=batch_size, clip_norm=1.0, schedule="cosine")
        fit(trainer, x, y)
        with counters.count() as counted:
            fit(trainer, x, y, 3)
        assert counted.kernels == ["shuffle_keys", "shuffle_order", "train_resident"] * 3
        counts.append((counted.h2d, counted.d2h, counted.elementwise, counted.synchronisations))
    assert counts[0] == counts[1] == counts[2]


def test_long_epochs_are_a_few_launches(counters, monkeypatch):
    monkeypatch.setattr(residence, "STEPS", 3)
    trainer = make("relu, one network", "float32", "cuda", True, batch_size=13)
    given = data("relu, one network")
    with counters.count() as counted:
        run(trainer, given, 1)
    assert counted.kernels.count("train_resident") == 3  # 3, 3 and 2 batches
    assert trainer.steps == 8


# ------------------------------------------------------------------ what fits

LIMITS = {  # bytes of shared memory: of a block, a multiprocessor, kept from each block
    "sm_75": (64 << 10, 64 << 10, 0),
    "sm_80": (163 << 10, 164 << 10, 1 << 10),
    "sm_90": (227 << 10, 228 << 10, 1 << 10),
    "sm_120": (99 << 10, 100 << 10, 1 << 10),
}


def all_shapes():
    return [
        (f"{label}-{dtype}", shape)
        for dtype in ("float32", "float64")
        for label, shape in resident.samples(dtype)
    ]


@pytest.mark.parametrize("tile", resident.TILES)
@pytest.mark.parametrize(("name", "shape"), all_shapes(), ids=lambda value: str(value)[:20])
def test_places_do_not_overlap(name, shape, tile):
    at, sizes = resident.places(shape, tile), shape.sizes
    layers = range(1, len(sizes))
    numbers = [(at.W[k], sizes[k] * at.leads[k - 1]) for k in layers]
    numbers += [(at.b[k], sizes[k]) for k in layers]
    numbers += [(place, 1) for place in at.slope.values()]
    copies = 2 + sum(shape.slots)
    parts = [(i * at.numbers + start, size) for i in range(copies) for start, size in numbers]
    parts += [(start, tile * at.leads[k]) for k, start in at.n.items()]
    parts += [(start, tile * at.leads[k]) for k, start in at.z.items()]
    taken = np.zeros(at.bytes // shape.itemsize, int)
    for start, size in parts:
        assert start * shape.itemsize % resident.PACK == 0
        assert start + size <= len(taken)
        taken[start : start + size] += 1
    assert taken.max() == 1
    assert at.decayed == at.b[1]
    assert {k for k in layers if shape.keeps_z(k)} == at.z.keys()
    for size, lead in zip(sizes, at.leads, strict=True):
        packs, rest = divmod(lead * shape.itemsize, resident.PACK)
        assert packs % 2 == 1 and rest == 0, "rows in the same banks"
        assert lead >= size


@pytest.mark.parametrize("gpu", LIMITS)
@pytest.mark.parametrize(("name", "shape"), all_shapes(), ids=lambda value: str(value)[:20])
def test_what_fits_is_the_best_that_does(name, shape, gpu):
    block, multiprocessor, reserved = LIMITS[gpu]
    at = resident.fit(shape, block, multiprocessor, reserved)
    if at is None:
        smallest = resident.places(shape, resident.TILES[-1])
        assert smallest.bytes + resident.STATIC > block
        return
    each = at.bytes + resident.STATIC
    assert each <= block and at.blocks * (each + reserved) <= multiprocessor
    for tile in resident.TILES[: resident.TILES.index(at.tile)]:
        larger = resident.places(shape, tile).bytes + resident.STATIC
        assert larger > block or (at.blocks == 2 and 2 * (larger + reserved) > multiprocessor)


def test_the_bytes_of_a_network():
    """64-64-10 with Adam in float32: rows of 68 and 12, four copies of the parameters."""
    [shape] = [shape for label, shape in resident.samples("float32") if label == "digits"]
    numbers = 64 * 68 + 10 * 68 + 64 + 12
    assert resident.places(shape, 32).bytes == 4 * (4 * numbers + 32 * (68 + 68 + 12))


# ------------------------------------------------------------------ machine code


def compiled(dtype, arch):
    programs = [each for each in sources.programs(dtype) if each[0].startswith("resident-")]
    try:
        return cubin.examine_all("nvrtc", programs, arch).kernels
    except cubin.ToolMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("label", ["slopes", "noise"])
def test_other_shared_memory_is_as_little_as_is_kept_for_it(label, tmp_path):
    """In float64, where it is most; the tool counts what the GPU keeps from each block, too."""
    program = dict(sources.programs("float64"))[f"resident-{label}"]
    try:
        code, _ = cubin.compiler("nvrtc").compile(program, 90)
        tool = cubin.find_disassembler("cuobjdump")
    except cubin.ToolMissing as missing:
        pytest.skip(str(missing))
    (tmp_path / "cubin").write_bytes(code)
    usage = cubin.run(tool, "--dump-resource-usage", str(tmp_path / "cubin"))
    [used] = re.findall(r"SHARED:(\d+)", usage)
    assert 0 < int(used) - resident.H100["reserved"] <= resident.STATIC


GENERIC = re.compile(r"^(LD|ST)\b")
SHARED_BY_128 = re.compile(r"^LDS\.128\b")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shared_memory_is_accessed_as_such(dtype):
    """Never through addresses of any memory; in the products by 128 bits."""
    for kernel in compiled(dtype, 90):
        assert kernel.count(GENERIC) == 0, kernel
        assert kernel.count(SHARED_BY_128) >= 20, kernel
