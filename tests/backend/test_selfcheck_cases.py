"""The cases of the self-check: which there are, and how they are run and compared."""

import inspect
import re

import numpy as np
import pytest

import gpumlp
import gpumlp.functions.sklearn_losses
from gpumlp.backend import contract, selfcheck
from gpumlp.backend.selfcheck.case import TOLERANCE
from gpumlp.backend.selfcheck.update_cases import OVERFLOWING
from gpumlp.functions.loss import pair
from gpumlp.functions.optimizer import examples, optimizers
from gpumlp.training import persistent_cases
from tests.seeded import planted
from tests.seeded.bugs import BUGS

CASES = [*selfcheck.cases(), *persistent_cases.cases()]
FIRST = [case for case in CASES if case.first]


def of(operation):
    return [case for case in CASES if case.operation == operation]


# ------------------------------------------------------------------ what it covers


def test_every_operation_is_as_numpys(device):
    name = "cuda:0" if device == "cuda" else device
    outcomes = list(selfcheck.run(name, CASES))
    assert [str(outcome) for outcome in outcomes if not outcome.passed] == []
    left_out = {case.operation for case in CASES} - {o.case.operation for o in outcomes}
    assert left_out == (
        set() if device == "cuda" else {"cast_bf16", "transfers", "persistent_kernel"}
    )


def test_no_case_is_there_twice():
    assert len({str(case) for case in CASES}) == len(CASES)


def test_every_activation_is_covered():
    names = {f.name for f in gpumlp.activations.values()}
    rows = {f.name for f in gpumlp.activations.values() if f.rows}
    for dtype in "float32", "float64":
        assert names <= {case.what for case in of("activate") if case.dtype == dtype}
        assert names - rows <= {case.what for case in of("backprop") if case.dtype == dtype}


def test_every_way_of_every_loss_is_covered():
    """The cases name a loss and one output of those that it meets in the same way."""
    for dtype in "float32", "float64":
        covered = [case.what.split(", ") for case in of("loss") if case.dtype == dtype]
        ways = {
            (name, pair(gpumlp.losses[name], gpumlp.activations[f]))
            for name, f in covered
            if name in gpumlp.losses
        }
        for name, loss in gpumlp.losses.items():
            for f in loss.outputs or gpumlp.activations:
                assert (name, pair(loss, gpumlp.activations[f])) in ways, f"{name}, {f}, {dtype}"


def test_every_loss_of_the_estimators_is_covered():
    reported = {"log_loss", "binary_log_loss", "mean_squared_error", "poisson_deviance"}
    text = inspect.getsource(gpumlp.functions.sklearn_losses)
    forms = set(re.findall(r'"(\w*(?:Loss|Error|Log))"', text))
    assert forms == {"LogLoss", "BinaryLogLoss", "MeanSquaredError", "PoissonDevianceLog"}
    for dtype in "float32", "float64":
        assert reported <= {c.what.split(", ")[0] for c in of("loss") if c.dtype == dtype}


def test_every_optimizer_is_covered():
    for dtype in "float32", "float64":
        covered = {case.what.split(",")[0] for case in of("update") if case.dtype == dtype}
        assert covered == set(optimizers) >= {"SGD", "RMSprop", "Adam", "AdamW"}


def test_every_operation_of_the_contract_is_covered():
    # the host's, or nothing is computed
    others = {
        *("threads", "parallel", "add_up", "pace", "chip", "free_memory", "total_memory"),
        *("export_algorithms", "load_algorithms", "on_device", "to_device", "to_host"),
    }
    methods = {name for name, _ in inspect.getmembers(contract.Ops, inspect.isfunction)}
    operations = {name for name in methods if not name.startswith("_")}
    assert operations - others == {case.operation for case in CASES} - {"copies"}


def test_the_first_use_takes_programs_that_a_fit_takes(cuda, monkeypatch):
    from gpumlp.backend.cuda import cupy_ops

    compiled, real = set(), cupy_ops._kernel

    def noted(device, text, name):
        compiled.add(text)
        return real(device, text, name)

    monkeypatch.setattr(cupy_ops, "_kernel", noted)
    assert all(outcome.passed for outcome in selfcheck.run("cuda:0", FIRST))
    checked = set(compiled)
    compiled.clear()
    x, y = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32), np.arange(90) % 3
    net = gpumlp.MLP((5, 7, 3), device="cuda")
    gpumlp.Trainer(net).fit(x, y, epochs=1, validation=(x, y), progress=False)
    net.forward(x)
    assert checked <= compiled
    assert 24 <= len(FIRST) <= 48 and len(checked) <= 9


# operation -> how many cases, and the multiple of the dtype's tolerance that they are allowed
EXTENT = {
    "activate": (60, 1), "prepare_update": (5, 5), "backprop": (56, 5), "capture": (2, 1),
    "copies": (1, 0), "gather": (16, 1), "gemm": (30, 1), "loss": (102, 5), "cast_bf16": (1, 0),
    "scale": (3, 1), "scale_gradient": (2, 5), "sparse_product": (4, 1), "sparse_gradient": (3, 5),
    "persistent_kernel": (6, 5), "shuffle": (3, 1), "accumulate_metrics": (4, 1),
    "transfers": (1, 0),
    "update": (2 * (len(dict(examples())) + len(OVERFLOWING) + 2) + 1, 5),
}  # fmt: skip


def test_no_case_gets_lost_or_lenient():
    found = {}
    for operation in {case.operation for case in CASES}:
        allowed = {round(case.tolerance / TOLERANCE[case.dtype], 6) for case in of(operation)}
        found[operation] = (len(of(operation)), *allowed)
    assert found == EXTENT


NARROWING = [
    name for name, bug in BUGS.items() if bug.check == "copies in bfloat16" and not bug.message
]


@pytest.mark.parametrize("bug", [*NARROWING, "a number that is cut instead of rounded"])
def test_wrong_rounding_is_found(bug, cuda, counters):
    with planted(BUGS[bug]):
        assert not any(outcome.passed for outcome in selfcheck.run("cuda:0", of("cast_bf16")))


# ------------------------------------------------------------------ how they are compared


@pytest.mark.parametrize(
    ("computed", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 3.0], [1.0, 2.0], 1 / 3.5),
        ([np.nan, 2.0], [1.0, 2.0], np.inf),
        ([1.0, np.nan], [1.0, np.nan], 0.0),
        ([1.0, np.inf], [1.0, np.inf], 0.0),
        ([1.0, np.inf], [1.0, -np.inf], np.inf),
        ([0.0, 1e-3], [0.0, 0.0], 1e-3),
    ],
)
def test_the_error_is_in_proportion(computed, expected, error):
    assert selfcheck._difference(np.array(computed), np.array(expected)) == pytest.approx(error)


def test_integers_are_equal_or_not():
    large = np.array([2**63 + 1], np.uint64)
    assert selfcheck._difference(large, large) == 0
    assert selfcheck._difference(large, large + np.uint64(1)) == 1  # float64 has no such numbers


def test_an_old_gpu_is_not_asked_to_round(cuda, counters, monkeypatch):
    import cupy

    asked = [case for case in of("gemm") if case.dtype in ("tf32", "bf16")]
    assert len(list(selfcheck.run("cuda:0", asked))) == len(asked) > 2
    monkeypatch.setattr(cupy.cuda.Device, "compute_capability", "75")
    assert list(selfcheck.run("cuda:0", asked)) == []


def test_a_network_that_does_not_fit_is_left_out(cuda, monkeypatch):
    monkeypatch.setattr(gpumlp.backend.cuda.persistent_kernel, "fit", lambda shape, chip: None)
    assert list(selfcheck.run("cuda:0", of("persistent_kernel"))) == []
