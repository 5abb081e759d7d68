"""Threads that share pieces of work: every piece once, errors, nesting, forks, and ends."""

import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import pytest

from gpumlp.backend.cpu import pool
from tests.helpers.commandline import without_notes
from tests.helpers.waiting import HANGS as WAIT


@pytest.fixture
def cores(monkeypatch):
    """cores(n) makes a pool for n cores, however many there are."""

    def make(count):
        monkeypatch.setattr(pool, "_cores", lambda: count)
        monkeypatch.setattr(pool, "_pool", pool._Pool())

    make(4)
    return make


def in_a_process(code):
    """Runs code in a fresh interpreter; what it printed."""
    start = "import os, sys, threading, time\nfrom gpumlp.backend.cpu import pool\n"
    start += "pool._cores = __import__('functools').cache(lambda: 4)\n"
    code = start + textwrap.dedent(code)
    # Since 3.12 Python warns of every fork beside threads.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    assert not without_notes(done.stderr)
    return done.stdout


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("pieces", [0, 1, 2, 3, 4, 37])
def test_every_piece_is_done_once(cores, count, pieces):
    cores(count)
    for _ in range(20):
        done = []
        pool.run(done.append, pieces)
        assert sorted(done) == list(range(pieces))


def test_the_first_piece_is_the_callers(cores):
    where = {}
    pool.run(lambda i: where.update({i: threading.get_ident()}), 4)
    assert where[0] == threading.get_ident()


@pytest.mark.parametrize("pieces", [2, 3, 4])
def test_pieces_run_at_the_same_time(cores, pieces):
    barrier = threading.Barrier(pieces)
    pool.run(lambda i: barrier.wait(WAIT), pieces)
    pool.run(lambda i: barrier.wait(WAIT), pieces)


def test_no_more_threads_than_cores(cores):
    cores(3)
    here, barrier = set(), threading.Barrier(3)

    def work(i):
        here.add(threading.get_ident())
        if i < 3:
            barrier.wait(WAIT)  # until all have come
        time.sleep(0.01)

    pool.run(work, 40)
    pool.run(lambda i: here.add(threading.get_ident()), 2)
    assert len(here) == 3
    assert pool._pool.helpers == 2


@pytest.mark.parametrize("bad", [0, 1, 3])
def test_an_exception_arrives_when_all_pieces_have_ended(cores, bad):
    barrier = threading.Barrier(4)
    ended = []

    def work(i):
        barrier.wait(WAIT)
        if i == bad:
            raise KeyError(i)
        time.sleep(0.05)
        ended.append(i)

    for _ in range(2):
        with pytest.raises(KeyError, match=str(bad)):
            pool.run(work, 4)
        assert sorted(ended) == [i for i in range(4) if i != bad]
        ended.clear()


def test_after_an_exception_no_piece_is_begun_by_the_caller(cores):
    cores(1)
    done = []

    def work(i):
        done.append(i)
        raise ValueError

    with pytest.raises(ValueError):
        pool.run(work, 3)
    assert done == [0]


def test_a_piece_may_share_its_own_work(cores):
    barrier = threading.Barrier(4)
    done = []

    def work(i):
        barrier.wait(WAIT)
        pool.run(lambda j: done.append((i, j, threading.get_ident())), 3)
        barrier.wait(WAIT)

    pool.run(work, 4)
    assert sorted(pair[:2] for pair in done) == [(i, j) for i in range(4) for j in range(3)]
    # Each did its own: nobody was left to help.
    assert all(len({t for i, _, t in done if i == each}) == 1 for each in range(4))


def test_helpers_have_one_thread(cores):
    barrier = threading.Barrier(4)
    counts = {}

    def work(i):
        barrier.wait(WAIT)
        counts[i] = pool.threads()

    pool.run(work, 4)
    assert (counts[1], counts[2], counts[3]) == (1, 1, 1)
    assert pool.threads() == 4


def test_many_callers_at_once(cores):
    wrong = []

    def call():
        for _ in range(200):
            done = []
            pool.run(done.append, 5)
            if sorted(done) != list(range(5)):
                wrong.append(done)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(WAIT)
        assert not caller.is_alive()
    assert not wrong
    assert pool._pool.helpers == 3


def test_who_finds_the_others_at_work_works_alone(cores):
    started, release = threading.Event(), threading.Event()

    def long(i):
        started.set()
        assert release.wait(WAIT)

    other = threading.Thread(target=pool.run, args=[long, 2])
    other.start()
    assert started.wait(WAIT)
    here = set()
    pool.run(lambda i: here.add(threading.get_ident()), 4)
    release.set()
    other.join(WAIT)
    assert here == {threading.get_ident()}


def test_a_helper_that_wakes_late_is_not_waited_for(cores, monkeypatch):
    monkeypatch.setattr(pool, "_serve", lambda jobs: time.sleep(0.5))
    done = []
    pool.run(done.append, 4)
    assert done == [0, 1, 2, 3]


def test_a_helper_that_gets_a_job_again_does_nothing_again(cores):
    pool._pool.helpers = 2  # that never come, so that one gets the job three times
    done = []

    def work(i):
        while i == 0 and (len(done) < 3 or pool._pool.jobs.qsize()):
            time.sleep(0.001)
        done.append(i)

    pool.run(work, 4)
    assert done == [1, 2, 3, 0]
    barrier = threading.Barrier(2)
    pool.run(lambda i: barrier.wait(WAIT), 2)  # by when it has been through with the first


def test_the_work_is_let_go_of_at_once(cores):
    class Buffer:
        pass

    buffer = Buffer()
    gone = weakref.ref(buffer)
    pool.run(lambda i, buffer=buffer: time.sleep(0.01), 4)
    del buffer
    barrier = threading.Barrier(4)
    pool.run(lambda i: barrier.wait(WAIT), 4)  # by when the helpers are done with the first
    assert gone() is None


def test_without_threads_the_caller_does_all(cores, monkeypatch):
    def fail(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    done = []
    pool.run(done.append, 4)
    assert done == [0, 1, 2, 3]


def test_a_forked_process_makes_threads_of_its_own():
    in_a_process("""
        def meet():
            barrier = threading.Barrier(4)
            pool.run(lambda i: barrier.wait(200), 4)
        meet()
        if child := os.fork():
            meet()
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        meet()
        os._exit(0)
    """)


def test_a_fork_while_others_work():
    in_a_process("""
        started, release = threading.Event(), threading.Event()
        def long(i):
            started.set()
            release.wait(200)
        other = threading.Thread(target=pool.run, args=[long, 4])
        other.start()
        started.wait(200)
        if child := os.fork():
            release.set()
            other.join()
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        barrier = threading.Barrier(4)
        pool.run(lambda i: barrier.wait(200), 4)
        os._exit(0)
    """)


@pytest.mark.parametrize("last", ["", "raise SystemExit(0)", "os.kill(os.getpid(), 0)"])
def test_a_process_ends_without_waiting_for_helpers(last):
    in_a_process(f"pool.run(lambda i: time.sleep(0.01), 4)\n{last}")


def test_work_while_the_interpreter_ends():
    printed = in_a_process("""
        import atexit
        def work():
            done = []
            pool.run(done.append, 4)
            print(sorted(done))
        atexit.register(work)
        work()
    """)
    assert printed == "[0, 1, 2, 3]\n" * 2


def test_work_in_a_thread_that_outlives_the_main_one():
    printed = in_a_process("""
        def work():
            for _ in range(300):
                done = []
                pool.run(done.append, 4)
                assert sorted(done) == [0, 1, 2, 3]
            print("done")
        threading.Thread(target=work).start()
    """)
    assert printed == "done\n"


def test_worker_processes_use_it():
    printed = in_a_process("""
        from joblib import Parallel, delayed
        def work():
            from gpumlp.backend.cpu import pool
            done = []
            pool.run(done.append, 4)
            return sorted(done), pool.threads()
        print(Parallel(n_jobs=2)(delayed(work)() for _ in range(4)))
    """)
    assert printed.count("[0, 1, 2, 3]") == 4


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine of 8 cores without limits."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(pool, "CGROUP_QUOTA", tmp_path / "cpu.max")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path / "cpu.max"


@pytest.mark.parametrize(
    ("limit", "count"),
    [("3", 3), ("2,1", 2), ("64", 8), ("0", 1), ("", 8), ("many", 8)],
)
def test_the_environment_limits_the_threads(machine, monkeypatch, limit, count):
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert pool._cores.__wrapped__() == count


@pytest.mark.parametrize(
    ("quota", "count"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("", 8)],
)
def test_a_containers_quota_limits_the_threads(machine, quota, count):
    machine.write_text(f"{quota}\n")
    assert pool._cores.__wrapped__() == count


def test_the_cores_are_those_that_the_process_may_use(monkeypatch, machine):
    assert pool._cores.__wrapped__() == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    assert pool._cores.__wrapped__() == 1
