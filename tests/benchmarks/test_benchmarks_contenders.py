"""Contenders do the same, alone and in processes of their own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import agreement, cases, compared, machine, turns
from benchmarks.contenders import (
    ENTRIES,
    GEMMS,
    LIBRARY,
    Contender,
    Declined,
    Entry,
    everyday,
    gemms,
)
from benchmarks.contenders.searches import Search
from benchmarks.networks import FITS, Network, Problem
from gpumlp.backend.device import resolve
from gpumlp.training import executors
from tests.helpers.waiting import HANGS, has_ended, until

SMALL = [Network((5, 7, 3), 8, 20, loss) for loss in ("cross_entropy", "squared_error")]
STACKS = [network._replace(models=3) for network in SMALL]
TOLERANCE = agreement.TOLERANCE["float32"]
LOOPS = cases.LOOPS
SINGLE = ["scikit-learn", "PyTorch eager", "JAX"]


def make(name, network, device="cpu"):
    entry = ENTRIES[name]
    package = pytest.importorskip(entry.package, reason=f"{entry.package} is not installed")
    if entry.package == "torch":
        package.set_num_threads(1)  # others would wait for the cores that other tests have
    return entry.make(Problem(network), device)


@pytest.mark.parametrize("network", [*SMALL, *STACKS], ids=lambda network: network.name)
def test_library_and_gemms_run_on_every_device(device, network):
    library, products = (make(name, network, resolve(device)) for name in (LIBRARY, GEMMS))
    on_cpu = make(LIBRARY, network)
    assert agreement.difference(library.answers(), on_cpu.answers()) < TOLERANCE
    first = library.epoch()
    for _ in range(20):
        last = library.epoch()
    assert last < first
    assert products.answers() is None
    products.epoch()


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_other_precisions_agree_within_their_rounding(device, precision):
    network = SMALL[0]._replace(precision=precision)
    answers = make(LIBRARY, network, resolve(device)).answers()
    by = agreement.difference(answers, make(LIBRARY, SMALL[0]).answers())
    assert by < agreement.TOLERANCE[precision]
    assert make(GEMMS, network, resolve(device)).answers() is None


@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.loss)
@pytest.mark.parametrize("name", SINGLE)
def test_all_do_the_same_two_steps(name, network):
    expected, other = make(LIBRARY, network), make(name, network)
    assert agreement.difference(other.answers(), expected.answers()) < TOLERANCE


@pytest.mark.parametrize("network", STACKS, ids=lambda network: network.loss)
@pytest.mark.parametrize("name", [*LOOPS, "PyTorch vmap"])
def test_all_do_the_same_two_steps_of_a_stack(name, network):
    answers = make(name, network).answers()
    assert len(answers["losses"]) == 6 and answers["arrays"][0].shape == (3, 7, 5)
    assert agreement.difference(answers, make(LIBRARY, network).answers()) < TOLERANCE


@pytest.mark.parametrize("name", [LIBRARY, *LOOPS, "PyTorch vmap"])
def test_all_train(name):
    """From the problem's weights again at every fit."""
    contender, ends = make(name, STACKS[0]._replace(rows=40)), []
    contender.load()
    first = contender.epoch()
    for _ in range(2):
        contender.work("fit 12")()
        contender.wait()
        ends.append(contender.epoch())
    assert all(0 < end < 0.95 * first for end in ends)
    assert ends[0] == pytest.approx(ends[1], rel=0.02)  # PyTorch's orders are drawn anew


def test_networks_of_a_stack_differ_and_can_be_taken_out():
    problem = Problem(STACKS[0])
    one = problem.alone(1)
    assert one.network.models is None and one.x is problem.x
    for k in (1, 2):
        assert problem.W[k].shape == (3, *one.W[k].shape) and problem.b[k].shape[0] == 3
        np.testing.assert_array_equal(one.W[k], problem.W[k][1])
        assert (problem.W[k][1] != problem.W[k][2]).all()


def test_digits_are_scikit_learns():
    problem = Problem(FITS._replace(rows=500, models=2))
    assert problem.x.shape == (500, 64) and problem.x.dtype == np.float32
    assert problem.x.min() == 0 and problem.x.max() == 1
    assert set(problem.y) == set(range(10))


def test_a_stack_does_as_its_networks_alone():
    contender = make(LIBRARY, STACKS[0])
    contender.answers()
    contender.epoch()
    contender.problem.W[1][2, 0, 0] += 1  # the networks alone get it, this one had it not
    contender.load = lambda: None
    with pytest.raises(ArithmeticError, match="differs from one alone"):
        contender.answers()


@pytest.mark.parametrize("name", ["gpumlp in a loop", "PyTorch vmap"])
def test_one_network_is_declined(name):
    with pytest.raises(Declined, match="many networks"):
        make(name, SMALL[0])


def test_pytorch_written_out_does_everyday_work():
    pytest.importorskip("torch", reason="torch is not installed")
    done, declined = [], []
    for task in everyday.TASKS:
        try:
            contender = ENTRIES[everyday.WRITTEN].make(task.small(), "cpu")
        except Declined:
            declined.append(task.name)
            continue
        assert contender.answers() is None  # and it trains
        if task.work == "predict":
            assert contender.work("predict")().shape == (task.small().called,)
        done.append(task.work)
    assert set(done) == {"fit", "predict", "partial_fit"} and len(declined) == 3


@pytest.mark.parametrize("name", cases.WAYS)
def test_both_ways_of_a_gpu_are_measured(cuda, name, monkeypatch):
    taken = []
    choose = executors.choose

    def noted(*arguments, **options):
        executor = choose(*arguments, **options)
        taken.append(isinstance(executor, executors.PersistentKernel))
        return executor

    contender, expected = make(name, STACKS[0], "cuda:0"), make(LIBRARY, STACKS[0])
    monkeypatch.setattr(executors, "choose", noted)
    assert agreement.difference(contender.answers(), expected.answers()) < TOLERANCE
    contender.epoch()
    assert set(taken) == {name == "persistent kernel"}


def test_networks_too_large_for_shared_memory_are_declined(cuda):
    contender = make("persistent kernel", Network((3000, 40, 3), 4, 8, models=2), "cuda:0")
    with pytest.raises(Declined, match="shared memory"):
        contender.load()


# ------------------------------------------------------------------ the step's GEMMs


def test_gemms_alone_are_the_products_of_the_step():
    contender = make(GEMMS, Network((5, 7, 6, 3), 8, 20))
    contender.answers()
    products = contender.products(8)
    forward = [(8, 7), (8, 6), (8, 3)]
    # delta^(3) is the loss's; dL/dW^(k) follows delta^(k)
    shapes = [product.options["out"].shape[1:] for product in products]
    assert sorted(shapes) == sorted([*forward, (3, 6), (8, 6), (6, 7), (8, 7), (7, 5)])
    assert contender.products(4)[0].options["out"].shape == (1, 4, 7)
    # Where the step finds it, in the cache.
    assert products[1].arguments[0] is products[0].options["out"]
    gemms.repeat(products)
    before = [product.options["out"].copy() for product in products]
    for _ in range(50):
        gemms.repeat(products)
    for product, expected in zip(products, before, strict=True):
        np.testing.assert_array_equal(product.options["out"], expected)
    stack = make(GEMMS, STACKS[0])
    assert {product.options["out"].shape[0] for product in stack.products(8)} == {3}


def test_wrong_gemms_are_noticed():
    contender = make(GEMMS, SMALL[0])
    contender.load()
    product = contender.products(8)[-1]
    product()
    contender.check(product)
    product.options["out"][:] += 1
    with pytest.raises(ArithmeticError, match="is wrong by"):
        contender.check(product)
    for broken in (1e-40, np.inf, np.nan):
        product.arguments[0][:] = broken
        with pytest.raises(ArithmeticError, match="denormal"):
            contender.check(product)
    assert gemms.TOLERANCE.keys() == agreement.TOLERANCE.keys()


# ------------------------------------------------------------------ answers before times


@pytest.mark.parametrize("part", ["losses", "arrays"])
def test_other_answers_are_an_error(part):
    case = cases.Case("training", SMALL[0], ("step",), (LIBRARY, "other"))
    contender = make(LIBRARY, SMALL[0])
    reference, other = contender.answers(), contender.answers()
    results = {LIBRARY: {"error": None}, "other": {"error": None}}
    compared.compare({LIBRARY: reference, "other": other}, results, case)
    assert results["other"] == {"error": None, "difference": 0.0}
    other[part][-1] = other[part][-1] * 1.001
    compared.compare({LIBRARY: reference, "other": other}, results, case)
    assert "answers differ" in results["other"]["error"]


def test_mixed_up_networks_are_noticed():
    contender = make("PyTorch vmap", STACKS[0])
    update = contender.update_rows
    contender.update_rows = lambda index: update(index).roll(1)
    assert agreement.difference(contender.answers(), make(LIBRARY, STACKS[0]).answers()) > TOLERANCE


def test_searches_score_the_same():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    names = "gpumlp's GridSearchCV", "scikit-learn's, 2 processes"
    ours, theirs = (ENTRIES[name].make(Search(16, 3, 4), "cpu") for name in names)
    theirs.processes = None
    scores, expected = (contender.answers()["arrays"][0] for contender in (ours, theirs))
    assert scores.shape == (3, 4) and len(np.unique(expected)) > 4
    np.testing.assert_allclose(scores, expected, rtol=1e-9)
    assert {len(values) for values in ours.task.grid().values()} == {4}


def test_a_search_that_learns_nothing_is_an_error(monkeypatch):
    contender = ENTRIES["gpumlp's GridSearchCV"].make(Search(1, 2, 1), "cpu")
    monkeypatch.setattr(Search, "grid", lambda self: {"learning_rate_init": [1e-12]})
    with pytest.raises(ArithmeticError, match="best of all candidates"):
        contender.search()


# ------------------------------------------------------------------ processes


def test_contenders_that_fail_decline_die_or_hang_are_told_apart():
    runner = turns.Runner(ENTRIES[LIBRARY], "cpu", limit=HANGS)
    with pytest.raises(turns.Failed, match="no_such_verb"):
        runner.ask("no_such_verb")
    assert len(runner.ask("prepare", SMALL[0])["losses"]) == 2  # it has survived
    os.kill(runner.pid, signal.SIGKILL)
    with pytest.raises(turns.Failed, match="terminated abruptly"):
        runner.ask("time", "step")
    runner.close()
    hanging = turns.Runner(ENTRIES[LIBRARY], "cpu", limit=0.01)
    os.kill(hanging.pid, signal.SIGSTOP)
    with pytest.raises(turns.Failed, match=r"no answer in 0\.01 s"):
        hanging.ask("prepare", SMALL[0])
    hanging.close()
    assert has_ended(hanging.pid)
    declining = turns.Runner(ENTRIES["scikit-learn"], "cpu", limit=HANGS)
    with pytest.raises(Declined, match="one network"):
        declining.ask("prepare", STACKS[0])
    declining.close()


class Processes(Contender):
    """In which processes joblib works."""

    def answers(self):
        import joblib

        with tempfile.TemporaryDirectory() as folder:
            pids = joblib.Parallel(n_jobs=2)(joblib.delayed(_pid)(folder) for _ in range(2))
        return {"losses": pids, "arrays": []}

    def sleep(self):
        time.sleep(60)


def _pid(folder):
    """Of this process, when another process has taken the other call."""
    Path(folder, str(os.getpid())).touch()
    until(lambda: len(os.listdir(folder)) == 2)
    return os.getpid()


class _Here(Entry):
    def make(self, problem, device):
        return Processes(problem, device)


@pytest.mark.parametrize("hangs", [False, True])
def test_contenders_may_have_processes_of_their_own_which_end_with_them(hangs, monkeypatch):
    runner = turns.Runner(_Here("joblib", ""), "cpu", limit=HANGS)
    pids = runner.ask("prepare", SMALL[0])["losses"]
    assert len({*pids, os.getpid(), runner.pid}) == 4
    if hangs:
        monkeypatch.setattr(turns, "END", 0.1)
        os.kill(runner.pid, signal.SIGSTOP)
    runner.close()
    until(lambda: all(map(has_ended, [*pids, runner.pid])))
    left = shared_memory(runner.pid)
    assert hangs or not left
    remove(left)


PARENT = """
from benchmarks import turns
from tests.benchmarks.test_benchmarks_contenders import HANGS, SMALL, _Here
if __name__ == "__main__":
    runner = turns.Runner(_Here("joblib", ""), "cpu", limit=HANGS)
    print(*runner.ask("prepare", SMALL[0])["losses"], runner.pid, flush=True)
    runner.ask("time", "sleep")
"""


def test_contenders_end_with_their_parent_however_that_ends():
    asked = [sys.executable, "-c", PARENT]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True, cwd=machine.ROOT) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 3 and not any(map(has_ended, pids))
        parent.kill()
    until(lambda: all(map(has_ended, pids)))
    remove(shared_memory(pids[-1]))


def shared_memory(pid: int) -> list[Path]:
    """What joblib has there for this process."""
    return list(Path("/dev/shm").glob(f"*[-_]{pid}[-_]*"))


def remove(paths):
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
