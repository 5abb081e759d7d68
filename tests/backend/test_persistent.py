"""Networks that train in shared memory: the same fits as by operations, and the machine code.

The kernel's numbers are compared with NumPy's operations in
tests/operations/persistent_kernel.py; here they are compared with those of the GPU's operations,
for all cases, and with the fits of a trainer.
"""

import re

import numpy as np
import pytest

import gpumlp
from gpumlp import backend
from gpumlp.backend.cuda import cuda_sources, persistent_kernel
from gpumlp.functions.optimizer import examples
from gpumlp.training.placement import make_rows
from tests.helpers import cubin
from tests.helpers.training import blobs, fit, theta
from tests.operations.persistent_kernel import (
    CASES,
    assert_same_course,
    check,
    data,
    launches_of,
    make,
    run,
    state,
)

# ------------------------------------------------------------------ both ways agree


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_updates_are_those_of_numpy(cuda, case, dtype):
    check(backend.get("cuda:0"), dtype, case)


@pytest.mark.parametrize("label", dict(examples()))
def test_every_optimizer_moves_as_numpys(cuda, label):
    optimizer = dict(examples())[label]
    check(backend.get("cuda:0"), "float64", "one layer", optimizer=optimizer, batch_size=30)


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
        found.append(
            (theta(trainer), trainer.state.buffers["velocity"].get(), trainer.steps, history)
        )
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
    for name in ("theta", "first", "second", "t", "stopped_at", "norm"):
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


def test_an_epoch_that_is_resumed(cuda, monkeypatch):
    """An interrupt comes between two launches; the rest of the epoch is another one."""
    case, given, thetas = "prelu and rrelu with dropout", data("prelu and rrelu with dropout"), []
    launches_of(monkeypatch, 4)
    for first in ([0], [0, 4]):
        trainer = make(case, "float64", cuda, True, batch_size=8)
        rows = make_rows(trainer.net, trainer.objective, *given, 8)
        trainer.rates.plan(rows.steps, rows.steps)
        trainer.state.make_room(rows.steps)
        for begin in first:
            interrupt = Asked(after=1) if begin + 4 in first else None
            trainer.run_epoch(rows, np.arange(100)[None], interrupt, begin)
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


# ------------------------------------------------------------------ machine code


def compiled(dtype, arch):
    programs = [each for each in cuda_sources.programs(dtype) if each[0].startswith("persistent-")]
    try:
        return cubin.examine_all("nvrtc", programs, arch).kernels
    except cubin.ToolMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("label", ["slopes", "noise"])
def test_other_shared_memory_is_as_little_as_is_kept_for_it(label, tmp_path):
    """In float64, where it is most; the tool counts what the GPU keeps from each block, too."""
    program = dict(cuda_sources.programs("float64"))[f"persistent-{label}"]
    try:
        code, _ = cubin.compiler("nvrtc").compile(program, 90)
        tool = cubin.find_disassembler("cuobjdump")
    except cubin.ToolMissing as missing:
        pytest.skip(str(missing))
    (tmp_path / "cubin").write_bytes(code)
    usage = cubin.run(tool, "--dump-resource-usage", str(tmp_path / "cubin"))
    [used] = re.findall(r"SHARED:(\d+)", usage)
    assert 0 < int(used) - persistent_kernel.H100.reserved <= persistent_kernel.STATIC


GENERIC = re.compile(r"^(LD|ST)\b")
SHARED_BY_128 = re.compile(r"^LDS\.128\b")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shared_memory_is_accessed_as_such(dtype):
    """Never through addresses of any memory; in the products by 128 bits."""
    for kernel in compiled(dtype, 90):
        assert kernel.count(GENERIC) == 0, kernel
        assert kernel.count(SHARED_BY_128) >= 20, kernel
