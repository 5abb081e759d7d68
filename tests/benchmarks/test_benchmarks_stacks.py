"""The contenders that train many networks at once, or search over many: they do the same."""

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

import gpumlp
from benchmarks import agreement, compared, goals, machine, stacks, turns
from benchmarks.contenders import (
    EAGER_LOOP,
    ENTRIES,
    GRAPHED_VMAP,
    LIBRARY,
    LIBRARY_LOOP,
    OF_STACKS,
    OPERATIONS,
    RESIDENT,
    SCIKIT_LEARN_LOOP,
    SCIKIT_LEARN_SEARCH,
    VMAP,
    Contender,
    Declined,
    Entry,
    searches,
)
from benchmarks.networks import Network, Problem
from gpumlp.training import persistent
from tests.helpers.waiting import HANGS, has_ended, until

SMALL = [Network((5, 7, 3), 8, 20, loss, models=3) for loss in ("cross_entropy", "squared_error")]
TOLERANCE = agreement.TOLERANCE["float32"]


def make(name, network, device="cpu"):
    entry = next(each for each in (*ENTRIES, *OF_STACKS) if each.name == name)
    package = pytest.importorskip(entry.package, reason=f"{entry.package} is not installed")
    if entry.package == "torch":
        package.set_num_threads(1)  # others would wait for the cores that other tests have
    return entry.load()(Problem(network), device)


def test_networks_of_a_stack_differ_and_can_be_taken_out():
    problem = Problem(SMALL[0])
    one = problem.alone(1)
    assert one.network.models is None and one.x is problem.x
    for k in (1, 2):
        assert problem.W[k].shape == (3, *one.W[k].shape) and problem.b[k].shape[0] == 3
        np.testing.assert_array_equal(one.W[k], problem.W[k][1])
        assert (problem.W[k][1] != problem.W[k][2]).all()


def test_digits_are_scikit_learns():
    problem = Problem(stacks.FITS._replace(rows=500, models=2))
    assert problem.x.shape == (500, 64) and problem.x.dtype == np.float32
    assert problem.x.min() == 0 and problem.x.max() == 1
    assert set(problem.y) == set(range(10))


@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.loss)
@pytest.mark.parametrize("name", [LIBRARY_LOOP, SCIKIT_LEARN_LOOP, EAGER_LOOP, VMAP])
def test_all_do_the_same_two_steps(name, network):
    expected, other = make(LIBRARY, network), make(name, network)
    answers = other.answers()
    assert len(answers["losses"]) == 6
    assert answers["arrays"][0].shape == (3, 7, 5)
    assert agreement.difference(answers, expected.answers()) < TOLERANCE


@pytest.mark.parametrize("name", [LIBRARY, LIBRARY_LOOP, SCIKIT_LEARN_LOOP, EAGER_LOOP, VMAP])
def test_all_train(name):
    """From the problem's weights again at every fit."""
    contender, ends = make(name, SMALL[0]._replace(rows=40)), []
    contender.load()
    first = contender.epoch()
    for _ in range(2):
        contender.work("fit 12")()
        contender.wait()
        ends.append(contender.epoch())
    assert all(0 < end < 0.95 * first for end in ends)
    assert ends[0] == pytest.approx(ends[1], rel=0.02)  # PyTorch's orders are drawn anew


@pytest.mark.parametrize("name", [OPERATIONS, RESIDENT])
def test_both_ways_of_a_gpu_are_measured(cuda, name, monkeypatch):
    taken = []
    launcher = persistent.launcher

    def noted(updates, rows):
        launch = launcher(updates, rows)
        taken.append(launch is not None)
        return launch

    contender, expected = make(name, SMALL[0], "cuda:0"), make(LIBRARY, SMALL[0])
    monkeypatch.setattr(persistent, "launcher", noted)
    assert agreement.difference(contender.answers(), expected.answers()) < TOLERANCE
    contender.epoch()
    assert set(taken) == {name == RESIDENT}


def test_networks_too_large_for_shared_memory_are_declined(cuda):
    contender = make(RESIDENT, Network((3000, 40, 3), 4, 8, models=2), "cuda:0")
    with pytest.raises(Declined, match="shared memory"):
        contender.load()


@pytest.mark.parametrize("name", [LIBRARY_LOOP, VMAP])
def test_one_network_is_declined(name):
    with pytest.raises(Declined, match="many networks"):
        make(name, SMALL[0]._replace(models=None))


def test_mixed_up_networks_are_noticed():
    contender = make(VMAP, SMALL[0])
    expected = make(LIBRARY, SMALL[0]).answers()
    update = contender._update_rows

    def mixed(index):
        losses = update(index)
        return losses.roll(1)

    contender._update_rows = mixed
    assert agreement.difference(contender.answers(), expected) > TOLERANCE


# ------------------------------------------------------------------ searches


def test_searches_score_the_same():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    problem = searches.Search(16, 3, 4).problem()
    ours, theirs = (entry.load()(problem, "cpu") for entry in searches.ENTRIES)
    theirs.processes = None
    found, expected = ours.answers(), theirs.answers()
    assert found["arrays"][0].shape == (3, 4)
    assert len(np.unique(expected["arrays"][0])) > 4
    np.testing.assert_allclose(found["arrays"][0], expected["arrays"][0], rtol=1e-9)
    grid = problem.grid
    assert {len(values) for values in grid.values()} == {4}


def test_a_search_that_learns_nothing_is_an_error(monkeypatch):
    contender = searches.ENTRIES[0].load()(searches.Search(1, 2, 1).problem(), "cpu")
    contender.problem.grid = {"learning_rate_init": [1e-12]}
    with pytest.raises(ArithmeticError, match="best of all candidates"):
        contender.search()


def test_a_search_that_is_not_there_is_declined(monkeypatch):
    monkeypatch.delitem(gpumlp._MODULE, "GridSearchCV")
    monkeypatch.delitem(vars(gpumlp), "GridSearchCV", raising=False)
    with pytest.raises(Declined, match="no GridSearchCV"):
        searches.ENTRIES[0].load()(searches.Search(1, 2, 1).problem(), "cpu")


class Processes(Contender):
    """In which processes joblib works."""

    def __init__(self, problem, device):
        pass

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


@pytest.mark.parametrize("hangs", [False, True])
def test_contenders_may_have_processes_of_their_own_which_end_with_them(hangs, monkeypatch):
    runner = turns.Runner(_Here("processes", "joblib", "", ""), "cpu", limit=HANGS)
    pids = runner.ask("prepare", SMALL[0], "answers")["losses"]
    assert len({*pids, os.getpid(), runner._process.pid}) == 4
    if hangs:
        monkeypatch.setattr(turns, "END", 0.1)
        os.kill(runner._process.pid, signal.SIGSTOP)
    runner.close()
    until(lambda: all(map(has_ended, [*pids, runner._process.pid])))
    left = list(Path("/dev/shm").glob(f"*[-_]{runner._process.pid}[-_]*"))
    assert hangs or not left
    for path in left:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


PARENT = """
from benchmarks import turns
from tests.benchmarks.test_benchmarks_stacks import HANGS, SMALL, _Here
runner = turns.Runner(_Here("processes", "joblib", "", ""), "cpu", limit=HANGS)
print(*runner.ask("prepare", SMALL[0], "answers")["losses"], runner._process.pid, flush=True)
runner.ask("time", "sleep", False)
"""


def test_contenders_end_with_their_parent_however_that_ends():
    asked = [sys.executable, "-c", PARENT]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True, cwd=machine.ROOT) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 3 and not any(map(has_ended, pids))
        parent.kill()
    until(lambda: all(map(has_ended, pids)))
    for path in Path("/dev/shm").glob(f"*[-_]{pids[-1]}[-_]*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


class _Here(Entry):
    def load(self):
        return Processes


# ------------------------------------------------------------------ goals


def record_of(task, what, times):
    found = {
        name: {"error": None, "declined": None, "works": {what: {"seconds": [taken]}}}
        for name, taken in times.items()
    }
    compared.summarise(found)
    return {"name": task.name, "task": task._asdict(), "works": [what], "contenders": found}


def test_goals_of_stacks():
    fits = record_of(stacks.FITS, "fit 30", {LIBRARY: 1.0, LIBRARY_LOOP: 2.5, VMAP: 3.0})
    search = record_of(stacks.SEARCH, "search", {LIBRARY: 10.0, SCIKIT_LEARN_SEARCH: 30.0})
    judged = {g["goal"]: g for g in goals.judge({"device": "cpu", "stacks": [fits, search]})}
    named = [goal for text, goal in judged.items() if "networks" in text or "candidates" in text]
    assert [(goal["limit"], goal["found"], goal["met"]) for goal in named] == [
        (2, 2.5, True),
        (4, 3.0, False),
    ]
    fit_table, search_table = stacks.tables([fits, search], "cpu")
    assert "2.50x" in fit_table.text() and "32 networks" in fit_table.title
    assert "3.00x" in search_table.text() and "64 candidates x 5 folds" in search_table.title

    times = {LIBRARY: 1.0, VMAP: 9.0, GRAPHED_VMAP: 2.5}
    record = record_of(stacks.THOUSAND, "epoch", times)
    judged = {g["goal"]: g for g in goals.judge({"device": "cuda:0", "stacks": [record]})}
    named = [goal for text, goal in judged.items() if "1,000 networks" in text]
    assert [(goal["limit"], goal["met"]) for goal in named] == [(10, False), (2, True)]
